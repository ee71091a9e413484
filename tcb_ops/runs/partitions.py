"""A run on a cluster, as the ledger holds it: its sessions, its partitions, and the fence that admits one worker to each.

A partition is a group of whole merchants. A worker claims it by raising its fence, and each of its commits is refused
if the fence has been raised since: a worker that was given up for dead can no longer write.
"""

from __future__ import annotations

import heapq
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tcb_ops.errors import LedgerError
from tcb_ops.i18n import _
from tcb_ops.model import Outcome, Owner, RowEnd
from tcb_ops.runs.ledger import HAND_OVER, Ledger
from tcb_ops.runs.progress import PHASES
from tcb_ops.runs.records import RELEASED, EnvRecord, RunRecord, Usage, read_done
from tcb_ops.runs.scheduler import later
from tcb_ops.runs.schema import cluster_sessions, partitions, rows, spent

PER_WORKER = 8
"""Partitions per worker at most, so that a worker that comes, goes or is slow leaves little undivided."""
FEWEST_PER_WORKER = 2
BEAT_SECONDS = 1.0
"""Seconds between two beats of the starting process."""
_BEAT = "beat"
"""In a partition's state: the beat at which it was recorded."""
SILENT_AFTER = 10.0
"""Seconds without a beat of the starting process after which its workers stop."""


IDLE_SECONDS = 5
"""Seconds after which PostgreSQL ends a transaction in which nothing happens."""


class FencedError(LedgerError):
    """Another worker has claimed the partition: nothing was written, and nothing more may be sent."""


