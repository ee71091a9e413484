"""The ledger's database: SQLite with commits that survive a power cut, or PostgreSQL by URL.

A file that is not a ledger is refused unchanged, and so is a ledger of another schema version, or one on a network file
system, where locks are unreliable.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sqlite3
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from tcb_ops.errors import LedgerDamagedError, LedgerError, StoppedError, TcbOpsError, UsageError
from tcb_ops.i18n import Text, _, as_list, as_sentences, verbatim
from tcb_ops.model import Outcome
from tcb_ops.resources import exhausted, raise_if_exhausted, system_reason
from tcb_ops.runs.locks import AdvisoryLock, lock_folder, lock_key
from tcb_ops.runs.records import RunRecord, read_run
from tcb_ops.runs.schema import SCHEMA, STORED, VERSION, holders, rows_by_path, version
from tcb_ops.settings import shown_url

_LOG = logging.getLogger("tcb_ops.runs")

MAKING_SECONDS = 30
"""Seconds that a process waits for another one that is creating the same ledger."""
LOCKED_SECONDS = 2
"""Seconds to wait for a lock before the command reports that another process has locked the ledger."""
SCHEMA_SECONDS = 10
"""Seconds that creating PostgreSQL's tables waits for a lock, since all others wait behind it."""
WAITING_SECONDS = 60
"""Seconds that a command waits for a lock that somebody else has on the ledger."""

BATCH = 500
"""Rows read at a time, so that memory does not grow with the run: 5,000 take 40 MB more, and hardly less time."""

_LIBPQ = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Timeouts for a server that no longer responds, unless the URL sets them."""

_NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs", "lustre",
}  # fmt: skip
_DRIVE_REMOTE = 4
"""What Windows' GetDriveTypeW returns for a mapped network drive."""


class LedgerConnection:
    """An open ledger. Errors of the database are raised as LedgerError."""

    def __init__(self, where: str) -> None:
        """Open or create the ledger at a file or a database URL. Raises UsageError if it is not a ledger."""
        self._engine, self.file, self.name = _open_database(where)
        weakref.finalize(self, self._engine.dispose)  # users of a Run never close its ledger
        self._held: sa.Connection | None = None

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @property
    def _is_sqlite(self) -> bool:
        return self.file is not None

    def by_index(self, index: str) -> str:
        """Return SQLite's clause to use an index: without statistics it would read whole runs instead."""
        return f"INDEXED BY {index}" if self._is_sqlite else ""

    def advisory_lock(self, name: str) -> AdvisoryLock | None:
        """Return a lock in the database; None for an SQLite file, which has lock files beside it."""
        return None if self._is_sqlite else AdvisoryLock(self._engine, name, self._trouble)

    def driver(
        self, connection: sa.Connection, statement: str, values: tuple[Any, ...] | list[tuple[Any, ...]]
    ) -> sa.CursorResult[Any]:
        """Execute a statement with `?` for its values, not compiled: SQLAlchemy's own take twice as long per row."""
        return connection.exec_driver_sql(
            statement if self._is_sqlite else statement.replace("?", "%s"), values
        )

    def _fetch(
        self, connection: sa.Connection, statement: str, values: tuple[Any, ...]
    ) -> Sequence[Sequence[Any]]:
        """Read the driver's own records: converting them to SQLAlchemy's takes longer than reading them."""
        try:
            records: Sequence[Sequence[Any]] = self.driver(connection, statement, values).cursor.fetchall()
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise DBAPIError(None, None, error) from None
        return records

    def fetch(self, statement: str, values: tuple[Any, ...]) -> Sequence[Sequence[Any]]:
        """Return the records of a statement for `driver`."""
        with self._connection() as connection:
            return self._fetch(connection, statement, values)

    def query(self, query: sa.Executable) -> Sequence[Any]:
        """Return the records of a query. A feature calls it within `reading`."""
        with self._connection() as connection:
            return connection.execute(query).all()

    def stream(self, query: sa.Select[Any]) -> Iterator[Any]:
        """Stream the records of a query, read in batches."""
        with self._connection() as connection:
            for batch in connection.execute(query, execution_options={"yield_per": BATCH}).partitions():
                yield from batch

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """Open a connection for reading, or use the one that a snapshot holds."""
        held = nullcontext(self._held) if self._held is not None else self._engine.connect()
        with self.reading(), held as connection:
            yield connection

    def _run(self, record: Any) -> RunRecord:
        with self.reading(record):
            return read_run(record)

    @contextmanager
    def reading(self, run: Any = None) -> Iterator[None]:
        """Convert errors of the database, and errors from damaged values, to errors of the ledger."""
        try:
            yield
        except SQLAlchemyError as error:
            raise self._trouble(error) from None
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError):
            problem = _("a record of a run contains values that tcb-ops does not write")
            if run is not None:
                problem = _("a record of run {id} contains values that tcb-ops does not write", id=run.id)
            raise self._damaged(problem) from None

    def _damaged(self, problem: Text) -> LedgerDamagedError:
        return damaged(self.name, problem)

    def _trouble(self, error: SQLAlchemyError) -> StoppedError:
        if (shortage := exhausted(error, unclear=True)) is not None:
            return shortage
        cause = _reason(error)
        if _is_damage(error):
            return self._damaged(verbatim(cause))
        if _is_locked(error):
            return LedgerError(_locked(self.name, _lock_holders(self._engine)))
        text = _(
            "the ledger {name} cannot be used: {why}. What was committed is safe. Free space or fix "
            "the access, then run the same command again: the run resumes where it stopped."
        )
        if not self._is_sqlite and _is_unreachable(error):
            text = _(
                "the ledger {name} cannot be reached: {why}. What was committed is safe. When its database is back, "
                "run the same command again: the run resumes where it stopped."
            )
        return LedgerError(text.format(name=self.name, why=cause))


