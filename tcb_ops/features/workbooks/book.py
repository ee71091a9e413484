"""Workbooks (.xlsx, .xlsm): their sheets and rows, with the displayed value and kind of each cell; and a list in one, as a table.

python-calamine reads values and merged cells. One pass over a sheet's XML, before it, finds what calamine does not tell
(hidden rows, formulas, errors) and refuses sheets that would not fit into memory. A workbook is read whole.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from functools import cache
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self, TypeAlias
from xml.parsers import expat

from tcb_ops.details import detail
from tcb_ops.errors import BrokenTableError
from tcb_ops.features.workbooks import CellCode
from tcb_ops.formatting import fold, shown
from tcb_ops.i18n import Text, _
from tcb_ops.lists.table import (
    HEAD_ROWS,
    NonTextCell,
    Rate,
    Rating,
    Record,
    Table,
    find_header,
    not_computed,
    quoted_names,
)
from tcb_ops.model import Rows, file_problem

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

# --- cells ----------------------------------------------------------------------------------------------------------

_AS_TEXT = _("format the column as Text, then type the value again (or begin it with ')")
_FIXES = {
    CellCode.CELL_ERROR: _("write the value itself"),
    CellCode.CELL_FORMULA: _("copy the column and paste it over itself as values"),
    CellCode.CELL_NOT_COMPUTED: _("open the workbook, copy the column and paste it over itself as values"),
    CellCode.CELL_MERGED: _("unmerge the cells and fill in every row"),
}


def displayed(value: float | bool | str | time | date | datetime | timedelta) -> tuple[str, CellCode]:
    """Return the text and kind of a value that is not text: 12 for 12.0, 0.1 for 0.10000000000000001 (15 digits)."""
    match value:
        case bool():
            return str(value).upper(), CellCode.CELL_BOOLEAN
        case float() | int():
            is_whole = float(value).is_integer() and abs(value) < 1e21
            return str(int(value)) if is_whole else format(value, ".15g").upper(), CellCode.CELL_NUMBER
        case timedelta():
            minutes, seconds = divmod(round(value.total_seconds()), 60)
            return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}", CellCode.CELL_DATE
        case datetime():
            moment = value.replace(microsecond=0) + timedelta(seconds=round(value.microsecond / 1e6))
            day = moment.date().isoformat()
            return day if moment.time() == time.min else moment.isoformat(" "), CellCode.CELL_DATE
    return str(value), CellCode.CELL_DATE


class SheetCell(NonTextCell):
    """A cell of a sheet that is not text."""

    __slots__ = ("kind", "ref")

    kind: CellCode
    ref: str
    """The cell's reference, such as B7; for CELL_MERGED that of the cell with the value."""

    def __new__(cls, text: str, kind: CellCode, ref: str) -> Self:
        """Create the text with its kind and reference."""
        self = super().__new__(cls, text)
        self.kind, self.ref = kind, ref
        return self

    @property
    def is_clear(self) -> bool:
        """Whether the displayed text is the value."""
        return self.kind in {CellCode.CELL_NUMBER, CellCode.CELL_DATE, CellCode.CELL_BOOLEAN}

    @property
    def is_computed(self) -> bool:
        """Whether the file has the cell's value."""
        return self.kind is not CellCode.CELL_NOT_COMPUTED

    @property
    def problem(self) -> tuple[Text, Text]:
        """The (message, fix) of the cell in a text-only column."""
        return detail(self.kind, ref=self.ref, value=shown(self, 40)), _FIXES.get(self.kind, _AS_TEXT)


# --- the file -------------------------------------------------------------------------------------------------------

