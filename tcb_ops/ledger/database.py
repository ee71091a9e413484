"""The connections to a ledger's database, and what its driver's errors mean: in SQLite here, in PostgreSQL in the feature `postgres`.

Each query is written once, with `?` for its values; what the databases write differently is here. A connection commits each
statement by itself until one begins a transaction.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from typing import Any

from tcb_ops.errors import TcbOpsError
from tcb_ops.i18n import Text, _, as_sentences, verbatim
from tcb_ops.ledger.files import CHANGE_ROW, REPLACED, changing
from tcb_ops.ledger.records import PLAN_COLUMNS, WRITE_END, RunRecord, Usage, end_values
from tcb_ops.ledger.schema import any_of
from tcb_ops.model import RowEnd
from tcb_ops.system_errors import system_reason

Connection = sqlite3.Connection
"""A connection of either driver: what is used of sqlite3's, psycopg's has as well."""

BATCH = 500
"""Rows read at a time, so that memory does not grow with the run: 5,000 take 40 MB more, and hardly less time."""
MAKING_SECONDS = 30
"""Seconds that a process waits for another one that is creating the same ledger."""
LOCKED_SECONDS = 2
"""Seconds to wait for a lock before the command reports that another process has locked the ledger."""
WAITING_SECONDS = 60
"""Seconds that a command waits for a lock that somebody else has on the ledger."""
_IDLE = 5
"""Connections that are kept for later use: reading, writing and panels have threads of their own."""

_LOG = logging.getLogger("tcb_ops.ledger")


class DatabaseFault(Enum):
    """What an error of a database means."""

    NO_DATABASE = auto()
    """The file is no database."""
    DAMAGED = auto()
    LOCKED = auto()
    """Somebody else held a lock for longer than the statement may wait."""
    UNREACHABLE = auto()
    """The connection was lost, or cannot be made."""
    OTHER = auto()


_FAULTS = {
    sqlite3.SQLITE_NOTADB: DatabaseFault.NO_DATABASE,
    sqlite3.SQLITE_CORRUPT: DatabaseFault.DAMAGED,
    sqlite3.SQLITE_ERROR: DatabaseFault.DAMAGED,  # a statement does not fit, as a table is missing
    sqlite3.SQLITE_BUSY: DatabaseFault.LOCKED,
    sqlite3.SQLITE_LOCKED: DatabaseFault.LOCKED,
}
"""By SQLite's primary code."""
_ERRNOS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}
"""What SQLite says in English only, by its primary code."""
SPEND = """UPDATE runs SET seconds = seconds + ?, link_calls = link_calls + ?, upload_calls = upload_calls + ?,
    newest_run = (SELECT MAX(number) FROM runs) WHERE number = ?"""
_WRITE_CHANGE = WRITE_END.replace(" WHERE ", f", {REPLACED} WHERE ")
_PLAN = f"INSERT INTO rows ({', '.join(PLAN_COLUMNS)}) VALUES ({', '.join('?' * len(PLAN_COLUMNS))})"


