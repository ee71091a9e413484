"""One session at a time works on a run: it holds an advisory lock in PostgreSQL, or a lock on a file beside SQLite's.

A kill frees either. What names the holder is only for the message.
"""

from __future__ import annotations

import getpass
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.resources import raise_if_exhausted
from tcb_ops.runs.ledger import Ledger


def operator_name() -> str:
    """Who runs this, as the operating system knows them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "?"


def host_name() -> str:
    """The name of this machine."""
    return socket.gethostname()


PLANNING_SECONDS = 300
"""How long a command waits for another one's planning: a million rows take some ten seconds."""
POLL_SECONDS = 0.05
"""Seconds between two tries to take the lock for planning in a database."""


@contextmanager
def planning(ledger: Ledger) -> Iterator[Callable[[], None]]:
    """Plan alone: of two commands on the same list at once, the second finds the first one's run.

    Gives a function that raises LedgerError where that is not so any more.
    """
    with ExitStack() as stack:
        if (lock := ledger.advisory_lock("planning")) is not None:
            stack.callback(lock.release)
            end = time.monotonic() + PLANNING_SECONDS
            while not lock.acquire(_me()):
                if time.monotonic() > end:
                    raise _still_planning(ledger)
                time.sleep(POLL_SECONDS)
            yield lock.confirm
            return
        folder = _folder(ledger)
        file = FileLock(folder / "planning.lock", thread_local=False)
        try:
            file.acquire(timeout=PLANNING_SECONDS)
        except Timeout:
            raise _still_planning(ledger) from None
        except OSError as error:
            raise _unwritable(folder, error) from None
        stack.callback(file.release)
        yield _confirmed


@contextmanager
def hold(ledger: Ledger, run_id: str) -> Iterator[Callable[[], None]]:
    """Hold a run for as long as the block lasts. Raises UsageError naming the holder when another process has it.

    Gives a function that asks whether the run is still held, and raises LedgerError where it is not. The end of the
    connection to the database frees an advisory lock, so that another process may work on the run.
    """
    with ExitStack() as stack:
        if (lock := ledger.advisory_lock(run_id)) is not None:
            stack.callback(lock.release)
            while not lock.acquire(_me()):
                if who := lock.holder():  # nobody: it was let go of in between
                    raise _held(run_id, who)
            yield lock.confirm
            return
        folder = _folder(ledger)
        holder = folder / f"{run_id}.holder"
        # Not of one thread: a run that is begun in one may be waited for in another.
        file = FileLock(folder / f"{run_id}.lock", thread_local=False)
        try:
            file.acquire(timeout=0)
        except Timeout:
            who = "?"
            with suppress(OSError):
                who = holder.read_text(encoding="utf-8").strip()
            raise _held(run_id, who) from None
        except OSError as error:
            raise _unwritable(folder, error) from None
        # Its empty file stays: unlinked, it would let two processes lock two files of one name.
        stack.callback(file.release)
        with suppress(OSError):  # a full disk: it only names the holder
            holder.unlink(missing_ok=True)
            with holder.open("x", encoding="utf-8") as out:  # a new file: links are never followed
                out.write(f"{_me()}\n")
        stack.callback(_remove, holder)
        yield _confirmed


def working(ledger: Ledger, run_id: str) -> str:
    """Who else works on a run at this moment, as far as it can be known here; empty for nobody."""
    if (lock := ledger.advisory_lock(run_id)) is not None:
        who = lock.holder()
        return "" if who == _me() else who
    try:
        folder = _place(ledger)
        who = (folder / f"{run_id}.holder").read_text(encoding="utf-8").strip()
        if who == _me():
            return ""
        # While nobody plans, or whoever begins to work on it would be told that the dead one does.
        with planning(ledger), FileLock(folder / f"{run_id}.lock").acquire(timeout=0):
            return ""  # it was killed
    except Timeout:
        return who
    except (OSError, NotImplementedError, UsageError):
        return ""


def _confirmed() -> None:
    """A file's lock lasts as long as its process."""


def _me() -> str:
    return f"{operator_name()}@{host_name()}, process {os.getpid()}"


def _remove(holder: Path) -> None:
    with suppress(OSError):
        holder.unlink()


def _held(run_id: str, who: str) -> UsageError:
    return UsageError(
        Text(
            f"run {run_id} is being worked on by {who}. Wait for it, or stop it there.",
            f"任务 {run_id} 正由 {who} 执行。请等待它结束，或在那边停止它。",
        )
    )


def _still_planning(ledger: Ledger) -> UsageError:
    return UsageError(
        Text(
            f"another command has been planning in {ledger.name} for {PLANNING_SECONDS} s. Try again later.",
            f"另一个命令已在 {ledger.name} 中规划了 {PLANNING_SECONDS} 秒。请稍后再试。",
        )
    )


def _unwritable(folder: Path, error: OSError) -> UsageError:
    raise_if_exhausted(error)
    why = error.strerror or "cannot be written"
    return UsageError(
        Text(
            f"{folder}: {why}. The ledger's folder must be writable.",
            f"{folder}：{why}。台账所在文件夹必须可写。",
        )
    )


def _place(ledger: Ledger) -> Path:
    """Where an SQLite ledger's locks are: beside the file itself, so that two links to one ledger share them."""
    assert ledger.file is not None  # noqa: S101  every other ledger has advisory locks
    real = ledger.file.resolve()
    return real.with_name(f"{real.name}-locks")


def _folder(ledger: Ledger) -> Path:
    """The folder of an SQLite ledger's locks, made if need be.

    Raises UsageError where it is a link, or belongs to neither this user nor the ledger's owner: whoever placed it
    could let two processes work on one run.
    """
    folder = _place(ledger)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        trusted = {found.st_uid}  # Windows has no such owners
        if hasattr(os, "geteuid"):
            trusted = {os.geteuid(), folder.with_name(folder.name.removesuffix("-locks")).stat().st_uid}
    except FileExistsError:
        found, trusted = None, set()
    except OSError as error:
        raise _unwritable(folder, error) from None
    if found is None or not stat.S_ISDIR(found.st_mode) or found.st_uid not in trusted:
        raise UsageError(
            Text(
                f"{folder} is not a folder of yours: it is a link, a file, or another user's. Remove it, or name another "
                "ledger with --ledger.",
                f"{folder} 不是您的文件夹：它是链接、文件，或属于其他用户。请将其删除，或用 --ledger 指定另一个台账。",
            )
        )
    return folder
