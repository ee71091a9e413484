"""Tell the team what an audit found: one message to each `[[notify]]` of the settings.

What fails is retried, reported, and fails no audit. First stands, pure, the message, and what each kind of group robot takes and
answers; then how it is sent.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import subprocess
import time
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote, urlsplit

from tcb_ops.arguments import checked
from tcb_ops.checks import DoctorCheck, DoctorFinding, Grade
from tcb_ops.details import DetailCode, detail
from tcb_ops.engine import next_commands
from tcb_ops.engine.loop import submit_coroutine
from tcb_ops.errors import SettingsError, TcbOpsError, TransportError, TransportFault, UsageError, check_value
from tcb_ops.features.health.audit import audited, newest_audit
from tcb_ops.features.health.audit_kind import AUDIT
from tcb_ops.features.health.audit_result import AuditResult
from tcb_ops.features.health.settings import NotifySettings
from tcb_ops.features.health.verdicts import presumed_verdict
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import CommandText, Lang, Text, _, as_clauses, as_lines, ngettext, verbatim
from tcb_ops.model import is_loopback, target_name
from tcb_ops.programs import COMMAND_SECONDS, Credential, in_folder
from tcb_ops.reports.explanations import MARK, code_label
from tcb_ops.reports.export import MANIFEST, PAGE, fingerprint
from tcb_ops.reports.findings import FindingLine
from tcb_ops.run import Run
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, find_run, identified, is_run_name, ledger_with_runs, settings_for
from tcb_ops.system_errors import system_reason
from tcb_ops.wechat.responses import HttpResponse, count_in
from tcb_ops.wechat.single_transport import SingleTransport
from tcb_ops.wechat.tokens import read_object
from tcb_ops.wechat.transport import HttpRequest, Timeouts

if TYPE_CHECKING:
    from tcb_ops.ledger.ledger import Ledger
    from tcb_ops.ledger.records import RunRecord

LONGEST_NAME = 40
"""Characters of a name, an environment or a note."""
LONGEST_REMARK = 120
LONGEST_LINE = 400
"""Bytes of a line above or below the environments: the report's path may be long."""
LIMITS: Mapping[str, int] = {"wecom": 2048, "feishu": 20_000, "dingtalk": 20_000}
"""Bytes of a request that a robot takes; WeCom counts its text only."""
TIMEOUTS = Timeouts(connect=5, answer=10)
"""Seconds: an audit does not wait for a robot that hangs."""
RETRY_WAITS = (1.0, 5.0)
"""Seconds before each further try."""

_ACTED_ON = str.maketrans("<>@", "＜＞＠")
"""Signs that robots act on in a text, as Feishu does on `<at user_id="all">`, and their full-width forms."""
_ADDRESS = re.compile(r":(?=//)|(?<=\w)\.(?=[^\W\d_]{2})|(?<=\d)\.(?=\d+\.\d)")
"""The signs by which chat programs find an address, with or without `https://`, and make a link of it."""


@dataclass(frozen=True, slots=True)
class AuditMessage:
    """A message in lines, so that it can be cut between them."""

    title: str
    head: tuple[str, ...]
    rows: tuple[str, ...]
    """The environments, below the titles of their sections."""
    tail: tuple[str, ...]
    lang: Lang

    def fit(self, most: int, size: Callable[[str], int]) -> str:
        """Return the message with at most `most` bytes, cut at a line, with the count of what was left out.

        `size`: of what is sent with a text.
        """
        message = self._text(len(self.rows))
        if size(message) <= most:
            return message
        fitting = bisect(range(len(self.rows)), most, key=lambda rows: size(self._text(rows))) - 1
        return self._text(fitting) if fitting >= 0 else cut("\n".join([*self.head, *self.tail]), most)

    def _text(self, rows: int) -> str:
        hidden = len(self.rows) - rows
        more = ngettext("… and {n:,} more line", "… and {n:,} more lines", hidden).of(self.lang)
        return "\n".join([*self.head, *self.rows[:rows], *([more] if hidden else []), *self.tail])


def cut(text: str, most: int) -> str:
    """Return the beginning of a text in at most `most` bytes of UTF-8, without half a character."""
    return text.encode()[:most].decode(errors="ignore")


