"""Reading of workbooks (.xlsx, .xlsm) as a stream: sheets, rows, and the displayed value and kind of each cell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from tcb_ops.errors import BrokenTableError
from tcb_ops.i18n import _
from tcb_ops.model import Problem, file_problem
from tcb_ops.xlsx.package import Package, damaged, local, new_parser
from tcb_ops.xlsx.values import CellKind, Formats, NonTextCell, Strings, TextReader, not_computed, unescape

LAST_ROW, LAST_COLUMN = 1_048_576, 16_384
_MOST_SHEETS = 10_000
_MOST_AREAS = 100_000
"""Maximum merged cells and array formulas, which are kept in memory."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet of a workbook and the part that contains it."""

    name: str
    part: str
    hidden: bool


class SheetRow(NamedTuple):
    """A row that is not empty."""

    line: int
    hidden: bool
    cells: list[str]
    """Cells that are not text are NonTextCells."""


@dataclass(slots=True)
class Book:
    """An open workbook."""

    package: Package
    main: str
    """The part that lists the sheets."""
    sheets: list[Sheet] = field(default_factory=list)
    since_1904: bool = False
    strings: Strings = field(default_factory=Strings)
    formats: Formats = field(default_factory=Formats)

    def rows(self, sheet: Sheet) -> Iterator[SheetRow]:
        """Yield the rows of a sheet that are not empty, in order.

        Raises BrokenTableError if the part is not a sheet, or its rows or cells are out of order.
        """
        return self.read(sheet, RowReader(self))

    def read(self, sheet: Sheet, reader: RowReader) -> Iterator[SheetRow]:
        """Yield the rows of a sheet as read by `reader`."""
        for _each in self.package.feed(sheet.part, new_parser(reader.start, reader.end, reader.text)):
            yield from reader.rows
            reader.rows.clear()

    def survey(self, sheet: Sheet, header_line: int) -> Survey:
        """Find merged cells, filters, and hidden columns and rows; only rows below the header are counted."""
        surveyor = _Surveyor(header_line)
        for _each in self.package.feed(sheet.part, new_parser(surveyor.start, surveyor.end)):
            pass
        surveyor.survey.merges.sort()
        return surveyor.survey


def open_book(raw: BinaryIO) -> Book:
    """Open a workbook. Raises BrokenTableError if the file is not a readable workbook."""
    package = Package(raw)
    main = next((part for kind, part in package.related("").values() if kind == "officeDocument"), "")
    if not package.has(main) or not main.lower().endswith(".xml"):
        raise BrokenTableError(_not_a_workbook(package))
    book = Book(package, main)
    related = package.related(main)
    _list_sheets(book, related)
    if not book.sheets:
        raise BrokenTableError(_not_a_workbook(package))
    for kind, part in related.values():
        if kind == "sharedStrings":
            book.strings.read(package, part)
        elif kind == "styles":
            book.formats.read(package, part)
    return book


def _list_sheets(book: Book, related: Mapping[str, tuple[str, str]]) -> None:
    for name, attributes in book.package.elements(book.main):
        if name == "workbookPr":
            book.since_1904 = is_true(attributes.get("date1904"))
        elif name == "sheet":
            rid = next((v for k, v in attributes.items() if k.endswith(":id")), "")
            kind, part = related.get(rid, ("", ""))
            if kind == "worksheet":
                if len(book.sheets) >= _MOST_SHEETS:
                    raise BrokenTableError(damaged(book.main))
                hidden = attributes.get("state", "visible") != "visible"
                book.sheets.append(Sheet(attributes.get("name", ""), part, hidden))


_SAVE_AS_XLSX = _("open it in Excel or WPS and save it as .xlsx")


def _not_a_workbook(package: Package) -> Problem:
    if package.has("xl/workbook.bin"):
        return file_problem(_("this is a binary workbook (.xlsb)"), _SAVE_AS_XLSX)
    if package.has("content.xml"):
        return file_problem(_("this is an OpenDocument file (.ods)"), _SAVE_AS_XLSX)
    return file_problem(
        _("this is a zip file, but not a workbook with sheets"), _("give a list in .xlsx, .csv or .tsv")
    )


# --- references -----------------------------------------------------------------------------------------------------

_COLUMN = re.compile("[A-Z]{1,3}")
_REF = re.compile(r"\$?([A-Z]{1,3})\$?([0-9]{1,7})")


