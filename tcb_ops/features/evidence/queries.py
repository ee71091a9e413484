"""What the ledger knows of errcodes over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tcb_ops.runs.reader import LedgerReader

QUARTER = 900
"""Seconds in a quarter of an hour. UTC offsets are multiples of it, so days of any time zone consist of quarters."""


def errcodes_since(ledger: LedgerReader, target: str, since: float) -> Iterator[Any]:
    """Stream (appid, merchant, errcode, quarter of an hour since 1970, rows) of a target's runs, from `since` on.

    Rows that a breaker ended count at the time it opened.
    """
    quarter = ledger.dialect.whole.format(f"COALESCE(rows.ended_at, runs.created_at) / {QUARTER}")
    query = f"""
        SELECT envs.appid, envs.merchant, counted.errcode, counted.quarter, counted.rows FROM (
            SELECT rows.run, rows.place, rows.errcode, {quarter} AS quarter, COUNT(*) AS rows
            FROM rows JOIN runs ON runs.number = rows.run
            WHERE rows.errcode <> 0 AND runs.target = ? AND (runs.finished_at IS NULL OR runs.finished_at >= ?)
            GROUP BY rows.run, rows.place, rows.errcode, quarter
        ) AS counted JOIN envs ON envs.run = counted.run AND envs.no = counted.place"""
    return ledger.stream(query, (target, since))
