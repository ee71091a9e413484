"""The public functions. They block, inside a running event loop as well; `start_…` functions return immediately.

The command line, the panels and the notebooks call these. Parameters that several functions share:

* `target`: `simulator` (the embedded one) or a URL, instead of the settings' own.
* `settings`: from `load_settings`; None: the settings file and the environment, as on the command line.
* `limits`: a RunLimits; None: its defaults.
* `note`: a short text, kept in the ledger and the report.
* `selection`: a text that identifies the part of the list or the merchants; a run of another part is not resumed.
* `new_run`: start a new run even if there is one to resume. `resume`: the id of the run to resume.
* `may_resume`: called with id and start (Unix seconds) of an unfinished run over a day old; None: it is not resumed.
* `report`: the folder that the caller will export to; until it has, the run counts as unfinished.
* `progress`: called with a Progress after commits, in another thread.
* `tokens`: a TokenSource, instead of the settings' own.
* `cluster`: workers of Dask that share the work: `local:N` processes, a scheduler's URL, or a `distributed.Client`.

An invalid value raises ArgumentError or SettingsError, both UsageErrors: nothing was sent.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import wraps
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeAlias

from tcb_ops.arguments import checked
from tcb_ops.errors import (
    ArgumentError,
    InputError,
    LedgerDamagedError,
    MissingFeatureError,
    RefusedError,
    RunNotFoundError,
    StoppedError,
    UsageError,
    check_count,
    check_value,
    has_surrogates,
)
from tcb_ops.i18n import Text, _, as_list, ngettext
from tcb_ops.kinds import ANY_KIND, Kind, MissingKind, all_kinds, kind_named, kind_names, provided
from tcb_ops.model import Link, Merchant, Owner
from tcb_ops.run import Diff, History, Run, RunHandle
from tcb_ops.runs.links import LINKS
from tcb_ops.runs.progress import Progress
from tcb_ops.settings import NOT_STARTED, Settings, default_settings, with_target

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

    from tcb_ops.features.cluster.client import Cluster
    from tcb_ops.features.evidence.verify import Verification
    from tcb_ops.features.merchants.check import MerchantState
    from tcb_ops.lists.batch import Batch, OnBad
    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.lists.paths import TextRows
    from tcb_ops.lists.table import Rows
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.limits import RunLimits
    from tcb_ops.runs.plan import RunSpec
    from tcb_ops.runs.records import RunRecord
    from tcb_ops.runs.uploads import IfExists
    from tcb_ops.wechat.call_policy import Caller
    from tcb_ops.wechat.client import PlatformClient
    from tcb_ops.wechat.tokens import TokenSource

OnProgress: TypeAlias = Callable[[Progress], None]
MayResume: TypeAlias = Callable[[str, float], bool]
_P = ParamSpec("_P")
SECONDS_PER_DAY = 86_400
"""Seconds."""


@checked
def read_merchants(source: str | Path, where: Sequence[str] = ()) -> Merchants:
    """Read a merchants file (CSV or TSV), narrowed by `where`: items such as `region=east`.

    A line is kept if it matches every column given, and one of the values of a column given several times. Columns are
    named by their header in the file or by our name, ignoring width and case.

    Raises InputError with every problem of the file, and UsageError if an item of `where` names no column or selects no
    merchant.
    """
    from tcb_ops.lists import merchants as merchants_file

    with _naming("source", source):
        return merchants_file.read_merchants(source, where)


@checked
def read_paths(
    source: str | Path | pd.DataFrame,
    merchants: Merchants | str | Path,
    root: str | Path | None = None,
    *,
    columns: Mapping[str, str] = {},
    on_bad: OnBad = "refuse",
    sheet: str = "",
    header_row: int = 0,
    rows: Rows | None = None,
    file_map: Sequence[str] = (),
    settings: Settings | None = None,
    target: str | None = None,
) -> Batch:
    r"""Read a path list (CSV, TSV, XLSX or a DataFrame) and check every row.

    Args:
        source: the file, or a DataFrame: its values are converted to text, missing ones to empty text, and its first row
            is line 2, as in a CSV file.
        merchants: from `read_merchants`, or the file.
        root: the folder of the local files, to check them; None: they are not checked.
        columns: our name (env, merchant, path, file, appid, content_type, cache_control) → the column's header.
        on_bad: `refuse` raises if any row has a problem, `skip` marks those rows invalid.
        sheet: the workbook's sheet.
        header_row: the line of the header; 0: it is detected.
        rows: for a workbook with hidden rows, `all` or `visible`.
        file_map: items such as `D:\素材=/data/素材`, for local files named on another machine; needs `root`.
        settings: for files that are URLs, with their `source_hosts`.
        target: of the run; files may be read from this machine if it is a simulator.

    Raises InputError with every problem in the order of the file (problems of the file itself with any `on_bad`), and
    UsageError for an invalid argument, or if no row is left.

    """
    from tcb_ops.lists import paths as path_list
    from tcb_ops.runs.url_files import SourceInspector

    check_count("header_row", header_row)
    if settings is not None or target is not None:
        settings, target = _settings(settings, target), None
    if isinstance(source, str | PathLike):
        listed: str | Path | TextRows = source
    else:
        listed = _rows_of(source)
        check_value("header_row", header_row, header_row == 0, _("0 with a DataFrame"))
    known = _merchants(merchants)
    with _naming("source", source):
        return path_list.read_paths(
            listed,
            known,
            root,
            columns=columns,
            on_bad=on_bad,
            sheet=sheet,
            header_row=header_row,
            rows=rows,
            file_map=file_map,
            sources=SourceInspector(lambda: _settings(settings, target)),
        )


@checked
def start_links(
    batch: Batch,
    *,
    out: str | Path = "links.csv",
    target: str | None = None,
    settings: Settings | None = None,
    limits: RunLimits | None = None,
    note: str = "",
    selection: str = "",
    new_run: bool = False,
    resume: str | None = None,
    may_resume: MayResume | None = None,
    progress: OnProgress | None = None,
    tokens: TokenSource | None = None,
) -> RunHandle:
    """Start a links run, or resume the unfinished one of the same list.

    It requests an upload link per row and writes the links to `out` (0600). Local files are not read.
    """
    from tcb_ops.runs.plan import list_spec

    return _start(
        lambda _: list_spec(batch, LINKS, selection),
        _absolute(out),
        _settings(settings, target),
        _Options(limits, note, new_run, resume, may_resume, progress, tokens),
    )


@checked
def start_upload(
    batch: Batch,
    *,
    target: str | None = None,
    settings: Settings | None = None,
    limits: RunLimits | None = None,
    note: str = "",
    selection: str = "",
    new_run: bool = False,
    resume: str | None = None,
    may_resume: MayResume | None = None,
    skip_unchanged: bool = False,
    if_exists: IfExists = "overwrite",
    backup: str | Path | None = None,
    canary: int = 0,
    report: str | Path | None = None,
    cluster: Cluster | None = None,
    progress: OnProgress | None = None,
    tokens: TokenSource | None = None,
) -> RunHandle:
    """Start an upload of the batch's files, each with its own link, or resume the unfinished one of the same list.

    A batch that was read without a root is first checked against the list's own folder (InputError).

    `skip_unchanged`: rows whose bytes an earlier run of this target stored end as unchanged. `canary`: the number of
    environments that go first; if one of their rows does not succeed, the run stops (CanaryError). `if_exists`: if a file
    is already there, `skip` keeps it (unchanged) and `fail` ends the row as failed. `backup`: a folder; whatever is
    overwritten is saved in it first, so that `undo` can restore it.
    """
    from tcb_ops.runs.plan import upload_spec
    from tcb_ops.runs.uploads import OVERWRITE

    options: dict[str, str] = {"if_exists": if_exists} if if_exists != OVERWRITE else {}
    if backup is not None:
        options["backup"] = str(_absolute(backup))
        provided("backup_folder")(Path(options["backup"]))
    if batch.root is None:
        batch = batch.check_files(batch.source.parent)
    return _start(
        lambda _: upload_spec(batch, selection, options),
        _absolute(report),
        _settings(settings, target),
        _Options(limits, note, new_run, resume, may_resume, progress, tokens, cluster),
        skip_unchanged=skip_unchanged,
        canary=canary,
    )


@asynccontextmanager
async def _platform(
    settings: Settings, *, connections: int = 1
) -> AsyncIterator[tuple[PlatformClient, Caller]]:
    """Open a client for single calls, and what makes them."""
    from tcb_ops.wechat import open_source
    from tcb_ops.wechat.call_policy import Caller
    from tcb_ops.wechat.client import PlatformClient
    from tcb_ops.wechat.transport import Transport

    source = open_source(settings)
    try:
        async with Transport(connections=connections) as transport:
            client = PlatformClient(transport, settings.api_base, store_hosts=settings.store_hosts)
            yield client, Caller(source)
    finally:
        await source.aclose()


def run_to_resume(wanted: str, kind: Kind, settings: Settings) -> Run:
    """Open the run that is to be resumed; `latest` is the newest one of this kind. Raises RunNotFoundError."""
    if wanted == "latest":
        ledger = _ledger_with_runs(settings)
        newest = ledger.newest(kind, settings.run_target)
        if newest is not None:
            return Run(ledger, newest, settings)
    return open_run(wanted, kind=ANY_KIND, settings=settings)


def run_to_retry(run: str | Run, settings: Settings, kind: str | None = None) -> Run:
    """Open the run that is to be retried; `kind`: as of `open_run`. Raises RunNotFoundError."""
    ledger, record = _ledger_with_runs(settings), _record(run, settings, kind=kind)
    return Run(ledger, record, settings)


@checked
def start_retry(
    run: str | Run,
    merchants: Merchants | str | Path,
    *,
    codes: Sequence[str | int] = (),
    out: str | Path | None = None,
    target: str | None = None,
    settings: Settings | None = None,
    limits: RunLimits | None = None,
    note: str = "",
    selection: str = "",
    new_run: bool = False,
    resume: str | None = None,
    may_resume: MayResume | None = None,
    cluster: Cluster | None = None,
    progress: OnProgress | None = None,
    tokens: TokenSource | None = None,
) -> RunHandle:
    """Start a retry of a finished run, or resume the unfinished one.

    It runs the refused, failed and not attempted rows again, as a run whose parent is `run`.

    `run`: a Run, an id, an unambiguous prefix, or `latest`.
    `merchants`: from `read_merchants`, or the file; rows of others are left out. `codes`: only rows that ended with one of these errcodes or store codes. `out`: for a links run,
    the file of its links (links.retry.csv); for any other, as `report`.
    """
    from tcb_ops.runs.plan import retry_spec

    listed, wanted = _merchants(merchants), {str(code) for code in codes}
    settings = _settings(settings, target, run)
    parent = run_to_retry(run, settings).record
    if out is None and parent.kind.writes_links:
        out = "links.retry.csv"
    return _start(
        lambda ledger: retry_spec(ledger, parent, listed, settings, wanted, selection),
        _absolute(out),
        settings,
        _Options(limits, note, new_run, resume, may_resume, progress, tokens, cluster),
    )


@checked
def start_resume(
    run: str | Run = "latest",
    *,
    target: str | None = None,
    settings: Settings | None = None,
    limits: RunLimits | None = None,
    skip_unchanged: bool | None = None,
    canary: int | None = None,
    cluster: Cluster | None = None,
    progress: OnProgress | None = None,
    tokens: TokenSource | None = None,
) -> RunHandle:
    """Start to resume an unfinished run from the ledger; its list is not needed.

    `skip_unchanged`, `canary`: None: as when the run was started. Raises UsageError if the run is finished, or another
    process works on it.
    """
    from tcb_ops.runs.plan import check_kept, resume_spec

    settings = _settings(settings, target, run)
    record = _record(run, settings, kind=ANY_KIND)
    check_kept(record, settings)
    if skip_unchanged is None:
        skip_unchanged = bool(record.settings.get("skip_unchanged", False))
    return _start(
        lambda _: resume_spec(record),
        _absolute(record.out or None),
        settings,
        _Options(limits, resume=record.id, progress=progress, tokens=tokens, cluster=cluster),
        skip_unchanged=skip_unchanged,
        canary=int(record.settings.get("canary", 0)) if canary is None else canary,
    )


def _waiting_for(start: Callable[_P, RunHandle]) -> Callable[_P, Run]:
    """Return a function that starts a run and waits for its end; it takes the arguments of `start`."""

    @wraps(start)
    def call(*args: _P.args, **options: _P.kwargs) -> Run:
        # Python's own message would contain the name of `start`.
        for unknown in options.keys() - takes.parameters.keys():
            raise TypeError(f"{name}() got an unexpected keyword argument '{unknown}'")
        try:
            takes.bind(*args, **options)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        return start(*args, **options).wait()

    takes, name = signature(start), start.__name__.removeprefix("start_")
    call.__name__ = call.__qualname__ = name
    call.__annotations__ = start.__annotations__ | {"return": "Run"}
    call.__dict__["__signature__"] = takes.replace(return_annotation="Run")
    call.__doc__ = f"Call `{start.__name__}` and wait for the run's end. {start.__doc__}"
    return call


links = _waiting_for(start_links)
upload = _waiting_for(start_upload)
retry = _waiting_for(start_retry)
resume = _waiting_for(start_resume)


@checked
def open_run(
    wanted: str = "latest",
    *,
    kind: str | None = None,
    settings: Settings | None = None,
    target: str | None = None,
) -> Run:
    """Open a run by id, an unambiguous beginning or ending of one, its report's folder, or `latest`.

    `latest` is the last created run of `target`, else the settings', and of `kind`: links, upload, audit, confirm, delete,
    undo or any; by default links, upload or audit. Raises RunNotFoundError.
    """
    settings = _settings(settings, target)
    check_value("wanted", wanted, _may_be_a_run(wanted), _("the id of a run, or latest"))
    names = [*kind_names(), ANY_KIND]
    check_value("kind", kind, kind in {None, *names}, as_list(names))
    ledger = _ledger_with_runs(settings)
    return Run(ledger, _find(ledger, wanted, settings, kind), settings)


@checked
def all_runs(
    *, settings: Settings | None = None, damaged: list[LedgerDamagedError] | None = None
) -> list[Run]:
    """List the runs of the ledger, newest first.

    Errors of runs with a damaged record are appended to `damaged`; without it, the first is raised.
    """
    settings = _settings(settings, None)
    ledger = _ledger(settings)
    if ledger is None:
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
    from tcb_ops.runs.locks import planning
    from tcb_ops.runs.plan import prunable

    check_count("older_than", older_than, least=1)
    ledger = _ledger_with_runs(_settings(settings, None))
    with planning(ledger):
        found = prunable(ledger.runs(), time.time() - older_than * SECONDS_PER_DAY)
        if not dry_run and found:
            for run in reversed(found):  # the oldest first: of what was stored at a path, the newest is kept
                ledger.prune(run)
            ledger.compact()
    return found


@checked
def check_merchants(
    merchants: Iterable[Merchant] | str | Path,
    *,
    settings: Settings | None = None,
    target: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[MerchantState]:
    """Check what each line of a merchants file can do today: token, permission set, 云开发, environment, calls left.

    `progress` is called with the mini programs done and their number. Raises SettingsError, StoppedError.
    """
    from tcb_ops.features.merchants.queries import begin_check, ignore
    from tcb_ops.features.simulator import opened_target

    settings = _settings(settings, target)
    listed = _merchants(merchants) if isinstance(merchants, str | PathLike) else merchants
    lines = list(listed)
    usable = all(isinstance(line, Merchant) for line in lines)
    check_value("merchants", merchants, usable, _("Merchants, a list of Merchant, or the path of their file"))
    with opened_target(settings, lambda: lines) as opened:
        return list(begin_check(opened, lines, progress=progress or ignore).result().states)


@checked
def diff(
    older: str | Run,
    newer: str | Run = "latest",
    *,
    merchants: Merchants | str | Path | None = None,
    settings: Settings | None = None,
    target: str | None = None,
) -> Diff:
    """Compare two runs of one kind and target: newly broken, fixed, still broken, by merchant and cause.

    Each is a Run, an id, a prefix or `latest`; `merchants`: only their rows are compared. Raises RunNotFoundError, and
    UsageError if the runs cannot be compared.
    """
    settings = _settings(settings, target, newer)
    ledger = _ledger_with_runs(settings)
    before, after = _record(older, settings, "older"), _record(newer, settings, "newer")
    only = None if merchants is None else _merchants(merchants)
    return Diff.between(ledger, before, after, settings, only)


@checked
def history(
    days: int = 30, *, until: str = "today", settings: Settings | None = None, target: str | None = None
) -> History:
    """Count errcodes by day and merchant over all runs of `target`, else the settings'.

    `until` is the last of the days, such as 2026-10-30, or today.
    """
    from tcb_ops.reports.comparisons import history as look_back

    settings = _settings(settings, target)
    check_count("days", days, least=1)
    now = time.time()
    if until != "today":
        try:
            last = datetime.fromisoformat(until)
        except ValueError:
            raise ArgumentError("until", until, _("today or a date such as 2026-10-30")) from None
        now = last.replace(tzinfo=settings.zone).timestamp()
    return History.of(look_back(_ledger(settings), settings.run_target, settings, days=days, now=now))


@checked
def verify(folder: str | Path, *, settings: Settings | None = None) -> Verification:
    """Check a report folder against its manifest, the ledger and the list, as far as they exist.

    Nothing is written. Raises UsageError if the folder has no report.
    """
    from tcb_ops.features.evidence.verify import verify as check

    settings = _settings(settings, None)
    place = Path(folder)
    lists = (Path(), settings.merchants.parent, *place.absolute().parents[:2])
    return check(place, _ledger(settings), lists, str(Path(settings.ledger).absolute()))


@checked
def run_holder(run: str, *, settings: Settings | None = None) -> Text | None:
    """Return who works on a run; None if nobody does. Takes the run's lock for a moment to find out."""
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.locks import hold, planning

    ledger = Ledger(_settings(settings, None).ledger)
    try:
        with planning(ledger), hold(ledger, run):  # other processes that plan a run wait meanwhile
            return None
    except UsageError as error:
        return error.text


