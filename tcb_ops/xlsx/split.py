"""One sheet's rows put apart into workbooks of their own, so that nobody gets to see another's.

A copy with rows taken out would still hold their texts: in the shared strings, in charts, in other sheets. So each
workbook is built anew: the header and its rows, with the looks of their cells and columns; of the rest, nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from tcb_ops.xlsx.append_columns import AppendColumns, as_text, cols
from tcb_ops.xlsx.package import local, new_parser, write_package
from tcb_ops.xlsx.sheet import LAST_COLUMN, column_of, letters
from tcb_ops.xlsx.values import LONGEST_CELL, Strings, unescape
from tcb_ops.xlsx.workbook import Book, Sheet

_FLUSH = 1 << 18
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATED = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_TYPES = "application/vnd.openxmlformats-officedocument"
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_FROZEN = (
    '<sheetViews><sheetView workbookViewId="0">'
    '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews>'
)
_HEIGHTS = ("s", "customFormat", "ht", "customHeight")


def put_apart(
    book: Book,
    sheet: Sheet,
    beside: AppendColumns,
    values: Iterator[tuple[int, Sequence[str]]],
    group_of: Mapping[int, int] | Sequence[int],
    files: Sequence[Path],
) -> None:
    """Write the workbook `files[g]` of every group: the header, and the rows whose `group_of[line]` is g.

    `values` go beside the rows: (line, texts), by line. A formula stands as the value it has. Raises BrokenTableError
    where the workbook cannot be read, OSError where the disk takes no more.
    """
    reader = _Reader(book.strings, beside)
    groups = [_Group(file.with_name(f"{file.name}.rows")) for file in files]
    following = next(values, None)
    header: _Row | None = None
    for _ in book.package.feed(sheet.part, new_parser(reader.start, reader.end, reader.text)):
        for row in reader.rows:
            if row.line == beside.header_line:
                header = row
            elif row.line > beside.header_line and (at := group_of[row.line]) >= 0:
                while following is not None and following[0] < row.line:
                    following = next(values, None)
                own = following[1] if following is not None and following[0] == row.line else ()
                groups[at].add(row, beside, own)
        reader.rows.clear()
    styles = dict(_styles(book))
    head = header.written(1, beside, beside.headers) if header is not None else ""
    begin = f'{_XML}<worksheet xmlns="{_MAIN}">{_FROZEN}{reader.format}{cols(reader.columns, beside, "")}<sheetData>{head}'
    for group, file in zip(groups, files, strict=True):
        group.flush()
        with ExitStack() as stack:
            rows = stack.enter_context(group.file.open("rb"))
            out = stack.enter_context(file.open("xb"))
            pieces = chain(
                [begin.encode()], iter(partial(rows.read, _FLUSH), b""), [b"</sheetData></worksheet>"]
            )
            write_package(out, _parts(sheet.name, styles, pieces))
        group.file.unlink()


class _Group:
    """The rows of one workbook, gathered in a file: a few hundred of them are written at once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._line = 1
        self._held = bytearray()

    def add(self, row: _Row, beside: AppendColumns, texts: Sequence[str]) -> None:
        self._line += 1
        self._held += row.written(self._line, beside, texts).encode()
        if len(self._held) > _FLUSH:
            self.flush()

    def flush(self) -> None:
        with self.file.open("ab") as out:
            out.write(self._held)
        self._held.clear()


class _Row:
    """A row as the sheet has it."""

    __slots__ = ("attributes", "cells", "line")

    def __init__(self, line: int, attributes: Mapping[str, str]) -> None:
        self.line, self.attributes = line, attributes
        self.cells: list[tuple[int, str, str, str]] = []
        """(column, style, type, value): of a text its type is inlineStr and the value itself."""

    def written(self, line: int, beside: AppendColumns, texts: Sequence[str]) -> str:
        """The row at another line, with texts beside it."""
        style = self.attributes.get("s", "")
        said = "".join(
            f" {name}={quoteattr(self.attributes[name])}" for name in _HEIGHTS if name in self.attributes
        )
        written = [f'<row r="{line}"{said}>']
        for column, own, kind, value in self.cells:
            written.append(_cell(column, line, own, kind, value))
            style = own if column == beside.like else style
        for column, text in enumerate(texts, beside.first):
            written.append(_cell(column, line, style, "inlineStr", text))
        return "".join([*written, "</row>"])


def _cell(column: int, line: int, style: str, kind: str, value: str) -> str:
    begin = f'<c r="{letters(column)}{line}"' + (f" s={quoteattr(style)}" if style else "")
    if not value:
        return f"{begin}/>"
    if kind == "inlineStr":
        return f'{begin} t="inlineStr"><is><t xml:space="preserve">{as_text(value)}</t></is></c>'
    return f"{begin} t={quoteattr(kind)}><v>{escape(value)}</v></c>"


