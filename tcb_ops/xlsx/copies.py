"""Copies of a workbook with columns appended to a sheet: of the whole (`add_columns`), or one per group of rows (`write_split`).

In a copy of the whole, all else is copied byte for byte. So content that this module does not know (charts, validations,
features of later Excel versions) is preserved.

A copy with deleted rows would still contain their texts: in shared strings, charts and other sheets. So that no group's
data is disclosed to another, each gets a new workbook with only the header, its rows, and the formats of cells, rows and columns.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from xml.sax.saxutils import escape, quoteattr

from tcb_ops.errors import BrokenTableError
from tcb_ops.xlsx import Change, PartPatcher, damaged, local
from tcb_ops.xlsx.workbook import (
    LAST_COLUMN,
    Area,
    Book,
    RowReader,
    Sheet,
    area_of,
    column_of,
    is_true,
    letters,
    unescape,
)

if TYPE_CHECKING:
    from xlsxwriter import Workbook
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

Values = Iterator[tuple[int, Sequence[str]]]
"""(line, texts of the new columns), by line."""


@dataclass(frozen=True, slots=True)
class AppendColumns:
    """The columns to append."""

    header_line: int
    first: int
    """The first new column, counted from 1; there are as many as headers."""
    headers: tuple[str, ...]
    widths: tuple[int, ...]
    """In characters."""
    like: int
    """The column whose cell styles the new ones copy, row by row."""

    @property
    def last(self) -> int:
        """The last new column."""
        return self.first + len(self.headers) - 1


class _Texts:
    """The texts of the new columns, for lines in ascending order."""

    def __init__(self, added: AppendColumns, values: Values) -> None:
        self._added, self._values = added, values
        self._next = next(values, None)

    def of(self, line: int) -> Sequence[str] | None:
        """Return the texts of a line; None if it has none."""
        if line == self._added.header_line:
            return self._added.headers
        while self._next is not None and self._next[0] < line:
            self._next = next(self._values, None)
        return self._next[1] if self._next is not None and self._next[0] == line else None


# --- copies of the whole --------------------------------------------------------------------------------------------

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f]")
_ESCAPED = re.compile("_(?=x[0-9A-Fa-f]{4}_)")
NOT_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
"""Characters that are invalid in XML."""
_ANCHOR = re.compile(rb"<(?:[\w.-]+:)?col>\s*(\d{1,5})\s*</")
"""The column of a drawing's anchor, from 0 (ECMA-376 part 1, 20.5.2.5)."""
_FILTER = "_xlnm._FilterDatabase"


def as_text(text: str) -> str:
    """Escape a text for a workbook's XML; a control character becomes _x0001_ (ECMA-376 22.9.2.19)."""
    if not text.isascii():
        text = NOT_XML.sub("\ufffd", text)
    text = _ESCAPED.sub("_x005F_", text)
    return escape(_CONTROL.sub(lambda found: f"_x{ord(found[0]):04X}_", text))


def replaced(tag: bytes, attribute: str, value: str) -> bytes:
    """Return a tag with a new value of an attribute; unchanged if it does not have the attribute."""
    found = re.search(rb"(?<=\s)" + attribute.encode() + rb"\s*=\s*(\"[^\"]*\"|'[^']*')", tag)
    if found is None:
        return tag
    return tag[: found.start(1)] + quoteattr(value).encode() + tag[found.end(1) :]


def first_free(book: Book, sheet: Sheet, used: int) -> int:
    """Return the first column right of everything in a sheet: cells (up to column `used`), merges, tables, charts.

    At most LAST_COLUMN + 1.
    """
    ends = [used, *(merge.right for merge in book.survey(sheet, 0).merges)]
    for kind, part in book.package.related(sheet.part).values():
        if kind == "table":
            for name, attributes in book.package.elements(part):
                if name == "table":
                    ends.append(area_of(attributes["ref"]).right)
        elif kind == "drawing":
            ends += [int(column) + 1 for column in _ANCHOR.findall(book.package.read(part))]
    return min(max(ends), LAST_COLUMN) + 1