def audit_message(result: AuditResult, report: str, manifest_sha256: str, lang: Lang) -> AuditMessage:
    """Write the message about an audit; `report` is its page or folder, empty where there is none."""
    title = _("Audit {id}", id=result.run.id).of(lang)
    head = [f"{MARK} · {title}" if result.run.simulated else title]
    rows: list[str] = []
    if result.stopped is not None:
        head.append(_plain(result.stopped.of(lang)))
        head.append(_("It affects every merchant; the audit was stopped.").of(lang))
    else:
        head.append(result.summary().of(lang))
        for section in result.news():
            rows.append(f"{section.title.of(lang)} · {len(section.lines):,}")
            rows += [section.action.of(lang)] if section.action is not None else []
            rows += [section.command] if section.command is not None else []
            rows += [entry_line(line, lang) for line in section.lines]
    head.append(next(iter(result.notes())).of(lang))
    tail = [_("Report: {report}", report=report).of(lang)] if report else []
    if manifest_sha256:
        tail.append(f"manifest sha256: {manifest_sha256}")
    head, tail = ([cut(line, LONGEST_LINE) for line in lines] for lines in (head, tail))
    return AuditMessage(title, tuple(head), tuple(rows), tuple(tail), lang)


def entry_line(line: FindingLine, lang: Lang) -> str:
    """Return an environment's line of the message, with who must act as its code suggests; long texts are cut."""
    label = code_label(line.code).of(lang) if line.code else ""
    remark = line.remark.of(lang) if line.remark is not None else ""
    code = line.code or ""
    cause = label if label == code else f"{code} {label}".strip()
    if line.code:
        cause = f"{cause} → {presumed_verdict(line.code).who_acts.of(lang)}"
    texts = [(line.name, LONGEST_NAME), (line.env, LONGEST_NAME), (cause, LONGEST_REMARK)]
    texts += [(remark, LONGEST_REMARK), (line.note, LONGEST_NAME)]
    shown = (text if len(text) <= most else f"{text[: most - 1]}…" for text, most in texts if text)
    return f"- {' · '.join(map(_plain, shown))}"


def _plain(text: str) -> str:
    """Return a text from outside on one line, without signs that a robot or a chat program would act on."""
    line = re.sub(r"\s+", " ", sanitize(text)).strip()
    line = _ADDRESS.sub(lambda sign: "：" if sign[0] == ":" else "．", line)
    return line.translate(_ACTED_ON)


def robot_request(
    kind: str, url: str, secret: str, message: AuditMessage, payload: Mapping[str, Any], now: float
) -> tuple[HttpRequest, bytes]:
    """Return the request to a receiver, signed if it has a secret, and its body: for a robot, cut to what it takes."""
    headers, sign = {"Content-Type": "application/json"}, dict[str, str]()
    if kind == "webhook":
        body = _with_text(message, payload)
        if secret:
            headers["X-Tcb-Ops-Signature"] = f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}"
        return HttpRequest("POST", url, headers), body
    if kind == "feishu" and secret:
        digest = hmac.digest(f"{int(now)}\n{secret}".encode(), b"", "sha256")
        sign = {"timestamp": str(int(now)), "sign": base64.b64encode(digest).decode()}
    if kind == "dingtalk" and secret:
        timestamp = round(now * 1000)
        digest = hmac.digest(secret.encode(), f"{timestamp}\n{secret}".encode(), "sha256")
        url = f"{url}&timestamp={timestamp}&sign={quote(base64.b64encode(digest), safe='')}"

    def of(text: str) -> bytes:
        if kind == "feishu":
            return _encoded({"msg_type": "text", "content": {"text": text}} | sign)
        return _encoded({"msgtype": "text", "text": {"content": text}})

    fitting = message.fit(LIMITS[kind], lambda text: len(text.encode() if kind == "wecom" else of(text)))
    return HttpRequest("POST", url, headers), of(fitting)


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _with_text(message: AuditMessage, payload: Mapping[str, Any]) -> bytes:
    text = message.fit(1 << 20, lambda text: len(text.encode()))
    return _encoded({"title": message.title, "text": text, **payload})


def refusal(kind: str, response: HttpResponse) -> Text | None:
    """Return why a message was not accepted; None where it was.

    A robot accepts with a 2xx and the errcode 0 (Feishu: `code` or `StatusCode`), a webhook with any 2xx but a web page's.
    """
    if not 200 <= response.status < 300:
        return verbatim(f"HTTP {response.status}")
    page = _("it answered with something other than a robot's JSON: check the address")
    if kind == "webhook":
        return page if response.body.lstrip().startswith(b"<") else None
    fields = read_object(response.body)
    code = count_in(fields.get("errcode", fields.get("code", fields.get("StatusCode"))))
    if code is None:
        return page
    return verbatim(f"errcode {code}") if code else None


# --- sending ---------------------------------------------------------------------------------------------------


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


class _NotSentError(TcbOpsError):
    """What another try would not change."""


def is_due(on: str, result: AuditResult) -> bool:
    """Return whether a receiver wants to hear of an audit; what is silenced counts for nothing.

    `always`; `change`: something is new, has recovered, or stopped; `failure`: something is unhealthy, unknown, or stopped.
    """
    if on == "always":
        return True
    return bool(result.run.stopped or result.news()) if on == "change" else result.exit_code() != 0


