"""Copies of a list's workbook: results beside the rows (`report RUN --into`), problems in their cells (`check --mark`).

openpyxl writes the copy of the whole. What it does not copy is named first. With `--split-by`, XlsxWriter writes a new
workbook per value of a column: a copy with deleted rows might still contain their texts.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tcb_ops.disk import replacing, sync_to_disk
from tcb_ops.errors import StoppedError, UsageError
from tcb_ops.features.workbooks.book import LAST_COLUMN, Book, Sheet, letters, list_sheet, read_workbook
from tcb_ops.features.workbooks.tables import LONGEST, NOT_XML, Tables, new_workbook
from tcb_ops.formatting import fold, shown, trim, unguard
from tcb_ops.hooks import RowLinks, StoredHooks, hooks
from tcb_ops.i18n import Lang, Text, _, pgettext, verbatim
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import RunRecord
from tcb_ops.lists.input_files import digest, is_workbook, open_bytes, readable
from tcb_ops.lists.table import LIST_COLUMNS, quoted_names
from tcb_ops.model import STORED_OUTCOMES, Problem
from tcb_ops.reports.explanations import MARK, action_text, merchant_text, reason_text, why_of
from tcb_ops.secrets import redact
from tcb_ops.system_errors import system_reason

if TYPE_CHECKING:
    from openpyxl import Workbook
    from openpyxl.worksheet.worksheet import Worksheet

_ADDED = _("result")
_MARKED = pgettext("workbook", "marked")
COLUMNS = (_ADDED, _("reason"), _("what to do"), verbatim("file_id"), _("text for the merchant"))
WIDTHS = (24, 50, 50, 44, 60, 60)
"""Of the new columns, in characters."""
MOST_COPIES = 500
"""Maximum number of values to split a workbook by: more are usually paths or dates, not people."""
_NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*]')
_NOT_IN_SHEET_NAMES = re.compile(r"[\[\]:*?/\\]")
_LONGEST_NAME = 40
"""Characters of the original's name and of a value in a file name, which may have 255 bytes, three per Chinese character."""


def write_into(
    reader: LedgerReader,
    run: RunRecord,
    original: Path,
    dest: Path | None,
    lang: Lang,
    warn: Callable[[Text], None] | None = None,
    links: RowLinks | None = None,
) -> Path:
    """Write a copy of the run's workbook, with result, reason, what to do and file_id beside each row; return its path.

    `dest` None: beside the original, with a name ending in 结果 or result. `links`: one more column, which only the owner of the copy may read. `warn` is called before anything is written if
    the copy will lack something. Raises UsageError if `original` is not the run's list or `dest` exists, StoppedError if
    the disk fails. An error leaves no file.
    """
    listed, suffix = own_list(reader, run, original), original.suffix
    dest = dest or original.with_name(f"{original.stem} {_ADDED.of(lang)}{suffix}")
    if dest.suffix.lower() != suffix.lower():
        text = _("{dest}: the copy is a workbook like {name}, so its name must end in {suffix}.")
        raise UsageError(text.format(dest=dest, name=original.name, suffix=suffix))
    _free(dest)
    workbook = _load(original, keep_vba=suffix.lower() == ".xlsm", rich_text=True)
    sheet = workbook[listed.sheet.name]
    first, headers = _new_columns(sheet, listed, run, lang, links)
    _warn_of_lacking(original, dest, warn)
    _append(sheet, listed, first, headers, _texts(reader, run, lang, links))
    with _new(dest, private=links is not None) as part:
        _save(workbook, part)
    return dest


