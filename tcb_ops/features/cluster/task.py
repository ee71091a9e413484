"""The task of a cluster's worker: claim a partition of a run, and work on it with the engine of every other run.

A partition is a group of whole merchants. A worker claims it by raising its fence, and each of its commits is refused
if the fence has been raised since: a worker that was given up for dead can no longer write.

Imported by workers. It holds no secret: a password of the ledger comes from the worker's own environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tcb_ops.engine.calls import RunContext
from tcb_ops.engine.engine import Engine
from tcb_ops.engine.limits import RunLimits
from tcb_ops.engine.loop import submit_coroutine
from tcb_ops.engine.stop_errors import interrupted
from tcb_ops.errors import InterruptedRunError, LedgerError, StoppedError, TcbOpsError
from tcb_ops.i18n import Text, _
from tcb_ops.ledger.database import Connection
from tcb_ops.ledger.ledger import IDLE_SECONDS, Ledger
from tcb_ops.ledger.locks import host_name
from tcb_ops.ledger.records import EnvRecord, RunRecord, Usage
from tcb_ops.model import Outcome, Row, RowEnd, is_source
from tcb_ops.settings import Settings, shown_url
from tcb_ops.wechat.tokens import open_source

LEASE = 4.0
"""Seconds after a look at the fence in which a worker may begin calls; it looks every second."""
HAND_OVER = LEASE + 1.0
"""Seconds that a worker waits before it continues another one's partition, which may still be calling; so does a
process that takes a run on which workers of an earlier session may be at work."""
BEAT_SECONDS = 1.0
"""Seconds between two beats of the starting process."""
SILENT_AFTER = 10.0
"""Seconds without a beat of the starting process after which its workers stop."""
SAMPLE = 20
"""Environments of which a worker looks at a local file before it claims a partition."""
RELEASED = ""
"""In the list of a partition's workers, after one that ended its work."""


class FencedError(LedgerError):
    """Another worker has claimed the partition: nothing was written, and nothing more may be sent."""


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
    """Return a task as bytes: `pickle.loads` works on it and returns its result."""
    return pickle.dumps(_Call(assignment))


