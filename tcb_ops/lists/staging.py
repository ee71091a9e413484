"""Checked rows and problems on disk, so that memory does not grow with the list.

The store is SQLite's own kind of temporary database (an empty file name): it lies in the temporary folder under
0600, has no name that others could open, and is gone with its connection, even after a kill. The one module of this
wing that knows sqlite3.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, overload

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.model import Problem, Row

_PAGE = 2_000
"""Rows taken at once; between two pages the reader may write."""

_SCHEMA = """
PRAGMA temp_store = FILE;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -4000;
CREATE TABLE rows (
    line INTEGER PRIMARY KEY, env TEXT, path TEXT, appid TEXT, merchant TEXT, file TEXT, cells TEXT,
    size INTEGER, mtime_ns INTEGER, content_type TEXT, cache_control TEXT
);
CREATE TABLE problems (
    id INTEGER PRIMARY KEY, line INTEGER, header TEXT, en TEXT, zh TEXT, fix_en TEXT, fix_zh TEXT, value TEXT,
    skippable INTEGER, option TEXT, of_file INTEGER
);
CREATE INDEX problems_line ON problems (line);
"""
_PROBLEM = "line, header, en, zh, fix_en, fix_zh, value, skippable, option"
_VALID = "NOT EXISTS (SELECT 1 FROM problems p WHERE p.line = rows.line)"
EVERY_LINE = 1 << 62
_SEPARATOR = "\0"
"""Between the cells of a row: decode.py lets no NUL through."""


class Staging:
    """A list on disk: its rows and its problems. Closed by `close`, with its last reference, or at exit."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._finalizer = weakref.finalize(self, self._db.close)
        for statement in _SCHEMA.split(";"):
            self.ask(statement)
        # Never committed: nobody else can see it, and nothing of it is to stay.
        self.ask("BEGIN")

    def close(self) -> None:
        """Give the disk space back; what was read from it stays, what was not is lost."""
        self._finalizer()

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Add rows, each line once."""
        values = (
            (
                r.line,
                r.env,
                r.path,
                r.appid,
                r.merchant,
                r.file,
                _SEPARATOR.join(r.cells),
                r.content_type,
                r.cache_control,
            )
            for r in rows
        )
        self._put(
            "INSERT INTO rows (line, env, path, appid, merchant, file, cells, content_type, cache_control) "
            "VALUES (?,?,?,?,?,?,?,?,?)",
            values,
        )

    def add_problems(self, problems: Iterable[Problem], *, file_problem: bool = False) -> None:
        """Add problems; `file_problem` marks what `clear_file_problems` takes away again."""
        values = (
            (p.line, p.column, *_both(p.message), *_both(p.fix), p.value, p.skippable, p.option, file_problem)
            for p in problems
        )
        self._put(f"INSERT INTO problems ({_PROBLEM}, of_file) VALUES (?,?,?,?,?,?,?,?,?,?)", values)  # noqa: S608  own names

    def clear_file_problems(self) -> None:
        """Forget what an earlier look at the local files found."""
        self.ask("DELETE FROM problems WHERE of_file")

    def repeats(self) -> Iterator[tuple[int, int, str]]:
        """(line, first line, path) of every row whose (env, path) a row before it has too, by line.

        Rows that have a problem already are passed over: what their env or path means is not known.
        """
        # Sorting once, after the rows are in, is several times quicker than keeping an index while they come.
        self.ask("CREATE INDEX IF NOT EXISTS rows_key ON rows (env, path)")
        self.ask("CREATE TABLE repeats (line INTEGER PRIMARY KEY, first INTEGER)")
        self.ask(
            "INSERT INTO repeats SELECT r.line, k.first FROM "  # noqa: S608  own names
            f"(SELECT env, path, MIN(line) first FROM rows WHERE {_VALID} GROUP BY env, path HAVING COUNT(*) > 1) k "
            "JOIN rows r ON r.env = k.env AND r.path = k.path "
            "WHERE r.line > k.first AND NOT EXISTS (SELECT 1 FROM problems p WHERE p.line = r.line)"
        )
        last = 0
        while page := self.ask(
            "SELECT line, first, path FROM repeats JOIN rows USING (line) WHERE line > ? ORDER BY line LIMIT ?",
            (last, _PAGE),
        ):
            yield from page
            last = page[-1][0]

    def files(self) -> Iterator[list[tuple[int, str]]]:
        """Pages of (line, local file), by line; rows that name none are left out."""
        last = 0
        while page := self.ask(
            "SELECT line, file FROM rows WHERE line > ? AND file <> '' ORDER BY line LIMIT ?", (last, _PAGE)
        ):
            yield page
            last = page[-1][0]

    def set_files(self, facts: Iterable[tuple[int, int, int]]) -> None:
        """Write down (size, mtime_ns, line)."""
        self._put("UPDATE rows SET size = ?, mtime_ns = ? WHERE line = ?", facts)

    def rows(self, until: int | None = None) -> Iterator[Row]:
        """Every row by line, those with a problem marked invalid; with `until`, the valid ones up to that line."""
        last, end = 0, EVERY_LINE if until is None else until
        only = f"AND {_VALID}" if until is not None else ""
        while page := self.ask(
            "SELECT line, env, path, appid, merchant, file, cells, size, mtime_ns, content_type, cache_control "  # noqa: S608  own names
            "FROM rows "
            f"WHERE line > ? AND line <= ? {only} ORDER BY line LIMIT ?",
            (last, end, _PAGE),
        ):
            invalid = self._said(last, page[-1][0])
            for line, env, path, appid, merchant, file, cells, size, mtime_ns, *headers in page:
                yield Row(
                    line,
                    env,
                    path,
                    appid,
                    merchant,
                    file,
                    tuple(cells.split(_SEPARATOR)),
                    size,
                    mtime_ns,
                    invalid.get(line),
                    *headers,
                )
            last = page[-1][0]

    def count(self, what: str, until: int | None = None) -> int:
        """Count (or sum) a column expression over the valid rows up to a line."""
        found = self.ask(
            f"SELECT {what} FROM rows WHERE line <= ? AND {_VALID}",  # noqa: S608  own names
            (EVERY_LINE if until is None else until,),
        )
        return int(found[0][0] or 0)

    def most_of(self, column: str, until: int | None = None) -> int:
        """The valid rows of the column's most frequent value."""
        found = self.ask(
            f"SELECT COUNT(*) n FROM rows WHERE line <= ? AND {_VALID} GROUP BY {column} ORDER BY n DESC LIMIT 1",  # noqa: S608  own names
            (EVERY_LINE if until is None else until,),
        )
        return int(found[0][0]) if found else 0

    def by_merchant(self, until: int | None = None) -> list[tuple[str, str, int, int, int]]:
        """Of the valid rows: (appid, merchant, environments, rows, bytes), most rows first."""
        return self.ask(
            f"SELECT appid, merchant, COUNT(DISTINCT env), COUNT(*) n, COALESCE(SUM(size), 0) FROM rows "  # noqa: S608  own names
            f"WHERE line <= ? AND {_VALID} GROUP BY appid, merchant ORDER BY n DESC, merchant",
            (EVERY_LINE if until is None else until,),
        )

    def by_place(self, until: int | None = None) -> list[tuple[str, str, int]]:
        """Of the valid rows: (appid, env, rows)."""
        return self.ask(
            f"SELECT appid, env, COUNT(*) FROM rows WHERE line <= ? AND {_VALID} GROUP BY appid, env",  # noqa: S608  own names
            (EVERY_LINE if until is None else until,),
        )

    def line_of_valid(self, n: int) -> int:
        """The line of the nth valid row; EVERY_LINE where there are fewer, 0 for none of them."""
        if n < 1:
            return 0
        found = self.ask(
            f"SELECT line FROM rows WHERE {_VALID} ORDER BY line LIMIT 1 OFFSET ?",  # noqa: S608  own names
            (n - 1,),
        )
        return int(found[0][0]) if found else EVERY_LINE

    def ask(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        """All answers of one statement: what is asked for fits a page."""
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            failed = _failed(error)
        raise failed

    def _put(self, sql: str, values: Iterable[tuple[object, ...]]) -> None:
        try:
            self._db.executemany(sql, values)
        except sqlite3.Error as error:
            failed = _failed(error)
        else:
            return
        raise failed

    def _said(self, after: int, upto: int) -> dict[int, Text]:
        said: dict[int, Text] = {}
        for line, en, zh in self.ask(
            "SELECT line, en, zh FROM problems WHERE line > ? AND line <= ? ORDER BY id", (after, upto)
        ):
            first = said.get(line)
            said[line] = Text(en, zh) if first is None else Text(f"{first.en}; {en}", f"{first.zh}；{zh}")
        return said


class Problems(Sequence[Problem]):
    """The problems of a list in the order of the file, read from disk as they are asked for.

    `headers` are the list's own columns; `by_row` joins the problems to the cells they are about.
    """

    def __init__(self, staging: Staging, headers: tuple[str, ...]) -> None:
        self._staging = staging
        self.headers = headers

    def __len__(self) -> int:
        return int(self._staging.ask("SELECT COUNT(*) FROM problems")[0][0])

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        found = self._page("", (), f"LIMIT 1 OFFSET {at}") if at >= 0 else []
        if not found:
            raise IndexError(index)
        return found[0][1]

    def __iter__(self) -> Iterator[Problem]:
        line, last = -1, -1
        while page := self._page("WHERE (line, id) > (?, ?)", (line, last), f"LIMIT {_PAGE}"):
            for last, problem in page:  # noqa: B007  where the next page begins
                yield problem
            line = page[-1][1].line

    def by_row(self) -> Iterator[tuple[tuple[str, ...], list[Problem]]]:
        """(cells, problems) of every row that has problems, by line."""
        for _, group in groupby(self, key=lambda p: p.line):
            problems = list(group)
            found = self._staging.ask("SELECT cells FROM rows WHERE line = ?", (problems[0].line,))
            if found:
                yield tuple(found[0][0].split(_SEPARATOR)), problems

    def _page(self, where: str, values: tuple[object, ...], limit: str) -> list[tuple[int, Problem]]:
        found = self._staging.ask(
            f"SELECT id, {_PROBLEM} FROM problems {where} ORDER BY line, id {limit}",  # noqa: S608  own names
            values,
        )
        return [
            (at, Problem(line, header, Text(en, zh), Text(fix_en, fix_zh), value, bool(skippable), option))
            for at, line, header, en, zh, fix_en, fix_zh, value, skippable, option in found
        ]


def _both(text: Text) -> tuple[str, str]:
    return text.en, text.zh


def _failed(error: sqlite3.Error) -> UsageError:
    if "full" in str(error):
        return UsageError(
            Text(
                "the temporary folder is full, so the list could not be checked: make room, or set TMPDIR to another folder",
                "临时文件夹已满，清单没有检查完：请腾出空间，或用 TMPDIR 指定别的文件夹",
            )
        )
    return UsageError(
        Text(
            "the list's temporary copy cannot be read: it was closed, or the temporary folder failed; read the list again",
            "清单的临时副本无法读取：它已关闭，或临时文件夹出错；请重新读取清单",
        )
    )
