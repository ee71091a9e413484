"""What the ledger knows of codes over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tcb_ops.model import Outcome
from tcb_ops.runs.reader import LedgerReader
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
