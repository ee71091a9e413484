"""One sheet of a workbook, row by row in flat memory: what its cells show and hold, and what a reader does not see."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tcb_ops.xlsx.package import Package, local, new_parser
from tcb_ops.xlsx.values import LONGEST_CELL, Formats, Kind, NonTextCell, Strings, not_computed, unescape

LAST_ROW, LAST_COLUMN = 1_048_576, 16_384
_MOST_AREAS = 100_000
"""Merged cells, and formulas that fill an area: each is held in memory."""
_COLUMN = re.compile("[A-Z]{1,3}")
_REF = re.compile(r"\$?([A-Z]{1,3})\$?([0-9]{1,7})")


class SheetRow(NamedTuple):
    """A row that holds something."""

    line: int
    hidden: bool
    cells: list[str]
    """What is no text of its own is NonTextCell."""


class Merge(NamedTuple):
    """Cells made one: rows and columns counted from 1, both ends in."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def ref(self) -> str:
        """The cell that has the value."""
        return f"{letters(self.left)}{self.top}"

    def __str__(self) -> str:
        return f"{self.ref}:{letters(self.right)}{self.bottom}"


@dataclass(slots=True)
class Survey:
    """What must be known of a sheet before its rows are read, and stands behind them or among them."""

    merges: list[Merge] = field(default_factory=list)
    """By their first row."""
    hidden_columns: list[tuple[int, int]] = field(default_factory=list)
    """(first, last), counted from 1."""
    hidden_rows: int = 0
    """Those that hold something."""
    first_hidden: int = 0
    filtered: bool = False


class _Columns(dict[str, int]):
    """Column letters → number, counted from 1."""

    def __missing__(self, name: str) -> int:
        if not _COLUMN.fullmatch(name):  # held for good, so that there must be an end of them
            raise ValueError(name)
        number = 0
        for letter in name:
            number = number * 26 + ord(letter) - 64
        self[name] = number
        return number


_COLUMNS = _Columns()


def letters(column: int) -> str:
    """The letters of a column, counted from 1."""
    said = ""
    while column:
        column, rest = divmod(column - 1, 26)
        said = chr(65 + rest) + said
    return said


def column_of(ref: str) -> int:
    """The column of a cell such as B7, counted from 1."""
    return _COLUMNS[ref.rstrip("0123456789")]


def survey(package: Package, part: str, header_line: int) -> Survey:
    """Look through a sheet for what is merged, filtered, a hidden column, or a hidden row below the header."""
    surveyor = _Surveyor(header_line)
    for _ in package.feed(part, new_parser(surveyor.start, surveyor.end)):
        pass
    surveyor.seen.merges.sort()
    return surveyor.seen


class _Surveyor:
    """Handlers that look at what is around a sheet's cells."""

    def __init__(self, header_line: int) -> None:
        self.seen = Survey()
        self._header_line = header_line
        self._line, self._hidden, self._holds = 0, False, False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "c":  # by far the most
            return
        match local(name):
            case "row":
                self._line = int(attributes.get("r", self._line + 1))
                self._hidden, self._holds = _is_hidden(attributes), False
            case "v" | "is":
                self._holds = True
            case "mergeCell":
                if len(self.seen.merges) >= _MOST_AREAS:
                    raise ValueError
                self.seen.merges.append(area_of(attributes["ref"]))
            case "col" if _yes(attributes.get("hidden")):
                if len(self.seen.hidden_columns) >= LAST_COLUMN:
                    raise ValueError
                self.seen.hidden_columns.append((int(attributes["min"]), int(attributes["max"])))
            case "filterColumn":
                self.seen.filtered = True

    def end(self, name: str) -> None:
        if self._hidden and self._holds and self._line > self._header_line and local(name) == "row":
            self.seen.hidden_rows += 1
            self.seen.first_hidden = self.seen.first_hidden or self._line


def read_rows(
    package: Package, part: str, strings: Strings, formats: Formats, *, since_1904: bool
) -> Iterator[SheetRow]:
    """Every row that holds something, in the order of the sheet.

    Raises BrokenTableError where the part is no sheet, or its rows and cells are out of order.
    """
    reader = _Reader(strings, formats, since_1904=since_1904)
    parser = new_parser(reader.start, reader.end, reader.text)
    for _ in package.feed(part, parser):
        yield from reader.rows
        reader.rows.clear()


