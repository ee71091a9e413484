"""A ledger in an SQLite file, whose commits survive a power cut."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tcb_ops.i18n import _, as_sentences
from tcb_ops.runs import drivers
from tcb_ops.runs.drivers import BATCH, LOCKED_SECONDS, Connection, Database, Fault, locked

_LOG = logging.getLogger("tcb_ops.runs")

MAKING_SECONDS = 30
"""Seconds that a process waits for another one that is creating the same ledger."""

_FAULTS = {
    sqlite3.SQLITE_NOTADB: Fault.NO_DATABASE,
    sqlite3.SQLITE_CORRUPT: Fault.DAMAGED,
    sqlite3.SQLITE_ERROR: Fault.DAMAGED,  # a statement does not fit, as a table is missing
    sqlite3.SQLITE_BUSY: Fault.LOCKED,
    sqlite3.SQLITE_LOCKED: Fault.LOCKED,
}
"""By SQLite's primary code."""


class SQLiteFile(Database):
    """An SQLite file. WAL and synchronous=FULL: a commit survives a power cut."""

    errors = (sqlite3.Error,)
    snapshot = "BEGIN"
    by_code_point = ""

    def __init__(self, file: Path, name: str) -> None:
        super().__init__(name)
        self._file = file.absolute()

    def open(self) -> Connection:
        """Open a connection."""
        connection = sqlite3.connect(
            self._file, timeout=LOCKED_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            # Write pages that many commits change to the file less often: a log of 32 MiB, eight times the default.
            connection.execute("PRAGMA wal_autocheckpoint = 8000")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def tables(self, connection: Connection) -> set[str]:
        """Return the names of the tables."""
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_'"
        return {name for (name,) in connection.execute(query)}

    def begin_creating(self, connection: Connection) -> None:
        """Begin the transaction that creates the tables."""
        connection.execute("BEGIN IMMEDIATE")

    def switch_to_wal(self) -> None:
        """Have commits append to a log."""
        end = time.monotonic() + MAKING_SECONDS
        while True:
            try:
                with self.connection() as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                    return
            except sqlite3.OperationalError as error:
                # Another process is creating the ledger: SQLite itself does not wait for that.
                if self.fault(error) is not Fault.LOCKED or time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def begin_writing(self, connection: Connection, _idle: int) -> None:
        """Begin a transaction that writes. Waits WAITING_SECONDS for another program's, and says so after LOCKED_SECONDS."""
        end = time.monotonic() + drivers.WAITING_SECONDS
        warned = False
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if self.fault(error) is not Fault.LOCKED or time.monotonic() > end:
                    raise
                if not warned:
                    wait = _("This command waits up to {seconds} s for it.", seconds=drivers.WAITING_SECONDS)
                    _LOG.warning("%s", as_sentences((locked(self.name, ()), wait)))
                warned = True
            else:
                return

    def stream(self, connection: Connection, query: str, values: Sequence[Any]) -> Iterator[Any]:
        """Stream the records of a query, read in batches."""
        cursor = connection.execute(query, values)
        while batch := cursor.fetchmany(BATCH):
            yield from batch

    def whole(self, number: str) -> str:
        """Return the SQL of a positive number rounded down."""
        return f"CAST({number} AS INTEGER)"

    def by_index(self, index: str) -> str:
        """Return the clause to use an index: without statistics SQLite would read whole runs instead."""
        return f"INDEXED BY {index}"

    def fault(self, error: Exception) -> Fault:
        """Return what an error means."""
        code: int | None = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return Fault.DAMAGED if "decode" in str(error) else Fault.OTHER
        return _FAULTS.get(code & 0xFF, Fault.OTHER)


_NEWEST = (
    "SELECT id, kind, created_at, list_name FROM runs WHERE substr(id, 1, ?) = ? ORDER BY number DESC LIMIT ?"
)


def newest_runs(where: str, begins: str, limit: int) -> Sequence[Any]:
    """Return (id, kind, time, list) of the newest runs whose id starts with `begins`, for shell completion.

    Of an SQLite ledger only, which is not created. Raises the database's errors.
    """
    file = Path(where.removeprefix("sqlite:///")).absolute()
    if not file.is_file():  # opening a pipe would wait for a writer
        return []
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=0.2)) as opened:
        return opened.execute(_NEWEST, (len(begins), begins, limit)).fetchall()