@checked
def upload_link(
    env: str,
    path: str,
    *,
    appid: str | None = None,
    settings: Settings | None = None,
    target: str | None = None,
) -> Link:
    """Request one upload link, for ad-hoc work. Only `.reveal()` shows its secret parts.

    `appid` is needed if several merchants share the environment. Raises UsageError (unknown env, bad path),
    TokenError, TransportError, RefusedError (the platform's errcode).
    """
    from tcb_ops.features.simulator import opened_target
    from tcb_ops.lists import merchants as merchants_file
    from tcb_ops.lists.paths import path_problem
    from tcb_ops.runs.loop import submit_coroutine

    settings = _settings(settings, target)
    wrong = path_problem(path)
    if wrong is not None:
        raise UsageError(_("path: {wrong}.", wrong=wrong[0]))
    merchants = merchants_file.read_merchants(settings.merchants)
    callers = merchants.for_env(env)
    if not callers:
        raise UsageError(
            _(
                "env: no merchant of {merchants} has the environment {env}.",
                merchants=settings.merchants,
                env=env,
            ),
            _("Use an environment of that file."),
        )
    chosen = (
        [m for m in callers if m.appid == appid]
        if appid
        else [m for m in callers if m.default] or list(callers)
    )
    if len(chosen) != 1:
        raise UsageError(
            _(
                "environment {env}: {merchants} match (it has {known}); choose one with appid=.",
                env=env,
                merchants=ngettext("{n:,} merchant", "{n:,} merchants", len(chosen)),
                known=", ".join(m.appid for m in callers),
            )
        )
    with opened_target(settings, lambda: merchants) as opened:
        return submit_coroutine(_one_link(env, path, chosen[0].appid, chosen[0].owner, opened)).result()


