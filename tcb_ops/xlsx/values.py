"""Values of workbook cells: shared strings, number formats, and cells that are not text."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import BrokenTableError
from tcb_ops.formatting import shown
from tcb_ops.i18n import Text, _
from tcb_ops.xlsx.package import Package, damaged, local, new_parser


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
    message, fix = _MESSAGES[cell.kind]
    return message.format(ref=cell.ref, value=shown(cell, 40)), fix


_AS_TEXT = _("format the column as Text, then type the value again (or begin it with ')")
_AS_VALUE = _("copy the column and paste it over itself as values")
_MESSAGES = {
    CellKind.NUMBER: (detail(DetailCode.CELL_NUMBER), _AS_TEXT),
    CellKind.DATE: (detail(DetailCode.CELL_DATE), _AS_TEXT),
    CellKind.BOOLEAN: (detail(DetailCode.CELL_BOOLEAN), _AS_TEXT),
    CellKind.ERROR: (detail(DetailCode.CELL_ERROR), _("write the value itself")),
    CellKind.FORMULA: (detail(DetailCode.CELL_FORMULA), _AS_VALUE),
    CellKind.NOT_COMPUTED: (
        detail(DetailCode.CELL_NOT_COMPUTED),
        _("open the workbook, copy the column and paste it over itself as values"),
    ),
    CellKind.MERGED: (
        detail(DetailCode.CELL_MERGED),
        _("unmerge the cells and fill in every row"),
    ),
}


LONGEST_CELL = 131_072
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
            if self._length > LONGEST_CELL:
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
