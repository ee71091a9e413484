"""Copies of a list's workbook with the results beside the rows (`report RUN --into`)."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path

from tcb_ops.errors import BrokenTableError, StoppedError, UsageError
from tcb_ops.formatting import fold, shown, trim, unguard
from tcb_ops.i18n import Lang, _, verbatim
from tcb_ops.lists.input_files import digest, input_error, is_workbook, open_bytes
from tcb_ops.lists.paths import OURS
from tcb_ops.lists.row_files import concealed
from tcb_ops.model import is_simulated
from tcb_ops.reports.explanations import MARK
from tcb_ops.reports.formats.csv import RESULT_COLUMNS, own_values
from tcb_ops.resources import system_reason
from tcb_ops.runs.reader import RunReader
from tcb_ops.runs.records import RowRecord, RunRecord
from tcb_ops.xlsx.copies import AppendColumns, add_columns, first_free, write_split
from tcb_ops.xlsx.workbook import LAST_COLUMN, LAST_ROW, Book, NonTextCell, Sheet, open_book

_ADDED = _("result")
COLUMNS = (_ADDED, _("reason"), _("what to do"), verbatim("file_id"))
WIDTHS = (24, 50, 50, 44)
MOST_COPIES = 500
"""Maximum number of values to split a workbook by: more are usually paths or dates, not people."""
_NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*]')
_LONGEST = 40
"""Characters of the original's name and of a value in a file name, which may have 255 bytes, three per Chinese character."""


def write_into(reader: RunReader, run: RunRecord, original: Path, dest: Path | None, lang: Lang) -> Path:
    """Write a copy of the run's workbook, with result, reason, what to do and file_id beside each row; return its path.

    `dest` None: beside the original, with a name ending in 结果 or result. Raises UsageError if `original` is not the
    run's list or `dest` exists, StoppedError if the disk fails. An error leaves no file.
    """
    suffix = original.suffix
    with open_original(run, original) as book:
        dest = dest or original.with_name(f"{original.stem} {_ADDED.of(lang)}{suffix}")
        if dest.suffix.lower() != suffix.lower():
            raise UsageError(
                _(
                    "{dest}: the copy is a workbook like {name}, so its name must end in {suffix}.",
                    dest=dest,
                    name=original.name,
                    suffix=suffix,
                )
            )
        with _copied(book, reader, run, original, dest) as (found, part), part.open("xb") as out:
            add_columns(book, found.sheet, _beside(found, run, lang), _texts(reader, run, lang), out)
    return dest


def split_workbook(
    reader: RunReader, run: RunRecord, original: Path, dest: Path | None, column: str, lang: Lang
) -> Path:
    """Write a workbook per value of a column to the new folder `dest`, each with the rows of that value; return it.

    Like `write_into`. Cells covered by a merged cell have its value; rows without a value share a workbook.
    """
    with open_original(run, original) as book:
        dest = dest or original.with_name(f"{original.stem} {_ADDED.of(lang)}")
        with _copied(book, reader, run, original, dest) as (found, part):
            names, group_of = _groups(found, _column(found, column))
            part.mkdir()
            files = [part / name for name in _file_names(original.stem, names, lang)]
            values = partial(_texts, reader, run, lang)
            write_split(book, found.sheet, _beside(found, run, lang), values, group_of, files)
    return dest


@contextmanager
def _copied(
    book: Book, reader: RunReader, run: RunRecord, original: Path, dest: Path
) -> Iterator[tuple[ListSheet, Path]]:
    """Yield the list's position and a temporary path for the copy, which appears at `dest` at the end."""
    _free(dest)
    with readable(original), _new(dest) as part:
        yield find_list(book, reader, run), part