def add_columns(book: Book, sheet: Sheet, added: AppendColumns, values: Values, out: BinaryIO) -> None:
    """Write a copy of a workbook to `out` with columns appended to a sheet.

    Raises BrokenTableError if the workbook cannot be read, OSError if `out` cannot be written.
    """
    changes: dict[str, Change] = {
        sheet.part: _Rows(added, values).patch,
        book.main: _Names(added, sheet.name).patch,
    }
    for kind, part in book.package.related(sheet.part).values():
        if kind == "table":
            changes[part] = _TableColumns(added).patch
    book.package.copy(out, changes)


class _Patcher(PartPatcher):
    """Patches a part for the new columns."""

    def __init__(self, added: AppendColumns) -> None:
        super().__init__()
        self._added = added

    def widen(self, attributes: dict[str, str]) -> None:
        """Widen the area of the current tag to the last new column and the header row."""
        area, line = area_of(attributes["ref"]), self._added.header_line
        wider = Area(
            min(area.top, line), area.left, max(area.bottom, line), max(area.right, self._added.last)
        )
        self.change_tag(replaced(self.tag(), "ref", str(wider)))


class _Rows(_Patcher):
    """Patches the sheet: the cells of its rows, and the elements that state its extent."""

    def __init__(self, added: AppendColumns, values: Values) -> None:
        super().__init__(added)
        self._texts_of = _Texts(added, values).of
        self._depth = 0
        self._line = self._column = 0
        self._prefix = ""
        self._columns: list[dict[str, str]] | None = None
        self._texts: Sequence[str] | None = None
        """The texts still to write in this row."""
        self._wanted = False
        self._style = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        match local(name):
            case "c":  # the most frequent case
                if self._wanted:
                    self._begin_cell(attributes)
            case "row":
                self._begin_row(name, attributes)
            case "col" if self._columns is not None:
                if len(self._columns) >= LAST_COLUMN:
                    raise ValueError
                self._columns.append(attributes)
            case "cols":
                self._columns = []
                self.cut_from_here()
            case "sheetData" if self._columns is None:
                self.insert(_cols([], self._added, name.removesuffix("sheetData")))
            case "dimension":
                self.widen(attributes)
            case "autoFilter" if self._depth == 2 and self._is_of_header(attributes):
                self.widen(attributes)

    def end(self, name: str) -> None:
        self._depth -= 1
        match local(name):
            case "c":
                self.cut_to_here()
            case "row":
                self._write()
            case "cols":
                self.cut_to_here(_cols(self._columns or [], self._added, name.removesuffix("cols")))

    def _is_of_header(self, attributes: dict[str, str]) -> bool:
        return "ref" in attributes and area_of(attributes["ref"]).top == self._added.header_line

    def _begin_row(self, name: str, attributes: dict[str, str]) -> None:
        self._line = int(attributes.get("r", self._line + 1))
        self._column, self._style = 0, attributes.get("s", "")
        self._texts = self._texts_of(self._line)
        self._wanted = self._texts is not None
        if self._texts is None:
            return
        self._prefix = name.removesuffix("row")
        tag = self.tag()
        if "spans" in attributes:
            first, _, last = attributes["spans"].partition(":")
            tag = replaced(tag, "spans", f"{first}:{max(int(last), self._added.last)}")
        if tag.endswith(b"/>"):
            cells, self._texts = self._cells(self._texts), None
            tag = tag[:-2] + b">" + cells.encode() + f"</{name}>".encode()
        self.change_tag(tag)

    def _begin_cell(self, attributes: dict[str, str]) -> None:
        ref = attributes.get("r")
        self._column = self._column + 1 if ref is None else column_of(ref)
        if self._column == self._added.like:
            self._style = attributes.get("s", "")
        if self._column < self._added.first:
            return
        self._write()
        if self._column <= self._added.last:
            self.cut_from_here()  # an empty cell: used ones are left of the new columns

    def _write(self) -> None:
        if self._texts is not None:
            self.insert(self._cells(self._texts))
        self._texts = None

    def _cells(self, texts: Sequence[str]) -> str:
        p, style = self._prefix, f" s={quoteattr(self._style)}" if self._style else ""
        return "".join(
            f'<{p}c r="{letters(column)}{self._line}"{style} t="inlineStr"><{p}is><{p}t xml:space="preserve">'
            f"{as_text(text)}</{p}t></{p}is></{p}c>"
            if text
            else f'<{p}c r="{letters(column)}{self._line}"{style}/>'
            for column, text in enumerate(texts, self._added.first)
        )