def _open_database(where: str) -> tuple[sa.Engine, Path | None, str]:
    """Open or create a ledger's database at a file or URL; return the engine, the file (if it is one), a name to show.

    Raises UsageError if it is not a ledger and cannot be one, LedgerDamagedError if it is damaged.
    """
    name = shown_url(where)
    url = _url(where, name)
    file = _file_of(url)
    if file is not None:
        _prepare_file(file)
    try:
        if file is not None:
            engine = sa.create_engine(url, hide_parameters=True)
            sa.event.listen(engine, "connect", _prepare_sqlite)
        else:
            timeouts = {key: value for key, value in _LIBPQ.items() if key not in url.query}
            engine = sa.create_engine(url, hide_parameters=True, connect_args=timeouts)
            sa.event.listen(engine, "connect", _prepare_postgresql)
    except (SQLAlchemyError, ImportError):
        raise not_a_ledger(name, _("its database driver is not installed")) from None
    try:
        _open_schema(engine, name)
    except TcbOpsError:
        engine.dispose()
        raise
    except SQLAlchemyError as error:
        by = _lock_holders(engine) if _is_locked(error) else []
        engine.dispose()
        raise_if_exhausted(error, unclear=True)
        cause = _reason(error)
        if _sqlite_code(error) == sqlite3.SQLITE_NOTADB:
            raise not_a_ledger(name, _("it is not an SQLite file")) from None
        if _is_damage(error):
            raise damaged(name, verbatim(cause)) from None
        if _is_locked(error):
            raise UsageError(_locked(name, by)) from None
        advice = (
            None
            if file is not None
            else _(
                "Check that the server runs at this host and port, that the database exists, that the role may connect to it "
                "and has the privileges of a user of the ledger, and its password in PGPASSWORD or ~/.pgpass."
            )
        )
        raise not_a_ledger(name, _("it cannot be opened ({why})", why=cause), advice) from None
    return engine, file, name