LAST_ROW, LAST_COLUMN = 1_048_576, 16_384
MOST_ROWS = 300_000
"""Rows of a sheet. CSV is read in a stream, a workbook whole: 300,000 rows of five columns take some 300 MB."""
_MOST_CELLS = 5_000_000
"""Cells up to the last one with a value: calamine keeps them all, 72 bytes each."""
_LARGEST = 1 << 30
"""Bytes of all unpacked parts. A sheet of 300,000 rows and ten columns has about 120 MB."""
_PLAUSIBLE, _RATIO = 16 << 20, 200
"""The compression ratio above so many bytes; sheets of one repeated row reach 100."""
_CHUNK = 1 << 16
_MAIN, _STRINGS = "xl/workbook.xml", "xl/sharedstrings.xml"
_OTHER_MAINS = {"xl/workbook.bin", "content.xml"}
"""Of .xlsb and .ods: where calamine cannot read an .xlsx, it tries these, which nothing here has looked at."""
_SHORTEST_STRING = len("<si/>")

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""How old workbooks begin, and those with a password ([MS-OFFCRYPTO] 2.3.4.4)."""
_OTHER_FORMAT = file_problem(
    _("this is not an .xlsx workbook, or it is protected with a password"),
    _("open it in Excel or WPS, remove the password (File > Info > Protect Workbook), and save it as .xlsx"),
)
_Attributes: TypeAlias = dict[str, str]
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, LookupError, ValueError, RuntimeError)
"""What zipfile raises for a broken file; RuntimeError for an encrypted part or an unknown method."""


def _damaged(part: str) -> BrokenTableError:
    message = _("the workbook is damaged (in {part})", part=shown(part, 60))
    return BrokenTableError(
        file_problem(message, _("open it in Excel or WPS and save it as .xlsx, or as 'CSV UTF-8'"))
    )


def _unzip(raw: BinaryIO) -> zipfile.ZipFile:
    """Open the parts of a workbook. Raises BrokenTableError if it is none, is damaged, or unpacks to too much."""
    raw.seek(0)
    if raw.read(len(_OLE)) == _OLE:
        raise BrokenTableError(_OTHER_FORMAT)
    packed = raw.seek(0, io.SEEK_END)
    try:
        package = zipfile.ZipFile(raw)
    except _UNREADABLE:
        message = _("this starts like a workbook (a zip file) but is incomplete")
        raise BrokenTableError(file_problem(message, _("copy or download it again"))) from None
    parts = package.infolist()
    size = sum(part.file_size for part in parts)
    if size > _LARGEST or size > max(_PLAUSIBLE, packed * _RATIO):
        largest = max(parts, key=lambda part: part.file_size).filename
        message = _("the workbook unpacks to far more data than a list can have (in {part})", part=largest)
        fix = _("copy the rows into a new workbook; do not open this one unless you know where it comes from")
        raise BrokenTableError(file_problem(message, fix))
    names = {_folded(part.filename) for part in parts}
    if _MAIN not in package.namelist() or names & _OTHER_MAINS:
        raise BrokenTableError(_OTHER_FORMAT)
    if len(names) < len(parts):  # calamine might read another one than is read here
        raise _damaged("xl")
    try:
        broken = package.testzip()  # calamine does not compare checksums
    except _UNREADABLE:
        broken = _MAIN
    if broken is not None:
        raise _damaged(broken)
    return package


def _parse(
    package: zipfile.ZipFile,
    part: str,
    start: Callable[[str, _Attributes], None],
    text: Callable[[str], None] | None = None,
) -> None:
    """Call `start` with the name and attributes of each element of a part, and `text` with what follows.

    Raises BrokenTableError if it is not XML, or `start` raises ValueError or KeyError. A DOCTYPE is refused: no workbook
    has one, and its entities could expand without limit.
    """

    def refuse_doctype(*_arguments: object) -> None:
        raise _damaged("DOCTYPE")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse_doctype
    if text is not None:
        parser.CharacterDataHandler = text
    try:
        with package.open(part) as content:
            while chunk := content.read(_CHUNK):
                parser.Parse(chunk, False)  # noqa: FBT003  expat takes it by position only
            parser.Parse(b"", True)  # noqa: FBT003  as above
    except (*_UNREADABLE, expat.ExpatError):
        raise _damaged(part) from None


def _folded(part: str) -> str:
    """Return the name by which calamine looks for a part."""
    return part.replace("\\", "/").lower()


class _Enough(Exception):  # noqa: N818  it ends a loop, and is no error
    """Ends the reading of a part."""


def _check_strings(package: zipfile.ZipFile) -> None:
    """Raise BrokenTableError if a workbook claims more strings than it can have: calamine takes memory for them at once.

    Where there is not so much memory, that ends the process.
    """

    def root(name: str, attributes: _Attributes) -> None:
        claimed = int(attributes.get("uniqueCount", 0))
        if name.rpartition(":")[2] != "sst" or claimed * _SHORTEST_STRING > part.file_size:
            raise ValueError(claimed)
        raise _Enough

    for part in package.infolist():
        if _folded(part.filename) == _STRINGS:
            with suppress(_Enough):
                _parse(package, part.filename, root)


@contextmanager
def _reading(part: str) -> Iterator[None]:
    """Raise BrokenTableError where calamine cannot read a part. Its panics are exceptions that nothing else catches."""
    from python_calamine import CalamineError

    try:
        yield
    except CalamineError:
        raise _damaged(part) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of a module that cannot be imported
            raise
        raise _damaged(part) from None


# --- references -----------------------------------------------------------------------------------------------------

_COLUMN = re.compile("[A-Z]{1,3}")


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


@cache
def _column_number(name: str) -> int:
    if not _COLUMN.fullmatch(name):
        raise ValueError(name)
    number = 0
    for letter in name:
        number = number * 26 + ord(letter) - 64
    return number


def letters(column: int) -> str:
    """Return the letters of a column, counted from 1."""
    name = ""
    while column:
        column, rest = divmod(column - 1, 26)
        name = chr(65 + rest) + name
    return name


# --- the pass over a sheet ------------------------------------------------------------------------------------------


def _too_large(line: int) -> BrokenTableError:
    message = _(
        "the sheet is too large to read as a workbook (limits: rows {most_rows:,}, cells {most_cells:,})"
    )
    message = message.format(most_rows=MOST_ROWS, most_cells=_MOST_CELLS)
    fix = _("save it as 'CSV UTF-8 (comma delimited)' and use that file")
    return BrokenTableError(file_problem(message, fix, line=line))


class Survey:
    """What a sheet's XML tells beside the values. Its handlers are called for every element, so speed matters."""

    __slots__ = (
        *("hidden", "formulas", "errors"),
        *("_cell", "_column", "_digits", "_error", "_hidden", "_last_column", "_line"),
    )

    def __init__(self) -> None:
        self.hidden: list[int] = []
        """The lines of hidden rows with a value."""
        self.formulas: dict[int, dict[int, bool]] = {}
        """Line → column → whether the stored value is a text, which may be empty."""
        self.errors: dict[int, dict[int, str]] = {}
        """Line → column → the error's text, such as #N/A."""
        self._line = self._column = self._last_column = 0
        self._digits, self._hidden = "0", False
        self._cell: _Attributes = {}
        self._error: dict[int, str] | None = None
        """Where the text that follows belongs."""

    def start(self, name: str, attributes: _Attributes) -> None:
        """Handle the start of an element. Raises ValueError if rows or cells are out of order."""
        self._error = None
        if ":" in name:
            name = name.rpartition(":")[2]
        if name == "c":
            ref, before = attributes.get("r"), self._column
            # calamine goes by the reference alone, so it must be within the row.
            column = before + 1 if ref is None else _column_number(ref.removesuffix(self._digits))
            if not before < column <= LAST_COLUMN:
                raise ValueError(ref)
            self._column, self._cell = column, attributes
        elif name in {"v", "is"}:
            self._begin_value()
        elif name == "row":
            self._begin_row(attributes)
        elif name == "f":
            formulas = self.formulas.setdefault(self._line, {})
            formulas[self._column] = self._cell.get("t") == "str"

    def text(self, characters: str) -> None:
        """Collect the text of an error."""
        if self._error is not None:
            self._error[self._column] = self._error.get(self._column, "") + characters

    def _begin_row(self, attributes: _Attributes) -> None:
        line = int(attributes.get("r", self._line + 1))
        if not self._line < line <= LAST_ROW:
            raise ValueError(line)
        self._line, self._digits, self._column = line, str(line), 0
        # A row of height 0 is invisible, too. A filter hides the rows that do not match.
        self._hidden = attributes.get("hidden") in {"1", "true"} or attributes.get("ht") == "0"

    def _begin_value(self) -> None:
        line = self._line
        self._last_column = max(self._last_column, self._column)
        if line > MOST_ROWS or line * self._last_column > _MOST_CELLS:
            raise _too_large(line)
        if self._hidden and self.hidden[-1:] != [line]:
            self.hidden.append(line)
        if self._cell.get("t") == "e":
            self._error = self.errors.setdefault(line, {})