async def _one_link(env: str, path: str, appid: str, owner: Owner, settings: Settings) -> Link:
    from tcb_ops.errcodes import errcode
    from tcb_ops.errors import TokenError, TransportError, TransportFault
    from tcb_ops.runs.stop_errors import NO_COMPONENT
    from tcb_ops.wechat.call_policy import CallFailure
    from tcb_ops.wechat.responses import ApiError, InvalidResponse, UnsafeLink

    if owner is Owner.PLATFORM:
        appid = settings.tokens.component_appid
        if not appid:
            raise TokenError(NO_COMPONENT)
    async with _platform(settings) as (client, caller):
        found: Link | UnsafeLink | CallFailure = await caller.call(
            appid, lambda token: client.upload_link(env, path, token, owner)
        )
    answer = found.answer if isinstance(found, CallFailure) else found
    match answer:
        case TransportError():
            raise answer
        case ApiError():
            known = errcode(answer.errcode, owner)
            raise RefusedError(
                _(
                    "errcode {errcode} {errmsg}: {meaning}. {action}",
                    errcode=answer.errcode,
                    errmsg=answer.errmsg,
                    meaning=known.meaning,
                    action=known.action,
                ),
                answer.errcode,
            )
        case InvalidResponse() | UnsafeLink():
            raise TransportError(TransportFault.GARBAGE, answer.why)
        case _:
            return answer


