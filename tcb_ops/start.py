"""What the public functions share: what callers give, such as a path, an id or None, turned into objects; and the start of a run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import wraps
from inspect import cleandoc, unwrap
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypedDict, TypeGuard
from urllib.parse import urlsplit

from tcb_ops.arguments import checked
from tcb_ops.engine.progress import Progress
from tcb_ops.errors import (
    InputError,
    MissingFeatureError,
    RunNotFoundError,
    StoppedError,
    UsageError,
    check_count,
    check_value,
    has_surrogates,
    needed,
)
from tcb_ops.formatting import trim
from tcb_ops.frames import ArrowStream, Given
from tcb_ops.hooks import ArrowHooks, ClusterHooks, SimulatorHooks, TokenSource, hooks
from tcb_ops.i18n import _, as_sentences
from tcb_ops.kinds import ANY_KIND, MissingKind, all_kinds, kind_named
from tcb_ops.model import Merchant, Outcome
from tcb_ops.run import Run, RunHandle
from tcb_ops.settings import NO_SETTINGS_FILE, NOT_STARTED, Settings, default_settings, with_target
from tcb_ops.signals import raise_if_asked

if TYPE_CHECKING:
    import pandas as pd

    from tcb_ops.engine.limits import RunLimits
    from tcb_ops.engine.plan import RunSpec
    from tcb_ops.ledger.ledger import Ledger
    from tcb_ops.ledger.records import RunRecord
    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.lists.paths import TextRows

OnProgress: TypeAlias = Callable[[Progress], None]
MayResume: TypeAlias = Callable[[str, float], bool]
_P = ParamSpec("_P")


class TargetOptions(TypedDict, total=False):
    """The keywords of every function that depends on a target."""

    target: str | None
    """`simulator` (the embedded one) or a URL, instead of the settings' own."""
    settings: Settings | None
    """From `load_settings`; None: the settings file and the environment, as on the command line."""


def settings_for(options: TargetOptions, run: object = None) -> Settings:
    """Return the settings of a call; if it has none, those of the Run that it is given."""
    settings, target = options.get("settings"), options.get("target")
    check_value("target", target, target != "", _("simulator or a URL"))
    if settings is None and isinstance(run, Run):
        settings = run.settings
    return with_target(settings or default_settings(), target)


@contextmanager
def opened_target(settings: Settings, merchants: Callable[[], Iterable[Merchant]]) -> Iterator[Settings]:
    """Start the embedded simulator if it is the target; yield the settings for it, else those that know what listens.

    `merchants`: called for those that the embedded simulator serves. Raises MissingFeatureError without a simulator.
    """
    if not settings.target or settings.api_base != NOT_STARTED:
        yield identified(settings)
        return
    with needed(SimulatorHooks).embedded(settings, merchants) as opened:
        yield opened


def identified(settings: Settings) -> Settings:
    """Return the settings with what listens at their target, which an http address is asked once."""
    from tcb_ops.engine.loop import result_of, submit_coroutine
    from tcb_ops.wechat.client import listener_at

    if settings.listener is not None or settings.target or urlsplit(settings.api_base).scheme != "http":
        return settings
    return replace(settings, listener=result_of(submit_coroutine(listener_at(settings.api_base))))


def limits_for(options: ResumeOptions) -> RunLimits:
    """Return the limits of a call: those of the bundle, and by name. Raises ArgumentError for one given both ways."""
    from tcb_ops.engine.limits import RunLimits

    bundle, defaults = options.get("limits") or RunLimits(), asdict(RunLimits())
    named: dict[str, Any] = {name: options.get(name) for name in defaults if options.get(name) is not None}
    for name, value in named.items():
        once = getattr(bundle, name) == defaults[name]
        check_value(name, value, once, _("given once, by its name or in limits"))
    return replace(bundle, **named)