def mark_workbook(
    original: Path,
    problems: Iterable[Problem],
    lang: Lang,
    warn: Callable[[Text], None],
    columns: Mapping[str, str],
    sheet: str,
    header_row: int,
) -> Path:
    """Write a copy of a list's workbook, its cells with problems coloured, what to do as a comment; return its path.

    The copy is beside the original, under a new name. `warn`: as for `write_into`. Raises UsageError for a list that is no
    workbook, is open in another program, or whose sheet is protected.
    """
    from openpyxl.comments import Comment
    from openpyxl.styles import PatternFill

    for lock in (f"~${original.name}", f".~lock.{original.name}#"):
        if original.with_name(lock).exists():
            what = _("{name} is open in another program (its file {lock} is there).")
            what = what.format(name=original.name, lock=lock)
            raise UsageError(what, _("Save and close it there, then try again."))
    rate = replace(LIST_COLUMNS, given=columns).rate
    with open_bytes(original) as raw, readable(original):
        if not is_workbook(raw):
            what = _("{--mark} needs a workbook (.xlsx); {name} is text.", name=original.name)
            raise UsageError(what, _("Its fix-me file has the rows with problems, and what to fix in each."))
        name = list_sheet(Book(raw), rate, sheet).name
        table = read_workbook(raw, rate, sheet=name, header_line=header_row, rows="all")
    headers = [*map(trim, table.headers)]
    workbook = _load(original, keep_vba=original.suffix.lower() == ".xlsm", rich_text=True)
    drawn = workbook[name]
    if drawn.protection.sheet:
        what = _("Sheet '{name}' of {original} is protected.", name=shown(name, 40), original=original.name)
        fix = _("Unprotect it (Review > Unprotect Sheet), save it, and try again.")
        raise UsageError(what, fix)
    areas = drawn.merged_cells.ranges
    tops = {cell: area.coord.split(":")[0] for area in areas for row in area.rows for cell in row}
    fill = PatternFill("solid", fgColor="FFC7CE")
    for problem in problems:
        column = headers.index(problem.column) + 1 if problem.column in headers else 1
        place = problem.line or 1, column
        cell = drawn[tops[place]] if place in tops else drawn.cell(*place)
        cell.fill = fill
        said = [cell.comment.text] if cell.comment is not None else []
        text = _("{message} — {fix}", message=problem.message, fix=problem.fix).of(lang)
        if cell.coordinate != (own := f"{letters(column)}{place[0]}"):
            text = f"{own}: {text}"
        cell.comment = Comment("\n".join([*said, as_text(text)]), "tcb-ops", height=120, width=300)
    stem, suffix = f"{original.stem} {_MARKED.of(lang)}", original.suffix
    copies = (original.with_name(f"{stem}{n}{suffix}") for n in chain([""], map(" {}".format, count(2))))
    dest = next(copy for copy in copies if not os.path.lexists(copy))
    _warn_of_lacking(original, dest, warn)
    with _new(dest) as part:
        _save(workbook, part)
    return dest


def _save(workbook: Workbook, part: Path) -> None:
    from openpyxl.writer.excel import ExcelWriter

    # Workbook.save leaves the archive open if it cannot be written, and that of the macros always.
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive, workbook.vba_archive or nullcontext():
        ExcelWriter(workbook, archive).save()


def _warn_of_lacking(original: Path, dest: Path, warn: Callable[[Text], None] | None) -> None:
    with zipfile.ZipFile(original) as package:
        lacks = any(part.startswith(_NOT_COPIED) for part in package.namelist())
    if lacks and warn is not None:
        text = _(
            "{dest} will be without pictures, charts and shapes: they cannot be copied. {name} is not changed."
        )
        warn(text.format(dest=dest, name=original.name))


def split_workbook(
    reader: LedgerReader,
    run: RunRecord,
    original: Path,
    dest: Path | None,
    lang: Lang,
    column: str,
    links: RowLinks | None = None,
) -> Path:
    """Write a workbook per value of a column to the new folder `dest`, each with the run's rows of that value; return it.

    Like `write_into`. Cells covered by a merged cell have its value; rows without a value share a workbook.
    """
    listed = own_list(reader, run, original)
    dest = dest or original.with_name(f"{original.stem} {_ADDED.of(lang)}")
    sheet = _load(original, data_only=True)[listed.sheet.name]
    first, headers = _new_columns(sheet, listed, run, lang, links)
    lines_of = _groups(sheet, listed, reader, run, column)
    _free(dest)
    texts = dict(_texts(reader, run, lang, links)) | {listed.header_line: headers}

    def cells(line: int) -> list[Any]:
        return [*(sheet.cell(line, column).value for column in range(1, first)), *texts.get(line, ())]

    with _disk_errors(dest), TemporaryDirectory(dir=dest.parent, prefix=".tcb-ops-") as scratch:
        part = Path(scratch) / dest.name
        part.mkdir()
        names = _file_names(original.stem, list(lines_of), lang)
        title = _NOT_IN_SHEET_NAMES.sub("_", sheet.title)[:31].strip("'") or None
        for name, lines in zip(names, lines_of.values(), strict=True):
            (part / name).touch(0o666 if links is None else 0o600)
            with new_workbook(part / name) as divided:
                copied = divided.add_worksheet(title)
                Tables(divided, str).write(copied, cells(listed.header_line), map(cells, lines))
            sync_to_disk(part / name)
        part.rename(dest)
    return dest


