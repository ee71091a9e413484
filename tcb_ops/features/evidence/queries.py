"""What the ledger knows of codes over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from tcb_ops.model import Outcome
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.schema import envs, rows, runs

QUARTER = 900
"""Seconds in a quarter of an hour. UTC offsets are multiples of it, so days of any time zone consist of quarters."""


def codes_since(ledger: LedgerReader, target: str, kind: str, since: float) -> Iterator[Any]:
    """Stream (appid, merchant, errcode, store_code, quarter of an hour since 1970, rows) of a target's runs of a kind, from `since` on.

    Rows that a breaker ended count at the time it opened.
    """
    quarter = sa.func.coalesce(rows.c.ended_at, runs.c.created_at) / QUARTER
    if ledger.file is None:  # a cast rounds in PostgreSQL
        quarter = sa.func.floor(quarter)
    keys = (
        rows.c.run,
        rows.c.place,
        rows.c.errcode,
        rows.c.store_code,
        sa.cast(quarter, sa.Integer).label("quarter"),
    )
    unfinished_or_since = runs.c.finished_at.is_(None) | (runs.c.finished_at >= since)
    counted = (
        sa.select(*keys, sa.func.count().label("rows"))
        .join(runs, runs.c.number == rows.c.run)
        .where(
            (rows.c.errcode != 0) | (rows.c.store_code != ""),
            runs.c.target == target,
            runs.c.kind == str(kind),
        )
        .where(rows.c.outcome.not_in(map(str, Outcome.successes())), unfinished_or_since)
        .group_by(*keys[:4], "quarter")
        .subquery()
    )
    of_env = (envs.c.run == counted.c.run) & (envs.c.no == counted.c.place)
    columns = (
        envs.c.appid,
        envs.c.merchant,
        counted.c.errcode,
        counted.c.store_code,
        counted.c.quarter,
        counted.c.rows,
    )
    return ledger.stream(sa.select(*columns).join(envs, of_env))
