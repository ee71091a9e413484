"""Temporary storage of checked rows and problems, so that memory does not grow with the list.

It is an unnamed temporary SQLite database in the temporary folder, with mode 0600, which no other process can open
and which disappears with its connection, even after a kill.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import groupby
from typing import Any, TypeVar, overload

from tcb_ops.details import Detail, DetailCode, as_detail, detail, read_detail, stored
from tcb_ops.errors import UsageError
from tcb_ops.formatting import trim
from tcb_ops.i18n import Bilingual, Text, _
from tcb_ops.lists.share import Share
from tcb_ops.model import Problem, Row, Secret

_T = TypeVar("_T")
_PAGE = 2_000
"""Rows read at once; between two pages the caller may write."""

_SCHEMA = """
PRAGMA temp_store = FILE;
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -4000;
CREATE TABLE rows (
    line INTEGER PRIMARY KEY, env TEXT, path TEXT, appid TEXT, merchant TEXT, file TEXT, cells TEXT,
    size INTEGER, mtime_ns INTEGER, content_type TEXT, cache_control TEXT,
    etag TEXT NOT NULL DEFAULT '', query TEXT
);
CREATE TABLE problems (
    id INTEGER PRIMARY KEY, line INTEGER, header TEXT, message TEXT, fix_en TEXT, fix_zh TEXT, value TEXT,
    skippable INTEGER, option TEXT, of_file INTEGER
);
CREATE INDEX problems_line ON problems (line);
"""
_PROBLEM = "line, header, message, fix_en, fix_zh, value, skippable, option"
_VALID = "NOT EXISTS (SELECT 1 FROM problems p WHERE p.line = rows.line)"
EVERY_LINE = 1 << 62
_SEPARATOR = "\0"
"""Separates the cells of a row; lists cannot contain NUL."""


class Staging:
    """The rows and problems of a list on disk. Closed by `close`, on garbage collection, or at exit."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._finalizer = weakref.finalize(self, self._db.close)
        self._whole: Staging | None = None
        self.its_rows, self.its_problems = "rows", "problems"
        """What a query selects from: the tables, or a share's part of them under the same names."""
        for statement in _SCHEMA.split(";"):
            self.query(statement)
        # Never committed: the data is temporary and has no other readers.
        self.query("BEGIN")

    @property
    def whole(self) -> Staging:
        """The rows of all shares."""
        return self._whole or self

    def of_share(self, share: Share) -> Staging:
        """Return a view of the rows of a share, and of their problems, until this staging is closed."""
        view, name = copy(self.whole), f"in_share_{share.number}_{share.of}"
        view._whole = self.whole  # also keeps the database open  # noqa: SLF001  its own copy
        self._db.create_function(name, 1, share.has, deterministic=True)
        view.its_rows = f"(SELECT * FROM rows WHERE {name}(appid)) rows"  # noqa: S608  own names
        view.its_problems = (
            f"(SELECT * FROM problems WHERE line IN (SELECT line FROM {view.its_rows})) problems"  # noqa: S608  own names
        )
        return view

    def close(self) -> None:
        """Free the disk space. The data can no longer be read."""
        self._finalizer()

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Add rows with distinct line numbers."""
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
                None if r.query is None else r.query.reveal(),
            )
            for r in rows
        )
        self._put(
            "INSERT INTO rows (line, env, path, appid, merchant, file, cells, content_type, cache_control, query) "
            "VALUES (?,?,?,?,?,?,?,?,?,?)",
            values,
        )

    def add_problems(self, problems: Iterable[Problem], *, file_problem: bool = False) -> None:
        """Add problems; `file_problem` marks those that `clear_file_problems` removes."""
        values = (
            (
                p.line,
                p.column,
                stored(as_detail(p.message)),
                *_both(p.fix),
                p.value,
                p.skippable,
                p.option,
                file_problem,
            )
            for p in problems
        )
        self._put(f"INSERT INTO problems ({_PROBLEM}, of_file) VALUES (?,?,?,?,?,?,?,?,?)", values)  # noqa: S608  own names

    def clear_file_problems(self) -> None:
        """Remove the problems found by an earlier check of local files."""
        self.query("DELETE FROM problems WHERE of_file")

    def always_wrong(self, columns: Mapping[str, str], rows: int) -> list[str]:
        """Return the keys of `columns` whose header has a problem in each of the rows."""
        counted = "SELECT COUNT(DISTINCT line) FROM problems WHERE header = ?"
        return [
            ours for ours, header in columns.items() if self.query(counted, (trim(header),))[0][0] == rows
        ]

    def repeats(self) -> Iterator[tuple[int, int, str]]:
        """Yield (line, first line, path) of every row with the (env, path) of an earlier row, by line.

        Rows with a problem are skipped: their env or path may be wrong.
        """
        # Sorting once, after all inserts, is several times faster than maintaining an index.
        self.query("CREATE INDEX IF NOT EXISTS rows_key ON rows (env, path)")
        self.query("CREATE TABLE repeats (line INTEGER PRIMARY KEY, first INTEGER)")
        self.query(
            "INSERT INTO repeats SELECT r.line, k.first FROM "  # noqa: S608  own names
            f"(SELECT env, path, MIN(line) first FROM rows WHERE {_VALID} GROUP BY env, path HAVING COUNT(*) > 1) k "
            "JOIN rows r ON r.env = k.env AND r.path = k.path "
            "WHERE r.line > k.first AND NOT EXISTS (SELECT 1 FROM problems p WHERE p.line = r.line)"
        )
        last = 0
        while page := self.query(
            "SELECT line, first, path FROM repeats JOIN rows USING (line) WHERE line > ? ORDER BY line LIMIT ?",
            (last, _PAGE),
        ):
            yield from page
            last = page[-1][0]

    def files(self) -> Iterator[list[tuple[int, str, Secret | None]]]:
        """Yield pages of (line, file, its query) of the rows that have a file, by line."""
        last = 0
        while page := self.query(
            f"SELECT line, file, query FROM {self.its_rows} WHERE line > ? AND file <> '' ORDER BY line LIMIT ?",  # noqa: S608  own names
            (last, _PAGE),
        ):
            yield [(line, file, None if query is None else Secret(query)) for line, file, query in page]
            last = page[-1][0]

    def queries(self) -> Iterator[tuple[int, Secret]]:
        """Yield (line, query) of the rows whose file is a URL with a query, valid or not: a resumed run may have them."""
        last = 0
        while page := self.query(
            f"SELECT line, query FROM {self.its_rows} WHERE line > ? AND query IS NOT NULL ORDER BY line LIMIT ?",  # noqa: S608  own names
            (last, _PAGE),
        ):
            yield from ((line, Secret(query)) for line, query in page)
            last = page[-1][0]

    def set_files(self, facts: Iterable[tuple[int | None, int | None, str, int]]) -> None:
        """Set (size, mtime_ns, etag, line) of rows."""
        self._put("UPDATE rows SET size = ?, mtime_ns = ?, etag = ? WHERE line = ?", facts)

    def rows(self, until: int | None = None) -> Iterator[Row]:
        """Yield all rows by line, those with a problem marked invalid; with `until`, only valid ones up to that line."""
        last, end = 0, EVERY_LINE if until is None else until
        only = f"AND {_VALID}" if until is not None else ""
        while page := self.query(
            "SELECT line, env, path, appid, merchant, file, cells, size, mtime_ns, content_type, cache_control, etag "  # noqa: S608  own names
            f"FROM {self.its_rows} "
            f"WHERE line > ? AND line <= ? {only} ORDER BY line LIMIT ?",
            (last, end, _PAGE),
        ):
            invalid = self._messages(last, page[-1][0])
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

    def of_valid(self, columns: str, until: int | None, rest: str = "") -> list[Any]:
        """Select columns or aggregates from the valid rows up to a line; `rest` groups, sorts or limits them."""
        return self.query(
            f"SELECT {columns} FROM {self.its_rows} WHERE line <= ? AND {_VALID} {rest}",  # noqa: S608  own names
            (EVERY_LINE if until is None else until,),
        )

    def line_of_valid(self, n: int) -> int:
        """Return the line of the nth valid row; EVERY_LINE if there are fewer, 0 for n < 1."""
        if n < 1:
            return 0
        found = self.query(
            f"SELECT line FROM {self.its_rows} WHERE {_VALID} ORDER BY line LIMIT 1 OFFSET ?",  # noqa: S608  own names
            (n - 1,),
        )
        return int(found[0][0]) if found else EVERY_LINE

    def count(self) -> int:
        """Count the rows, those with a problem included."""
        return int(self.query(f"SELECT COUNT(*) FROM {self.its_rows}")[0][0])  # noqa: S608  own names

    def query(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Run a statement and return all its rows, at most one page."""
        return _run(lambda: self._db.execute(sql, values).fetchall())

    def _put(self, sql: str, values: Iterable[tuple[object, ...]]) -> None:
        _run(lambda: self._db.executemany(sql, values))

    def _messages(self, after: int, upto: int) -> dict[int, Text]:
        messages: dict[int, Text] = {}
        for line, value in self.query(
            "SELECT line, message FROM problems WHERE line > ? AND line <= ? ORDER BY id", (after, upto)
        ):
            message, first = _message(value), messages.get(line)
            messages[line] = (
                message if first is None else detail(DetailCode.BOTH, first=first, second=message)
            )
        return messages


