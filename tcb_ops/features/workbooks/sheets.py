"""A list in a workbook: its sheet, and the rows of it as a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import BinaryIO

from tcb_ops.errors import BrokenTableError
from tcb_ops.features.workbooks import CellCode
from tcb_ops.features.workbooks.book import Area, Book, Sheet, SheetCell
from tcb_ops.formatting import fold, shown
from tcb_ops.i18n import _
from tcb_ops.lists.table import HEAD_ROWS, Rate, Record, Rows, Table, find_header, quoted_names
from tcb_ops.model import file_problem


def read_workbook(
    raw: BinaryIO, rate: Rate, *, sheet: str = "", header_line: int = 0, rows: Rows | None = None
) -> Table:
    """Read a sheet of an open workbook as a table; `sheet` "" and `header_line` 0 detect them.

    =====================================================  =======================================================
    the workbook                                           result
    =====================================================  =======================================================
    --sheet NAME                                           this sheet, hidden or not; problem if it does not exist
    one visible sheet has every needed column              this sheet
    none has, one visible sheet is not empty               this sheet, so that its own problems are reported
    several have, or none and several are not empty        problem that lists them and suggests --sheet
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
    fix = _("include them with --rows all, exclude them with --rows visible, or unhide or delete them")
    raise BrokenTableError(file_problem(message, fix, answer="rows"))


def list_sheet(book: Book, rate: Rate, name: str = "") -> Sheet:
    """Return the sheet with the list, by the table of `read_workbook`. Raises BrokenTableError."""
    if not name:
        return _detected(book, rate)
    sheets = book.sheets
    named = [s for s in sheets if s.name == name] or [s for s in sheets if fold(s.name) == fold(name)]
    if len(named) == 1:
        return named[0]
    message = _("--sheet {name}: there is no such sheet; there are {listed}")
    message = message.format(name=shown(name, 40), listed=quoted_names(sheet.name for sheet in sheets))
    raise BrokenTableError(file_problem(message, _("choose one of these")))


def _detected(book: Book, rate: Rate) -> Sheet:
    heads = {sheet: [*islice(book.rows(sheet), HEAD_ROWS)] for sheet in book.sheets if not sheet.hidden}
    used = [sheet for sheet, head in heads.items() if head]
    lists = [sheet for sheet in used if any(rate(row.cells).complete for row in heads[sheet])]
    candidates = lists or used or book.sheets
    if len(candidates) == 1:
        return candidates[0]
    names = [sheet.name for sheet in candidates]
    message = _("several sheets might be the list: {listed}", listed=quoted_names(names))
    fix = _(
        "select the right one with --sheet '{first}', and its columns with --column path=HEADER if they have other names",
        first=shown(names[0], 40),
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
