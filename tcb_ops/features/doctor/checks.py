"""The checks in order: the machine, the files, the target. No check can block or end the others."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tcb_ops.errors import InputError, LedgerDamagedError, SettingsError, TcbOpsError
from tcb_ops.features.doctor.report import CheckResult, Grade, from_error, run_limited, skipped
from tcb_ops.features.doctor.target import check_target, check_tokens, first_token_owners
from tcb_ops.i18n import Text, _, as_clauses, as_list, ngettext, verbatim
from tcb_ops.lists.input_files import format_problem
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.runs.next_commands import install, of_run, quoted, resume
from tcb_ops.settings import Settings, TokenSettings, load_settings, setting_names, settings_file

SCARCE, TIGHT = 100 * 1000**2, 1000**3
"""Free bytes below which a run may fill the disk, and below which to warn."""


def check_python() -> list[CheckResult]:
    """Check Python's version against the package's requirement."""
    needed, found = SpecifierSet(metadata("tcb-ops")["Requires-Python"]), platform.python_version()
    machine = f"{platform.system()} {platform.machine()}".strip()
    seen = _("{found} ({machine}), needs {needed}", found=found, machine=machine, needed=needed)
    if needed.contains(found, prereleases=True):
        return [CheckResult("python", Grade.OK, seen)]
    fix = _("Install Python {needed}, and install tcb-ops into it.", needed=needed)
    return [CheckResult("python", Grade.BAD, seen, fix)]


def check_packages() -> list[CheckResult]:
    """Check the installed packages against tcb-ops's own requirements."""
    needed = _requirements("")
    wrong = unmet(needed, _installed)
    if not wrong:
        own = version("tcb-ops")
        seen = _(
            "tcb-ops {own}, its {packages} as required",
            own=own,
            packages=ngettext("{n:,} package", "{n:,} packages", len(needed)),
        )
        return [CheckResult("packages", Grade.OK, seen)]
    fix = _("Install tcb-ops again, in an environment of its own: {command}", command=install())
    return [CheckResult("packages", Grade.BAD, _describe(wrong), fix)]


def check_lab() -> list[CheckResult]:
    """Check JupyterLab and the notebooks' packages, if the extra is installed."""
    command = install("lab")
    there = [
        f"{name} {found}"
        for name in ("jupyterlab", "ipykernel", "ipywidgets")
        if (found := _installed(name)) is not None
    ]
    if not there:
        return [skipped("lab", _("not installed; notebooks need it: {command}", command=command))]
    wrong = unmet(_requirements("lab"), _installed)
    if not wrong:
        return [CheckResult("lab", Grade.OK, verbatim(", ".join(there)))]
    fix = _("For notebooks: {command}", command=command)
    return [CheckResult("lab", Grade.WARNING, _describe(wrong), fix)]


def unmet(
    needed: Iterable[Requirement], installed: Callable[[str], str | None]
) -> list[tuple[Requirement, str | None]]:
    """Return the unmet requirements, each with the installed version. A matching pre-release meets its requirement."""
    pairs = [(one, installed(one.name)) for one in needed]
    return [(r, v) for r, v in pairs if v is None or not r.specifier.contains(v, prereleases=True)]


def _requirements(extra: str) -> list[Requirement]:
    """Return tcb-ops's requirements on this machine: its own, or those that an extra adds."""
    found = []
    for one in map(Requirement, requires("tcb-ops") or ()):
        always = one.marker is None or one.marker.evaluate({"extra": ""})
        if always if not extra else not always and one.marker and one.marker.evaluate({"extra": extra}):
            found.append(one)
    return found


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _describe(wrong: Iterable[tuple[Requirement, str | None]]) -> Text:
    return as_clauses(
        _("{name} is required, {version} is installed", name=f"{r.name}{r.specifier}", version=found)
        if found
        else _("{name} is required but not installed", name=f"{r.name}{r.specifier}")
        for r, found in wrong
    )


