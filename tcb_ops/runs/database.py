"""Opening the ledger's database: SQLite with commits that survive a power cut, or PostgreSQL by URL.

A file that is not a ledger is refused unchanged, and so is a ledger of another schema version, or one on a network file
system, where locks are unreliable.
"""

from __future__ import annotations

import logging
import os
import shlex
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from tcb_ops.errors import LedgerDamagedError, TcbOpsError, UsageError
from tcb_ops.i18n import Text, _, as_list, as_sentences, verbatim
from tcb_ops.model import Outcome
from tcb_ops.resources import raise_if_exhausted, system_reason
from tcb_ops.runs.locks import (
    SqliteFile,
    held_runs,
    lock_folder,
    lock_key,
    planning,
)
from tcb_ops.runs.schema import (
    SCHEMA,
    VERSION,
    condition_indices_on_postgresql,
    holders,
    version,
)
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


def open_database(where: str) -> tuple[sa.Engine, Path | None, str]:
    """Open or create a ledger's database at a file or URL; return the engine, the file (if it is one), a name to show.

    Raises UsageError if it is not a ledger and cannot be one, LedgerDamagedError if it is damaged.
    """
    name = shown_url(where)
    url = _url(where, name)
    file = _file_of(url)
    if file is not None:
        _refuse_unsuitable(file)
    try:
        if file is not None:
            engine = sa.create_engine(url, hide_parameters=True)
            sa.event.listen(engine, "connect", _prepare_sqlite)
        else:
            libpq = url.get_driver_name() in {"psycopg", "psycopg2"}
            more = {key: value for key, value in _LIBPQ.items() if key not in url.query} if libpq else {}
            engine = sa.create_engine(url, hide_parameters=True, connect_args=more)
            sa.event.listen(engine, "connect", _prepare_postgresql)
    except (SQLAlchemyError, ImportError):
        raise not_a_ledger(name, _("its database driver is not installed")) from None
    try:
        _open_schema(engine, name, file)
    except TcbOpsError:
        engine.dispose()
        raise
    except (SQLAlchemyError, sqlite3.Error) as error:
        by = lock_holders(engine) if is_locked(error) else []
        engine.dispose()
        raise_if_exhausted(error, unclear=True)
        why = reason(error)
        if is_damage(error):
            raise damaged(name, file, verbatim(why)) from None
        if is_locked(error):
            raise UsageError(locked(name, by), options=["--ledger"]) from None
        todo = _what_to_do(error) if file is None else None
        raise not_a_ledger(name, _not_opened(file, why), todo) from None
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


def _open_schema(engine: sa.Engine, name: str, file: Path | None) -> None:
    """Create a new ledger's tables; refuse a ledger of another version, or another program's database, unchanged."""
    with engine.begin() as connection:
        tables = set(sa.inspect(connection).get_table_names())
        if not tables:
            # Two processes may create the ledger at once. An existing one is not locked: a long plan would block it.
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{SCHEMA_SECONDS}s'")
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock_key(connection, "schema"))))
            tables = set(sa.inspect(connection).get_table_names())
        if not tables:
            if engine.dialect.name == "postgresql":
                condition_indices_on_postgresql()
                holders.create(connection)
            SCHEMA.create_all(connection)
            create_views(connection)
            connection.execute(version.insert().values(version=VERSION))
            return
        _check_program(name, tables)
        _check_version(name, file, connection.execute(sa.select(version.c.version)).scalars().all())
    if missing := sorted(SCHEMA.tables.keys() - tables):
        raise damaged(name, file, _("it has no table {gone_names}", gone_names=", ".join(missing)))


def _check_program(name: str, tables: Collection[str]) -> None:
    """Raise UsageError if tables are those of another program."""
    if version.name not in tables:
        raise not_a_ledger(name, _("it is another program's database"))


