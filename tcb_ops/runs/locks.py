"""One sitting at a time works on a run: an operating system's lock on a file beside the ledger.

A kill frees it. The text beside it only names the holder, for the message.
"""

from __future__ import annotations

import getpass
import os
import socket
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from tcb_ops.errors import UsageError
from tcb_ops.model import Text
from tcb_ops.resources import raise_if_exhausted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tcb_ops.runs.ledger import Ledger

__all__ = ["PLANNING_SECONDS", "hold", "host_name", "operator_name", "planning", "working"]


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


@contextmanager
def planning(ledger: Ledger) -> Iterator[None]:
    """Plan alone: of two commands on the same list at once, the second finds the first one's run."""
    folder = _folder(ledger)
    lock = FileLock(folder / "planning.lock")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(timeout=PLANNING_SECONDS)
    except Timeout:
        raise UsageError(
            Text(
                f"another command has been planning in {ledger.name} for {PLANNING_SECONDS} s. Try again later.",
                f"另一个命令已在 {ledger.name} 中规划了 {PLANNING_SECONDS} 秒。请稍后再试。",
            )
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def hold(ledger: Ledger, run_id: str) -> Iterator[None]:
    """Hold a run for as long as the block lasts. Raises UsageError naming the holder when another process has it."""
    folder = _folder(ledger)
    lock = FileLock(folder / f"{run_id}.lock")
    holder = folder / f"{run_id}.holder"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        who = "?"
        with suppress(OSError):
            who = holder.read_text(encoding="utf-8").strip()
        raise UsageError(
            Text(
                f"run {run_id} is being worked on by {who}. Wait for it, or stop it there.",
                f"任务 {run_id} 正由 {who} 执行。请等待它结束，或在那边停止它。",
            )
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        with suppress(OSError):  # a full disk: it only names the holder
            holder.write_text(f"{_me()}\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()  # its empty file stays: unlinked, it would let two processes lock two files of one name


def working(ledger: Ledger, run_id: str) -> str:
    """Who else works on a run at this moment, as far as it can be known here; empty for nobody."""
    folder = _folder(ledger)
    try:
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


def _me() -> str:
    return f"{operator_name()}@{host_name()}, process {os.getpid()}"


def _unwritable(folder: Path, error: OSError) -> UsageError:
    raise_if_exhausted(error)
    why = error.strerror or "cannot be written"
    return UsageError(
        Text(
            f"{folder}: {why}. The ledger's folder must be writable.",
            f"{folder}：{why}。台账所在文件夹必须可写。",
        )
    )


def _folder(ledger: Ledger) -> Path:
    if ledger.file is not None:
        return ledger.file.with_name(f"{ledger.file.name}-locks")
    return Path(tempfile.gettempdir()) / f"tcb-ops-locks-{operator_name()}"
