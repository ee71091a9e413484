"""Path lists in a workbook (.xlsx, .xlsm): which sheet, which header, which rows.

=====================================================  =======================================================
the workbook                                           read
=====================================================  =======================================================
--sheet NAME, and there is one                         it, hidden or not
--sheet NAME, and there is none                        problem that lists the sheets
one visible sheet has every column that is needed      it; that there are others is said
several have                                           problem that lists them: --sheet says which
none has, one visible sheet holds anything             it, so that its own problems are said
none has, several hold something                       problem that lists them
hidden rows below the header, no --rows                problem that counts them
the same, --rows all / visible                         all rows / without them
=====================================================  =======================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, TypeAlias

from tcb_ops.lists.cells import fold, shown, trim
from tcb_ops.lists.odd import Kind, NotText
from tcb_ops.lists.package import Package, damaged
from tcb_ops.lists.problems import of_file
from tcb_ops.lists.sheet import Merge, Survey, letters, read_rows, survey
from tcb_ops.lists.table import HEAD_ROWS, BrokenTableError, Table, under_header
from tcb_ops.lists.values import Formats, Strings
from tcb_ops.model import Problem, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tcb_ops.lists.sheet import SheetRow
    from tcb_ops.lists.table import Rate, Record

__all__ = ["Book", "Rows", "Sheet", "open_book", "read_workbook"]

Rows: TypeAlias = Literal["all", "visible"]

_MOST_SHEETS = 10_000


@dataclass(frozen=True, slots=True)
class Sheet:
    """One of a workbook's sheets, and the part that holds it."""

    name: str
    part: str
    hidden: bool


class _Head(NamedTuple):
    """What the first rows of a sheet are like. They are not kept: a workbook may have thousands of sheets."""

    holds: bool
    fits: bool
    """One of them is the header of a list."""


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


def read_workbook(
    raw: BinaryIO, rate: Rate, *, sheet: str = "", header_line: int = 0, rows: Rows | None = None
) -> Table:
    """Read a sheet of an open workbook as a table; `rate` is the judge of headers.

    `sheet` and `header_line` name the sheet and its header's row, "" and 0 have them found. `rows` says what becomes of
    hidden rows below the header.

    Raises BrokenTableError where it is no workbook, or what to read cannot be told.
    """
    book = open_book(raw)
    heads = {one: _head(book.rows(one), rate) for one in book.sheets}
    chosen = _choose(heads, sheet)
    layout = Text(f"XLSX, sheet '{shown(chosen.name)}'", f"XLSX，工作表“{shown(chosen.name)}”")
    records = ((row.line, row.cells) for row in book.rows(chosen) if rows != "visible" or not row.hidden)
    table = under_header(records, rate, header_line, layout=layout)
    seen = survey(book.package, chosen.part, table.header_line)
    if seen.hidden_rows and rows is None:
        raise BrokenTableError(_which_rows(seen))
    merged = {merge.top: f" ({merge})" for merge in reversed(seen.merges)}
    return replace(
        table,
        rows=_with_merges(table.rows, seen.merges, len(table.headers)),
        titles=tuple((line, title + merged.get(line, "")) for line, title in table.titles),
        said=tuple(_said(chosen, heads, seen, rows)),
        warnings=tuple(_warnings(table, seen)),
    )


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


def _head(rows: Iterator[SheetRow], rate: Rate) -> _Head:
    holds = False
    for row in islice(rows, HEAD_ROWS):
        if rate(row.cells).fits:
            return _Head(holds=True, fits=True)
        holds = True
    return _Head(holds, fits=False)


def _choose(heads: Mapping[Sheet, _Head], wanted: str) -> Sheet:
    """Which sheet is the list: the table at the top of this module."""
    if wanted:
        named = [s for s in heads if s.name == wanted] or [s for s in heads if fold(s.name) == fold(wanted)]
        if len(named) == 1:
            return named[0]
        raise BrokenTableError(_no_sheet(wanted, heads))
    seen = [sheet for sheet in heads if not sheet.hidden]
    holding = [sheet for sheet in seen if heads[sheet].holds]
    fitting = [sheet for sheet in holding if heads[sheet].fits]
    match fitting, holding:
        case ([one], _) | ([], [one]):
            return one
        case [], []:
            if any(head.holds for head in heads.values()):
                raise BrokenTableError(_only_hidden(heads))
            return (seen or list(heads))[0]
        case _:
            raise BrokenTableError(_which_sheet(fitting, holding))


def _with_merges(rows: Iterator[Record], merges: Sequence[Merge], width: int) -> Iterator[Record]:
    """The rows, what a merged cell covers marked in them. Both come by line, so each merge is looked at in its rows only."""
    at, active = 0, list[Merge]()
    for line, cells in rows:
        while at < len(merges) and merges[at].top <= line:
            active.append(merges[at])
            at += 1
        if active:
            active = [merge for merge in active if merge.bottom >= line]
            for merge in active:
                for column in range(merge.left, min(merge.right, width) + 1):
                    cells.extend([""] * (column - len(cells)))
                    if (line, column) != (merge.top, merge.left):
                        cells[column - 1] = NotText("", Kind.MERGED, merge.ref)
        yield line, cells