class TaskEnd(StrEnum):
    """How a task ended."""

    DONE = "done"
    FENCED = "fenced"
    """Another worker has the partition, or the run is being stopped."""
    STOPPED = "stopped"
    """A problem that affects every row, or this worker cannot work on the run."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The result of a task."""

    end: TaskEnd
    worker: str
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

    def result(end: TaskEnd, error: TcbOpsError | None = None) -> TaskResult:
        return TaskResult(end, worker_name(), error)

    if (unfit := _unfit(assignment)) is not None:
        return result(TaskEnd.STOPPED, unfit)
    # Several tasks of one process share its requests in flight.
    in_flight = max(1, assignment.limits.concurrency // get_worker().state.nthreads)
    limits = replace(assignment.limits, concurrency=in_flight)
    with ExitStack() as stack:
        try:
            url, partition = _ledger_url(assignment.ledger), (assignment.session, assignment.partition)
            ledger = PartitionLedger(url, assignment.run, *partition, worker_name())
            stack.enter_context(closing(ledger))
            run, root = ledger.partition_run(), Path(assignment.root)
            if not any(environment.pending for environment in ledger.environments(run)):
                return result(TaskEnd.DONE)  # by a worker that ended before its result was fetched
            if (problem := _missing_files(ledger, run, root)) is not None:
                return result(TaskEnd.STOPPED, StoppedError(problem))
            tokens = open_source(assignment.settings)
            moved = ledger.claim()
        except TcbOpsError as error:
            return result(TaskEnd.STOPPED, StoppedError(error.text))
        if moved is None:
            return result(TaskEnd.FENCED)
        context = RunContext(
            ledger=ledger,
            run=run,
            settings=assignment.settings,
            limits=limits,
            tokens=tokens,
            root=root,
            skip_unchanged=assignment.skip_unchanged,
            lease_seconds=LEASE,
        )
        try:
            submit_coroutine(_work(context, ledger, HAND_OVER if moved else 0.0)).result()
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
    own_version, host, ledger = version("tcb-ops"), host_name(), assignment.ledger
    if assignment.version != own_version:
        text = _("it has tcb-ops {here}, the starting process {there}: install the same one.")
        return StoppedError(text.format(here=own_version, there=assignment.version))
    if assignment.host not in {"", host}:
        text = _("it is on {here}; the ledger, the tokens or the target of this run are only on {there}.")
        return StoppedError(text.format(here=host, there=assignment.host))
    if "://" not in ledger and not Path(ledger).is_file():  # opening it would create one
        return StoppedError(_("it does not see the ledger {file}.", file=ledger))
    return None


async def _work(context: RunContext, ledger: PartitionLedger, wait: float) -> None:
    """Work until the partition's rows have ended, after `wait` seconds in which the previous worker stops."""
    loop, engines = asyncio.get_running_loop(), list[Engine]()

    def renew_claim() -> None:
        """Look at the fence and at the starting process. Raises FencedError; a run that stops is interrupted."""
        ledger.renew()
        for engine in engines if ledger.stopping else ():
            loop.call_soon_threadsafe(engine.interrupt)

    try:
        end = loop.time() + wait
        while (seconds_left := end - loop.time()) > 0:
            await asyncio.sleep(min(1.0, seconds_left))
            await asyncio.to_thread(renew_claim)
            if ledger.stopping:
                raise interrupted()
        if wait:  # nobody knows what the previous worker had begun
            resumed = await asyncio.to_thread(ledger.resume, context.run, time.time())
            context = replace(context, run=replace(context.run, cut_off=resumed.cut_off))
        async with context.runtime.transport(context.limits.concurrency) as transport:
            context = replace(context, check_lock=renew_claim)
            engines.append(Engine(context, transport, None, lambda _progress: None))
            await engines[0].work()
    finally:
        await context.tokens.aclose()


def _ledger_url(shipped: str) -> str:
    """Return the ledger's URL; with the password of TCB_OPS_LEDGER if that names the same database."""
    own = os.environ.get("TCB_OPS_LEDGER", "")
    same = "://" in shipped and shown_url(own, role=False) == shown_url(shipped, role=False)
    return own if own and same else shipped


def _missing_files(ledger: PartitionLedger, run: RunRecord, root: Path) -> Text | None:
    """Return what is wrong if this worker sees no local file as it was planned; None if it does.

    Some files may have changed since: each of their rows fails on its own.
    """
    first_rows = [(environment, -1) for environment in ledger.environments(run) if environment.pending]
    rows_by_env = ledger.pending(run, first_rows[:SAMPLE], 1) if run.root else []
    local = [row for rows in rows_by_env for row in rows if row.size is not None and not is_source(row.file)]
    if not local or any(_is_as_planned(root, row) for row in local):
        return None
    file = local[0].file
    return _("below {root} it does not see {file} as it was planned (size and time).", root=root, file=file)


def _is_as_planned(root: Path, row: Row) -> bool:
    try:
        status = (root / row.file).stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (row.size, row.mtime_ns)


# --- the ledger of a worker -------------------------------------------------------------------------------------


def stop_workers(ledger: Ledger, run: RunRecord) -> None:
    """Have the workers of a run's earlier sessions stop; return when they can write nothing more.

    Call it under the run's lock, before anything is sent.
    """
    ask_to_stop(ledger, run)
    time.sleep(HAND_OVER)  # in which they record what was in flight
    fence_workers(ledger, run)


def ask_to_stop(ledger: Ledger, run: RunRecord) -> None:
    """Have the workers of earlier sessions stop."""
    with ledger.writing() as connection:
        # First: it waits for claims under way. Those that wait for it see then that the session is being stopped.
        connection.execute("UPDATE partitions SET fence = fence WHERE run = ?", (run.number,))
        stopping = "UPDATE cluster_sessions SET stopping = TRUE WHERE run = ? AND NOT ended"
        connection.execute(stopping, (run.number,))


def fence_workers(ledger: Ledger, run: RunRecord) -> None:
    """Raise the fences of earlier sessions: their workers can write nothing more."""
    with ledger.writing() as connection:
        connection.execute("UPDATE partitions SET fence = fence + 1 WHERE run = ?", (run.number,))
        ended = "UPDATE cluster_sessions SET stopping = TRUE, ended = TRUE WHERE run = ?"
        connection.execute(ended, (run.number,))


_OWN = "run = ? AND session = ? AND number = ?"
"""Selects the partition of a worker."""
_CURRENT = """EXISTS (
    SELECT 1 FROM cluster_sessions WHERE run = ? AND session = ? AND NOT stopping
    AND session = (SELECT MAX(session) FROM cluster_sessions AS newest WHERE newest.run = cluster_sessions.run))"""
"""Whether a session is the newest of its run, and not being stopped."""


class PartitionLedger(Ledger):
    """The ledger for a worker that has claimed a partition. It reads and writes only the partition's rows."""

    def __init__(self, where: str, run_id: str, session: int, number: int, worker: str) -> None:
        """Open the ledger; nothing is claimed yet."""
        super().__init__(where)
        self._worker = worker
        self._whole_run = self.run(run_id)
        self._session = (self._whole_run.number, session)
        self._own = (*self._session, number)
        self._fence = -1
        self._claimed_by: list[str] = []
        self._stopping = False
        self._beat, self._beat_at = -1, time.monotonic()
        ((numbers,),) = self.fetch(f"SELECT envs FROM partitions WHERE {_OWN}", self._own)
        self._environments: list[int] = json.loads(numbers)

    @property
    def stopping(self) -> bool:
        """Whether the run ends, or its starting process has fallen silent; as of the last `renew`."""
        return self._stopping or time.monotonic() - self._beat_at > SILENT_AFTER

    def partition_run(self) -> RunRecord:
        """Return the run's record with the rows of this partition only."""
        rows = sum(environment.rows for environment in self.environments(self._whole_run))
        return replace(self._whole_run, rows=rows)

    def claim(self) -> bool | None:
        """Raise the fence; return whether another worker may still be calling.

        None if the run is being stopped, or has another session: nothing may be sent.
        """
        while True:
            ((fence, claimed_by),) = self.fetch(
                f"SELECT fence, workers FROM partitions WHERE {_OWN}", self._own
            )
            workers = json.loads(claimed_by or "[]")
            moved = workers[-1:] not in ([], [RELEASED])
            if workers[-1:] != [self._worker]:
                workers.append(self._worker)
            with super().writing() as connection:
                claimed = connection.execute(
                    f"UPDATE partitions SET fence = ?, workers = ? WHERE {_OWN} AND fence = ? AND {_CURRENT}",
                    (fence + 1, json.dumps(workers), *self._own, fence, *self._session),
                )
                # Asked again: the update may have waited while the run was being stopped.
                (allowed,) = connection.execute(f"SELECT {_CURRENT}", self._session).fetchone()
                if claimed.rowcount and not allowed:
                    connection.rollback()
                elif claimed.rowcount:
                    self._fence, self._claimed_by = fence + 1, workers
                    return moved
            if not allowed:
                return None

    def release(self) -> None:
        """Record that this worker has ended its work on the partition, and its calls: it was not lost."""
        workers = json.dumps([*self._claimed_by, RELEASED])
        with suppress(LedgerError), self.writing() as connection:
            connection.execute(f"UPDATE partitions SET workers = ? WHERE {_OWN}", (workers, *self._own))

    def renew(self) -> None:
        """Look at the fence and the starting process. Raises FencedError if another worker has the partition."""
        state = """
            SELECT fence, beat, stopping FROM partitions
            JOIN cluster_sessions ON cluster_sessions.run = partitions.run AND cluster_sessions.session = partitions.session
            WHERE partitions.run = ? AND partitions.session = ? AND number = ?"""
        ((fence, beat, self._stopping),) = self.fetch(state, self._own)
        if fence != self._fence:
            raise _fenced(self._whole_run)
        if beat != self._beat:
            self._beat, self._beat_at = beat, time.monotonic()

    def state(
        self, run: RunRecord, only: Sequence[int] | None = None
    ) -> tuple[list[EnvRecord], dict[Outcome, int]]:
        """List the partition's environments, and count their rows by outcome."""
        return super().state(run, self._environments if only is None else only)

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Count the partition's rows by outcome, without zeros."""
        return self.state(run)[1]

    def record(self, run: RunRecord, ends: Sequence[RowEnd], usage: Usage) -> None:
        """Commit as Ledger does. The run's own time is that of the starting process."""
        super().record(run, ends, replace(usage, seconds=0.0))

    @contextmanager
    def writing(self, idle: int = IDLE_SECONDS, *, in_one_statement: bool = False) -> Iterator[Connection]:
        """Begin a transaction, also for one statement, unless another worker has claimed the partition (FencedError)."""
        with super().writing(idle) as connection:
            # First: it locks the partition's record until the commit, so that no claim comes in between.
            admitted = connection.execute(
                f"UPDATE partitions SET fence = fence WHERE {_OWN} AND fence = ?", (*self._own, self._fence)
            )
            if not admitted.rowcount:
                raise _fenced(self._whole_run)
            yield connection


def _fenced(run: RunRecord) -> FencedError:
    return FencedError(_("another worker continues these merchants of run {run}.", run=run.id))
