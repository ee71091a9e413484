"""Tell the team what an audit found: one message to each `[[notify]]` of the settings.

What fails is retried, reported, and fails no audit. `message` writes the message for each kind of receiver.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tcb_ops.errors import TcbOpsError, TransportError
from tcb_ops.features.audit.message import (
    BUSY,
    AuditMessage,
    audit_message,
    dingtalk_url,
    refusal,
    robot_body,
    trial_message,
    webhook_signature,
)
from tcb_ops.features.audit.result import AuditResult
from tcb_ops.features.audit.settings import NotifySettings
from tcb_ops.i18n import Lang, Text, _, verbatim
from tcb_ops.model import Secret, is_loopback, is_simulated
from tcb_ops.reports.export import MANIFEST, PAGE, fingerprint
from tcb_ops.resources import system_reason
from tcb_ops.runs.loop import submit_coroutine
from tcb_ops.settings import Settings
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.transport import HttpRequest, Timeouts, Transport

TIMEOUTS = Timeouts(connect=5, answer=10)
"""Seconds: an audit does not wait for a robot that hangs."""
RETRY_WAITS = (1.0, 5.0)
"""Seconds before each further try."""
BUSY_WAIT = 60.0
"""Seconds before the next try where a robot has had too many messages."""
COMMAND_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Notification:
    """What became of one message."""

    receiver: str
    """One of `receivers`."""
    sent: bool
    """The receiver accepted it."""
    detail: Text
    """Why it was not sent, or not accepted. Holds no address and no key."""
    due: bool = True
    """Whether the receiver wanted to hear of it."""

    def to_json(self, lang: Lang) -> dict[str, Any]:
        """Return it for `--json`."""
        return {"receiver": self.receiver, "sent": self.sent, "detail": self.detail.of(lang)}


class _NotSent(Exception):  # noqa: N818  ends one delivery, nothing else
    def __init__(self, why: Text, *, again: bool = False, busy: bool = False) -> None:
        super().__init__(why.en)
        self.why, self.again, self.busy = why, again, busy


def is_due(on: str, result: AuditResult) -> bool:
    """Return whether a receiver wants to hear of an audit.

    =========  ===========================================
    on         a message is sent
    =========  ===========================================
    always     always
    change     something is new, has recovered, or stopped
    failure    something is unhealthy, unknown, or stopped
    =========  ===========================================

    What is silenced counts for neither.
    """
    if on == "always":
        return True
    return result.changed if on == "change" else result.exit_code() != 0


def receivers(settings: Settings) -> list[str]:
    """Return a name for each `[[notify]]`: its kind, and the file, variable or program that is named there; no secret."""
    names, times = list[str](), Counter[str]()
    for to in settings.section("notify"):
        place = (
            Path(to.command[0]).name if to.kind == "command" else to.url_env or Path(to.url_file or "").name
        )
        name = f"{to.kind} {place}"
        times[name] += 1
        names.append(f"{name} {times[name]}" if times[name] > 1 else name)
    return names


def notify_audit(
    result_for: Callable[[str], AuditResult],
    settings: Settings,
    *,
    undelivered: Collection[str] = (),
    keep: Callable[[Collection[str]], None],
    always: bool = False,
) -> list[Notification]:
    """Send the message about an audit to everybody who wants to hear of it. Blocks; raises nothing for what fails.

    Args:
        result_for: returns the audit for a receiver (`receivers`): compared with the last one of which it was told, so
            that what was not delivered is news again.
        settings: name the receivers.
        undelivered: those to whom this audit's message has been due, but was not delivered.
        keep: is called with them, before the first receiver is asked and after each delivery.
        always: whether to send also what is not due.

    """
    results = {name: result_for(name) for name in receivers(settings)}
    due = {
        name
        for (name, result), to in zip(results.items(), settings.section("notify"), strict=True)
        if is_due(to.on, result)
    }
    waiting = {*undelivered, *(set() if always else due)}
    keep(waiting)
    deliveries = []
    for (name, result), to in zip(results.items(), settings.section("notify"), strict=True):
        if not always and name not in due:
            deliveries.append(Notification(name, sent=False, detail=_("not sent: nothing is new"), due=False))
            continue
        deliveries.append(_deliver(name, to, *_message(to, result, settings), settings))
        if deliveries[-1].sent and name in waiting:
            waiting.remove(name)
            keep(waiting)
    return deliveries


def _message(
    to: NotifySettings, result: AuditResult, settings: Settings
) -> tuple[AuditMessage, dict[str, Any]]:
    """Return the message about an audit, and the object that webhooks and commands get."""
    folder = Path(result.run.report) if result.run.report else None
    report = str(folder / PAGE) if folder is not None else ""
    manifest_sha256 = ""
    if folder is not None:
        with suppress(OSError):
            manifest_sha256 = str(fingerprint(folder / MANIFEST)["sha256"])
    payload = {
        "run": result.run.id,
        "target": result.run.target,
        "simulated": is_simulated(result.run.target),
        "counts": result.counts(),
        "report": report or None,
        "manifest_sha256": manifest_sha256 or None,
        **result.to_json(settings.lang),
    }
    markdown = to.format == "markdown"
    return audit_message(result, report, manifest_sha256, settings.lang, markdown=markdown), payload


def notify_test(settings: Settings) -> list[Notification]:
    """Send a test message to every receiver. Blocks; raises nothing for what fails."""
    simulated = is_simulated(settings.run_target)
    payload = {"test": True, "target": settings.run_target, "simulated": simulated}
    deliveries = []
    for name, to in zip(receivers(settings), settings.section("notify"), strict=True):
        message = trial_message(settings.lang, markdown=to.format == "markdown", simulated=simulated)
        deliveries.append(_deliver(name, to, message, payload, settings))
    return deliveries


def _deliver(
    name: str, to: NotifySettings, message: AuditMessage, payload: Mapping[str, Any], settings: Settings
) -> Notification:
    """Deliver one message, in several tries; a program runs once."""
    why: Text = verbatim("")
    for wait in (*RETRY_WAITS, None):
        try:
            if to.kind == "command":
                _run_command(to.command, _body(message, payload))
            else:
                _post(to, message, payload, settings)
        except _NotSent as error:
            why = error.why
            if wait is None or not error.again:
                break
            time.sleep(BUSY_WAIT if error.busy else wait)
        except Exception as error:  # noqa: BLE001  no receiver keeps the others, or the verdict, from being told
            why = _("unexpected error ({error})", error=type(error).__name__)  # its text may hold an address
            break
        else:
            return Notification(name, sent=True, detail=_("accepted"))
    return Notification(name, sent=False, detail=why)


def _body(message: AuditMessage, payload: Mapping[str, Any]) -> bytes:
    whole = {"title": message.title, "text": message.fit(1 << 20), **payload}
    return json.dumps(whole, ensure_ascii=False).encode()


# --- robots and webhooks ---------------------------------------------------------------------------------------


def _post(to: NotifySettings, message: AuditMessage, payload: Mapping[str, Any], settings: Settings) -> None:
    url = _secret_of(to.url_env, to.url_file, "url")
    secret = _secret_of(to.secret_env, to.secret_file, "secret") if to.secret_env or to.secret_file else ""
    _check_url(url, settings)
    now = time.time()
    headers = {}
    if to.kind == "webhook":
        body = _body(message, payload)
        if secret:
            headers["X-Tcb-Ops-Signature"] = webhook_signature(secret, body)
    else:
        body = robot_body(to.kind, to.format, message, secret, now)
    if to.kind == "dingtalk" and secret:
        url = dingtalk_url(url, secret, now)
    try:
        response = submit_coroutine(_send(Secret(url), body, headers)).result()
    except TransportError as error:
        raise _NotSent(error.text, again=True) from None
    except TcbOpsError as error:
        raise _NotSent(error.text) from None
    refused = refusal(to.kind, response)
    if refused is not None:
        why, code = refused
        raise _NotSent(why, again=response.status >= 500 or code in BUSY, busy=code in BUSY)


async def _send(url: Secret, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
    async with Transport(connections=1, timeouts=TIMEOUTS) as transport:
        json = {"Content-Type": "application/json", **headers}
        return await transport.send(HttpRequest("POST", url.reveal(), json), body)


def _secret_of(variable: str, file: Path | None, what: str) -> str:
    """Read an address or a key from where the settings say."""
    if variable:
        value = os.environ.get(variable, "").strip()
        if not value:
            raise _NotSent(
                _("the environment variable {variable} ({what}_env) is not set", variable=variable, what=what)
            )
        return value
    try:
        value = Path(file or "").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = system_reason(error) if isinstance(error, OSError) else verbatim("UTF-8")
        raise _NotSent(_("{what}_file cannot be read ({why})", what=what, why=why)) from None
    if not value:
        raise _NotSent(_("{what}_file is empty", what=what))
    return value


def _check_url(url: str, settings: Settings) -> None:
    """Refuse an address that is not https; http only to this machine, while the target is a simulator on it."""
    try:
        parts = urlsplit(url)
        host, usable = parts.hostname or "", parts.port != 0
    except ValueError:
        host, usable = "", False
    local = is_loopback(host) and is_simulated(settings.run_target)
    if not usable or not host or (parts.scheme != "https" and not (parts.scheme == "http" and local)):
        raise _NotSent(
            _(
                "its address is not a plain https address (http only reaches this machine, under a simulated target)"
            )
        )


# --- commands --------------------------------------------------------------------------------------------------


def _run_command(command: Sequence[str], body: bytes) -> None:
    """Run a program with the message as JSON on its stdin; what it prints is not kept: it may be a key."""
    try:
        ended = subprocess.run(  # noqa: S603  the operator's own program, without a shell
            command,
            input=body,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _NotSent(
            _("the program did not finish within {seconds:g} s", seconds=COMMAND_SECONDS)
        ) from None
    except (OSError, ValueError) as error:
        why = system_reason(error)
        raise _NotSent(_("the program cannot be started ({why})", why=why)) from None
    if ended.returncode:
        raise _NotSent(_("the program ended with exit code {code}", code=ended.returncode))