def _beside(found: ListSheet, run: RunRecord, lang: Lang) -> AppendColumns:
    """Return the new columns: right of all used ones, with names that the list does not have."""
    used = 0
    for row in found.book.rows(found.sheet):
        held = len(row.cells)
        while held > used and not row.cells[held - 1] and not isinstance(row.cells[held - 1], NonTextCell):
            held -= 1
        used = max(used, held)
    first = first_free(found.book, found.sheet, used)
    if first + len(COLUMNS) - 1 > LAST_COLUMN:
        raise UsageError(
            _(
                "sheet '{name}' has no room for {columns} more columns: its last columns are in use. The "
                "report's results.csv has every row: tcb-ops report",
                name=shown(found.sheet.name, 40),
                columns=len(COLUMNS),
            )
        )
    taken = {fold(header) for header in found.headers}
    headers = []
    for text in COLUMNS:
        # A colleague must not mistake a simulated run for the real upload.
        mark = f" {MARK}" if text is COLUMNS[0] and is_simulated(run.target) else ""
        # The list may have such a column, and names in a table are unique.
        headers.append(_distinct(text.of(lang) + mark, taken, "{name} {number}"))
    return AppendColumns(found.header_line, first, tuple(headers), WIDTHS, like=found.path)


def _texts(reader: RunReader, run: RunRecord, lang: Lang) -> Iterator[tuple[int, Sequence[str]]]:
    for record in reader.rows(run):
        values = dict(zip(RESULT_COLUMNS, own_values(record, lang), strict=True))
        texts = (values["tcb_reason"], values["tcb_action"], values["tcb_file_id"])
        yield record.row.line, (record.end.outcome.label.of(lang), *texts)


# --- split by a column ----------------------------------------------------------------------------------------------


def _column(found: ListSheet, wanted: str) -> int:
    """Return the column with this header, counted from 1."""
    for at, header in enumerate(found.headers, 1):
        if header and fold(header) == fold(wanted):
            return at
    listed = ", ".join(f"'{shown(header, 40)}'" for header in found.headers if header)
    raise UsageError(
        _(
            "--split-by {wanted}: the list has no such column; it has {listed}.",
            wanted=shown(wanted, 40),
            listed=listed,
        )
    )


def _groups(found: ListSheet, column: int) -> tuple[list[str], array[int]]:
    """Return a column's values in order of appearance, and for every line of the sheet its value's number, or -1."""
    group_of = array("h", [-1]) * (LAST_ROW + 1)
    numbers: dict[str, int] = {}
    seen = found.book.survey(found.sheet, found.header_line)
    merges = [merge for merge in seen.merges if merge.left <= column <= merge.right]
    at, above = 0, ""
    for row in found.book.rows(found.sheet):
        if row.line <= found.header_line:
            continue
        value = trim(row.cells[column - 1]) if column <= len(row.cells) else ""
        while at < len(merges) and merges[at].bottom < row.line:
            at += 1
        if at < len(merges) and merges[at].top <= row.line:
            above = value if row.line == merges[at].top else above
            value = above
        number = numbers.setdefault(value, len(numbers))
        if number >= MOST_COPIES:
            name = shown(found.headers[column - 1], 40)
            raise UsageError(
                _("column '{name}' has more than {most_copies} values.", name=name, most_copies=MOST_COPIES),
                _("Split by a column with fewer values."),
            )
        group_of[row.line] = number
    return list(numbers), group_of


def _file_names(stem: str, values: Sequence[str], lang: Lang) -> list[str]:
    """Return a file name per value, valid on every system and distinct even if case is ignored."""
    taken: set[str] = set()
    names = []
    for value in values:
        printable = "".join(letter if letter.isprintable() else "_" for letter in value)
        safe = _NOT_IN_NAMES.sub("_", printable)[:_LONGEST].strip(" .")
        safe = safe or _("(empty)").of(lang)
        names.append(_distinct(f"{stem[:_LONGEST]} {safe}", taken, "{name} ({number})") + ".xlsx")
    return names


def _distinct(name: str, taken: set[str], form: str) -> str:
    """Return a name that is not among the folded ones that are taken, numbered if need be, and add it to them."""
    numbered = (form.format(name=name, number=number) for number in count(2))
    found = next(one for one in chain([name], numbered) if fold(one) not in taken)
    taken.add(fold(found))
    return found


# --- the run's own workbook ---


@dataclass(frozen=True, slots=True)
class ListSheet:
    """The position of the run's list in a workbook."""

    book: Book
    sheet: Sheet
    header_line: int
    headers: tuple[str, ...]
    """Every cell of the header line, trimmed."""
    path: int
    """The column of the cloud paths, counted from 1."""


