"""Questions across runs: rows side by side, errcodes over the days, the run before. Queries only; the ledger asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tcb_ops.model import Kind, Outcome
from tcb_ops.runs.schema import CARRIES_ERRCODE, envs, rows, runs

if TYPE_CHECKING:
    from tcb_ops.runs.records import RunRecord

__all__ = ["QUARTER", "earlier_runs", "errcodes_by_quarter", "pairs_by_line", "rows_by_path"]

QUARTER = 900
"""Seconds. Every time zone is off UTC by whole quarters of an hour: days of any zone are made of them."""


def rows_by_path(run: RunRecord, dialect: str) -> sa.Select[Any]:
    """Select a run's rows as (env, appid, path, outcome, reason, errcode, store_code), ordered by the first three.

    Of rows that share all three, those that were skipped as bad input come last. The order is that of code points,
    whatever the database's language.
    """
    keys = [envs.c.env, envs.c.appid, rows.c.path]
    ordered = [sa.collate(key, "C") for key in keys] if dialect == "postgresql" else keys
    return (
        sa.select(*keys, rows.c.outcome, rows.c.reason, rows.c.errcode, rows.c.store_code)
        .join(envs, (envs.c.run == rows.c.run) & (envs.c.no == rows.c.place))
        .where(rows.c.run == run.number)
        .order_by(*ordered, rows.c.outcome == Outcome.INVALID, rows.c.line)
    )


def pairs_by_line(before: RunRecord, after: RunRecord) -> sa.Select[Any]:
    """Select (place, then outcome, reason, errcode and store_code of the one run, then of the other, rows) of two runs.

    Only rows that have line, place and path in common.
    """
    older, newer = rows.alias("older"), rows.alias("newer")
    states = [
        table.c[name] for table in (older, newer) for name in ("outcome", "reason", "errcode", "store_code")
    ]
    same = (
        (newer.c.run == after.number)
        & (newer.c.line == older.c.line)
        & (newer.c.place == older.c.place)
        & (newer.c.path == older.c.path)
    )
    return (
        sa.select(older.c.place, *states, sa.func.count())
        .select_from(older)
        .join(newer, same)
        .where(older.c.run == before.number)
        .group_by(older.c.place, *states)
    )


def errcodes_by_quarter(target: str, since: float, dialect: str) -> sa.Select[Any]:
    """Select (appid, merchant, errcode, quarter of an hour since 1970, rows) over all runs of a target.

    Rows that a breaker ended count when it did.
    """
    at = sa.func.coalesce(rows.c.ended_at, runs.c.created_at) / QUARTER
    if dialect == "postgresql":  # where a cast rounds
        at = sa.func.floor(at)
    counted = (
        sa.select(
            rows.c.run, rows.c.place, rows.c.errcode, sa.cast(at, sa.Integer).label("quarter"),
            sa.func.count().label("rows"),
        )
        .join(runs, runs.c.number == rows.c.run)
        .where(
            CARRIES_ERRCODE,
            runs.c.target == target,
            runs.c.finished_at.is_(None) | (runs.c.finished_at >= since),
        )
        .group_by(rows.c.run, rows.c.place, rows.c.errcode, "quarter")
        .subquery()
    )  # fmt: skip
    return sa.select(
        envs.c.appid, envs.c.merchant, counted.c.errcode, counted.c.quarter, counted.c.rows
    ).join(envs, (envs.c.run == counted.c.run) & (envs.c.no == counted.c.place))


def earlier_runs(run: RunRecord) -> sa.Select[Any]:
    """Select the finished runs that came before one, the latest first: same kind and target, a list of the same name; no retries."""
    query = sa.select(runs).where(
        runs.c.kind == run.kind,
        runs.c.target == run.target,
        runs.c.parent == "",
        runs.c.finished_at.is_not(None),
        (runs.c.created_at < run.created_at)
        | ((runs.c.created_at == run.created_at) & (runs.c.number < run.number)),
    )
    if run.kind is not Kind.AUDIT:
        query = query.where(runs.c.list_name == run.list_name)
    return query.order_by(runs.c.created_at.desc(), runs.c.number.desc())