def merchants_for(
    merchants: Merchants | str | Path, options: TargetOptions, where: str | Sequence[str] = ""
) -> Merchants:
    """Return the merchants that match, read if their file is given; by default the file that the settings name."""
    from tcb_ops.lists.merchants import Merchants, narrowed, read_merchants

    if isinstance(merchants, Merchants):
        return narrowed(merchants, where)
    if merchants == "":
        return read_merchants(merchants_file(settings_for(options)), where)
    with naming("merchants", merchants):
        return read_merchants(merchants, where)


def merchants_file(settings: Settings) -> Path:
    """Return the merchants file of the settings. Raises UsageError, which says how to go on, if there is none."""
    file = settings.merchants
    if file.exists():
        return file
    problem = _("There is no merchants file {file}.", file=file.absolute())
    if settings.origin.file is None:
        otherwise = _(
            "To use a merchants file without settings, give it with {--merchants:FILE}.{tcb-ops simulate: To practise: `tcb-ops init --practice`.}"
        )
        raise UsageError(problem, as_sentences((NO_SETTINGS_FILE, otherwise)))
    fix = _(
        "`tcb-ops init` writes one to fill in{tcb-ops merchants:, `tcb-ops merchants sync` fills it from the platform}. To use another, give it "
        "with {--merchants:FILE}, or set `merchants` in {settings}.",
        settings=settings.origin.file,
    )
    raise UsageError(problem, fix)


def selected_merchants(
    merchants: Merchants | str | Path | None, options: TargetOptions, where: str | Sequence[str]
) -> Merchants | None:
    """Return the merchants to whose rows a call is narrowed; None for all rows."""
    return None if merchants is None and not where else merchants_for(merchants or "", options, where)


def check_not_narrowed(merchants: object, where: str | Sequence[str]) -> None:
    """Raise ArgumentError for what a Batch has already: it was read with its merchants."""
    check_value("merchants", merchants, not merchants, _("left out with a Batch, which has its merchants"))
    check_value("where", where, not where, _("left out with a Batch: read_paths takes it"))


@contextmanager
def naming(parameter: str, file: object) -> Iterator[None]:
    """Add the parameter's name to the error of a missing file."""
    from tcb_ops.lists.input_files import format_problem

    try:
        yield
    except InputError as error:
        if not isinstance(file, str | PathLike) or error.source != str(file) or Path(file).exists():
            raise
        text = format_problem(f'{parameter} = "{error.source}"', error.problems[0])
        raise InputError(text, error.source, error.problems) from None


def rows_of_table(parameter: str, table: pd.DataFrame | ArrowStream) -> TextRows:
    """Return the cells of a DataFrame or an Arrow stream as text. Raises UsageError if pyarrow is needed and missing."""
    from tcb_ops.lists.paths import TextRows
    from tcb_ops.lists.table import ADDED

    if is_frame(table):
        cells = table.astype(object).where(table.notna(), "")
        headers = [*map(str, table.columns)]
        rows = [tuple(map(str, row)) for row in cells.itertuples(index=False, name=None)]
    else:
        headers, rows = needed(ArrowHooks).texts(table)
    texts = map("".join, (headers, *rows))
    storable = not any("\0" in text or has_surrogates(text) for text in texts)
    check_value(parameter, table, storable, _("a DataFrame without NUL and lone surrogates in its texts"))
    given = None
    if is_frame(table):
        carried = [number for number, header in enumerate(headers) if not trim(header).startswith(ADDED)]
        given = Given(table.iloc[:, carried].copy(), range(2, len(rows) + 2))
    return TextRows(tuple(headers), rows, given)


