"""The task of a cluster's worker: claim a partition of a run, and work on it with the engine of every other run.

Imported by workers. It holds no secret: a password of the ledger comes from the worker's own environment.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tcb_ops.errors import InterruptedRunError, StoppedError, TcbOpsError, UsageError
from tcb_ops.i18n import Text, _
from tcb_ops.model import Row, is_source
from tcb_ops.runs.calls import probe_file
from tcb_ops.runs.engine import Engine, RunContext
from tcb_ops.runs.ledger import HAND_OVER, LEASE
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.locks import host_name
from tcb_ops.runs.loop import hand_over
from tcb_ops.runs.partitions import FencedError, PartitionLedger
from tcb_ops.runs.records import RunRecord
from tcb_ops.runs.stop_errors import interrupted
from tcb_ops.settings import Settings, shown_url
from tcb_ops.wechat import open_source
from tcb_ops.wechat.transport import Transport

SAMPLE = 20
"""Local files that a worker looks at before it claims a partition."""


@dataclass(frozen=True, slots=True, repr=False)
class Assignment:
    """The inputs of a task. Its repr is short: Dask logs it when a task fails."""

    ledger: str
    """A path, or a URL without a password."""
    run: str
    session: int
    partition: int
    settings: Settings
    limits: RunLimits
    root: str
    skip_unchanged: bool
    workers: int
    """Number of workers, for the run's time by phase."""
    version: str
    """Of tcb-ops in the starting process."""
    host: str = ""
    """The only machine whose workers can work on the run; empty if all can."""

    def __repr__(self) -> str:
        return f"<partition {self.partition} of run {self.run}>"


class _Call:
    """The call of `work_on` that unpickling makes."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    def __reduce__(self) -> tuple[Callable[[Assignment], TaskResult], tuple[Assignment]]:
        return work_on, (self._assignment,)


def packed(assignment: Assignment) -> bytes:
    """Return a task as bytes. `pickle.loads` works on it and returns its result; without tcb-ops, it raises an error."""
    return pickle.dumps(_Call(assignment))


class TaskEnd(StrEnum):
    """How a task ended."""

    DONE = "done"
    FENCED = "fenced"
    """Another worker has the partition, or the run is being stopped."""
    UNFIT = "unfit"
    """This worker cannot work on the run; nothing was claimed."""
    STOPPED = "stopped"
    """A problem that affects every row."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The result of a task."""

    end: TaskEnd
    worker: str
    address: str
    """The worker's address on the cluster."""
    error: TcbOpsError | None = None


def dask_setup(_worker: Any) -> None:
    """Let a local worker ignore Ctrl-C, which a terminal sends to it too: the starting process decides. Dask calls this."""
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def worker_name() -> str:
    """Return this process as reports name it: host and process id."""
    return f"{host_name()}/{os.getpid()}"