def _new_columns(
    sheet: Worksheet, listed: ListSheet, run: RunRecord, lang: Lang, links: RowLinks | None
) -> tuple[int, tuple[str, ...]]:
    columns = COLUMNS if links is None else (*COLUMNS, links.header)
    held = (cell.column for row in sheet.iter_rows() for cell in row if cell.value is not None)
    merged = (area.max_col for area in sheet.merged_cells.ranges)
    used = max(chain(held, merged), default=0)
    if used + len(columns) > LAST_COLUMN:
        full = _(
            "Sheet '{name}' has no room for {columns} more columns: its last columns are in use. The "
            "report's results.csv has every row: tcb-ops report"
        )
        raise UsageError(full.format(name=shown(listed.sheet.name, 40), columns=len(columns)))
    taken = {fold(header) for header in listed.headers}
    headers = []
    for text in columns:
        # A colleague must not mistake a simulated run for the real upload.
        mark = f" {MARK}" if text is COLUMNS[0] and run.simulated else ""
        # The list may have such a column, and names in a table are unique.
        headers.append(_distinct(text.of(lang) + mark, taken, "{name} {number}"))
    return used + 1, tuple(headers)


def _texts(
    reader: LedgerReader, run: RunRecord, lang: Lang, links: RowLinks | None
) -> Iterator[tuple[int, Sequence[str]]]:
    stored = hooks(StoredHooks)
    changed = stored.changed_lines(reader, run) if stored is not None else {}
    for record in reader.rows(run):
        row, end, cause = record.row, record.end, why_of(record.end)
        texts = (reason_text(end).of(lang), action_text(end).of(lang), redact(end.file_id))
        told = None if cause is None else merchant_text(cause.code, row.appid, row.merchant, row.env)
        message = "" if told is None else told.of(lang)
        result = end.outcome.label
        if end.outcome in STORED_OUTCOMES and row.line in changed:
            kind, later_run = changed[row.line]
            text = _("{outcome}, then {changed} by run {run}")
            result = text.format(outcome=result, changed=kind.changed, run=later_run)
        more = [] if links is None else [links.texts.get(row.line, "")]
        yield row.line, (result.of(lang), *texts, message, *more)


# --- a copy of the whole --------------------------------------------------------------------------------------------

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f]")
_ESCAPED = re.compile("_(?=x[0-9A-Fa-f]{4}_)")
_NOT_COPIED = (
    *("xl/media/", "xl/charts/", "xl/chartsheets/", "xl/drawings/drawing"),
    *("xl/embeddings/", "xl/slicers/", "xl/ctrlProps/"),
)
"""Parts of a workbook that openpyxl does not write, or not as they were."""


def _load(original: Path, **options: bool) -> Workbook:
    """Load a workbook without what is not copied. Raises UsageError if openpyxl cannot read it."""
    from openpyxl import load_workbook

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they say in English only what is not copied
            workbook = load_workbook(original, **options)
    except Exception as error:  # noqa: BLE001  openpyxl raises whatever an unusual part leads to
        text = _(
            "{name} cannot be copied: it is not as Excel or WPS writes a workbook ({reason}). The report's results.csv has "
            "every row: tcb-ops report"
        )
        raise UsageError(text.format(name=original.name, reason=type(error).__name__)) from None
    for chartsheet in workbook.chartsheets:
        workbook.remove(chartsheet)
    for sheet in workbook.worksheets:
        sheet._charts, sheet._images = [], []  # noqa: SLF001  there is no other access
    return workbook


