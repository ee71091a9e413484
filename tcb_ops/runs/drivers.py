"""What the ledger needs of a database, whichever it is: connections of the driver, and what the driver's errors mean.

`sqlite_file` and `postgres` provide it. Each query is written once, with `?` for its values; what the databases write
differently is given here. A connection commits each statement by itself until one begins a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any, Protocol

from tcb_ops.i18n import Text, _, as_list

BATCH = 500
"""Rows read at a time, so that memory does not grow with the run: 5,000 take 40 MB more, and hardly less time."""
LOCKED_SECONDS = 2
"""Seconds to wait for a lock before the command reports that another process has locked the ledger."""
WAITING_SECONDS = 60
"""Seconds that a command waits for a lock that somebody else has on the ledger."""
_IDLE = 5
"""Connections that are kept for later use: reading, writing and panels have threads of their own."""


class Cursor(Protocol):
    """A cursor of either driver."""

    @property
    def rowcount(self) -> int:
        """Rows that were changed, by all statements of `executemany`."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the records."""

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> object:
        """Execute a statement with each of some values."""

    def fetchone(self) -> Any:
        """Return the next record; None after the last."""

    def fetchall(self) -> list[Any]:
        """Return the records that were not read yet."""

    def fetchmany(self, size: int, /) -> list[Any]:
        """Return the next records."""


class Connection(Protocol):
    """A connection of either driver."""

    def execute(self, statement: str, values: Sequence[Any] = ..., /) -> Cursor:
        """Execute a statement with `?` for its values."""

    def cursor(self) -> Cursor:
        """Return a cursor, for `executemany`."""

    def commit(self) -> None:
        """Commit the transaction, if there is one."""

    def rollback(self) -> None:
        """Roll back the transaction, if there is one."""

    def close(self) -> None:
        """Close the connection."""


class Fault(Enum):
    """What an error of a database means."""

    NO_DATABASE = auto()
    """The file is no database."""
    DAMAGED = auto()
    LOCKED = auto()
    """Somebody else held a lock for longer than the statement may wait."""
    UNREACHABLE = auto()
    """The connection was lost, or cannot be made."""
    OTHER = auto()


class Database:
    """A database, with the connections to it."""

    errors: tuple[type[Exception], ...]
    """The base of the driver's errors."""
    snapshot: str
    """The statement that begins a transaction which later writes do not change."""
    by_code_point: str
    """What follows a column to be ordered by code point, whatever the database's locale."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._idle: list[Connection] = []
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Yield a connection for this thread; a transaction that is not committed is rolled back."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self.open()
        try:
            yield connection
        finally:
            self._take_back(connection)

    def _take_back(self, connection: Connection) -> None:
        try:
            connection.rollback()
        except self.errors:  # it is lost, as those before it may be
            connection.close()
            self._close_idle()
            return
        if len(self._idle) >= _IDLE:
            connection.close()
            return
        self._idle.append(connection)
        if self._closed:
            self._close_idle()

    def close(self) -> None:
        """Close the connections that nobody uses, and later each one after its use."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    # --- what differs ---------------------------------------------------------------------------------------------

    def open(self) -> Connection:
        """Open a connection, which the caller closes."""
        raise NotImplementedError

    def tables(self, connection: Connection) -> set[str]:
        """Return the names of the tables."""
        raise NotImplementedError

    def begin_creating(self, connection: Connection) -> None:
        """Begin the transaction that creates the tables, once no other process is creating them."""
        raise NotImplementedError

    def begin_writing(self, connection: Connection, idle: int, /) -> None:
        """Begin a transaction that writes, in which nothing may happen for `idle` seconds (0: for ever)."""
        raise NotImplementedError

    def stream(self, connection: Connection, query: str, values: Sequence[Any]) -> Iterator[Any]:
        """Stream the records of a query, read in batches."""
        raise NotImplementedError

    def whole(self, number: str) -> str:
        """Return the SQL of a positive number rounded down."""
        raise NotImplementedError

    def by_index(self, index: str, /) -> str:
        """Return the clause to use an index, where the database would not choose it by itself."""
        raise NotImplementedError

    def fault(self, error: Exception) -> Fault:
        """Return what an error means."""
        raise NotImplementedError

    def reason(self, error: Exception) -> str:
        """Return the message of an error on one line, without a full stop."""
        return " ".join(str(error).split()).rstrip(".") or type(error).__name__

    def lock_holders(self) -> list[Text]:
        """Return who works on the ledger's tables; empty if that is not known."""
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
