"""What the ledger knows of retries, of the columns of lists, and of the rows of two runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import RunRecord


def tried_again(ledger: LedgerReader, retry: RunRecord) -> list[Any]:
    """Return (outcome, reason, errcode, store_code before it, outcome, rows) of a retry's rows that have ended.

    The first four are None where the run that it retried is no longer in the ledger.
    """
    query = """
        SELECT before.outcome, before.reason, before.errcode, before.store_code, rows.outcome, COUNT(*) FROM rows
        LEFT JOIN rows AS before ON before.run = (SELECT number FROM runs WHERE id = ?) AND before.line = rows.line
        WHERE rows.run = ? AND rows.outcome <> 'pending'
        GROUP BY before.outcome, before.reason, before.errcode, before.store_code, rows.outcome"""
    with ledger.reading(retry):
        return ledger.fetch(query, (retry.parent, retry.number))


def by_cell(ledger: LedgerReader, run: RunRecord, column: int) -> Iterator[Any]:
    """Stream (cell of one of the list's columns, number of the environment, outcome, rows) of a run's rows that have ended."""
    query = f"""
        SELECT {ledger.dialect.cell.format(column)} AS cell, place, outcome, COUNT(*) FROM rows
        WHERE run = ? AND outcome <> 'pending' GROUP BY cell, place, outcome"""
    with ledger.reading(run):
        yield from ledger.stream(query, (run.number,))


def rows_by_path(ledger: LedgerReader, run: RunRecord) -> Iterator[Any]:
    """Stream (env, appid, path, outcome, reason, errcode, store_code) of a run's rows, ordered by the first three.

    Of rows that share all three, invalid ones come last. The order is by code point, whatever the database's locale.
    """
    keys = ("envs.env", "envs.appid", "rows.path")
    ordered = ", ".join(f"{key}{ledger.dialect.by_code_point}" for key in keys)
    query = f"""
        SELECT {", ".join(keys)}, rows.outcome, rows.reason, rows.errcode, rows.store_code FROM rows
        JOIN envs ON envs.run = rows.run AND envs.no = rows.place WHERE rows.run = ?
        ORDER BY {ordered}, rows.outcome = 'invalid', rows.line"""
    count = 0
    with ledger.reading(run):
        for record in ledger.stream(query, (run.number,)):
            count += 1
            yield record
    ledger.check_rows(run, count)


def pairs_by_line(ledger: LedgerReader, older: RunRecord, newer: RunRecord) -> list[Any] | None:
    """Return (env, appid, then outcome, reason, errcode, store_code in each of two runs, rows) of two runs of one list.

    None unless every line has the same environment and path in both, and none is invalid, as a duplicate is. Counted by
    the database, this takes a quarter of the time of `rows_by_path`; the plus sign keeps SQLite in the order of lines, since in
    the order of environments it would read each page many times. Raises LedgerDamagedError if a run has not its planned rows.
    """
    states = [
        f"{run}.{name}"
        for run in ("older", "newer")
        for name in ("outcome", "reason", "errcode", "store_code")
    ]
    grouped = ", ".join(("older.place", *states))
    query = f"""
        SELECT {grouped}, COUNT(*) FROM rows AS older JOIN rows AS newer ON newer.run = ? AND newer.line = older.line
            AND +newer.place = older.place AND newer.path = older.path
        WHERE older.run = ? AND older.line >= 0 GROUP BY {grouped}"""
    environments, others = (
        {each.number: (each.env, each.appid) for each in ledger.envs(run)} for run in (older, newer)
    )
    if environments != others:
        return None
    for run in (older, newer):
        ledger.counts(run)  # raises if rows are lost, or there are too many
    pairs = ledger.fetch(query, (newer.number, older.number))
    if {sum(pair[-1] for pair in pairs)} != {older.rows, newer.rows} or any(
        "invalid" in pair for pair in pairs
    ):
        return None
    with ledger.reading(older):
        return [(*environments[place], *pair) for place, *pair in pairs]