def _check_version(name: str, file: Path | None, versions: Sequence[object]) -> None:
    """Raise UsageError if a ledger has another schema version, LedgerDamagedError if it has none."""
    if len(versions) != 1 or not isinstance(versions[0], int):
        raise damaged(name, file, _("its schema version is not a single number"))
    if versions[0] != VERSION:
        raise UsageError(
            _(
                "{name} is a ledger of schema version {found}, and this tcb-ops reads version {version} only: use the "
                "tcb-ops that created it, or choose another ledger with --ledger.",
                name=name,
                found=versions[0],
                version=VERSION,
            ),
            options=["--ledger"],
        )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {LOCKED_SECONDS * 1000}")
    cursor.execute("PRAGMA synchronous = FULL")
    # Write pages that many commits change to the file less often: a log of 32 MiB, eight times the default.
    cursor.execute("PRAGMA wal_autocheckpoint = 8000")
    end = time.monotonic() + MAKING_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            # Another process is creating the ledger: SQLite itself does not wait for that.
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
    cursor.close()


def begin_writing(connection: sa.Connection, name: str) -> None:
    """Begin a transaction that writes. In SQLite, wait WAITING_SECONDS for another program's, and say so after LOCKED_SECONDS."""
    if connection.dialect.name != "sqlite":
        return
    end = time.monotonic() + WAITING_SECONDS
    said = False
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError as error:
            if not is_locked(error) or time.monotonic() > end:
                raise
            if not said:
                wait = _("This command waits up to {seconds} s for it.", seconds=WAITING_SECONDS)
                _LOG.warning("%s", as_sentences((locked(name, ()), wait)))
            said = True
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


