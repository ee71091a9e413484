"""From text to rows: delimiter-separated values as (line, cells).

A line's number is the one a spreadsheet shows: every record counts one, blank ones too, whatever line breaks stand
inside quotes. Other readers (workbooks) join by yielding the same pairs.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING

from tcb_ops.lists.cells import trim
from tcb_ops.lists.problems import of_file
from tcb_ops.model import Problem, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["DELIMITERS", "BrokenTableError", "Table", "read_table"]

DELIMITERS = {
    ",": Text("comma", "逗号"),
    ";": Text("semicolon", "分号"),
    "\t": Text("tab", "制表符"),
    "|": Text("vertical bar", "竖线"),
}
"""Those that are sniffed. The full-width comma is none: it stands in names."""

_SAMPLE_LINES = 50


class BrokenTableError(Exception):
    """The table cannot be read on from here; `problem` says where and why. Stays inside this wing."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message.en)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Table:
    """A header and the rows below it."""

    headers: tuple[str, ...]
    """As they stand in the file; empty ones at the end are left off. None at all where the file is blank."""
    header_line: int
    delimiter: str
    rows: Iterator[tuple[int, list[str]]] = field(repr=False)
    """(line, cells) of every row that is not blank. Raises BrokenTableError where the quoting breaks."""


def read_table(lines: Iterable[str], score: Callable[[Sequence[str]], int]) -> Table:
    """Read lines (with their line ends) as a table; its first record that is not blank is the header.

    The delimiter is the one of DELIMITERS whose header scores highest, `score` being the number of names known in
    it; among equals, the one that gives more cells.
    """
    rest = iter(lines)
    sample = list(islice(rest, _SAMPLE_LINES))
    delimiter = max(DELIMITERS, key=lambda d: _promise(sample, d, score))
    rows = _records(chain(sample, rest), delimiter)
    for line, cells in rows:
        headers = list(cells)
        while headers and not trim(headers[-1]):
            headers.pop()
        if headers:
            return Table(tuple(headers), line, delimiter, rows)
    return Table((), 0, delimiter, rows)


def _promise(sample: list[str], delimiter: str, score: Callable[[Sequence[str]], int]) -> tuple[int, int]:
    try:
        for cells in csv.reader(sample, delimiter=delimiter):
            if any(map(trim, cells)):
                return score(cells), len(cells)
    except csv.Error:
        pass
    return 0, 0


def _records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    # strict: a quote that closes in the wrong place has swallowed rows, which must not pass for one long cell.
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
        # decode.py has read these bytes before, so they are others now.
        message = Text("the file was written to while it was read", "读取过程中文件被改动了")
        mend = Text("run it again when nobody is saving the file", "等没有人在保存这个文件时再运行一次")
        problem = of_file(message, mend, line=line + 1)
    else:
        return
    raise BrokenTableError(problem)


def _broken(line: int, why: str) -> Problem:
    """`why` is the csv module's own sentence: it has one exception for all three."""
    if "unexpected end" in why:
        message = Text("a quote opens in this line and never closes", "这一行有一个引号没有闭合")
    elif "field limit" in why:
        limit = f"{csv.field_size_limit():,}"
        message = Text(
            f"a cell is longer than {limit} characters; mostly a quote opens here and never closes",
            f"有单元格超过 {limit} 个字符；多半是这里有一个引号没有闭合",
        )
    else:
        message = Text(
            "a quote closes in the middle of a cell, so where the cell ends cannot be told",
            "引号在单元格中间就闭合了，无法判断单元格到哪里结束",
        )
    mend = Text(
        "close the quote; a quote inside a quoted cell is written twice",
        "请补上引号；引号括起来的单元格里，引号要写两次",
    )
    return of_file(message, mend, line=line)
