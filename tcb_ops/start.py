"""Starting a run: what all functions take that start one, what they do with it, and their blocking twins."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import wraps
from inspect import unwrap
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeAlias

from tcb_ops.arguments import checked
from tcb_ops.errors import RunNotFoundError, StoppedError, UsageError, check_count, check_value
from tcb_ops.i18n import _
from tcb_ops.kinds import provided
from tcb_ops.model import Merchant
from tcb_ops.resolve import TargetOptions, is_run_name, opened_target
from tcb_ops.run import Run, RunHandle
from tcb_ops.runs.progress import Progress
from tcb_ops.settings import NOT_STARTED, Settings

if TYPE_CHECKING:
    from tcb_ops.features.cluster.client import Cluster
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.limits import RunLimits
    from tcb_ops.runs.plan import RunSpec
    from tcb_ops.runs.records import RunRecord
    from tcb_ops.wechat.tokens import TokenSource

OnProgress: TypeAlias = Callable[[Progress], None]
MayResume: TypeAlias = Callable[[str, float], bool]
_P = ParamSpec("_P")


class ResumeOptions(TargetOptions, total=False):
    """The keywords that every function takes that works on a run, `resume` included."""

    limits: RunLimits | None
    """None: the defaults of RunLimits."""
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
    selection: str
    """A text that identifies the part of the list or the merchants; a run of another part is not resumed."""
    new_run: bool
    """Start a new run even if there is one to resume."""
    resume: str | None
    """The id of the run to resume."""
    may_resume: MayResume | None
    """Called with id and start (Unix seconds) of an unfinished run over a day old; None: it is not resumed."""


def blocking(start: Callable[_P, RunHandle]) -> Callable[_P, Run]:
    """Return a function that starts a run and waits for its end; it takes the arguments of `start`."""
    begin: Callable[_P, RunHandle] = unwrap(start)
    name = start.__name__.removeprefix("start_")

    @wraps(begin)
    def call(*args: _P.args, **options: _P.kwargs) -> Run:
        return begin(*args, **options).wait()

    call.__name__ = call.__qualname__ = name
    call.__annotations__ = begin.__annotations__ | {"return": "Run"}
    call.__doc__ = f"Call `{start.__name__}` and wait for the run's end. {start.__doc__}"
    return checked(call)


def start_run(
    work_of: Callable[[Ledger], RunSpec],
    settings: Settings,
    options: StartOptions,
    *,
    out: str | Path | None,
    cluster: Cluster | None = None,
    skip_unchanged: bool = False,
    canary: int = 0,
) -> RunHandle:
    """Plan the run, or find the unfinished one to resume, and start to work on it.

    `out`: the file of the links, else the folder that the caller will export to; until it has, the run counts as
    unfinished. `cluster`: workers of Dask that share the work: `local:N` processes, a scheduler's URL, or a
    `distributed.Client`. The embedded simulator runs until the work on the run ends. Raises UsageError, LedgerError.
    """
    from tcb_ops.runs.engine import RunContext
    from tcb_ops.runs.ledger import Ledger
    from tcb_ops.runs.limits import RunLimits
    from tcb_ops.runs.links_file import check_destination
    from tcb_ops.runs.locks import hold, planning
    from tcb_ops.runs.plan import plan
    from tcb_ops.runs.session import RunSession
    from tcb_ops.wechat import open_source

    dest = None if out is None else Path(out).absolute()
    limits = options.get("limits") or RunLimits()
    tokens, resume = options.get("tokens"), options.get("resume")
    new_run = options.get("new_run", False)
    check_value("resume", resume, resume is None or is_run_name(resume), _("the id of a run"))
    check_count("canary", canary)
    if cluster is not None:
        provided("cluster")(cluster)
        check_value(
            "tokens", tokens, tokens is None, _("None with a cluster: its workers need the settings' source")
        )
    # An unreadable source is reported before anything is planned. The simulator, once started, has its own.
    source = tokens or (open_source(settings) if settings.api_base != NOT_STARTED else None)
    ledger = Ledger(settings.ledger)
    work = work_of(ledger)
    if work.kind.writes_links and dest is not None:
        check_destination(dest)
    with ExitStack() as stack, ExitStack() as while_planning:
        runner, dashboard = None, ""
        if cluster is not None:  # opened before anything is planned
            runner, dashboard = stack.enter_context(provided("cluster_runner")(cluster, settings, work))
        still_alone = while_planning.enter_context(planning(ledger))
        planned = plan(
            ledger,
            work,
            settings,
            out=dest,
            options=asdict(limits)
            | {"skip_unchanged": skip_unchanged, "canary": canary}
            | ({"cluster": cluster} if isinstance(cluster, str) else {}),
            note=options.get("note", ""),
            new_run=new_run,
            resume=resume or "",
            now=time.time(),
            may_resume=options.get("may_resume") or (lambda _run, _begun: False),
        )
        check_lock = stack.enter_context(hold(ledger, planned.run.id))
        session = None  # where everything is done except the report, which the caller writes
        if planned.run.finished_at is None:
            opened = stack.enter_context(opened_target(settings, lambda: merchants_of(ledger, planned.run)))
            try:
                still_alone()  # raises if another command may have planned a second run of the list
                context = RunContext(
                    ledger=ledger,
                    run=planned.run,
                    settings=opened,
                    limits=limits,
                    tokens=source or open_source(opened),
                    root=work.root or Path(),
                    out=dest,
                    progress=options.get("progress"),
                    skip_unchanged=skip_unchanged,
                    canary=canary,
                    runner=runner,
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
            resumed=planned.resumed or session is None,
            dashboard=dashboard,
        )
    raise AssertionError  # the block above returns or raises


def merchants_of(ledger: Ledger, run: RunRecord) -> list[Merchant]:
    """Return the merchants of a run, which the embedded simulator serves; skipped rows may have none."""
    return [
        Merchant(
            environment.appid,
            environment.merchant,
            environment.env,
            owner=environment.owner,
            left=environment.left,
        )
        for environment in ledger.envs(run)
        if environment.appid and environment.env
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