class _Reader:
    """Handlers that turn a sheet's elements into rows. One call per element: this is where the time goes."""

    def __init__(self, strings: Strings, formats: Formats, *, since_1904: bool) -> None:
        self.rows: list[SheetRow] = []
        self._strings, self._formats, self._since_1904 = strings, formats, since_1904
        self._line, self._hidden, self._holds = 0, False, False
        self._cells: list[str] = []
        self._spills: list[Merge] = []
        """Where a formula's values fill cells that have none of their own."""
        self._in_cell = self._formula = self._takes = self._sounds = False
        self._type = self._style = ""
        self._said: list[str] = []
        self._length = 0
        """Characters in it."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        tag = local(name) if ":" in name else name
        if tag == "c":
            self._begin_cell(attributes)
        elif self._in_cell:
            if tag == "v" or (tag == "t" and not self._sounds):
                self._takes = True
            elif tag == "f":
                self._formula = True
                if attributes.get("t") == "array":
                    self._add_spill(area_of(attributes["ref"]))
            elif tag == "rPh":
                self._sounds = True
        elif tag == "row":
            self._begin_row(attributes)

    def end(self, name: str) -> None:
        tag = local(name) if ":" in name else name
        if tag in {"v", "t"}:
            self._takes = False
        elif tag == "c":
            self._end_cell()
        elif tag == "rPh":
            self._sounds = False
        elif tag == "row" and self._holds:
            self.rows.append(SheetRow(self._line, self._hidden, self._cells))

    def text(self, characters: str) -> None:
        if self._takes:
            self._length += len(characters)
            if self._length > LONGEST_CELL:
                raise ValueError
            self._said.append(characters)

    def _begin_row(self, attributes: dict[str, str]) -> None:
        given = attributes.get("r")
        line = self._line + 1 if given is None else int(given)
        if not self._line < line <= LAST_ROW:
            raise ValueError
        self._hidden = _is_hidden(attributes)
        self._line, self._holds, self._cells = line, False, []

    def _begin_cell(self, attributes: dict[str, str]) -> None:
        ref = attributes.get("r")
        at = len(self._cells) + 1 if ref is None else _COLUMNS[ref.rstrip("0123456789")]
        missing = at - 1 - len(self._cells)
        if missing < 0 or at > LAST_COLUMN:
            raise ValueError
        if missing:
            self._cells.extend([""] * missing)
        self._type, self._style = attributes.get("t", "n"), attributes.get("s", "")
        self._in_cell, self._formula, self._sounds = True, False, False
        self._said.clear()
        self._length = 0

    def _end_cell(self) -> None:
        self._in_cell = False
        raw = "".join(self._said)
        if self._spills and not self._formula:
            self._formula = self._in_spill(len(self._cells) + 1)
        if self._type == "s" and raw and not self._formula:  # by far the most
            at = int(raw)
            if not 0 <= at < len(self._strings):
                raise ValueError
            cell = self._strings[at]
        else:
            cell = self._cell(raw)
        self._cells.append(cell)
        if cell or not_computed((cell,)):
            self._holds = True

    def _add_spill(self, area: Merge) -> None:
        if area.top == area.bottom and area.left == area.right:  # the formula's own cell
            return
        if len(self._spills) >= _MOST_AREAS:
            raise ValueError
        self._spills.append(area)

    def _in_spill(self, column: int) -> bool:
        self._spills = [s for s in self._spills if s.bottom >= self._line]
        return any(s.left <= column <= s.right for s in self._spills)

    def _cell(self, raw: str) -> str:
        ref = f"{letters(len(self._cells) + 1)}{self._line}"
        if self._formula and not raw and self._type != "str":  # a formula that gives "" says so by its type
            return NonTextCell("", Kind.NOT_COMPUTED, ref)
        kind: Kind | None = None
        match self._type:
            case "s":
                raw = self._strings[int(raw)] if raw else ""
            case "str" | "inlineStr":
                raw = unescape(raw)
            case "b":
                raw, kind = "TRUE" if raw.strip() in {"1", "true"} else "FALSE", Kind.BOOLEAN
            case "e":
                kind = Kind.ERROR
            case "d":
                kind = Kind.DATE
            case _ if raw:
                raw, kind = self._formats.show(raw.strip(), self._style, since_1904=self._since_1904)
        if self._formula:
            kind = Kind.FORMULA
        return raw if kind is None else NonTextCell(raw, kind, ref)


def _is_hidden(row: dict[str, str]) -> bool:
    # A row without height is as unseen as one that is hidden; a filter hides the rows that it leaves out.
    return _yes(row.get("hidden")) or row.get("ht") == "0"


def _yes(value: str | None) -> bool:
    return value in {"1", "true"}


def area_of(ref: str) -> Merge:
    """Cells written as A1:B2, or as A1 for one. ValueError where they are not."""
    ends = [_REF.fullmatch(end) for end in ref.split(":")]
    corners = [(_COLUMNS[end[1]], int(end[2])) for end in ends if end is not None]
    if len(corners) != len(ends) or len(ends) > 2:
        raise ValueError(ref)
    (left, top), (right, bottom) = corners[0], corners[-1]
    return Merge(top, left, bottom, right)
