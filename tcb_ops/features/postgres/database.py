"""A ledger in PostgreSQL, and its advisory locks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from tcb_ops.errors import LedgerError, TcbOpsError
from tcb_ops.i18n import Text, _
from tcb_ops.ledger import database
from tcb_ops.ledger.connection import not_a_ledger
from tcb_ops.ledger.database import BATCH, SPEND, Connection, Database, DatabaseFault
from tcb_ops.ledger.files import CHANGE, REPLACED
from tcb_ops.ledger.records import END_COLUMNS, PLAN_COLUMNS, RunRecord, Usage, end_values
from tcb_ops.model import RowEnd

SCHEMA_SECONDS = 10
"""Seconds that creating PostgreSQL's tables waits for a lock, since all others wait behind it."""

_LIBPQ = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Timeouts for a server that no longer responds, unless the URL sets them."""
_LOCK_TIMEOUT = "55P03"
"""SQLSTATE of a lock that another session kept for longer than lock_timeout."""
_STREAMS = count()
_END = f"""
    UPDATE rows SET {", ".join(f"{name} = new.{name}" for name in END_COLUMNS)}{{}}
    FROM json_populate_recordset(NULL::rows, ?) AS new
    WHERE rows.run = ? AND rows.line = ANY(?) AND rows.line = new.line AND rows.outcome = 'pending'"""
"""The lines are listed, too: they lead the server to the rows by the key."""
_RECORD = (
    f"""WITH spent AS ({SPEND}), ended AS ({_END.format("")} RETURNING rows.line) SELECT line FROM ended"""
)
_ENDED = "ended AS rows JOIN envs ON envs.run = rows.run AND envs.no = rows.place"
_CHANGED = f"{_ENDED} WHERE rows.outcome = ANY(?) ORDER BY envs.store, rows.path"
"""In this order, so that two sessions that write to the same paths do not wait for each other."""
_RECORD_CHANGES = f"""WITH spent AS ({SPEND}),
    ended AS ({_END.format(f", {REPLACED[:-1]} AND new.outcome = ANY(?))")} RETURNING rows.*),
    changed AS ({CHANGE.format(_CHANGED)}) SELECT line FROM ended"""
_LOCK = """
    SELECT FROM files WHERE (store, path) IN (
        SELECT envs.store, rows.path FROM rows JOIN envs ON envs.run = rows.run AND envs.no = rows.place
        WHERE rows.run = ? AND rows.line = ANY(?)) ORDER BY store, path FOR UPDATE"""


class _Cursor(psycopg.Cursor[Any]):
    """A cursor for statements with `?` for their values, which contain no `%`."""

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        return super().execute(query.replace("?", "%s"), *arguments, **options)

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        super().executemany(query.replace("?", "%s"), params_seq, returning=returning)


class PostgreSQL(Database):
    """A database in PostgreSQL."""

    errors = (psycopg.Error,)
    snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ"
    by_code_point = ' COLLATE "C"'
    whole = "CAST(FLOOR({}) AS INTEGER)"
    cell = "CAST(cells AS json) ->> {}"
    splits_pages = False  # a changed record is written again
    index_hint = ""
    advice = _(
        "Check that the server runs at this host and port, that the database exists, that the role may connect to it "
        "and has the privileges of a user of the ledger, and its password in PGPASSWORD or ~/.pgpass."
    )

    def __init__(self, where: str, name: str) -> None:
        """Raise UsageError if the URL cannot be read."""
        url = where.replace("postgresql+psycopg:", "postgresql:", 1)
        super().__init__(url, name)
        # The driver would take a part of it as the host.
        if where.count("@") > 1 or "@" in where.partition("?")[2]:
            raise not_a_ledger(name, _("an @ in a name or password must be written as %40"))
        try:
            _port = urlsplit(where).port  # the driver's message would show one that is not a number
            self._parameters: dict[str, Any] = _LIBPQ | conninfo_to_dict(url)
        except (ValueError, psycopg.Error):
            raise not_a_ledger("the ledger's URL", _("it cannot be read as a database URL")) from None

    def open(self) -> Connection:
        """Open a connection. The server keeps an idle one, whatever is set for the role."""
        connection = psycopg.connect(**self._parameters, autocommit=True, cursor_factory=_Cursor)
        try:
            # PostgreSQL 13 has no idle_session_timeout.
            waiting = f"{database.WAITING_SECONDS}s"
            _configure(connection, {"idle_session_timeout": "0", "lock_timeout": waiting})
        except psycopg.Error:
            connection.close()
            raise
        return cast("Connection", connection)

    def tables(self, connection: Connection) -> set[str]:
        """Return the names of the tables."""
        query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
        return {name for (name,) in connection.execute(query)}

    def begin_creating(self, connection: Connection) -> None:
        """Begin the transaction that creates the tables, once no other process is creating them."""
        connection.execute(f"BEGIN; SET LOCAL lock_timeout = '{SCHEMA_SECONDS}s'")
        connection.execute("SELECT pg_advisory_xact_lock(?)", (lock_key(connection, "schema"),))

    def begin_writing(self, connection: Connection, idle: int) -> None:
        """Begin a transaction that writes, in which nothing may happen for `idle` seconds (0: for ever)."""
        connection.execute(f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{idle}s'")

    def insert_rows(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert planned rows, each as the values of PLAN_COLUMNS."""
        server = cast("psycopg.Connection[Any]", connection)
        with (
            server.cursor() as cursor,
            cursor.copy(f"COPY rows ({', '.join(PLAN_COLUMNS)}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)

    def planned(self, connection: Connection) -> None:
        """Have the server count the rows of a new run: without statistics it would read all of them at each commit."""
        # A sample of 3,000 rows instead of 30,000: a tenth of the time.
        connection.execute("SET LOCAL default_statistics_target = 10; ANALYZE rows (run, line, place)")

    def record(
        self, connection: Connection, run: RunRecord, ends: Sequence[RowEnd], usage: Usage
    ) -> Sequence[RowEnd]:
        """Write the ends of pending rows, what they have left at their paths, and what was used, in one statement.

        Returns the ends that were written: those of rows which were pending.
        """
        columns = ("line", *END_COLUMNS)
        listed = [dict(zip(columns, (end.line, *end_values(end)), strict=True)) for end in ends]
        spent = usage.seconds, usage.link_calls, usage.upload_calls, run.number
        lines, changes = [end.line for end in ends], [str.__str__(each) for each in run.kind.replacing]
        values = msgspec.json.encode(listed).decode(), run.number, lines
        server = cast("psycopg.Connection[Any]", connection)
        if server.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS:  # more statements follow
            connection.execute(_LOCK, (run.number, lines))
        if changes:
            ended = connection.execute(_RECORD_CHANGES, (*spent, changes, *values, changes))
        else:
            ended = connection.execute(_RECORD, (*spent, *values))
        written = {line for (line,) in ended}
        return ends if len(written) == len(ends) else [end for end in ends if end.line in written]

    def stream(self, connection: Connection, query: str, values: Sequence[Any]) -> Iterator[Any]:
        """Stream the records of a query, read in batches."""
        server = cast("psycopg.Connection[Any]", connection)
        in_transaction = server.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE
        if not in_transaction:
            connection.execute("BEGIN")
        name = f"stream_{next(_STREAMS)}"
        connection.execute(f"DECLARE {name} CURSOR FOR {query}", values)
        try:
            while batch := connection.execute(f"FETCH {BATCH} FROM {name}").fetchall():
                yield from batch
        finally:
            with suppress(psycopg.Error):
                connection.execute(f"CLOSE {name}") if in_transaction else connection.rollback()

    def fault(self, error: Exception) -> DatabaseFault:
        """Return what an error means."""
        if not isinstance(error, psycopg.Error):
            return DatabaseFault.OTHER
        if error.sqlstate == _LOCK_TIMEOUT:
            return DatabaseFault.LOCKED
        # The server ends a connection with a fatal error; where the connection itself fails, there is no code.
        ended = error.diag.severity_nonlocalized in {"FATAL", "PANIC"}
        unreachable = ended or (isinstance(error, psycopg.OperationalError) and not error.sqlstate)
        return DatabaseFault.UNREACHABLE if unreachable else DatabaseFault.OTHER

    def reason(self, error: Exception) -> Text:
        """Return the server's own message, without the place in the statement."""
        message = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        return super().reason(Exception(message) if message else error)

    def advisory_lock(self, name: str, trouble: Callable[[Exception], TcbOpsError]) -> AdvisoryLock:
        """Return a lock in the database."""
        return AdvisoryLock(self, name, trouble)


def _configure(connection: Any, values: Mapping[str, str]) -> None:
    """Set what this server can be told for the session."""
    listed = ", ".join(f"('{name}', '{value}')" for name, value in values.items())
    connection.execute(
        f"SELECT set_config(name, value, false) FROM pg_settings JOIN (VALUES {listed}) AS wanted(name, value) USING (name)"
    )


# --- advisory locks ----------------------------------------------------------------------------------------------

_SESSION = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
"""Server settings that drop a silent client after 10 + 3 × 5 s, also one that acknowledges nothing."""
_HOLDER = """
    SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND (l.classid::bigint << 32 | l.objid::bigint) = ?"""


_POOLED = _(
    "a connection pooler takes its connections away after each transaction, and with them the locks on runs"
)
_POOL_MODE = _("Set the pooler (pgbouncer: pool_mode) to session mode, or name the server itself.")


def _backend(connection: Connection) -> int:
    """Return the process of the server that answers this connection."""
    (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    return int(pid)


def lock_key(connection: Connection, name: str) -> int:
    """Return the key of an advisory lock, the same for all who use the ledger in this database and schema."""
    (schema,) = connection.execute("SELECT current_schema()").fetchone()
    digest = hashlib.sha256(f"tcb-ops\0{schema}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


class AdvisoryLock:
    """An advisory lock. `trouble` converts database errors to ledger errors."""

    def __init__(self, database: Database, name: str, trouble: Callable[[Exception], TcbOpsError]) -> None:
        self._database, self._name, self._trouble = database, name, trouble
        self._connection: Connection | None = None
        self._key = self._pid = 0
        self._turn = threading.Lock()  # `check` is called from two threads: after commits, and periodically

    def acquire(self, who: str) -> bool:
        """Take the lock if it is free; return whether it was. `who`: the name that others see.

        Raises LedgerError, or UsageError if the role may not write.
        """
        try:
            connection = self._connection or self._connect(who)
            (taken,) = connection.execute("SELECT pg_try_advisory_lock(?)", (self._key,)).fetchone()
        except psycopg.Error as error:
            self.release()
            raise self._trouble(error) from None
        return bool(taken)

    def check(self) -> None:
        """Ask the server whether the lock is still held. Raises LedgerError if not. Blocks."""
        with self._turn:
            if (connection := self._connection) is None:
                return  # released by this process meanwhile
            with suppress(psycopg.Error):  # the driver's text does not help the user
                # The server keeps the lock for as long as the connection has its backend.
                if connection.execute("SELECT pg_backend_pid()").fetchone() == (self._pid,):
                    return
        raise LedgerError(
            _(
                "The connection to the ledger's database that held the lock on this run has ended, so another "
                "process may take over the run: this process stops, and unfinished rows stay pending."
            )
        )

    def holder(self) -> str:
        """Return who holds the lock; empty if nobody does, `?` if unknown."""
        try:
            with self._database.connection() as connection:
                key = self._key or lock_key(connection, self._name)
                if (holder := connection.execute(_HOLDER, (key,)).fetchone()) is None:
                    return ""
                named = connection.execute("SELECT who FROM holders WHERE pid = ?", holder).fetchone()
        except psycopg.Error as error:
            raise self._trouble(error) from None
        return named[0] if named and named[0] else "?"

    def release(self) -> None:
        """Release the lock; a lock that is already lost is no error."""
        with self._turn:
            connection, self._connection = self._connection, None
            if connection is None:
                return
            with suppress(psycopg.Error):
                connection.execute("SELECT pg_advisory_unlock(?)", (self._key,))
                connection.execute("DELETE FROM holders WHERE pid = pg_backend_pid()")
            connection.close()

    def _connect(self, who: str) -> Connection:
        connection = self._connection = self._database.open()
        self._key = lock_key(connection, self._name)
        self._pid = _backend(connection)
        with self._database.connection() as other:
            shared = _backend(other) == self._pid or _backend(connection) != self._pid
        if shared:
            raise not_a_ledger(self._database.name, _POOLED, _POOL_MODE)
        _configure(connection, _SESSION)
        # Written before the lock is taken, so that a refused process always finds it.
        connection.execute(
            "INSERT INTO holders (pid, who) VALUES (pg_backend_pid(), ?) ON CONFLICT (pid) DO UPDATE SET who = excluded.who",
            (who,),
        )
        connection.execute("DELETE FROM holders WHERE pid NOT IN (SELECT pid FROM pg_stat_activity)")
        return connection
