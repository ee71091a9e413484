"""A run's report folder and its manifest.json: written under another name, and put in place when it is complete.

All files are written from one snapshot of the ledger, so that they agree with one another while the run continues.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, tzinfo
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote

import msgspec

from tcb_ops.disk import make_folder, open_regular, sync_to_disk
from tcb_ops.engine.next_commands import command, of_run, quoted
from tcb_ops.errors import LedgerError, StoppedError, UsageError, needed
from tcb_ops.hooks import FOR_RESULTS, DiagnosisHooks, PdfHooks, SignatureHooks, WorkbookHooks, hooks
from tcb_ops.i18n import Text, _
from tcb_ops.kinds import row_count
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import RunRecord
from tcb_ops.model import SIMULATOR
from tcb_ops.reports.explanations import MARK
from tcb_ops.reports.formats.csv import RowLines, write_errcodes, write_lines
from tcb_ops.reports.formats.html import page
from tcb_ops.reports.page_data import DATA, add_data, add_proof
from tcb_ops.reports.summary import RunSummary
from tcb_ops.secrets import MASK, find_leak, masked
from tcb_ops.settings import Settings, without_dots
from tcb_ops.system_errors import system_reason

RESULTS, FAILED, ERRCODES, PAGE = "results.csv", "failed.csv", "errcodes.csv", "report.html"
WORKBOOK, PDF = "report.xlsx", "report.pdf"
ALWAYS = (RESULTS, FAILED, ERRCODES, PAGE, *([WORKBOOK] if hooks(WorkbookHooks) else []))
"""The files of every report; others are the PDF, and the mark of a simulated run."""
_LOG = logging.getLogger("tcb_ops.reports")
DEMO_LEDGER = "ledger"
"""Folder in the demo's report with the ledger and settings that its suggested commands use."""
LEFT_BY_DESKTOPS = {".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints"}
DOCUMENT = "TCB_OPS_DOCUMENT"
"""The variable with the folder of the document that an execution writes, where that is not the working folder."""
COPY = ".part"
"""Ends the name of a file that is about to replace one of an older report."""
MANIFEST = "manifest.json"
SIGNATURE = f"{MANIFEST}.sig"
"""The signature of the manifest, on request."""
NAMESPACE = "tcb-ops-report"
"""What signatures of reports are for: one for anything else is none of a report."""
SCHEMA = 1
"""The version of manifest.json's format; new keys do not change it."""
SIMULATED = "SIMULATED-演练.txt"
"""The file that marks the folder of a loopback run; the names of the others are fixed."""


class Report(type(Path())):  # type: ignore[misc]  # the class of paths on this system
    """The folder of a report, a path; in a notebook its files, with links."""

    __slots__ = ()

    @property
    def folder(self) -> Path:
        """The folder as a plain path."""
        return Path(os.fspath(self))

    @property
    def files(self) -> list[Path]:
        """The files of the report, by name."""
        return sorted(file for file in self.folder.iterdir() if file.is_file())

    def __truediv__(self, name: str | os.PathLike[str]) -> Path:
        return self.folder / name

    def __repr__(self) -> str:
        return str(_("<Report {folder}>", folder=local_file(self.folder)[0]))

    def _repr_html_(self) -> str:
        return FOR_RESULTS.report_card(self, FOR_RESULTS.lang())


def local_file(file: Path) -> tuple[str, str]:
    """Return a file's name below the working folder, else its last part; and its address as a link, if the document has it below.

    The document is the notebook, in the working folder, or where `DOCUMENT` says. What shows it may be handed on, so it names
    no other folder of this machine.
    """
    whole, here = _real(file), _real(Path.cwd())
    document = _real(Path(os.environ.get(DOCUMENT, "")))
    name = whole.relative_to(here).as_posix() if whole.is_relative_to(here) else file.name
    return name, quote(whole.relative_to(document).as_posix()) if whole.is_relative_to(document) else ""


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
        text = _("{dest} cannot be accessed: {why}.", dest=dest, why=system_reason(error))
        raise UsageError(text, _("Choose another report folder.")) from None


