"""Workbooks (.xlsx, .xlsm): their sheets and rows, with the displayed value and kind of each cell.

python-calamine reads values and merged cells. One pass over a sheet's XML, before it, finds what calamine does not tell
(hidden rows, formulas, errors) and refuses sheets that would not fit into memory. A workbook is read whole.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from itertools import chain, pairwise, repeat
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self, TypeAlias
from xml.parsers import expat

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import BrokenTableError
from tcb_ops.formatting import shown
from tcb_ops.i18n import Text, _
from tcb_ops.model import Problem, file_problem

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

# --- cells ----------------------------------------------------------------------------------------------------------


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

_Value: TypeAlias = "float | bool | str | time | date | datetime | timedelta"


def displayed(value: _Value) -> tuple[str, CellKind]:
    """Return the text and kind of a value that is not text: 12 for 12.0, 0.1 for 0.10000000000000001 (15 digits)."""
    match value:
        case bool():
            return str(value).upper(), CellKind.BOOLEAN
        case float() | int():
            whole = float(value).is_integer() and abs(value) < 1e21
            return str(int(value)) if whole else format(value, ".15g").upper(), CellKind.NUMBER
        case timedelta():
            minutes, seconds = divmod(round(value.total_seconds()), 60)
            return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}", CellKind.DATE
        case datetime():
            moment = value.replace(microsecond=0) + timedelta(seconds=round(value.microsecond / 1e6))
            day = moment.date().isoformat()
            return day if moment.time() == time.min else moment.isoformat(" "), CellKind.DATE
    return str(value), CellKind.DATE


# --- the package ----------------------------------------------------------------------------------------------------

LAST_ROW, LAST_COLUMN = 1_048_576, 16_384
MOST_ROWS = 300_000
"""Rows of a sheet. CSV is read in a stream, a workbook whole: 300,000 rows of five columns take some 300 MB."""
_MOST_CELLS = 5_000_000
"""Cells up to the last one with a value: calamine keeps them all, 72 bytes each. Also the limit of shared strings."""
_MOST_TEXT = 4 << 30
"""Bytes of the longest shared string times the cells: calamine copies the string into each cell that refers to it."""
_LARGEST = 1 << 30
"""Bytes of all unpacked parts. A sheet of 300,000 rows and ten columns has about 120 MB."""
_LARGEST_SMALL = 16 << 20
"""Bytes of an unpacked part that lists sheets, relations or styles."""
_PLAUSIBLE, _RATIO = 16 << 20, 200
"""The compression ratio above so many bytes; sheets of one repeated row reach 100."""
_DEEPEST = 64
"""Nesting, which a parser keeps in memory. A sheet's cells are seven levels deep."""
_CHUNK = 1 << 16
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""The methods that ECMA-376 part 2, annex B allows. zipfile unpacks others without a memory limit."""

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PASSWORD = "EncryptedPackage".encode("utf-16-le")
"""The stream of an OLE container with an encrypted workbook ([MS-OFFCRYPTO] 2.3.4.4)."""

_SAVE_AGAIN = _("open it in Excel or WPS and save it as .xlsx, or as 'CSV UTF-8'")
_SAVE_AS_XLSX = _("open it in Excel or WPS and save it as .xlsx")
_Attributes: TypeAlias = dict[str, str]
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    NotImplementedError,
    OverflowError,
)


def _damaged(part: str) -> BrokenTableError:
    message = _("the workbook is damaged (in {part})", part=shown(part, 60))
    return BrokenTableError(file_problem(message, _SAVE_AGAIN))


def _bomb(part: str) -> BrokenTableError:
    message = _(
        "the workbook unpacks to far more data than a list can have (in {part})", part=shown(part, 60)
    )
    fix = _("copy the rows into a new workbook; do not open this one unless you know where it comes from")
    return BrokenTableError(file_problem(message, fix))


def _password() -> Problem:
    message = _("the workbook is protected with a password")
    fix = _("open it, remove the password (File > Info > Protect Workbook) and save it")
    return file_problem(message, fix)


def _ole(raw: BinaryIO) -> Problem:
    """Return the problem for an OLE container: an encrypted workbook, or one in the format before .xlsx."""
    if _PASSWORD in raw.read():
        return _password()
    return file_problem(_("this is an old workbook (.xls or .et)"), _SAVE_AS_XLSX)


class _Package:
    """The parts of a workbook. Raises BrokenTableError if a part cannot be read."""

    def __init__(self, raw: BinaryIO) -> None:
        raw.seek(0)
        if raw.read(len(_OLE)) == _OLE:
            raise BrokenTableError(_ole(raw))
        packed = raw.seek(0, io.SEEK_END)
        try:
            self._zip = zipfile.ZipFile(raw)
        except _UNREADABLE:
            message = _("this starts like a workbook (a zip file) but is incomplete")
            problem = file_problem(message, _("copy or download it again"))
        else:
            infos = self._zip.infolist()
            # Some writers use backslashes or a different case than in their own directory.
            self._parts = {info.filename.replace("\\", "/").lower(): info for info in infos}
            size = sum(info.file_size for info in infos)
            if size > _LARGEST or size > max(_PLAUSIBLE, packed * _RATIO):
                raise _bomb(max(infos, key=lambda info: info.file_size).filename)
            return
        raise BrokenTableError(problem)

    def has(self, part: str) -> bool:
        return part.lower() in self._parts

    def read(self, part: str, largest: int = _LARGEST) -> bytes:
        """Return the bytes of a part, at most as many as the zip states."""
        info = self._parts.get(part.lower())
        if info is None or info.compress_type not in _METHODS:
            raise _damaged(part)
        size = info.file_size
        if size > largest:
            raise _bomb(part)
        try:
            with self._zip.open(info) as file:
                data = file.read(size) if size else b""
        except _UNREADABLE:
            error = _damaged(part)
        except RuntimeError:  # zipfile raises this for an encrypted part
            error = BrokenTableError(_password())
        else:
            return data
        raise error

    def related(self, part: str) -> dict[str, tuple[str, str]]:
        """Return the parts that a part references: id → (kind, part)."""
        folder, name = posixpath.split(part)
        directory = posixpath.join(folder, "_rels", f"{name}.rels")
        related: dict[str, tuple[str, str]] = {}

        def start(name: str, attributes: _Attributes) -> None:
            if name == "Relationship" and attributes.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, attributes.get("Target", "")))
                kind = attributes.get("Type", "").rpartition("/")[2]
                related[attributes.get("Id", "")] = (kind, target.lstrip("/"))

        if self.has(directory):
            _elements(directory, self.read(directory, _LARGEST_SMALL), start)
        return related


def _elements(part: str, data: bytes, start: Callable[[str, _Attributes], None]) -> None:
    """Call `start` with the local name and attributes of each element of a part. Raises BrokenTableError."""
    depth = 0

    def open_element(name: str, attributes: _Attributes) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise _bomb(part)
        start(name.rpartition(":")[2], attributes)

    def close_element(_name: str) -> None:
        nonlocal depth
        depth -= 1

    _parse(part, data, open_element, close_element)


def _parse(
    part: str,
    data: bytes,
    start: Callable[[str, _Attributes], None],
    end: Callable[[str], None],
    text: Callable[[str], None] | None = None,
) -> None:
    """Parse a part. Raises BrokenTableError if it is not XML, or a handler raises ValueError or KeyError.

    A DOCTYPE is refused: no workbook has one, and its entities could expand without limit.
    """

    def refuse_doctype(*_arguments: object) -> None:
        raise _damaged("DOCTYPE")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse_doctype
    if text is not None:
        parser.CharacterDataHandler = text
    try:
        for at in range(0, len(data), _CHUNK):
            parser.Parse(data[at : at + _CHUNK], False)  # noqa: FBT003  expat takes it by position only
        parser.Parse(b"", True)  # noqa: FBT003  as above
    except (expat.ExpatError, LookupError, ValueError):
        error = _damaged(part)
    else:
        return
    raise error


def _is_true(value: str | None) -> bool:
    return value in {"1", "true"}


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


def area_of(ref: str) -> Area:
    """Parse A1:B2, or A1 for a single cell. Raises ValueError."""
    corners = [_REF.fullmatch(end) for end in ref.split(":")]
    cells = [(_COLUMNS[corner[1]], int(corner[2])) for corner in corners if corner is not None]
    if len(cells) != len(corners) or len(cells) > 2:
        raise ValueError(ref)
    return Area(cells[0][1], cells[0][0], cells[-1][1], cells[-1][0])


# --- the pass over a sheet ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Survey:
    """What a sheet's XML tells beside the values."""

    hidden: list[int] = field(default_factory=list)
    """The lines of hidden rows with a value."""
    hidden_columns: list[tuple[int, int]] = field(default_factory=list)
    """(first, last), counted from 1."""
    filtered: bool = False
    formulas: dict[int, dict[int, bool]] = field(default_factory=dict)
    """Line → column → whether the stored value is a text, which may be empty."""
    spills: list[Area] = field(default_factory=list)
    """Areas of array formulas, whose results are in cells without a formula of their own."""
    errors: dict[int, dict[int, str]] = field(default_factory=dict)
    """Line → column → the error's text, such as #N/A."""
    widths: dict[int, dict[int, int]] = field(default_factory=dict)
    """Line → column → digits that a number is padded to with zeros."""