def _cols(present: Sequence[dict[str, str]], added: AppendColumns, prefix: str) -> str:
    """Return the sheet's column elements, including the new ones; ranges that overlap these are split."""
    parts: list[tuple[int, dict[str, str]]] = []
    for attributes in present:
        low, high = int(attributes["min"]), int(attributes["max"])
        for first, last in ((low, min(high, added.first - 1)), (max(low, added.last + 1), high)):
            if first <= last:
                parts.append((first, attributes | {"min": str(first), "max": str(last)}))
    for column, width in enumerate(added.widths, added.first):
        new = {"min": str(column), "max": str(column), "width": str(width), "customWidth": "1"}
        parts.append((column, new))
    written = [
        f"<{prefix}col {' '.join(f'{name}={quoteattr(value)}' for name, value in attributes.items())}/>"
        for _, attributes in sorted(parts, key=lambda part: part[0])
    ]
    return f"<{prefix}cols>{''.join(written)}</{prefix}cols>"


class _TableColumns(_Patcher):
    """Patches the table (ListObject) that contains the list: its area, filter and columns."""

    def __init__(self, added: AppendColumns) -> None:
        super().__init__(added)
        self._ours = False
        self._ids: list[int] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        match local(name):
            case "table":
                area = area_of(attributes["ref"])
                self._ours = (
                    area.top == self._added.header_line
                    and area.right + 1 == self._added.first
                    and attributes.get("headerRowCount", "1") != "0"
                    and attributes.get("tableType", "worksheet") == "worksheet"
                )
                if self._ours:
                    self.widen(attributes)
            case "autoFilter" if self._ours:
                self.widen(attributes)
            case "tableColumns" if self._ours:
                count = int(attributes["count"]) + len(self._added.headers)
                self.change_tag(replaced(self.tag(), "count", str(count)))
            case "tableColumn":
                self._ids.append(int(attributes["id"]))

    def end(self, name: str) -> None:
        if self._ours and local(name) == "tableColumns":
            prefix, after = name.removesuffix("tableColumns"), max(self._ids) + 1
            for number, header in enumerate(self._added.headers, after):
                self.insert(f'<{prefix}tableColumn id="{number}" name={quoteattr(header)}/>')


class _Names(_Patcher):
    """Patches the defined name with the area of the sheet's filter."""

    def __init__(self, added: AppendColumns, sheet: str) -> None:
        super().__init__(added)
        self._sheet = sheet
        self._sheets: list[str] = []
        self._ours = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        match local(name):
            case "sheet":
                self._sheets.append(attributes.get("name", ""))
            case "definedName" if attributes.get("name") == _FILTER:
                if self._sheets.index(self._sheet) == int(attributes.get("localSheetId", -1)):
                    self._ours = True
                    self.cut_from_here()

    def end(self, name: str) -> None:
        if local(name) == "definedName" and self._ours:
            self.cut_to_here(self._widened(self.cut_so_far()))
            self._ours = False

    def _widened(self, element: str) -> str:
        found = re.fullmatch(r"(.*\$[A-Z]+\$([0-9]+):\$)[A-Z]+(\$[0-9]+</[^>]*>)", element, re.DOTALL)
        if found is None or int(found[2]) != self._added.header_line:
            return element
        return f"{found[1]}{letters(self._added.last)}{found[3]}"


