"""The table of checks: the machine, the files, the target."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tcb_ops.checks import DoctorCheck, DoctorFinding, Grade
from tcb_ops.errors import InputError, SettingsError, TcbOpsError
from tcb_ops.features.doctor.target import (
    REMOTE_SECONDS,
    TokenOwner,
    call_with_token,
    compare_clocks,
    first_token,
    first_token_owners,
    reach,
)
from tcb_ops.i18n import Text, _, as_clauses, ngettext, pgettext, verbatim
from tcb_ops.kinds import parts
from tcb_ops.lists.input_files import format_problem
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import Merchant
from tcb_ops.runs.next_commands import of_run, quoted, resume
from tcb_ops.settings import Settings, TokenSettings, settings_file

SCARCE, TIGHT = 100 * 1000**2, 1000**3
"""Free bytes below which a run may fill the disk, and below which to warn."""
_AGAIN = _("Fix that, then run doctor again.")
_NETWORK = _(
    "Check api_base, the network, the firewall, any proxy on the way, and the files that SSL_CERT_FILE and SSL_CERT_DIR "
    "name; then run doctor again."
)


def all_checks(
    settings: Settings | SettingsError, config: str | None, where: Sequence[str]
) -> Iterator[DoctorCheck]:
    """Yield the checks in order; with invalid settings only those that need none."""
    yield DoctorCheck("python", verbatim("Python"), check_python, _AGAIN)
    yield DoctorCheck("browser", _("PDF browser"), check_browser, _AGAIN)
    yield DoctorCheck("settings", _("settings"), partial(check_settings, settings, config), _AGAIN)
    if isinstance(settings, SettingsError):
        return
    yield DoctorCheck(
        "merchants",
        pgettext("check", "merchants"),
        partial(check_merchants, settings, where),
        _("Fix the file: no run starts while any of its lines has a problem."),
    )
    yield DoctorCheck(
        "ledger",
        _("ledger"),
        partial(check_ledger, settings),
        _("Fix that, or choose another ledger with --ledger."),
    )
    if "://" not in settings.ledger:
        folder = Path(settings.ledger).resolve().parent
        yield DoctorCheck(
            "disk", _("disk"), lambda: check_disk(shutil.disk_usage(folder).free, folder), _AGAIN
        )
    yield DoctorCheck("secrets", _("secrets"), partial(check_secrets, settings), _AGAIN)
    for part in parts("checks"):
        yield from part(settings)
    target, remote = pgettext("check", "target"), REMOTE_SECONDS
    yield DoctorCheck("target", target, partial(reach, settings), _NETWORK, seconds=remote)
    yield DoctorCheck("clock", _("clock"), partial(compare_clocks, settings), _NETWORK, ("target",), remote)
    source = _("Fix the token source ([tokens] in the settings).")
    own_source = ("target",) if settings.tokens.source == "component" else ()

    def owners() -> list[TokenOwner]:
        return first_token_owners(_merchants(settings, where), settings.tokens.component_appid)

    token, call = lambda: first_token(settings, owners()), lambda: call_with_token(settings, owners())
    yield DoctorCheck("tokens", _("token source"), token, source, own_source, remote)
    yield DoctorCheck("address", _("this address"), call, _NETWORK, ("target", "tokens"), remote)


def _merchants(settings: Settings, where: Sequence[str]) -> list[Merchant]:
    try:
        return list(read_merchants(settings.merchants, where))
    except (TcbOpsError, OSError):  # reported by the check of the merchants file
        return []


def check_python() -> DoctorFinding:
    """Name the versions, for a report of a bug."""
    machine = f"{platform.system()} {platform.machine()}".strip()
    return DoctorFinding(
        Grade.OK, verbatim(f"{platform.python_version()} ({machine}), tcb-ops {version('tcb-ops')}")
    )


def check_browser() -> DoctorFinding:
    """Look for a Chromium, needed for PDF reports."""
    from tcb_ops.reports.formats.html import CHROMIUM, find_chromium

    if os.environ.get(CHROMIUM) == "":
        return DoctorFinding(Grade.SKIPPED, _("TCB_OPS_CHROMIUM is empty: no PDFs"))
    program = find_chromium()
    if program is not None:
        return DoctorFinding(Grade.OK, verbatim(program))
    fix = _(
        "Install Chromium or Chrome, or set TCB_OPS_CHROMIUM to the program; set it to an empty value if you need "
        "no PDFs."
    )
    return DoctorFinding(Grade.WARNING, _("no Chromium: reports are written without a PDF"), fix)


def check_settings(settings: Settings | SettingsError, config: str | None) -> DoctorFinding:
    """Check that the settings are valid."""
    if isinstance(settings, SettingsError):
        fix = _("Fix it; `tcb-ops init` in an empty folder writes a file with every setting.")
        return DoctorFinding(Grade.BAD, settings.problem, settings.fix or fix)
    file = settings_file(config)
    if file.exists():
        return DoctorFinding(Grade.OK, _("{file} is valid", file=file))
    return DoctorFinding(
        Grade.OK, _("no {file} here: defaults, TCB_OPS_… variables and options apply", file=file)
    )


def check_merchants(settings: Settings, where: Sequence[str]) -> DoctorFinding:
    """Check that the merchants file can be read, and count its contents."""
    file = settings.merchants
    if not file.exists():
        fix = _(
            "Create it: `tcb-ops init` writes a file to fill in, `tcb-ops merchants sync` gets it from the "
            "platform."
        )
        return DoctorFinding(Grade.BAD, _("{file} does not exist", file=file), fix)
    try:
        lines = read_merchants(file, where)
    except InputError as error:
        listed = as_clauses(format_problem(file.name, problem) for problem in error.problems[:3])
        count = len(error.problems)
        seen = ngettext("{n:,} problem: {listed}", "{n:,} problems: {listed}", count, listed=listed)
        return DoctorFinding(Grade.BAD, seen)
    seen = _(
        "{file}: {lines}, {mini_programs}, {environments}",
        file=file,
        lines=ngettext("{n:,} line", "{n:,} lines", len(lines)),
        mini_programs=ngettext(
            "{n:,} mini program", "{n:,} mini programs", len({merchant.appid for merchant in lines})
        ),
        environments=ngettext("{n:,} environment", "{n:,} environments", len(lines.envs)),
    )
    if left := sum(merchant.left for merchant in lines):
        seen = _("{seen}, {left:,} of them left", seen=seen, left=left)
    return DoctorFinding(Grade.OK, seen)


def check_ledger(settings: Settings) -> DoctorFinding:
    """Check that the ledger can be opened and written; look for unfinished runs. A missing file is not created."""
    if "://" not in settings.ledger:
        file = Path(settings.ledger)
        folder = file.resolve().parent
        why = _unwritable(file, folder)
        if why is not None:
            from tcb_ops.runs.database import not_a_ledger

            raise not_a_ledger(str(file), why)
        if not file.exists():
            return DoctorFinding(
                Grade.OK, _("{file} does not exist yet: the first run creates it", file=file)
            )
    return _opened(settings)


def _unwritable(file: Path, folder: Path) -> Text | None:
    """Return why no run can be written to a ledger, as far as its file and folder tell."""
    from tcb_ops.runs.database import on_network

    if not folder.is_dir():
        return _("the folder {folder} does not exist", folder=folder)
    if not file.exists() and on_network(folder):
        return _("it is on a network file system, where file locks are unreliable")
    for place in (folder, file):
        if place.exists() and not os.access(place, os.W_OK):
            return _("{folder} cannot be written", folder=place)
    return None


def _opened(settings: Settings) -> DoctorFinding:
    from tcb_ops.errors import LedgerDamagedError
    from tcb_ops.runs.ledger import Ledger

    ledger = Ledger(settings.ledger)
    try:
        damaged: list[LedgerDamagedError] = []
        runs = ledger.runs(damaged=damaged)
    finally:
        ledger.close()
    if damaged:
        raise damaged[0]
    file = Path(settings.ledger)
    size = file.stat().st_size if file.is_file() else 0
    facts = _(
        "{name}: {runs}{size}",
        name=ledger.name,
        runs=ngettext("{n:,} run", "{n:,} runs", len(runs)),
        size=f", {size / 1000**2:,.1f} MB" if size >= 100_000 else "",
    )
    unfinished = [run for run in runs if run.finished_at is None]
    if not unfinished:
        return DoctorFinding(Grade.OK, facts)
    named = ", ".join(run.id for run in unfinished[:3]) + (" …" if len(unfinished) > 3 else "")
    seen = _(
        "{facts}, {count:,} unfinished or at work: {named}", facts=facts, count=len(unfinished), named=named
    )
    fix = _(
        "`{show}` shows what remains; `{again}` resumes the run.",
        show=quoted(of_run(settings, unfinished[0], "show")),
        again=quoted(resume(settings, unfinished[0])),
    )
    return DoctorFinding(Grade.WARNING, seen, fix)


def check_disk(free: int, folder: Path) -> DoctorFinding:
    """Grade the free bytes on the ledger's disk."""
    seen = _("{free:,.1f} GB free in {folder}", free=free / 1000**3, folder=folder)
    if free >= TIGHT:
        return DoctorFinding(Grade.OK, seen)
    fix = _(
        "Free disk space: a run stops when the disk is full (its remaining rows stay pending), and reports need "
        "space beside the ledger."
    )
    return DoctorFinding(Grade.BAD if free < SCARCE else Grade.WARNING, seen, fix)