def export(
    ledger: Ledger,
    run: RunRecord,
    dest: Path,
    settings: Settings,
    *,
    now: float,
    replace: bool = False,
    reader: LedgerReader | None = None,
    pdf: bool = False,
    with_data: bool = False,
) -> Path:
    """Write a run's report to the folder `dest`, from a snapshot of the ledger; return the folder.

    Writes results.csv, failed.csv, errcodes.csv, report.html, report.xlsx, manifest.json, and a file that marks a
    loopback run. With `pdf` or `[report] pdf`, a Chromium prints report.pdf, which takes seconds; a failure is a warning.
    With `with_data`, report.html has results.csv inside; UsageError if that is too large.
    Reads from `reader` (None: from the ledger), and records the report's path in the ledger. With
    `replace`, a report of another run is replaced. Raises UsageError if anything else is at `dest` (nothing is changed),
    StoppedError if the disk fails or the report would contain a secret (an existing report is kept).
    """
    add_pdf = needed(PdfHooks).add if pdf or settings.report.pdf else None
    key = settings.report.sign
    check_destination(dest, run.id, replace=replace)
    real, file, trouble = _real(dest), Path(), None
    try:
        make_folder(real.parent)
        part = real.with_name(f"{real.name}.part-{secrets.token_hex(4)}")
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, part, ignore_errors=True)
            part.mkdir()
            signed = "" if key is None else _signed_with(key, settings)
            with (reader or ledger).snapshot() as snapshot:
                record = snapshot.run(run.id)
                content = _write(snapshot, record, part, settings, now, signed, with_data=with_data)
            if add_pdf is not None and (warning := add_pdf(part / PAGE, part / PDF)) is not None:
                _warn(warning, settings)
            _complete(part, content, run)
            if key is not None and signed:
                _sign(part, key)
            if with_data:
                add_proof(part / PAGE, part / MANIFEST, *([part / SIGNATURE] if signed else []))
            check_destination(dest, run.id, replace=replace)  # a file may have been put there meanwhile
            # Recorded before the report appears: after a kill in between, verify would not recognise it.
            digest = str(fingerprint(part / MANIFEST)["sha256"])
            is_recorded = _record(ledger.note_export, run, digest, dest, settings)
            _put(part, real)
    except OSError as error:
        trouble, file = system_reason(error), Path(error.filename2 or error.filename or "")
    if trouble is not None:
        again = quoted(of_run(settings, run, "report"))
        raise StoppedError(
            _(
                "The report could not be written to {dest}: {trouble}. The run is safe in the ledger.",
                dest=dest / file.name if file.parent == real else dest,
                trouble=trouble,
            ),
            _("Free disk space or choose another folder, then export it again:\n{again}", again=again),
        )
    if is_recorded and not run.environments:  # the ledger records only reports of the whole run
        _record(ledger.note_report, run, str(real), dest, settings)
    return dest


def _signed_with(key: Path, settings: Settings) -> str:
    """Return the fingerprint of the key, with which the page says that it is signed; empty after a warning that it cannot be."""
    signatures = needed(SignatureHooks)
    trial = signatures.sign(key, b"")
    if not isinstance(trial, Text):
        return signatures.signed_with(trial)
    _warn(_("The report is not signed: {why}. `[report] sign` names the key.", why=trial), settings)
    return ""


def _sign(folder: Path, key: Path) -> None:
    signature = needed(SignatureHooks).sign(key, (folder / MANIFEST).read_bytes())
    if isinstance(signature, Text):  # the page says that it is signed
        raise StoppedError(_("The report could not be signed: {why}.", why=signature))
    (folder / SIGNATURE).write_bytes(signature)
    sync_to_disk(folder / SIGNATURE)


def _record(
    record: Callable[[RunRecord, str], None], run: RunRecord, value: str, dest: Path, settings: Settings
) -> bool:
    """Record something of the export in the ledger; return whether that worked. An auditor's copy may be read-only."""
    try:
        record(run, value)
    except LedgerError as error:
        again = command(settings, "report", run.id, "--out", without_dots(dest), target=run.target)
        text = _(
            "the report is complete, but its export could not be recorded in the ledger{tcb-ops verify:, so `verify` does not know it}: {text} "
            "Once the ledger can be written, export it again:\n{again}"
        )
        _warn(text.format(text=error.problem, again=quoted(again)), settings)
        return False
    return True


def _warn(text: Text, settings: Settings) -> None:
    _LOG.warning("%s", text.of(settings.lang))