def is_frame(value: object) -> TypeGuard[pd.DataFrame]:
    """Return whether a value is a DataFrame of pandas; whoever passes one has imported pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def existing_ledger(settings: Settings) -> Ledger | None:
    """Open the ledger for reading; return None without creating it if it does not exist."""
    from tcb_ops.ledger.ledger import Ledger

    return Ledger(settings.ledger) if "://" in settings.ledger or Path(settings.ledger).exists() else None


def unfinished_run(work: RunSpec, settings: Settings) -> Run | None:
    """Return the run that a start of this work would resume, or, if that is over a day old, ask about; None without one."""
    from tcb_ops.engine.plan import choose, same_work

    now, ledger = time.time(), existing_ledger(settings)
    record = same_work(ledger, work, settings, now) if ledger is not None else None
    if ledger is None or record is None or record.finished_at is not None:
        return None
    is_new = choose(record.created_at, now, work.kind, new_run=False) == "new"
    return None if is_new else Run(ledger, record, settings)


def rest_of_unfinished(work: RunSpec, settings: Settings) -> tuple[RunSpec, Run | None]:
    """Return the rows that a start of this work would work on: of an unfinished run the pending ones. And that run."""
    from tcb_ops.ledger.ledger import Ledger

    if (run := unfinished_run(work, settings)) is None:
        return work, None
    ledger, record, pending = Ledger(settings.ledger), run.record, frozenset({Outcome.PENDING})
    rest = replace(
        work,
        rows=lambda: (each.row for each in ledger.rows(record, outcomes=pending)),
        environments=ledger.envs(record),
        changes=None,
    )
    return rest, run


def ledger_with_runs(settings: Settings) -> Ledger:
    """Open the ledger. Raises RunNotFoundError if it does not exist."""
    if (ledger := existing_ledger(settings)) is None:
        if _is_sample(settings):
            raise RunNotFoundError(_("No run has used the sample's ledger yet."))
        raise RunNotFoundError(
            _(
                "{where} does not exist: no run has used this ledger yet. Check the working folder, or choose another ledger with {--ledger}.",
                where=settings.ledger_name,
            ),
        )
    return ledger


def _ledger_title(settings: Settings) -> object:
    """Return what messages call the ledger: its name, not the temporary file that is the sample's."""
    return _("the sample's ledger") if _is_sample(settings) else settings.ledger_name


def _is_sample(settings: Settings) -> bool:
    simulator = hooks(SimulatorHooks)
    return simulator is not None and simulator.is_sample(settings)


def is_run_name(name: str) -> bool:
    """Return whether a text can name a run."""
    return name.isprintable() and name != ""


def find_run(run: str | Run, settings: Settings, parameter: str = "run", kind: str | None = None) -> Run:
    """Return a run as it is in the ledger now; the error for a missing run also shows how to list the runs.

    `run`: a whole Run, or as RUN on the command line. `latest` is the latest run of a `kind` (None: of one with `main`) with its
    retries and corrections; or, with `any`, the run that was created last, whatever it is.
    """
    from tcb_ops.engine.next_commands import command, quoted

    usable = isinstance(run, Run) or is_run_name(run)
    check_value(parameter, run, usable, _("a Run, or the id of a run, or latest"))
    if isinstance(run, Run) and run.record.environments:  # a call for some rows must not act on all
        raise UsageError(
            _("Run {id} has only the rows of some merchants here, and the call takes whole runs.", id=run.id),
            _("Pass the run itself, and name the merchants with merchants=."),
        )
    ledger = ledger_with_runs(settings)
    name = run.id if isinstance(run, Run) else _run_of_report(run)
    kinds = None
    if name == "latest" and kind != ANY_KIND:
        kinds = [kind_named(kind)] if kind else [each for each in all_kinds() if each.main]
    try:
        record = ledger.run(name, settings.run_target, kinds)
    except RunNotFoundError as error:
        text = error.text.format(ledger=_ledger_title(settings))
        if _is_sample(settings):  # it ends with this process: no command can list its runs
            raise RunNotFoundError(text) from None
        listing = quoted(command(settings, "runs"))
        raise RunNotFoundError(text, _("To list the runs:\n{listing}", listing=listing)) from None
    if isinstance(record.kind, MissingKind):
        raise MissingFeatureError(
            _("Run {id} is of the kind {kind}, which is not installed here.", id=record.id, kind=record.kind),
            _("Install all of tcb-ops, or choose another run. To list the runs:\n{listing}").format(
                listing=quoted(command(settings, "runs"))
            ),
        )
    if kinds is not None:
        from tcb_ops.ledger.run_view import merged_run

        whole = merged_run(ledger, record)
        return Run(ledger, whole.record, settings, whole if whole.record.retries else None)
    return Run(ledger, record, settings)


