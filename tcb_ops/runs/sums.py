"""Sums over the rows of a run: by outcome, by code, by environment, over time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from tcb_ops.details import read_detail
from tcb_ops.i18n import _, ngettext
from tcb_ops.kinds import MissingKind
from tcb_ops.model import Outcome, Reason
from tcb_ops.runs.histories import HistoryReader
from tcb_ops.runs.records import (
    OUTCOMES,
    EnvRecord,
    RunRecord,
    Tally,
    TimelineBucket,
    read_env,
)
from tcb_ops.runs.schema import envs, rows, runs

QUARTER = 900
"""Seconds in a quarter of an hour. UTC offsets are multiples of it, so days of any time zone consist of quarters."""


class SumReader(HistoryReader):
    """Sums up runs. Raises LedgerDamagedError if rows are missing."""

    def environments(self, run: RunRecord, only: Sequence[int] | None = None) -> list[EnvRecord]:
        """List a run's environments, or `only` these by number, with their numbers of rows and of pending rows."""
        of_run = rows.c.run == run.number
        if only is not None:
            of_run &= rows.c.place.in_(only)
        pending = sa.func.sum(sa.case((rows.c.outcome == Outcome.PENDING, 1), else_=0))
        query = sa.select(rows.c.place, sa.func.count(), pending).where(of_run).group_by(rows.c.place)
        counted = {number: (int(count), int(waiting)) for number, count, waiting in self.query(query)}
        environments = [
            replace(environment, rows=count, pending=waiting)
            for environment in self.envs(run, only)
            for count, waiting in [counted.get(environment.number, (0, 0))]
        ]
        if only is None:
            self.check_rows(run, sum(environment.rows for environment in environments))
        return environments

    def envs(self, run: RunRecord, only: Sequence[int] | None = None) -> list[EnvRecord]:
        """List a run's environments, or `only` these by number, without counting rows: `rows` and `pending` are 0."""
        query = sa.select(envs).where(envs.c.run == run.number).order_by(envs.c.no)
        if only is not None:
            query = query.where(envs.c.no.in_(only))
        with self.reading(run):
            return [read_env(record) for record in self._stream(query)]

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Count rows by outcome, pending included, without zeros."""
        query = sa.select(rows.c.outcome, sa.func.count()).where(rows.c.run == run.number)
        counts = {
            Outcome(outcome): int(count) for outcome, count in self.query(query.group_by(rows.c.outcome))
        }
        self.check_rows(run, sum(counts.values()))
        return Outcome.in_order(counts)

    def tallies(self, run: RunRecord) -> list[Tally]:
        """Count rows by merchant, environment, outcome and code, most rows first."""
        by_number = {environment.number: environment for environment in self.envs(run)}
        tallies = []
        with self.reading(run):
            for number, outcome, reason, errcode, store_code, count, message in self._stream(_summed_up(run)):
                environment = by_number[number]
                tallies.append(
                    Tally(
                        environment.appid,
                        environment.merchant,
                        environment.env,
                        _outcome(run, outcome),
                        Reason(reason) if reason else None,
                        errcode,
                        store_code,
                        int(count),
                        *(("", read_detail(message)) if Reason(reason).explained else (message,)),
                    )
                )
        self.check_rows(run, sum(tally.rows for tally in tallies))
        return sorted(tallies, key=lambda t: (-t.rows, t.merchant, t.env, t.outcome, t.errcode or 0))

    def planned_bytes(self, run: RunRecord, outcomes: frozenset[Outcome]) -> int:
        """Sum up the sizes of these rows' local files at the time the run was planned."""
        summed = sa.func.coalesce(sa.func.sum(rows.c.size), 0)
        query = sa.select(summed).where(rows.c.run == run.number, rows.c.outcome.in_(outcomes))
        return int(self.query(query)[0][0])

    def timeline(self, run: RunRecord, buckets: int = 60) -> list[TimelineBucket]:
        """Return how rows ended over time, in equal intervals from the run's start to the end of its last row.

        Empty if no row has ended. Does not include invalid rows.
        """
        ended, of_run = rows.c.ended_at, rows.c.run == run.number
        first, last = self.query(sa.select(sa.func.min(ended), sa.func.max(ended)).where(of_run))[0]
        if last is None:
            return []
        began = min(run.created_at, first)
        width = max(last - began, 0.001) / buckets
        position = (ended - began) / width
        # A cast truncates in SQLite, which may lack floor, and rounds in PostgreSQL.
        sqlite = self._engine.dialect.name == "sqlite"
        bucket = (sa.cast(position, sa.Integer) if sqlite else sa.func.floor(position)).label("bucket")
        query = sa.select(bucket, rows.c.outcome, sa.func.count()).where(of_run, ended.is_not(None))
        outcomes: defaultdict[int, Counter[Outcome]] = defaultdict(Counter)
        for number, outcome, count in self.query(query.group_by(bucket, rows.c.outcome)):
            # The last end falls on the boundary.
            outcomes[min(int(number), buckets - 1)][Outcome(outcome)] += int(count)
        starts = [began + number * width for number in range(buckets + 1)]
        return [TimelineBucket(*pair, outcomes[number]) for number, pair in enumerate(pairwise(starts))]

    def check_rows(self, run: RunRecord, count: int) -> None:
        """Raise LedgerDamagedError if the number of rows that were read is not the planned one."""
        if count != run.rows:
            planned = ngettext("{n:,} row", "{n:,} rows", run.rows)
            raise self._damaged(
                _(
                    "run {id} was planned with {rows}, but {count:,} can be read",
                    id=run.id,
                    rows=planned,
                    count=count,
                )
            )

    def errcodes_since(self, target: str, since: float) -> Iterator[Any]:
        """Stream (appid, merchant, errcode, quarter of an hour since 1970, rows) of a target's runs, from `since` on.

        Rows that a breaker ended count at the time it opened.
        """
        quarter = sa.func.coalesce(rows.c.ended_at, runs.c.created_at) / QUARTER
        if self._engine.dialect.name == "postgresql":  # a cast rounds there
            quarter = sa.func.floor(quarter)
        keys = (rows.c.run, rows.c.place, rows.c.errcode, sa.cast(quarter, sa.Integer).label("quarter"))
        unfinished_or_since = runs.c.finished_at.is_(None) | (runs.c.finished_at >= since)
        counted = (
            sa.select(*keys, sa.func.count().label("rows"))
            .join(runs, runs.c.number == rows.c.run)
            .where(rows.c.errcode != 0, runs.c.target == target, unfinished_or_since)
            .group_by(*keys[:3], "quarter")
            .subquery()
        )
        of_env = (envs.c.run == counted.c.run) & (envs.c.no == counted.c.place)
        columns = (envs.c.appid, envs.c.merchant, counted.c.errcode, counted.c.quarter, counted.c.rows)
        return self._stream(sa.select(*columns).join(envs, of_env))


def _outcome(run: RunRecord, name: str) -> Outcome:
    """Return an outcome by its name. Raises KeyError for an unknown one, unless the run's feature is missing."""
    return Outcome(name) if isinstance(run.kind, MissingKind) else OUTCOMES[name]


def _summed_up(run: RunRecord) -> sa.Select[Any]:
    """Select (environment, outcome, reason, errcode, store_code, rows, message) of the rows of a run."""
    keys = (rows.c.place, rows.c.outcome, rows.c.reason, rows.c.errcode, rows.c.store_code)
    message = sa.func.max(
        sa.case(
            (rows.c.reason.in_([reason for reason in Reason.all() if reason.explained]), rows.c.detail),
            (rows.c.reason.in_([Reason.REFUSED, Reason.COMPONENT]), rows.c.errmsg),
            else_="",
        )
    )
    return sa.select(*keys, sa.func.count(), message).where(rows.c.run == run.number).group_by(*keys)