class SheetTooLargeError(BrokenTableError):
    """The sheet has more rows, cells or text than are read from a workbook."""

    def __init__(self, line: int) -> None:
        message = _(
            "the sheet is too large to read as a workbook (limits: rows {most_rows:,}, cells {most_cells:,})",
            most_rows=MOST_ROWS,
            most_cells=_MOST_CELLS,
        )
        fix = _("save it as 'CSV UTF-8 (comma delimited)' and use that file")
        super().__init__(file_problem(message, fix, line=line))


class _Surveyor:
    """Parser handlers that fill a Survey. Called for every element, so speed matters.

    `padded`: cell styles with a number of digits; `longest_string`: bytes of a shared string, at most.
    """

    __slots__ = (
        "_cell", "_cells", "_column", "_depth", "_digits", "_error", "_hidden", "_last_column", "_line",
        "_longest_string", "_padded", "_part", "survey",
    )  # fmt: skip

    def __init__(self, part: str, padded: Mapping[str, int], longest_string: int) -> None:
        self.survey = Survey()
        self._part, self._padded, self._longest_string = part, padded, longest_string
        self._depth = self._line = self._column = self._last_column = self._cells = 0
        self._digits, self._hidden = "0", False
        self._cell: _Attributes = {}
        self._error: dict[int, str] | None = None
        """Where the text that follows belongs."""

    def start(self, name: str, attributes: _Attributes) -> None:
        """Handle the start of an element. Raises ValueError if rows or cells are out of order."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _bomb(self._part)
        self._error = None
        if ":" in name:
            name = name.rpartition(":")[2]
        if name == "c":
            ref, before = attributes.get("r"), self._column
            # calamine goes by the reference alone, so it must be within the row.
            column = before + 1 if ref is None else _COLUMNS[ref.removesuffix(self._digits)]
            if not before < column <= LAST_COLUMN:
                raise ValueError(ref)
            self._column, self._cell = column, attributes
        elif name in {"v", "is"}:
            self._begin_value()
        elif name == "row":
            self._begin_row(attributes)
        else:
            self._begin_other(name, attributes)

    def end(self, _name: str) -> None:
        """Handle the end of an element."""
        self._depth -= 1

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
        self._hidden = _is_true(attributes.get("hidden")) or attributes.get("ht") == "0"

    def _begin_value(self) -> None:
        line, column = self._line, self._column
        self._cells += 1
        self._last_column = max(self._last_column, column)
        area, text = line * self._last_column, self._cells * self._longest_string
        if line > MOST_ROWS or area > _MOST_CELLS or text > _MOST_TEXT:
            raise SheetTooLargeError(line)
        if self._hidden and self.survey.hidden[-1:] != [line]:
            self.survey.hidden.append(line)
        if self._cell.get("t") == "e":
            self._error = self.survey.errors.setdefault(line, {})
        elif self._padded and (width := self._padded.get(self._cell.get("s", ""))):
            self.survey.widths.setdefault(line, {})[column] = width

    def _begin_other(self, name: str, attributes: _Attributes) -> None:
        if name == "f":
            formulas = self.survey.formulas.setdefault(self._line, {})
            formulas[self._column] = self._cell.get("t") == "str"
            if attributes.get("t") == "array":
                self.survey.spills.append(area_of(attributes["ref"]))
        elif name == "col" and _is_true(attributes.get("hidden")):
            self.survey.hidden_columns.append((int(attributes["min"]), int(attributes["max"])))
        elif name == "filterColumn":
            self.survey.filtered = True


# --- workbooks ------------------------------------------------------------------------------------------------------

_KINDS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


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


class Book:
    """An open workbook. Raises BrokenTableError if the file is not a readable workbook."""

    def __init__(self, raw: BinaryIO) -> None:
        package = _Package(raw)
        main = next((part for kind, part in package.related("").values() if kind == "officeDocument"), "")
        if not package.has(main) or not main.lower().endswith(".xml"):
            raise BrokenTableError(_not_a_workbook(package))
        self.sheets: list[Sheet] = []
        related, since_1904 = package.related(main), False

        def start(name: str, attributes: _Attributes) -> None:
            nonlocal since_1904
            if name == "workbookPr":
                since_1904 = _is_true(attributes.get("date1904"))
            elif name == "sheet":
                rid = next((value for key, value in attributes.items() if key.endswith(":id")), "")
                kind, part = related.get(rid, ("", ""))
                if kind == "worksheet":
                    hidden = attributes.get("state", "visible") != "visible"
                    self.sheets.append(Sheet(attributes.get("name", ""), part, hidden))

        _elements(main, package.read(main, _LARGEST_SMALL), start)
        if not self.sheets:
            raise BrokenTableError(_not_a_workbook(package))
        parts = dict(related.values())
        styles = package.read(parts["styles"], _LARGEST_SMALL) if "styles" in parts else b"<styleSheet/>"
        strings = package.read(parts["sharedStrings"]) if "sharedStrings" in parts else b"<sst/>"
        self._padded = _padded_styles(parts.get("styles", ""), styles)
        self._longest_string = _longest_string(parts.get("sharedStrings", ""), strings)
        self._data = {sheet.part: package.read(sheet.part) for sheet in self.sheets}
        self._surveys: dict[str, Survey] = {}
        self._values: dict[str, CalamineSheet] = {}
        self._calamine = self._load(styles, strings, since_1904=since_1904)

    def _load(self, styles: bytes, strings: bytes, *, since_1904: bool) -> CalamineWorkbook:
        """Open the parts, as they were unpacked within the limits, with calamine."""
        from python_calamine import CalamineError, CalamineWorkbook

        numbers = range(len(self.sheets))
        listed = "".join(f'<sheet name="{n}" sheetId="{n + 1}" r:id="s{n}"/>' for n in numbers)
        related = [(f"s{n}", "worksheet", f"worksheets/{n}.xml") for n in numbers]
        related += [("styles", "styles", "styles.xml"), ("strings", "sharedStrings", "sharedStrings.xml")]
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w") as out:
            out.writestr(
                "xl/workbook.xml",
                f'<workbook xmlns="{_MAIN}" xmlns:r="{_KINDS}"><workbookPr date1904="{since_1904:d}"/>'
                f"<sheets>{listed}</sheets></workbook>",
            )
            out.writestr("_rels/.rels", _relations([("main", "officeDocument", "xl/workbook.xml")]))
            out.writestr("xl/_rels/workbook.xml.rels", _relations(related))
            out.writestr("xl/styles.xml", styles)
            out.writestr("xl/sharedStrings.xml", strings)
            for number, sheet in enumerate(self.sheets):
                out.writestr(f"xl/worksheets/{number}.xml", self._data[sheet.part])
        copy.seek(0)
        try:
            return CalamineWorkbook.from_filelike(copy)
        except CalamineError:
            error = _damaged("xl")
        raise error

    def survey(self, sheet: Sheet) -> Survey:
        """Return what a sheet's XML tells beside the values.

        Raises BrokenTableError if the part is not a sheet, is too large, or its rows or cells are out of order.
        """
        if sheet.part not in self._surveys:
            surveyor = _Surveyor(sheet.part, self._padded, self._longest_string)
            _parse(sheet.part, self._data[sheet.part], surveyor.start, surveyor.end, surveyor.text)
            self._surveys[sheet.part] = surveyor.survey
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
        hidden, spills = set(survey.hidden), survey.spills
        last = max(values.end[0] + 1 if values.end else 0, *survey.formulas, 0)
        rows = chain(values.iter_rows() if values.start else (), repeat([]))
        for line, row in zip(range(1, last + 1), rows, strict=False):
            cells = margin + [
                value if type(value) is str else _non_text(value, line, column, survey)
                for column, value in enumerate(row, len(margin) + 1)
            ]
            spills = [area for area in spills if area.bottom >= line] if spills else spills
            if line in survey.formulas or line in survey.errors or spills:
                _mark(cells, line, survey, spills)
            if any(cells) or not_computed(cells):
                yield SheetRow(line, line in hidden, cells)

    def _sheet(self, sheet: Sheet) -> CalamineSheet:
        from python_calamine import CalamineError

        self.survey(sheet)  # calamine must not read a sheet that is too large, or out of order
        try:
            if sheet.part not in self._values:
                number = self.sheets.index(sheet)
                self._values[sheet.part] = self._calamine.get_sheet_by_index(number)
            return self._values[sheet.part]
        except CalamineError:
            error = _damaged(sheet.part)
        raise error


def _relations(parts: Iterable[tuple[str, str, str]]) -> str:
    listed = (
        f'<Relationship Id="{name}" Type="{_KINDS}/{kind}" Target="{target}"/>'
        for name, kind, target in parts
    )
    return f"<Relationships>{''.join(listed)}</Relationships>"


def _non_text(value: _Value, line: int, column: int, survey: Survey) -> NonTextCell:
    text, kind = displayed(value)
    if kind is CellKind.NUMBER:
        text = text.zfill(survey.widths.get(line, {}).get(column, 0))
    return NonTextCell(text, kind, f"{letters(column)}{line}")


def _mark(cells: list[str], line: int, survey: Survey, spills: Iterable[Area]) -> None:
    """Mark the formulas and errors of a row."""
    errors = survey.errors.get(line, {})
    formulas = survey.formulas.get(line, {})
    last = max(chain(errors, formulas), default=0)
    cells.extend([""] * (last - len(cells)))
    spilled = {
        column
        for area in spills
        if area.top <= line
        for column in range(area.left, min(area.right, len(cells)) + 1)
    }
    for column in errors.keys() | formulas.keys() | spilled:
        text = errors.get(column, "").strip() or str(cells[column - 1])
        kind = CellKind.FORMULA if column in formulas or column in spilled else CellKind.ERROR
        if column in formulas and not text and not formulas[column]:
            kind = CellKind.NOT_COMPUTED
        cells[column - 1] = NonTextCell(text, kind, f"{letters(column)}{line}")


_ZEROS = re.compile("0{2,}")


def _padded_styles(part: str, data: bytes) -> dict[str, int]:
    """Return the cell styles that pad a number with zeros (format 000): index → digits."""
    widths: dict[str, int] = {}
    styles: dict[str, int] = {}
    section, index = "", 0

    def start(name: str, attributes: _Attributes) -> None:
        nonlocal section, index
        if name == "numFmt" and _ZEROS.fullmatch(attributes.get("formatCode", "")):
            widths[attributes.get("numFmtId", "")] = len(attributes["formatCode"])
        elif name.endswith("Xfs"):  # cellStyleXfs has elements of the same name
            section = name
        elif name == "xf" and section == "cellXfs":
            if (number := attributes.get("numFmtId", "")) in widths:
                styles[str(index)] = widths[number]
            index += 1

    _elements(part, data, start)
    return styles


def _longest_string(part: str, data: bytes) -> int:
    """Return an upper limit of the bytes of a shared string, and check their number."""
    if data.count(b"si>") > 2 * _MOST_CELLS:
        raise _bomb(part)
    _elements(part, data, lambda _name, _attributes: None)
    begins = (found.start() for found in re.finditer(rb"<(?:[\w.-]+:)?si\b", data))
    return max((after - begin for begin, after in pairwise(chain(begins, [len(data)]))), default=0)


def _not_a_workbook(package: _Package) -> Problem:
    if package.has("xl/workbook.bin"):
        return file_problem(_("this is a binary workbook (.xlsb)"), _SAVE_AS_XLSX)
    if package.has("content.xml"):
        return file_problem(_("this is an OpenDocument file (.ods)"), _SAVE_AS_XLSX)
    fix = _("give a list in .xlsx, .csv or .tsv")
    return file_problem(_("this is a zip file, but not a workbook with sheets"), fix)
