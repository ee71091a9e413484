"""Opening a ledger, in SQLite with commits that survive a power cut or in PostgreSQL by URL, and reading from it.

A file that is not a ledger is refused unchanged, and so is a ledger of a newer schema version, or one on a network file
system, where locks are unreliable.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tcb_ops.errors import LedgerDamagedError, LedgerError, StoppedError, TcbOpsError, UsageError, needed
from tcb_ops.hooks import PostgresHooks
from tcb_ops.i18n import Text, _
from tcb_ops.ledger import schema
from tcb_ops.ledger.database import Connection, Database, DatabaseFault, locked
from tcb_ops.ledger.locks import lock_folder
from tcb_ops.ledger.records import RUN_COLUMNS, RunRecord, StoredRun, read_run
from tcb_ops.settings import shown_url
from tcb_ops.system_errors import exhausted, raise_if_exhausted, system_reason

_NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs", "lustre",
}  # fmt: skip
_DRIVE_REMOTE = 4
"""What Windows' GetDriveTypeW returns for a mapped network drive."""


class LedgerConnection:
    """An open ledger. Errors of the database are raised as LedgerError."""

    def __init__(self, where: str) -> None:
        """Open or create the ledger at a file or a database URL. Raises UsageError if it is not a ledger."""
        self._database, self.file = _open_database(where)
        self.name = self._database.name
        weakref.finalize(self, self._database.close)  # users of a Run never close its ledger
        self._held: Connection | None = None

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    @property
    def dialect(self) -> Database:
        """What SQL the database writes differently."""
        return self._database

    def advisory_lock(self, name: str) -> Any:
        """Return a lock in the database; None for an SQLite file, which has lock files beside it."""
        return self._database.advisory_lock(name, self._trouble)

    def fetch(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the records of a query with `?` for its values. A feature calls it within `reading`."""
        with self._connection() as connection:
            return connection.execute(query, values).fetchall()

    def stored_runs(self, condition: str, values: Sequence[Any] = (), limit: int | None = None) -> list[Any]:
        """Return the records of the runs that fulfil a condition, the last created first."""
        newest = f"ORDER BY number DESC{'' if limit is None else f' LIMIT {limit}'}"
        query = f"SELECT {', '.join(RUN_COLUMNS)} FROM runs WHERE {condition} {newest}"
        return list(map(StoredRun._make, self.fetch(query, values)))

    def stream(self, query: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Stream the records of a query, read in batches."""
        with self._connection() as connection:
            yield from self._database.stream(connection, query, values)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Open a connection for reading, or use the one that a snapshot holds."""
        held = nullcontext(self._held) if self._held is not None else self._database.connection()
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
        except self._database.errors as error:
            raise self._trouble(error) from None
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError):
            problem = _("a record of a run contains values that tcb-ops does not write")
            if run is not None:
                problem = _("a record of run {id} contains values that tcb-ops does not write", id=run.id)
            raise damaged(self.name, problem) from None

    def _trouble(self, error: Exception) -> StoppedError:
        if (shortage := exhausted(error, unclear=True)) is not None:
            return shortage
        cause, fault = self._database.reason(error), self._database.fault(error)
        if fault in {DatabaseFault.DAMAGED, DatabaseFault.NO_DATABASE}:
            return damaged(self.name, cause)
        if fault is DatabaseFault.LOCKED:
            return LedgerError(locked(self.name))
        text = _("The ledger {name} cannot be used: {why}. What was committed is safe.")
        fix = _("Free space or fix the access, then try again: the run resumes where it stopped.")
        if fault is DatabaseFault.UNREACHABLE:
            text = _("The ledger {name} cannot be reached: {why}. What was committed is safe.")
            fix = _("When its database is back, try again: the run resumes where it stopped.")
        return LedgerError(text.format(name=self.name, why=cause), fix)


def _open_database(where: str) -> tuple[Database, Path | None]:
    """Open or create a ledger's database at a file or URL; return it, and the file (if it is one).

    Raises UsageError if it is not a ledger and cannot be one, LedgerDamagedError if it is damaged.
    """
    name, file = shown_url(where), ledger_file(where)
    if file is not None:
        _prepare_file(file)
        database = Database(str(file.absolute()), name)
    else:
        try:
            database = needed(PostgresHooks).open(where, name)
        except ImportError:
            raise not_a_ledger(name, _("its database driver is not installed")) from None
    try:
        _open_schema(database, sqlite=file is not None)
    except TcbOpsError:
        database.close()
        raise
    except database.errors as error:
        fault, cause = database.fault(error), database.reason(error)
        database.close()
        raise_if_exhausted(error, unclear=True)
        if fault is DatabaseFault.NO_DATABASE:
            raise not_a_ledger(name, _("it is not an SQLite file")) from None
        if fault is DatabaseFault.DAMAGED:
            raise damaged(name, cause) from None
        if fault is DatabaseFault.LOCKED:
            raise UsageError(locked(name)) from None
        todo = database.advice
        if file is not None:
            todo = of_another_user(file) or _("Free space or fix the access, then try again.")
        raise not_a_ledger(name, _("it cannot be opened ({why})", why=cause), todo) from None
    return database, file


def of_another_user(file: Path) -> Text | None:
    """Return what to do to use another user's ledger; None for one's own, and on Windows."""
    if sys.platform == "win32" or file.stat().st_uid == os.geteuid():
        return None
    return _(
        "It belongs to {owner}: ask for permission to read and write the file and its folder.",
        owner=file.owner(),
    )


def ledger_file(where: str) -> Path | None:
    """Return the SQLite file of a ledger; None for PostgreSQL. Raises UsageError for any other URL."""
    name = shown_url(where)
    if where in {"", ":memory:"}:
        raise not_a_ledger(repr(where), _("a ledger in a file needs the name of the file"))
    if "://" not in where:
        return Path(where)
    scheme, _separator, rest = where.partition("://")
    if scheme == "sqlite" and len(rest) > 1 and rest.startswith("/") and "?" not in rest:
        return Path(rest[1:])
    if scheme not in {"postgresql", "postgresql+psycopg"}:
        raise not_a_ledger(
            name, _("a ledger is an SQLite file or a PostgreSQL database (postgresql+psycopg://…)")
        )
    return None


def _open_schema(database: Database, *, sqlite: bool) -> None:
    """Create a new ledger's tables, or upgrade an older ledger; refuse any other version, or another program's database, unchanged."""
    with database.connection() as connection:
        tables = database.tables(connection)
        if not tables:
            # Two processes may create the ledger at once. An existing one is not locked: a long plan would block it.
            database.begin_creating(connection)
            tables = database.tables(connection)
        if not tables:
            for statement in schema.statements(sqlite=sqlite):
                connection.execute(statement)
            connection.execute(f"INSERT INTO {schema.VERSION_TABLE} VALUES ({schema.VERSION})")
        elif schema.VERSION_TABLE not in tables:
            raise not_a_ledger(database.name, _("it is another program's database"))
        else:
            if _upgrade(database, connection):
                database.begin_creating(connection)  # another process may upgrade it meanwhile
                for statement in _upgrade(database, connection):
                    connection.execute(statement)
                connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version = {schema.VERSION}")
            if not tables >= schema.TABLES:
                tables = database.tables(connection)  # with those of an upgrade, by this process or another
            if missing := schema.TABLES - tables:  # a view in its place might run without end
                raise damaged(database.name, _("it lacks the table {name}", name=min(missing)))
        connection.commit()
    if sqlite:
        database.use_log()


def _upgrade(database: Database, connection: Connection) -> list[str]:
    """Return the statements that upgrade a ledger. Raises UsageError for a version that cannot be upgraded."""
    versions = [
        version for (version,) in connection.execute(f"SELECT version FROM {schema.VERSION_TABLE}").fetchall()
    ]
    if (statements := schema.upgrade(versions)) is not None:
        return statements
    text = _(
        "{name} is a ledger of schema version {number}, and this tcb-ops reads version {version} only: use the "
        "tcb-ops that created it, or choose another ledger with {--ledger}."
    )
    if versions and min(versions) > schema.VERSION:
        text = _(
            "{name} is a ledger of schema version {number}, and this tcb-ops reads version {version}: update tcb-ops, "
            "or choose another ledger with {--ledger}."
        )
    number = ", ".join(map(str, versions)) or "?"
    raise UsageError(text.format(name=database.name, number=number, version=schema.VERSION))


def _prepare_file(file: Path) -> None:
    """Refuse a place that is unsuitable for a ledger; create a new file with mode 0600 before anything is written to it."""
    folder, locks = file.resolve().parent, lock_folder(file)
    if not folder.is_dir():
        raise not_a_ledger(str(file), _("the folder {folder} does not exist", folder=folder))
    if file.is_dir():
        raise not_a_ledger(str(file), _("it is a folder"))
    if file.exists() and not file.is_file():
        raise not_a_ledger(str(file), _("it is not a regular file but a pipe or a device"))
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
        raise not_a_ledger(str(file), _("it cannot be created ({why})", why=system_reason(error))) from None


def on_network(folder: Path) -> bool:
    """Return whether a folder is on a network file system, where SQLite's locks are unreliable; False on macOS."""
    if sys.platform == "win32":
        import ctypes

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
        todo or _("Choose another ledger with {--ledger}."),
    )


def damaged(name: str, problem: Text) -> LedgerDamagedError:
    """Return the error that reports damage: what was found, and in which ledger."""
    return LedgerDamagedError(
        _("The ledger {name} is damaged: {what}.", name=name, what=problem),
        _(
            "Restore a copy of it, for SQLite without the -wal and -shm files that are there. With a new ledger, "
            "every file of a list is sent again. Reports exported earlier still show their runs."
        ),
    )
