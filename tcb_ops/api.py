"""The public functions. They block, inside a running event loop as well; `start_…` functions return immediately.

The command line, the panels and the notebooks call these. An invalid value raises ArgumentError or SettingsError, both
UsageErrors: nothing was sent. Functions that start a run share the keywords of `tcb_ops.start.StartOptions`; `target` and
`settings` are the same in all others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex, TypedDict, Unpack, cast

from tcb_ops.arguments import checked
from tcb_ops.engine.list_kinds import LINKS
from tcb_ops.errors import LedgerDamagedError, check_count, check_value, needed
from tcb_ops.frames import ArrowStream, Given
from tcb_ops.hooks import BackupHooks
from tcb_ops.i18n import _, as_list
from tcb_ops.kinds import ANY_KIND, kind_names
from tcb_ops.lists.row_files import source_check
from tcb_ops.model import OnBad, Rows
from tcb_ops.run import Run, RunHandle
from tcb_ops.settings import Settings
from tcb_ops.start import (
    ResumeOptions,
    StartOptions,
    TargetOptions,
    blocking,
    check_not_narrowed,
    existing_ledger,
    find_run,
    ledger_with_runs,
    merchants_for,
    naming,
    rows_of_table,
    settings_for,
    start_run,
)

if TYPE_CHECKING:
    import pandas as pd

    from tcb_ops.engine.plan import RunSpec
    from tcb_ops.ledger.ledger import Ledger
    from tcb_ops.ledger.records import RunRecord
    from tcb_ops.lists.batch import Batch
    from tcb_ops.lists.merchants import Merchants

_SECONDS_PER_DAY = 86_400


@checked
def read_merchants(source: str | Path, where: str | Sequence[str] = "") -> Merchants:
    """Read a merchants file (CSV, TSV or XLSX, whose hidden rows count), narrowed by `where`: `"region=east"`, or several items.

    Items are a list, or a text with semicolons between them. A line is kept if it matches every column given, and one of the values of a column given several times. Columns are
    named by their header in the file or by our name, ignoring width and case.

    Raises InputError with every problem of the file, and UsageError if an item of `where` names no column or selects no
    merchant.
    """
    from tcb_ops.lists import merchants as merchants_file

    with naming("source", source):
        return merchants_file.read_merchants(source, where)


@checked
def read_paths(
    source: str | Path | pd.DataFrame | ArrowStream,
    merchants: Merchants | str | Path = "",
    root: str | Path | None = None,
    *,
    columns: Mapping[str, str] = {},
    on_bad: OnBad = "refuse",
    sheet: str = "",
    header_row: int = 0,
    rows: Rows | None = None,
    file_map: Sequence[str] = (),
    where: str | Sequence[str] = "",
    **options: Unpack[TargetOptions],
) -> Batch:
    r"""Read a path list (CSV, TSV, XLSX, a DataFrame or another table) and check every row.

    Args:
        source: the file, a DataFrame, or anything with `__arrow_c_stream__`, such as a frame of polars or a result of DuckDB
            (needs pyarrow). The values of a table are converted to text, missing ones to empty text; its first row
            is line 2, as in a CSV file.
        merchants: from `read_merchants`, or the file; by default the file of the settings.
        root: the folder of the local files, to check them; None: they are not checked.
        columns: our name (env, merchant, path, file, appid, content_type, cache_control) → the column's header.
        on_bad: `refuse` raises if any row has a problem, `skip` marks those rows invalid.
        sheet: the workbook's sheet.
        header_row: the line of the header; 0: it is detected.
        rows: for a workbook with hidden rows, `all` or `visible`.
        file_map: items such as `D:\素材=/data/素材`, for local files named on another machine; needs `root`.
        where: only rows of merchants that match, as in `read_merchants`; the others are left out.
        settings: for files that are URLs, with their `source_hosts`.
        target: of the run; files may be read from this machine if it is a simulator.

    Raises InputError with every problem in the order of the file (problems of the file itself with any `on_bad`), and
    UsageError for an invalid argument, or if no row is left.

    """
    check_count("header_row", header_row)
    if options:
        options = {"settings": settings_for(options)}
    if not isinstance(source, str | PathLike):
        check_value("header_row", header_row, header_row == 0, _("0 with a DataFrame"))
    return _read_list(
        "source",
        source,
        merchants_for(merchants, options, where),
        root,
        options,
        columns=columns,
        on_bad=on_bad,
        sheet=sheet,
        header_row=header_row,
        rows=rows,
        file_map=file_map,
    )


class _ReadingOptions(TypedDict, total=False):
    columns: Mapping[str, str]
    on_bad: OnBad
    sheet: str
    header_row: int
    rows: Rows | None
    file_map: Sequence[str]


def _read_list(
    parameter: str,
    source: str | Path | pd.DataFrame | ArrowStream,
    merchants: Merchants,
    root: str | Path | None,
    options: TargetOptions,
    **reading: Unpack[_ReadingOptions],
) -> Batch:
    from tcb_ops.lists.paths import read_paths as read

    listed = source if isinstance(source, str | PathLike) else rows_of_table(parameter, source)
    with naming(parameter, source):
        return read(listed, merchants, root, sources=source_check(lambda: settings_for(options)), **reading)


def _listed(
    source: Batch | str | Path | pd.DataFrame | ArrowStream,
    merchants: Merchants | str | Path,
    root: str | Path | None,
    options: StartOptions,
) -> Batch:
    """Return the batch, read with the merchants if a list is given instead; if there is a root, its files are checked."""
    from tcb_ops.lists.batch import Batch

    where = options.get("where", "")
    if not isinstance(source, Batch):
        return _read_list("batch", source, merchants_for(merchants, options, where), root, options)
    check_not_narrowed(merchants, where)
    return source if root is None else source.check_files(root)


@checked
def start_links(
    batch: Batch | str | Path | pd.DataFrame | ArrowStream,
    *,
    merchants: Merchants | str | Path = "",
    out: str | Path = "links.csv",
    **options: Unpack[StartOptions],
) -> RunHandle:
    """Start a links run, or resume the unfinished one of the same list.

    It requests an upload link per row and writes the links to `out` (0600), at most `rate` per second and appid. Local files are
    not read. `batch`: from
    `read_paths`, or what `read_paths` takes, such as `"paths.csv"` or a DataFrame: it is read with `merchants` (by default the
    file of the settings). Raises InputError with every problem of the list.
    """
    from tcb_ops.engine.plan import correction, list_spec

    batch = _listed(batch, merchants, None, options)
    settings, spec = settings_for(options), list_spec(batch, LINKS)
    return start_run(lambda ledger: correction(spec, batch, ledger, settings), settings, options, out=out)


@checked
def start_upload(
    batch: Batch | str | Path | pd.DataFrame | ArrowStream,
    *,
    merchants: Merchants | str | Path = "",
    root: str | Path | None = None,
    skip_unchanged: bool = False,
    backup: str | Path | None = None,
    canary: int = 0,
    out: str | Path | None = None,
    cluster: str | None = None,
    **options: Unpack[StartOptions],
) -> RunHandle:
    """Start an upload of the batch's files, each with its own link, or resume the unfinished one of the same list.

    `batch`: from `read_paths`, or what `read_paths` takes, such as `"paths.csv"` or a DataFrame: it is read with `merchants`
    (by default the file of the settings). `root`: the folder of the local files; None: the batch's own, else the list's folder,
    of a table the working folder.
    Raises InputError with every problem of the list.

    `rate`: link calls per second and appid; RunLimits explains the other limits.
    `skip_unchanged`: rows whose bytes an earlier run of this target stored end as unchanged. `canary`: the number of
    environments that go first; if one of their rows does not succeed, the run stops (CanaryError). `backup`: a folder;
    whatever is overwritten is saved in it first, so that `undo` can restore it.
    `out`: the folder of the report. `upload` writes it at the end; after `start_upload` export the run there: until then the same
    call resumes it.
    """
    from tcb_ops.engine.plan import correction, upload_spec
    from tcb_ops.lists.batch import Batch

    folder = None if backup is None else Path(backup).absolute()
    if folder is not None:
        needed(BackupHooks).check_folder(folder)
    if root is None and not (isinstance(batch, Batch) and batch.root is not None):
        source = batch.source if isinstance(batch, Batch) else batch
        root = Path(source).parent if isinstance(source, str | PathLike) else Path()
    batch = _listed(batch, merchants, root, options)
    settings, spec = settings_for(options), upload_spec(batch, folder)
    return start_run(
        lambda ledger: correction(spec, batch, ledger, settings),
        settings,
        options,
        out=out,
        cluster=cluster,
        skip_unchanged=skip_unchanged,
        canary=canary,
    )


@checked
def start_retry(
    run: str | Run = "latest",
    merchants: Merchants | str | Path = "",
    *,
    codes: Sequence[str | SupportsIndex] = (),
    path: str = "",
    out: str | Path | None = None,
    cluster: str | None = None,
    **options: Unpack[StartOptions],
) -> RunHandle:
    """Start a retry of a finished run, or resume the unfinished one.

    It runs the refused, failed and not attempted rows again that no retry has completed, as a run whose parent is `run`.

    `run`: a Run, an id, an unambiguous prefix, or `latest`. `merchants`: from `read_merchants`, or the file; by default the file of
    the settings; rows of others are left out. `codes`: only rows that ended with one of these errcodes, store codes or
    reasons. `path`: only rows whose cloud path contains this. `out`: for a links run, the file
    of its links (links.retry.csv); for any other, the report's folder, which `retry` writes at the end.
    """
    from tcb_ops.engine.plan import retry_spec

    settings = settings_for(options, run)
    parent = find_run(run, settings).record
    listed = merchants_for(merchants, {"settings": settings}, options.get("where", ""))
    only = {str(code) for code in codes}
    if out is None and parent.kind.writes_links:
        out = "links.retry.csv"

    def work(ledger: Ledger) -> RunSpec:
        spec = retry_spec(ledger, parent, listed, settings, only, path)
        return replace(spec, given=_given(run, spec.list_sha256))

    return start_run(
        work,
        settings,
        options,
        out=out,
        cluster=cluster,
    )


@checked
def start_resume(
    run: str | Run = "latest",
    *,
    skip_unchanged: bool | None = None,
    canary: int | None = None,
    cluster: str | None = None,
    **options: Unpack[ResumeOptions],
) -> RunHandle:
    """Start to resume an unfinished run from the ledger; its list is not needed.

    `skip_unchanged`, `canary`: None: as when the run was started. Raises UsageError if the run is finished, or another
    process works on it.
    """
    from tcb_ops.engine.plan import check_kept, resume_spec

    settings = settings_for(options, run)
    record = find_run(run, settings, kind=ANY_KIND).record
    check_kept(record, settings)
    started = record.settings
    return start_run(
        lambda _: replace(resume_spec(record), given=_given(run, record.list_sha256)),
        settings,
        cast("StartOptions", options | {"resume": record.id}),
        out=record.out or None,
        cluster=cluster,
        skip_unchanged=started.skip_unchanged if skip_unchanged is None else skip_unchanged,
        canary=started.canary if canary is None else canary,
    )


def _given(run: str | Run, list_sha256: str) -> Given | None:
    """Return the DataFrame that was the list of this Run, where it is the same list."""
    return run.given if isinstance(run, Run) and run.record.list_sha256 == list_sha256 else None


links = blocking(start_links, writes_report=False)
upload = blocking(start_upload)
retry = blocking(start_retry, writes_report=False)
resume = blocking(start_resume)


@checked
def open_run(
    run: str | Run = "latest",
    *,
    kind: str | None = None,
    **options: Unpack[TargetOptions],
) -> Run:
    """Open a run by id, an unambiguous beginning or ending of one, its report's folder, or `latest`.

    `latest` is the latest upload or links run of `target`, else the settings', with its retries and corrections: each row as it
    ended last. With `kind` (links, upload, audit, confirm, delete or undo) it is of that kind; with `any`, it is the run that was
    created last, by itself. Raises RunNotFoundError.
    """
    settings = settings_for(options)
    names = [*kind_names(), ANY_KIND]
    check_value("kind", kind, kind in {None, *names}, as_list(names))
    return find_run(run, settings, kind=kind)


@checked
def errcodes(
    run: str | Run = "latest", *, kind: str | None = None, **options: Unpack[TargetOptions]
) -> pd.DataFrame:
    """Return a run's errcodes by merchant, as `Run.errcodes` does; the run is named as in `open_run`."""
    return open_run(run, kind=kind, **options).errcodes()