class Area(NamedTuple):
    """A rectangle of cells; rows and columns counted from 1, inclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def ref(self) -> str:
        """The first cell, such as B7; in merged cells it has the value."""
        return f"{letters(self.left)}{self.top}"

    def __str__(self) -> str:
        return f"{self.ref}:{letters(self.right)}{self.bottom}"


class _Columns(dict[str, int]):
    """Column letters → number, counted from 1."""

    def __missing__(self, name: str) -> int:
        if not _COLUMN.fullmatch(name):  # names are cached, so their number must be limited
            raise ValueError(name)
        number = 0
        for letter in name:
            number = number * 26 + ord(letter) - 64
        self[name] = number
        return number


_COLUMNS = _Columns()


def letters(column: int) -> str:
    """Return the letters of a column, counted from 1."""
    name = ""
    while column:
        column, rest = divmod(column - 1, 26)
        name = chr(65 + rest) + name
    return name


def column_of(ref: str) -> int:
    """Return the column of a cell such as B7, counted from 1."""
    return _COLUMNS[ref.rstrip("0123456789")]


def area_of(ref: str) -> Area:
    """Parse A1:B2, or A1 for a single cell. Raises ValueError."""
    ends = [_REF.fullmatch(end) for end in ref.split(":")]
    corners = [(_COLUMNS[end[1]], int(end[2])) for end in ends if end is not None]
    if len(corners) != len(ends) or len(ends) > 2:
        raise ValueError(ref)
    (left, top), (right, bottom) = corners[0], corners[-1]
    return Area(top, left, bottom, right)


# --- sheets ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Survey:
    """Properties of a sheet that are needed before its rows, but stored among or after them."""

    merges: list[Area] = field(default_factory=list)
    """Sorted by first row."""
    hidden_columns: list[tuple[int, int]] = field(default_factory=list)
    """(first, last), counted from 1."""
    hidden_rows: int = 0
    """Number of hidden rows that are not empty."""
    first_hidden: int = 0
    filtered: bool = False


class _Surveyor:
    """Parser handlers that fill a Survey."""

    def __init__(self, header_line: int) -> None:
        self.survey = Survey()
        self._header_line = header_line
        self._line, self._hidden, self._holds = 0, False, False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "c":  # the most frequent case
            return
        match local(name):
            case "row":
                self._line = int(attributes.get("r", self._line + 1))
                self._hidden, self._holds = _is_hidden(attributes), False
            case "v" | "is":
                self._holds = True
            case "mergeCell":
                if len(self.survey.merges) >= _MOST_AREAS:
                    raise ValueError
                self.survey.merges.append(area_of(attributes["ref"]))
            case "col" if is_true(attributes.get("hidden")):
                if len(self.survey.hidden_columns) >= LAST_COLUMN:
                    raise ValueError
                self.survey.hidden_columns.append((int(attributes["min"]), int(attributes["max"])))
            case "filterColumn":
                self.survey.filtered = True

    def end(self, name: str) -> None:
        if self._hidden and self._holds and self._line > self._header_line and local(name) == "row":
            self.survey.hidden_rows += 1
            self.survey.first_hidden = self.survey.first_hidden or self._line


class RowReader(TextReader):
    """Parser handlers that read a sheet's rows. Called for every element, so speed matters."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self.rows: list[SheetRow] = []
        self._strings, self._formats, self._since_1904 = book.strings, book.formats, book.since_1904
        self._line, self._hidden, self._holds = 0, False, False
        self._cells: list[str] = []
        self._spills: list[Area] = []
        """Areas of array formulas, whose results are in cells without a formula of their own."""
        self._in_cell = self._formula = False
        self._type = self._style = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element."""
        tag = local(name) if ":" in name else name
        if tag == "c":
            self._begin_cell(attributes)
        elif self._in_cell:
            if tag == "v" or (tag == "t" and not self._phonetic):
                self._collecting = True
            elif tag == "f":
                self._formula = True
                if attributes.get("t") == "array":
                    self._add_spill(area_of(attributes["ref"]))
            elif tag == "rPh":
                self._phonetic = True
        elif tag == "row":
            self._begin_row(attributes)

    def end(self, name: str) -> None:
        """Handle the end of an element."""
        tag = local(name) if ":" in name else name
        if tag in {"v", "t"}:
            self._collecting = False
        elif tag == "c":
            self._end_cell()
        elif tag == "rPh":
            self._phonetic = False
        elif tag == "row" and self._holds:
            self.rows.append(SheetRow(self._line, self._hidden, self._cells))

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
        self._in_cell, self._formula, self._phonetic = True, False, False
        self._pieces.clear()
        self._length = 0

    def _end_cell(self) -> None:
        self._in_cell = False
        raw = "".join(self._pieces)
        if self._spills and not self._formula:
            self._formula = self._in_spill(len(self._cells) + 1)
        if self._type == "s" and raw and not self._formula:  # the most frequent case
            at = int(raw)
            if not 0 <= at < len(self._strings):
                raise ValueError
            cell = self._strings[at]
        else:
            cell = self._cell(raw)
        self._cells.append(cell)
        if cell or not_computed((cell,)):
            self._holds = True

    def _add_spill(self, area: Area) -> None:
        if area.top == area.bottom and area.left == area.right:  # the cell of the formula itself
            return
        if len(self._spills) >= _MOST_AREAS:
            raise ValueError
        self._spills.append(area)

    def _in_spill(self, column: int) -> bool:
        self._spills = [s for s in self._spills if s.bottom >= self._line]
        return any(s.left <= column <= s.right for s in self._spills)

    def _cell(self, raw: str) -> str:
        ref = f"{letters(len(self._cells) + 1)}{self._line}"
        if self._formula and not raw and self._type != "str":  # a formula with the value "" has this type
            return NonTextCell("", CellKind.NOT_COMPUTED, ref)
        kind: CellKind | None = None
        match self._type:
            case "s":
                raw = self._strings[int(raw)] if raw else ""
            case "str" | "inlineStr":
                raw = unescape(raw)
            case "b":
                raw, kind = "TRUE" if raw.strip() in {"1", "true"} else "FALSE", CellKind.BOOLEAN
            case "e":
                kind = CellKind.ERROR
            case "d":
                kind = CellKind.DATE
            case _ if raw:
                raw, kind = self._formats.show(raw.strip(), self._style, since_1904=self._since_1904)
        if self._formula:
            kind = CellKind.FORMULA
        return raw if kind is None else NonTextCell(raw, kind, ref)


def _is_hidden(row: dict[str, str]) -> bool:
    # A row of height 0 is invisible, too. A filter hides the rows that do not match.
    return is_true(row.get("hidden")) or row.get("ht") == "0"


def is_true(value: str | None) -> bool:
    """Return whether an attribute is true in XML Schema notation."""
    return value in {"1", "true"}
