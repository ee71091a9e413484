"""What a comparison reads of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord


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
