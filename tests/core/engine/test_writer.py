"""Ends are committed in groups, and a group never waits longer than it has to."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

from ledgers import PLACES, planned
from tables import table

from tcb_ops.engine import writer
from tcb_ops.engine.list_kinds import LINKS
from tcb_ops.engine.writer import LedgerWriter
from tcb_ops.ledger.database import Connection
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.locks import Lease
from tcb_ops.ledger.records import Closing, RunRecord, Usage
from tcb_ops.model import Outcome, RowEnd

END = [RowEnd(line, Outcome.LINKED, errcode=0) for line in range(2, 12)]
LONG = 3600.0
"""A wait that no test outlasts."""


def groups(ledger: Ledger, feed: Callable[[LedgerWriter], None], rows: int, enough: int) -> list[int]:
    """Feed a writer; return how many rows each commit held, when so many rows are committed."""
    run, found = planned(ledger, kind=LINKS), list[int]()

    async def work() -> None:
        done = asyncio.Event()

        def committed() -> None:
            found.append(sum(written.counts.values()) - sum(found))
            if sum(found) == rows:
                done.set()

        with ThreadPoolExecutor(1) as thread:
            lease = Lease(LONG)
            lease.confirm(lease.now())
            written = LedgerWriter(ledger, run, None, thread, Usage, committed, lambda: None, lease, enough)
            writing = asyncio.create_task(written.write())
            feed(written)
            async with asyncio.timeout(240):
                await done.wait()
            written.close()
            await writing

    asyncio.run(work())
    assert sum(ledger.counts(run).values()) == 10
    return found


def each_in_a_turn_of_its_own(written: LedgerWriter) -> None:
    for end in END[:4]:
        asyncio.get_running_loop().call_soon(written.add, end)


def one(written: LedgerWriter) -> None:
    written.add(END[0])


def last_in_flight(written: LedgerWriter) -> None:
    written.add(END[0])
    written.flush()


def closed(written: LedgerWriter) -> None:
    written.add(END[0])
    written.close()


def others_during_a_slow_commit(written: LedgerWriter) -> None:
    loop, ledger, added = asyncio.get_running_loop(), written.ledger, threading.Event()

    def add_others() -> None:
        for end in END[1:]:
            written.add(end)
        added.set()

    def record(run: RunRecord, ends: list[RowEnd], usage: Usage) -> None:
        loop.call_soon_threadsafe(add_others)
        assert added.wait(240)
        written.ledger = ledger
        ledger.record(run, ends, usage)

    written.ledger = cast("Ledger", SimpleNamespace(record=record))
    last_in_flight(written)


def both_environments_closed(written: LedgerWriter) -> None:
    end = RowEnd(0, Outcome.NOT_ATTEMPTED)
    written.add(Closing(PLACES[0], end, in_flight=(2,)))
    written.add(Closing(PLACES[1], end))
    written.add(END[0])
    written.flush()


@table(
    "feed, linger, enough, committed",
    {
        "ends wait for others": (each_in_a_turn_of_its_own, LONG, 4, [4]),
        "too few wait no longer than the limit": (one, 0.01, 64, [1]),
        "nothing in flight, no wait": (last_in_flight, LONG, 64, [1]),
        "whatever ends while the disk is slow is in the next commit": (
            others_during_a_slow_commit,
            LONG,
            4,
            [1, 9],
        ),
        "a closed writer commits what is left": (closed, LONG, 64, [1]),
        "environments that close together, with a row in flight": (both_environments_closed, LONG, 64, [10]),
    },
)
def test_how_ends_are_committed(sqlite_ledger, monkeypatch, feed, linger, enough, committed):
    monkeypatch.setattr(writer, "LINGER", linger)
    assert groups(sqlite_ledger, feed, sum(committed), enough) == committed


def test_progress_is_shown_while_many_environments_close(sqlite_ledger, monkeypatch):
    monkeypatch.setattr(writer, "MOST", 1)
    assert groups(sqlite_ledger, both_environments_closed, 10, 64) == [4, 5, 1]


class CountingLedger(Ledger):
    """Counts its transactions."""

    transactions = 0

    @contextmanager
    def writing(self, *args: Any, **options: Any) -> Iterator[Connection]:
        self.transactions += 1
        with super().writing(*args, **options) as connection:
            yield connection


def test_environments_that_close_together_take_as_many_transactions_as_one(tmp_path):
    def transactions(feed: Callable[[LedgerWriter], None], rows: int) -> int:
        ledger = CountingLedger(str(tmp_path / f"{rows}.db"))
        groups(ledger, feed, rows, 64)
        return ledger.transactions

    def one_closed(written: LedgerWriter) -> None:
        written.add(Closing(PLACES[1], RowEnd(0, Outcome.NOT_ATTEMPTED)))
        written.flush()

    assert transactions(both_environments_closed, 10) == transactions(one_closed, 5)