class _Reader:
    """Handlers that read a sheet's rows with what they hold and how they look."""

    def __init__(self, strings: Strings, beside: AppendColumns) -> None:
        self.rows: list[_Row] = []
        self.columns: list[dict[str, str]] = []
        self.format = ""
        self._strings, self._beside = strings, beside
        self._row = _Row(0, {})
        self._column = 0
        self._style = self._type = ""
        self._said: list[str] = []
        self._length = 0
        """Characters in it."""
        self._takes = self._sounds = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        match local(name):
            case "c":
                ref = attributes.get("r")
                before = self._column
                self._column = before + 1 if ref is None else column_of(ref)
                if self._column <= before:
                    raise ValueError
                self._style, self._type = attributes.get("s", ""), attributes.get("t", "n")
                self._said.clear()
                self._length = 0
            case "v":
                self._takes = True
            case "t":
                self._takes = not self._sounds
            case "rPh":
                self._sounds = True
            case "row":
                self._row = _Row(int(attributes.get("r", self._row.line + 1)), attributes)
                self._column = 0
            case "col":
                # Names with a prefix are of later Excels; the prefix would mean nothing in the new workbook.
                if len(self.columns) >= LAST_COLUMN:
                    raise ValueError
                self.columns.append({name: said for name, said in attributes.items() if ":" not in name})
            case "sheetFormatPr":
                kept = ("baseColWidth", "defaultColWidth", "defaultRowHeight", "customHeight")
                said = "".join(
                    f" {name}={quoteattr(attributes[name])}" for name in kept if name in attributes
                )
                self.format = f"<sheetFormatPr{said}/>"

    def end(self, name: str) -> None:
        match local(name):
            case "v" | "t":
                self._takes = False
            case "rPh":
                self._sounds = False
            case "c" if self._column < self._beside.first:
                self._row.cells.append((self._column, self._style, *self._value("".join(self._said))))
            case "row":
                self.rows.append(self._row)

    def text(self, characters: str) -> None:
        if self._takes:
            self._length += len(characters)
            if self._length > LONGEST_CELL:
                raise ValueError
            self._said.append(characters)

    def _value(self, raw: str) -> tuple[str, str]:
        match self._type:
            case "s":
                return "inlineStr", self._strings[int(raw)] if raw else ""
            case "str" | "inlineStr":
                return "inlineStr", unescape(raw)
            case kind:
                return kind, raw


def _styles(book: Book) -> Iterator[tuple[str, bytes]]:
    """The looks of cells, and the colours that they are of. They hold no cell's text."""
    for kind, part in book.package.related(book.main).values():
        if kind in {"styles", "theme"} and not book.package.related(part):
            yield kind, book.package.read(part)


def _parts(
    sheet: str, styles: Mapping[str, bytes], rows: Iterable[bytes]
) -> Iterator[tuple[str, Iterable[bytes]]]:
    """The parts of a workbook with one sheet."""
    kinds = {"theme": "theme+xml", "styles": "spreadsheetml.styles+xml"}
    overrides = "".join(
        f'<Override PartName="/xl/{kind}.xml" ContentType="{_TYPES}.{kinds[kind]}"/>' for kind in styles
    )
    yield (
        "[Content_Types].xml",
        [
            f'{_XML}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Default Extension="xml" ContentType="application/xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPES}.spreadsheetml.sheet.main+xml"/>'
            f'<Override PartName="/xl/sheet1.xml" ContentType="{_TYPES}.spreadsheetml.worksheet+xml"/>'
            f"{overrides}</Types>".encode()
        ],
    )
    yield "_rels/.rels", [_related([("officeDocument", "xl/workbook.xml")])]
    yield (
        "xl/workbook.xml",
        [
            f'{_XML}<workbook xmlns="{_MAIN}" xmlns:r="{_RELATED}"><sheets>'
            f'<sheet name={quoteattr(sheet)} sheetId="1" r:id="rId1"/></sheets></workbook>'.encode()
        ],
    )
    yield (
        "xl/_rels/workbook.xml.rels",
        [_related([("worksheet", "sheet1.xml"), *((kind, f"{kind}.xml") for kind in styles)])],
    )
    for kind, body in styles.items():
        yield f"xl/{kind}.xml", [body]
    yield "xl/sheet1.xml", rows


def _related(targets: Iterable[tuple[str, str]]) -> bytes:
    listed = "".join(
        f'<Relationship Id="rId{number}" Type="{_RELATED}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(targets, 1)
    )
    return (
        f'{_XML}<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f"{listed}</Relationships>"
    ).encode()