# --- workbooks ------------------------------------------------------------------------------------------------------


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
    """Cells that are not text are SheetCells."""


class Book:
    """An open workbook. Raises BrokenTableError if the file is not a readable workbook."""

    def __init__(self, raw: BinaryIO) -> None:
        from python_calamine import CalamineWorkbook

        self._package = _unzip(raw)
        self.sheets = _sheets(self._package)
        self._surveys: dict[str, Survey] = {}
        self._values: dict[str, CalamineSheet] = {}
        _check_strings(self._package)
        raw.seek(0)
        with _reading("xl"):
            self._calamine = CalamineWorkbook.from_filelike(raw)

    def survey(self, sheet: Sheet) -> Survey:
        """Return what a sheet's XML tells beside the values.

        Raises BrokenTableError if the part is not a sheet, is too large, or its rows or cells are out of order.
        """
        if sheet.part not in self._surveys:
            survey = Survey()
            _parse(self._package, sheet.part, survey.start, survey.text)
            self._surveys[sheet.part] = survey
        return self._surveys[sheet.part]

    def merges(self, sheet: Sheet) -> list[Area]:
        """Return the merged cells of a sheet, sorted by first row."""
        ranges = self._sheet(sheet).merged_cell_ranges or []
        return sorted(
            Area(top + 1, left + 1, bottom + 1, right + 1) for (top, left), (bottom, right) in ranges
        )

    def rows(self, sheet: Sheet) -> Iterator[SheetRow]:
        """Yield the rows of a sheet that are not empty, in order. Raises BrokenTableError like `survey`."""
        survey = self.survey(sheet)
        values = self._sheet(sheet)
        margin = [""] * (values.start[1] if values.start else 0)
        hidden = set(survey.hidden)
        last = max(values.end[0] + 1 if values.end else 0, *survey.formulas, 0)
        rows = chain(values.iter_rows() if values.start else (), repeat([]))
        for line, row in zip(range(1, last + 1), rows, strict=False):
            cells = margin + [
                value if type(value) is str else SheetCell(*displayed(value), f"{letters(column)}{line}")
                for column, value in enumerate(row, len(margin) + 1)
            ]
            if line in survey.formulas or line in survey.errors:
                _mark(cells, line, survey)
            if any(cells) or not_computed(cells):
                yield SheetRow(line, line in hidden, cells)

    def _sheet(self, sheet: Sheet) -> CalamineSheet:
        self.survey(sheet)  # calamine must not read a sheet that is too large, or out of order
        if sheet.part not in self._values:
            with _reading(sheet.part):
                self._values[sheet.part] = self._calamine.get_sheet_by_name(sheet.name)
        return self._values[sheet.part]


