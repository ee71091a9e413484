"""Appending columns to a sheet in a copy of its workbook. Everything else is copied byte for byte.

Therefore content that this module does not know (charts, validations, features of later Excel versions) is preserved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO
from xml.sax.saxutils import escape, quoteattr

from tcb_ops.xlsx.package import Change, local, new_parser
from tcb_ops.xlsx.workbook import LAST_COLUMN, Area, Book, Sheet, area_of, column_of, letters

_TAG = re.compile(rb"<[^>\"']*(?:\"[^\"]*\"[^>\"']*|'[^']*'[^>\"']*)*>")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f]")
_ESCAPED = re.compile("_(?=x[0-9A-Fa-f]{4}_)")
NOT_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
"""Characters that are invalid in XML."""
_MOST_HELD = 16 << 20
"""Maximum bytes buffered, of a tag or of removed text. The longest is the list of columns: 16,384 short tags."""
_UTF8 = {"utf-8", "utf8", "us-ascii"}


class PartPatcher:
    """Parser handlers that copy a part of the package. A subclass makes changes in `start` and `end`."""

    def __init__(self) -> None:
        self._parser = new_parser(self.start, self.end)
        self._parser.XmlDeclHandler = _only_utf8
        self._held = bytearray()
        self._at = 0
        """The offset in the part of the first buffered byte."""
        self._edits: list[tuple[int, int, bytes]] = []
        """(from, to, replacement), by offset."""
        self._cut: int | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element."""
        raise NotImplementedError

    def end(self, name: str) -> None:
        """Handle the end of an element."""
        raise NotImplementedError

    def patch(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the part's chunks with the changes. Raises ValueError if it is not UTF-8."""
        for chunk in chunks:
            self._held += chunk
            if len(self._held) > _MOST_HELD:
                raise ValueError
            self._parser.Parse(chunk, False)  # noqa: FBT003  expat takes it by position only
            yield self._ready(self._parser.CurrentByteIndex)
        self._parser.Parse(b"", True)  # noqa: FBT003  as above
        yield self._ready(self._at + len(self._held))

    # --- for handlers -------------------------------------------------------------------------------------------

    def tag(self) -> bytes:
        """Return the raw bytes of the current tag."""
        found = _TAG.match(self._held, self._parser.CurrentByteIndex - self._at)
        if found is None:
            raise ValueError
        return found[0]

    def change_tag(self, tag: bytes) -> None:
        """Replace the current tag."""
        at = self._parser.CurrentByteIndex
        self._edits.append((at, at + len(self.tag()), tag))

    def widen(self, attributes: dict[str, str], added: AppendColumns) -> None:
        """Widen the area of the current tag to the last new column and the header row."""
        area = area_of(attributes["ref"])
        top, bottom = min(area.top, added.header_line), max(area.bottom, added.header_line)
        wider = Area(top, area.left, bottom, max(area.right, added.last))
        self.change_tag(replaced(self.tag(), "ref", str(wider)))

    def insert(self, text: str) -> None:
        """Insert text before the current tag."""
        at = self._parser.CurrentByteIndex
        self._edits.append((at, at, text.encode()))

    def cut_from_here(self) -> None:
        """Start removing, from the current tag on."""
        self._cut = self._parser.CurrentByteIndex

    def cut_so_far(self) -> str:
        """Return the text removed so far, up to and including the current end tag."""
        begin = (self._cut or 0) - self._at
        return self._held[begin : self._element_end() - self._at].decode()

    def cut_to_here(self, instead: str = "") -> None:
        """Stop removing after the current end tag."""
        if self._cut is not None:
            self._edits.append((self._cut, self._element_end(), instead.encode()))
            self._cut = None

    def _element_end(self) -> int:
        at = self._parser.CurrentByteIndex
        # For <c/> expat reports its end, for </c> its start.
        return at + len(self.tag()) if self._held.startswith(b"</", at - self._at) else at

    # --- the bytes ----------------------------------------------------------------------------------------------

    def _ready(self, until: int) -> bytes:
        """Return the buffered bytes that no later change can affect, and remove them from the buffer."""
        if self._cut is not None:
            until = min(until, self._cut)
        out = bytearray()
        at = self._at
        done = 0
        for begin, end, instead in self._edits:
            if end > until:
                until = min(until, begin)
                break
            out += self._held[at - self._at : begin - self._at] + instead
            at = end
            done += 1
        until = max(until, at)
        out += self._held[at - self._at : until - self._at]
        del self._held[: until - self._at]
        del self._edits[:done]
        self._at = until
        return bytes(out)


def replaced(tag: bytes, attribute: str, value: str) -> bytes:
    """Return a tag with a new value of an attribute; unchanged if it does not have the attribute."""
    found = re.search(rb"(?<=\s)" + attribute.encode() + rb"\s*=\s*(\"[^\"]*\"|'[^']*')", tag)
    if found is None:
        return tag
    return tag[: found.start(1)] + quoteattr(value).encode() + tag[found.end(1) :]


def as_text(text: str) -> str:
    """Escape a text for a workbook's XML; a control character becomes _x0001_ (ECMA-376 22.9.2.19)."""
    if not text.isascii():
        text = NOT_XML.sub("\ufffd", text)
    text = _ESCAPED.sub("_x005F_", text)
    return escape(_CONTROL.sub(lambda found: f"_x{ord(found[0]):04X}_", text))


def _only_utf8(_version: str, encoding: str | None, _standalone: int) -> None:
    if encoding is not None and encoding.lower() not in _UTF8:
        raise ValueError(encoding)


_ANCHOR = re.compile(rb"<(?:[\w.-]+:)?col>\s*(\d{1,5})\s*</")
"""The column of a drawing's anchor, from 0 (ECMA-376 part 1, 20.5.2.5)."""
_FILTER = "_xlnm._FilterDatabase"


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


def add_columns(
    book: Book, sheet: Sheet, added: AppendColumns, values: Iterator[tuple[int, Sequence[str]]], out: BinaryIO
) -> None:
    """Write a copy of a workbook to `out` with columns appended to a sheet; `values` yields (line, texts), by line.

    Raises BrokenTableError if the workbook cannot be read, OSError if `out` cannot be written.
    """
    changes: dict[str, Change] = {
        sheet.part: _Rows(added, values).patch,
        book.main: _Names(sheet.name, added).patch,
    }
    for kind, part in book.package.related(sheet.part).values():
        if kind == "table":
            changes[part] = _TableColumns(added).patch
    book.package.copy(out, changes)


class _Rows(PartPatcher):
    """Patches the sheet: the cells of its rows, and the elements that state its extent."""

    def __init__(self, added: AppendColumns, values: Iterator[tuple[int, Sequence[str]]]) -> None:
        super().__init__()
        self._added, self._values = added, values
        self._next = next(values, None)
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
                self.widen(attributes, self._added)
            case "autoFilter" if self._depth == 2 and self._is_of_header(attributes):
                self.widen(attributes, self._added)

    def end(self, name: str) -> None:
        self._depth -= 1
        match local(name):
            case "c":
                self.cut_to_here()
            case "row" if self._texts is not None:
                self._write()
            case "cols":
                self.cut_to_here(_cols(self._columns or [], self._added, name.removesuffix("cols")))

    def _is_of_header(self, attributes: dict[str, str]) -> bool:
        return "ref" in attributes and area_of(attributes["ref"]).top == self._added.header_line

    def _begin_row(self, name: str, attributes: dict[str, str]) -> None:
        self._line = int(attributes.get("r", self._line + 1))
        self._column, self._style = 0, attributes.get("s", "")
        self._texts = self._texts_of_row()
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

    def _texts_of_row(self) -> Sequence[str] | None:
        if self._line == self._added.header_line:
            return self._added.headers
        while self._next is not None and self._next[0] < self._line:
            self._next = next(self._values, None)
        return self._next[1] if self._next is not None and self._next[0] == self._line else None

    def _begin_cell(self, attributes: dict[str, str]) -> None:
        ref = attributes.get("r")
        self._column = self._column + 1 if ref is None else column_of(ref)
        if self._column == self._added.like:
            self._style = attributes.get("s", "")
        if self._column < self._added.first:
            return
        if self._texts is not None:
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
    written = ""
    for _, attributes in sorted(parts, key=lambda part: part[0]):
        written += (
            f"<{prefix}col {' '.join(f'{name}={quoteattr(value)}' for name, value in attributes.items())}/>"
        )
    return f"<{prefix}cols>{written}</{prefix}cols>"


class _TableColumns(PartPatcher):
    """Patches the table (ListObject) that contains the list: its area, filter and columns."""

    def __init__(self, added: AppendColumns) -> None:
        super().__init__()
        self._added = added
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
                    self.widen(attributes, self._added)
            case "autoFilter" if self._ours:
                self.widen(attributes, self._added)
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


class _Names(PartPatcher):
    """Patches the defined name with the area of the sheet's filter."""

    def __init__(self, sheet: str, added: AppendColumns) -> None:
        super().__init__()
        self._sheet, self._added = sheet, added
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