def as_text(text: str) -> str:
    """Escape what XML cannot hold: a control character becomes _x0001_ (ECMA-376 part 1, 22.9.2.19)."""
    text = _ESCAPED.sub("_x005F_", NOT_XML.sub("\ufffd", text))
    return _CONTROL.sub(lambda match: f"_x{ord(match[0]):04X}_", text)[:LONGEST]


def _append(
    sheet: Worksheet,
    listed: ListSheet,
    first: int,
    headers: Sequence[str],
    texts: Iterator[tuple[int, Sequence[str]]],
) -> None:
    from openpyxl.worksheet.cell_range import CellRange

    for line, values in chain([(listed.header_line, headers)], texts):
        style = sheet.cell(line, listed.path)._style  # noqa: SLF001  the public way copies six objects per cell
        for column, text in enumerate(values, first):
            cell = sheet.cell(line, column)
            cell.value = as_text(text) or None
            cell._style = copy(style)  # noqa: SLF001  as above
            if text:
                cell.data_type = "s"  # whatever it begins with, it is no formula
    last = first + len(headers) - 1
    _set_widths(sheet, first, len(headers))
    # Otherwise sorting would separate rows from their results.
    if sheet.auto_filter.ref and (area := CellRange(sheet.auto_filter.ref)).min_row == listed.header_line:
        area.expand(right=max(0, last - area.max_col))
        sheet.auto_filter.ref = area.coord
    for table in sheet.tables.values():
        area = CellRange(table.ref)
        if (area.min_row, area.max_col + 1) == (listed.header_line, first) and table.headerRowCount != 0:
            area.expand(right=len(headers))
            _extend_table(table, area.coord, headers)


def _extend_table(table: Any, ref: str, headers: Sequence[str]) -> None:
    from openpyxl.worksheet.table import TableColumn

    table.ref = ref
    if table.autoFilter is not None:
        table.autoFilter.ref = ref
    after = max(column.id for column in table.tableColumns)
    table.tableColumns += [TableColumn(id=after + n, name=name) for n, name in enumerate(headers, 1)]


def _set_widths(sheet: Worksheet, first: int, count: int) -> None:
    """Set the widths of the new columns; a range of columns that reaches them ends before them."""
    for name, columns in list(sheet.column_dimensions.items()):
        columns.reindex()
        if columns.max >= first:
            columns.max = first - 1
            if columns.min >= first:
                del sheet.column_dimensions[name]
    for column, width in enumerate(WIDTHS[:count], first):
        sheet.column_dimensions[letters(column)].width = width


# --- values of the column ----------------------------------------------------------------------------------------------


def _groups(
    sheet: Worksheet, listed: ListSheet, reader: LedgerReader, run: RunRecord, name: str
) -> dict[str, list[int]]:
    column = next(
        (number for number, header in enumerate(listed.headers, 1) if fold(header) == fold(name)), 0
    )
    if not column or not name:
        headers = quoted_names([header for header in listed.headers if header])
        text = _("{--split-by} {wanted}: the list has no such column; it has {listed}.")
        raise UsageError(text.format(wanted=shown(name, 40), listed=headers))
    top_of: dict[int, int] = {}
    for area in sheet.merged_cells.ranges:
        if area.min_col <= column <= area.max_col:
            top_of |= dict.fromkeys(range(area.min_row, area.max_row + 1), area.min_row)
    lines_of: dict[str, list[int]] = {}
    for record in reader.rows(run):
        value = sheet.cell(top_of.get(record.row.line, record.row.line), column).value
        lines_of.setdefault("" if value is None else trim(str(value)), []).append(record.row.line)
        if len(lines_of) > MOST_COPIES:
            text = _("Column '{name}' has more than {most_copies} values.")
            text = text.format(name=shown(name, 40), most_copies=MOST_COPIES)
            raise UsageError(text, _("Split by a column with fewer values."))
    return lines_of


def _file_names(stem: str, values: Sequence[str], lang: Lang) -> list[str]:
    """Return a file name per value, valid on every system and distinct even if case is ignored."""
    taken: set[str] = set()
    names = []
    for value in values:
        printable = "".join(letter if letter.isprintable() else "_" for letter in value)
        safe = _NOT_IN_NAMES.sub("_", printable)[:_LONGEST_NAME].strip(" .")
        safe = safe or _("(empty)").of(lang)
        names.append(_distinct(f"{stem[:_LONGEST_NAME]} {safe}", taken, "{name} ({number})") + ".xlsx")
    return names


