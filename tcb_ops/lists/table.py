"""From text to rows: delimiter-separated values as (line, cells).

A line's number is the one a spreadsheet shows: every record counts one, blank ones too, whatever line breaks stand
inside quotes. Workbooks (workbook.py) join by giving the same table.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TypeAlias

from tcb_ops.cell_text import shown, trim
from tcb_ops.errors import BrokenTableError
from tcb_ops.i18n import Text
from tcb_ops.lists.headers import Rating
from tcb_ops.model import Problem, file_problem

Rate: TypeAlias = Callable[[Sequence[str]], Rating]
Record: TypeAlias = tuple[int, list[str]]

__all__ = ["HEAD_ROWS", "BrokenTableError", "Table", "read_table", "under_header"]

_DELIMITERS = {
    ",": Text("comma", "逗号分隔"),
    ";": Text("semicolon", "分号分隔"),
    "\t": Text("tab", "制表符分隔"),
    "|": Text("vertical bar", "竖线分隔"),
}
"""Those that are sniffed. The full-width comma is none: it stands in names."""

_SIGNS = "".join(_DELIMITERS)
_SAMPLE_LINES = 50
HEAD_ROWS = 20
"""The header is looked for among so many rows that are not blank: above it stand titles, not lists."""


@dataclass(frozen=True, slots=True)
class Table:
    """A header and the rows below it."""

    headers: tuple[str, ...]
    """As they stand in the file; empty ones at the end are left off. None at all where the file is blank."""
    header_line: int
    rows: Iterator[Record] = field(repr=False)
    """(line, cells) of every row that is not blank. Raises BrokenTableError where the quoting breaks."""
    titles: tuple[tuple[int, str], ...] = ()
    """(line, text) of the rows above the header, shortened."""
    delimiter: str = ""
    """None in a workbook."""
    layout: Text = field(kw_only=True)
    """What people call this kind of table."""
    said: tuple[Text, ...] = ()
    """What else was decided."""
    warnings: tuple[Text, ...] = ()


def read_table(lines: Iterable[str], rate: Rate, *, header_line: int = 0) -> Table:
    """Read lines (with their line ends) as a table.

    The delimiter is the one of four with the best header, `rate` being the judge; among equals, the one that gives
    more cells. `header_line` names the header's line; 0 has it found.
    """
    rest = iter(lines)
    sample = list(islice(rest, _SAMPLE_LINES))
    delimiter = max(_DELIMITERS, key=lambda d: _promise(sample, d, rate))
    records = _records(chain(sample, rest), delimiter)
    return under_header(records, rate, header_line, delimiter=delimiter, layout=_DELIMITERS[delimiter])


def under_header(
    records: Iterator[Record], rate: Rate, header_line: int = 0, *, delimiter: str = "", layout: Text
) -> Table:
    """Find the header among the first records, and give the rows below it.

    It is the first one that has every column that is needed; where none has, the one with most known names, and of
    equals the first. A `header_line` that is given is taken as it is.

    Raises BrokenTableError where that line is blank.
    """
    head: list[Record] = []
    broken = None
    try:
        for line, cells in records:
            if any(map(trim, cells)) and line >= header_line:
                head.append((line, cells))
                if header_line or len(head) == HEAD_ROWS or rate(cells).fits:
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
    titles = tuple((above, shown(trim(" ".join(filter(trim, said))), 40)) for above, said in head[:at])
    return Table(tuple(headers), line, islice(rows, at + 1, None), titles, delimiter, layout=layout)


def _raising(problem: Problem) -> Iterator[Record]:
    raise BrokenTableError(problem)
    yield  # a generator, so that it raises where the rows end


def _no_header(line: int) -> Problem:
    message = Text(
        f"--header-row {line}: there is nothing in this row", f"--header-row {line}：这一行是空的，或不存在"
    )
    fix = Text(
        "give the number of the row that holds the column names, or leave the option out",
        "请给出列名所在行的行号，或去掉这个选项",
    )
    return file_problem(message, fix, line=line)


def _promise(sample: list[str], delimiter: str, rate: Rate) -> tuple[Rating, int] | tuple[()]:
    best: tuple[Rating, int] | tuple[()] = ()
    try:
        for cells in islice(csv.reader(sample, delimiter=delimiter), HEAD_ROWS):
            if any(trim(cell).strip(_SIGNS) for cell in cells):
                rating = rate(cells)
                # Of rows that are alike the first counts: rows of data may well hold more delimiters.
                best = best if best and best[0] >= rating else (rating, len(cells))
    except csv.Error:
        pass
    return best


def _records(lines: Iterable[str], delimiter: str) -> Iterator[Record]:
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
        fix = Text("run it again when nobody is saving the file", "等没有人在保存这个文件时再运行一次")
        problem = file_problem(message, fix, line=line + 1)
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
    fix = Text(
        "close the quote; a quote inside a quoted cell is written twice",
        "请补上引号；引号括起来的单元格里，引号要写两次",
    )
    return file_problem(message, fix, line=line)