def work_on(assignment: Assignment) -> TaskResult:
    """Claim a partition and work on its pending rows until they are done, the fence is raised, or the run stops."""
    from distributed import get_worker

    there = get_worker()
    threads = there.state.nthreads

    def result(end: TaskEnd, error: TcbOpsError | None = None) -> TaskResult:
        return TaskResult(end, worker_name(), there.address, error)

    if (unfit := _unfit(assignment)) is not None:
        return result(TaskEnd.UNFIT, unfit)
    # Several tasks of one process share its requests in flight.
    limits = replace(assignment.limits, concurrency=max(1, assignment.limits.concurrency // threads))
    with ExitStack() as stack:
        try:
            ledger = PartitionLedger(
                _ledger_url(assignment.ledger),
                assignment.run,
                assignment.session,
                assignment.partition,
                worker_name(),
                share=1 / assignment.workers,
            )
            stack.enter_context(closing(ledger))
            run, root = ledger.partition_run(), Path(assignment.root)
            if not any(one.pending for one in ledger.environments(run)):
                return result(TaskEnd.DONE)  # by a worker that ended before its result was fetched
            if (problem := _missing_files(ledger, run, root)) is not None:
                return result(TaskEnd.UNFIT, UsageError(problem))
            tokens = open_source(assignment.settings)
            claimed = ledger.claim()
        except TcbOpsError as error:
            return result(TaskEnd.UNFIT, error)
        if claimed is None:
            return result(TaskEnd.FENCED)
        moved, state = claimed
        context = RunContext(
            ledger=ledger,
            run=run,
            settings=assignment.settings,
            limits=limits,
            tokens=tokens,
            root=root,
            skip_unchanged=assignment.skip_unchanged,
            probe=stack.enter_context(probe_file()) if run.settings.get("write_probe") else None,
            lease=LEASE,
            limits_state=state,
        )
        try:
            hand_over(_Work(context, ledger).work(HAND_OVER if moved else 0.0)).result()
        except FencedError:
            return result(TaskEnd.FENCED)
        except InterruptedRunError:
            ledger.release()
            return result(TaskEnd.FENCED)
        except TcbOpsError as error:
            ledger.release()
            return result(TaskEnd.STOPPED, error)
    return result(TaskEnd.DONE)


def _unfit(assignment: Assignment) -> TcbOpsError | None:
    """Return why this process cannot work on the run, as far as that is known without its ledger."""
    here, name, ledger = version("tcb-ops"), host_name(), assignment.ledger
    if assignment.version != here:
        return _other_version(here, assignment.version)
    if assignment.host not in {"", name}:
        return _other_host(name, assignment.host)
    if "://" not in ledger and not Path(ledger).is_file():  # opening it would create one
        return StoppedError(_("it does not see the ledger {file}.", file=ledger))
    return None


class _Work:
    """The work on one partition, in the event loop."""

    def __init__(self, context: RunContext, ledger: PartitionLedger) -> None:
        self._ledger = ledger
        self._context = replace(context, confirm=self._confirm)
        self._state: Mapping[str, Any] = context.limits_state
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None

    async def work(self, wait: float) -> None:
        """Work until the partition's rows have ended, after `wait` seconds in which the previous worker stops."""
        self._loop = asyncio.get_running_loop()
        try:
            end = self._loop.time() + wait
            while (left := end - self._loop.time()) > 0:
                await asyncio.sleep(min(1.0, left))
                await asyncio.to_thread(self._confirm)
                if self._ledger.stopping:
                    raise interrupted()
            async with Transport(connections=self._context.limits.concurrency) as transport:
                self._engine = Engine(self._context, transport, None, lambda _progress: None)
                await self._engine.work()
        finally:
            await self._context.tokens.aclose()

    def _confirm(self) -> None:
        """Look at the fence and at the starting process. Raises FencedError; a run that stops is interrupted."""
        if self._engine is not None:
            self._state = self._engine.limits_state()
        self._ledger.confirm(self._state)
        if self._ledger.stopping and self._loop is not None and self._engine is not None:
            self._loop.call_soon_threadsafe(self._engine.interrupt)


def _ledger_url(shipped: str) -> str:
    """Return the ledger's URL; with the password of TCB_OPS_LEDGER if that names the same database."""
    own = os.environ.get("TCB_OPS_LEDGER", "")
    same = "://" in shipped and shown_url(own, role=False) == shown_url(shipped, role=False)
    return own if own and same else shipped


def _missing_files(ledger: PartitionLedger, run: RunRecord, root: Path) -> Text | None:
    """Return what is wrong if this worker does not see the local files as they were planned; None if it does.

    A few files may have changed since: each of their rows fails on its own.
    """
    if not run.root:
        return None
    environments = [one for one in ledger.environments(run) if one.pending][:SAMPLE]
    found = ledger.pending(
        run, [(one, -1) for one in environments], max(1, SAMPLE // max(1, len(environments)))
    )
    sample = [row for each in found for row in each if row.size is not None and not is_source(row.file)]
    wrong = [row for row in sample if not _as_planned(root, row)]
    if len(wrong) * 2 <= len(sample):
        return None
    if not root.is_dir():
        return _("it does not see the folder {root}.", root=root)
    first = wrong[0].file
    return _("below {root} it does not see {file} as it was planned (size and time).", root=root, file=first)


def _as_planned(root: Path, row: Row) -> bool:
    try:
        found = (root / row.file).stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (row.size, row.mtime_ns)


def _other_version(here: str, there: str) -> StoppedError:
    return StoppedError(
        _(
            "it has tcb-ops {here}, the starting process {there}: install the same one.",
            here=here,
            there=there,
        )
    )


def _other_host(here: str, there: str) -> StoppedError:
    return StoppedError(
        _(
            "it is on {here}; the ledger, the tokens or the target of this run are only on {there}.",
            here=here,
            there=there,
        )
    )