@contextmanager
def open_original(run: RunRecord, original: Path) -> Iterator[Book]:
    """Open the run's own workbook. Raises UsageError if it is another file, or has changed."""
    with open_bytes(original) as raw:
        if not is_workbook(raw):
            raise UsageError(
                _(
                    "--into needs the workbook (.xlsx) that was the run's list; {original} is not a workbook. The "
                    "report's results.csv has every row of the list: tcb-ops report {id}",
                    original=original,
                    id=run.id,
                )
            )
        with readable(original):
            book = open_book(raw)  # a password and an old format have messages of their own
        if digest(raw)[1] != run.list_sha256:
            raise UsageError(
                _(
                    "{original} is not the list of run {id} ({list_name}): its content differs.",
                    original=original,
                    id=run.id,
                    list_name=run.list_name,
                ),
                _("If it was saved again since, name the file as it was then."),
            )
        yield book


@contextmanager
def readable(original: Path) -> Iterator[None]:
    """Raise InputError for a damaged workbook, as for any list."""
    try:
        yield
    except BrokenTableError as error:
        problem = error.problem
    else:
        return
    raise input_error(str(original), [problem])


def find_list(book: Book, reader: RunReader, run: RunRecord) -> ListSheet:
    """Find the sheet and the header of the run's list, by its headers and its first row.

    The ledger holds the list's contents, not its position, which depends on options. Of identical sheets, the one
    named by the options comes first, then visible ones.
    """
    first = next(reader.rows(run), None)
    named = fold(str(run.settings.get("selection", "")))
    by_likeliness = sorted(
        book.sheets,
        key=lambda sheet: (f"sheet {fold(sheet.name)}" not in named, sheet.hidden, -len(sheet.name)),
    )
    for sheet in by_likeliness:
        if first is None:
            break
        found: tuple[int, list[str]] | None = None
        for row in book.rows(sheet):
            if row.line < first.row.line:
                found = (row.line, row.cells) if _own(row.cells, row.cells) == run.headers else found
            elif found is not None and row.line == first.row.line and _same(found[1], row.cells, first):
                path = next((at for at, cell in enumerate(row.cells, 1) if trim(cell) == first.row.path), 1)
                return ListSheet(book, sheet, found[0], tuple(map(trim, found[1])), path)
            else:
                break
    raise UsageError(
        _(
            "the rows of run {id} are not in this workbook: was it read by a tcb-ops of another version?",
            id=run.id,
        )
    )


def _own(headers: Sequence[str], cells: Sequence[str]) -> tuple[str, ...]:
    """Return a row's own cells as the run has them, without the columns of an earlier export."""
    width = max((at for at, header in enumerate(headers, 1) if trim(header)), default=0)
    kept = [at for at in range(width) if not trim(headers[at]).startswith(OURS)]
    own = (cells[at] if at < len(cells) else "" for at in kept)
    return tuple(map(unguard, own)) if len(kept) < width else tuple(map(str, own))


def _same(headers: Sequence[str], cells: Sequence[str], record: RowRecord) -> bool:
    # A cell covered by a merged one has no value in the run, whatever the file contains there.
    own = concealed(_own(headers, cells))
    return len(own) == len(record.row.cells) and all(
        had in {"", has} for had, has in zip(record.row.cells, own, strict=True)
    )


# --- the disk -------------------------------------------------------------------------------------------------------


def _free(dest: Path) -> None:
    if os.path.lexists(dest):
        what = _("{dest} already exists, and is not overwritten.", dest=dest)
        raise UsageError(what, _("Remove it, or choose another location with --out."), options=["--out"])
    if not dest.parent.is_dir():
        what = _("{dest}: there is no folder {parent}.", dest=dest, parent=dest.parent)
        raise UsageError(what, _("Create it, or choose another location with --out."), options=["--out"])


@contextmanager
def _new(dest: Path) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `dest` at the end, or removed after an error."""
    part = dest.with_name(f".{dest.name[:_LONGEST]}.part-{secrets.token_hex(4)}")
    try:
        yield part
        for file in part.iterdir() if part.is_dir() else (part,):
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        _free(dest)
        part.rename(dest)
    except OSError as error:
        why = system_reason(error)
    else:
        return
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with suppress(OSError):  # it may not exist, as on a full disk
                part.unlink()
    raise StoppedError(
        _("{dest} could not be written: {why}.", dest=dest, why=why),
        _("Free disk space, or choose another location with --out."),
        options=["--out"],
    )
