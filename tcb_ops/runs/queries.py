"""Questions across runs: rows side by side, errcodes over the days, the run before. Queries only; the ledger asks them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from tcb_ops.model import Kind, Outcome
from tcb_ops.runs.records import Moment, RunRecord
from tcb_ops.runs.schema import CARRIES_ERRCODE, envs, rows, runs, spent

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
    """Select (environment, then outcome, reason, errcode and store_code of the one run, then of the other, rows) of two runs.

    Only rows that have line, environment and path in common.
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


def ended_between(run: RunRecord) -> sa.Select[Any]:
    """When the first and the last row of a run ended."""
    return sa.select(sa.func.min(rows.c.ended_at), sa.func.max(rows.c.ended_at)).where(
        rows.c.run == run.number
    )


def ends_by_moment(run: RunRecord, began: float, width: float, dialect: str) -> sa.Select[Any]:
    """Rows by the moment (its number) that they ended in, and by outcome."""
    at = (rows.c.ended_at - began) / width
    # A cast cuts off in SQLite, which may lack floor, and rounds in PostgreSQL.
    moment = (sa.cast(at, sa.Integer) if dialect == "sqlite" else sa.func.floor(at)).label("moment")
    return (
        sa.select(moment, rows.c.outcome, sa.func.count())
        .where(rows.c.run == run.number, rows.c.ended_at.is_not(None))
        .group_by(moment, rows.c.outcome)
    )


def moments(began: float, width: float, buckets: int, found: Iterable[Any]) -> list[Moment]:
    """Put what `ends_by_moment` found in order, those in which nothing ended included."""
    ended: defaultdict[int, dict[Outcome, int]] = defaultdict(dict)
    for moment, outcome, count in found:
        in_it = ended[min(int(moment), buckets - 1)]  # the last end of all stands on the edge
        in_it[Outcome(outcome)] = in_it.get(Outcome(outcome), 0) + int(count)
    return [
        Moment(began + number * width, began + (number + 1) * width, ended[number])
        for number in range(buckets)
    ]


def phases_of(run: RunRecord) -> sa.Select[Any]:
    """What a run has spent on each phase."""
    return sa.select(spent.c.phase, spent.c.seconds).where(spent.c.run == run.number)


def add_phases(connection: sa.Connection, run: RunRecord, phases: Mapping[str, float]) -> None:
    """Add to what a run has spent. Only the run's own writer does: its lock keeps others away."""
    for phase, seconds in phases.items():
        mine = (spent.c.run == run.number) & (spent.c.phase == phase)
        more = spent.update().where(mine).values(seconds=spent.c.seconds + seconds)
        if connection.execute(more).rowcount == 0:
            connection.execute(spent.insert().values(run=run.number, phase=phase, seconds=seconds))
