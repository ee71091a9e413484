"""Reading from the ledger: runs, their rows, and sums. Nothing here writes.

Methods that sum up or stream a run's rows compare their number with the planned one. If rows are lost, they raise
LedgerDamagedError: nothing is concluded from the rest.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any, Self, Unpack

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from tcb_ops.details import read_detail
from tcb_ops.errors import LedgerDamagedError, RunNotFoundError
from tcb_ops.i18n import _, as_list
from tcb_ops.kinds import Kind, MissingKind, all_kinds, row_count
from tcb_ops.model import Outcome, Reason, Row
from tcb_ops.runs.database import BATCH
from tcb_ops.runs.histories import OF_ENV, HistoryReader, LaterChange, later_changes
from tcb_ops.runs.locks import working
from tcb_ops.runs.records import (
    OUTCOMES,
    PENDING_COLUMNS,
    EnvRecord,
    RowFilter,
    RowRecord,
    RunRecord,
    Tally,
    TimelineBucket,
    read_cells,
    read_end,
    read_env,
    read_pending,
    read_row,
)
from tcb_ops.runs.schema import envs, exports, rows, runs, sql_list

_LOG = logging.getLogger("tcb_ops.runs")

_ENDING = 4
"""The fewest characters of an id's ending that name a run."""


class LedgerReader(HistoryReader):
    """An open ledger for reading. Errors of the database are raised as LedgerError."""

    def worked_on_by(self, run: RunRecord) -> str:
        """Return who else is working on a run, as far as can be determined here; empty if nobody is."""
        return working(self, run.id)

    # --- a run ---------------------------------------------------------------------------------------------

    def has_run(self, run_id: str) -> bool:
        """Return whether a run has exactly this id."""
        return bool(self.query(sa.select(runs.c.number).where(runs.c.id == run_id)))

    def run(self, name: str, target: str | None = None, kinds: Collection[Kind] | None = None) -> RunRecord:
        """Find a run by id, an unambiguous beginning or ending of one, or `latest`.

        An ending has four characters or more. `target`, `kinds`: of which `latest` is the last created; None for any.
        Raises RunNotFoundError.
        """
        query = sa.select(runs).order_by(runs.c.number.desc()).limit(20)
        if name == "latest":
            of_target = query.where(runs.c.target == target) if target is not None else query
            records = self.query(of_target.where(runs.c.kind.in_(kinds)) if kinds is not None else of_target)
            if not records:
                raise self._no_latest(target, kinds)
            return self._run(records[0])
        if records := self.query(query.where(runs.c.id == name)):
            return self._run(records[0])  # others may be damaged
        named = runs.c.id.startswith(name, autoescape=True)
        if len(name) >= _ENDING:
            named |= runs.c.id.endswith(name, autoescape=True)
        records = self.query(query.where(named))
        if len(records) == 1:
            return self._run(records[0])
        if not records:
            raise RunNotFoundError(_("no run '{name}' in {ledger}.", name=name, ledger=self.name))
        newest = as_list((record.id for record in records), 5)
        raise RunNotFoundError(
            _("'{name}' matches several runs: {newest}. Give more of the id.", name=name, newest=newest)
        )

    def _no_latest(self, target: str | None, kinds: Collection[Kind] | None) -> RunNotFoundError:
        """Return the error for a ledger without a run of the target and kinds; it names the newest of the others."""
        newest = (self.runs(target, limit=1) if kinds is not None else []) or self.runs(limit=1)
        if not newest:
            return RunNotFoundError(_("{ledger} has no run yet.", ledger=self.name))
        listed = as_list(kind.label for kind in kinds) if kinds else _("of any kind")
        message = _(
            "{ledger} has no run ({kinds}) to {target} yet.", ledger=self.name, kinds=listed, target=target
        )
        hint = _(
            "The newest run is {id} ({kind}): give its id, or --target {target}.",
            id=newest[0].id,
            kind=newest[0].kind.label,
            target=newest[0].target,
        )
        return RunNotFoundError(message, hint)

    def runs(
        self,
        target: str | None = None,
        limit: int | None = None,
        damaged: list[LedgerDamagedError] | None = None,
    ) -> list[RunRecord]:
        """List runs, the last created first. Damaged records are left out: their errors are appended to `damaged`, or logged."""
        query = sa.select(runs).order_by(runs.c.number.desc()).limit(limit)
        if target is not None:
            query = query.where(runs.c.target == target)
        intact = []
        for record in self.query(query):
            try:
                intact.append(self._run(record))
            except LedgerDamagedError as error:
                if damaged is None:
                    _LOG.warning("%s", error.text)
                else:
                    damaged.append(error)
        return intact

    def newest(self, kind: Kind, target: str, parent: str = "") -> RunRecord | None:
        """Return the last created run of a kind to a target; of the retries of `parent`, if that is given."""
        query = sa.select(runs).where(runs.c.kind == kind, runs.c.target == target, runs.c.parent == parent)
        records = self.query(query.order_by(runs.c.number.desc()).limit(1))
        return self._run(records[0]) if records else None

    def unfinished(
        self, kind: Kind, target: str, list_sha256: str, root: str, *, elsewhere: bool = False
    ) -> list[RunRecord]:
        """Find unfinished runs of the same kind, target, list bytes and root (`elsewhere`: another root), newest first.

        They include runs that were killed while their report (`out`) was written.
        """
        query = (
            sa.select(runs)
            .where(
                runs.c.kind == kind,
                runs.c.target == target,
                runs.c.list_sha256 == list_sha256,
                runs.c.root != root if elsewhere else runs.c.root == root,
                runs.c.finished_at.is_(None) | ((runs.c.report == "") & (runs.c.out != "")),
            )
            .order_by(runs.c.number.desc())
            .limit(50)
        )
        return [self._run(record) for record in self.query(query)]

    def check(self, run: RunRecord) -> None:
        """Check a run before it is resumed: the number of its rows, and an SQLite file. Raises LedgerDamagedError."""
        self.counts(run)
        self.environments(run)
        if self.file is not None and (fault := self.query(sa.text("PRAGMA quick_check(1)"))[0][0]) != "ok":
            raise self._damaged(_("SQLite's check found: {fault}", fault=" ".join(fault.split())))

    def pending(
        self, run: RunRecord, environments: Iterable[tuple[EnvRecord, int]], limit: int
    ) -> list[list[Row]]:
        """Return the next pending rows of some environments, each after a line, in the order of the list.

        They have no cells, which sending does not need.
        """
        query = (
            f"SELECT {PENDING_COLUMNS} FROM rows "  # noqa: S608  own names
            "WHERE run = ? AND place = ? AND line > ? AND outcome = 'pending' ORDER BY line LIMIT ?"
        )
        with self._connection() as connection:
            pages = [
                (environment, self._fetch(connection, query, (run.number, environment.number, after, limit)))
                for environment, after in environments
            ]
        with self.reading(run):
            return [[read_pending(record, environment) for record in page] for environment, page in pages]

    def rows(self, run: RunRecord, **filters: Unpack[RowFilter]) -> Iterator[RowRecord]:
        """Stream a run's rows in the order of the list, in constant memory.

        Missing rows are detected after the last row of a whole run, and before the first row of a selection; not of one by
        `ends` or `environments`, which come from sums.
        """
        environments = filters.get("environments")
        by_number = {item.number: item for item in (self.envs(run) if environments is None else environments)}
        conditions, after_line = _conditions(filters, by_number), filters.get("after_line", -1)
        if filters.get("merchant"):
            self.environments(run)
        elif conditions and environments is None and filters.get("ends") is None:
            self.counts(run)
        query = (
            sa.select(rows).where(rows.c.run == run.number, *conditions).order_by(rows.c.line).limit(BATCH)
        )
        for batch in self._in_order(
            run,
            lambda last: self.query(query.where(rows.c.line > last)),
            after_line,
            every_row=not conditions and after_line < 0,
        ):
            with self.reading(run):
                records = [RowRecord(read_row(item, by_number[item[2]]), read_end(item)) for item in batch]
            yield from records

    def _in_order(
        self, run: RunRecord, read: Callable[[int], Sequence[Any]], last: int = -1, *, every_row: bool = True
    ) -> Iterator[Sequence[Any]]:
        """Stream batches of a run's records after the line `last`, in the order of the list; `read` returns the next ones.

        They begin with run and line. `every_row`: all rows of the run are read, and missing ones detected.
        """
        count = 0
        while count <= run.rows and (batch := read(last)):  # in a damaged file, lines may not grow
            last, count = batch[-1][1], count + len(batch)
            yield batch
        if every_row:
            self.check_rows(run, count)

    def linked(self, run: RunRecord) -> Iterator[int]:
        """Stream the lines of a run's linked rows in the order of the list."""
        query = "SELECT run, line FROM rows WHERE run = ? AND line > ? AND outcome = 'linked' ORDER BY line LIMIT ?"
        read = lambda last: self.fetch(query, (run.number, last, BATCH))  # noqa: E731
        for batch in self._in_order(run, read, every_row=False):
            yield from (line for _run, line in batch)

    def listed(self, run: RunRecord) -> Iterator[tuple[int, tuple[str, ...], str, int | None, str]]:
        """Stream (line, cells, outcome, errcode, errmsg) of a run's rows in the order of the list, for links.csv."""
        query = (
            "SELECT run, line, cells, outcome, errcode, errmsg FROM rows "
            "WHERE run = ? AND line > ? ORDER BY line LIMIT ?"
        )

        for batch in self._in_order(run, lambda last: self.fetch(query, (run.number, last, BATCH))):
            with self.reading(run):
                listed = [(line, read_cells(cells), *end) for _run, line, cells, *end in batch]
            yield from listed

    def records(self, run: RunRecord, outcomes: frozenset[Outcome] | None = None) -> Iterator[Sequence[Any]]:
        """Stream a run's rows with these outcomes (None: all) in the order of the list, as batches of database records.

        For writers of a million rows, for which an object per row is most of the cost. Missing rows are detected as in `rows`.
        """
        condition = ""
        if outcomes is not None:
            self.counts(run)
            condition = f"AND outcome IN ({sql_list(outcomes)})"
        query = f"SELECT * FROM rows WHERE run = ? AND line > ? {condition} ORDER BY line LIMIT ?"  # noqa: S608  own names

        def read(last: int) -> Sequence[Any]:
            return self.fetch(query, (run.number, last, BATCH))

        return self._in_order(run, read, every_row=outcomes is None)

    def succeeded_since(self, run: RunRecord) -> set[int]:
        """Return the lines of a run that have succeeded in one of its retries, or in a retry of those."""
        lines: set[int] = set()
        for retry in self.retries(run):
            self.counts(retry)
            good = sa.select(rows.c.line).where(
                rows.c.run == retry.number, rows.c.outcome.in_(Outcome.successes())
            )
            lines.update(line for (line,) in self.query(good))
        return lines

    def retries(self, run: RunRecord) -> list[RunRecord]:
        """List the retries of a run on the same target and the retries of those, oldest first."""
        query = sa.select(runs).where(runs.c.parent == run.id, runs.c.target == run.target)
        retries = [self._run(record) for record in self.query(query)]
        retries += [later for retry in list(retries) for later in self.retries(retry)]
        return sorted(retries, key=lambda retry: retry.number)

    def exports(self, run: RunRecord) -> set[str]:
        """Return the SHA-256 of the manifest.json of each report of a run."""
        of_run = sa.select(exports.c.manifest_sha256).where(exports.c.run == run.number)
        return {digest for (digest,) in self.query(of_run)}

    @contextmanager
    def snapshot(self) -> Iterator[Self]:
        """Open a consistent snapshot of the ledger, which later writes do not change."""
        snapshot = copy(self)
        try:
            with self._engine.connect() as connection:
                if self._is_sqlite:
                    connection.exec_driver_sql("BEGIN")  # the driver begins a transaction only at a write
                else:
                    connection.execution_options(isolation_level="REPEATABLE READ")
                snapshot._held = connection  # noqa: SLF001  its own copy
                yield snapshot
        except SQLAlchemyError as error:
            raise self._trouble(error) from None

    # --- sums -----------------------------------------------------------------------------------------------------

    def environments(self, run: RunRecord, only: Sequence[int] | None = None) -> list[EnvRecord]:
        """List a run's environments, or `only` these by number, with their numbers of rows and of pending rows."""
        query = (
            "SELECT place, COUNT(*), SUM(CASE outcome WHEN 'pending' THEN 1 ELSE 0 END) FROM rows "  # noqa: S608
            f"WHERE run = ? {_among('place', only)} GROUP BY place"
        )
        counted = {number: counts for number, *counts in self.fetch(query, (run.number,))}
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
        query = f"SELECT * FROM envs WHERE run = ? {_among('no', only)} ORDER BY no"  # noqa: S608  numbers
        records = self.fetch(query, (run.number,))
        with self.reading(run):
            return [read_env(record) for record in records]

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Count rows by outcome, pending included, without zeros."""
        query = "SELECT outcome, COUNT(*) FROM rows WHERE run = ? GROUP BY outcome"
        counts = {Outcome(outcome): int(count) for outcome, count in self.fetch(query, (run.number,))}
        self.check_rows(run, sum(counts.values()))
        return Outcome.in_order(counts)

    def tallies(self, run: RunRecord) -> list[Tally]:
        """Count rows by merchant, environment, outcome and code, most rows first."""
        by_number = {environment.number: environment for environment in self.envs(run)}
        tallies = []
        with self.reading(run):
            for number, outcome, reason, errcode, store_code, count, message in self.stream(_summed_up(run)):
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
        bucket = (sa.cast(position, sa.Integer) if self._is_sqlite else sa.func.floor(position)).label(
            "bucket"
        )
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
            text = _("run {id} was planned with {rows}, but {count:,} can be read")
            raise self._damaged(text.format(id=run.id, rows=row_count(run.rows), count=count))

    # --- across runs --------------------------------------------------------------------------------------------

    def by_path(self, run: RunRecord) -> Iterator[Any]:
        """Stream (env, appid, path, outcome, reason, errcode, store_code) of a run's rows, ordered by the first three.

        Of rows that share all three, invalid ones come last. The order is by code point, whatever the database's locale.
        """
        keys = [envs.c.env, envs.c.appid, rows.c.path]
        ordered = keys if self._is_sqlite else [sa.collate(key, "C") for key in keys]
        query = (
            sa.select(*keys, rows.c.outcome, rows.c.reason, rows.c.errcode, rows.c.store_code)
            .join(envs, OF_ENV)
            .where(rows.c.run == run.number)
            .order_by(*ordered, rows.c.outcome == Outcome.INVALID, rows.c.line)
        )
        count = 0
        with self.reading(run):
            for record in self.stream(query):
                count += 1
                yield record
        self.check_rows(run, count)

    def previous(self, run: RunRecord, receiver: str = "") -> RunRecord | None:
        """Find the last finished run before this one with the same selection, for comparison; None for a retry.

        With a receiver: the last audit whose message was not kept from it.
        """
        for record in [] if run.parent else self.query(earlier_runs(run)):
            earlier = self._run(record)
            if earlier.selection == run.selection and receiver not in earlier.undelivered:
                return earlier
        return None

    def later_changes(
        self, run: RunRecord, only: Collection[tuple[str, str]] | None = None, *, sampled: bool = False
    ) -> list[LaterChange]:
        """Find the later runs that undid, deleted or overwrote files of an upload; see `runs.later_changes`."""
        return later_changes(self, run, only, sampled=sampled)

    def confirmation(self, run: RunRecord, after: int = 0) -> tuple[str, dict[Outcome, int]] | None:
        """Find the newest finished run that confirmed an upload; return its id and its rows by outcome.

        `after`: the number of the run that changed the upload's files last; a confirmation before it says nothing of them now, and
        one that found them taken back confirms nothing.
        """
        if not run.kind.sends_files:
            return None
        query = sa.select(runs).where(
            runs.c.kind.in_([kind for kind in all_kinds() if kind.looks_at_store]),
            runs.c.list_sha256 == run.list_sha256,
            runs.c.finished_at.is_not(None),
            runs.c.number > max(run.number, after),
        )
        for record in self.query(query.order_by(runs.c.number.desc())):
            try:
                confirmation = self._run(record)
            except LedgerDamagedError as error:
                _LOG.warning("%s", error.text)
                continue
            # One that is narrowed by --where says nothing of the others.
            covers_all = confirmation.selection in {f"run {run.id}", f"run {run.id}; content"}
            if covers_all and confirmation.settings.get("of", [""])[0] == run.id:
                counts = self.counts(confirmation)
                return None if any(outcome.taken_back for outcome in counts) else (confirmation.id, counts)
        return None


def _conditions(filters: RowFilter, environments: Mapping[int, EnvRecord]) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if (outcomes := filters.get("outcomes")) is not None:
        conditions.append(rows.c.outcome.in_(outcomes))
    if (ends := filters.get("ends")) is not None:
        states = (
            (rows.c.outcome == outcome)
            & (rows.c.reason == reason)
            & rows.c.errcode.is_not_distinct_from(errcode)
            & (rows.c.store_code == store_code)
            for outcome, reason, errcode, store_code in ends
        )
        conditions.append(sa.or_(sa.false(), *states))
    merchant = filters.get("merchant")
    if merchant or filters.get("environments") is not None:
        named = [
            environment.number
            for environment in environments.values()
            if not merchant or merchant in {environment.merchant, environment.appid}
        ]
        conditions.append(rows.c.place.in_(named))
    if path := filters.get("path"):
        conditions.append(rows.c.path.contains(path, autoescape=True))
    if (line := filters.get("line")) is not None:
        conditions.append(rows.c.line == line)
    return conditions


def _among(column: str, numbers: Sequence[int] | None) -> str:
    """Return the condition that a column is one of some numbers; nothing for None."""
    return "" if numbers is None else f"AND {column} IN ({', '.join(map(str, numbers)) or 'NULL'})"


def earlier_runs(run: RunRecord) -> sa.Select[Any]:
    """Select finished runs before one with the same kind, target and list name, latest first; no retries."""
    query = sa.select(runs).where(
        runs.c.kind == run.kind,
        runs.c.target == run.target,
        runs.c.parent == "",
        runs.c.finished_at.is_not(None),
    )
    # By the ledger's number, since a clock may have been set back.
    query = query.where(runs.c.number < run.number).order_by(runs.c.number.desc())
    if run.kind.surveys:  # stopped audits are not comparable
        return query.where(runs.c.stopped == "")
    return query.where(runs.c.list_name == run.list_name)


def _outcome(run: RunRecord, name: str) -> Outcome:
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
