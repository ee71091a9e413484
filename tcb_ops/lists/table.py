"""Tables: the header, the meaning of its columns, and the rows below it; in delimited text, and in what a feature reads.

Row numbers are those of a spreadsheet: each record is one row, blank ones included, even if its cells contain line
breaks.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from tcb_ops.errors import BrokenTableError, UsageError
from tcb_ops.formatting import fold, shown, trim
from tcb_ops.hooks import WorkbookHooks, hooks
from tcb_ops.i18n import Text, _, as_list
from tcb_ops.lists.input_files import CHANGED, decode, digest, input_error, is_workbook, open_bytes, readable
from tcb_ops.model import Problem, Rows, file_problem
from tcb_ops.secrets import MASK

_T = TypeVar("_T")

# --- columns --------------------------------------------------------------------------------------------------------

Known: TypeAlias = Mapping[str, frozenset[str]]
"""Canonical column name → the headers that mean it, normalized by `_plain`."""

ENV_NAMES = "env envid environment environmentid cloudenv 环境 环境id 云环境 云环境id 云开发环境 云开发环境id 环境编号"
APPID_NAMES = "appid authorizerappid 小程序 小程序id 小程序appid 授权方appid 商户appid"
_NAMES = "merchant merchantname shop shopname 商户 商户名 商户名称 商家 商家名称 店铺 店铺名 店铺名称 门店 门店名 门店名称"


def named_columns(**names: str) -> Known:
    """Return columns by canonical name, each with the headers that mean it, separated by spaces."""
    return {name: frozenset(headers.split()) for name, headers in names.items()}


def _plain(header: str) -> str:
    return re.sub(r"[\s_\-]+", "", fold(header))


class Rating(NamedTuple):
    """How likely a row is the header; the largest rating wins."""

    complete: bool
    """All needed columns are present."""
    known: int
    """Number of known or given names."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a kind of file."""

    known: Known
    needed: Sequence[Sequence[str]]
    """Groups of canonical names; one column of each group is required."""
    given: Mapping[str, str] = field(default_factory=dict)
    """Canonical name → header (`--column`); overrides known names."""
    mappable: bool = True
    """Whether `--column` can be suggested."""

    def rate(self, headers: Sequence[str]) -> Rating:
        """Return the rating of a row as the header."""
        plain = {_plain(h) for h in headers}
        meant = {
            name
            for name, names in self.known.items()
            if (_plain(self.given[name]) in plain if name in self.given else names & plain)
        }
        names = frozenset().union(*self.known.values()) | {_plain(h) for h in self.given.values()}
        return Rating(
            all(meant & set(group) for group in self.needed), sum(_plain(h) in names for h in headers)
        )

    def find(self, headers: Sequence[str], line: int) -> tuple[dict[str, int], list[Problem]]:
        """Return canonical names → index in `headers`, and the problems of the header, which is in line `line`.

        ==========================  ==================  ===========================
        headers                     given               result
        ==========================  ==================  ===========================
        环境ID, 上传路径            –                   env 0, path 1
        ENV, Path                   –                   env 0, path 1
        env, 路径, 目标             path=目标           env 0, path 2
        env, 路径                   file=路径           env 0, file 1; problem: no path
        env, 路径, path             –                   problem: both mean path
        env, path, a, a             –                   problem: duplicate name
        env, path                   path=目标           problem: no such header
        env, 目标                   –                   problem: no column for path
        ==========================  ==================  ===========================
        """
        trimmed = [trim(h) for h in headers]
        twice, fix = _("the header has this name twice"), _("rename or remove one of the two columns")
        problems = [
            file_problem(twice, fix, line=line, column=name)
            for name, times in Counter(trimmed).items()
            if name and times > 1
        ]
        positions: dict[str, int] = {}
        for name, header in self.given.items():
            if trim(header) in trimmed:
                positions[name] = trimmed.index(trim(header))
            else:
                message = _(
                    "{--column:{ours}={header}}: there is no such column; the header has {listed}",
                    ours=name,
                    header=shown(header, 40),
                    listed=quoted_names(trimmed),
                )
                problems.append(file_problem(message, _("choose one of these"), line=line))
        taken = set(positions.values())
        for name, names in self.known.items():
            if name in self.given:
                continue
            matches = [i for i, h in enumerate(trimmed) if i not in taken and _plain(h) in names]
            if matches:
                positions[name] = matches[0]
            # Duplicate names are reported separately.
            if len(distinct := list(dict.fromkeys(trimmed[i] for i in matches))) > 1:
                message = _(
                    "several columns match {ours}: {listed}", ours=name, listed=quoted_names(distinct)
                )
                fix = _(
                    "select the right one with {--column:{ours}={headers}}, or rename the others",
                    ours=name,
                    headers=distinct[0],
                )
                problems.append(file_problem(message, fix, line=line))
        present = positions.keys() | self.given.keys()
        problems += [
            self._missing(group, trimmed, line) for group in self.needed if present.isdisjoint(group)
        ]
        return positions, problems

    def _missing(self, group: Sequence[str], headers: Sequence[str], line: int) -> Problem:
        message = _(
            "no column for {wanted}; the header has {there}",
            wanted=" / ".join(group),
            there=quoted_names(headers),
        )
        if len(headers) == 1 and "，" in headers[0]:
            fix = _("the header is separated by full-width commas (，); use plain commas")
        elif self.mappable:
            fix = _("add it, or say which column it is with {--column:{group}=HEADER}", group=group[0])
            if not self.rate(headers).known:
                fix = _("{fix}; if another row has the names: {--header-row:N}", fix=fix)
        else:
            fix = _("add the column")
        return file_problem(message, fix, line=line)


