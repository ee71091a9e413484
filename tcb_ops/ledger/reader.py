"""Reading from the ledger: runs, their rows, and sums. Nothing here writes.

Methods that sum up or stream a run's rows compare their number with the planned one. If rows are lost, they raise
LedgerDamagedError: nothing is concluded from the rest.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Self, Unpack

from tcb_ops.details import read_detail
from tcb_ops.errors import LedgerDamagedError, RunNotFoundError
from tcb_ops.i18n import _, as_list
from tcb_ops.kinds import Kind, MissingKind, all_kinds, row_count
from tcb_ops.ledger.connection import damaged
from tcb_ops.ledger.database import BATCH
from tcb_ops.ledger.histories import FileReader, family_of
from tcb_ops.ledger.records import (
    ASKED_COLUMNS,
    OUTCOMES,
    PENDING_COLUMNS,
    Asked,
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
from tcb_ops.ledger.schema import any_of, like, sql_list
from tcb_ops.model import Outcome, Reason, Row, target_name

_LOG = logging.getLogger("tcb_ops.ledger")

_ENDING = 4
"""The fewest characters of an id's ending that name a run."""


class LedgerReader(FileReader):
    """An open ledger for reading. Errors of the database are raised as LedgerError."""

    # --- a run ---------------------------------------------------------------------------------------------

    def run(self, name: str, target: str | None = None, kinds: Collection[Kind] | None = None) -> RunRecord:
        """Find a run by id, an unambiguous beginning or ending of one, or `latest`.

        An ending has four characters or more. `target`, `kinds`: of which `latest` is the last created; None for any.
        Raises RunNotFoundError.
        """
        if name == "latest":
            condition, values = ("TRUE", []) if target is None else ("target = ?", [target])
            if kinds is not None:
                condition, values = f"{condition} AND {any_of('kind', kinds)}", [*values, *map(str, kinds)]
            if not (records := self.stored_runs(condition, values, limit=1)):
                raise self._no_latest(target, kinds)
            return self._run(records[0])
        if records := self.stored_runs("id = ?", (name,)):
            return self._run(records[0])  # others may be damaged
        part = like(name)
        patterns = (f"{part}%", f"%{part}" if len(name) >= _ENDING else part)
        records = self.stored_runs(f"(id {_LIKE} OR id {_LIKE})", patterns, limit=20)
        if len(records) == 1:
            return self._run(records[0])
        if not records:
            raise RunNotFoundError(_("No run '{name}' in {ledger}.", name=name, ledger=self.name))
        newest = as_list((record.id for record in records), 5)
        raise RunNotFoundError(
            _("'{name}' matches several runs: {newest}. Give more of the id.", name=name, newest=newest)
        )

    def _no_latest(self, target: str | None, kinds: Collection[Kind] | None) -> RunNotFoundError:
        """Return the error for a ledger without a run of the target and kinds; it names the newest of the others."""
        newest = (self.runs(target, limit=1) if kinds is not None else []) or self.runs(limit=1)
        if not newest:
            return RunNotFoundError(_("{ledger} has no run yet.", ledger=self.name))
        message = _("{ledger} has no run ({kinds}) to {target} yet.")
        message = message.format(
            ledger=self.name,
            kinds=as_list(kinds) if kinds else _("of any kind"),
            target=target_name(target or ""),
        )
        hint = _("The newest run is {id} ({kind}): give its id, or {--target:{target}}.")
        if newest[0].target == target:
            hint = _("The newest run is {id} ({kind}): give its id.")
        about = {"id": newest[0].id, "kind": newest[0].kind.label, "target": newest[0].target}
        return RunNotFoundError(message, hint.format(**about))

    def asked(self, target: str) -> dict[tuple[str, str], Asked]:
        """Return what merchants of a target were asked for and have not done, by appid and cause.

        Who has done it is noted, or a later run of the rows that wait for it has succeeded.
        """
        query = (
            f"SELECT {', '.join(ASKED_COLUMNS)} FROM asked WHERE target = ? AND NOT done ORDER BY at, appid"
        )
        noted = [Asked(*line) for line in self.fetch(query, (target,))]
        return {(each.appid, each.cause): each for each in noted if not self._has_succeeded_since(each)}

    def _has_succeeded_since(self, asked: Asked) -> bool:
        """Return whether a run that began later has succeeded in an environment in which rows wait for a merchant."""
        summed = "runs JOIN envs ON envs.run = runs.number JOIN sums ON sums.run = envs.run AND sums.place = envs.no"
        good, kinds = sql_list(Outcome.successes()), sql_list(kind for kind in all_kinds() if kind.main)
        query = f"""
            SELECT 1 FROM {summed} WHERE target = ? AND created_at > ? AND kind IN ({kinds}) AND outcome IN ({good})
            AND envs.appid = ? AND envs.store IN (
                SELECT envs.store FROM {summed} WHERE runs.id = ? AND envs.appid = ? AND outcome NOT IN ({good})) LIMIT 1"""
        asked_at = datetime.fromisoformat(asked.at).timestamp()
        return bool(self.fetch(query, (asked.target, asked_at, asked.appid, asked.run, asked.appid)))

    def runs(
        self,
        target: str | None = None,
        limit: int | None = None,
        damaged: list[LedgerDamagedError] | None = None,
    ) -> list[RunRecord]:
        """List runs, the last created first. Damaged records are left out: their errors are appended to `damaged`, or logged."""
        condition, values = ("TRUE", ()) if target is None else ("target = ?", (target,))
        intact = []
        for record in self.stored_runs(condition, values, limit):
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
        values = (str.__str__(kind), target, parent)
        records = self.stored_runs("kind = ? AND target = ? AND parent = ?", values, limit=1)
        return self._run(records[0]) if records else None

    def unfinished(
        self, kind: Kind, target: str, list_sha256: str, root: str, *, elsewhere: bool = False
    ) -> list[RunRecord]:
        """Find unfinished runs of the same kind, target, list bytes and root (`elsewhere`: another root), newest first.

        They include runs that were killed while their report (`out`) was written.
        """
        reporting = "" if kind.writes_links else "OR (report = '' AND out <> '')"
        condition = f"""kind = ? AND target = ? AND list_sha256 = ? AND root {"<>" if elsewhere else "="} ?
            AND (finished_at IS NULL {reporting})"""
        values = (str.__str__(kind), target, list_sha256, root)
        return [self._run(record) for record in self.stored_runs(condition, values, limit=50)]

    def check(self, run: RunRecord) -> None:
        """Check a run before it is resumed: the number of its rows, and an SQLite file. Raises LedgerDamagedError."""
        self._check_complete(run)
        self.check_files(run)
        if self.file is not None and (fault := self.fetch("PRAGMA quick_check(1)")[0][0]) != "ok":
            raise damaged(self.name, _("SQLite's check found: {fault}", fault=" ".join(fault.split())))

    def pending(
        self, run: RunRecord, environments: Iterable[tuple[EnvRecord, int]], limit: int
    ) -> list[list[Row]]:
        """Return the next pending rows of some environments, each after a line, in the order of the list.

        They have no cells, which sending does not need.
        """
        query = (
            f"SELECT {PENDING_COLUMNS} FROM rows "
            "WHERE run = ? AND place = ? AND line > ? AND outcome = 'pending' ORDER BY line LIMIT ?"
        )
        with self._connection() as connection:
            pages = [
                (
                    environment,
                    connection.execute(query, (run.number, environment.number, after, limit)).fetchall(),
                )
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
        (condition, values), after_line = _condition(filters, by_number), filters.get("after_line", -1)
        if condition and all(filters.get(name) is None for name in ("environments", "ends", "lines")):
            self._check_complete(run)
        query = f"SELECT * FROM rows WHERE run = ? AND line > ? {condition} ORDER BY line LIMIT {BATCH}"
        for batch in self._in_order(
            run,
            lambda last: self.fetch(query, (run.number, last, *values)),
            after_line,
            every_row=not condition and after_line < 0,
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
            self._check_complete(run)
            condition = f"AND outcome IN ({sql_list(outcomes)})"
        query = f"SELECT * FROM rows WHERE run = ? AND line > ? {condition} ORDER BY line LIMIT ?"

        def read(last: int) -> Sequence[Any]:
            return self.fetch(query, (run.number, last, BATCH))

        return self._in_order(run, read, every_row=outcomes is None)

    def ended_since(self, run: RunRecord, outcomes: Collection[Outcome]) -> set[int]:
        """Return the lines of a run that have ended as one of `outcomes` in one of its retries, or in a retry of those."""
        lines: set[int] = set()
        for retry in self.retries(run):
            self._check_complete(retry)
            good = f"SELECT line FROM rows WHERE run = ? AND outcome IN ({sql_list(outcomes)})"
            lines.update(line for (line,) in self.fetch(good, (retry.number,)))
        return lines

    def retries(self, run: RunRecord) -> list[RunRecord]:
        """List the retries of a run on the same target and the retries of those, oldest first."""
        records = self.stored_runs("parent = ? AND target = ?", (run.id, run.target))
        retries = [self._run(record) for record in records]
        retries += [later for retry in list(retries) for later in self.retries(retry)]
        return sorted(retries, key=lambda retry: retry.number)

    def exports(self, run: RunRecord | None = None) -> set[str]:
        """Return the SHA-256 of the manifest.json of each report of a run, or of all runs."""
        query = f"SELECT manifest_sha256 FROM exports {'' if run is None else 'WHERE run = ?'}"
        return {digest for (digest,) in self.fetch(query, () if run is None else (run.number,))}

    @contextmanager
    def snapshot(self) -> Iterator[Self]:
        """Open a consistent snapshot of the ledger, which later writes do not change."""
        snapshot = copy(self)
        try:
            with self._database.connection() as connection:
                connection.execute(self._database.snapshot)
                snapshot._held = connection  # noqa: SLF001  its own copy
                yield snapshot
        except self._database.errors as error:
            raise self._trouble(error) from None

    # --- sums -----------------------------------------------------------------------------------------------------

    def state(
        self, run: RunRecord, only: Sequence[int] | None = None
    ) -> tuple[list[EnvRecord], dict[Outcome, int]]:
        """List a run's environments, or `only` these by number, as `environments` does, and count their rows by outcome."""
        of_run = _IN_ORDER if only is None else f"run = ? {_among('place', only)}"
        query = f"SELECT place, outcome, COUNT(*) FROM rows WHERE {of_run} GROUP BY place, outcome"
        by_place: defaultdict[int, Counter[Outcome]] = defaultdict(Counter)
        for number, outcome, count in self.fetch(query, (run.number,)):
            by_place[number][Outcome(outcome)] = int(count)
        environments = [
            replace(environment, rows=counted.total(), pending=counted[Outcome.PENDING])
            for environment in self.envs(run, only)
            for counted in [by_place[environment.number]]
        ]
        if only is None:
            self.check_rows(run, sum(environment.rows for environment in environments))
        return environments, Outcome.in_order(sum(by_place.values(), Counter()))

    def environments(self, run: RunRecord, only: Sequence[int] | None = None) -> list[EnvRecord]:
        """List a run's environments, or `only` these by number, with their numbers of rows and of pending rows."""
        return self.state(run, only)[0]

    def envs(self, run: RunRecord, only: Sequence[int] | None = None) -> list[EnvRecord]:
        """List a run's environments, or `only` these by number, without counting rows: `rows` and `pending` are 0."""
        query = f"SELECT * FROM envs WHERE run = ? {_among('no', only)} ORDER BY no"
        records = self.fetch(query, (run.number,))
        with self.reading(run):
            return [read_env(record) for record in records]

    def counts(self, run: RunRecord) -> dict[Outcome, int]:
        """Count rows by outcome, pending included, without zeros."""
        counted = "SUM(rows) FROM sums WHERE run = ?"
        if run.finished_at is None:
            counted = f"COUNT(*) FROM rows WHERE {_IN_ORDER}"
        query = f"SELECT outcome, {counted} GROUP BY outcome"
        counts = {Outcome(outcome): int(count) for outcome, count in self.fetch(query, (run.number,))}
        self._check_sums(run, sum(counts.values()))
        return Outcome.in_order(counts)

    def tallies(self, run: RunRecord) -> list[Tally]:
        """Count rows by merchant, environment, outcome and code, most rows first."""
        by_number = {each.number: (each.appid, each.merchant, each.env) for each in self.envs(run)}
        tallies, outcomes = [], Outcome if isinstance(run.kind, MissingKind) else OUTCOMES.__getitem__
        query = SUMS if run.finished_at is None else "SELECT * FROM sums WHERE run = ?"
        with self.reading(run):
            for _, number, outcome, reason, *codes, count, message in self.stream(query, (run.number,)):
                end = outcomes(outcome), Reason(reason) if reason else None, *codes
                texts = ("", read_detail(message)) if Reason(reason).explained else (message,)
                values = (*by_number[number], *end, int(count), *texts)
                tallies.append(Tally(*values))
        self._check_sums(run, sum(tally.rows for tally in tallies))
        return sorted(tallies, key=lambda t: (-t.rows, t.merchant, t.env, t.outcome, t.errcode or 0))

    def last_answers(self, runs: Sequence[RunRecord]) -> Sequence[tuple[str, str, int | None, str, float]]:
        """Return for each way in which rows of these runs did not succeed when a row of the same line ended last in any of them.

        A way is outcome, reason, errcode and store_code.
        """
        ended, numbers = (
            "own.outcome, own.reason, own.errcode, own.store_code",
            sql_list(r.number for r in runs),
        )
        return self.fetch(f"""
            SELECT {ended}, MAX(later.ended_at) FROM rows AS own JOIN rows AS later ON later.line = own.line
            WHERE own.run IN ({numbers}) AND later.run IN ({numbers}) AND later.ended_at IS NOT NULL
            AND own.outcome NOT IN ({sql_list(Outcome.successes())}) GROUP BY {ended}""")

    def planned_bytes(self, run: RunRecord, outcomes: frozenset[Outcome]) -> int:
        """Sum up the sizes of these rows' local files at the time the run was planned."""
        query = (
            f"SELECT COALESCE(SUM(size), 0) FROM rows WHERE {_IN_ORDER} AND outcome IN ({sql_list(outcomes)})"
        )
        return int(self.fetch(query, (run.number,))[0][0])

    def timeline(self, run: RunRecord, buckets: int = 60) -> list[TimelineBucket]:
        """Return how rows ended over time, in equal intervals from the run's start to the end of its last row.

        Empty if no row has ended. Does not include invalid rows.
        """
        query = f"SELECT MIN(ended_at), MAX(ended_at) FROM rows WHERE {_IN_ORDER}"
        ((first, last),) = self.fetch(query, (run.number,))
        if last is None:
            return []
        began = min(run.created_at, first)
        width = max(last - began, 0.001) / buckets
        bucket = self.dialect.whole.format("(ended_at - ?) / ?")
        query = f"""
            SELECT {bucket} AS bucket, outcome, COUNT(*) FROM rows WHERE {_IN_ORDER} AND ended_at IS NOT NULL
            GROUP BY bucket, outcome"""
        outcomes: defaultdict[int, Counter[Outcome]] = defaultdict(Counter)
        for number, outcome, count in self.fetch(query, (began, width, run.number)):
            # The last end falls on the boundary.
            outcomes[min(int(number), buckets - 1)][Outcome(outcome)] += int(count)
        starts = [began + number * width for number in range(buckets + 1)]
        return [TimelineBucket(*pair, outcomes[number]) for number, pair in enumerate(pairwise(starts))]

    def _check_sums(self, run: RunRecord, count: int) -> None:
        self.check_rows(run, count)
        if run.finished_at is not None:  # its sums were stored, and do not tell whether its rows are there
            self.check_rows(run, self.fetch("SELECT COUNT(*) FROM rows WHERE run = ?", (run.number,))[0][0])

    def _check_complete(self, run: RunRecord) -> None:
        """Raise LedgerDamagedError if rows of a run, or their environments, are lost. Reads the index by place only."""
        # `CROSS JOIN` has SQLite count by environment: a third less than where it looks up the environment of each row.
        query = """
            SELECT COUNT(*) FROM envs CROSS JOIN rows
            WHERE envs.run = ? AND rows.run = envs.run AND rows.place = envs.no"""
        self.check_rows(run, self.fetch(query, (run.number,))[0][0])

    def check_rows(self, run: RunRecord, count: int) -> None:
        """Raise LedgerDamagedError if the number of rows that were read is not the planned one."""
        if count != run.rows:
            text = _("run {id} was planned with {rows}, but {count:,} can be read")
            raise damaged(self.name, text.format(id=run.id, rows=row_count(run.rows), count=count))

    # --- across runs --------------------------------------------------------------------------------------------

    def previous(self, run: RunRecord, receiver: str = "") -> RunRecord | None:
        """Find the last finished run before this one with the same selection, for comparison; None for a retry.

        With a receiver: the last one whose message was delivered to it.
        """
        if run.parent:
            return None
        # By the ledger's number, since a clock may have been set back. A stopped run of all merchants is not comparable.
        condition = f"""kind = ? AND target = ? AND parent = '' AND finished_at IS NOT NULL AND number < ?
            AND {"stopped" if run.kind.of_merchants else "list_name"} = ?"""
        same = "" if run.kind.of_merchants else run.list_name
        for record in self.stored_runs(condition, (str.__str__(run.kind), run.target, run.number, same)):
            earlier = self._run(record)
            if earlier.selection == run.selection and receiver not in earlier.undelivered:
                return earlier
        return None

    # --- what a view of a run overrides (`run_view`) -----------------------------------------------------

    only: frozenset[tuple[str, str]] | None = None
    """The environments that are shown, as (appid, env): all."""

    @property
    def ledger(self) -> LedgerReader:
        """The ledger itself."""
        return self

    @property
    def unmerged(self) -> LedgerReader:
        """What a merged run reads from."""
        return self

    def members(self, run: RunRecord) -> list[RunRecord]:
        """Return the runs whose rows are a run's: its original and the retries, the oldest first."""
        return family_of(self, run)

    def taken_back_by(self, run: RunRecord) -> list[RunRecord]:
        """Return the runs that took back files of an upload or of its retry, the newest first, without damaged ones.

        What came of it stands in their rows.
        """
        condition = f"kind IN ({sql_list(kind for kind in all_kinds() if kind.takes_back)}) AND number > ? AND settings LIKE ?"
        taking_back = list[RunRecord]()
        for record in self.stored_runs(condition, (run.number, f'%"of": [%"{run.id}"%]%')):
            with suppress(LedgerDamagedError):
                taking_back.append(self._run(record))
        return taking_back


def _condition(filters: RowFilter, environments: Mapping[int, EnvRecord]) -> tuple[str, list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    if (outcomes := filters.get("outcomes")) is not None:
        conditions.append(any_of("outcome", outcomes))
        values += map(str, outcomes)
    if (ends := filters.get("ends")) is not None:
        states = ["FALSE"]
        for outcome, reason, errcode, store_code in ends:
            code = "errcode IS NULL" if errcode is None else f"errcode = {errcode:d}"
            states.append(f"(outcome = ? AND reason = ? AND store_code = ? AND {code})")
            values += [str(outcome), str(reason), store_code]
        conditions.append(f"({' OR '.join(states)})")
    merchant = filters.get("merchant")
    if merchant or filters.get("environments") is not None:
        named = [
            environment.number
            for environment in environments.values()
            if not merchant or merchant in {environment.merchant, environment.appid}
        ]
        conditions.append(f"place IN ({sql_list(named)})")
    if path := filters.get("path"):
        conditions.append(f"path {_LIKE}")
        values.append(f"%{like(path)}%")
    if (line := filters.get("line")) is not None:
        conditions.append("line = ?")
        values.append(line)
    if (lines := filters.get("lines")) is not None:
        conditions.append(f"line IN ({sql_list(lines)})")
    if runs := filters.get("lines_not_of"):
        others = (
            f"SELECT 1 FROM rows AS other WHERE other.run IN ({sql_list(runs)}) AND other.line = rows.line"
        )
        conditions.append(f"NOT EXISTS ({others})")
    return "".join(f" AND {condition}" for condition in conditions), values


_IN_ORDER = "run = ? AND line >= 0"
"""All rows of a run in the order of its list: by the index of environments SQLite would read a page for almost every row."""
_LIKE = "LIKE ? ESCAPE '/'"


def _among(column: str, numbers: Sequence[int] | None) -> str:
    return "" if numbers is None else f"AND {column} IN ({', '.join(map(str, numbers)) or 'NULL'})"


_SUMMED = "run, place, outcome, reason, errcode, store_code"
SUMS = f"""
    SELECT {_SUMMED}, COUNT(*), MAX(CASE
        WHEN reason IN ({sql_list(reason for reason in Reason.all() if reason.explained)}) THEN detail
        WHEN reason IN ({sql_list((Reason.REFUSED, Reason.COMPONENT))}) THEN errmsg ELSE '' END)
    FROM rows WHERE {_IN_ORDER} GROUP BY {_SUMMED}"""
"""The records of the table sums, computed from the rows of a run."""
