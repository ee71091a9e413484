"""Reading of workbooks (.xlsx, .xlsm) as a stream: sheets, rows, and the displayed value and kind of each cell."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import BinaryIO, NamedTuple, Self

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import BrokenTableError
from tcb_ops.formatting import shown
from tcb_ops.i18n import Text, _
from tcb_ops.model import Problem, file_problem
from tcb_ops.xlsx import Package, damaged, local, new_parser

# --- cells ---------------------------------------------------------------------------------------------------------


class CellKind(StrEnum):
    """The kind of a cell that is not text.

    None is allowed in env, path and file: a number has lost leading zeros and digits beyond the fifteenth, a date may
    have been typed as `1-2`, and a formula's value may change when the workbook is opened.
    """

    NUMBER = "number"
    DATE = "date"
    BOOLEAN = "boolean"
    ERROR = "error"
    """#N/A and similar."""
    FORMULA = "formula"
    NOT_COMPUTED = "not_computed"
    """A formula without a stored value: a program wrote it, and no spreadsheet has opened it since."""
    MERGED = "merged"
    """Covered by a merged cell, which has the value."""


class NonTextCell(str):
    """The displayed text of a cell that is not text."""

    __slots__ = ("kind", "ref")

    kind: CellKind
    ref: str
    """The cell's reference, such as B7; for MERGED that of the cell with the value."""

    def __new__(cls, text: str, kind: CellKind, ref: str) -> Self:
        """Create the text with its kind and reference."""
        self = super().__new__(cls, text)
        self.kind, self.ref = kind, ref
        return self


def not_computed(cells: Iterable[str]) -> bool:
    """Return whether a seemingly blank row has a formula without a stored value."""
    return any(isinstance(cell, NonTextCell) and cell.kind is CellKind.NOT_COMPUTED for cell in cells)


def non_text_problem(cell: NonTextCell) -> tuple[Text, Text]:
    """Return (message, fix) for a cell in a text-only column."""
    code, fix = _PROBLEMS[cell.kind]
    return detail(code, ref=cell.ref, value=shown(cell, 40)), fix


_AS_TEXT = _("format the column as Text, then type the value again (or begin it with ')")
_PROBLEMS = {
    CellKind.NUMBER: (DetailCode.CELL_NUMBER, _AS_TEXT),
    CellKind.DATE: (DetailCode.CELL_DATE, _AS_TEXT),
    CellKind.BOOLEAN: (DetailCode.CELL_BOOLEAN, _AS_TEXT),
    CellKind.ERROR: (DetailCode.CELL_ERROR, _("write the value itself")),
    CellKind.FORMULA: (DetailCode.CELL_FORMULA, _("copy the column and paste it over itself as values")),
    CellKind.NOT_COMPUTED: (
        DetailCode.CELL_NOT_COMPUTED,
        _("open the workbook, copy the column and paste it over itself as values"),
    ),
    CellKind.MERGED: (DetailCode.CELL_MERGED, _("unmerge the cells and fill in every row")),
}

# --- strings and formats --------------------------------------------------------------------------------------------

_LONGEST_CELL = 131_072
"""Characters, as in a CSV; the limit of spreadsheets is 32,767."""
_LARGEST_STRINGS = 256 << 20
"""Maximum bytes of the shared strings, which are kept in memory."""
_MOST_FORMATS, _MOST_STYLES = 10_000, 100_000
"""The limits of spreadsheets are about 250 and 65,490."""
_LONGEST_FORMAT = 1024
"""Characters; the limit of spreadsheets is 255."""


class TextReader:
    """Parser handlers that collect the text of elements, within limits and without phonetic guides (rPh)."""

    def __init__(self) -> None:
        self._collecting = self._phonetic = False
        self._pieces: list[str] = []
        self._length = 0
        """Characters collected."""

    def text(self, characters: str) -> None:
        """Handle characters. Raises ValueError if the text is too long."""
        if self._collecting:
            self._length += len(characters)
            if self._length > _LONGEST_CELL:
                raise ValueError
            self._pieces.append(characters)