def _run_of_report(name: str) -> str:
    """Return the run of a report's folder; anything else unchanged."""
    if not os.path.isdir(name):  # noqa: PTH112  Path raises in a working folder that this user may not enter
        return name
    from tcb_ops.reports.export import read_manifest

    manifest = read_manifest(Path(name))
    return manifest.run if manifest is not None else name


class ResumeOptions(TargetOptions, total=False):
    """The keywords that every function takes that works on a run, `resume` included."""

    limits: RunLimits | None
    """A bundle of the following seven, which may also be given by name; None: the default of RunLimits, which explains them."""
    concurrency: int | None
    per_env: int | None
    rate: float | None
    attempts: int | None
    backoff: float | None
    slow_wait: float | None
    patience: float | None
    progress: OnProgress | None
    """Called with a Progress after commits, in another thread."""
    tokens: TokenSource | None
    """Instead of the settings' own source."""


class StartOptions(ResumeOptions, total=False):
    """The keywords that every function takes that starts a run.

    An invalid value raises ArgumentError or SettingsError, both UsageErrors: nothing was sent.
    """

    note: str
    """A short text, kept in the ledger and the report."""
    where: str | Sequence[str]
    """Only merchants that match, as in `read_merchants`; a run of another part is not resumed."""
    new_run: bool
    """Start a new run even if there is one to resume."""
    resume: str | None
    """The id of the run to resume."""
    may_resume: MayResume | None
    """Called with id and start (Unix seconds) of an unfinished run over a day old; None: it is not resumed."""


def blocking(start: Callable[_P, RunHandle], *, writes_report: bool = True) -> Callable[_P, Run]:
    """Return a function that starts a run, waits for its end and writes its report; it takes the arguments of `start`.

    `writes_report`: whether `out` is always the report's folder, and so is refused before anything is sent if it cannot be one.
    """
    begin: Callable[_P, RunHandle] = unwrap(start)
    name = start.__name__.removeprefix("start_")

    @wraps(begin)
    def call(*args: _P.args, **options: _P.kwargs) -> Run:
        from tcb_ops.reports.export import check_destination

        if writes_report and isinstance(out := options.get("out"), str | PathLike):
            check_destination(Path(out))
        return begin(*args, **options).wait(_write_report)

    call.__name__ = call.__qualname__ = name
    call.__annotations__ = begin.__annotations__ | {"return": "Run"}
    text = cleandoc(start.__doc__ or "").replace("Start a", "Run a", 1)
    call.__doc__ = f"{text}\n\nReturns the Run when it has ended; `{start.__name__}` returns at once."
    return checked(call)


def _write_report(run: Run) -> None:
    if (out := run.record.out) and not run.record.kind.writes_links:
        run.report(None if Path(out) == run.settings.reports.absolute() else out)