def receivers(settings: Settings) -> dict[str, NotifySettings]:
    """Return each `[[notify]]` by a name: its kind, and the file, variable or program that is named there; no secret."""
    named, times = dict[str, NotifySettings](), Counter[str]()
    for to in settings.section("notify"):
        place = to.url_env or Path(to.url_file or "").name
        name = f"{to.kind} {Path(to.command[0]).name if to.kind == 'command' else place}"
        times[name] += 1
        named[f"{name} {times[name]}" if times[name] > 1 else name] = to
    return named


def message_about(result: AuditResult, settings: Settings) -> tuple[AuditMessage, dict[str, Any]]:
    """Return the message about an audit, and the object that webhooks and commands get."""
    folder = Path(result.run.report) if result.run.report else None
    report = str(folder / PAGE) if folder is not None else ""
    if report and settings.report.url:  # a phone opens it
        page = settings.report.url.replace("{run}", quote(result.run.id))
        report = f"{page}{PAGE}" if page.endswith("/") else page
    manifest_sha256 = ""
    with suppress(OSError):
        manifest_sha256 = str(fingerprint(folder / MANIFEST)["sha256"]) if folder is not None else ""
    payload = {
        "run": result.run.id,
        "target": result.run.target,
        "simulated": result.run.simulated,
        "counts": result.counts(),
        "report": report or None,
        "manifest_sha256": manifest_sha256 or None,
        **result.to_json(settings.lang),
    }
    return audit_message(result, report, manifest_sha256, settings.lang), payload


def test_message(settings: Settings) -> tuple[AuditMessage, dict[str, Any]]:
    """Return a message that only shows that messages arrive."""
    simulated, lang = identified(settings).simulated, settings.lang
    title = _("tcb-ops: test message").of(lang)
    marked = f"{MARK} · {title}" if simulated else title
    head = (marked, _("The message of the nightly audit will arrive here.").of(lang))
    payload = {"test": True, "target": settings.run_target, "simulated": simulated}
    return AuditMessage(title, head, (), (), lang), payload


def deliver(
    name: str, to: NotifySettings, message: AuditMessage, payload: Mapping[str, Any], settings: Settings
) -> Notification:
    """Deliver one message, in several tries; a program runs once."""
    reason: Text = verbatim("")
    for wait in (*RETRY_WAITS, None):
        try:
            if to.kind == "command":
                _run_command(to.command, _with_text(message, payload), settings.folder_of("notify"))
            else:
                _post(to, message, payload, settings)
        except TcbOpsError as error:
            reason = error.text
            if wait is None or not isinstance(error, TransportError):
                break
            time.sleep(wait)
        except Exception as error:  # noqa: BLE001  no receiver keeps the others, or the verdict, from being told
            # Its text may hold an address.
            reason = _("unexpected error ({error})", error=type(error).__name__)
            break
        else:
            return Notification(name, sent=True, detail=_("accepted"))
    return Notification(name, sent=False, detail=reason)


def check_receiver(to: NotifySettings, settings: Settings) -> tuple[str, str]:
    """Return a receiver's address and key, if it has any. Raises TcbOpsError if one cannot be read, or a program found."""
    url = secret = ""
    if to.kind == "command":
        program = in_folder(to.command, settings.folder_of("notify"))[0]
        if which(program) is None:
            raise _NotSentError(_("there is no program {program}", program=program))
        return url, secret
    url = _secret_of(to.url_env, to.url_file, "url")
    if to.secret_env or to.secret_file:
        secret = _secret_of(to.secret_env, to.secret_file, "secret")
    _check_url(url, settings)
    return url, secret


def _post(to: NotifySettings, message: AuditMessage, payload: Mapping[str, Any], settings: Settings) -> None:
    url, secret = check_receiver(to, settings)
    request, body = robot_request(to.kind, url, secret, message, payload, time.time())

    async def send() -> HttpResponse:
        async with SingleTransport(connections=1, timeouts=TIMEOUTS) as transport:
            return await transport.send(request, body)

    response = submit_coroutine(send()).result()
    if (reason := refusal(to.kind, response)) is not None:
        busy = response.status >= 500
        raise TransportError(TransportFault.GARBAGE, reason) if busy else _NotSentError(reason)


def _secret_of(variable: str, file: Path | None, what: str) -> str:
    """Read an address or a key from where the settings say. Raises SettingsError."""
    setting, value = (f"{what}_env", f"env:{variable}") if variable else (f"{what}_file", f"file:{file}")
    return submit_coroutine(Credential.named(setting, value).read()).result().reveal()


def _check_url(url: str, settings: Settings) -> None:
    """Refuse an address that is not https; http only to this machine, while the target is a simulator on it."""
    try:
        parts = urlsplit(url)
        host, usable = parts.hostname or "", parts.port != 0
    except ValueError:
        host, usable = "", False
    local = is_loopback(host) and settings.on_loopback
    if not usable or not host or (parts.scheme != "https" and not (parts.scheme == "http" and local)):
        text = _("its address is not a plain https address (http: only this machine, as a simulated target)")
        raise _NotSentError(text)


