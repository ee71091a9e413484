"""Tell the team what an audit found: one message to each `[[notify]]` of the settings.

What fails is retried, reported, and fails no audit. `message` writes the message for each kind of receiver.
"""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from email.message import EmailMessage
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from tcb_ops.errors import TcbOpsError, TransportError
from tcb_ops.i18n import Lang, Text, _, verbatim
from tcb_ops.model import Secret, is_loopback, is_simulated
from tcb_ops.notifications.message import (
    BUSY,
    AuditMessage,
    audit_message,
    dingtalk_url,
    refusal,
    robot_body,
    trial_message,
    webhook_signature,
)
from tcb_ops.reports.audit import AuditResult
from tcb_ops.reports.export import MANIFEST, PAGE, fingerprint
from tcb_ops.resources import system_reason
from tcb_ops.runs.loop import submit_coroutine
from tcb_ops.settings import NotifySettings, Settings
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.transport import Timeouts, Transport

TIMEOUTS = Timeouts(connect=5, answer=10)
"""Seconds: an audit does not wait for a robot that hangs."""
RETRY_WAITS = (1.0, 5.0)
"""Seconds before each further try."""
BUSY_WAIT = 60.0
"""Seconds before the next try where a robot has had too many messages."""
COMMAND_SECONDS = 30.0
MAIL_SECONDS = 15.0
"""Without progress of a mail server."""
SMTPS = 465
"""The port on which a mail server expects TLS from the beginning."""
MOST_PAGE = 5 * 1024 * 1024
"""Bytes of a page that is attached to an e-mail."""


@dataclass(frozen=True, slots=True)
class Notification:
    """What became of one message."""

    kind: str
    sent: bool
    """The receiver accepted it."""
    detail: Text
    """Why it was not sent, or not accepted. Holds no address and no key."""
    due: bool = True
    """Whether the receiver wanted to hear of it."""
    entry: int = 0
    """Where several receivers are of this kind: which `[[notify]]` section of the settings this is, counted from 1."""
    name: str = ""
    """Likewise: the file or variable that has its address, or the program, or the first recipient."""

    @property
    def receiver(self) -> Text:
        """The kind, and which one of several it is."""
        if not self.entry:
            return verbatim(self.kind)
        return _("{kind} ({name}, entry {entry})", kind=self.kind, name=self.name, entry=self.entry)

    def to_json(self, lang: Lang) -> dict[str, Any]:
        """Return it for `--json`."""
        found = {"kind": self.kind, "sent": self.sent, "detail": self.detail.of(lang)}
        return found | ({"entry": self.entry, "name": self.name} if self.entry else {})


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


@dataclass(frozen=True, slots=True)
class Missed:
    """An audit whose message did not arrive, and what was new in it."""

    run: str
    new: int
    recovered: int
    unknown: int
    stopped: bool
    report: str

    @classmethod
    def of(cls, result: AuditResult) -> Missed:
        """Sum up what was new in an audit."""
        counts, run = result.counts(), result.run
        unknown = sum(finding.is_new for finding in result.unknown)
        return cls(
            run.id, counts["new"], counts["recovered"], unknown, result.stopped is not None, run.report
        )

    @property
    def text(self) -> Text:
        """One line for the next message."""
        report = self.report or "–"
        if self.stopped:
            return _(
                "The message of audit {run} did not arrive: it was stopped. Its report: {report}",
                run=self.run,
                report=report,
            )
        return _(
            "The message of audit {run} did not arrive: newly broken {new:,} · recovered {recovered:,} · newly unknown "
            "{unknown:,}. Its report: {report}",
            **{name: getattr(self, name) for name in ("run", "new", "recovered", "unknown")},
            report=report,
        )


Undelivered = Mapping[str, Sequence[Missed]]
"""By receiver (`receivers`): the audits whose messages have not arrived, oldest first."""
MISSED_KEPT = 10
MISSED_SHOWN = 2


def still_undelivered(before: Sequence[Missed], this: Missed | None, *, arrived: bool) -> tuple[Missed, ...]:
    """Return what a receiver has still not been told after an audit; `this` is None if no message of its own was due.

    ==============  =============  =========================
    due of its own  arrived        still to be told
    ==============  =============  =========================
    any             yes            nothing
    no              no             what was before
    yes             no             what was before, and this
    ==============  =============  =========================
    """
    if arrived:
        return ()
    others = [one for one in before if this is None or one.run != this.run]
    return (*others, *([] if this is None else [this]))[-MISSED_KEPT:]


def receivers(settings: Settings) -> list[str]:
    """Return a name for each `[[notify]]` under which the ledger keeps what it has not been told; no secret."""
    found, times = [], Counter[str]()
    for one in settings.notify:
        name = f"{one.kind} {_name(one)}"
        times[name] += 1
        found.append(f"{name} {times[name]}" if times[name] > 1 else name)
    return found


