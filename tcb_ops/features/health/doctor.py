"""The table of checks (name, probe, fix): the machine, the files, the target. None can block or end the others."""

from __future__ import annotations

import locale
import os
import platform
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tcb_ops.catalogue import ERRCODE
from tcb_ops.checks import DoctorCheck, DoctorFinding, Grade
from tcb_ops.disk import others_may_read, restricting
from tcb_ops.engine.loop import submit_coroutine
from tcb_ops.errors import InputError, SettingsError, TcbOpsError, TransportError, TransportFault
from tcb_ops.features.health.questions import ask_about
from tcb_ops.features.health.verdicts import SKEWED, Actor, Facts, clock_text, presumed_verdict, verdict_of
from tcb_ops.hooks import features
from tcb_ops.i18n import CommandText, _, as_clauses, as_facts, as_lines, as_list, ngettext, pgettext, verbatim
from tcb_ops.kinds import environment_count, merchant_count
from tcb_ops.ledger.connection import not_a_ledger, on_network
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.locks import HeldError, hold
from tcb_ops.lists.input_files import format_problem
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import Merchant, Owner
from tcb_ops.settings import Settings, settings_file
from tcb_ops.system_errors import system_reason
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError, InvalidResponse
from tcb_ops.wechat.single_transport import SingleTransport
from tcb_ops.wechat.transport import Timeouts

SECONDS = 18.0
"""Time limit of a check."""
QUICK = Timeouts(connect=4, answer=4)
"""Short, because a user is waiting."""
NOTED = 60
"""Clock difference in seconds for a warning."""
LONG_PATHS = r"SYSTEM\CurrentControlSet\Control\FileSystem"
"""The registry key of `LongPathsEnabled`."""


def all_checks(
    settings: Settings | SettingsError, config: str | None, where: Sequence[str]
) -> Iterator[DoctorCheck]:
    """Yield the checks in order, the features' own last; with invalid settings only those that need none."""
    yield DoctorCheck("python", verbatim("Python"), check_python)
    yield DoctorCheck("settings", _("settings"), partial(check_settings, settings, config))
    if isinstance(settings, SettingsError):
        return
    if os.name == "nt":
        yield DoctorCheck("windows", verbatim("Windows"), partial(check_windows, settings))
    fix = _("Fix the file: no run starts while any of its lines has a problem.")
    label, probe = pgettext("check", "merchants"), partial(check_merchants, settings, where)
    yield DoctorCheck("merchants", label, probe, fix)
    fix = _("Fix that, or choose another ledger with {--ledger}.")
    yield DoctorCheck("ledger", _("ledger"), partial(check_ledger, settings), fix)
    if secret_paths(settings):
        yield DoctorCheck("secrets", _("secrets"), partial(check_secrets, settings))
    fix = _(
        "Check api_base, the network, the firewall, any proxy on the way, and the files that SSL_CERT_FILE and "
        "SSL_CERT_DIR name; then run doctor again."
    )
    yield DoctorCheck("target", pgettext("check", "target"), partial(check_target, settings), fix)
    fix = _("Fix the token source ([tokens] in the settings).")
    probe = partial(call_with_token, settings, where)
    yield DoctorCheck("tokens", _("token source"), probe, fix, ("target",))
    brought = (check(settings) for feature in features().values() for check in feature.checks)
    yield from filter(None, brought)


def run_checks(checks: Iterable[DoctorCheck]) -> Iterator[tuple[DoctorCheck, DoctorFinding]]:
    """Yield each check with its finding. Each blocks for at most SECONDS; raises nothing."""
    passed: set[str] = set()
    for check in checks:
        if passed.issuperset(check.needs):
            finding = probe_limited(check, SECONDS)
        else:
            finding = DoctorFinding(Grade.SKIPPED, _("not checked, because a check above did not pass"))
        if finding.grade in {Grade.OK, Grade.WARNING}:
            passed.add(check.name)
        if finding.grade in {Grade.WARNING, Grade.BAD} and finding.fix is None:
            finding = replace(finding, fix=check.fix)
        yield check, finding