ADDED = "tcb_"
"""The prefix of the columns that tcb-ops adds to its exports; reading ignores them."""
LIST_COLUMNS = Columns(
    named_columns(
        env=ENV_NAMES,
        merchant=_NAMES,
        path="path cloudpath uploadpath 路径 上传路径 云端路径 云路径 云存储路径 目标路径 云端文件路径",
        file="file localfile localpath 文件 本地文件 本地路径 本地文件路径",
        appid=APPID_NAMES,
        content_type="contenttype mimetype mime类型 内容类型 媒体类型",
        cache_control="cachecontrol 缓存控制 缓存策略",
    ),
    needed=(("env", "merchant"), ("path",)),
)
MERCHANT_COLUMNS = Columns(
    named_columns(
        appid=APPID_NAMES,
        name=f"name 名称 小程序名称 {_NAMES}",
        env=ENV_NAMES,
        default="default 默认 默认环境 是否默认",
        owner="owner 负责方 归属 归属方 环境归属 所属方",
        status="status 状态 商户状态 授权状态",
    ),
    needed=(("appid",), ("name",), ("env",)),
    mappable=False,
)


_APPID = re.compile("wx[0-9a-z]{16}")
_WORD = re.compile("[0-9A-Za-z_+/=.@~-]{12,}")
"""Twelve or more characters as tokens have them."""


def quoted_names(names: Iterable[str]) -> Text:
    """Return names as a list in quotation marks, with ••• in place of what may be a token.

    The first line of a token file without a header is taken for the names.

    ==========================================  =======================================
    name                                        shown
    ==========================================  =======================================
    an appid                                    yes
    beside an appid, 12 characters of a token   •••
    12 characters of a token, one a digit       •••
    any other                                   yes, at most 40 characters of it
    ==========================================  =======================================
    """
    names = [*names]
    is_row = any(map(_APPID.fullmatch, names))

    def may_be_a_token(name: str) -> bool:
        words = _WORD.findall(name) if not _APPID.fullmatch(name) else []
        return any(is_row or re.search(r"\d", word) for word in words)

    return as_list(MASK if may_be_a_token(name) else _("'{name}'", name=shown(name, 40)) for name in names)


# --- cells ----------------------------------------------------------------------------------------------------------


class NonTextCell(str):
    """The displayed text of a workbook's cell that is not text; what reads workbooks derives its cells from it.

    Env, path and file must be text: a number has lost leading zeros, and a formula's value may change.
    """

    __slots__ = ()

    @property
    def is_clear(self) -> bool:
        """Whether the displayed text is the value, so that it may name a merchant."""
        raise NotImplementedError

    @property
    def is_computed(self) -> bool:
        """Whether the file has the cell's value."""
        raise NotImplementedError

    @property
    def problem(self) -> tuple[Text, Text]:
        """The (message, fix) of the cell in a text-only column."""
        raise NotImplementedError


def not_computed(cells: Iterable[str]) -> bool:
    """Return whether a seemingly blank row has a formula without a stored value."""
    return any(isinstance(cell, NonTextCell) and not cell.is_computed for cell in cells)


# --- rows -----------------------------------------------------------------------------------------------------------

Rate: TypeAlias = Callable[[Sequence[str]], Rating]
Record: TypeAlias = tuple[int, list[str]]

HEAD_ROWS = 20
"""The header is searched for in so many rows that are not blank; titles may precede it."""


@dataclass(frozen=True, slots=True)
class Table:
    """A header and the rows below it."""

    headers: tuple[str, ...]
    """As in the file, without trailing empty ones; empty if the file is blank."""
    header_line: int
    rows: Iterator[Record] = field(repr=False)
    """(line, cells) of every row that is not blank. Raises BrokenTableError for broken quoting."""
    layout: Text
    """The kind of table, as displayed."""
    delimiter: str = ""
    """Empty for a workbook."""
    left_out: int = 0
    """Hidden rows that are left out as was asked for."""


def find_header(
    records: Iterator[Record], rate: Rate, header_line: int = 0, *, delimiter: str = "", layout: Text
) -> Table:
    """Find the header among the first records; return it with the rows below.

    It is the first record with all needed columns, else the first one with the most known names; without any, the first one
    with more than one cell, which is no title. A given `header_line` is used as it is; BrokenTableError if it is blank.
    """
    head: list[Record] = []
    for line, cells in records:
        if any(map(trim, cells)) and line >= header_line:
            head.append((line, cells))
            if header_line or len(head) == HEAD_ROWS or rate(cells).complete:
                break
    if header_line and (not head or head[0][0] != header_line):
        message = _("{--header-row} {line}: this row is empty or does not exist", line=header_line)
        fix = _("give the number of the row with the column names, or omit the option")
        raise BrokenTableError(file_problem(message, fix, line=header_line))
    if not head:
        return Table((), 0, records, layout, delimiter)
    row = max(
        range(len(head)), key=lambda i: (rate(head[i][1]), sum(map(bool, map(trim, head[i][1]))) > 1, -i)
    )
    line, cells = head[row]
    headers = [str(cell) for cell in cells]
    while not trim(headers[-1]):
        headers.pop()
    return Table(tuple(headers), line, chain(head[row + 1 :], records), layout, delimiter)


# --- delimited text -------------------------------------------------------------------------------------------------

_DELIMITERS = {",": _("comma"), ";": _("semicolon"), "\t": _("tab"), "|": _("vertical bar")}
"""The detected delimiters; without the full-width comma, which occurs in names."""

_SIGNS = "".join(_DELIMITERS)
_SAMPLE_LINES = 50


def read_table(lines: Iterable[str], rate: Rate, *, header_line: int = 0) -> Table:
    """Read lines (with their line ends) as a table. `header_line` 0 detects the header.

    The delimiter is the one whose header has the best rating, then the most cells.
    """
    rest = iter(lines)
    sample = list(islice(rest, _SAMPLE_LINES))
    delimiter = max(_DELIMITERS, key=lambda d: _best_rating(sample, d, rate))
    records = _records(chain(sample, rest), delimiter)
    return find_header(records, rate, header_line, delimiter=delimiter, layout=_DELIMITERS[delimiter])


def _best_rating(sample: list[str], delimiter: str, rate: Rate) -> tuple[Rating, int] | tuple[()]:
    ratings: list[tuple[Rating, int]] = []
    with suppress(csv.Error):
        head = islice(csv.reader(sample, delimiter=delimiter), HEAD_ROWS)
        ratings.extend(
            (rate(cells), len(cells)) for cells in head if any(trim(cell).strip(_SIGNS) for cell in cells)
        )
    # Of equal ratings the first wins: data rows may contain more delimiters.
    return max(ratings, key=itemgetter(0), default=())


