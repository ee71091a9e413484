"""Damage to a ledger: how it is recognised, what is reported, and a check of the database file in bounded time."""

from __future__ import annotations

import shlex
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.errors import LedgerDamagedError
from tcb_ops.i18n import Text

if TYPE_CHECKING:
    from sqlalchemy.exc import SQLAlchemyError

CHECK_SECONDS = 2.0
"""How long the check of a database file may take; what it has not come to by then stays unchecked."""
_STEPS = 1_000
"""SQLite's steps between two looks at the clock."""
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""SQLite's primary codes of a damaged file. SQLITE_ERROR is a statement that does not fit: a table is missing."""


def damaged(name: str, file: Path | None, what: Text) -> LedgerDamagedError:
    """Make the error that reports damage: what was found, in which ledger, and what to do."""
    if file is None:
        todo = Text(
            "Restore the database from a backup. Reports exported earlier still show their runs; a new ledger (--ledger) "
            "sends every file of a list again.",
            "请从备份恢复数据库。之前导出的报告仍能说明对应任务的情况；改用新台账（--ledger）会把清单中的所有文件重新发送。",
        )
    else:
        here = file.absolute()
        recovered = here.with_name(f"{here.stem}.recovered{here.suffix}")
        command = f"sqlite3 {shlex.quote(str(here))} .recover | sqlite3 {shlex.quote(str(recovered))}"
        todo = Text(
            f"Do not use this file any more. Best: move it, its -wal and its -shm file elsewhere and put a backup in its "
            f"place. Without a backup, recover what can be read: `{command}`, then add --ledger "
            f"{shlex.quote(str(recovered))}; rows are counted again there, so a run that is not complete is still refused. "
            "Reports exported earlier still show their runs. A new ledger sends every file of a list again.",
            f"请不要再使用此文件。最好把它连同 -wal、-shm 文件一起移走，再放回备份。没有备份时，可恢复仍能读取的部分：`{command}`，"
            f"然后加上 --ledger {shlex.quote(str(recovered))}；行数会重新核对，不完整的任务仍会被拒绝。"
            "之前导出的报告仍能说明对应任务的情况。改用新台账会把清单中的所有文件重新发送。",
        )
    return LedgerDamagedError(
        Text(
            f"the ledger {name} is damaged: {what.en}. {todo.en}",
            f"台账 {name} 已损坏：{what.zh}。{todo.zh}",
        )
    )


def is_damage(error: SQLAlchemyError | sqlite3.Error) -> bool:
    """Whether SQLite says that the file is damaged, rather than locked, full or out of reach."""
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
    """Have SQLite check its file for at most so many seconds; give the first fault, empty where none was found.

    The pages of all tables and indexes come first, then whether each index agrees with its table.
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


orphaned_runs = """
WITH RECURSIVE used (run) AS (
    SELECT min(run) FROM rows
    UNION
    SELECT (SELECT min(run) FROM rows WHERE rows.run > used.run) FROM used WHERE used.run IS NOT NULL
)
SELECT run FROM used WHERE run IS NOT NULL AND run NOT IN (SELECT number FROM runs)
"""
"""Select the numbers of runs that have rows, but no record: one step per run, however many rows there are.

UNION, not UNION ALL: in a damaged index the next run may be one that was there before."""