def _ledger(settings: Settings) -> Ledger | None:
    """Open the ledger for reading; return None without creating it if it does not exist."""
    from tcb_ops.runs.ledger import Ledger

    there = "://" in settings.ledger or Path(settings.ledger).exists()
    return Ledger(settings.ledger) if there else None


def _ledger_with_runs(settings: Settings) -> Ledger:
    ledger = _ledger(settings)
    if ledger is None:
        raise RunNotFoundError(
            _(
                "{where} does not exist: no run has used this ledger yet. Check the working folder, and --ledger.",
                where=settings.ledger,
            ),
        )
    return ledger


def _find(ledger: Ledger, wanted: str, settings: Settings, kind: str | None = None) -> RunRecord:
    """Return a run's record; the error for a missing run also shows how to list the runs.

    `wanted`: as RUN on the command line. `kind`: of which `latest` is one, or `any`; None: one of the kinds with `main`.
    """
    from tcb_ops.runs.next_commands import command, quoted

    kinds = None
    if kind != ANY_KIND:
        kinds = [kind_named(kind)] if kind else [each for each in all_kinds() if each.main]
    try:
        record = ledger.run(_run_of_report(wanted), settings.run_target, kinds)
    except RunNotFoundError as error:
        listing = quoted(command(settings, "runs"))
        raise RunNotFoundError(
            _("{text}\nTo list the runs:\n{listing}", text=error.text, listing=listing)
        ) from None
    if isinstance(record.kind, MissingKind):
        raise MissingFeatureError(record.kind)
    return record


