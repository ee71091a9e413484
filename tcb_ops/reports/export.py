"""A run's report folder and its manifest.json: written under another name, then renamed, never replaced in part.

All files are written from one snapshot of the ledger, so that they agree with one another while the run continues.
"""

from __future__ import annotations

import gc
import glob
import hashlib
import json
import logging
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, tzinfo
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from filelock import FileLock, Timeout

from tcb_ops.errors import LedgerDamagedError, LedgerError, StoppedError, UsageError
from tcb_ops.i18n import Text, _
from tcb_ops.kinds import row_count
from tcb_ops.model import is_simulated
from tcb_ops.reports.comparisons import RunDiff, compare
from tcb_ops.reports.explanations import MARK
from tcb_ops.reports.formats.csv import RowTexts, write_errcodes, write_lines
from tcb_ops.reports.formats.html import find_chromium, not_written, page, with_pdf, write_pdf
from tcb_ops.reports.formats.xlsx import write_workbook
from tcb_ops.reports.run_views import RunReader
from tcb_ops.reports.summary import RunSummary
from tcb_ops.resources import sync_to_disk, system_reason
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.next_commands import of_run, quoted
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord
from tcb_ops.secrets import MASK, find_leak, masked
from tcb_ops.settings import Settings

RESULTS, FAILED, ERRCODES, PAGE = "results.csv", "failed.csv", "errcodes.csv", "report.html"
WORKBOOK, PDF = "report.xlsx", "report.pdf"
ALWAYS = (RESULTS, FAILED, ERRCODES, PAGE, WORKBOOK)
"""The files of every report; others are the PDF, and the mark of a simulated run."""
_LOG = logging.getLogger("tcb_ops.reports")
DEMO_LEDGER = "ledger"
"""Folder in the demo's report with the ledger and settings that its suggested commands use."""
LEFT_BY_DESKTOPS = {".DS_Store", "Thumbs.db", "desktop.ini"}
CHECKPOINTS = ".ipynb_checkpoints"
"""Folder in which JupyterLab keeps copies of opened files."""
IN_USE = ".tcb-ops-export.lock"
"""Lock file in a folder that is being written; a kill releases the lock."""
MANIFEST = "manifest.json"
SCHEMA = 1
"""The version of manifest.json's format; new keys do not change it."""
SIMULATED = "SIMULATED-演练.txt"
"""The file that marks the folder of a loopback run; the names of the others are fixed."""


def check_destination(dest: Path, run_id: str | None = None, *, replace: bool = False) -> None:
    """Raise UsageError if a report of this run cannot be written to `dest`. Changes nothing; also for use before a run.

    =================================================  ====================================
    at `dest`                                          answer
    =================================================  ====================================
    nothing, and a writable folder above it            yes
    an empty folder                                    yes
    a report of the same run                           yes, it is replaced
    a report of another run                            only with `replace`
    the demo's report with its ledger in it            only with `replace`
    a report with other files in it                    no: they would be lost
    any other folder, a file                           no
    =================================================  ====================================
    """
    try:
        _check(_real(dest), dest, run_id, replace=replace)
    except (OSError, ValueError) as error:
        why = system_reason(error)
        raise UsageError(
            _("{dest} cannot be accessed: {why}.", dest=dest, why=why), _("Choose another report folder.")
        ) from None


def export(
    ledger: Ledger,
    run: RunRecord,
    dest: Path,
    settings: Settings,
    *,
    now: float,
    replace: bool = False,
    reader: RunReader | None = None,
    pdf: bool = True,
    when_written: Callable[[], None] = lambda: None,
) -> Path:
    """Write a run's report to the folder `dest`, from a snapshot of the ledger; return the folder.

    Writes results.csv, failed.csv, errcodes.csv, report.html, report.xlsx, manifest.json, and a file that marks a
    loopback run. With `pdf`, a Chromium prints report.pdf last, which takes seconds: `when_written` is called before.
    Reads from `reader` (None: from the ledger), and records the report's path in the ledger. With
    `replace`, a report of another run is replaced. Raises UsageError if anything else is at `dest` (nothing is changed),
    StoppedError if the disk fails or the report would contain a secret (an existing report is kept).
    """
    check_destination(dest, run.id, replace=replace)
    real, trouble = _real(dest), None
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        _clear_stale(real)
        with _part(real) as (part, finished), (reader or ledger).snapshot() as seen, _no_cycles():
            _write(seen, seen.run(run.id), part, settings, now, pdf=pdf)
            finished()
            # Recorded before the report appears: after a kill in between, verify would not recognise it.
            noted = _note(ledger.note_export, run, str(fingerprint(part / MANIFEST)["sha256"]), settings)
            _put(part, real)
    except OSError as error:
        trouble = system_reason(error)
    if trouble is not None:
        again = quoted(of_run(settings, run, "report"))
        raise StoppedError(
            _(
                "the report could not be written to {dest}: {trouble}. The run is safe in the ledger.",
                dest=dest,
                trouble=trouble,
            ),
            _("Free disk space or choose another folder, then export it again:\n{again}", again=again),
        )
    if noted and not run.environments:  # the ledger records only reports of the whole run
        _note(ledger.note_report, run, str(real), settings)
    when_written()
    if pdf and (chromium := find_chromium()) is not None:
        _add_pdf(ledger, run, dest, settings, chromium)
    return dest