# --- copies per group of rows ---------------------------------------------------------------------------------------

_OPEN_AT_ONCE = 64
"""Workbooks written in one pass over the sheet: each keeps a file open."""
_LONGEST = 32_767
"""Maximum characters of a cell, a limit of spreadsheets."""
_MOST_STYLES = 100_000
"""Maximum fonts, fills, borders or cell styles; the limit of spreadsheets is 65,490."""
_NOT_IN_SHEET_NAMES = re.compile(r"[\[\]:*?/\\]")


def write_split(
    book: Book,
    sheet: Sheet,
    added: AppendColumns,
    values: Callable[[], Values],
    group_of: Mapping[int, int] | Sequence[int],
    files: Sequence[Path],
) -> None:
    """Write the workbook `files[g]` of every group g: the header, and the rows whose `group_of[line]` is g.

    A formula is replaced by its value. Raises BrokenTableError if the workbook cannot be read, OSError if a file cannot
    be written.
    """
    from xlsxwriter.exceptions import FileCreateError

    styles = _read_styles(book)
    for first in range(0, len(files), _OPEN_AT_ONCE):
        copies: dict[int, _Copy] = {}
        try:
            for group, file in enumerate(files[first : first + _OPEN_AT_ONCE], first):
                copies[group] = _Copy(file, book, sheet.name, added, styles)
            reader, texts = _StyledReader(book), _Texts(added, values())
            for line, _, cells in book.rows(sheet, reader):
                height = reader.heights.pop(line, None)
                if line == added.header_line:
                    for one in copies.values():
                        one.set_columns(reader.columns)
                        one.add(cells, added.headers, height)
                elif line > added.header_line and (copy := copies.get(group_of[line])):
                    copy.add(cells, texts.of(line) or (), height)
            for copy in copies.values():
                copy.book.close()
        except FileCreateError as error:
            raise OSError(*error.args[0].args) from None
        finally:
            for copy in copies.values():
                copy.close_rows()


class _StyledCell(str):
    """A cell's value with its style; numbers, booleans and errors as in the sheet."""

    __slots__ = ("kind", "style")

    kind: str
    """The type attribute of the cell; "" for text."""
    style: int

    def __new__(cls, value: str, kind: str, style: int) -> Self:
        self = super().__new__(cls, value)
        self.kind, self.style = kind, style
        return self


class _StyledReader(RowReader):
    """Parser handlers that read rows with cell styles, and the sheet's columns."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self.columns: list[dict[str, str]] = []
        self.heights: dict[int, float] = {}
        """Heights in points, by row, of rows not yet taken."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._line and local(name) == "col":
            if len(self.columns) >= LAST_COLUMN:
                raise ValueError
            self.columns.append(attributes)
        super().start(name, attributes)

    def _begin_row(self, attributes: dict[str, str]) -> None:
        super()._begin_row(attributes)
        if is_true(attributes.get("customHeight")) and "ht" in attributes:
            self.heights[self._line] = _finite(attributes["ht"])

    def _end_cell(self) -> None:
        self._in_cell = False
        value, kind = "".join(self._pieces), self._type
        if kind == "s":
            value, kind = self._strings[int(value)] if value else "", ""
        elif kind in {"str", "inlineStr"}:
            value, kind = unescape(value), ""
        elif kind == "n" and value:
            _finite(value)
        self._cells.append(_StyledCell(value, kind, int(self._style or 0)))
        self._holds = self._holds or bool(value)