def _run_of_report(wanted: str) -> str:
    """Return the run of a report's folder; anything else unchanged."""
    folder = Path(wanted)
    if not folder.is_dir():
        return wanted
    from tcb_ops.reports.export import read_manifest

    manifest = read_manifest(folder)
    return manifest.run if manifest is not None else wanted


class _Options(NamedTuple):
    """The parameters that all functions share that start a run; not checked yet."""

    limits: RunLimits | None
    note: str = ""
    new_run: bool = False
    resume: str | None = None
    may_resume: MayResume | None = None
    progress: OnProgress | None = None
    tokens: TokenSource | None = None
    cluster: Cluster | None = None


def _start(
    work_of: Callable[[Ledger], RunSpec],
    out: Path | None,
    settings: Settings,
    options: _Options,
    *,
    skip_unchanged: bool = False,
    canary: int = 0,
) -> RunHandle:
    """Plan the run, or find the unfinished one to resume, and start to work on it.

    `out`: the file of the links, else the folder that the caller will export to. The embedded simulator runs until the
    work on the run ends. Raises UsageError, LedgerError.
    """
    from tcb_ops.features.simulator import opened_target
    from tcb_ops.runs.engine import RunContext
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.limits import RunLimits
    from tcb_ops.runs.links_file import check_destination
    from tcb_ops.runs.locks import hold, planning
    from tcb_ops.runs.plan import plan
    from tcb_ops.runs.session import RunSession
    from tcb_ops.wechat import open_source

    limits, note, new_run, resume, may_resume, progress, tokens, cluster = options
    limits = limits or RunLimits()
    check_value("resume", resume, resume is None or _may_be_a_run(resume), _("the id of a run"))
    check_count("canary", canary)
    if cluster is not None:
        from tcb_ops.features.cluster.client import check_cluster

        check_cluster(cluster)
        check_value(
            "tokens", tokens, tokens is None, _("None with a cluster: its workers need the settings' source")
        )
    # An unreadable source is reported before anything is planned. The simulator, once started, has its own.
    source = tokens or (open_source(settings) if settings.api_base != NOT_STARTED else None)
    ledger = Ledger(settings.ledger)
    work = work_of(ledger)
    if work.kind.writes_links and out is not None:
        check_destination(out)
    if cluster is not None:
        from tcb_ops.features.cluster.client import check_kind

        check_kind(work.kind, work.queries)
    with _with_cluster(cluster, settings) as (stack, client, dashboard), planning(ledger) as still_alone:
        planned = plan(
            ledger,
            work,
            settings,
            out=out,
            options=asdict(limits)
            | {"skip_unchanged": skip_unchanged, "canary": canary}
            | ({"cluster": cluster} if isinstance(cluster, str) else {}),
            note=note,
            new_run=new_run,
            resume=resume or "",
            now=time.time(),
            may_resume=may_resume or (lambda _run, _begun: False),
        )
        check_lock = stack.enter_context(hold(ledger, planned.run.id))
        if planned.run.finished_at is not None:  # everything except the report, which the caller writes
            return RunHandle(ledger, planned.run, None, settings, stack.pop_all(), work.warning, resumed=True)
        opened = stack.enter_context(opened_target(settings, lambda: _merchants_of(ledger, planned.run)))
        try:
            still_alone()  # raises if another command may have planned a second run of the list
            context = RunContext(
                ledger=ledger,
                run=planned.run,
                settings=opened,
                limits=limits,
                tokens=source or open_source(opened),
                root=work.root or Path(),
                out=out,
                progress=progress,
                skip_unchanged=skip_unchanged,
                canary=canary,
                cluster=client,
                queries=work.queries,
                resumed=planned.resumed,
                check_lock=check_lock,
                may_discard=lambda other: _is_abandoned(ledger, other, new_run=new_run),
            )
            session = RunSession(context)
        except (UsageError, StoppedError):
            if not planned.resumed:
                ledger.forget(planned.run)
            raise
        return RunHandle(
            ledger,
            planned.run,
            session,
            settings,
            stack.pop_all(),
            work.warning,
            resumed=planned.resumed,
            dashboard=dashboard,
        )
    raise AssertionError  # the block above returns or raises