def _run_command(command: Sequence[str], body: bytes, folder: Path | None) -> None:
    """Run a program with the message as JSON on its stdin; what it prints is not kept: it may be a key."""
    words, no = in_folder(command, folder), subprocess.DEVNULL
    try:
        ended = subprocess.run(  # noqa: S603  the operator's own program, without a shell
            words, cwd=folder, input=body, stdout=no, stderr=no, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        reason: Text = detail(DetailCode.NO_OUTPUT, command_seconds=COMMAND_SECONDS)
    except (OSError, ValueError) as error:
        reason = detail(DetailCode.NOT_STARTED, why=system_reason(error))
    else:
        if not ended.returncode:
            return
        reason = detail(DetailCode.EXIT_CODE, code=ended.returncode)
    raise _NotSentError(_("the program {reason}", reason=reason))


# --- who is told ----------------------------------------------------------------------------------------------


@checked
def notify(
    run: str | Run | None = "latest",
    *,
    on_demand: bool = True,
    **options: Unpack[TargetOptions],
) -> list[Notification]:
    """Send the message about a finished audit to every `[[notify]]` of the settings; return the deliveries.

    `run`: a Run, an id, a prefix or `latest` (the newest finished audit that is no retry); None sends a test message. `on_demand`
    False: only to receivers whose `on` applies. A failed delivery raises no error.
    """
    settings = settings_for(options, run)
    if isinstance(run, str):
        check_value("run", run, is_run_name(run), _("a Run, a run's id, or None"))
    named = receivers(settings)
    if not named:
        fix = _('Add a [[notify]] section to tcb-ops.toml, for example with kind = "wecom".')
        raise SettingsError(_("No receivers are configured."), fix)
    if run is None:
        return [deliver(name, to, *test_message(settings), settings) for name, to in named.items()]
    ledger = ledger_with_runs(settings)
    record = newest_audit(settings) if run == "latest" else find_run(run, settings).record
    if record is None:
        target = target_name(settings.run_target)
        raise UsageError(_("No audit of {target} has finished yet.", target=target))
    if record.kind is AUDIT and record.finished_at is None:
        text = _("Audit {id} is not finished: there is no result to send yet.", id=record.id)
        raise UsageError(text, _("Run the same audit again to finish it."))

    # Compared with the last audit of which each was told, so that what was not delivered is news again.
    results = {name: audited(Run(ledger, record, settings), name) for name in named}
    due = {name for name, to in named.items() if on_demand or is_due(to.on, results[name])}
    waiting = set(record.undelivered) | (set() if on_demand else due)
    note_undelivered(ledger, record, waiting)
    deliveries = []
    for name, to in named.items():
        if name not in due:
            deliveries.append(Notification(name, sent=False, detail=_("not sent: nothing is new"), due=False))
            continue
        deliveries.append(deliver(name, to, *message_about(results[name], settings), settings))
        if deliveries[-1].sent and name in waiting:
            waiting.remove(name)
            note_undelivered(ledger, record, waiting)
    return deliveries


def note_undelivered(ledger: Ledger, audit: RunRecord, receivers: Collection[str]) -> None:
    """Record to which receivers the message has not been delivered; a ledger that cannot be written keeps nobody from being told."""
    with suppress(TcbOpsError), ledger.writing() as connection:
        statement = "UPDATE runs SET undelivered = ? WHERE number = ?"
        connection.execute(statement, ("\n".join(sorted(receivers)), audit.number))


def receivers_check(settings: Settings) -> DoctorCheck | None:
    """Return the check that each receiver can be reached with what is here, and got the last audit's message."""
    named = receivers(settings)
    if not named:
        return None

    def look() -> DoctorFinding:
        problems = list[Text]()
        for name, to in named.items():
            try:
                check_receiver(to, settings)
            except TcbOpsError as error:
                problems.append(_("{receiver}: {detail}", receiver=name, detail=error.text))
        if (record := newest_audit(settings)) is not None:
            text = _("{receiver}: it did not get the message about {run}")
            problems += [text.format(receiver=name, run=record.id) for name in record.undelivered]
        if problems:
            return DoctorFinding(Grade.WARNING, as_clauses(problems))
        return DoctorFinding(Grade.OK, ngettext("{n:,} receiver", "{n:,} receivers", len(named)))

    test = CommandText(next_commands.quoted(next_commands.command(settings, "notify", "--test")))
    fix = as_lines((_("Correct [[notify]] in the settings, then send a test message:"), test))
    return DoctorCheck("notify", _("messages"), look, fix, ("ledger",))