def notify_audit(
    result: AuditResult,
    settings: Settings,
    *,
    always: bool = False,
    before: Undelivered = MappingProxyType({}),
    keep: Callable[[Undelivered], None] = lambda _: None,
) -> list[Notification]:
    """Send the message about an audit to everybody who wants to hear of it. Blocks; raises nothing for what fails.

    `before`: what has not arrived so far; who wants to hear of changes is told of that, too. `keep` is called with what
    has not arrived, before the first receiver is asked and after each.
    """
    lang = settings.lang
    folder = Path(result.run.report) if result.run.report else None
    page = folder / PAGE if folder is not None else None
    report = str(page) if page is not None else ""
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
        **result.to_json(lang),
    }
    found, this = [], Missed.of(result)
    names = receivers(settings)
    left = {
        name: still_undelivered(
            before.get(name, ()), this if is_due(one.on, result) and not always else None, arrived=False
        )
        for name, one in zip(names, settings.notify, strict=True)
    }
    keep(left)
    for name, one in zip(names, settings.notify, strict=True):
        missed = [other.text for other in before.get(name, ()) if other.run != this.run][-MISSED_SHOWN:]
        if not (always or is_due(one.on, result) or (missed and one.on == "change")):
            found.append(Notification(one.kind, sent=False, detail=_("not sent: nothing is new"), due=False))
            continue
        message = audit_message(result, report, manifest_sha256, lang, markdown=_markdown(one), missed=missed)
        found.append(_deliver(one, message, payload, settings, page))
        if found[-1].sent and left[name]:
            left[name] = still_undelivered((), None, arrived=True)
            keep(left)
    return _told_apart(found, settings)


def notify_test(settings: Settings) -> list[Notification]:
    """Send a test message to every receiver. Blocks; raises nothing for what fails."""
    simulated = is_simulated(settings.run_target)
    found = [
        _deliver(
            one,
            trial_message(settings.lang, markdown=_markdown(one), simulated=simulated),
            {"test": True, "target": settings.run_target, "simulated": simulated},
            settings,
            None,
        )
        for one in settings.notify
    ]
    return _told_apart(found, settings)


def _told_apart(found: Sequence[Notification], settings: Settings) -> list[Notification]:
    """Name each receiver that is not the only one of its kind."""
    kinds = Counter(one.kind for one in found)
    return [
        replace(one, entry=entry, name=_name(to)) if kinds[one.kind] > 1 else one
        for entry, (one, to) in enumerate(zip(found, settings.notify, strict=True), 1)
    ]


def _name(to: NotifySettings) -> str:
    """Return what tells a receiver from others of its kind, and is no secret; of a command not the arguments."""
    if to.kind == "command":
        return Path(to.command[0]).name
    if to.kind == "email":
        return to.to[0]
    return to.url_env or Path(to.url_file or "").name


def _markdown(to: NotifySettings) -> bool:
    return to.format == "markdown" and to.kind != "email"


def _deliver(
    to: NotifySettings,
    message: AuditMessage,
    payload: Mapping[str, Any],
    settings: Settings,
    page: Path | None,
) -> Notification:
    """Deliver one message, in several tries."""
    why: Text = verbatim("")
    for wait in (*RETRY_WAITS, None):
        try:
            if to.kind == "command":
                _run_command(to.command, _body(message, payload))
            elif to.kind == "email":
                _send_mail(to, message, page)
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
            return Notification(to.kind, sent=True, detail=_("accepted"))
    return Notification(to.kind, sent=False, detail=why)


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
        return await transport.post_json(url, body, headers)


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


# --- commands and e-mail ----------------------------------------------------------------------------------------


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
        raise _NotSent(_("the program ended with exit code {code}", code=ended.returncode), again=True)


def _send_mail(to: NotifySettings, message: AuditMessage, page: Path | None) -> None:
    """Send an e-mail with the page attached, encrypted but to this machine."""
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = message.title, to.sender, ", ".join(to.to)
    mail.set_content(message.fit(1 << 20))
    if page is not None and page.is_file() and page.stat().st_size <= MOST_PAGE:
        mail.add_attachment(
            page.read_bytes(),
            maintype="text",
            subtype="html",
            filename=page.name,
            params={"charset": "utf-8"},
        )
    host, _colon, port = to.smtp.partition(":")
    password = _secret_of(to.secret_env, to.secret_file, "secret") if to.user else ""
    try:
        with _mail_server(host, int(port or SMTPS)) as server:
            if to.user:
                server.login(to.user, password)
            refused = server.send_message(mail)
    except smtplib.SMTPResponseException as error:
        raise _mail_refused(error.smtp_code) from None
    except smtplib.SMTPRecipientsRefused as error:
        raise _mail_refused(max(code for code, _text in error.recipients.values())) from None
    except smtplib.SMTPServerDisconnected:
        raise _NotSent(
            _("the mail server closed the connection, or gave no response in time"), again=True
        ) from None
    except smtplib.SMTPException:
        raise _NotSent(_("the mail server refused it")) from None
    except OSError as error:
        raise _NotSent(
            _("the mail server cannot be reached ({why})", why=system_reason(error)), again=True
        ) from None
    if refused:  # the others got it: another try would send it to them twice
        raise _NotSent(_("the mail server refused {n} of {all} recipients", n=len(refused), all=len(to.to)))


def _mail_server(host: str, port: int) -> smtplib.SMTP:
    """Connect, encrypted unless the server is this machine. Raises OSError or SMTPException."""
    context = ssl.create_default_context()
    if port == SMTPS:
        return smtplib.SMTP_SSL(host, port, timeout=MAIL_SECONDS, context=context)
    server = smtplib.SMTP(host, port, timeout=MAIL_SECONDS)
    if not is_loopback(host):
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def _mail_refused(code: int) -> _NotSent:
    """Return the error for a refusal; codes from 400 to 499 are temporary."""
    return _NotSent(_("the mail server refused it ({code})", code=code), again=400 <= code < 500)