def _add_pdf(ledger: Ledger, run: RunRecord, dest: Path, settings: Settings, chromium: str) -> None:
    """Replace a report by the same one with a report.pdf. If that fails, log a warning and keep the report."""
    real = _real(dest)
    why = None
    try:
        with _part(real) as (part, finished):
            content = json.loads((real / MANIFEST).read_text(encoding="utf-8"))
            for name in content["files"]:
                try:
                    os.link(real / name, part / name)
                except OSError:  # the file system has no links
                    shutil.copyfile(real / name, part / name)
            why = write_pdf(part / PAGE, part / PDF, chromium)
            if why is None:
                html = with_pdf((part / PAGE).read_text(encoding="utf-8"))
                (part / PAGE).unlink()  # a hard link to that of the report that is still in place
                (part / PAGE).write_text(html, encoding="utf-8", newline="\n")
                files = content["files"] | {name: fingerprint(part / name) for name in (PAGE, PDF)}
                content["files"] = {name: files[name] for name in sorted(files)}
                _write_manifest(part, content)
                for place in (part / PAGE, part / PDF, part / MANIFEST, part):
                    sync_to_disk(place)
                check_destination(dest, run.id)  # keep what was put there meanwhile
                finished()
                _note(ledger.note_export, run, str(fingerprint(part / MANIFEST)["sha256"]), settings)
                _put(part, real)
    except (OSError, UsageError) as error:
        why = not_written(error.text if isinstance(error, UsageError) else system_reason(error))
    if why is not None:
        _warn(why, settings)


def _write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="\n")


def _note(keep: Callable[[RunRecord, str], None], run: RunRecord, what: str, settings: Settings) -> bool:
    """Record something of the export in the ledger; return whether that worked. An auditor's copy may be read-only."""
    try:
        keep(run, what)
    except LedgerError as error:
        text = _("the report is complete, but its export could not be recorded in the ledger: {text}")
        _warn(text.format(text=error.text), settings)
        return False
    return True


def _warn(text: Text, settings: Settings) -> None:
    _LOG.warning("%s", text.of(settings.lang))


def _write(
    seen: RunReader, run: RunRecord, folder: Path, settings: Settings, now: float, *, pdf: bool
) -> None:
    """Write every file of a report except report.pdf; `seen` is a snapshot of the ledger."""
    texts = RowTexts(seen, run, settings.lang, settings.zone)
    write_lines(texts.head, texts, folder / RESULTS, folder / FAILED)
    hidden, digest = texts.hidden, texts.hexdigest()
    del texts  # it keeps a text of each environment
    if hidden:
        warning = _(
            "A token or a signature was found in {rows} of the list: the report shows {mask} instead. Remove it "
            "from the list, and have it replaced.",
            rows=row_count(hidden),
            mask=MASK,
        )
        _warn(warning, settings)
    summary = RunSummary(seen, run)
    write_errcodes(summary.causes, folder / ERRCODES, settings.lang)
    write_workbook(seen, summary, folder / WORKBOOK, settings, now=now)
    if is_simulated(run.target):
        mark = _(
            "Run {id} was a rehearsal: it went to a simulator on the same machine ({target}). Nothing reached "
            "WeChat or a merchant.",
            id=run.id,
            target=run.target,
        )
        (folder / SIMULATED).write_text(f"{mark.zh}\n{mark.en}\n", encoding="utf-8", newline="\n")
    changes = _changes(seen, run, settings)
    no_chromium = pdf and find_chromium() is None
    html = page(seen, summary, settings, versions(), now=now, no_chromium=no_chromium, changes=changes)
    (folder / PAGE).write_text(masked(html), encoding="utf-8", newline="\n")
    files = {name: fingerprint(folder / name) for name in sorted(_names(folder))}
    content = {
        "schema": SCHEMA,
        **about(summary, settings.zone),
        "rows_digest": digest,
        "files": files,
        "exported_at": _moment(now, settings.zone),
        "lang": str(settings.lang),
        "timezone": settings.timezone,
        "versions": versions(),
    }
    _write_manifest(folder, clean(content))
    for name in sorted(_names(folder)):
        if leak := find_leak(folder / name):
            raise StoppedError(
                _(
                    "the report was not finished: line {line} of {name} would contain {kind}. Everything written was "
                    "removed, and run {id} is safe in the ledger.",
                    line=leak.line,
                    name=name,
                    kind=leak.kind,
                    id=run.id,
                ),
                _("This is a bug in tcb-ops: please report it."),
            )
        sync_to_disk(folder / name)
    sync_to_disk(folder)


