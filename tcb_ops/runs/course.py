"""How a run went over time, and where its time went: the ledger's statements for both."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tcb_ops.model import Outcome
from tcb_ops.runs.records import Moment
from tcb_ops.runs.schema import rows, spent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tcb_ops.runs.records import RunRecord

__all__ = ["add_phases", "ended_between", "ends_by_moment", "moments", "phases_of"]


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