def _write(
    snapshot: LedgerReader,
    run: RunRecord,
    folder: Path,
    settings: Settings,
    now: float,
    signed: str,
    *,
    with_data: bool,
) -> dict[str, Any]:
    lines = RowLines(snapshot, run, settings.lang, settings.zone)
    write_lines(lines.head, lines, folder / RESULTS, folder / FAILED)
    if lines.hidden:
        warning = _(
            "A token or a signature was found in {rows} of the list: the report shows {mask} instead. Remove it "
            "from the list, and have it replaced.",
            rows=row_count(lines.hidden),
            mask=MASK,
        )
        _warn(warning, settings)
    summary = RunSummary(snapshot, run)
    write_errcodes(summary.causes, folder / ERRCODES, settings.lang)
    if diagnosis := hooks(DiagnosisHooks):
        diagnosis.write_actions(summary.causes, run, folder, settings)
    if WORKBOOK in ALWAYS:
        needed(WorkbookHooks).write_report(snapshot, summary, folder / WORKBOOK, settings, now)
    if run.simulated:
        mark = _(
            "Run {id} was a rehearsal: it went to a simulator on the same machine ({target}). Nothing reached "
            "WeChat or a merchant.",
            id=run.id,
            target=run.target,
        )
        (folder / SIMULATED).write_text(f"{mark.zh}\n{mark.en}\n", encoding="utf-8", newline="\n")
    html = page(snapshot, summary, settings, versions(), now=now, signed=signed, with_data=with_data)
    (folder / PAGE).write_text(f"{masked(html)}\n", encoding="utf-8", newline="\n")
    if with_data:
        add_data(folder / PAGE, *(folder / name for name in DATA))
    return {
        "schema": SCHEMA,
        **_about(summary, settings.zone),
        "verdict": summary.verdict.of(settings.lang),
        "rows_digest": lines.digest.hexdigest(),
        **({"signed": signed} if signed else {}),
        "files": {},
        "exported_at": _moment(now, settings.zone),
        "lang": str(settings.lang),
        "timezone": settings.timezone,
        "versions": versions(),
    }


def _complete(folder: Path, content: dict[str, Any], run: RunRecord) -> None:
    """Write the manifest, and make sure that no file contains a secret and all are on the disk."""
    names = sorted(file.name for file in folder.iterdir())
    content["files"] = {name: fingerprint(folder / name) for name in names}
    text = json.dumps(_clean(content), ensure_ascii=False, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="\n")
    for name in (*names, MANIFEST):
        if leak := find_leak(folder / name):
            raise StoppedError(
                _(
                    "The report was not finished: {name} would contain {kind}. Everything written was removed, and run {id} "
                    "is safe in the ledger.",
                    name=name,
                    kind=leak,
                    id=run.id,
                ),
                _("This is a bug in tcb-ops: please report it."),
            )
        sync_to_disk(folder / name)
    sync_to_disk(folder)


def _put(part: Path, dest: Path) -> None:
    """Put the new report in place: by renaming its folder, or file by file where a report is, manifest.json last.

    Windows lets nobody rename a folder while a file of it is open, or a terminal is in it. An open file is noticed before
    anything changes. A kill or a power cut leaves the old report or the new one complete; while files are replaced, the new
    one is still complete in `part`. An error in between leaves files of both, and a copy of the manifest, by which `verify`
    knows it; the next export replaces them all.
    """
    if not dest.exists() or not any(dest.iterdir()):
        if dest.exists():
            dest.rmdir()
        part.rename(dest)
        sync_to_disk(dest.parent)
        return
    present, older = {entry.name for entry in dest.iterdir()}, read_manifest(dest)
    names = sorted((entry.name for entry in part.iterdir()), key=lambda name: name == MANIFEST)
    for name in present - LEFT_BY_DESKTOPS:
        (dest / name).rename(dest / name)  # changes nothing; Windows refuses it while the file is open
    with ExitStack() as stack:
        for name in names:
            copy = dest / f"{name}{COPY}"
            stack.callback(copy.unlink, missing_ok=True)
            with (part / name).open("rb") as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target)
            sync_to_disk(copy)
        sync_to_disk(part.parent)
        stack.pop_all()  # from here on, what is left tells of the two reports
    if DEMO_LEDGER in present:
        shutil.rmtree(dest / DEMO_LEDGER)
    of_older = {*(older.files if older is not None else ()), f"{PDF}{COPY}", SIGNATURE}
    for name in present & of_older - {*names}:
        (dest / name).unlink()
    for name in names:
        (dest / f"{name}{COPY}").replace(dest / name)
    sync_to_disk(dest)