def _check_main(name: str, attributes: _Attributes) -> None:
    """Raise ValueError if a relation of the package names another main part."""
    is_main = name.rpartition(":")[2] == "Relationship" and attributes["Type"].endswith("/officeDocument")
    if is_main and attributes["Target"].removeprefix("/") != _MAIN:
        raise ValueError(attributes["Target"])


def _sheets(package: zipfile.ZipFile) -> list[Sheet]:
    """Return the worksheets. Names and parts are found as calamine finds them, so that it reads what was surveyed."""
    parts: dict[str, str] = {}
    sheets: list[Sheet] = []

    def relation(name: str, attributes: _Attributes) -> None:
        if name.rpartition(":")[2] == "Relationship":
            parts.pop(attributes["Id"], None)
            if attributes["Type"].endswith("/worksheet"):
                parts[attributes["Id"]] = posixpath.join("/xl", attributes["Target"])[1:]

    def sheet(name: str, attributes: _Attributes) -> None:
        ids = [value for key, value in attributes.items() if key.rpartition(":")[2] == "id"]
        if name.rpartition(":")[2] == "sheet" and (part := parts.get(ids[-1])) is not None:
            sheets.append(Sheet(attributes["name"], part, attributes.get("state", "visible") != "visible"))

    _parse(package, "_rels/.rels", _check_main)
    _parse(package, "xl/_rels/workbook.xml.rels", relation)
    _parse(package, _MAIN, sheet)
    if not sheets:
        raise BrokenTableError(_OTHER_FORMAT)
    if len({sheet.name for sheet in sheets}) < len(sheets):
        raise _damaged(_MAIN)
    return sheets


def _mark(cells: list[str], line: int, survey: Survey) -> None:
    errors, formulas = survey.errors.get(line, {}), survey.formulas.get(line, {})
    columns = errors.keys() | formulas.keys()
    cells.extend([""] * (max(columns) - len(cells)))
    for column in columns:
        text = errors.get(column, "").strip() or str(cells[column - 1])
        kind = CellCode.CELL_FORMULA if column in formulas else CellCode.CELL_ERROR
        if column in formulas and not text and not formulas[column]:
            kind = CellCode.CELL_NOT_COMPUTED
        cells[column - 1] = SheetCell(text, kind, f"{letters(column)}{line}")


# --- the list in a workbook -----------------------------------------------------------------------------------------