class Problems(Sequence[Problem]):
    """The problems of a list in the order of the file, read from disk on access."""

    def __init__(self, staging: Staging, headers: tuple[str, ...]) -> None:
        self._staging = staging
        self.headers = headers

    def __len__(self) -> int:
        return int(self._staging.query(f"SELECT COUNT(*) FROM {self._staging.its_problems}")[0][0])  # noqa: S608  own names

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
        """Yield (cells, problems) of every row that has problems, by line."""
        for _other, group in groupby(self, key=lambda p: p.line):
            problems = list(group)
            found = self._staging.query("SELECT cells FROM rows WHERE line = ?", (problems[0].line,))
            if found:
                yield tuple(found[0][0].split(_SEPARATOR)), problems

    def _page(self, where: str, values: tuple[object, ...], limit: str) -> list[tuple[int, Problem]]:
        found = self._staging.query(
            f"SELECT id, {_PROBLEM} FROM {self._staging.its_problems} {where} ORDER BY line, id {limit}",  # noqa: S608  own names
            values,
        )
        return [
            (
                at,
                Problem(
                    line, header, _message(message), Bilingual(fix_en, fix_zh), value, bool(skippable), option
                ),
            )
            for at, line, header, message, fix_en, fix_zh, value, skippable, option in found
        ]


def _message(value: str) -> Detail:
    found = read_detail(value)
    assert found is not None  # noqa: S101  every problem has one
    return found


def _both(text: Text) -> tuple[str, str]:
    return text.en, text.zh


def _run(call: Callable[[], _T]) -> _T:
    """Run an SQLite call. Raises UsageError for its errors."""
    try:
        return call()
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    if full:
        problem = _(
            "the temporary folder is full, so the list could not be checked: free space, or set TMPDIR to "
            "another folder"
        )
    else:
        problem = _(
            "the list's temporary copy cannot be read: it was closed, or the temporary folder failed; read "
            "the list again"
        )
    raise UsageError(problem)