def _check(real: Path, dest: Path, run_id: str | None, *, replace: bool) -> None:
    if not real.exists():
        above = next(folder for folder in real.parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise _refused(dest, _("no folder can be created in {above}", above=above))
        return
    if not real.is_dir():
        raise _refused(dest, _("it is a file"))
    names = {entry.name for entry in real.iterdir()} - LEFT_BY_DESKTOPS
    if not names:
        return
    if (manifest := read_manifest(real)) is None:
        raise _refused(dest, _("it is not empty and contains no report"))
    if manifest.run != run_id and not replace:
        raise _refused(dest, _("it contains the report of run {run}", run=manifest.run))
    replaced = {MANIFEST, SIGNATURE, *manifest.files, WORKBOOK, PDF, SIMULATED}
    replaced |= {f"{name}{COPY}" for name in replaced}
    if replace and manifest.simulated:
        replaced.add(DEMO_LEDGER)
    if others := sorted(names - replaced):
        listed = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
        raise _refused(
            dest, _("besides a report it contains files that would be lost: {names}", names=listed)
        )


def _refused(dest: Path, text: Text) -> UsageError:
    return UsageError(
        _("{dest} cannot be the report folder: {why}. Choose another one with {--out}.", dest=dest, why=text),
    )


def _real(dest: Path) -> Path:
    """Resolve links, so that a link to a folder stays a link when the folder is replaced."""
    return Path(os.path.realpath(dest))


# --- manifest.json ----------------------------------------------------------------------


class _ListFacts(msgspec.Struct, frozen=True):
    name: str
    sha256: str


class _FileFacts(TypedDict):
    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True):
    """The contents of manifest.json."""

    run: str
    target: str
    rows: int
    files: dict[str, _FileFacts]
    """Of every file except manifest.json."""
    input: _ListFacts
    root: str
    """Folder of the local files, which usually contains the list."""
    rows_digest: str
    finished_at: str | None
    exported_at: str
    retries: tuple[str, ...]
    environments: frozenset[tuple[str, str]] = frozenset()
    """The environments selected with --where, as (appid, env); empty for all."""
    settings: dict[str, Any] = {}
    """Of the run."""
    signed: str = ""
    """The fingerprint of the key that signed it; empty for none."""
    kind: str = ""
    counts: dict[str, int] = {}
    verdict: str = ""
    """The sentence at the top of the page, in its language."""

    @property
    def simulated(self) -> bool:
        """Whether the target was a simulator, whatever the other fields say."""
        return SIMULATOR in (self.target, self.settings.get("listener"))


def _about(summary: RunSummary, zone: tzinfo) -> dict[str, Any]:
    """Return a manifest's facts about the run, secrets in the operator's texts not yet masked."""
    run = summary.run
    return {
        "run": run.id,
        "parent": run.parent or None,
        "retries": list(run.retries),
        **({"environments": [list(pair) for pair in run.environments]} if run.environments else {}),
        "kind": str(run.kind),
        "target": run.target,
        "simulated": run.simulated,
        **({"mark": MARK} if run.simulated else {}),
        "rows": summary.total,
        "counts": {str(outcome): rows for outcome, rows in summary.counts.items()},
        "input": {"name": run.list_name, "sha256": run.list_sha256, "bytes": run.list_bytes},
        "operator": run.operator,
        "host": run.host,
        "note": run.note,
        "root": run.root,
        "created_at": _moment(run.created_at, zone),
        "finished_at": _moment(run.finished_at, zone),
        "settings": run.settings.facts(),
    }


def _moment(time: float | None, zone: tzinfo) -> str | None:
    return None if time is None else datetime.fromtimestamp(time, zone).isoformat(timespec="milliseconds")


def _clean(value: Any) -> Any:
    """Return a value of the manifest with secrets masked in all its texts, nested ones included."""
    match value:
        case str():
            return masked(value)
        case dict():
            return {name: _clean(inner) for name, inner in value.items()}
        case list() | tuple():
            return [*map(_clean, value)]
    return value


def read_manifest(folder: Path) -> Manifest | None:
    """Read a folder's manifest; None if it is missing or invalid. Never raises OSError."""
    try:
        with open_regular(folder / MANIFEST) as content:
            manifest = msgspec.json.decode(content.read(), type=Manifest)
        if any(name in {"", ".", ".."} or re.search(r"[/\\\0]", name) for name in manifest.files):
            return None  # a name that leads out of the folder
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return None
    return manifest


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
