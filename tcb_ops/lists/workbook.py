"""Reading of path lists from workbooks (.xlsx, .xlsm): detection of the sheet, its header, and its rows.

=====================================================  =======================================================
the workbook                                           result
=====================================================  =======================================================
--sheet NAME, and it exists                            this sheet, hidden or not
--sheet NAME, and it does not                          problem that lists the sheets
one visible sheet has every needed column              this sheet; a note names the others
several have                                           problem that lists them and suggests --sheet
none has, one visible sheet is not empty               this sheet, so that its own problems are reported
none has, several are not empty                        problem that lists them
hidden rows below the header, no --rows                problem that counts them
the same, --rows all / visible                         all rows / without them
=====================================================  =======================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

from tcb_ops.errors import BrokenTableError
from tcb_ops.formatting import fold, shown, trim
from tcb_ops.i18n import NOTHING, Text, _
from tcb_ops.lists.table import HEAD_ROWS, Rate, Record, Table, find_header
from tcb_ops.model import Problem, file_problem
from tcb_ops.xlsx.values import CellKind, NonTextCell
from tcb_ops.xlsx.workbook import Area, Sheet, SheetRow, Survey, letters, open_book

Rows: TypeAlias = Literal["all", "visible"]


class _Head(NamedTuple):
    """A summary of a sheet's first rows, which are not kept since a workbook may have thousands of sheets."""

    used: bool
    is_list: bool
    """One of the rows is the header of a list."""


def read_workbook(
    raw: BinaryIO, rate: Rate, *, sheet: str = "", header_line: int = 0, rows: Rows | None = None
) -> Table:
    """Read a sheet of an open workbook as a table; `sheet` "" and `header_line` 0 detect them.

    Raises BrokenTableError if it is not a readable workbook, or the sheet or its rows are ambiguous.
    """
    book = open_book(raw)
    heads = {one: _head(book.rows(one), rate) for one in book.sheets}
    chosen = _choose(heads, sheet)
    layout = _("XLSX, sheet '{name}'", name=shown(chosen.name))
    records = ((row.line, row.cells) for row in book.rows(chosen) if rows != "visible" or not row.hidden)
    table = find_header(records, rate, header_line, layout=layout)
    found = book.survey(chosen, table.header_line)
    if found.hidden_rows and rows is None:
        raise BrokenTableError(_which_rows(found))
    merged = {merge.top: f" ({merge})" for merge in reversed(found.merges)}
    return replace(
        table,
        rows=_with_merges(table.rows, found.merges, len(table.headers)),
        titles=tuple((line, title + merged.get(line, "")) for line, title in table.titles),
        notes=tuple(_notes(chosen, heads, found, rows)),
        warnings=tuple(_warnings(table, found)),
    )


def _head(rows: Iterator[SheetRow], rate: Rate) -> _Head:
    used = False
    for row in islice(rows, HEAD_ROWS):
        if rate(row.cells).complete:
            return _Head(used=True, is_list=True)
        used = True
    return _Head(used, is_list=False)


def _choose(heads: Mapping[Sheet, _Head], wanted: str) -> Sheet:
    """Return the sheet to read, by the table at the top of this module."""
    if wanted:
        named = [s for s in heads if s.name == wanted] or [s for s in heads if fold(s.name) == fold(wanted)]
        if len(named) == 1:
            return named[0]
        raise BrokenTableError(_no_sheet(wanted, heads))
    visible = [sheet for sheet in heads if not sheet.hidden]
    used = [sheet for sheet in visible if heads[sheet].used]
    lists = [sheet for sheet in used if heads[sheet].is_list]
    match lists, used:
        case ([one], _) | ([], [one]):
            return one
        case [], []:
            if any(head.used for head in heads.values()):
                raise BrokenTableError(_only_hidden(heads))
            return (visible or list(heads))[0]
        case _:
            raise BrokenTableError(_which_sheet(lists, used))


def _with_merges(rows: Iterator[Record], merges: Sequence[Area], width: int) -> Iterator[Record]:
    """Mark the cells covered by a merged cell. Rows and merges are sorted, so one pass is enough."""
    at, active = 0, list[Area]()
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
                        cells[column - 1] = NonTextCell("", CellKind.MERGED, merge.ref)
        yield line, cells


def _notes(chosen: Sheet, heads: Mapping[Sheet, _Head], found: Survey, rows: Rows | None) -> Iterator[Text]:
    others = [sheet for sheet, head in heads.items() if head.used and sheet is not chosen]
    if others:
        listed = _listed(others)
        yield _("not read: sheets {listed}", listed=listed)
    if found.hidden_rows and rows == "all":
        yield _("hidden rows included: {hidden_rows:,}", hidden_rows=found.hidden_rows)
    elif found.hidden_rows:
        yield _("hidden rows left out: {hidden_rows:,}", hidden_rows=found.hidden_rows)


def _warnings(table: Table, found: Survey) -> Iterator[Text]:
    hidden = [
        f"{letters(at)} '{shown(trim(header), 40)}'"
        for at, header in enumerate(table.headers, 1)
        if trim(header) and any(first <= at <= last for first, last in found.hidden_columns)
    ]
    if hidden:
        listed = ", ".join(hidden)
        yield _("Hidden columns are read like any other: {listed}", listed=listed)


def _listed(sheets: Iterable[Sheet]) -> str:
    return ", ".join(f"'{shown(sheet.name, 40)}'" for sheet in sheets)


def _which_rows(found: Survey) -> Problem:
    filtered = _(" (a filter is set)") if found.filtered else NOTHING
    message = _(
        "hidden rows: {hidden_rows:,}{filtered}, the first is row {first_hidden}",
        hidden_rows=found.hidden_rows,
        filtered=filtered,
        first_hidden=found.first_hidden,
    )
    fix = _("include them with --rows all, exclude them with --rows visible, or unhide or delete them")
    return file_problem(message, fix, option="--rows")


def _no_sheet(wanted: str, sheets: Iterable[Sheet]) -> Problem:
    listed = _listed(sheets)
    message = _(
        "--sheet {wanted}: there is no such sheet; there are {listed}",
        wanted=shown(wanted, 40),
        listed=listed,
    )
    return file_problem(message, _("choose one of these"))


def _which_sheet(lists: Sequence[Sheet], used: Sequence[Sheet]) -> Problem:
    first = shown((lists or used)[0].name, 40)
    if lists:
        listed = _listed(lists)
        message = _("several sheets look like a list: {listed}", listed=listed)
        fix = _("select the right one with --sheet '{first}'", first=first)
    else:
        listed = _listed(used)
        message = _(
            "no sheet has a column path and one of env and merchant; there are {listed}", listed=listed
        )
        fix = _(
            "select the sheet with --sheet '{first}', and its columns with --column path=HEADER", first=first
        )
    return file_problem(message, fix, option="--sheet")


def _only_hidden(sheets: Iterable[Sheet]) -> Problem:
    listed = _listed(sheets)
    message = _("only hidden sheets are not empty: {listed}", listed=listed)
    fix = _("select one with --sheet, or unhide it")
    return file_problem(message, fix, option="--sheet")
