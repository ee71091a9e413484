"""Splitting of a sheet into one workbook per group of rows, so that no group's data is disclosed to another.

A copy with deleted rows would still contain their texts: in shared strings, charts and other sheets. Therefore new
workbooks are written with only the header, the group's rows, and the formats of cells, rows and columns.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tcb_ops.errors import BrokenTableError
from tcb_ops.xlsx.append_columns import NOT_XML, AppendColumns
from tcb_ops.xlsx.package import damaged, local
from tcb_ops.xlsx.workbook import LAST_COLUMN, Book, RowReader, Sheet, is_true, unescape

if TYPE_CHECKING:
    from xlsxwriter import Workbook
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

_OPEN_AT_ONCE = 64
"""Workbooks written in one pass over the sheet: each keeps a file open."""
_LONGEST = 32_767
"""Maximum characters of a cell, a limit of spreadsheets."""
_MOST_STYLES = 100_000
"""Maximum fonts, fills, borders or cell styles; the limit of spreadsheets is 65,490."""
_NOT_IN_SHEET_NAMES = re.compile(r"[\[\]:*?/\\]")

Values = Callable[[], Iterator[tuple[int, Sequence[str]]]]


def write_split(
    book: Book,
    sheet: Sheet,
    added: AppendColumns,
    values: Values,
    group_of: Mapping[int, int] | Sequence[int],
    files: Sequence[Path],
) -> None:
    """Write the workbook `files[g]` of every group g: the header, and the rows whose `group_of[line]` is g.

    `values` yields (line, texts) of the added columns, by line. A formula is replaced by its value. Raises
    BrokenTableError if the workbook cannot be read, OSError if a file cannot be written.
    """
    from xlsxwriter.exceptions import FileCreateError

    styles = _read_styles(book)
    for first in range(0, len(files), _OPEN_AT_ONCE):
        copies: dict[int, _Copy] = {}
        try:
            for group, file in enumerate(files[first : first + _OPEN_AT_ONCE], first):
                copies[group] = _Copy(file, book, sheet.name, added, styles)
            _write_rows(book, sheet, added, values(), group_of, copies)
            for copy in copies.values():
                copy.book.close()
        except FileCreateError as error:
            raise OSError(*error.args[0].args) from None
        finally:
            for copy in copies.values():
                copy.close_rows()


def _write_rows(
    book: Book,
    sheet: Sheet,
    added: AppendColumns,
    values: Iterator[tuple[int, Sequence[str]]],
    group_of: Mapping[int, int] | Sequence[int],
    copies: Mapping[int, _Copy],
) -> None:
    following = next(values, None)
    reader = _StyledReader(book)
    for line, _, cells in book.read(sheet, reader):
        height = reader.heights.pop(line, None)
        if line == added.header_line:
            for one in copies.values():
                one.set_columns(reader.columns)
                one.add(cells, added.headers, height)
        elif line > added.header_line and (copy := copies.get(group_of[line])):
            while following is not None and following[0] < line:
                following = next(values, None)
            own = following[1] if following is not None and following[0] == line else ()
            copy.add(cells, own, height)


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
