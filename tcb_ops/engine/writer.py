"""The writer of a session: commits queued ends in groups; only then are they shown."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from tcb_ops.engine.links_file import LinksFile
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.locks import Lease
from tcb_ops.ledger.records import Closing, RunRecord, Usage
from tcb_ops.model import Outcome, RowEnd

LINGER = 0.025
"""Seconds that ends wait for others at most: a commit costs about the same for one row as for fifty."""
MOST = 1000
"""So many ends and closings are committed at a time, at most: progress is shown in between."""


@dataclass(eq=False, slots=True)
class LedgerWriter:
    """Queue of row ends and closings, written to links.csv.part and the ledger."""

    ledger: Ledger
    run: RunRecord
    links: LinksFile | None
    threads: Executor
    usage: Callable[[], Usage]
    """Returns what was used since the last commit."""
    written: Callable[[], None]
    """Called after each commit, on the loop."""
    check_lock: Callable[[], None]
    """Raises LedgerError if the run's lock is lost; called after each commit, in the writer's thread."""
    lease: Lease
    enough: int
    """So many ends are committed without waiting for others."""
    uncommitted: int = 0
    """Rows that have ended and are not yet in the ledger."""
    counts: Counter[Outcome] = field(default_factory=Counter)
    """Committed rows by outcome, without pending ones."""
    _queue: list[RowEnd | Closing] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _timer: asyncio.TimerHandle | None = None
    _closing: bool = False
    _committing: bool = False

    def add(self, item: RowEnd | Closing) -> None:
        """Queue an end or a closing for the next commit."""
        self._queue.append(item)
        self.uncommitted += isinstance(item, RowEnd)
        if len(self._queue) >= self.enough:
            self._more.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._more.set)

    def flush(self) -> None:
        """Commit now: no other end is expected soon."""
        if self._queue:
            self._more.set()

    @property
    def busy(self) -> bool:
        """Whether something is not committed yet."""
        return bool(self._queue) or self._committing

    def close(self) -> None:
        """Let `write` return once everything is committed."""
        self._closing = True
        self._more.set()

    async def write(self) -> None:
        """Commit until closed. Raises LedgerError or StoppedError; uncommitted rows stay pending."""
        loop = asyncio.get_running_loop()
        while True:
            await self._more.wait()
            self._more.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            batch, self._queue = self._queue[:MOST], self._queue[MOST:]
            if batch:
                self._committing = True
                committed = await loop.run_in_executor(self.threads, self._commit, batch, self.usage())
                self._committing = False
                self.counts += committed
                self.uncommitted -= sum(isinstance(item, RowEnd) for item in batch)
                self.written()
            elif self._closing:
                await loop.run_in_executor(self.threads, self.ledger.record, self.run, [], self.usage())
                return
            if len(batch) == MOST or len(self._queue) >= self.enough or self._closing:
                self._more.set()

    def _commit(self, batch: list[RowEnd | Closing], usage: Usage) -> Counter[Outcome]:
        """Write one batch, in the writer's thread; return the rows committed by outcome.

        Links are on the disk before the ledger says `linked`: a kill in between leaves a link too many, never one too few. Ends come
        before closings, which end what is still pending in an environment. The lock is checked last, and after a freeze, in which the
        lease has passed, also first: a commit after it was lost overwrites nothing, since only pending rows are written, but these
        would end rows that another session has begun.
        """
        if not self.lease.holds:
            self.check_lock()
        ends = [item for item in batch if isinstance(item, RowEnd)]
        closings = [item for item in batch if isinstance(item, Closing)]
        if self.links is not None:
            self.links.append(ends)
        self.ledger.record(self.run, ends, usage)
        committed = Counter(end.outcome for end in ends)
        if closings:
            committed += self.ledger.close_environments(self.run, closings)
        self.check_lock()
        return committed