def _changes(seen: RunReader, run: RunRecord, settings: Settings) -> RunDiff | None:
    """Compare the run with the one before it; if that one is damaged, log a warning and return None."""
    if not isinstance(seen, LedgerReader):  # a run merged with its retries is not compared
        return None
    before = None
    try:
        before = seen.previous(run)
        return compare(seen, before, run, settings) if before is not None else None
    except LedgerDamagedError as error:
        text = _("the report of run {run} is complete, but was not compared with an earlier run: {text}")
        if before is not None:
            text = _(
                "the report of run {run} is complete, but was not compared with run {before} before it: {text}"
            )
        before_id = "" if before is None else before.id
        _warn(text.format(run=run.id, before=before_id, text=error.text), settings)
        return None


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} - {IN_USE}


@contextmanager
def _part(real: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Create a locked folder beside `real`; remove it at the end of the block, unless it was renamed.

    The lock shows later exports that it is in use. Yields the folder and a function that removes the lock.
    """
    part = real.with_name(f"{real.name}.part-{secrets.token_hex(4)}")
    lock = FileLock(part / IN_USE)

    def let_go() -> None:
        lock.release()
        (part / IN_USE).unlink(missing_ok=True)

    with ExitStack() as stack:
        stack.callback(shutil.rmtree, part, ignore_errors=True)
        stack.callback(lock.release)
        part.mkdir()
        with suppress(NotImplementedError):  # a file system without locks: folders of killed exports stay
            lock.acquire(timeout=0)
        yield part, let_go


@contextmanager
def _no_cycles() -> Iterator[None]:
    """Disable the cyclic garbage collector: rows form no cycles, and it takes a tenth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _clear_stale(real: Path) -> None:
    """Remove the folders of killed exports to the same place, recognised by their name and a lock that nobody holds."""
    for part in real.parent.glob(f"{glob.escape(real.name)}.part-*"):
        ours = re.fullmatch(r"[0-9a-f]{8}", part.name.removeprefix(f"{real.name}.part-"))
        if not ours or part.is_symlink() or not (part / IN_USE).is_file():
            continue
        lock = FileLock(part / IN_USE)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError, NotImplementedError):
            continue
        lock.release()
        shutil.rmtree(part, ignore_errors=True)


def _put(part: Path, dest: Path) -> None:
    """Rename the new report to its place. A kill leaves the old one, the new one or both, each complete."""
    if not dest.exists():
        part.rename(dest)
    elif not any(dest.iterdir()):
        dest.rmdir()
        part.rename(dest)
    else:
        old = dest.with_name(f"{dest.name}.old-{secrets.token_hex(4)}")
        dest.rename(old)
        try:
            part.rename(dest)
        except OSError:
            old.rename(dest)
            raise
        shutil.rmtree(old, ignore_errors=True)
    sync_to_disk(dest.parent)


