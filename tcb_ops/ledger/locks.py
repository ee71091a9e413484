"""Locks that let one session at a time work on a run: advisory locks in PostgreSQL, lock files beside an SQLite ledger.

A kill releases either. The recorded holder is only used in messages.
"""

from __future__ import annotations

import getpass
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.i18n import NOTHING, Text, _
from tcb_ops.system_errors import raise_if_exhausted, system_reason

if TYPE_CHECKING:
    from tcb_ops.ledger.connection import LedgerConnection


def operator_name() -> str:
    """Return the user's name in the operating system; `?` if there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "?"


def host_name() -> str:
    """Return the name of this machine."""
    import socket

    return socket.gethostname()


class HeldError(UsageError):
    """Another process, or another session of this one, has a lock. The message names it."""


PLANNING_SECONDS = 300
"""Seconds that a command waits for another one's planning: a million rows take about ten."""
POLL_SECONDS = 0.05
"""Seconds between two attempts to take the planning lock in PostgreSQL."""


def planning(ledger: LedgerConnection) -> AbstractContextManager[Callable[[], None]]:
    """Hold the planning lock: of two simultaneous commands with the same list, the second finds the first one's run.

    Yields a function that raises LedgerError if the lock is lost. Raises UsageError if another process keeps it.
    """
    text = _("Another command has been planning a run in {name} for {planning_seconds} s. Try again later.")
    busy = text.format(name=ledger.name, planning_seconds=PLANNING_SECONDS)
    return _exclusive(ledger, "planning", PLANNING_SECONDS, lambda _who: busy)


@contextmanager
def hold(ledger: LedgerConnection, name: str, busy: Text | None = None) -> Iterator[Callable[[], None]]:
    """Hold the lock on a run, or on something else that one process at a time works on.

    `name`: the run's id. `busy`: instead of the text about a run, with the placeholder {who}. Raises HeldError naming the
    holder if another process has it.

    Yields a function that raises LedgerError if the lock is lost: PostgreSQL releases it when the connection ends, and
    another process may then work on the run.
    """
    held_by = busy or _(
        "Run {run_id} is being worked on by {who}. Wait for it, or stop it there.", run_id=name
    )
    with _exclusive(ledger, name, 0, lambda who: held_by.format(who=who)) as still_held:
        if ledger.file is None:
            yield still_held
            return
        holder = lock_folder(ledger.file) / f"{name}.holder"
        try:
            with suppress(OSError):  # such as a full disk: the file only names the holder
                holder.unlink(missing_ok=True)
                with holder.open("x", encoding="utf-8") as out:  # a new file, so that no link is followed
                    out.write(f"{process_identity()}\n")
            yield still_held
        finally:
            with suppress(OSError):
                holder.unlink()


@contextmanager
def _exclusive(
    ledger: LedgerConnection, name: str, seconds: float, busy: Callable[[str], Text]
) -> Iterator[Callable[[], None]]:
    """Hold a lock, taken within some seconds. Raises HeldError with `busy` of the holder if another process keeps it."""
    from filelock import FileLock, Timeout

    if (advisory := ledger.advisory_lock(name)) is not None:
        end = time.monotonic() + seconds
        try:
            while not advisory.acquire(process_identity()):
                if (who := advisory.holder()) and time.monotonic() >= end:
                    raise HeldError(busy(who))
                time.sleep(POLL_SECONDS)  # without a holder, the lock was released in between
            yield advisory.check
        finally:
            advisory.release()
        return
    # The lock file is never removed: two processes could then lock two files of the same name. The lock is not thread-local:
    # one thread may start a run, and another wait for it.
    folder = _folder(ledger)
    lock = FileLock(folder / f"{name}.lock", thread_local=False)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        who = ""
        with suppress(OSError):
            who = (folder / f"{name}.holder").read_text(encoding="utf-8").strip()
        raise HeldError(busy(who or "?")) from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        yield lambda: None  # a file lock lasts as long as its process
    finally:
        lock.release()


def working(ledger: LedgerConnection, run_id: str) -> Text | None:
    """Return what says who works on a run; None if nobody does, or it cannot be told here. Takes the lock for a moment."""
    try:
        with planning(ledger), hold(ledger, run_id):  # who plans a run waits meanwhile
            return None
    except HeldError as error:
        return error.text
    except UsageError:
        return None


def process_identity() -> str:
    """Return the user, host and process id of this process, as messages name a holder."""
    return f"{operator_name()}@{host_name()}, PID {os.getpid()}"


def _unwritable(folder: Path, error: OSError) -> UsageError:
    raise_if_exhausted(error)
    reason = system_reason(error)
    return UsageError(_("{folder}: {why}. The ledger's folder must be writable.", folder=folder, why=reason))


def lock_folder(file: Path) -> Path:
    """Return the folder of an SQLite ledger's locks: beside the real file, so that all links to it share them."""
    real = file.resolve()
    return real.with_name(f"{real.name}-locks")


def _folder(ledger: LedgerConnection) -> Path:
    """Return the folder of an SQLite ledger's locks; create it if it is missing.

    Raises UsageError if it is a link, or belongs to neither this user nor the ledger's owner: such a folder could let
    two processes work on one run.
    """
    assert ledger.file is not None  # noqa: S101  every other ledger has advisory locks
    folder = lock_folder(ledger.file)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status, owners = folder.lstat(), {ledger.file.stat().st_uid}  # Windows has no user ids
        if hasattr(os, "geteuid"):
            owners.add(os.geteuid())
    except FileExistsError:
        status, owners = None, set()
    except OSError as error:
        raise _unwritable(folder, error) from None
    if status is None or not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners:
        raise UsageError(
            _(
                "{folder} is not your folder: it is a link, a file, or belongs to another user. Remove it, or "
                "choose another ledger with {--ledger}.",
                folder=folder,
            ),
        )
    return folder


# --- how long a lock is relied on ------------------------------------------------------------------------------

_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""The clock that goes on while the machine is suspended: CLOCK_MONOTONIC on macOS. Windows has neither name, and
time.monotonic() counts there."""


def seconds_since_boot() -> float:
    """Return monotonic seconds, in which a suspended machine counts too; `time.monotonic` stands still on a closed laptop."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class LapsedError(TcbOpsError):
    """The lease has passed: nothing was done, and the engine begins the row again once the lease is confirmed."""


class Lease:
    """Whether this process may act on the run: for some seconds after each confirmation that nobody else has taken it."""

    def __init__(self, seconds: float, clock: Callable[[], float] = seconds_since_boot) -> None:
        self.now = clock
        self._seconds = seconds
        self._until = float("-inf")
        self._lost = False

    def confirm(self, asked: float) -> None:
        """Note that a question that was asked at `asked`, by `now`, was answered with yes."""
        self._until = asked + self._seconds

    def lose(self) -> None:
        """Note that another process may have the run. No later confirmation counts."""
        self._lost = True

    @property
    def holds(self) -> bool:
        """Whether rows may begin."""
        return not self._lost and self.now() < self._until

    def check(self) -> None:
        """Raise LapsedError if the lease has passed, as after a freeze. Called right before each effect of a row."""
        if not self.holds:
            raise LapsedError(NOTHING)
