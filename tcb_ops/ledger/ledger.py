"""Writing to the ledger, the durable record of runs and rows. What it does not hold has not happened.

SQLite by default, PostgreSQL by URL. No token, signature or link is ever written here. `LedgerReader` reads: the classes in
`reader` and `histories`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import astuple, replace
from functools import partial
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any

from tcb_ops.details import Detail, stored
from tcb_ops.errors import LedgerDamagedError, LedgerError, UsageError, needed
from tcb_ops.hooks import ClusterHooks
from tcb_ops.i18n import _, as_list, ngettext
from tcb_ops.kinds import MissingKind
from tcb_ops.ledger.database import Connection
from tcb_ops.ledger.files import DOUBT_PENDING, FORGET, REPLACED_CACHED, note_what_else, replay, says_more
from tcb_ops.ledger.locks import hold
from tcb_ops.ledger.reader import SUMS, LedgerReader
from tcb_ops.ledger.records import (
    ASKED_COLUMNS,
    REPLACED,
    WRITE_END,
    Asked,
    Closing,
    EnvRecord,
    NewRun,
    RunRecord,
    Usage,
    encoded_settings,
    end_values,
    plan_values,
    read_end,
    run_values,
)
from tcb_ops.ledger.schema import RUN_TABLES, sql_list
from tcb_ops.model import Outcome, Row, RowEnd, RunSettings

BATCH = 1_000
"""Rows written at a time, so that memory does not grow with the list."""
IDLE_SECONDS = 5
"""Seconds after which PostgreSQL ends a writing transaction in which nothing happens: a process that was frozen in a commit
would block all others, whose rows it has locked."""

_REOPEN = f"{WRITE_END} AND line = ? AND outcome <> 'pending'"
_environment = attrgetter("number", "env", "appid", "merchant", "owner.value", "left")
_NEW_STORES = """
    INSERT INTO stores (target, env) SELECT DISTINCT CAST(? AS TEXT), env FROM envs WHERE run = ? ORDER BY env
    ON CONFLICT DO NOTHING"""
_STORES = """
    UPDATE envs SET store = (SELECT number FROM stores WHERE target = ? AND stores.env = envs.env) WHERE run = ?"""
_PLAN_ENV = 'INSERT INTO envs (run, no, env, appid, merchant, owner, "left") VALUES (?, ?, ?, ?, ?, ?, ?)'


class Ledger(LedgerReader):
    """An open ledger for reading and writing. Every write is one transaction."""

    def __init__(self, where: str) -> None:
        """Open or create the ledger at a file or a database URL. Raises UsageError if it is not a ledger."""
        super().__init__(where)
        self._identity = self._identify()

    # --- planning -----------------------------------------------------------------------------------------------

    def plan(
        self,
        new: NewRun,
        planned: Iterable[Row],
        environments: Sequence[EnvRecord],
        check: Callable[[LedgerReader, int], None] | None = None,
    ) -> RunRecord:
        """Record a new run with all its rows, pending or invalid, in one transaction.

        `environments` numbers the environments; a row belongs to the one with its (env, appid). `check`: called with a reader in
        the transaction and the run's number; if it raises, nothing is recorded.
        """
        number_of = {(environment.env, environment.appid): environment.number for environment in environments}
        # Its rows may take long to come, and hold up nobody.
        with self.writing(idle=0) as connection:
            values = run_values(new) | {"rows": 0, "seconds": 0.0, "link_calls": 0, "upload_calls": 0}
            marks = ", ".join("?" * len(values))
            connection.execute(
                f"INSERT INTO runs ({', '.join(values)}) VALUES ({marks})", (*values.values(),)
            )
            (number,) = connection.execute("SELECT number FROM runs WHERE id = ?", (new.id,)).fetchone()
            listed = iter(environments)
            while records := [(number, *_environment(each)) for each in islice(listed, BATCH)]:
                connection.cursor().executemany(_PLAN_ENV, records)
            connection.execute(_NEW_STORES, (new.target, number))
            connection.execute(_STORES, (new.target, number))
            count = 0
            stream = iter(planned)
            to_values = partial(plan_values, number, number_of, new.kind, self._database.splits_pages)
            while batch := list(map(to_values, islice(stream, BATCH))):
                self._database.insert_rows(connection, batch)
                count += len(batch)
            _set(connection, number, rows=count)
            self._database.planned(connection)
            if check is not None:
                reader = copy(self)
                reader._held = connection  # noqa: SLF001  its own copy
                check(reader, number)
        return self.run(new.id)

    # --- writing what happened ----------------------------------------------------------------------------------

    def record(self, run: RunRecord, ends: Sequence[RowEnd], usage: Usage) -> None:
        """Commit how rows ended, and what the session has used since its last commit.

        Rows that are no longer pending are not changed: after the commit of the others, raises LedgerError with their
        number, or LedgerDamagedError if rows are lost.
        """
        more = says_more(run, ends)
        with self.writing(in_one_statement=not more) as connection:
            recorded = self._database.record(connection, run, ends, usage)
            if more:
                note_what_else(connection, run, recorded)
        if (done := len(recorded)) != len(ends):
            self.counts(run)  # raises if rows are lost
            raise LedgerError(
                ngettext(
                    "{n:,} row of run {run} was no longer pending in the ledger when its result was to be recorded.",
                    "{n:,} rows of run {run} were no longer pending in the ledger when their results were to be recorded.",
                    len(ends) - done,
                    run=run.id,
                ),
                _(
                    "Another process may have worked on the run, or the ledger was changed. Nothing was "
                    "overwritten, and all other rows are recorded. Make sure that nobody else is working on it, "
                    "then try again."
                ),
            )

    def close_environments(self, run: RunRecord, closings: Iterable[Closing]) -> Counter[Outcome]:
        """End the pending rows of environments, in one transaction; return how many, by outcome."""
        alike: dict[tuple[Outcome, str], list[tuple[Any, ...]]] = {}
        for closing in closings:
            others = f"AND rows.line NOT IN ({sql_list(closing.in_flight)})" if closing.in_flight else ""
            values = (*end_values(closing.end), run.number, closing.environment.number)
            alike.setdefault((closing.end.outcome, others), []).append(values)
        ended = Counter[Outcome]()
        with self.writing() as connection:
            for (outcome, others), values_of_each in alike.items():
                if run.changes_store and run.cut_off is not None:
                    places = [values[-2:] for values in values_of_each]
                    connection.cursor().executemany(DOUBT_PENDING.format(others), places)
                done = connection.cursor()
                done.executemany(
                    f"{WRITE_END} AND place = ? AND outcome = 'pending' {others}", values_of_each
                )
                ended[outcome] += done.rowcount
        return ended

    def reopen(self, run: RunRecord, lines: Iterable[int]) -> None:
        """Set linked rows whose link is lost or has expired back to pending."""
        blank = end_values(RowEnd(0, Outcome.PENDING))
        stream = iter(lines)
        with self.writing() as connection:
            while batch := [(*blank, run.number, line) for line in islice(stream, BATCH)]:
                connection.cursor().executemany(_REOPEN, batch)

    def finish(
        self, run: RunRecord, ended_at: float, rest: RowEnd | None = None, links: Path | None = None
    ) -> None:
        """Mark a run as finished, so that it is never resumed.

        `rest`: the end of the pending rows of a run that a problem of every merchant stopped; its detail is the reason.
        `links`: the file of the links, which the last session may have put elsewhere than planned.
        """
        stopped = stored(rest.detail) if rest is not None else ""
        with self.writing() as connection:
            if rest is not None:
                end = end_values(replace(rest, ended_at=ended_at))
                connection.execute(f"{WRITE_END} AND outcome = 'pending'", (*end, run.number))
            connection.execute("DELETE FROM sums WHERE run = ?", (run.number,))
            connection.execute(f"INSERT INTO sums {SUMS}", (run.number,))
            _set(connection, run.number, finished_at=ended_at, stopped=stopped)
            if run.kind.sends_files and (cached := dict(connection.execute(REPLACED_CACHED, (run.number,)))):
                now = self.run(run.id)
                kept = encoded_settings(now.settings, {**now.answers, REPLACED: cached})
                _set(connection, run.number, settings=kept)
            if links is not None:
                _set(connection, run.number, out=str(links))
            if self.file is not None:
                connection.execute("PRAGMA shrink_memory")  # the pages that it keeps: 4 MB

    def stop(self, run: RunRecord, reason: Detail, cut_off: float | None = None) -> None:
        """Record why a session ended before its run was finished, which stays unfinished.

        `cut_off`: the Unix time, if calls were under way.
        """
        with self.writing() as connection:
            connection.execute(
                "UPDATE runs SET stopped = ?, cut_off = COALESCE(cut_off, ?) WHERE number = ? AND finished_at IS NULL",
                (stored(reason), cut_off, run.number),
            )

    def resume(self, run: RunRecord, now: float) -> RunRecord:
        """Note that another session begins, at a Unix time; return the run. One that was killed counts as cut off."""
        with self.writing() as connection:
            connection.execute(
                """
                UPDATE runs SET stopped = '', newest_run = (SELECT MAX(number) FROM runs),
                    cut_off = CASE WHEN stopped = '' THEN COALESCE(cut_off, ?) ELSE cut_off END
                WHERE number = ? AND finished_at IS NULL""",
                (now, run.number),
            )
        return self.run(run.id)

    def forget(self, run: RunRecord) -> None:
        """Remove a run that was never started."""
        with self.writing() as connection:
            self.remove(connection, run)

    @staticmethod
    def remove(connection: Connection, run: RunRecord) -> None:
        """Remove a run with all that belongs to it, within a transaction."""
        for table in RUN_TABLES:
            connection.execute(f"DELETE FROM {table} WHERE run = ?", (run.number,))
        connection.execute("DELETE FROM runs WHERE number = ?", (run.number,))

    def compact(self) -> None:
        """Give the space of removed runs back to the file system."""
        with self._connection() as connection:
            connection.execute("VACUUM")
            if self.file is not None:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def note_export(self, run: RunRecord, manifest_sha256: str) -> None:
        """Record the SHA-256 of a report's manifest.json, by which `verify` recognises the report."""
        with self.writing() as connection:
            noted = "INSERT INTO exports (run, manifest_sha256) VALUES (?, ?) ON CONFLICT DO NOTHING"
            connection.execute(noted, (run.number, manifest_sha256))

    def note_report(self, run: RunRecord, report: str) -> None:
        """Record the path of a run's newest report folder."""
        with self.writing() as connection:
            _set(connection, run.number, report=report)

    def note_settings(self, run: RunRecord, settings: RunSettings) -> RunRecord:
        """Record settings of a run in place of its own; return the run with them."""
        with self.writing() as connection:
            _set(connection, run.number, settings=encoded_settings(settings, run.answers))
        return self.run(run.id)

    def keep_answers(self, run: RunRecord, answers: Mapping[str, Any]) -> None:
        """Keep what was asked about a run, instead of earlier answers of the same names."""
        with self.writing() as connection:
            now = self.run(run.id)
            kept = encoded_settings(now.settings, {**now.answers, **answers})
            _set(connection, run.number, settings=kept)

    def note_asked(self, asked: Asked) -> None:
        """Record what a merchant was asked for, instead of an earlier time for the same cause."""
        values = astuple(asked)
        changed = ", ".join(f"{name} = EXCLUDED.{name}" for name in ASKED_COLUMNS)
        statement = f"""
            INSERT INTO asked ({", ".join(ASKED_COLUMNS)}) VALUES ({", ".join("?" * len(values))})
            ON CONFLICT (target, appid, cause) DO UPDATE SET {changed}"""
        with self.writing() as connection:
            connection.execute(statement, values)

    def rebuild_files(self) -> None:
        """Make the table of stored files again from the rows of all runs, in the order in which they ended.

        What pruned runs left stays, where nothing newer is known. Raises UsageError if a run is of a kind that is not installed.
        """
        damages: list[LedgerDamagedError] = []
        known = self.runs(damaged=damages)
        if damages:
            raise damages[0]
        runs = {run.number: run for run in known if run.changes_store or run.kind.findings_of_files}
        if missing := {str(run.kind) for run in runs.values() if isinstance(run.kind, MissingKind)}:
            text = _("Runs of these kinds are not understood here: {kinds}.", kinds=as_list(sorted(missing)))
            raise UsageError(text, _("Install all of tcb-ops, then repair the table again."))
        with self.writing(idle=0) as connection:
            if self.file is None:
                connection.execute("LOCK TABLE files")
            connection.execute(FORGET)
            ended = f"""
                SELECT * FROM rows WHERE run IN ({sql_list(runs)}) AND outcome <> 'pending' AND ended_at IS NOT NULL
                ORDER BY ended_at, run, line"""
            for record in self._database.stream(connection, ended, ()):
                with self.reading(runs[record[0]]):
                    end = read_end(record)
                replay(connection, runs[record[0]], end)

    # --- the database -------------------------------------------------------------------------------------------

    def _identify(self) -> tuple[int, int] | None:
        """Return the device and inode of the ledger's file; None for PostgreSQL or a missing file."""
        with suppress(OSError):
            if self.file is not None:
                stat = self.file.stat()
                return stat.st_dev, stat.st_ino
        return None

    def check_in_place(self) -> None:
        """Raise LedgerError if the file was removed or replaced: SQLite would still use the deleted file."""
        if self._identify() != self._identity:
            raise LedgerError(
                _(
                    "The ledger {name} was removed or replaced while it was in use. Put it back, then try again.",
                    name=self.name,
                )
            )

    @contextmanager
    def writing(self, idle: int = IDLE_SECONDS, *, in_one_statement: bool = False) -> Iterator[Connection]:
        """Begin a transaction, in which nothing may happen for `idle` seconds at most (0: for ever).

        `in_one_statement`: PostgreSQL commits it by itself.
        """
        self.check_in_place()
        try:
            with self._database.connection() as connection:
                if self.file is not None or not in_one_statement:
                    self._database.begin_writing(connection, idle)
                yield connection
                connection.commit()
        except self._database.errors as error:
            raise self._trouble(error) from None


def _set(connection: Connection, number: int, **values: Any) -> None:
    columns = ", ".join(f"{name} = ?" for name in values)
    connection.execute(f"UPDATE runs SET {columns} WHERE number = ?", (*values.values(), number))


@contextmanager
def taken(ledger: Ledger, run: RunRecord) -> Iterator[Callable[[], None]]:
    """Hold a run's lock as `hold` does, when the workers of an earlier session on a cluster can no longer write either."""
    at_work = "SELECT session FROM cluster_sessions WHERE run = ? AND NOT ended"
    with hold(ledger, run.id) as still_held:
        if ledger.fetch(at_work, (run.number,)):  # its starting process was killed
            needed(ClusterHooks).stop_workers(ledger, run)
            still_held()
        yield still_held