def ledger_file(where: str) -> Path | None:
    """Return the SQLite file of a ledger; None for PostgreSQL. Raises UsageError for any other URL."""
    return _file_of(_url(where, shown_url(where)))


def _file_of(url: sa.URL) -> Path | None:
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _url(where: str, name: str) -> sa.URL:
    """Parse the ledger's location. Raises UsageError for a URL of neither an SQLite file nor PostgreSQL."""
    if where in {"", ":memory:"}:
        raise not_a_ledger(repr(where), _("a ledger in a file needs the name of the file"))
    if "://" not in where:
        return sa.URL.create("sqlite", database=where)
    # The driver would take a part of it as the host.
    if where.count("@") > 1 or "@" in where.partition("?")[2]:
        raise not_a_ledger(name, _("an @ in a name or password must be written as %40"))
    try:
        url = sa.make_url(where)
    except (SQLAlchemyError, ValueError):  # such as a port that is not a number
        raise not_a_ledger("the ledger's URL", _("it cannot be read as a database URL")) from None
    backend = url.get_backend_name()
    if backend != "postgresql" and not (backend == "sqlite" and url.database and not url.query):
        raise not_a_ledger(
            name, _("a ledger is an SQLite file or a PostgreSQL database (postgresql+psycopg://…)")
        )
    return url


def _open_schema(engine: sa.Engine, name: str) -> None:
    """Create a new ledger's tables; refuse a ledger of another version, or another program's database, unchanged."""
    sqlite = engine.dialect.name == "sqlite"
    with engine.begin() as connection:
        tables = sa.inspect(connection).get_table_names()
        if not tables:
            # Two processes may create the ledger at once. An existing one is not locked: a long plan would block it.
            if sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{SCHEMA_SECONDS}s'")
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock_key(connection, "schema"))))
            tables = sa.inspect(connection).get_table_names()
        if not tables:
            if not sqlite:
                # Where it is declared, this would import SQLAlchemy's dialect for PostgreSQL into every command.
                rows_by_path.dialect_options["postgresql"]["where"] = STORED
                holders.create(connection)
            SCHEMA.create_all(connection)
            _create_view(connection)
            connection.execute(version.insert().values(version=VERSION))
        elif version.name not in tables:
            raise not_a_ledger(name, _("it is another program's database"))
        elif (versions := connection.execute(sa.select(version.c.version)).scalars().all()) != [VERSION]:
            raise UsageError(
                _(
                    "{name} is a ledger of schema version {number}, and this tcb-ops reads version {version} only: use the "
                    "tcb-ops that created it, or choose another ledger with --ledger.",
                    name=name,
                    number=", ".join(map(str, versions)) or "?",
                    version=VERSION,
                ),
            )
    if sqlite:
        _switch_to_wal(engine)