def _said(chosen: Sheet, heads: Mapping[Sheet, _Head], seen: Survey, rows: Rows | None) -> Iterator[Text]:
    others = [sheet for sheet, head in heads.items() if head.holds and sheet is not chosen]
    if others:
        listed = _listed(others)
        yield Text(f"not read: sheets {listed}", f"未读取的工作表：{listed}")
    if seen.hidden_rows and rows == "all":
        yield Text(f"hidden rows among them: {seen.hidden_rows:,}", f"含 {seen.hidden_rows:,} 行隐藏行")
    elif seen.hidden_rows:
        yield Text(f"hidden rows left out: {seen.hidden_rows:,}", f"未含 {seen.hidden_rows:,} 行隐藏行")


def _warnings(table: Table, seen: Survey) -> Iterator[Text]:
    hidden = [
        f"{letters(at)} '{shown(trim(header), 40)}'"
        for at, header in enumerate(table.headers, 1)
        if trim(header) and any(first <= at <= last for first, last in seen.hidden_columns)
    ]
    if hidden:
        listed = ", ".join(hidden)
        yield Text(f"Hidden columns are read as any other: {listed}", f"隐藏的列照常读取：{listed}")


def _listed(sheets: Iterable[Sheet]) -> str:
    return ", ".join(f"'{shown(sheet.name, 40)}'" for sheet in sheets)


def _which_rows(seen: Survey) -> Problem:
    filtered = Text(" (a filter is set)", "（设有筛选）") if seen.filtered else Text("", "")
    message = Text(
        f"hidden rows: {seen.hidden_rows:,}{filtered.en}, the first is row {seen.first_hidden}",
        f"有 {seen.hidden_rows:,} 行被隐藏{filtered.zh}，第一处是第 {seen.first_hidden} 行",
    )
    mend = Text(
        "say with --rows all that they count, with --rows visible that they do not; or unhide or delete them",
        "请用 --rows all 表示包含这些行，或用 --rows visible 表示不含；也可以取消隐藏或删除它们",
    )
    return of_file(message, mend)


def _no_sheet(wanted: str, sheets: Iterable[Sheet]) -> Problem:
    listed = _listed(sheets)
    message = Text(
        f"--sheet {shown(wanted, 40)}: there is no such sheet; there are {listed}",
        f"--sheet {shown(wanted, 40)}：没有这个工作表；现有 {listed}",
    )
    return of_file(message, Text("name one of these", "请从中选择一个"))


def _which_sheet(fitting: Sequence[Sheet], holding: Sequence[Sheet]) -> Problem:
    first = shown((fitting or holding)[0].name, 40)
    if fitting:
        listed = _listed(fitting)
        message = Text(f"several sheets look like a list: {listed}", f"有多个工作表都像清单：{listed}")
        mend = Text(f"say which one with --sheet '{first}'", f"请用 --sheet '{first}' 指明用哪一个")
    else:
        listed = _listed(holding)
        message = Text(
            f"no sheet has a column path and one of env and merchant; there are {listed}",
            f"没有工作表同时含有 path 列和 env 或 merchant 列；现有 {listed}",
        )
        mend = Text(
            f"say which sheet it is with --sheet '{first}', and what its columns mean with --column path=HEADER",
            f"请用 --sheet '{first}' 指明工作表，并用 --column path=表头 指明各列",
        )
    return of_file(message, mend)


def _only_hidden(sheets: Iterable[Sheet]) -> Problem:
    listed = _listed(sheets)
    message = Text(f"only hidden sheets hold anything: {listed}", f"只有隐藏的工作表有内容：{listed}")
    return of_file(message, Text("name one with --sheet, or unhide it", "请用 --sheet 指明，或取消隐藏"))


_SAVE_AS_XLSX = Text("open it in Excel or WPS and save it as .xlsx", "请在 Excel 或 WPS 中打开，另存为 .xlsx")


def _no_workbook(package: Package) -> Problem:
    if package.has("xl/workbook.bin"):
        return of_file(Text("this is a binary workbook (.xlsb)", "这是二进制工作簿（.xlsb）"), _SAVE_AS_XLSX)
    if package.has("content.xml"):
        return of_file(
            Text("this is an OpenDocument file (.ods)", "这是 OpenDocument 文件（.ods）"), _SAVE_AS_XLSX
        )
    return of_file(
        Text("this is a zip file, but no workbook with sheets", "这是 zip 文件，但不是含有工作表的工作簿"),
        Text("give a list in .xlsx, .csv or .tsv", "请给出 .xlsx、.csv 或 .tsv 格式的清单"),
    )