def partition_count(environments: int, workers: int, *, per_env: int, concurrency: int) -> int:
    """Return into how many partitions environments are divided: the same number for each worker.

    A worker has one partition at a time. With few environments in it, `per_env` would leave most of its `concurrency` unused.

    ============  =======  =======  ===========  ======
    environments  workers  per_env  concurrency  result
    ============  =======  =======  ===========  ======
    400           2        8        64           16
    80            2        8        64           10
    40            2        8        64           4
    40            2        64       64           16
    10            2        8        64           4
    ============  =======  =======  ===========  ======
    """
    full = environments * per_env // concurrency
    return workers * min(PER_WORKER, max(FEWEST_PER_WORKER, full // workers))


def divide(environments: Sequence[EnvRecord], most: int, component_appid: str = "") -> list[list[EnvRecord]]:
    """Divide environments into at most `most` groups with about the same number of pending rows, the largest first.

    What shares an appid or an environment, and thereby a limit, stays together; so do all of the component's own.

    =============================================  ====  =======================
    environments: appid/env (pending rows)         most  groups
    =============================================  ====  =======================
    a/1 (9), b/2 (5), c/3 (4)                      2     a/1; b/2 + c/3
    a/1 (9), a/2 (5), c/3 (4)                      2     a/1 + a/2; c/3
    a/1 (9), b/1 (5), c/3 (4)                      2     a/1 + b/1; c/3
    a/1 (0), b/2 (5)                               2     b/2
    =============================================  ====  =======================
    """
    waiting = [one for one in environments if one.pending]
    parent: dict[tuple[str, ...], tuple[str, ...]] = {}

    def root(key: tuple[str, ...]) -> tuple[str, ...]:
        while (above := parent.setdefault(key, key)) != key:
            key = above
        return key

    for one in waiting:
        parent[root(_caller(one, component_appid))] = root(("env", one.env))
    together = defaultdict(list)
    for one in waiting:
        together[root(("env", one.env))].append(one)
    largest = sorted(together.values(), key=lambda group: -sum(one.pending for one in group))
    groups: list[list[EnvRecord]] = [[] for _ in range(min(most, len(largest)))]
    loads = [(0, n) for n in range(len(groups))]
    for group in largest:
        load, n = heapq.heappop(loads)
        groups[n] += group
        heapq.heappush(loads, (load + sum(one.pending for one in group), n))
    return groups


def _caller(one: EnvRecord, component_appid: str) -> tuple[str, ...]:
    appid = component_appid if one.owner == Owner.PLATFORM else one.appid
    return ("app", one.owner, appid)


class CoordinatorLedger(Ledger):
    """The ledger for the process that starts a run on a cluster, and holds its lock."""

    def begin(self, run: RunRecord) -> int:
        """Begin a session, after the workers of earlier ones have been fenced (`fence_workers`); return its number."""
        newest = sa.select(sa.func.max(cluster_sessions.c.session)).where(
            cluster_sessions.c.run == run.number
        )
        with self._writing() as connection:
            session = (connection.execute(newest).scalar() or 0) + 1
            connection.execute(
                cluster_sessions.insert().values(
                    run=run.number, session=session, beat=0, stopping=False, ended=False
                )
            )
            known = set(
                connection.execute(sa.select(spent.c.phase).where(spent.c.run == run.number)).scalars()
            )
            # Workers only add to them: two that insert the same one would collide.
            for phase in set(PHASES) - known:
                connection.execute(spent.insert().values(run=run.number, phase=phase, seconds=0.0))
        return session

    def add_partitions(
        self, run: RunRecord, session: int, groups: Sequence[Sequence[EnvRecord]], first: int
    ) -> None:
        """Record partitions, numbered from `first`."""
        with self._writing() as connection:
            for number, group in enumerate(groups, first):
                numbers = json.dumps([one.number for one in group])
                connection.execute(
                    partitions.insert().values(
                        run=run.number, session=session, number=number, envs=numbers, fence=0
                    )
                )

    def beat(self, run: RunRecord, session: int, *, stopping: bool = False, ended: bool = False) -> None:
        """Show the workers that the starting process is there, or have them stop; `ended`: that all have.

        What has been stopped stays so: another process may have taken the run from this one.
        """
        flags = {"stopping": stopping or ended, "ended": ended}
        with self._writing() as connection:
            connection.execute(
                cluster_sessions.update()
                .where(cluster_sessions.c.run == run.number, cluster_sessions.c.session == session)
                .values(beat=cluster_sessions.c.beat + 1, **{name: True for name, on in flags.items() if on})
            )


class PartitionLedger(Ledger):
    """The ledger for a worker that has claimed a partition. It reads and writes only the partition's rows."""

    def __init__(
        self, where: str, run_id: str, session: int, number: int, worker: str, *, share: float = 1.0
    ) -> None:
        """Open the ledger; nothing is claimed yet. `share`: of the run's time by phase, which all workers add to."""
        super().__init__(where)
        if self.file is None:
            sa.event.listen(self._engine, "connect", _end_idle_transactions)
            self._engine.dispose()
        self._worker, self._share = worker, share
        self._whole = self.run(run_id)
        self._mine = (
            (partitions.c.run == self._whole.number)
            & (partitions.c.session == session)
            & (partitions.c.number == number)
        )
        self._session = (cluster_sessions.c.run == self._whole.number) & (
            cluster_sessions.c.session == session
        )
        self._turn = threading.Lock()
        """Held by each write: two threads of a worker write."""
        self._fence = -1
        self._claimed_by: list[str] = []
        self._state, self._stopping = "", False
        self._confirmed = "{}"
        """What `confirm` was last given, or `claim` returned."""
        self._done: dict[str, Counter[Outcome]] = defaultdict(Counter)
        self._beat, self._beat_seen = -1, time.monotonic()
        self._places: list[int] = _loaded(self._record().envs, [])

    @property
    def stopping(self) -> bool:
        """Whether the run ends, or its starting process has fallen silent; as of the last `confirm`."""
        return self._stopping or time.monotonic() - self._beat_seen > SILENT_AFTER

    def partition_run(self) -> RunRecord:
        """Return the run's record with the rows of this partition only."""
        return replace(self._whole, rows=sum(one.rows for one in self.environments(self._whole)))

    def claim(self) -> tuple[bool, Mapping[str, Any]] | None:
        """Raise the fence; return whether another worker may still be calling, and the state left, as of the end of HAND_OVER.

        The beats of the starting process since then count as its age: the clocks of the machines may differ.
        None if the run is being stopped, or has another session: nothing may be sent.
        """
        while True:
            found = self._record()
            newest = sa.select(sa.func.max(cluster_sessions.c.session)).where(
                cluster_sessions.c.run == self._whole.number
            )
            current = sa.exists().where(
                self._session,
                cluster_sessions.c.session == newest.scalar_subquery(),
                ~cluster_sessions.c.stopping,
            )
            workers = _loaded(found.workers, [])
            moved = workers[-1:] not in ([], [RELEASED])
            if workers[-1:] != [self._worker]:
                workers.append(self._worker)
            with super()._writing() as connection:
                claimed = connection.execute(
                    partitions.update()
                    .where(self._mine, partitions.c.fence == found.fence, current)
                    .values(fence=found.fence + 1, workers=json.dumps(workers))
                )
                # Asked again: the update may have waited while the run was being stopped.
                allowed = connection.execute(sa.select(current)).scalar()
                if claimed.rowcount and not allowed:
                    connection.rollback()
                elif claimed.rowcount:
                    # Read again: the previous worker may have committed since.
                    found = connection.execute(sa.select(partitions).where(self._mine)).one()
                    self._fence, self._state, self._claimed_by = found.fence, found.state, workers
                    beat = connection.execute(
                        sa.select(cluster_sessions.c.beat).where(self._session)
                    ).scalar_one()
                    for worker, counts in read_done(found.done).items():
                        self._done[worker].update(counts)
                    left = _loaded(found.state, {})
                    passed = (beat - left.pop(_BEAT, beat)) * BEAT_SECONDS
                    state = later(left, passed + (HAND_OVER if moved else 0.0))
                    self._confirmed = json.dumps(state)
                    return moved, state
            if not allowed:
                return None

    def release(self) -> None:
        """Record that this worker has ended its work on the partition, and its calls: it was not lost."""
        workers = json.dumps([*self._claimed_by, RELEASED])
        with suppress(LedgerError), self._turn, super()._writing() as connection:
            its = self._mine & (partitions.c.fence == self._fence)
            connection.execute(partitions.update().where(its).values(workers=workers))

    def confirm(self, state: Mapping[str, Any]) -> None:
        """Record the state of the limits if it has changed. Raises FencedError if another worker has the partition."""
        both = (partitions.c.run == cluster_sessions.c.run) & (
            partitions.c.session == cluster_sessions.c.session
        )
        ((fence, beat, self._stopping),) = self._read(
            sa.select(partitions.c.fence, cluster_sessions.c.beat, cluster_sessions.c.stopping)
            .join_from(partitions, cluster_sessions, both)
            .where(self._mine)
        )
        if fence != self._fence:
            raise _fenced(self._whole)
        if beat != self._beat:
            self._beat, self._beat_seen = beat, time.monotonic()
        if (text := json.dumps(state)) != self._confirmed:
            with self._turn:
                self._confirmed = text
                self._state = json.dumps({**state, _BEAT: beat}) if state else ""
                with self._writing():
                    pass

    def environments(self, run: RunRecord, only: Sequence[int] | None = None) -> list[EnvRecord]:
        """List the partition's environments."""
        return super().environments(run, self._places if only is None else only)

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Count the partition's rows by outcome, without zeros."""
        found = self._read(
            sa.select(rows.c.outcome, sa.func.count())
            .where(rows.c.run == run.number, rows.c.place.in_(self._places))
            .group_by(rows.c.outcome)
        )
        return {Outcome(outcome): int(count) for outcome, count in found}

    def record(self, run: RunRecord, ends: Sequence[RowEnd], usage: Usage) -> None:
        """Commit as Ledger does, unless another worker has claimed the partition (FencedError)."""
        with self._turn:
            before = self._done[self._worker].copy()
            self._done[self._worker].update(end.outcome for end in ends)
            try:
                # The run's own time is that of the starting process.
                phases = {phase: seconds * self._share for phase, seconds in usage.phases.items()}
                super().record(run, ends, replace(usage, seconds=0.0, phases=phases))
            except LedgerError:
                self._done[self._worker] = before
                raise

    def close_environment(
        self, run: RunRecord, environment: EnvRecord, end: RowEnd, but_lines: Iterable[int] = ()
    ) -> int:
        """Close an environment as Ledger does. Its rows are counted with the next commit, which follows at once."""
        with self._turn:
            closed = super().close_environment(run, environment, end, but_lines)
            self._done[self._worker][end.outcome] += closed
            return closed

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with super()._writing() as connection:
            done = {worker: counts for worker, counts in self._done.items() if counts}
            # First: it locks the partition's record until the commit, so that no claim comes in between.
            admitted = connection.execute(
                partitions.update()
                .where(self._mine, partitions.c.fence == self._fence)
                .values(state=self._state, done=json.dumps(done))
            )
            if not admitted.rowcount:
                raise _fenced(self._whole)
            yield connection

    def _record(self) -> Any:
        (found,) = self._read(sa.select(partitions).where(self._mine))
        return found


def _end_idle_transactions(connection: Any, _record: object) -> None:
    """Have the server end a transaction that is idle: a worker frozen in a commit would block all others."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
    connection.commit()


def _fenced(run: RunRecord) -> FencedError:
    return FencedError(_("another worker continues these merchants of run {run}.", run=run.id))


def _loaded(text: str, empty: Any) -> Any:
    return json.loads(text) if text else empty