@contextmanager
def _with_cluster(
    cluster: Cluster | None, settings: Settings
) -> Iterator[tuple[ExitStack, Client | None, str]]:
    """Open a cluster before anything is planned; the stack closes it. Yield its client and its dashboard, too."""
    with ExitStack() as stack:
        if cluster is None:
            yield stack, None, ""
            return
        from tcb_ops.features.cluster.client import dashboard_of, opened_cluster

        client = stack.enter_context(opened_cluster(cluster, settings))
        yield stack, client, dashboard_of(client)


def _merchants_of(ledger: Ledger, run: RunRecord) -> list[Merchant]:
    """Return the merchants of a run, which the embedded simulator serves; skipped rows may have none."""
    return [
        Merchant(one.appid, one.merchant, one.env, owner=one.owner, left=one.left)
        for one in ledger.envs(run)
        if one.appid and one.env
    ]


def _is_abandoned(ledger: Ledger, run_id: str, *, new_run: bool) -> bool:
    """Return whether nobody will resume a run: it is finished, or with `new_run` nobody works on it."""
    from tcb_ops.runs.locks import hold

    try:
        if ledger.run(run_id).finished_at is not None:
            return True
        with hold(ledger, run_id):
            return new_run
    except RunNotFoundError:  # of another ledger, or of a lost one
        return new_run
    except UsageError:  # being worked on
        return False