def check_secrets(settings: Settings) -> DoctorFinding:
    """Check that only their owner can read the files that hold secrets."""
    if os.name != "posix":
        return DoctorFinding(Grade.SKIPPED, _("file modes are not checked on this system"))
    places = [path for path in secret_places(settings.tokens) if path.exists()]
    if not places:
        return DoctorFinding(Grade.SKIPPED, _("no files with secrets here"))
    readable = list(_readable_by_others(places))
    if not readable:
        return DoctorFinding(Grade.OK, _("{named}: readable only by you", named=", ".join(map(str, places))))
    named = ", ".join(map(str, readable[:3])) + (" …" if len(readable) > 3 else "")
    seen = _("others on this machine may read {named}", named=named)
    deep = ["-R"] if any(path.is_dir() for path in places) else []
    fix = verbatim(shlex.join(["chmod", *deep, "go-rwx", *map(str, places)]))
    # The simulator's tokens give access to nothing.
    return DoctorFinding(Grade.WARNING if settings.on_loopback else Grade.BAD, seen, fix)


def secret_places(tokens: TokenSettings) -> list[Path]:
    """Return the files and folders of the token source in use that hold tokens, secrets or tickets."""
    if tokens.source == "component":
        values = (tokens.secret, tokens.ticket)
        named = [value.partition(":")[2].strip() for value in values if value.startswith("file:")]
        return [*map(Path, named), tokens.store]
    return [tokens.file] if tokens.source == "file" else []


def _readable_by_others(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        inside: list[Path] = []
        with suppress(OSError):
            inside = sorted(place.iterdir())[:2000] if place.is_dir() else []
        for path in (place, *inside):
            with suppress(OSError):
                if stat.S_IMODE(path.stat().st_mode) & 0o077:
                    yield path