def _check(real: Path, dest: Path, run_id: str | None, *, replace: bool) -> None:
    if not real.exists():
        above = next(folder for folder in real.parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise _refused(dest, _("no folder can be created in {above}", above=above))
        return
    if not real.is_dir():
        raise _refused(dest, _("it is a file"))
    there = {entry.name for entry in real.iterdir()} - LEFT_BY_DESKTOPS
    if not there:
        return
    found = read_manifest(real)
    if found is None:
        raise _refused(dest, _("it is not empty and contains no report"))
    if found.run != run_id and not replace:
        raise _refused(dest, _("it contains the report of run {run}", run=found.run))
    ours = {MANIFEST, *found.files}
    if CHECKPOINTS in there and _copies(real / CHECKPOINTS, ours):
        ours.add(CHECKPOINTS)
    if replace and found.simulated:
        ours.add(DEMO_LEDGER)
    if others := sorted(there - ours):
        names = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
        raise _refused(dest, _("besides a report it contains files that would be lost: {names}", names=names))


def _copies(folder: Path, files: set[str]) -> bool:
    """Return whether JupyterLab's copies are of these files only: others may be all that is left of a user's work."""
    copies = {f"{Path(name).stem}-checkpoint{Path(name).suffix}" for name in files}
    return folder.is_dir() and not folder.is_symlink() and {kept.name for kept in folder.iterdir()} <= copies


def _refused(dest: Path, why: Text) -> UsageError:
    return UsageError(
        _("{dest} cannot be the report folder: {why}. Choose another one with --out.", dest=dest, why=why),
        options=["--out"],
    )


def _real(dest: Path) -> Path:
    """Resolve links, so that a link to a folder stays a link when the folder is replaced."""
    return Path(os.path.realpath(dest))


# --- manifest.json ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of manifest.json."""

    run: str
    files: Mapping[str, Mapping[str, Any]]
    """`sha256` and `bytes` of every file except manifest.json."""
    list_name: str
    list_sha256: str
    root: str
    """Folder of the local files, which usually contains the list."""
    rows_digest: str
    zone: tzinfo
    """Time zone of its times."""
    finished: bool
    exported_at: str
    retries: tuple[str, ...]
    environments: frozenset[tuple[str, str]]
    """The environments selected with --where, as (appid, env); empty for all."""
    simulated: bool
    """Whether the target is on this machine, whatever the manifest's other fields say."""
    content: Mapping[str, Any]
    """The whole JSON object."""


def about(summary: RunSummary, zone: tzinfo) -> dict[str, Any]:
    """Return the part of a manifest that can be compared with the ledger, secrets in the operator's texts not yet masked."""
    run = summary.run
    return {
        "run": run.id,
        "parent": run.parent or None,
        "retries": list(run.retries),
        **({"environments": [list(one) for one in run.environments]} if run.environments else {}),
        "kind": str(run.kind),
        "target": run.target,
        "simulated": is_simulated(run.target),
        **({"mark": MARK} if is_simulated(run.target) else {}),
        "rows": summary.total,
        "counts": {str(outcome): rows for outcome, rows in summary.counts.items()},
        "input": {"name": run.list_name, "sha256": run.list_sha256, "bytes": run.list_bytes},
        "operator": run.operator,
        "host": run.host,
        "note": run.note,
        "root": run.root,
        "created_at": _moment(run.created_at, zone),
        "finished_at": _moment(run.finished_at, zone),
        "settings": run.settings,
    }


def _moment(at: float | None, zone: tzinfo) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, zone).isoformat(timespec="milliseconds")


def clean(value: Any) -> Any:
    """Return a value of the manifest with secrets masked in all its texts, nested ones included."""
    match value:
        case str():
            return masked(value)
        case dict():
            return {name: clean(inner) for name, inner in value.items()}
        case list() | tuple():
            return [*map(clean, value)]
    return value


def read_manifest(folder: Path) -> Manifest | None:
    """Read a folder's manifest; None if it is missing or invalid. Never raises OSError."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        int(found["rows"])
        if any(name in {"", ".", ".."} or re.search(r"[/\\\0]", name) for name in found["files"]):
            return None  # a name that leads out of the folder
        return Manifest(
            run=str(found["run"]),
            files={str(name): dict(about) for name, about in found["files"].items()},
            list_name=str(found["input"]["name"]),
            list_sha256=str(found["input"]["sha256"]),
            root=str(found["root"]),
            rows_digest=str(found["rows_digest"]),
            zone=ZoneInfo(found["timezone"]),
            finished=found["finished_at"] is not None,
            exported_at=str(found["exported_at"]),
            retries=tuple(map(str, found["retries"])),
            environments=frozenset((str(appid), str(env)) for appid, env in found.get("environments", ())),
            simulated=is_simulated(str(found["target"])),
            content=found,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def fingerprint(file: Path) -> dict[str, str | int]:
    """Return the SHA-256 and size of a file. Raises OSError."""
    with file.open("rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "bytes": file.stat().st_size}


def versions() -> dict[str, str]:
    """Return the versions that a report is written with."""
    return {
        "tcb-ops": version("tcb-ops"),
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }
