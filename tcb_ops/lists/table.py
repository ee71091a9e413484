"""Tables: delimited text as rows, detection of the header, and the meaning of its columns.

Row numbers are those of a spreadsheet: each record is one row, blank ones included, even if its cells contain line
breaks.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import chain, islice
from typing import NamedTuple, TypeAlias

from tcb_ops.errors import BrokenTableError
from tcb_ops.formatting import fold, near_names, shown, trim
from tcb_ops.i18n import Text, _, ngettext
from tcb_ops.lists.source import CHANGED
from tcb_ops.model import Problem, file_problem

# --- columns --------------------------------------------------------------------------------------------------------

Known: TypeAlias = Mapping[str, frozenset[str]]
"""Canonical column name → the headers that mean it, normalized by `_plain`."""

_ENV = "env envid environment environmentid cloudenv 环境 环境id 云环境 云环境id 云开发环境 云开发环境id 环境编号"
_APPID = "appid authorizerappid 小程序 小程序id 小程序appid 授权方appid 商户appid"
_NAMES = "merchant merchantname shop shopname 商户 商户名 商户名称 商家 商家名称 店铺 店铺名 店铺名称"


def _known(**names: str) -> Known:
    return {ours: frozenset(theirs.split()) for ours, theirs in names.items()}


def _plain(header: str) -> str:
    """Normalize a header for comparison: folded, without spaces, `_` and `-`."""
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
            ours
            for ours, names in self.known.items()
            if (_plain(self.given[ours]) in plain if ours in self.given else names & plain)
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
        problems = [_duplicate(name, line) for name, times in Counter(trimmed).items() if name and times > 1]
        found: dict[str, int] = {}
        for ours, header in self.given.items():
            if trim(header) in trimmed:
                found[ours] = trimmed.index(trim(header))
            else:
                nearest = self._nearest(ours, header, trimmed)
                problems.append(_no_such_header(ours, header, trimmed, nearest, line))
        taken = set(found.values())
        for ours, names in self.known.items():
            if ours in self.given:
                continue
            matches = [i for i, h in enumerate(trimmed) if i not in taken and _plain(h) in names]
            if matches:
                found[ours] = matches[0]
            # Duplicate names are reported separately.
            if len(distinct := list(dict.fromkeys(trimmed[i] for i in matches))) > 1:
                problems.append(_ambiguous(ours, distinct, line))
        present = found.keys() | self.given.keys()
        problems += [
            self._missing(group, trimmed, line) for group in self.needed if present.isdisjoint(group)
        ]
        return found, problems

    def fitting(self, headers: Sequence[str], wrong: Collection[str] = ()) -> dict[str, str]:
        """Return `given` with corrected headers for those that do not exist and those in `wrong`.

        Empty if that changes nothing or a header cannot be guessed.
        """
        there = [trim(h) for h in headers]
        fitting: dict[str, str] = {}
        for ours, header in self.given.items():
            if ours in wrong:
                known = (h for h in there if h != trim(header) and _plain(h) in self.known[ours])
                fitting[ours] = next(known, "")
            else:
                fitting[ours] = header if trim(header) in there else self._nearest(ours, header, there)
        return fitting if all(fitting.values()) and fitting != self.given else {}

    def _nearest(self, ours: str, header: str, there: Sequence[str]) -> str:
        """Return the header that was probably meant, or one known for the name; "" if there is none."""
        known = (h for h in there if _plain(h) in self.known[ours])
        return next(chain(near_names(header, filter(None, there)), known), "")

    def _resembling(self, group: Sequence[str], headers: Sequence[str]) -> tuple[str, str] | None:
        """Return a canonical name and a header that is probably a misspelling of one."""
        near = (
            (ours, header)
            for ours in group
            for header in headers
            if self.mappable and get_close_matches(_plain(header), self.known[ours])
        )
        return next(near, None)

    def _missing(self, group: Sequence[str], headers: Sequence[str], line: int) -> Problem:
        wanted, there = " / ".join(group), _listed(headers)
        message = _("no column for {wanted}; the header has {there}", wanted=wanted, there=there)
        if len(headers) == 1 and "，" in headers[0]:
            fix = _("the header is separated by full-width commas (，); use plain commas")
        elif near := self._resembling(group, headers):
            meant = f"--column {near[0]}={shown(near[1], 40)}"
            fix = _("did you mean {meant}? Otherwise add the column", meant=meant)
        elif self.mappable:
            fix = _("add it, or say which column it is with --column {group}=HEADER", group=group[0])
        else:
            fix = _("add the column")
        return file_problem(message, fix, line=line, option="--column" if self.mappable else "")


LIST_COLUMNS = Columns(
    _known(
        env=_ENV,
        merchant=_NAMES,
        path="path cloudpath uploadpath 路径 上传路径 云端路径 云路径 云存储路径 目标路径 云端文件路径",
        file="file localfile localpath 文件 本地文件 本地路径 本地文件路径",
        appid=_APPID,
        content_type="contenttype mimetype mime类型 内容类型 媒体类型",
        cache_control="cachecontrol 缓存控制 缓存策略",
    ),
    needed=(("env", "merchant"), ("path",)),
)
MERCHANT_COLUMNS = Columns(
    _known(
        appid=_APPID,
        name=f"name 名称 小程序名称 {_NAMES}",
        env=_ENV,
        default="default 默认 默认环境 是否默认",
        owner="owner 负责方 归属 归属方 环境归属 所属方",
        status="status 状态 商户状态 授权状态",
    ),
    needed=(("appid",), ("name",), ("env",)),
    mappable=False,
)
KNOWN_COLUMNS = Columns(
    _known(
        appid=_APPID,
        env=_ENV,
        cause="cause code errcode 原因 错误码 代码",
        until="until 截止 截止日期 到期 到期日",
        note="note 备注 说明",
    ),
    needed=(("appid", "env"), ("cause",), ("until",)),
    mappable=False,
)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{shown(n, 40)}'" for n in names)


def _duplicate(name: str, line: int) -> Problem:
    message = _("the header has this name twice")
    fix = _("rename or remove one of the two columns")
    return file_problem(message, fix, line=line, column=name)


def _ambiguous(ours: str, headers: list[str], line: int) -> Problem:
    listed = _listed(headers)
    message = _("several columns match {ours}: {listed}", ours=ours, listed=listed)
    fix = _(
        "select the right one with --column {ours}={headers}, or rename the others",
        ours=ours,
        headers=headers[0],
    )
    return file_problem(message, fix, line=line, option="--column")


def _no_such_header(ours: str, header: str, headers: list[str], nearest: str, line: int) -> Problem:
    listed = _listed(headers)
    message = _(
        "--column {ours}={header}: there is no such column; the header has {listed}",
        ours=ours,
        header=shown(header, 40),
        listed=listed,
    )
    fix = _("choose one of these")
    if nearest:
        meant = f"--column {ours}={shown(nearest, 40)}"
        fix = _("did you mean {meant}?", meant=meant)
    return file_problem(message, fix, line=line, option="--column")


# --- rows -----------------------------------------------------------------------------------------------------------

Rate: TypeAlias = Callable[[Sequence[str]], Rating]
Record: TypeAlias = tuple[int, list[str]]

_DELIMITERS = {
    ",": _("comma"),
    ";": _("semicolon"),
    "\t": _("tab"),
    "|": _("vertical bar"),
}
"""The detected delimiters; without the full-width comma, which occurs in names."""

_SIGNS = "".join(_DELIMITERS)
_SAMPLE_LINES = 50
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
    titles: tuple[tuple[int, str], ...] = ()
    """(line, text) of the rows above the header, shortened."""
    delimiter: str = ""
    """Empty for a workbook."""
    layout: Text = field(kw_only=True)
    """The kind of table, as displayed."""
    notes: tuple[Text, ...] = ()
    """Other things detected."""
    warnings: tuple[Text, ...] = ()


def read_table(lines: Iterable[str], rate: Rate, *, header_line: int = 0) -> Table:
    """Read lines (with their line ends) as a table. `header_line` 0 detects the header.

    The delimiter is the one whose header has the best rating, then the most cells.
    """
    rest = iter(lines)
    sample = list(islice(rest, _SAMPLE_LINES))
    delimiter = max(_DELIMITERS, key=lambda d: _best_rating(sample, d, rate))
    records = _records(chain(sample, rest), delimiter)
    return find_header(records, rate, header_line, delimiter=delimiter, layout=_DELIMITERS[delimiter])


def find_header(
    records: Iterator[Record], rate: Rate, header_line: int = 0, *, delimiter: str = "", layout: Text
) -> Table:
    """Find the header among the first records; return it with the rows below.

    It is the first record with all needed columns, else the first one with the most known names. A given
    `header_line` is used as it is; BrokenTableError if it is blank.
    """
    head: list[Record] = []
    broken = None
    try:
        for line, cells in records:
            if any(map(trim, cells)) and line >= header_line:
                head.append((line, cells))
                if header_line or len(head) == HEAD_ROWS or rate(cells).complete:
                    break
    except BrokenTableError as error:
        broken = error.problem
    if broken and not head:
        raise BrokenTableError(broken)
    rows = chain(head, _raising(broken) if broken else records)
    if header_line and (not head or head[0][0] != header_line):
        raise BrokenTableError(_no_header(header_line))
    if not head:
        return Table((), 0, rows, delimiter=delimiter, layout=layout)
    at = max(range(len(head)), key=lambda i: (rate(head[i][1]), -i))
    line, cells = head[at]
    headers = [str(cell) for cell in cells]
    while not trim(headers[-1]):
        headers.pop()
    titles = tuple((above, shown(trim(" ".join(filter(trim, cells))), 40)) for above, cells in head[:at])
    return Table(tuple(headers), line, islice(rows, at + 1, None), titles, delimiter, layout=layout)


def _raising(problem: Problem) -> Iterator[Record]:
    raise BrokenTableError(problem)
    yield  # makes this a generator, which raises when iterated


def _no_header(line: int) -> Problem:
    message = _("--header-row {line}: this row is empty or does not exist", line=line)
    fix = _("give the number of the row with the column names, or omit the option")
    return file_problem(message, fix, line=line)


def _best_rating(sample: list[str], delimiter: str, rate: Rate) -> tuple[Rating, int] | tuple[()]:
    best: tuple[Rating, int] | tuple[()] = ()
    try:
        for cells in islice(csv.reader(sample, delimiter=delimiter), HEAD_ROWS):
            if any(trim(cell).strip(_SIGNS) for cell in cells):
                rating = rate(cells)
                # Of equal ratings the first wins: data rows may contain more delimiters.
                best = best if best and best[0] >= rating else (rating, len(cells))
    except csv.Error:
        pass
    return best


def _records(lines: Iterable[str], delimiter: str) -> Iterator[Record]:
    # strict: a misplaced closing quote may merge rows, which must not become one long cell.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 0
    try:
        for cells in reader:
            line += 1
            if cells:
                yield line, cells
    except csv.Error as error:
        problem = _broken(line + 1, str(error))
    except UnicodeDecodeError:
        problem = replace(CHANGED, line=line + 1)  # the lines were decoded before, so the file has changed
    else:
        return
    raise BrokenTableError(problem)


def _broken(line: int, why: str) -> Problem:
    """Return the problem for `why`, the csv module's text: its only exception has no code."""
    if "unexpected end" in why:
        message = _("a quote opens in this line and never closes")
    elif "field limit" in why:
        limit = csv.field_size_limit()
        message = _(
            "a cell is longer than {characters}; usually a quote opened here is never closed",
            characters=ngettext("{n:,} character", "{n:,} characters", limit),
        )
    else:
        message = _("a quote closes in the middle of a cell, so the end of the cell is unclear")
    fix = _("close the quote; a quote inside a quoted cell is written twice")
    return file_problem(message, fix, line=line)