def start_run(
    work_of: Callable[[Ledger], RunSpec],
    settings: Settings,
    options: StartOptions,
    *,
    out: str | Path | None,
    cluster: str | None = None,
    skip_unchanged: bool = False,
    canary: int = 0,
) -> RunHandle:
    """Plan the run, or find the unfinished one to resume, and start to work on it.

    `out`: the file of the links, else the folder that the caller will export to; until it has, the run counts as
    unfinished. `cluster`: workers of Dask that share the work: `local:N` processes, or a scheduler's URL. The embedded simulator runs until the work on the run ends. Raises UsageError, LedgerError.
    """
    from tcb_ops.engine.calls import RunContext
    from tcb_ops.engine.links_file import check_destination
    from tcb_ops.engine.loop import own_loop
    from tcb_ops.engine.plan import plan
    from tcb_ops.engine.session import RunSession
    from tcb_ops.ledger.ledger import Ledger, taken
    from tcb_ops.ledger.locks import planning
    from tcb_ops.wechat.tokens import open_source

    dest = None if out is None else Path(out).absolute()
    limits, new_run = limits_for(options), options.get("new_run", False)
    _check(options, cluster, canary)
    # An unreadable source is reported before anything is planned. The simulator, once started, has its own.
    source = options.get("tokens") or (open_source(settings) if settings.api_base != NOT_STARTED else None)
    settings = identified(settings)
    ledger = Ledger(settings.ledger)
    work = work_of(ledger)
    if work.kind.writes_links and dest is not None:
        check_destination(dest)
    # `stack` passes to the RunHandle and ends with the run: its lock, the simulator, the cluster. `while_planning` ends here, after the
    # run's lock is held: in between, another command would find the run with nobody at work.
    with ExitStack() as stack, ExitStack() as while_planning:
        runner = None
        if cluster is not None:  # opened before anything is planned
            runner = stack.enter_context(needed(ClusterHooks).runner(cluster, settings, work))
        still_alone = while_planning.enter_context(planning(ledger))
        own_loop()  # raises if this process cannot have one
        raise_if_asked()
        run, resumed = plan(
            ledger,
            work,
            settings,
            out=dest,
            options=asdict(limits) | {"skip_unchanged": skip_unchanged, "canary": canary, "cluster": cluster},
            note=options.get("note", ""),
            new_run=new_run,
            resume=options.get("resume") or "",
            now=time.time(),
            may_resume=options.get("may_resume") or (lambda _run, _begun: False),
        )
        check_lock = stack.enter_context(taken(ledger, run))
        session = None  # where everything is done except the report, which the caller writes
        if run.finished_at is None:
            opened = stack.enter_context(opened_target(settings, lambda: merchants_of(ledger, run)))
            try:
                still_alone()  # raises if another command may have planned a second run of the list
                context = RunContext(
                    ledger=ledger,
                    run=run,
                    settings=opened,
                    limits=limits,
                    tokens=source or open_source(opened),
                    root=work.root or Path(),
                    out=dest,
                    progress=options.get("progress"),
                    skip_unchanged=skip_unchanged,
                    canary=canary,
                    runner=runner,
                    urls=work.urls,
                    resumed=resumed,
                    check_lock=check_lock,
                    may_discard=lambda other: _is_abandoned(ledger, other, new_run=new_run),
                )
                session = RunSession(context)
            except (UsageError, StoppedError):
                if not resumed:
                    ledger.forget(run)
                raise
        handle = RunHandle(
            ledger,
            run,
            session,
            settings,
            stack.pop_all(),
            work.warning,
            resumed=resumed or session is None,
            given=work.given,
        )
    return handle  # noqa: RET504  for mypy, a stack may swallow what is raised above


def _check(options: StartOptions, cluster: str | None, canary: int) -> None:
    """Raise UsageError for values with which no run can start."""
    tokens, resume = options.get("tokens"), options.get("resume")
    check_value("resume", resume, resume is None or is_run_name(resume), _("the id of a run"))
    check_count("canary", canary)
    if cluster is not None:
        needed(ClusterHooks).check(cluster)
        check_value(
            "tokens", tokens, tokens is None, _("None with a cluster: its workers need the settings' source")
        )


def merchants_of(ledger: Ledger, run: RunRecord) -> list[Merchant]:
    """Return the merchants of a run, which the embedded simulator serves; skipped rows may have none."""
    return [
        Merchant(each.appid, each.merchant, each.env, owner=each.owner, left=each.left)
        for each in ledger.envs(run)
        if each.appid and each.env
    ]


def _is_abandoned(ledger: Ledger, run_id: str, *, new_run: bool) -> bool:
    """Return whether nobody will resume a run: it is finished, or with `new_run` nobody works on it."""
    from tcb_ops.ledger.locks import hold

    try:
        if ledger.run(run_id).finished_at is not None:
            return True
        with hold(ledger, run_id):
            return new_run
    except RunNotFoundError:  # of another ledger, or of a lost one
        return new_run
    except UsageError:  # being worked on
        return False
