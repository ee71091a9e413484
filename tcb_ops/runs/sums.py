"""Sums over the rows of a run: by outcome, by code, by environment, over time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from tcb_ops.details import read_detail
from tcb_ops.i18n import _, ngettext
from tcb_ops.kinds import MissingKind
from tcb_ops.model import Outcome, Reason
from tcb_ops.runs.histories import HistoryReader
from tcb_ops.runs.records import (
    EnvRecord,
    RunRecord,
    Tally,
    TimelineBucket,
    check_runs,
    check_state,
    read_env,
    valid_time,
)
from tcb_ops.runs.schema import (
    CARRIES_ERRCODE,
    envs,
    rows,
    runs,
    tallies,
)

QUARTER = 900
"""Seconds in a quarter of an hour. UTC offsets are multiples of it, so days of any time zone consist of quarters."""
RUNS = (sa.func.min(rows.c.run), sa.func.max(rows.c.run))
"""The runs of the rows summed up: if a file's pages are mixed up, SQLite includes rows of other runs."""


class SumReader(HistoryReader):
    """Sums up runs. Raises LedgerDamagedError if rows are missing."""

    def environments(self, run: RunRecord, only: Sequence[int] | None = None) -> list[EnvRecord]:
        """List a run's environments, or `only` these by number, with their numbers of rows and of pending rows."""
        its = rows.c.run == run.number
        if only is not None:
            its &= rows.c.place.in_(only)
        pending = sa.func.sum(sa.case((rows.c.outcome == Outcome.PENDING, 1), else_=0))
        query = sa.select(rows.c.place, sa.func.count(), pending).where(its).group_by(rows.c.place)
        with self.reading(run):
            counted = {place: (int(count), int(waiting)) for place, count, waiting in self._stream(query)}
        found = [*self._list(run, only, counted)]
        if only is None:
            self.check_rows(run, sum(environment.rows for environment in found))
        return found

    def envs(self, run: RunRecord, only: Sequence[int] | None = None) -> list[EnvRecord]:
        """List a run's environments, or `only` these by number, without counting rows: `rows` and `pending` are 0."""
        if self._listed is None or only is not None:
            return [*self._list(run, only)]
        if run.number not in self._listed:
            # Two runs that are compared mostly have the same environments.
            same = {one: one for listed in self._listed.values() for one in listed}
            self._listed[run.number] = [same.get(one, one) for one in self._list(run)]
        return self._listed[run.number]

    def _list(
        self,
        run: RunRecord,
        only: Sequence[int] | None = None,
        counted: Mapping[int, tuple[int, int]] = MappingProxyType({}),
    ) -> Iterator[EnvRecord]:
        """Stream environments; `counted`: their numbers of rows and of pending rows, by number."""
        query = sa.select(envs).where(envs.c.run == run.number).order_by(envs.c.no)
        if only is not None:
            query = query.where(envs.c.no.in_(only))
        with self.reading(run):
            for record in self._stream(query):
                yield read_env(record, *counted.get(record.no, (0, 0)))

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Count rows by outcome, pending included, without zeros."""
        query = (
            sa.select(rows.c.outcome, sa.func.count(), *RUNS)
            .where(rows.c.run == run.number)
            .group_by(rows.c.outcome)
        )
        if self._has_sums(run):
            summed, its = sa.func.sum(tallies.c.rows), tallies.c.run == run.number
            query = sa.select(tallies.c.outcome, summed).where(its).group_by(tallies.c.outcome)
        with self.reading(run):
            found: dict[Outcome, int] = {}
            for outcome, count, *of in self._read(query):
                check_runs(run, *of)
                found[Outcome(outcome)] = found.get(Outcome(outcome), 0) + int(count)
        self.check_rows(run, sum(found.values()))
        return Outcome.in_order(found)

    def tallies(self, run: RunRecord) -> list[Tally]:
        """Count rows by merchant, environment, outcome and code, most rows first; a snapshot counts only once."""
        if self._tallied is None:
            return self._tally(run)
        if run.number not in self._tallied:
            self._tallied[run.number] = self._tally(run)
        return self._tallied[run.number]

    def _tally(self, run: RunRecord) -> list[Tally]:
        query = summed_up(run.number)
        if self._has_sums(run) and self._same_outcomes(run):
            query = sa.select(*tallies.c[2:]).where(tallies.c.run == run.number)  # without its own key
        by_number = {environment.number: environment for environment in self.envs(run)}
        found = []
        with self.reading(run):
            for number, outcome, reason, errcode, store_code, count, text, *of in self._stream(query):
                check_runs(run, *of)
                if not isinstance(run.kind, MissingKind):  # whose outcomes are not known here
                    check_state(outcome, reason, errcode, store_code, text)
                environment = by_number[number]
                found.append(
                    Tally(
                        environment.appid,
                        environment.merchant,
                        environment.env,
                        Outcome(outcome),
                        Reason(reason) if reason else None,
                        errcode,
                        store_code,
                        int(count),
                        *(("", read_detail(text)) if Reason(reason).explained else (text,)),
                    )
                )
        self.check_rows(run, sum(tally.rows for tally in found))
        return sorted(found, key=lambda t: (-t.rows, t.merchant, t.env, t.outcome, t.errcode or 0))

    def _has_sums(self, run: RunRecord) -> bool:
        """Return whether the sums stored when the run was finished are those of its rows."""
        there = sa.select(sa.func.count()).select_from(rows).where(rows.c.run == run.number).scalar_subquery()
        kept = sa.select(sa.func.sum(tallies.c.rows), there).where(tallies.c.run == run.number)
        return tuple(self._read(kept)[0]) == (run.rows, run.rows)

    def _same_outcomes(self, run: RunRecord) -> bool:
        """Return whether rows still have the outcomes that the stored sums have: a damaged or edited file may not."""
        counted, summed = (
            dict(
                map(
                    tuple,
                    self._read(
                        sa.select(table.c.outcome, count)
                        .where(table.c.run == run.number)
                        .group_by(table.c.outcome)
                    ),
                )
            )
            for table, count in ((rows, sa.func.count()), (tallies, sa.func.sum(tallies.c.rows)))
        )
        return bool(counted == summed)

    def planned_bytes(self, run: RunRecord, outcomes: frozenset[Outcome]) -> int:
        """Sum up the sizes of these rows' local files at the time the run was planned."""
        summed = sa.func.coalesce(sa.func.sum(rows.c.size), 0)
        query = sa.select(summed).where(rows.c.run == run.number, rows.c.outcome.in_(outcomes))
        return int(self._read(query)[0][0])

    def timeline(self, run: RunRecord, buckets: int = 60) -> list[TimelineBucket]:
        """Return how rows ended over time, in equal intervals from the run's start to the end of its last row.

        Empty if no row has ended. Does not include invalid rows.
        """
        ended, of_run = rows.c.ended_at, rows.c.run == run.number
        first, last = self._read(sa.select(sa.func.min(ended), sa.func.max(ended)).where(of_run))[0]
        if last is None:
            return []
        with self.reading(run):
            if not (valid_time(first) and valid_time(last)):
                raise ValueError(last)
            began = min(run.created_at, first)
            width = max(last - began, 0.001) / buckets
            at = (ended - began) / width
            # A cast truncates in SQLite, which may lack floor, and rounds in PostgreSQL.
            sqlite = self._engine.dialect.name == "sqlite"
            moment = (sa.cast(at, sa.Integer) if sqlite else sa.func.floor(at)).label("moment")
            query = sa.select(moment, rows.c.outcome, sa.func.count()).where(of_run, ended.is_not(None))
            found: defaultdict[int, Counter[Outcome]] = defaultdict(Counter)
            for number, outcome, count in self._read(query.group_by(moment, rows.c.outcome)):
                # The last end falls on the boundary.
                found[min(int(number), buckets - 1)][Outcome(outcome)] += int(count)
        starts = [began + number * width for number in range(buckets + 1)]
        return [TimelineBucket(*pair, found[number]) for number, pair in enumerate(pairwise(starts))]

    def check_rows(self, run: RunRecord, found: int) -> None:
        """Raise LedgerDamagedError if the number of rows found is not the planned one."""
        if found != run.rows:
            raise self._damaged(
                _(
                    "run {id} was planned with {rows}, but {found:,} can be read",
                    id=run.id,
                    rows=ngettext("{n:,} row", "{n:,} rows", run.rows),
                    found=found,
                )
            )

    def errcodes_since(self, target: str, since: float) -> Iterator[Any]:
        """Stream (appid, merchant, errcode, quarter of an hour since 1970, rows) of a target's runs, from `since` on.

        Rows that a breaker ended count at the time it opened.
        """
        at = sa.func.coalesce(rows.c.ended_at, runs.c.created_at) / QUARTER
        if self._engine.dialect.name == "postgresql":  # a cast rounds there
            at = sa.func.floor(at)
        keys = (rows.c.run, rows.c.place, rows.c.errcode, sa.cast(at, sa.Integer).label("quarter"))
        unfinished_or_since = runs.c.finished_at.is_(None) | (runs.c.finished_at >= since)
        counted = (
            sa.select(*keys, sa.func.count().label("rows"))
            .join(runs, runs.c.number == rows.c.run)
            .where(CARRIES_ERRCODE, runs.c.target == target, unfinished_or_since)
            .group_by(*keys[:3], "quarter")
            .subquery()
        )
        of_env = (envs.c.run == counted.c.run) & (envs.c.no == counted.c.place)
        found = (envs.c.appid, envs.c.merchant, counted.c.errcode, counted.c.quarter, counted.c.rows)
        return self._stream(sa.select(*found).join(envs, of_env))


def summed_up(run: int) -> sa.Select[Any]:
    """Select (environment, outcome, reason, errcode, store_code, rows, message, then RUNS) of the rows of a run, by its number."""
    keys = (rows.c.place, rows.c.outcome, rows.c.reason, rows.c.errcode, rows.c.store_code)
    message = sa.func.max(
        sa.case(
            (rows.c.reason.in_([reason for reason in Reason.all() if reason.explained]), rows.c.detail),
            (rows.c.reason.in_([Reason.REFUSED, Reason.COMPONENT]), rows.c.errmsg),
            else_="",
        )
    ).label("message")
    count = sa.func.count().label("rows")
    return sa.select(*keys, count, message, *RUNS).where(rows.c.run == run).group_by(*keys)
