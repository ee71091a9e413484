"""The connection to a ledger, and how its errors become ours."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from tcb_ops.errors import LedgerDamagedError, LedgerError, StoppedError, TcbOpsError
from tcb_ops.i18n import Text, _, verbatim
from tcb_ops.resources import exhausted
from tcb_ops.runs.database import (
    damaged,
    is_damage,
    is_locked,
    is_unreachable,
    lock_holders,
    locked,
    may_not_write,
    open_database,
    reason,
)
from tcb_ops.runs.locks import AdvisoryLock
from tcb_ops.runs.records import RunRecord, read_run

BATCH = 500
"""Rows read at a time, so that memory does not grow with the run: 5,000 take 40 MB more, and hardly less time."""


class LedgerConnection:
    """An open ledger. Errors of the database are raised as LedgerError."""

    def __init__(self, where: str) -> None:
        """Open or create the ledger at a file or a database URL. Raises UsageError if it is not a ledger."""
        self._engine, self.file, self.name = open_database(where)
        weakref.finalize(self, self._engine.dispose)  # users of a Run never close its ledger
        self._held: sa.Connection | None = None

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def advisory_lock(self, name: str) -> AdvisoryLock | None:
        """Return a lock in the database; None for an SQLite file, which has lock files beside it."""
        return AdvisoryLock(self._engine, name, self._trouble_at_start) if self.file is None else None

    def driver(
        self, connection: sa.Connection, statement: str, values: tuple[Any, ...] | list[tuple[Any, ...]]
    ) -> sa.CursorResult[Any]:
        """Execute a statement with `?` for its values, not compiled: SQLAlchemy's own take twice as long per row."""
        if self._engine.dialect.name != "sqlite":
            statement = statement.replace("?", "%s")
        return connection.exec_driver_sql(statement, values)

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """Open a connection for reading, or use the one that a snapshot holds."""
        held = nullcontext(self._held) if self._held is not None else self._engine.connect()
        with self.reading(), held as connection:
            yield connection

    def query(self, query: sa.Executable) -> Sequence[Any]:
        """Return the records of a query. A feature calls it within `reading`."""
        with self._connection() as connection:
            return connection.execute(query).all()

    def _fetch(self, query: sa.Select[Any]) -> Sequence[Any]:
        """Read the driver's own records: converting them to SQLAlchemy's takes longer than reading them."""
        with self._connection() as connection:
            try:
                records: Sequence[Any] = connection.execute(query).cursor.fetchall()
            except self._engine.dialect.loaded_dbapi.Error as error:  # the cursor is the driver's own
                raise sa.exc.DBAPIError(None, None, error) from None
            return records

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

    def _stream(self, query: sa.Select[Any]) -> Iterator[Any]:
        """Stream the records of a query, read in batches."""
        with self._connection() as connection:
            for batch in connection.execute(query, execution_options={"yield_per": BATCH}).partitions():
                yield from batch

    def _trouble_at_start(self, error: SQLAlchemyError) -> TcbOpsError:
        """Return the error of a statement, or of a lock that cannot be taken or looked up: nothing has begun."""
        return may_not_write(self.name, error) or self._trouble(error)

    def _trouble(self, error: SQLAlchemyError) -> StoppedError:
        if (shortage := exhausted(error, unclear=True)) is not None:
            return shortage
        cause = reason(error)
        if is_damage(error):
            return self._damaged(verbatim(cause))
        if is_locked(error):
            return LedgerError(locked(self.name, lock_holders(self._engine)))
        if self.file is None and is_unreachable(error):
            return LedgerError(
                _(
                    "the ledger {name} cannot be reached: {why}. What was committed is safe. When its database is back, "
                    "run the same command again: the run resumes where it stopped.",
                    name=self.name,
                    why=cause,
                )
            )
        return LedgerError(
            _(
                "the ledger {name} cannot be used: {why}. What was committed is safe. Free space or fix "
                "the access, then run the same command again: the run resumes where it stopped.",
                name=self.name,
                why=cause,
            )
        )