def _switch_to_wal(engine: sa.Engine) -> None:
    end = time.monotonic() + MAKING_SECONDS
    while True:
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return
        except OperationalError as error:
            # Another process is creating the ledger: SQLite itself does not wait for that.
            if not _is_locked(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute(f"PRAGMA busy_timeout = {LOCKED_SECONDS * 1000}")
        cursor.execute("PRAGMA synchronous = FULL")
        # Write pages that many commits change to the file less often: a log of 32 MiB, eight times the default.
        cursor.execute("PRAGMA wal_autocheckpoint = 8000")


def begin_writing(connection: sa.Connection, name: str) -> None:
    """Begin a transaction that writes. In SQLite, wait WAITING_SECONDS for another program's, and say so after LOCKED_SECONDS."""
    if connection.dialect.name != "sqlite":
        return
    end = time.monotonic() + WAITING_SECONDS
    warned = False
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError as error:
            if not _is_locked(error) or time.monotonic() > end:
                raise
            if not warned:
                wait = _("This command waits up to {seconds} s for it.", seconds=WAITING_SECONDS)
                _LOG.warning("%s", as_sentences((_locked(name, ()), wait)))
            warned = True
        else:
            return


def _prepare_postgresql(connection: Any, _record: object) -> None:
    """Have the server keep an idle connection, whatever is set for the role. PostgreSQL 13 has no such setting."""
    with closing(connection.cursor()) as cursor:
        cursor.execute(
            "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
        )
        cursor.execute(f"SET lock_timeout = '{WAITING_SECONDS}s'")
    connection.commit()


def _prepare_file(file: Path) -> None:
    """Refuse a place that is unsuitable for a ledger; create a new file with mode 0600 before anything is written to it."""
    folder, locks = file.resolve().parent, lock_folder(file)
    if not folder.is_dir():
        raise not_a_ledger(str(file), _("the folder {folder} does not exist", folder=folder))
    if file.is_dir():
        raise not_a_ledger(str(file), _("it is a folder"))
    if on_network(folder):
        raise not_a_ledger(
            str(file), _("SQLite on a network file system is refused: file locks are unreliable there")
        )
    if file.exists():
        if not file.stat().st_size and locks.is_dir():
            problem = _(
                "it is empty, but runs have been written to it (to start a new one, remove the folder {locks})",
                locks=locks,
            )
            raise damaged(str(file), problem)
        return
    try:
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise_if_exhausted(error)
        cause = system_reason(error)
        raise not_a_ledger(str(file), _("it cannot be created ({why})", why=cause)) from None


def on_network(folder: Path) -> bool:
    """Return whether a folder is on a network file system, where SQLite's locks are unreliable; False on macOS."""
    if sys.platform == "win32":
        drive = folder.resolve().drive
        return drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(f"{drive}\\") == _DRIVE_REMOTE
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    real, fields = folder.resolve(), [line.split(" ") for line in mounts]
    holding = [(f[1], f[2]) for f in fields if len(f) > 2 and real.is_relative_to(f[1].replace("\\040", " "))]
    return max(holding, key=lambda mount: len(mount[0]), default=("", ""))[1] in _NETWORK


def not_a_ledger(name: str, cause: Text, todo: Text | None = None) -> UsageError:
    """Return the error for a file or database that cannot be the ledger. `todo`: what to do, if not to choose another."""
    return UsageError(
        _("{name} cannot be the ledger: {why}.", name=name, why=cause),
        todo or _("Choose another ledger with --ledger."),
    )


# --- the view ----------------------------------------------------------------------------------------------------

# For tools that read the database. Its columns are documented (docs, reference/files) and do not change with the tables.
_VIEW = """
CREATE VIEW v_rows AS
SELECT runs.id AS run, runs.kind, runs.target, runs.list_name, runs.parent, {time}runs.created_at{utc} AS run_started_at,
    rows.line, envs.merchant, envs.appid, envs.env, rows.path, rows.outcome,
    CASE WHEN rows.outcome IN ({without_code}) THEN NULL
        WHEN rows.errcode <> 0 THEN CAST(rows.errcode AS TEXT)
        WHEN rows.store_code <> '' THEN rows.store_code
        WHEN rows.reason <> '' THEN rows.reason
        ELSE rows.outcome END AS code,
    rows.errmsg, rows.rid, rows.http_status, rows.attempts, rows.bytes, rows.md5,
    {time}rows.started_at{utc} AS started_at, {time}rows.ended_at{utc} AS ended_at,
    rows.ended_at - rows.started_at AS seconds
FROM rows
JOIN runs ON runs.number = rows.run
JOIN envs ON envs.run = rows.run AND envs.no = rows.place
"""


def _create_view(connection: sa.Connection) -> None:
    """Create the view. Times are UTC: text in SQLite, timestamptz in PostgreSQL."""
    sqlite = connection.dialect.name == "sqlite"
    time_, utc = ("datetime(", ", 'unixepoch')") if sqlite else ("to_timestamp(", ")")
    without_code = ", ".join(f"'{outcome}'" for outcome in sorted(Outcome.successes() | {Outcome.PENDING}))
    connection.exec_driver_sql(_VIEW.format(time=time_, utc=utc, without_code=without_code))


# --- errors ------------------------------------------------------------------------------------------------------


def _reason(error: SQLAlchemyError) -> str:
    """Return the message of a database error on one line, without a full stop."""
    cause = getattr(error, "orig", None)
    # PostgreSQL's own message, without the place in the statement.
    message = getattr(getattr(cause, "diag", None), "message_primary", None) or cause
    return " ".join(str(message or type(error).__name__).split()).rstrip(".")


def _sqlstate(error: SQLAlchemyError) -> str:
    """Return a database error's code; empty without one, as where the connection failed or was lost."""
    cause = getattr(error, "orig", None)
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")


def _is_unreachable(error: SQLAlchemyError) -> bool:
    """Return whether the connection to PostgreSQL was lost, or cannot be made again."""
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return lost or (isinstance(error, OperationalError) and not _sqlstate(error))


_LOCK_TIMEOUT = "55P03"
"""SQLSTATE of a lock that another session kept for longer than lock_timeout."""
_HOLDERS = """
SELECT DISTINCT a.application_name, a.usename, a.client_addr, a.pid
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND a.datname = current_database() AND a.pid <> pg_backend_pid()
    AND (l.locktype = 'advisory' AND (l.classid::bigint << 32 | l.objid::bigint) = %s
        OR l.relation IN (SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace))
    AND a.state <> 'idle'
"""


def _is_locked(error: SQLAlchemyError) -> bool:
    """Return whether somebody else held a lock for longer than the statement may wait."""
    sqlite_locks = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    return _sqlite_code(error) in sqlite_locks or _sqlstate(error) == _LOCK_TIMEOUT


def _lock_holders(engine: sa.Engine) -> list[Text]:
    """Return who works in PostgreSQL on the ledger's tables; empty for SQLite, which does not know."""
    if engine.dialect.name != "postgresql":
        return []
    with suppress(SQLAlchemyError), engine.connect() as connection:
        sessions = connection.exec_driver_sql(_HOLDERS, (lock_key(connection, "schema"),)).all()
        return [
            _(
                "{application} of user {user} at {host} (PID {pid})",
                application=application or "?",
                user=user or "?",
                host=host or "localhost",
                pid=pid,
            )
            for application, user, host, pid in sessions
        ]
    return []


def _locked(name: str, by: Sequence[Text]) -> Text:
    """Return the message for a ledger that somebody else has locked, with who it is, where that is known."""
    if by:
        return _(
            "the ledger {name} is locked by {holders}. Wait for it, or end it there; then run the same command again.",
            name=name,
            holders=as_list(by, 5),
        )
    return _(
        "another program has locked the ledger {name}, such as a database browser or a backup. Close it there; then run "
        "the same command again.",
        name=name,
    )


_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""SQLite's primary codes for a damaged file. SQLITE_ERROR: a statement does not fit, as a table is missing."""


def damaged(name: str, problem: Text) -> LedgerDamagedError:
    """Return the error that reports damage: what was found, and in which ledger."""
    return LedgerDamagedError(
        _("the ledger {name} is damaged: {what}.", name=name, what=problem),
        _(
            "Restore a copy of it, for SQLite without the -wal and -shm files that are there. With a new ledger (--ledger), "
            "every file of a list is sent again. Reports exported earlier still show their runs."
        ),
    )


def _is_damage(error: SQLAlchemyError) -> bool:
    """Return whether SQLite reports a damaged file, rather than a locked, full or inaccessible one."""
    cause = getattr(error, "orig", None)
    code = _sqlite_code(error)
    return isinstance(cause, sqlite3.Error) and ("decode" in str(cause) if code is None else code in _DAMAGE)


def _sqlite_code(error: SQLAlchemyError) -> int | None:
    code: int | None = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