class _Copy:
    """A workbook being written; its rows are written to disk one by one."""

    def __init__(
        self, file: Path, book: Book, name: str, added: AppendColumns, styles: Sequence[dict[str, Any]]
    ) -> None:
        from xlsxwriter import Workbook

        self.book: Workbook = Workbook(
            str(file), {"constant_memory": True, "tmpdir": str(file.parent), "date_1904": book.since_1904}
        )
        self._sheet = self.book.add_worksheet(_NOT_IN_SHEET_NAMES.sub("_", name)[:31].strip("'") or None)
        self._sheet.freeze_panes(1, 0)
        self._plain = self.book.add_format()
        self._added, self._styles = added, styles
        self._formats: dict[int, Format] = {}
        self._line = 0

    def close_rows(self) -> None:
        """Close the file of rows, which XlsxWriter leaves open if the workbook is not completed."""
        with suppress(OSError):
            self._sheet.row_data_fh.close()

    def set_columns(self, columns: Sequence[Mapping[str, str]]) -> None:
        """Set the widths and formats of the columns up to the last new one."""
        for column in columns:
            first, last = int(column["min"]), min(int(column["max"]), self._added.last)
            width = round(_finite(column["width"]) * 7) if "width" in column else None
            hidden = {"hidden": is_true(column.get("hidden"))}
            if first <= last:
                style = self._format(int(column["style"])) if "style" in column else None
                self._sheet.set_column_pixels(first - 1, last - 1, width, style, hidden)
        for at, width in enumerate(self._added.widths, self._added.first - 1):
            self._sheet.set_column_pixels(at, at, width * 7)

    def add(self, cells: Sequence[str], texts: Sequence[str], height: float | None) -> None:
        """Write the next row, with the texts of the added columns."""
        if height is not None:
            self._sheet.set_row(self._line, height)
        style = None
        for at, cell in enumerate(cells[: self._added.first - 1]):
            if isinstance(cell, _StyledCell):
                looks = self._format(cell.style)
                self._put(at, cell, cell.kind, looks)
                style = looks if at + 1 == self._added.like else style
        for at, text in enumerate(texts, self._added.first - 1):
            self._put(at, text, "", style)
        self._line += 1

    def _put(self, column: int, value: str, kind: str, style: Format | None) -> None:
        if not value:
            self._sheet.write_blank(self._line, column, None, style)
        elif kind == "n":
            self._sheet.write_number(self._line, column, float(value), style)
        elif kind == "b":
            self._sheet.write_boolean(self._line, column, is_true(value.strip()), style)
        else:
            write_text(self._sheet, self._line, column, value[:_LONGEST], style, self._plain)

    def _format(self, style: int) -> Format | None:
        if style not in self._formats and style < len(self._styles):
            self._formats[style] = self.book.add_format(self._styles[style])
        return self._formats.get(style)


def write_text(
    sheet: Worksheet, line: int, column: int, text: str, style: Format | None, plain: Format
) -> None:
    """Write a text literally. `plain` is a format without properties."""
    text = text if text.isascii() else NOT_XML.sub("\ufffd", text)
    if text.startswith("<r>") and text.endswith("</r>"):
        # XlsxWriter would interpret this text as its rich string markup, unless it is split into two runs.
        sheet.write_rich_string(line, column, plain, "<", plain, text[1:], style or plain)
    else:
        sheet.write_string(line, column, text, style)


# --- styles ---------------------------------------------------------------------------------------------------------

_BORDERS = ("none", "thin", "medium", "dashed", "dotted", "thick", "double", "hair", "mediumDashed")
"""In the order of XlsxWriter's numbers."""
_VERTICAL = {"center": "vcenter", "justify": "vjustify", "distributed": "vdistributed"}
_THEME = ("lt1", "dk1", "lt2", "dk2", *(f"accent{n}" for n in range(1, 7)), "hlink", "folHlink")
"""The theme's colours in the order of the numbers used by styles."""
_SECTIONS = {"fonts": "font", "fills": "fill", "borders": "border", "cellXfs": "xf"}


