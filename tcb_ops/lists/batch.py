"""The checked rows of a list and their problems: a batch.

They are on disk, so that memory does not grow with the list: in an unnamed temporary SQLite database in the temporary
folder, with mode 0600, which no other process can open and which disappears with its connection, even after a kill.
"""

from __future__ import annotations

import pickle
import sqlite3
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Self, TypeVar, overload

from tcb_ops.arguments import checked
from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.errors import InputError, UsageError, check_count
from tcb_ops.formatting import format_size, sanitize, shown, trim
from tcb_ops.frames import Given, Lines, Tabular
from tcb_ops.hooks import FOR_RESULTS
from tcb_ops.i18n import Lang, Text, _, as_facts, as_list, ngettext
from tcb_ops.kinds import environment_count, merchant_count, row_count
from tcb_ops.lists.input_files import input_error
from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.row_files import LocalFiles, SourceCheck, UnusableFile, refuse_sources, whole_source
from tcb_ops.model import Merchant, OnBad, Problem, Row, Secret, Selection, SourceFile, is_source

# --- rows and problems on disk -------------------------------------------------------------------------------------

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
    etag TEXT NOT NULL DEFAULT '', query TEXT, origin TEXT, of_line INTEGER
);
CREATE TABLE problems (
    id INTEGER PRIMARY KEY, line INTEGER, header TEXT, texts BLOB, value TEXT, skippable INTEGER, answer TEXT,
    of_file INTEGER
);
CREATE INDEX problems_line ON problems (line);
"""
_PROBLEM = "line, header, value, skippable, answer, texts"
_problem = attrgetter("line", "column", "value", "skippable", "answer")
_ROW = "line, env, path, appid, merchant, file, content_type, cache_control, origin, of_line"
_row = attrgetter(*_ROW.split(", "))
_VALID = "NOT EXISTS (SELECT 1 FROM problems p WHERE p.line = rows.line)"
EVERY_LINE = 1 << 62
_SEPARATOR = "\0"
"""Separates the cells of a row; lists cannot contain NUL."""


class Staging:
    """The rows and problems of a list on disk. Closed by `close`, on garbage collection, or at exit."""

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._finalizer = weakref.finalize(self, self._db.close)
        for statement in _SCHEMA.split(";"):
            self.query(statement)
        # Never committed: the data is temporary and has no other readers.
        self.query("BEGIN")

    def close(self) -> None:
        """Free the disk space. The data can no longer be read."""
        self._finalizer()

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Add rows with distinct line numbers."""
        self._put(
            f"INSERT INTO rows ({_ROW}, cells, query) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608  own names
            ((*_row(r), _SEPARATOR.join(r.cells), r.query and r.query.reveal()) for r in rows),
        )

    def add_problems(self, problems: Iterable[Problem], *, file_problem: bool = False) -> None:
        """Add problems; `file_problem` marks those of a check of files, which the next check removes."""
        self._put(
            f"INSERT INTO problems ({_PROBLEM}, of_file) VALUES (?,?,?,?,?,?,{int(file_problem)})",  # noqa: S608  own names
            ((*_problem(p), pickle.dumps((p.message, p.fix))) for p in problems),
        )

    def repeats(self) -> Iterator[tuple[int, int, str]]:
        """Yield (line, first line, path) of every row with the (env, path) of an earlier row, by line.

        Rows with a problem are skipped: their env or path may be wrong.
        """
        firsts = f"SELECT env, path, MIN(line) AS first FROM rows WHERE {_VALID} GROUP BY env, path HAVING COUNT(*) > 1"  # noqa: S608  own names
        later = f"rows.line > first AND {_VALID} ORDER BY rows.line"
        sql = f"SELECT rows.line, first, path FROM ({firsts}) JOIN rows USING (env, path) WHERE {later}"  # noqa: S608  own names
        for page in self.pages(sql):
            yield from page

    def files(self) -> Iterator[list[tuple[int, str, Secret | None]]]:
        """Yield pages of (line, file, its query) of the rows that have a file, by line."""
        for page in self.pages("SELECT line, file, query FROM rows WHERE file <> '' ORDER BY line"):
            yield [(line, file, None if query is None else Secret(query)) for line, file, query in page]

    def queries(self, line: str = "line") -> Iterator[tuple[int, Secret]]:
        """Yield (line, query) of the rows whose file is a URL with a query, valid or not: a resumed run may have them."""
        for page in self.pages(f"SELECT {line}, query FROM rows WHERE query IS NOT NULL ORDER BY line"):  # noqa: S608  own names
            yield from ((number, Secret(query)) for number, query in page)

    def origin(self) -> tuple[str, bool]:
        """Return the origin of a row, and whether each row says from which line it is, none as another one."""
        different = "MIN(of_line) > 0 AND COUNT(*) = COUNT(DISTINCT of_line)"
        origin, is_clear = self.query(f"SELECT MAX(origin), {different} FROM rows")[0]  # noqa: S608  own names
        return str(origin), bool(is_clear)

    def set_files(self, facts: Iterable[tuple[int | None, int | None, str, int]]) -> None:
        """Set (size, mtime_ns, etag, line) of rows."""
        self._put("UPDATE rows SET size = ?, mtime_ns = ?, etag = ? WHERE line = ?", facts)

    def rows(self, until: int | None = None) -> Iterator[Row]:
        """Yield all rows by line, those with a problem marked invalid; with `until`, only valid ones up to that line."""
        only = "TRUE" if until is None else f"line <= {until} AND {_VALID}"
        columns = (
            "line, env, path, appid, merchant, file, cells, size, mtime_ns, content_type, cache_control, etag"
        )
        sql = f"SELECT {columns}, NULL, origin, of_line FROM rows WHERE {only} ORDER BY line"  # noqa: S608  own names
        for page in self.pages(sql):
            invalid = self._messages(page[0][0], page[-1][0])
            for line, env, path, appid, merchant, file, cells, size, mtime_ns, *rest in page:
                target = line, env, path, appid, merchant, file
                texts = tuple(cells.split(_SEPARATOR))
                yield Row(*target, texts, size, mtime_ns, invalid.get(line), *rest)

    def pages(self, sql: str) -> Iterator[list[Any]]:
        """Run a query and yield pages of its rows."""
        cursor = _run(lambda: self._db.execute(sql))
        while page := _run(lambda: cursor.fetchmany(_PAGE)):
            yield page

    def count(self) -> int:
        """Count the rows, those with a problem included."""
        return int(self.query("SELECT COUNT(*) FROM rows")[0][0])

    def query(self, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Run a statement and return all its rows, at most one page."""
        return _run(lambda: self._db.execute(sql, values).fetchall())

    def _put(self, sql: str, values: Iterable[tuple[object, ...]]) -> None:
        _run(lambda: self._db.executemany(sql, values))

    def _messages(self, first_line: int, last_line: int) -> dict[int, Text]:
        messages: dict[int, Text] = {}
        for line, value in self.query(
            "SELECT line, texts FROM problems WHERE line BETWEEN ? AND ? ORDER BY id",
            (first_line, last_line),
        ):
            message, first = as_detail(_texts(value)[0]), messages.get(line)
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
        return int(self._staging.query("SELECT COUNT(*) FROM problems")[0][0])

    def __repr__(self) -> str:
        return f"<{ngettext('{n:,} problem', '{n:,} problems', len(self))}>"

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        return next(self._read(f"LIMIT 1 OFFSET {numbers}"))

    def __iter__(self) -> Iterator[Problem]:
        return self._read()

    @property
    def rows(self) -> int:
        """The number of rows that have problems."""
        return int(self._staging.query(f"SELECT COUNT(*) FROM rows WHERE NOT {_VALID}")[0][0])  # noqa: S608  own names

    def by_row(self) -> Iterator[tuple[tuple[str, ...], str, int, list[Problem]]]:
        """Yield (cells, its origin, or the list's SHA-256, its line there, problems) of every row with problems, by line."""
        query = "SELECT cells, IIF(of_line, origin, ?), IIF(of_line, of_line, line) FROM rows WHERE line = ?"
        for line, group in groupby(self, key=lambda p: p.line):
            problems = list(group)
            for cells, origin, of_line in self._staging.query(query, (self._staging.sha256, line)):
                yield tuple(cells.split(_SEPARATOR)), origin, of_line, problems

    def _read(self, limit: str = "") -> Iterator[Problem]:
        for page in self._staging.pages(f"SELECT {_PROBLEM} FROM problems ORDER BY line, id {limit}"):  # noqa: S608  own names
            for line, column, value, skippable, answer, texts in page:
                yield Problem(line, column, *_texts(texts), value, bool(skippable), answer)


def _texts(kept: bytes) -> tuple[Text, Text]:
    """Return the message and the fix of a problem, which know who shows them: a terminal, Python, a panel."""
    texts: tuple[Text, Text] = pickle.loads(kept)  # noqa: S301  from a file that only this process can open
    return texts


def _run(call: Callable[[], _T]) -> _T:
    with suppress(sqlite3.Error):
        return call()
    raise UsageError(
        _(
            "The list's temporary copy cannot be used: it was closed, or the temporary folder is full. Read the list again, "
            "with free space there, or with TMPDIR set to another folder."
        )
    )


# --- the batch ------------------------------------------------------------------------------------------------------


_FOR_USERS = (
    "source decided encoding headers root count valid problems warnings merchants envs total_bytes by_merchant rows "
    "limited check_files frame close"
)
"""The names of a Batch that are for users, and so for completion."""


@dataclass(frozen=True, slots=True, repr=False)
class Batch(Tabular):
    """The checked rows of a list, stored on disk until the batch is closed or garbage-collected.

    Immutable: `check_files` and `limited` return another view of the same rows.
    """

    source: Path
    """As given by the operator."""
    sha256: str
    """Of the file's bytes, 64 hex digits."""
    bytes: int
    headers: tuple[str, ...]
    """As in the file, without columns that begin with `tcb_`."""
    encoding: str
    warnings: tuple[Text, ...]
    decided: Text
    """One line with the detected encoding, delimiter, columns, and number of rows."""
    merchants: Merchants = field(repr=False)
    left_out: int
    """Rows that `--where` excludes; they are not in the batch."""
    on_bad: OnBad
    root: Path | None
    """The folder of the local files; None if they were not checked."""
    staging: Staging = field(repr=False)
    file_column: str = field(default="", repr=False)
    """The header named in problems of local files."""
    unused: tuple[str, ...] = ()
    """The headers of columns that are only carried through."""
    selection: Selection = field(default_factory=Selection, repr=False)
    """Which part of the list and of the merchants it is, as runs record it."""
    exported: frozenset[str] = frozenset()
    """The headers that begin with `tcb_`."""
    sources: SourceCheck = field(default=refuse_sources, repr=False)
    """Looks at files that are URLs."""
    given: Given | None = field(default=None, repr=False, compare=False)
    """The DataFrame that was the list."""
    until: int | None = field(default=None, repr=False)
    """The last line included, after `limited`."""

    def __repr__(self) -> str:
        return str(_("<Batch {name}: {facts}>", name=self.source.name, facts=facts_line(self)))

    @property
    def count(self) -> int:
        """Number of rows, including invalid ones."""
        return self.staging.count() if self.until is None else self.valid

    @property
    def valid(self) -> int:
        """Number of rows without a problem."""
        return self._number("COUNT(*)")

    @property
    def problems(self) -> Problems:
        """All problems, in the order of the file."""
        return Problems(self.staging, self.headers)

    @property
    def envs(self) -> int:
        """Number of environments of the valid rows."""
        return self._number("COUNT(DISTINCT env)")

    @property
    def merchants_count(self) -> int:
        """Number of mini programs (appids) of the valid rows."""
        return self._number("COUNT(DISTINCT appid)")

    @property
    def total_bytes(self) -> int:
        """Bytes of the valid rows' local files; 0 if they were not checked."""
        return self._number("SUM(size)")

    def _number(self, aggregate: str) -> int:
        return int(self._select(aggregate)[0][0] or 0)

    def _select(self, columns: str, rest: str = "") -> list[Any]:
        return self.staging.query(
            f"SELECT {columns} FROM rows WHERE line <= ? AND {_VALID} {rest}",  # noqa: S608  own names
            (EVERY_LINE if self.until is None else self.until,),
        )

    def by_merchant(self) -> list[tuple[str, str, int, int, int]]:
        """Return (appid, merchant, environments, rows, bytes) of the valid rows, most rows first."""
        columns = "appid, merchant, COUNT(DISTINCT env), COUNT(*) n, COALESCE(SUM(size), 0)"
        return self._select(columns, "GROUP BY appid, merchant ORDER BY n DESC, merchant")

    def first_rows(self) -> list[Row]:
        """Return who and where of the first row of each environment, invalid ones included, in the order of the file."""
        valid = "" if self.until is None else f"WHERE line <= {self.until} AND {_VALID}"
        columns = "MIN(line) first, env, appid, merchant"
        firsts = self.staging.query(f"SELECT {columns} FROM rows {valid} GROUP BY env, appid ORDER BY first")  # noqa: S608  own names
        return [Row(line, env, "", appid, merchant, "", ()) for line, env, appid, merchant in firsts]

    def by_departed_merchant(self) -> list[tuple[Merchant, int]]:
        """Return (line of the merchants file, valid rows) of merchants that have left; these rows are not attempted."""
        departed = {(m.appid, m.env): m for m in self.merchants.whole if m.left}
        counts = self._select("appid, env, COUNT(*)", "GROUP BY appid, env")
        return [(departed[appid, env], rows) for appid, env, rows in counts if (appid, env) in departed]

    def rows(self) -> Iterator[Row]:
        """Yield the rows in the order of the file; those with a problem have `invalid` set."""
        return self.staging.rows(self.until)

    @checked
    def limited(self, n: int) -> Batch:
        """Return a batch of the first `n` valid rows (`--limit`)."""
        check_count("n", n, least=1)
        rows = f"rows WHERE {_VALID}"
        last = self.staging.query(f"SELECT line FROM {rows} ORDER BY line LIMIT 1 OFFSET ?", (n - 1,))  # noqa: S608  own names
        selection = self.selection + Selection.of(("limit", n))
        return replace(self, until=last[0][0] if last else EVERY_LINE, selection=selection)

    @checked
    def check_files(self, root: str | Path, *, guessed: bool = False) -> Batch:
        """Check the file of every row, below `root` or at its URL: add its size and version, or its problem.

        `guessed`: whether the root is a guess: if none of the first files is below it, they are not checked. Raises InputError
        with all problems of the list if the root does not exist, or if any row has a problem and bad rows are not skipped.
        """
        files = LocalFiles(Path(root))
        self.staging.query("DELETE FROM problems WHERE of_file")
        if problem := files.problem():
            self.staging.add_problems([problem], file_problem=True)
            raise input_error(str(self.source), self.problems, self.decided)
        missing = looked = 0
        for page in self.staging.files():
            looked += len(page)
            facts: list[tuple[int | None, int | None, str, int]] = []
            unusable: list[Problem] = []
            urls = {line: whole_source(file, query) for line, file, query in page if is_source(file)}
            remote = self.sources([*dict.fromkeys(urls.values())]) if urls else {}
            for line, file, _query in page:
                match remote[urls[line]] if line in urls else files.inspect(file):
                    case SourceFile(size, etag):
                        facts.append((size, None, etag, line))
                    case UnusableFile(message, fix, is_missing):
                        missing += is_missing
                        unusable.append(Problem(line, self.file_column, message, fix, shown(file)))
                    case local:
                        facts.append((local.size, local.mtime_ns, "", line))
            if guessed and missing == looked:
                break
            self.staging.set_files(facts)
            self.staging.add_problems(unusable, file_problem=True)
        none_there = 0 < missing == looked
        advice, other = None, self._other_column(files) if none_there else ""
        if other:
            advice = _(
                "Column '{name}' has names of files that exist: use {--column:file={name}}", name=other
            )
        if guessed and none_there:
            missing = 0
        if self.on_bad == "refuse" and self.problems:
            error = self._refusal(missing, Path(root))
            error.advice, error.columns = advice, {"file": other} if other else {}
            raise error
        warnings = self.warnings if advice is None else (*self.warnings, advice)
        return replace(self, root=None if guessed and none_there else Path(root), warnings=warnings)

    def _refusal(self, missing: int, root: Path) -> InputError:
        """Return the error for the list's problems; so many of them are files that are missing."""
        if not missing == len(self.problems) == self.count:
            return input_error(str(self.source), self.problems, self.decided)
        text = _(
            "{list}: none of its {rows} has a file below {root}. Choose the folder of the files with {--root:DIR}.",
            list=self.source,
            rows=row_count(self.count),
            root=root.absolute(),
        )
        return InputError(text, str(self.source), self.problems, self.decided, all_missing=True)

    def _other_column(self, files: LocalFiles) -> str:
        """Return which column that is not used holds names of files that exist, going by the first rows; empty for none."""
        times = Counter(
            header
            for row in islice(self.rows(), 200)
            for header, cell in zip(map(trim, self.headers), row.cells, strict=False)
            if header in self.unused
            and trim(cell)
            and not isinstance(files.inspect(trim(cell)), UnusableFile)
        )
        return max(times, key=times.__getitem__, default="")

    def _table(self, _lang: Lang) -> Lines:
        wrong = {problem.line: (problem.message, problem.fix) for problem in self.problems}
        names = ("tcb_line", "tcb_merchant", "tcb_appid", "tcb_env", "tcb_bytes", "tcb_problem", "tcb_fix")
        lines = (
            (*row.cells, row.line, row.merchant, row.appid, row.env, row.size, *wrong.get(row.line, ("", "")))
            for row in self.rows()
        )
        return Lines(self.decided, names, lines, self.count, self.headers)

    def _repr_html_(self) -> str:
        return FOR_RESULTS.batch_card(self, FOR_RESULTS.lang())

    def __dir__(self) -> list[str]:
        return _FOR_USERS.split()

    def close(self) -> None:
        """Free the disk space. The rows can no longer be read."""
        self.staging.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def facts_line(batch: Batch) -> Text:
    """Return the facts in one line."""
    parts: list[object] = [merchant_count(batch.merchants_count), environment_count(batch.envs)]
    if batch.root is not None:
        parts.append(format_size(batch.total_bytes))
    line = _(
        "{valid:,} of {rows} valid: {facts}",
        valid=batch.valid,
        rows=row_count(batch.count),
        facts=as_facts(parts),
    )
    if not (departed := batch.by_departed_merchant()):
        return line
    return _(
        "{line}; {rows:,} of them will not be attempted: the merchant has left ({names})",
        line=line,
        rows=sum(count for _merchant, count in departed),
        names=as_list(dict.fromkeys(sanitize(merchant.name) for merchant, _count in departed), 3),
    )
