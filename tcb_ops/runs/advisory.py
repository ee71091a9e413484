"""A session-level advisory lock of PostgreSQL, on a connection of its own.

The server frees it when the connection ends: at once where a process was killed, and by TCP keepalives within
25 seconds where the host or the network is gone. The table `holders` names the process at the other end of each such
connection; any role that may use the ledger can read it, and pg_locks.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from tcb_ops.errors import LedgerError, StoppedError
from tcb_ops.i18n import Text
from tcb_ops.runs.schema import holders

_SESSION = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "idle_session_timeout": "0",
}
"""How soon the server gives a silent client up: 10 + 3 × 5 s; the same where an answer is never acknowledged."""
_KNOWN = sa.text("SELECT set_config(name, :value, false) FROM pg_settings WHERE name = :name")
_TRY = sa.text("SELECT pg_try_advisory_lock(:key)")
_UNLOCK = sa.text("SELECT pg_advisory_unlock(:key)")
_GRANTED = """
    FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND (l.classid::bigint << 32 | l.objid::bigint) = :key
"""
_OURS = sa.text(f"SELECT count(*) {_GRANTED} AND l.pid = pg_backend_pid()")
_HOLDER = sa.text(f"SELECT l.pid {_GRANTED}")
_LIVING = sa.text("SELECT pid FROM pg_stat_activity").columns(sa.column("pid", sa.Integer))


def lock_key(connection: sa.Connection, name: str) -> int:
    """Return the key of a lock, the same for everybody who uses the ledger in this database and schema."""
    schema = connection.exec_driver_sql("SELECT current_schema()").scalar()
    digest = hashlib.sha256(f"tcb-ops\0{schema}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


class AdvisoryLock:
    """One lock. `trouble` turns the database's errors into the ledger's."""

    def __init__(
        self, engine: sa.Engine, name: str, trouble: Callable[[SQLAlchemyError], StoppedError]
    ) -> None:
        self._engine, self._name, self._trouble = engine, name, trouble
        self._connection: sa.Connection | None = None
        self._key = 0
        self._turn = threading.Lock()  # the writer and the watch confirm from two threads

    def acquire(self, who: str) -> bool:
        """Take the lock if it is free. `who` is what `holder` tells others. Raises LedgerError."""
        try:
            if self._connection is None:
                self._connect(who)
            assert self._connection is not None  # noqa: S101  for mypy: it was just made
            return bool(self._connection.execute(_TRY, {"key": self._key}).scalar())
        except SQLAlchemyError as error:
            self.release()
            raise self._trouble(error) from None

    def confirm(self) -> None:
        """Ask the server whether the lock is still ours. Raises LedgerError where it is not. Blocks."""
        with self._turn:
            if (connection := self._connection) is None:
                return  # let go of by ourselves, while the question waited for its turn
            try:
                if connection.execute(_OURS, {"key": self._key}).scalar():
                    return
            except SQLAlchemyError:  # which connection it was says nothing that helps
                pass
        raise LedgerError(
            Text(
                "the connection to the ledger's database that held the lock on this run has ended, so another process may "
                "take the run over: this one stops, and the rows not done are pending.",
                "与台账数据库之间持有任务锁的连接已断开，任务可能被其他进程接手：本进程就此停止，未完成的行仍待处理。",
            )
        )

    def holder(self) -> str:
        """Return who holds the lock at this moment; empty for nobody, `?` where that is not known."""
        try:
            with self._engine.connect() as connection:
                key = self._key or lock_key(connection, self._name)
                pid = connection.execute(_HOLDER, {"key": key}).scalar()
                if pid is None:
                    return ""
                return str(
                    connection.execute(sa.select(holders.c.who).where(holders.c.pid == pid)).scalar() or "?"
                )
        except SQLAlchemyError as error:
            raise self._trouble(error) from None

    def release(self) -> None:
        """Let the lock go; one that is lost already is no error."""
        with self._turn:
            connection, self._connection = self._connection, None
            if connection is None:
                return
            with suppress(SQLAlchemyError):
                connection.execute(_UNLOCK, {"key": self._key})
                connection.execute(holders.delete().where(holders.c.pid == sa.func.pg_backend_pid()))
            connection.invalidate()  # really closed, not handed to others with its settings
            connection.close()

    def _connect(self, who: str) -> None:
        connection = self._engine.connect()
        self._connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        self._key = lock_key(connection, self._name)
        for name, value in _SESSION.items():
            connection.execute(_KNOWN, {"name": name, "value": value})
        # Written before the lock is taken: whoever is refused finds it.
        mine = insert(holders).values(pid=sa.func.pg_backend_pid(), who=who)
        connection.execute(mine.on_conflict_do_update(index_elements=["pid"], set_={"who": who}))
        connection.execute(holders.delete().where(holders.c.pid.not_in(_LIVING)))