class Database:
    """A ledger's database, with the connections to it: an SQLite file, unless a subclass overrides what differs.

    WAL and synchronous=FULL: a commit survives a power cut.
    """

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    """The base of the driver's errors."""
    snapshot = "BEGIN"
    """Begins a transaction that later writes do not change."""
    by_code_point = ""
    """Follows a column to be ordered by code point, whatever the database's locale."""
    whole = "CAST({} AS INTEGER)"
    """A positive number rounded down."""
    cell = "json_extract(cells, '$[{}]')"
    """A row's cell in the list's column of this number."""
    splits_pages = True
    """Whether a record that grows may split its page."""
    advice: Text | None = None
    """What to check if it cannot be opened, where that may help; None: choose another one."""
    index_hint = "INDEXED BY {}"
    """Follows a table whose index must be used: without statistics SQLite would read whole runs instead."""

    def __init__(self, place: str, name: str) -> None:
        self._place, self.name = place, name
        self._idle: list[Connection] = []
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Yield a connection for this thread; a transaction that is not committed is rolled back."""
        try:
            connection = self._idle.pop()  # a list's pop and append are atomic: threads need no lock
        except IndexError:
            connection = self.open()
        try:
            yield connection
        finally:
            try:
                connection.rollback()
            except self.errors:  # it is lost, as the others may be
                connection.close()
                self._close_idle()
            else:
                self._idle.append(connection)
                if self._closed or len(self._idle) > _IDLE:
                    self._close_idle()

    def close(self) -> None:
        """Close the connections that nobody uses, and later each one after its use."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def open(self) -> Connection:
        """Open a connection, which the caller closes."""
        connection = sqlite3.connect(
            f"{Path(self._place).as_uri()}?mode=rw",  # a file that was removed meanwhile is not created again
            uri=True,
            timeout=LOCKED_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=32,  # by default 128: queries about many runs differ each time, and take 30 KB each
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            # Of a new file: a commit writes whole pages, and its rows are on many, so smaller ones save a quarter.
            connection.execute("PRAGMA page_size = 2048")
            # Write pages that many commits change to the file less often: a log of 32 MiB, eight times the default.
            connection.execute("PRAGMA wal_autocheckpoint = 16000")
            # In the default of 2 MB, the pages of the index that a run writes to all the time do not find room at 100,000 rows.
            connection.execute("PRAGMA cache_size = -4000")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def tables(self, connection: Connection) -> set[str]:
        """Return the names of the tables: no views, and no virtual tables, which have no pages."""
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND substr(name, 1, 7) <> 'sqlite_'"
        return {name for (name,) in connection.execute(query)}

    def begin_creating(self, connection: Connection) -> None:
        """Begin the transaction that creates the tables, once no other process is creating them."""
        connection.execute("BEGIN IMMEDIATE")

    def use_log(self) -> None:
        """Have commits append to a log, in WAL mode."""
        end = time.monotonic() + MAKING_SECONDS
        while True:
            try:
                with self.connection() as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                    return
            except sqlite3.OperationalError as error:
                # Another process is creating the ledger: SQLite itself does not wait for that.
                if self.fault(error) is not DatabaseFault.LOCKED or time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def begin_writing(self, connection: Connection, _idle: int) -> None:
        """Begin a transaction that writes, in which nothing may happen for `idle` seconds (0: for ever), in PostgreSQL.

        Waits WAITING_SECONDS for another program's; in SQLite, says so after LOCKED_SECONDS.
        """
        end = time.monotonic() + WAITING_SECONDS
        warned = False
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if self.fault(error) is not DatabaseFault.LOCKED or time.monotonic() > end:
                    raise
                if not warned:
                    wait = _("This command waits up to {seconds} s for it.", seconds=WAITING_SECONDS)
                    _LOG.warning("%s", as_sentences((locked(self.name), wait)))
                warned = True
            else:
                return

    def insert_rows(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert planned rows, each as the values of PLAN_COLUMNS."""
        connection.cursor().executemany(_PLAN, rows)

    def planned(self, connection: Connection) -> None:
        """Prepare the database for the rows of a new run, in the transaction that has written them."""

    def record(
        self, connection: Connection, run: RunRecord, ends: Sequence[RowEnd], usage: Usage
    ) -> Sequence[RowEnd]:
        """Write the ends of pending rows, what they have left at their paths, and what was used.

        Returns the ends that were written: those of rows which were pending.
        """
        connection.execute(SPEND, (usage.seconds, usage.link_calls, usage.upload_calls, run.number))
        # In this order: a row notes what was at its path (REPLACED) before the table of stored files says what is there now. Only
        # pending rows are written, so that a process which lost its lock in a freeze changes nothing that another one recorded.
        changed = changing(run, ends)
        others = ends if not changed else [end for end in ends if end.outcome not in run.kind.replacing]
        done = 0
        # Closed before its connection is used again: its statement is cached for all cursors of the connection.
        with closing(connection.cursor()) as cursor:
            for statement, some in ((WRITE_END, others), (_WRITE_CHANGE, changed)):
                if some:
                    values = [(*end_values(end), run.number, end.line) for end in some]
                    cursor.executemany(f"{statement} AND line = ? AND outcome = 'pending'", values)
                    done += cursor.rowcount
            if done != len(ends):  # others had ended: they have changed nothing now
                written = {(end.line, str(end.outcome), end.ended_at) for end in ends}
                query = f"SELECT line, outcome, ended_at FROM rows WHERE run = ? AND {any_of('line', ends)}"
                written &= set(cursor.execute(query, (run.number, *(end.line for end in ends))))
                ends = [end for end in ends if (end.line, end.outcome, end.ended_at) in written]
            cursor.executemany(CHANGE_ROW, [(run.number, end.line) for end in changing(run, ends)])
        return ends

    def stream(self, connection: Connection, query: str, values: Sequence[Any]) -> Iterator[Any]:
        """Stream the records of a query, read in batches."""
        cursor = connection.execute(query, values)
        while batch := cursor.fetchmany(BATCH):
            yield from batch

    def fault(self, error: Exception) -> DatabaseFault:
        """Return what an error means."""
        code: int | None = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return DatabaseFault.DAMAGED if "decode" in str(error) else DatabaseFault.OTHER
        return _FAULTS.get(code & 0xFF, DatabaseFault.OTHER)

    def reason(self, error: Exception) -> Text:
        """Return the reason of an error on one line, without a full stop: the driver's own words where we have none."""
        code = _ERRNOS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if code is not None:
            return system_reason(OSError(code, ""))
        return verbatim(" ".join(str(error).split()).rstrip(".") or type(error).__name__)

    def advisory_lock(self, _name: str, _trouble: Callable[[Exception], TcbOpsError]) -> Any:
        """Return a lock in the database; None for SQLite, which has none."""
        return None


def locked(name: str) -> Text:
    """Return the message for a ledger that somebody else has locked."""
    return _(
        "Another program has locked the ledger {name}, such as a database browser or a backup. Close it there, then try "
        "again.",
        name=name,
    )
