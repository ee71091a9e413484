"""The writer of a session: commits queued ends in groups; only then are they shown."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from tcb_ops.model import Outcome, RowEnd
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.links_file import LinksFile
from tcb_ops.runs.records import EnvRecord, RunRecord, Usage

LINGER = 0.025
"""Seconds that ends wait for others at most: a commit costs about the same for one row as for fifty."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The closing of an environment: no further row begins; pending rows that are not in flight end like `end`."""

    environment: EnvRecord
    end: RowEnd
    in_flight: tuple[int, ...]


@dataclass(eq=False, slots=True)
class LedgerWriter:
    """Queue of row ends and closings, written in order to links.csv.part and the ledger."""

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
            batch, self._queue = self._queue, []
            if batch:
                self._committing = True
                committed = await loop.run_in_executor(self.threads, self._commit, batch, self.usage())
                self._committing = False
                for outcome, rows in committed.items():
                    self.counts[outcome] += rows
                self.uncommitted -= sum(isinstance(item, RowEnd) for item in batch)
                self.written()
            elif self._closing:
                await loop.run_in_executor(self.threads, self.ledger.record, self.run, [], self.usage())
                return
            if len(self._queue) >= self.enough or self._closing:
                self._more.set()

    def _commit(self, batch: list[RowEnd | Closing], usage: Usage) -> dict[Outcome, int]:
        """Write one batch in order, in the writer's thread; return the rows committed by outcome."""
        committed: dict[Outcome, int] = {}
        ends: list[RowEnd] = []

        def flush(usage: Usage) -> None:
            if self.links is not None:
                self.links.append(ends)
            self.ledger.record(self.run, ends, usage)
            for end in ends:
                committed[end.outcome] = committed.get(end.outcome, 0) + 1
            ends.clear()

        for item in batch:
            if isinstance(item, RowEnd):
                ends.append(item)
                continue
            flush(Usage())
            rows = self.ledger.close_environment(self.run, item.environment, item.end, item.in_flight)
            committed[item.end.outcome] = committed.get(item.end.outcome, 0) + rows
        flush(usage)
        self.check_lock()
        return committed