def _settings(settings: Settings | None, target: str | None, run: object = None) -> Settings:
    """Return the settings of a call; if it has none, those of the Run that it is given."""
    check_value("target", target, target != "", _("simulator or a URL"))
    if settings is None and isinstance(run, Run):
        settings = run.settings
    return with_target(settings or default_settings(), target)


def _may_be_a_run(wanted: str) -> bool:
    return wanted.isprintable() and wanted != ""


def _record(run: str | Run, settings: Settings, parameter: str = "run", kind: str | None = None) -> RunRecord:
    """Return a run's current record in the ledger; `kind`: as of `open_run`."""
    check_value(parameter, run, isinstance(run, Run) or _may_be_a_run(run), _("a Run, or a run's id"))
    return _find(_ledger_with_runs(settings), run.id if isinstance(run, Run) else run, settings, kind)


def _merchants(merchants: Merchants | str | Path) -> Merchants:
    from tcb_ops.lists import merchants as merchants_file
    from tcb_ops.lists.merchants import Merchants

    if isinstance(merchants, Merchants):
        return merchants
    with _naming("merchants", merchants):
        return merchants_file.read_merchants(merchants)


@contextmanager
def _naming(parameter: str, file: object) -> Iterator[None]:
    """Add the parameter's name to the error of a missing file."""
    try:
        yield
    except InputError as error:
        if not isinstance(file, str | PathLike) or error.source != str(file) or Path(file).exists():
            raise
        text = _("{where}: {message}", where=parameter, message=error.text)
        raise InputError(text, error.source, error.problems) from None


def _rows_of(frame: pd.DataFrame) -> TextRows:
    """Return the cells of a DataFrame as text. Whoever passes one has already imported pandas."""
    from tcb_ops.lists.paths import TextRows

    cells = frame.astype(object).where(frame.notna(), "")
    headers = tuple(map(str, frame.columns))
    rows = [tuple(map(str, row)) for row in cells.itertuples(index=False, name=None)]
    texts = map("".join, (headers, *rows))
    storable = not any("\0" in text or has_surrogates(text) for text in texts)
    check_value("source", frame, storable, _("a DataFrame without NUL and lone surrogates in its texts"))
    return TextRows("DataFrame", headers, rows)


def _absolute(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path).absolute()
