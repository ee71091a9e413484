"""An open workbook: its sheets, its shared strings and formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from tcb_ops.errors import BrokenTableError
from tcb_ops.i18n import Text
from tcb_ops.model import Problem, file_problem
from tcb_ops.xlsx.package import Package, damaged
from tcb_ops.xlsx.sheet import SheetRow, read_rows
from tcb_ops.xlsx.values import Formats, Strings

_MOST_SHEETS = 10_000


@dataclass(frozen=True, slots=True)
class Sheet:
    """One of a workbook's sheets, and the part that holds it."""

    name: str
    part: str
    hidden: bool


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
        """The sheet's rows that hold something."""
        return read_rows(self.package, sheet.part, self.strings, self.formats, since_1904=self.since_1904)


def open_book(raw: BinaryIO) -> Book:
    """Open a workbook. Raises BrokenTableError where it is none that can be read."""
    package = Package(raw)
    main = next((part for kind, part in package.related("").values() if kind == "officeDocument"), "")
    if not package.has(main) or not main.lower().endswith(".xml"):
        raise BrokenTableError(_no_workbook(package))
    book = Book(package, main)
    related = package.related(main)
    _list_sheets(book, related)
    if not book.sheets:
        raise BrokenTableError(_no_workbook(book.package))
    for kind, part in related.values():
        if kind == "sharedStrings":
            book.strings.read(book.package, part)
        elif kind == "styles":
            book.formats.read(book.package, part)
    return book


def _list_sheets(book: Book, related: Mapping[str, tuple[str, str]]) -> None:
    """Read what the main part says of the workbook and its sheets."""
    for name, attributes in book.package.elements(book.main):
        if name == "workbookPr":
            book.since_1904 = attributes.get("date1904") in {"1", "true"}
        elif name == "sheet":
            rid = next((v for k, v in attributes.items() if k.endswith(":id")), "")
            kind, part = related.get(rid, ("", ""))
            if kind == "worksheet":
                if len(book.sheets) >= _MOST_SHEETS:
                    raise BrokenTableError(damaged(book.main))
                state = attributes.get("state", "visible")
                book.sheets.append(Sheet(attributes.get("name", ""), part, state != "visible"))


_SAVE_AS_XLSX = Text("open it in Excel or WPS and save it as .xlsx", "请在 Excel 或 WPS 中打开，另存为 .xlsx")


def _no_workbook(package: Package) -> Problem:
    if package.has("xl/workbook.bin"):
        return file_problem(
            Text("this is a binary workbook (.xlsb)", "这是二进制工作簿（.xlsb）"), _SAVE_AS_XLSX
        )
    if package.has("content.xml"):
        return file_problem(
            Text("this is an OpenDocument file (.ods)", "这是 OpenDocument 文件（.ods）"), _SAVE_AS_XLSX
        )
    return file_problem(
        Text("this is a zip file, but no workbook with sheets", "这是 zip 文件，但不是含有工作表的工作簿"),
        Text("give a list in .xlsx, .csv or .tsv", "请给出 .xlsx、.csv 或 .tsv 格式的清单"),
    )