def _read_styles(book: Book) -> list[dict[str, Any]]:
    """Read the cell styles as properties of XlsxWriter formats: number format, font, fill, borders, alignment."""
    related = dict(book.package.related(book.main).values())
    if "styles" not in related:
        return []
    theme = _read_theme(book, related["theme"]) if "theme" in related else {}
    found: dict[str, list[dict[str, Any]]] = {section: [] for section in _SECTIONS}
    codes: dict[str, str] = {}
    section = ""
    try:
        for name, attributes in book.package.elements(related["styles"]):
            if name in _SECTIONS or name == f"/{section}":
                section = name if name in _SECTIONS else ""
            elif name == "numFmt":
                codes[attributes["numFmtId"]] = attributes["formatCode"]
            elif section and name == _SECTIONS[section] and len(found[section]) < _MOST_STYLES:
                found[section].append(_cell_style(attributes, codes, found) if name == "xf" else {})
            elif section:
                found[section][-1].update(_properties(section, name, attributes, theme))
    except (ValueError, LookupError):
        raise BrokenTableError(damaged(related["styles"])) from None
    return found["cellXfs"]


def _cell_style(
    attributes: Mapping[str, str], codes: Mapping[str, str], found: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    number = attributes.get("numFmtId", "0")
    style: dict[str, Any] = {
        "num_format": codes.get(number) or {"0": "General", "1": "0"}.get(number, int(number))
    }
    for key, section in (("fontId", "fonts"), ("fillId", "fills"), ("borderId", "borders")):
        if key in attributes:
            style |= found[section][int(attributes[key])]
    return style


def _properties(
    section: str, name: str, attributes: Mapping[str, str], theme: Mapping[str, str]
) -> dict[str, Any]:
    """Return the format properties for an element within a font, fill, border or cell style."""
    value = attributes.get("val", "1")
    match section, name:
        case "fonts", "b" | "i":
            return {"bold" if name == "b" else "italic": is_true(value)}
        case "fonts", "sz":
            return {"font_size": _finite(value)}
        case "fonts", "name":
            return {"font_name": value}
        case "fonts", "color" if colour := _colour(attributes, theme):
            return {"font_color": colour}
        case "fills", "patternFill":
            return {"pattern": int(attributes.get("patternType") == "solid")}
        case "fills", "fgColor" if colour := _colour(attributes, theme):
            return {"bg_color": colour}
        case "borders", "left" | "right" | "top" | "bottom" if "style" in attributes:
            return {name: _BORDERS.index(attributes["style"]) if attributes["style"] in _BORDERS else 1}
        case "cellXfs", "alignment":
            vertical = attributes.get("vertical", "bottom")
            return {
                "align": attributes.get("horizontal", ""),
                "valign": _VERTICAL.get(vertical, vertical),
                "text_wrap": is_true(attributes.get("wrapText")),
            }
    return {}


def _read_theme(book: Book, part: str) -> dict[str, str]:
    """Return the theme's colours: number → RRGGBB."""
    colours: dict[str, str] = {}
    at = ""
    for name, attributes in book.package.elements(part):
        at = str(_THEME.index(name)) if name in _THEME else at
        if name in {"srgbClr", "sysClr"}:
            colours.setdefault(at, attributes.get("lastClr") or attributes.get("val", ""))
    return colours


def _colour(attributes: Mapping[str, str], theme: Mapping[str, str]) -> str:
    """Return the colour as #RRGGBB; "" for the automatic one and those of the indexed palette."""
    rgb = theme.get(attributes.get("theme", ""), attributes.get("rgb", ""))[-6:]
    if not re.fullmatch("[0-9A-Fa-f]{6}", rgb):
        return ""
    tint = _finite(attributes.get("tint", "0"))
    hue, light, saturation = colorsys.rgb_to_hls(*(byte / 255 for byte in bytes.fromhex(rgb)))
    light = light * (1 + tint) if tint < 0 else light * (1 - tint) + tint
    mixed = colorsys.hls_to_rgb(hue, min(max(light, 0), 1), saturation)
    return "#" + bytes(round(part * 255) for part in mixed).hex().upper()


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(number)
    return value