def read_workbook(
    raw: BinaryIO, rate: Rate, sheet: str = "", header_line: int = 0, rows: Rows | None = None
) -> Table:
    """Read a sheet of an open workbook as a table; `sheet` "" and `header_line` 0 detect them.

    =====================================================  =======================================================
    the workbook                                           result
    =====================================================  =======================================================
    --sheet NAME                                           this sheet, hidden or not; problem if it does not exist
    one visible sheet has every needed column              this sheet
    none has, one visible sheet has most known names       this sheet, so that its own problems are reported
    none has a known name, one visible sheet is not empty  the same
    several have, or none and several have as many names   problem that lists them and suggests --sheet
    hidden rows below the header, no --rows                without them; at the end, problem that counts them
    the same, --rows all / visible                         all rows / without them
    =====================================================  =======================================================

    Raises BrokenTableError if it is not a readable workbook, or the sheet or its rows are ambiguous.
    """
    book = Book(raw)
    chosen = list_sheet(book, rate, sheet)
    layout = _("XLSX, sheet '{name}'", name=shown(chosen.name))
    records = ((row.line, row.cells) for row in book.rows(chosen) if rows != "visible" or not row.hidden)
    table = find_header(records, rate, header_line, layout=layout)
    hidden = {line for line in book.survey(chosen).hidden if line > table.header_line}
    below = _visible(table.rows, hidden) if hidden and rows is None else table.rows
    below = _with_merges(below, book.merges(chosen), len(table.headers))
    return replace(table, rows=below, left_out=len(hidden) if rows == "visible" else 0)


def _visible(records: Iterable[Record], hidden: Collection[int]) -> Iterator[Record]:
    """Yield the records that are not hidden. Raises BrokenTableError at the end: whether the others count is not known."""
    yield from (record for record in records if record[0] not in hidden)
    message = _("hidden rows: {hidden_rows:,}, the first is row {first_hidden}")
    message = message.format(hidden_rows=len(hidden), first_hidden=min(hidden))
    fix = _("include them with {--rows:all}, exclude them with {--rows:visible}, or unhide or delete them")
    raise BrokenTableError(file_problem(message, fix, answer="rows"))


def list_sheet(book: Book, rate: Rate, name: str = "") -> Sheet:
    """Return the sheet with the list, by the table of `read_workbook`. Raises BrokenTableError."""
    if not name:
        return _detected(book, rate)
    sheets = book.sheets
    named = [s for s in sheets if s.name == name] or [s for s in sheets if fold(s.name) == fold(name)]
    if len(named) == 1:
        return named[0]
    message = _("{--sheet} {name}: there is no such sheet; there are {listed}")
    message = message.format(name=shown(name, 40), listed=quoted_names(sheet.name for sheet in sheets))
    raise BrokenTableError(file_problem(message, _("choose one of these")))


def _detected(book: Book, rate: Rate) -> Sheet:
    heads = {sheet: [*islice(book.rows(sheet), HEAD_ROWS)] for sheet in book.sheets if not sheet.hidden}
    ratings = {sheet: max(rate(row.cells) for row in head) for sheet, head in heads.items() if head}
    most = max(ratings.values(), default=Rating(complete=False, known=0))
    candidates = [
        sheet
        for sheet, rating in ratings.items()
        if (rating.complete if most.complete else rating.known == most.known)
    ] or book.sheets
    if len(candidates) == 1:
        return candidates[0]
    names = [sheet.name for sheet in candidates]
    message = _("several sheets might be the list: {listed}", listed=quoted_names(names))
    fix = _(
        "select the right one with {--sheet} '{first}', and its columns with {--column:path=HEADER} if they have other names",
        first=shown(max(candidates, key=lambda sheet: len(heads.get(sheet, ()))).name, 40),
    )
    raise BrokenTableError(file_problem(message, fix))


def _with_merges(rows: Iterator[Record], merges: Sequence[Area], width: int) -> Iterator[Record]:
    """Mark the cells covered by a merged cell. Rows and merges are sorted, so one pass is enough."""
    index, active = 0, list[Area]()
    for line, cells in rows:
        while index < len(merges) and merges[index].top <= line:
            active.append(merges[index])
            index += 1
        if active:
            active = [merge for merge in active if merge.bottom >= line]
            for merge in active:
                for column in range(merge.left, min(merge.right, width) + 1):
                    cells.extend([""] * (column - len(cells)))
                    if (line, column) != (merge.top, merge.left):
                        cells[column - 1] = SheetCell("", CellCode.CELL_MERGED, merge.ref)
        yield line, cells