@checked
def runs(*, settings: Settings | None = None, damaged: list[LedgerDamagedError] | None = None) -> list[Run]:
    """List the runs of the ledger, newest first.

    Errors of runs with a damaged record are appended to `damaged`; without it, the first is raised.
    """
    settings = settings_for({"settings": settings})
    if (ledger := existing_ledger(settings)) is None:
        return []
    errors: list[LedgerDamagedError] = [] if damaged is None else damaged
    records = ledger.runs(damaged=errors)
    if damaged is None and errors:
        raise errors[0]
    return [Run(ledger, record, settings) for record in records]


@checked
def prune(older_than: int, *, dry_run: bool = False, settings: Settings | None = None) -> list[RunRecord]:
    """Remove runs that finished more than `older_than` days ago from the ledger; return them, the newest first.

    Runs that belong to a remaining one stay: its upload, its retries, and what confirmed, deleted or undid it. What a removed
    run last stored at each path is kept for `undo` and `delete`. Reports are not touched. `dry_run`: nothing is removed.
    """
    from tcb_ops.ledger.locks import planning
    from tcb_ops.ledger.prune import prunable, remove

    check_count("older_than", older_than, least=1)
    ledger = ledger_with_runs(settings_for({"settings": settings}))
    with planning(ledger):
        removable = prunable(ledger.runs(), time.time() - older_than * _SECONDS_PER_DAY)
        if not dry_run and removable:
            for run in removable:
                remove(ledger, run)
            ledger.compact()
    return removable


@checked
def prune_reports(older_than: int, *, dry_run: bool = False, settings: Settings | None = None) -> list[Path]:
    """Remove the report folders that were exported more than `older_than` days ago; return them.

    Only those in the settings' `reports` that are as this ledger exported them, so that it can write them again: what somebody
    has changed stays, and so does the report of a run that the ledger does not have any more. `dry_run`: nothing is removed.
    """
    from tcb_ops.reports import old_reports

    check_count("older_than", older_than, least=1)
    settings = settings_for({"settings": settings})
    before = time.time() - older_than * _SECONDS_PER_DAY
    removable = old_reports.removable(settings.reports, ledger_with_runs(settings), before)
    for report in [] if dry_run else removable:
        old_reports.remove(report)
    return removable