def _distinct(name: str, taken: set[str], form: str) -> str:
    """Return a name that is not among the folded ones that are taken, numbered if need be, and add it to them."""
    numbered = (form.format(name=name, number=number) for number in count(2))
    distinct = next(candidate for candidate in chain([name], numbered) if fold(candidate) not in taken)
    taken.add(fold(distinct))
    return distinct


# --- the run's own workbook ---


@dataclass(frozen=True, slots=True)
class ListSheet:
    """The position of the run's list in a workbook."""

    sheet: Sheet
    header_line: int
    headers: tuple[str, ...]
    """Every cell of the header line, trimmed."""
    path: int
    """The column of the cloud paths, counted from 1."""


def own_list(reader: LedgerReader, run: RunRecord, original: Path) -> ListSheet:
    """Find the list in the run's own workbook. Raises UsageError if that is another file, or has changed."""
    with open_bytes(original) as raw, readable(original):
        if not is_workbook(raw):
            text = _(
                "{--into} needs the workbook (.xlsx) that was the run's list; {original} is not a workbook. The "
                "report's results.csv has every row of the list: tcb-ops report {id}"
            )
            raise UsageError(text.format(original=original, id=run.id))
        book = Book(raw)  # a password and an old format have messages of their own
        if digest(raw)[1] != run.list_sha256:
            text = _("{original} is not the list of run {id} ({list_name}): its content differs.")
            text = text.format(original=original, id=run.id, list_name=run.list_name)
            raise UsageError(text, _("If it was saved again since, name the file as it was then."))
        return find_list(book, reader, run)


def find_list(book: Book, reader: LedgerReader, run: RunRecord) -> ListSheet:
    """Find the sheet and the header of the run's list, by its headers and the path of its first row.

    The ledger holds the list's contents, not its position, which depends on options. Of identical sheets, the one
    named by the options comes first, then visible ones.
    """
    unmerged = reader.unmerged  # it has no corrected rows
    first = next(unmerged.rows(run), None)
    first_line, path = (first.row.line, first.row.path) if first is not None else (0, "")
    named = {fold(value) for name, value in run.selection.options if name == "sheet"}
    by_likeliness = sorted(
        book.sheets,
        key=lambda sheet: (fold(sheet.name) not in named, sheet.hidden, -len(sheet.name)),
    )
    headers = set(filter(None, map(trim, run.headers)))
    for sheet in by_likeliness:
        header: tuple[int, tuple[str, ...]] | None = None
        for row in book.rows(sheet):
            cells = tuple(trim(unguard(cell)) for cell in row.cells)
            if row.line < first_line:
                header = (row.line, cells) if headers <= set(cells) else header
            elif header is not None and row.line == first_line and path in cells:
                return ListSheet(sheet, *header, cells.index(path) + 1)
            else:
                break
    text = _("the rows of run {id} are not in this workbook: was it read by a tcb-ops of another version?")
    raise UsageError(text.format(id=run.id))


# --- the disk -------------------------------------------------------------------------------------------------------


def _free(dest: Path) -> None:
    if os.path.lexists(dest):
        what = _("{dest} already exists, and is not overwritten.", dest=dest)
        raise UsageError(what, _("Remove it, or choose another location with {--out}."))
    if not dest.parent.is_dir():
        what = _("{dest}: there is no folder {parent}.", dest=dest, parent=dest.parent)
        raise UsageError(what, _("Create it, or choose another location with {--out}."))


@contextmanager
def _new(dest: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield an empty file that becomes `dest` at the end. Raises UsageError if somebody has made one of that name meanwhile.

    `private`: only its owner may read it.
    """
    with _disk_errors(dest), replacing(dest, private=private) as part:
        yield part
        _free(dest)


@contextmanager
def _disk_errors(dest: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = _("{dest} could not be written: {why}.", dest=dest, why=system_reason(error))
        raise StoppedError(text, _("Free disk space, or choose another location with {--out}.")) from None