def check_browser() -> list[CheckResult]:
    """Look for a Chromium, needed for PDF reports."""
    from tcb_ops.reports.formats.html import CHROMIUM, find_chromium

    if os.environ.get(CHROMIUM) == "":
        return [skipped("browser", _("TCB_OPS_CHROMIUM is empty: no PDFs"))]
    found = find_chromium()
    if found is not None:
        return [CheckResult("browser", Grade.OK, verbatim(found))]
    seen = _("no Chromium: reports are written without a PDF")
    fix = _(
        "Install Chromium or Chrome, or set TCB_OPS_CHROMIUM to the program; set it to an empty value if you need "
        "no PDFs."
    )
    return [CheckResult("browser", Grade.WARNING, seen, fix)]


def check_fonts(seconds: float = 5) -> list[CheckResult]:
    """Look for a Chinese font: without one, PDFs show boxes for the merchants' names.

    `seconds` limits fc-list, which builds its cache on the first call.
    """
    if sys.platform in {"darwin", "win32"}:
        return [CheckResult("fonts", Grade.OK, _("the system's fonts include Chinese"))]
    program = shutil.which("fc-list")
    if program is None:
        why = _("unknown, because fc-list (fontconfig) is not installed")
        return [skipped("fonts", why)]
    try:
        listed = subprocess.run(  # noqa: S603  found in PATH, no shell
            [program, ":lang=zh", "family"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return [skipped("fonts", _("unknown, because fc-list does not respond"))]
    lines = listed.stdout.decode(errors="replace").splitlines()
    families = sorted({line.split(",")[0].strip() for line in lines})
    families = [family for family in families if family.isprintable() and family]
    if not families:
        seen = _("no Chinese font is installed: PDFs would show boxes instead of Chinese text")
        fix = _("Install one, e.g. the package fonts-noto-cjk.")
        return [CheckResult("fonts", Grade.WARNING, seen, fix)]
    return [CheckResult("fonts", Grade.OK, as_list(families, 1))]


def check_merchants(settings: Settings, where: Sequence[str]) -> list[CheckResult]:
    """Check that the merchants file can be read, and count its contents."""
    file = settings.merchants
    if not file.exists():
        seen = _("{file} does not exist", file=file)
        fix = _(
            "Create it: `tcb-ops init` writes a file to fill in, `tcb-ops merchants sync` gets it from the "
            "platform."
        )
        return [CheckResult("merchants", Grade.BAD, seen, fix)]
    try:
        lines = read_merchants(file, where)
    except InputError as error:
        count = len(error.problems)
        seen = ngettext(
            "{n:,} problem: {listed}",
            "{n:,} problems: {listed}",
            count,
            listed=as_clauses(format_problem(file.name, one) for one in error.problems[:3]),
        )
        fix = _("Fix the file: no run starts while any of its lines has a problem.")
        return [CheckResult("merchants", Grade.BAD, seen, fix)]
    appids, left = len({m.appid for m in lines}), sum(m.left for m in lines)
    seen = _(
        "{file}: {lines}, {mini_programs}, {environments}",
        file=file,
        lines=ngettext("{n:,} line", "{n:,} lines", len(lines)),
        mini_programs=ngettext("{n:,} mini program", "{n:,} mini programs", appids),
        environments=ngettext("{n:,} environment", "{n:,} environments", len(lines.envs)),
    )
    if left:
        seen = _("{seen}, {left:,} of them left", seen=seen, left=left)
    return [CheckResult("merchants", Grade.OK, seen)]


def check_ledger(settings: Settings) -> list[CheckResult]:
    """Check that the ledger can be opened and written; look for unfinished runs; check the disk's free space.

    A missing ledger file is not created.
    """
    if "://" in settings.ledger:
        return [_opened(settings)]
    file = Path(settings.ledger)
    folder = file.resolve().parent
    if not file.exists():
        found = _not_yet(file, folder)
    else:
        found = (None if file.is_dir() else _unwritable(file, folder)) or _opened(settings)
    disk = [check_disk(shutil.disk_usage(folder).free, folder)] if folder.is_dir() else []
    return [found, *disk]


def _not_yet(file: Path, folder: Path) -> CheckResult:
    from tcb_ops.runs.database import not_a_ledger, on_network

    why = None
    if not folder.is_dir():
        why = _("the folder {folder} does not exist", folder=folder)
    elif on_network(folder):
        why = _("it is on a network file system, where file locks are unreliable")
    elif not os.access(folder, os.W_OK):
        why = _("{folder} cannot be written", folder=folder)
    if why is not None:
        return from_error("ledger", not_a_ledger(str(file), why))
    return CheckResult(
        "ledger", Grade.OK, _("{file} does not exist yet: the first run creates it", file=file)
    )


def _unwritable(file: Path, folder: Path) -> CheckResult | None:
    """Return a bad result if the ledger cannot be written; tested by a transaction that is rolled back."""
    why = None if os.access(folder, os.W_OK) else _("no permission to write {folder}", folder=folder)
    try:
        uri = f"{file.resolve().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=1, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        # Busy: another process is writing, so the file is writable. Not a database: opening it gives the better message.
        if getattr(error, "sqlite_errorname", "") not in {"SQLITE_BUSY", "SQLITE_NOTADB"}:
            why = why or verbatim(str(error))
    if why is None:
        return None
    seen = _("{file} cannot be written ({why})", file=file, why=why)
    fix = _(
        "Give yourself write permission on {file} and {folder}, or choose another ledger with --ledger.",
        file=file,
        folder=folder,
    )
    return CheckResult("ledger", Grade.BAD, seen, fix)


def _opened(settings: Settings) -> CheckResult:
    from tcb_ops.runs.ledger import Ledger

    try:
        ledger = Ledger(settings.ledger)
        try:
            damaged: list[LedgerDamagedError] = []
            runs = ledger.runs(damaged=damaged)
            if damaged:
                raise damaged[0]
        finally:
            ledger.close()
    except TcbOpsError as error:
        return from_error("ledger", error)
    file = Path(settings.ledger)
    size = file.stat().st_size if file.is_file() else 0
    open_runs = [run for run in runs if run.finished_at is None]
    facts = _(
        "{name}: {runs}{size}",
        name=ledger.name,
        runs=ngettext("{n:,} run", "{n:,} runs", len(runs)),
        size=f", {size / 1000**2:,.1f} MB" if size >= 100_000 else "",
    )
    if not open_runs:
        return CheckResult("ledger", Grade.OK, facts)
    named = ", ".join(run.id for run in open_runs[:3]) + (" …" if len(open_runs) > 3 else "")
    seen = _(
        "{facts}, {count:,} unfinished or at work: {named}", facts=facts, count=len(open_runs), named=named
    )
    fix = _(
        "`{show}` shows what remains; `{again}` resumes the run.",
        show=quoted(of_run(settings, open_runs[0], "show")),
        again=quoted(resume(settings, open_runs[0])),
    )
    return CheckResult("ledger", Grade.WARNING, seen, fix)


def check_disk(free: int, folder: Path) -> CheckResult:
    """Grade the free bytes on the ledger's disk."""
    seen = _("{free:,.1f} GB free in {folder}", free=free / 1000**3, folder=folder)
    if free >= TIGHT:
        return CheckResult("disk", Grade.OK, seen)
    fix = _(
        "Free disk space: a run stops when the disk is full (its remaining rows stay pending), and reports need "
        "space beside the ledger."
    )
    return CheckResult("disk", Grade.BAD if free < SCARCE else Grade.WARNING, seen, fix)


def check_secrets(settings: Settings) -> list[CheckResult]:
    """Check that only their owner can read the files that hold secrets."""
    if os.name != "posix":
        return [skipped("secrets", _("file modes are not checked on this system"))]
    places = secret_places(settings.tokens)
    there = [path for path in places if path.exists()]
    wide = list(_readable_by_others(places))
    if not wide:
        if not there:
            return [skipped("secrets", _("no files with secrets here"))]
        named = ", ".join(map(str, there))
        return [CheckResult("secrets", Grade.OK, _("{named}: readable only by you", named=named))]
    named = ", ".join(map(str, wide[:3])) + (" …" if len(wide) > 3 else "")
    seen = _("others on this machine may read {named}", named=named)
    deep = ["-R"] if any(path.is_dir() for path in there) else []
    fix = verbatim(shlex.join(["chmod", *deep, "go-rwx", *map(str, there)]))
    # The simulator's tokens give access to nothing.
    return [CheckResult("secrets", Grade.WARNING if settings.on_loopback else Grade.BAD, seen, fix)]


def secret_places(tokens: TokenSettings) -> list[Path]:
    """Return the files and folders of the token source in use that hold tokens, secrets or tickets."""
    own = tokens.source == "component"
    settings = (tokens.secret, tokens.ticket) if own else ()
    named = (value.partition(":")[2].strip() for value in settings if value.startswith("file:"))
    whole = {"file": [tokens.file], "component": [tokens.store]}
    return [*map(Path, named), *whole.get(tokens.source, [])]


def _readable_by_others(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        inside: list[Path] = []
        with suppress(OSError):
            inside = sorted(place.iterdir())[:2000] if place.is_dir() else []
        for path in (place, *inside):
            with suppress(OSError):
                if stat.S_IMODE(path.stat().st_mode) & 0o077:
                    yield path


TOTAL_SECONDS = 27.0
"""Time limit for all checks together."""
LOCAL_SECONDS, REMOTE_SECONDS = 6.0, 18.0
"""Time limits for a local check, and for a check over the network."""


@dataclass(frozen=True, slots=True)
class DoctorContext:
    """The input of the checks."""

    settings: Settings | None
    """Without the settings file if it is invalid; None if the options or variables are invalid too."""
    error: SettingsError | None
    """Why the settings are invalid; None if they are valid."""
    known: frozenset[str]
    """Settings known from options and variables if the file is invalid; otherwise all."""
    config: str | None
    where: tuple[str, ...]

    @classmethod
    def of(
        cls,
        read: Callable[[], Settings],
        options: Mapping[str, Any],
        config: str | None,
        where: tuple[str, ...],
    ) -> DoctorContext:
        """Read the settings; if they are invalid, use options and variables only."""
        try:
            return cls(read(), None, frozenset(setting_names(Settings)), config, where)
        except SettingsError as invalid:
            error = invalid
        try:
            usable = load_settings(os.devnull, options)
        except SettingsError:
            return cls(None, error, frozenset(), config, where)
        return cls(usable, error, usable.origin.overridden, config, where)


def run_checks(context: DoctorContext) -> Iterator[CheckResult]:
    """Yield the results in order. Blocks for at most about 27 seconds; raises nothing."""
    end = time.monotonic() + TOTAL_SECONDS

    def run(
        names: Sequence[str], check: Callable[[], Sequence[CheckResult]], seconds: float
    ) -> list[CheckResult]:
        return run_limited(names, check, max(0.5, min(seconds, end - time.monotonic())))

    for name, check in (
        ("python", check_python),
        ("packages", check_packages),
        ("lab", check_lab),
        ("browser", check_browser),
        ("fonts", check_fonts),
    ):
        yield from run([name], check, LOCAL_SECONDS)
    yield _settings(context)
    grades: dict[str, Grade] = {}
    for names, needs, seconds, check_settings in (
        (("merchants",), {"merchants"}, LOCAL_SECONDS, partial(check_merchants, where=context.where)),
        (("ledger",), {"ledger"}, LOCAL_SECONDS, check_ledger),
        (("secrets",), {"tokens"}, LOCAL_SECONDS, check_secrets),
        (("target", "clock"), {"api_base"}, REMOTE_SECONDS, check_target),
        (
            ("tokens", "address"),
            {"tokens", "merchants", "api_base"},
            REMOTE_SECONDS,
            lambda settings: _tokens(context, settings, reached=grades.get("target") is Grade.OK),
        ),
    ):
        if context.settings is None or not needs <= context.known:
            why = _("unknown, because the settings are invalid")
            yield from (skipped(name, why) for name in names)
            continue
        results = run(names, partial(check_settings, context.settings), seconds)
        grades.update((result.name, result.grade) for result in results)
        yield from results


def _tokens(context: DoctorContext, settings: Settings, *, reached: bool) -> list[CheckResult]:
    try:
        merchants = list(read_merchants(settings.merchants, context.where))
    except TcbOpsError:  # reported by the check of the merchants file
        merchants = []
    owners = first_token_owners(merchants, settings.tokens.component_appid)
    return check_tokens(settings, owners, reached=reached)


def _settings(context: DoctorContext) -> CheckResult:
    if context.error is not None:
        return from_error("settings", context.error)
    file = settings_file(context.config)
    if file.exists():
        return CheckResult("settings", Grade.OK, _("{file} is valid", file=file))
    seen = _("no {file} here: defaults, TCB_OPS_… variables and options apply", file=file)
    return CheckResult("settings", Grade.OK, seen)
