"""What the ledger knows of codes over time, and of the rows of two runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tcb_ops.model import Outcome
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord
from tcb_ops.runs.schema import sql_list

QUARTER = 900
"""Seconds in a quarter of an hour. UTC offsets are multiples of it, so days of any time zone consist of quarters."""


def codes_since(ledger: LedgerReader, target: str, kind: str, since: float) -> Iterator[Any]:
    """Stream (appid, merchant, errcode, store_code, quarter of an hour since 1970, rows) of a target's runs of a kind, from `since` on.

    Rows that a breaker ended count at the time it opened.
    """
    quarter = ledger.dialect.whole.format(f"COALESCE(rows.ended_at, runs.created_at) / {QUARTER}")
    query = f"""
        SELECT envs.appid, envs.merchant, counted.errcode, counted.store_code, counted.quarter, counted.rows FROM (
            SELECT rows.run, rows.place, rows.errcode, rows.store_code, {quarter} AS quarter, COUNT(*) AS rows
            FROM rows JOIN runs ON runs.number = rows.run
            WHERE (rows.errcode <> 0 OR rows.store_code <> '') AND rows.outcome NOT IN ({sql_list(Outcome.successes())})
                AND runs.target = ? AND runs.kind = ? AND (runs.finished_at IS NULL OR runs.finished_at >= ?)
            GROUP BY rows.run, rows.place, rows.errcode, rows.store_code, quarter
        ) AS counted JOIN envs ON envs.run = counted.run AND envs.no = counted.place"""
    return ledger.stream(query, (target, str(kind), since))


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
