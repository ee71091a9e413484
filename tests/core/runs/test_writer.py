"""Ends are committed in groups, and a group never waits longer than it has to."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tcb_ops.model import Outcome, Row, RowEnd
from tcb_ops.runs import writer
from tcb_ops.runs.list_kinds import LINKS
from tcb_ops.runs.records import EnvRecord, NewRun, Usage
from tcb_ops.runs.writer import LedgerWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from tcb_ops.runs.ledger import Ledger

TEA = EnvRecord(0, "tea", "wxtea", "茶语小铺", "merchant", left=False)
RUN = NewRun(
    "20260101-090000-0001", LINKS, "https://api.weixin.qq.com", "list.csv", "ab" * 32, 123, ("env", "path"), "",
    {}, "", "op", "host", "", 1000.0,
)  # fmt: skip
END = [RowEnd(line, Outcome.LINKED, errcode=0) for line in range(2, 12)]
LONG = 3600.0
"""A wait that no test outlasts."""


def groups(ledger: Ledger, feed: Callable[[LedgerWriter], None], rows: int, enough: int) -> list[int]:
    """Feed a writer; return how many rows each commit held, when so many rows are committed."""
    paths = [Row(end.line, "tea", f"{end.line}.png", "wxtea", "茶语小铺", "", ()) for end in END]
    run, found = ledger.plan(RUN, paths, [TEA]), list[int]()

    async def work() -> None:
        done = asyncio.Event()

        def committed() -> None:
            found.append(sum(written.counts.values()) - sum(found))
            if sum(found) == rows:
                done.set()

        with ThreadPoolExecutor(1) as thread:
            written = LedgerWriter(ledger, run, None, thread, Usage, committed, lambda: None, enough)
            writing = asyncio.create_task(written.write())
            feed(written)
            async with asyncio.timeout(30):
                await done.wait()
            written.close()
            await writing

    asyncio.run(work())
    assert sum(ledger.counts(run).values()) == 10
    return found


def test_ends_wait_for_others_and_are_committed_together(
    sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LINGER", LONG)

    def feed(written: LedgerWriter) -> None:
        loop = asyncio.get_running_loop()
        for end in END[:4]:
            loop.call_soon(written.add, end)  # each in a turn of the loop of its own

    assert groups(sqlite_ledger, feed, 4, enough=4) == [4]


def test_too_few_ends_wait_no_longer_than_the_limit(
    sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LINGER", 0.01)
    assert groups(sqlite_ledger, lambda written: written.add(END[0]), 1, enough=64) == [1]


def test_ends_after_which_nothing_is_in_flight_do_not_wait(
    sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LINGER", LONG)

    def feed(written: LedgerWriter) -> None:
        written.add(END[0])
        written.flush()

    assert groups(sqlite_ledger, feed, 1, enough=64) == [1]


def test_a_closed_writer_commits_what_is_left(sqlite_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LINGER", LONG)

    def feed(written: LedgerWriter) -> None:
        written.add(END[0])
        written.close()

    assert groups(sqlite_ledger, feed, 1, enough=64) == [1]