def _records(lines: Iterable[str], delimiter: str) -> Iterator[Record]:
    # strict: a misplaced closing quote may merge rows, which must not become one long cell.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 0
    try:
        for cells in reader:
            line += 1
            if cells:
                yield line, cells
    except csv.Error:
        message = _("a quote opens in this line and never closes, or closes in the middle of a cell")
        fix = _("close the quote; a quote inside a quoted cell is written twice")
        problem = file_problem(message, fix, line=line + 1)
    except UnicodeDecodeError:
        problem = replace(CHANGED, line=line + 1)  # the lines were decoded before, so the file has changed
    else:
        return
    raise BrokenTableError(problem)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file of a few thousand lines, with its cells by canonical name."""

    number: int
    cells: Sequence[str]
    """Trimmed; as many as headers, or more."""
    headers: Sequence[str]
    """Trimmed."""
    positions: Mapping[str, int]
    """Canonical name → index."""

    def value(self, name: str) -> str:
        """Return the cell of a column; "" if the file does not have the column."""
        return self.cells[self.positions[name]] if name in self.positions else ""

    def problem(self, message: Text, fix: Text, name: str = "") -> Problem:
        """Return a problem of the line, or of the cell of a column."""
        column = self.headers[self.positions[name]] if name else ""
        return file_problem(message, fix, line=self.number, column=column, value=shown(self.value(name)))


@contextmanager
def open_table(
    source: str | Path, rate: Rate, *, sheet: str = "", header_line: int = 0, rows: Rows | None = None
) -> Iterator[tuple[Table, str, int, str]]:
    """Open an input file, text or a workbook. Yields its table, its encoding as displayed, its bytes and its SHA-256.

    Raises InputError, and UsageError if a sheet of a text is asked for.
    """
    name = str(source)
    with open_bytes(source) as raw:
        if is_workbook(raw) and (workbooks := hooks(WorkbookHooks)):
            with readable(name):
                table = workbooks.read(raw, rate, sheet, header_line, rows)
            yield table, table.layout.en, *digest(raw)
            return
        if sheet:
            raise UsageError(_("{--sheet}: {name} is not a workbook; omit the option", name=name))
        text, encoding, size, sha256 = decode(raw, name)  # collecting the text would close the file
        with readable(name):
            table = read_table(text, rate, header_line=header_line)
        layout = _("{encoding}, {layout}", encoding=encoding, layout=table.layout)
        yield replace(table, layout=layout), encoding, size, sha256


def read_lines(
    source: str | Path, columns: Columns, parse: Callable[[Iterator[Line], list[Problem]], Iterable[_T]]
) -> tuple[list[_T], str, int]:
    """Read a file with these columns, text or a workbook, whose hidden rows count.

    Return what `parse` makes of its lines that are not blank, its SHA-256, and its bytes. `parse` adds the problems it finds to the list.
    Raises InputError with all of them, and those of the file.
    """
    values: list[_T] = []
    with open_table(source, columns.rate, rows="all") as (table, _encoding, size, sha256):
        positions, problems = columns.find(table.headers, table.header_line)
        try:
            if not problems:
                values = list(parse(_lines(table, positions, problems), problems))
        except BrokenTableError as error:
            problems.append(error.problem)
    if problems:
        raise input_error(str(source), problems)
    return values, sha256, size


def _lines(table: Table, positions: Mapping[str, int], problems: list[Problem]) -> Iterator[Line]:
    headers = tuple(map(trim, table.headers))
    for number, cells in table.rows:
        trimmed = [trim(cell) for cell in cells]
        if any(trimmed) or not_computed(cells):
            line = Line(number, trimmed + [""] * (len(headers) - len(trimmed)), headers, positions)
            for name, position in positions.items():
                cell = cells[position] if position < len(cells) else ""
                if isinstance(cell, NonTextCell):
                    problems.append(line.problem(*cell.problem, name))
            yield line