def probe_limited(check: DoctorCheck, seconds: float) -> DoctorFinding:
    """Probe in a thread for at most `seconds`. A thread that a name server, a disk or a program blocks is abandoned."""
    findings: list[DoctorFinding] = []

    def probe() -> None:
        try:
            findings.append(check.probe())
        except Exception as error:  # noqa: BLE001  a broken check must not hide the other results
            findings.append(_from_error(error))

    thread = threading.Thread(target=probe, name=f"doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if findings:
        return findings[0]
    fix = _("A name server, a disk or a program does not answer. Fix that, then run doctor again.")
    return DoctorFinding(Grade.BAD, _("did not finish within {seconds:.0f} s", seconds=seconds), fix)


def _from_error(error: Exception) -> DoctorFinding:
    if isinstance(error, TcbOpsError):
        return DoctorFinding(Grade.BAD, error.problem, error.fix)
    if isinstance(error, OSError):
        reason = system_reason(error)
        observation = _("{file}: {why}", file=error.filename, why=reason) if error.filename else reason
        return DoctorFinding(Grade.BAD, observation)
    text = _("the check itself failed ({kind})", kind=type(error).__name__)
    return DoctorFinding(Grade.BAD, text, _("Please report it: this is a bug in tcb-ops."))


# --- the machine and the files ----------------------------------------------------------------------------------------


def check_python() -> DoctorFinding:
    """Name the versions, for a report of a bug."""
    machine = f"{platform.system()} {platform.machine()}".strip()
    text = f"{platform.python_version()} ({machine}), tcb-ops {version('tcb-ops')}"
    return DoctorFinding(Grade.OK, verbatim(text))


def check_settings(settings: Settings | SettingsError, config: str | None) -> DoctorFinding:
    """Check that the settings are valid."""
    if isinstance(settings, SettingsError):
        fix = _("Fix it; `tcb-ops init` in an empty folder writes a file with every setting.")
        return DoctorFinding(Grade.BAD, settings.problem, settings.fix or fix)
    file = settings_file(config)
    text = _("no {file} here: defaults, TCB_OPS_… variables and options apply")
    if file.exists():
        text = _("{file} is valid")
    return DoctorFinding(Grade.OK, text.format(file=file))


def check_merchants(settings: Settings, where: Sequence[str]) -> DoctorFinding:
    """Check that the merchants file can be read, and count its contents."""
    file = settings.merchants
    if not file.exists():
        fix = _("Create it: `tcb-ops init` in an empty folder writes a file to fill in.")
        return DoctorFinding(Grade.BAD, _("{file} does not exist", file=file), fix)
    try:
        merchants = read_merchants(file, where)
    except InputError as error:
        listed = as_clauses(format_problem(file.name, problem) for problem in error.problems[:3])
        text = ngettext("{n:,} problem: {listed}", "{n:,} problems: {listed}", len(error.problems))
        return DoctorFinding(Grade.BAD, text.format(listed=listed))
    lines = ngettext("{n:,} line", "{n:,} lines", len(merchants))
    names = merchant_count(len({line.appid for line in merchants}))
    counts = as_facts((lines, names, environment_count(len(merchants.envs))))
    return DoctorFinding(Grade.OK, _("{file}: {counts}", file=file, counts=counts))


def check_ledger(settings: Settings) -> DoctorFinding:
    """Check that the ledger can be opened and written. A missing file is not created."""
    file = Path(settings.ledger)
    folder = file.resolve().parent
    if "://" not in settings.ledger and folder.is_dir():
        for path in (folder, file):
            if path.exists() and not os.access(path, os.W_OK):
                raise not_a_ledger(str(file), _("{folder} cannot be written", folder=path))
        if not file.exists():
            text = _("{file} does not exist yet: the first run creates it", file=file)
            return DoctorFinding(Grade.OK, text)
    ledger = Ledger(settings.ledger)
    try:
        if ledger.file is None:
            with suppress(HeldError), hold(ledger, "doctor"):
                pass  # raises behind a connection pooler that takes locks away
    finally:
        ledger.close()
    return DoctorFinding(Grade.OK, verbatim(ledger.name))


def secret_paths(settings: Settings) -> list[Path]:
    """Return the files and folders in which the token source keeps secrets."""
    tokens = settings.tokens
    if tokens.source == "component":
        files = [
            place.removeprefix("file:")
            for place in (tokens.secret, tokens.ticket)
            if place.startswith("file:")
        ]
        return [*(Path(file.strip()) for file in files), tokens.store]
    return [tokens.file] if tokens.source == "file" else []


def check_secrets(settings: Settings) -> DoctorFinding:
    """Check that only their owner can read the files and folders in which the token source keeps secrets."""
    paths = [path for path in secret_paths(settings) if path.exists()]
    if not paths:
        return DoctorFinding(Grade.SKIPPED, _("no files with secrets here"))
    readable = [path for path in paths if any(map(others_may_read, (path, *path.glob("*"))))]
    if not readable:
        return DoctorFinding(Grade.OK, _("{named}: readable only by you", named=as_list(paths)))
    observation = _("others on this machine may read {named}", named=as_list(readable, most=3))
    commands = (CommandText(restricting(path.absolute())) for path in readable)
    fix = as_lines((_("Restrict them to yourself:"), *commands))
    # The simulator's tokens give access to nothing.
    return DoctorFinding(Grade.WARNING if settings.on_loopback else Grade.BAD, observation, fix)


# --- the target -------------------------------------------------------------------------------------------------------


def check_target(settings: Settings) -> DoctorFinding:
    """Call the target without a token, which uses no quota, and compare its clock with this machine's. Blocks.

    Raises TransportError.
    """

    async def call() -> tuple[dict[str, Any] | ApiError | InvalidResponse, float, float]:
        async with SingleTransport(connections=1, timeouts=QUICK) as transport:
            client, began = PlatformClient(transport, settings.api_base), time.perf_counter()
            answer = await client.call("tcb/getenvinfo", {})
            return answer, time.perf_counter() - began, client.clock_offset or 0.0

    answer, seconds, offset = submit_coroutine(call()).result()
    base = settings.api_base
    if isinstance(answer, InvalidResponse):
        raise TransportError(TransportFault.GARBAGE, _("{api_base}: {why}", api_base=base, why=answer.why))
    text = _("{api_base} responded as expected in {ms:.0f} ms", api_base=base, ms=seconds * 1000)
    return grade_clock(offset) or DoctorFinding(Grade.OK, text)


def grade_clock(offset: float) -> DoctorFinding | None:
    """Grade the difference between the target's clock and this machine's; None where it does not matter."""
    if abs(offset) <= NOTED:
        return None
    grade = Grade.WARNING if abs(offset) <= SKEWED else Grade.BAD
    return DoctorFinding(grade, clock_text(offset), presumed_verdict("RequestTimeTooSkewed").action)


def call_with_token(settings: Settings, where: Sequence[str]) -> DoctorFinding:
    """Check that the token source has a token, and that the target accepts calls from this machine with it.

    Asks about the first merchant, as `why` does. Blocks. Raises SettingsError.
    """
    lines: list[Merchant] = []
    with suppress(TcbOpsError, OSError):  # a file that cannot be read is reported by its own check
        lines = [line for line in read_merchants(settings.merchants, where) if not line.left]
    if not lines:
        return DoctorFinding(Grade.SKIPPED, _("no merchant to request a token for"))
    merchant = next((line for line in lines if line.owner is Owner.MERCHANT), lines[0])
    (facts,) = submit_coroutine(ask_about([Facts(merchant=merchant)], lines, settings)).result()
    verdict = verdict_of(facts)
    label = _("{name} ({appid})", name=merchant.name, appid=merchant.appid)
    if verdict is None:
        return DoctorFinding(Grade.OK, _("calls are accepted (asked about {label} only)", label=label))
    # A code of our own would say nothing more than its meaning.
    text = _("{label}: {code}, {meaning}") if ERRCODE.fullmatch(verdict.code) else _("{label}: {meaning}")
    observation = text.format(label=label, code=verdict.code, meaning=verdict.meaning)
    ours = verdict.who in {Actor.YOU, Actor.ADMINISTRATOR}
    return DoctorFinding(Grade.BAD if ours else Grade.WARNING, observation, verdict.action)


def check_windows(settings: Settings) -> DoctorFinding:
    """Look at this laptop. Raises OSError."""
    ledger = None if "://" in settings.ledger else Path(settings.ledger).resolve().parent
    clouds = [folder for name, folder in os.environ.items() if name.upper().startswith("ONEDRIVE") and folder]
    on = ""
    if ledger is not None:
        on = "network" if on_network(ledger) else "cloud" if any(map(ledger.is_relative_to, clouds)) else ""
    return windows_finding(locale.getencoding(), on, long_paths=_long_paths())


def windows_finding(code_page: str, ledger_on: str, *, long_paths: bool) -> DoctorFinding:
    """Judge what was seen: a ledger on a network drive is refused by every run, one in OneDrive and short paths are a warning.

    `ledger_on`: `network`, `cloud`, or empty.
    """
    observations = [
        _("code page {code_page}", code_page=code_page),
        _("long paths allowed") if long_paths else _("paths of at most 260 characters"),
    ]
    fixes = []
    if ledger_on:
        place = _("OneDrive") if ledger_on == "cloud" else _("a network drive")
        observations.append(_("the ledger is on {place}", place=place))
        text = _(
            "Keep the ledger in a local folder that is not synchronised: ledger = … in the settings, or {--ledger}."
        )
        fixes.append(text)
    if not long_paths:
        text = _("For longer paths set LongPathsEnabled to 1 in HKLM\\{key}, as an administrator.")
        fixes.append(text.format(key=LONG_PATHS))
    grade = Grade.BAD if ledger_on == "network" else Grade.WARNING if fixes else Grade.OK
    return DoctorFinding(grade, as_clauses(observations), as_clauses(fixes) if fixes else None)


def _long_paths() -> bool:
    if sys.platform != "win32":
        return True
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, LONG_PATHS) as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    except FileNotFoundError:
        return False