def _look(file: Path) -> None:
    """Refuse a file that is not a ledger of this version before switching to WAL, which writes to it."""
    real = file.resolve()
    mode = "ro"
    if Path(f"{real}-journal").exists():
        mode = "rw"  # a killed process leaves a journal, which SQLite can roll back only if it may write
    elif not Path(f"{real}-wal").exists() and _is_wal(real):
        mode = "ro&immutable=1"  # otherwise SQLite would leave new files beside one that is refused
    try:
        with closing(
            sqlite3.connect(f"{real.as_uri()}?mode={mode}", uri=True, timeout=LOCKED_SECONDS)
        ) as connection:
            tables = {
                name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            versions: list[object] = []
            if version.name in tables:
                versions = [number for (number,) in connection.execute("SELECT version FROM tcb_ops")]
    except sqlite3.Error as error:
        raise_if_exhausted(error, unclear=True)
        if is_locked(error):
            raise UsageError(locked(str(file), ()), options=["--ledger"]) from None
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise not_a_ledger(str(file), _("it is not an SQLite file")) from None
        if is_damage(error):
            raise damaged(str(file), file, verbatim(str(error))) from None
        raise not_a_ledger(str(file), _not_opened(file, str(error))) from None
    if tables:
        _check_program(str(file), tables)
        _check_version(str(file), file, versions)


def _is_wal(file: Path) -> bool:
    """Return whether an SQLite file is in WAL mode, which its header tells."""
    with suppress(OSError), file.open("rb") as stream:
        return stream.read(20)[18:] == b"\x02\x02"
    return False


def _not_opened(file: Path | None, why: str) -> Text:
    """Return why a ledger cannot be opened: usually it or its folder is read-only, which SQLite does not report."""
    real = file.resolve() if file is not None else None
    for place in (real.parent, real) if real is not None else ():
        if os.access(place, os.R_OK) and not os.access(place, os.W_OK):
            return _(
                "{place} is read-only for you, and a ledger and its folder must be writable", place=place
            )
    return _("it cannot be opened ({why})", why=why)


def _refuse_unsuitable(file: Path) -> None:
    folder = file.resolve().parent
    if not folder.is_dir():
        raise not_a_ledger(str(file), _("the folder {folder} does not exist", folder=folder))
    if file.is_dir():
        raise not_a_ledger(str(file), _("it is a folder"))
    if on_network(folder):
        raise not_a_ledger(
            str(file), _("SQLite on a network file system is refused: file locks are unreliable there")
        )
    locks = lock_folder(file)
    if not (file.exists() and file.stat().st_size) and locks.is_dir():
        with planning(SqliteFile(str(file), file)):  # another process may be creating the ledger
            if not file.exists():
                _make(file)
                with closing(sqlite3.connect(file)) as connection:
                    connection.execute("PRAGMA journal_mode = WAL")  # which writes the first page
            elif not file.stat().st_size:
                raise _emptied(file, locks)
    if file.exists():
        _look(file)
    else:
        _make(file)


def _make(file: Path) -> None:
    """Create the file, with mode 0600 before anything is written to it."""
    try:
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise_if_exhausted(error)
        why = system_reason(error)
        raise not_a_ledger(str(file), _("it cannot be created ({why})", why=why)) from None


def on_network(folder: Path) -> bool:
    """Return whether a folder is on a network file system, where SQLite's locks are unreliable; False except on Linux."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    real, fields = folder.resolve(), [line.split(" ") for line in mounts]
    holding = [(f[1], f[2]) for f in fields if len(f) > 2 and real.is_relative_to(f[1].replace("\\040", " "))]
    return max(holding, key=lambda found: len(found[0]), default=("", ""))[1] in _NETWORK


def reason(error: SQLAlchemyError | sqlite3.Error) -> str:
    """Return the message of a database error on one line, without a full stop."""
    cause = error if isinstance(error, sqlite3.Error) else getattr(error, "orig", None)
    # PostgreSQL's own message, without the place in the statement.
    message = getattr(getattr(cause, "diag", None), "message_primary", None) or cause
    return " ".join(str(message or type(error).__name__).split()).rstrip(".")


def not_a_ledger(name: str, why: Text, todo: Text | None = None) -> UsageError:
    """Return the error for a file or database that cannot be the ledger. `todo`: what to do, if not to choose another."""
    return UsageError(
        _("{name} cannot be the ledger: {why}.", name=name, why=why),
        todo or _("Choose another ledger with --ledger."),
        options=["--ledger"],
    )


# --- views -------------------------------------------------------------------------------------------------------

VIEWS = ("v_errcodes", "v_rows", "v_runs")
"""The views for tools that read the database, in the order in which they can be dropped.

Their columns are documented (docs, reference/files) and do not change with the tables.
"""
_RUNS = """
CREATE VIEW v_runs AS
SELECT id AS run, kind, target, list_name, parent, note, operator, host,
    {created_at} AS started_at, {finished_at} AS finished_at, rows, seconds, link_calls, upload_calls
FROM runs
"""
_ROWS = """
CREATE VIEW v_rows AS
SELECT runs.id AS run, rows.line, envs.merchant, envs.appid, envs.env, rows.path, rows.outcome,
    CASE WHEN rows.outcome IN ({without_code}) THEN NULL
        WHEN rows.errcode <> 0 THEN CAST(rows.errcode AS TEXT)
        WHEN rows.store_code <> '' THEN rows.store_code
        WHEN rows.reason <> '' THEN rows.reason
        ELSE rows.outcome END AS code,
    rows.errmsg, rows.rid, rows.http_status, rows.attempts, rows.bytes, rows.md5,
    {rows_started_at} AS started_at, {rows_ended_at} AS ended_at,
    rows.ended_at - rows.started_at AS seconds
FROM rows
JOIN runs ON runs.number = rows.run
JOIN envs ON envs.run = rows.run AND envs.no = rows.place
"""
_ERRCODES = """
CREATE VIEW v_errcodes AS
SELECT v_runs.run, v_runs.started_at, v_runs.kind, v_runs.target,
    v_rows.merchant, v_rows.appid, v_rows.env, v_rows.code, COUNT(*) AS rows
FROM v_rows
JOIN v_runs ON v_runs.run = v_rows.run
WHERE v_rows.code IS NOT NULL
GROUP BY v_runs.run, v_runs.started_at, v_runs.kind, v_runs.target,
    v_rows.merchant, v_rows.appid, v_rows.env, v_rows.code
"""
_TIMES = {
    "created_at": "created_at",
    "finished_at": "finished_at",
    "rows_started_at": "rows.started_at",
    "rows_ended_at": "rows.ended_at",
}


def create_views(connection: sa.Connection) -> None:
    """Create the views. Times are UTC: text in SQLite, timestamptz in PostgreSQL."""
    sqlite = connection.dialect.name == "sqlite"
    form = "datetime({column}, 'unixepoch')" if sqlite else "to_timestamp({column})"
    times = {name: form.format(column=column) for name, column in _TIMES.items()}
    without_code = ", ".join(f"'{outcome}'" for outcome in sorted(Outcome.successes() | {Outcome.PENDING}))
    for view in (_RUNS, _ROWS, _ERRCODES):
        connection.exec_driver_sql(view.format(**times, without_code=without_code))


# --- PostgreSQL's errors ---------------------------------------------------------------------------------------

_DENIED = {"42501", "3F000"}
"""SQLSTATE of a missing privilege: insufficient_privilege, and invalid_schema_name, if the schema may not be used."""
_READ_ONLY = "25006"
"""SQLSTATE of a write to a standby server, or in a session that may only read."""


def _sqlstate(error: SQLAlchemyError | sqlite3.Error) -> str:
    """Return a database error's code; empty without one, as where the connection failed or was lost."""
    cause = getattr(error, "orig", None)
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")


def _what_to_do(error: SQLAlchemyError | sqlite3.Error) -> Text | None:
    """Return what to do about a PostgreSQL database that cannot be opened."""
    if _sqlstate(error) in _DENIED:
        return _(
            "The role that owns the ledger must open it first, which creates the tables, and give this role its "
            "privileges: SELECT, INSERT, UPDATE and DELETE on them, USAGE of the schema and of the sequences."
        )
    if not isinstance(error, OperationalError):
        return None
    if getattr(getattr(error.orig, "pgconn", None), "needs_password", False):
        return _("Set PGPASSWORD to the role's password, or write it into ~/.pgpass (mode 0600).")
    return _(
        "Check that the server runs at this host and port, that the database exists, that the role may connect to it "
        "(GRANT CONNECT), and its password in PGPASSWORD or ~/.pgpass."
    )


def may_not_write(name: str, error: SQLAlchemyError) -> UsageError | None:
    """Return the error for a role that may only read the ledger, as long as nothing has begun; None for any other error."""
    if _sqlstate(error) not in _DENIED | {_READ_ONLY}:
        return None
    return UsageError(
        _("this role may not write to the ledger {name} ({why}).", name=name, why=reason(error)),
        _(
            "Use a role with SELECT, INSERT, UPDATE and DELETE on its tables, and USAGE of its sequences; nothing was "
            "sent."
        ),
        options=["--ledger"],
    )


def is_unreachable(error: SQLAlchemyError) -> bool:
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


def is_locked(error: SQLAlchemyError | sqlite3.Error) -> bool:
    """Return whether somebody else held a lock for longer than the statement may wait."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.Error):
        return (getattr(cause, "sqlite_errorcode", 0) & 0xFF) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    return isinstance(error, SQLAlchemyError) and _sqlstate(error) == _LOCK_TIMEOUT


def lock_holders(engine: sa.Engine) -> list[Text]:
    """Return who works in PostgreSQL on the ledger's tables; empty for SQLite, which does not know."""
    if engine.dialect.name != "postgresql":
        return []
    with suppress(SQLAlchemyError), engine.connect() as connection:
        found = connection.exec_driver_sql(_HOLDERS, (lock_key(connection, "schema"),)).all()
        return [
            _(
                "{application} of user {user} at {host} (PID {pid})",
                application=application or "?",
                user=user or "?",
                host=host or "localhost",
                pid=pid,
            )
            for application, user, host, pid in found
        ]
    return []


def locked(name: str, by: Sequence[Text]) -> Text:
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


# --- damage --------------------------------------------------------------------------------------------------

CHECK_SECONDS = 2.0
"""Seconds that the check of a database file may take; the rest stays unchecked."""
_STEPS = 1_000
"""SQLite's virtual machine instructions between two checks of the time."""
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""SQLite's primary codes for a damaged file. SQLITE_ERROR: a statement does not fit, as a table is missing."""


def damaged(name: str, file: Path | None, what: Text) -> LedgerDamagedError:
    """Return the error that reports damage: what was found, in which ledger, and what to do."""
    if file is None:
        todo = _(
            "Restore the database from a backup. Reports exported earlier still show their runs; with a new ledger "
            "(--ledger), every file of a list is sent again."
        )
    else:
        here = file.absolute()
        recovered = here.with_name(f"{here.stem}.recovered{here.suffix}")
        command = f"sqlite3 {shlex.quote(str(here))} .recover | sqlite3 {shlex.quote(str(recovered))}"
        todo = _(
            "Stop using this file. If you have a backup, move the file and its -wal and -shm files elsewhere and "
            "restore the backup. Without a backup, recover what is still readable with `{command}`, then add "
            "--ledger {shlex}; rows are counted again, so an incomplete run is still refused. Reports exported "
            "earlier still show their runs. With a new ledger, every file of a list is sent again.",
            command=command,
            shlex=shlex.quote(str(recovered)),
        )
    return LedgerDamagedError(
        _("the ledger {name} is damaged: {what}. {todo}", name=name, what=what, todo=todo),
        options=["--ledger"],
    )


def _emptied(file: Path, locks: Path) -> LedgerDamagedError:
    """Return the error for a ledger that was emptied. Call it under the planning lock."""
    todo = _(
        "Restore it from a backup, including its -wal file. To start a new ledger instead, with which every "
        "file of a list is sent again, remove the folder {locks}.",
        locks=locks,
    )
    for run_id, who in held_runs(SqliteFile(str(file), file)):
        todo = _(
            "Run {run_id} is being worked on by {who}: stop it there, then run the same command again.",
            run_id=run_id,
            who=who,
        )
    return LedgerDamagedError(
        _(
            "the ledger {file} is empty (0 bytes), but runs have been written to it: {locks} is beside it.",
            file=file,
            locks=locks,
        ),
        todo,
        options=["--ledger"],
    )


def is_damage(error: SQLAlchemyError | sqlite3.Error) -> bool:
    """Return whether SQLite reports a damaged file, rather than a locked, full or inaccessible one."""
    cause = getattr(error, "orig", None) or error
    if not isinstance(cause, sqlite3.Error):
        return False
    code = getattr(cause, "sqlite_errorcode", None)
    return "decode" in str(cause) if code is None else code & 0xFF in _DAMAGE


def check_file(
    connection: sqlite3.Connection,
    seconds: float = CHECK_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Have SQLite check its file for at most `seconds`; return the first fault, empty if none was found.

    It checks the pages of all tables and indexes first, then each index against its table.
    """
    end = clock() + seconds
    connection.set_progress_handler(lambda: clock() > end, _STEPS)
    try:
        with closing(connection.execute("PRAGMA integrity_check(1)")) as cursor:
            found = str(cursor.fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_INTERRUPT:  # the time is up
            return ""
        raise
    finally:
        connection.set_progress_handler(None, 0)
    return "" if found == "ok" else " ".join(found.split())


ORPHANED_RUNS = """
WITH RECURSIVE used (run) AS (
    SELECT min(run) FROM rows
    UNION
    SELECT (SELECT min(run) FROM rows WHERE rows.run > used.run) FROM used WHERE used.run IS NOT NULL
)
SELECT run FROM used WHERE run IS NOT NULL AND run NOT IN (SELECT number FROM runs)
"""
"""Selects the numbers of runs that have rows, but no record, in one step per run, however many rows there are.

UNION, not UNION ALL: in a damaged index the next run may be an earlier one, and the recursion would not end."""