class Strings(TextReader):
    """The shared strings, packed: a million paths take about 40 MB."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = bytearray()
        self._ends = array("Q", [0])

    def __getitem__(self, index: int) -> str:
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def read(self, package: Package, part: str) -> None:
        """Read the strings from their part."""
        for _each in package.feed(part, new_parser(self._start, self._end, self.text)):
            pass

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        match local(name):
            case "t":
                self._collecting = not self._phonetic
            case "rPh":
                self._phonetic = True
            case "si":
                self._pieces.clear()
                self._length = 0

    def _end(self, name: str) -> None:
        match local(name):
            case "t":
                self._collecting = False
            case "rPh":
                self._phonetic = False
            case "si":
                if len(self._bytes) + self._ends.itemsize * len(self._ends) > _LARGEST_STRINGS:
                    raise ValueError
                self._bytes.extend(unescape("".join(self._pieces)).encode("utf-8", "replace"))
                self._ends.append(len(self._bytes))


_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


def unescape(text: str) -> str:
    """Decode escapes such as _x000D_ for characters that are invalid in XML, except NUL, which no list has."""
    if "_x" not in text:
        return text
    plain = _ESCAPED.sub(lambda m: chr(int(m[1], 16)) if int(m[1], 16) else m[0], text)
    # A surrogate pair may have been written as two escapes; half of a pair is not a character.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_DATE_IDS = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}
"""The built-in number formats for dates and times, including those of Chinese systems."""
_NOT_LETTERS = re.compile(r'"[^"]*"|\[(?!h+\]|m+\]|s+\])[^\]]*\]|[\\_*].', re.IGNORECASE)
_DATE_LETTERS = re.compile("[dmyhs]", re.IGNORECASE)
_ZEROS = re.compile("0{2,}")


class Formats:
    """The number formats of cell styles."""

    def __init__(self) -> None:
        self._codes: dict[int, str] = {}
        self._styles: list[int] = []

    def read(self, package: Package, part: str) -> None:
        """Read the formats from their part."""
        within = False
        for name, attributes in package.elements(part):
            match name:
                case "numFmt":
                    code = attributes.get("formatCode", "")
                    if len(self._codes) >= _MOST_FORMATS or len(code) > _LONGEST_FORMAT:
                        raise BrokenTableError(damaged(part))
                    self._codes[_number(attributes, "numFmtId")] = code
                case "cellXfs" | "/cellXfs":
                    within = name == "cellXfs"
                case "xf" if within:
                    if len(self._styles) >= _MOST_STYLES:
                        raise BrokenTableError(damaged(part))
                    self._styles.append(_number(attributes, "numFmtId"))

    def show(self, raw: str, style: str, *, since_1904: bool) -> tuple[str, CellKind]:
        """Return a number as displayed, and whether it is a date. Raises ValueError if it is invalid."""
        at = int(style or 0)
        format_id = self._styles[at] if at < len(self._styles) else 0
        code = self._codes.get(format_id, "")
        if format_id in _DATE_IDS or _DATE_LETTERS.search(_NOT_LETTERS.sub("", code)):
            return date_text(float(raw), since_1904=since_1904), CellKind.DATE
        text = number_text(raw)
        return (text.zfill(len(code)) if _ZEROS.fullmatch(code) else text), CellKind.NUMBER


def _number(attributes: dict[str, str], name: str) -> int:
    value = attributes.get(name, "0")
    return int(value) if value.isdecimal() else 0


def number_text(raw: str) -> str:
    """Format a number as displayed in a cell: 12 for 12.0, 0.1 for 0.10000000000000001 (15 digits)."""
    if raw.isascii() and raw.isdigit() and len(raw) < 16:
        return str(int(raw))
    number = float(raw)
    if number.is_integer() and abs(number) < 1e21:
        return str(int(number))
    return format(number, ".15g").upper()


def date_text(serial: float, *, since_1904: bool) -> str:
    """Format a day number as ISO date, time, or both. Raises ValueError if it is out of range.

    Day 60 of the 1900 system is 29 February 1900, which did not exist; earlier days are off by one.
    """
    day_zero = datetime(1904, 1, 1) if since_1904 else datetime(1899, 12, 30)  # noqa: DTZ001  a cell has no time zone
    if not since_1904 and 1 <= serial < 60:
        day_zero += timedelta(days=1)
    try:
        moment = day_zero + timedelta(seconds=round(serial * 86_400))
    except OverflowError:
        raise ValueError(serial) from None
    if 0 <= serial < 1:
        return moment.time().isoformat()
    return moment.date().isoformat() if moment.time() == datetime.min.time() else moment.isoformat(" ")


# --- workbooks -----------------------------------------------------------------------------------------------------

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

    def rows(self, sheet: Sheet, reader: RowReader | None = None) -> Iterator[SheetRow]:
        """Yield the rows of a sheet that are not empty, in order.

        Raises BrokenTableError if the part is not a sheet, or its rows or cells are out of order.
        """
        reader = reader or RowReader(self)
        for _each in self.package.feed(sheet.part, new_parser(reader.start, reader.end, reader.text)):
            yield from reader.rows
            reader.rows.clear()

    def survey(self, sheet: Sheet, header_line: int) -> Survey:
        """Find merged cells, filters, and hidden columns and rows; only rows below the header are counted."""
        survey = Survey(header_line)
        for _each in self.package.feed(sheet.part, new_parser(survey.start, survey.end)):
            pass
        survey.merges.sort()
        return survey


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
    fix = _("give a list in .xlsx, .csv or .tsv")
    return file_problem(_("this is a zip file, but not a workbook with sheets"), fix)


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


class Survey:
    """Properties of a sheet that are needed before its rows, but stored among or after them; parser handlers fill it."""

    def __init__(self, header_line: int) -> None:
        self._header_line = header_line
        self._line, self._hidden, self._holds = 0, False, False
        self.merges: list[Area] = []
        """Sorted by first row."""
        self.hidden_columns: list[tuple[int, int]] = []
        """(first, last), counted from 1."""
        self.hidden_rows = self.first_hidden = 0
        """The number of hidden rows that are not empty, and the first one's line."""
        self.filtered = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element."""
        if name == "c":  # the most frequent case
            return
        match local(name):
            case "row":
                self._line = int(attributes.get("r", self._line + 1))
                self._hidden, self._holds = _is_hidden(attributes), False
            case "v" | "is":
                self._holds = True
            case "mergeCell":
                if len(self.merges) >= _MOST_AREAS:
                    raise ValueError
                self.merges.append(area_of(attributes["ref"]))
            case "col" if is_true(attributes.get("hidden")):
                if len(self.hidden_columns) >= LAST_COLUMN:
                    raise ValueError
                self.hidden_columns.append((int(attributes["min"]), int(attributes["max"])))
            case "filterColumn":
                self.filtered = True

    def end(self, name: str) -> None:
        """Handle the end of an element."""
        if self._hidden and self._holds and self._line > self._header_line and local(name) == "row":
            self.hidden_rows += 1
            self.first_hidden = self.first_hidden or self._line


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
