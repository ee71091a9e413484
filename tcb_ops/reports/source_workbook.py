"""The workbook that a run's list came in, found again: the same bytes, and where in it the list stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tcb_ops.cell_text import fold, trim, unguard
from tcb_ops.errors import BrokenTableError, UsageError
from tcb_ops.i18n import Text
from tcb_ops.lists.problems import input_error
from tcb_ops.lists.source import digest, is_workbook, open_source
from tcb_ops.lists.validate import OURS
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.records import RowRecord, RunRecord
from tcb_ops.xlsx.workbook import Book, Sheet, open_book


@dataclass(frozen=True, slots=True)
class ListSheet:
    """Where in a workbook the run's list stands."""

    book: Book
    sheet: Sheet
    header_line: int
    headers: tuple[str, ...]
    """Every cell of that row, trimmed."""
    path: int
    """The column of the cloud paths, counted from 1."""


@contextmanager
def open_original(run: RunRecord, original: Path) -> Iterator[Book]:
    """Open the run's own workbook. Raises UsageError where it is another file, or has changed."""
    with open_source(original) as raw:
        if not is_workbook(raw):
            raise UsageError(
                Text(
                    f"--into takes the workbook (.xlsx) that the list came in; {original} is none. "
                    f"results.csv of the report has every row of the list: tcb-ops report {run.id}",
                    f"--into 需要的是作为清单的工作簿（.xlsx）；{original} 不是工作簿。"
                    f"报告的 results.csv 中有清单的每一行：tcb-ops report {run.id}",
                )
            )
        with readable(original):
            book = open_book(raw)  # a password and an old format are better said as such
        if digest(raw)[1] != run.list_sha256:
            raise UsageError(
                Text(
                    f"{original} is not the list of run {run.id} ({run.list_name}): its SHA-256 differs. If it was saved "
                    "again since, name the file as it was then.",
                    f"{original} 不是任务 {run.id} 的清单（{run.list_name}）：SHA-256 不一致。"
                    "若之后又保存过，请改用当时的那份文件。",
                )
            )
        yield book


@contextmanager
def readable(original: Path) -> Iterator[None]:
    """Say of a workbook that turns out to be damaged what any list is said of: InputError."""
    try:
        yield
    except BrokenTableError as error:
        problem = error.problem
    else:
        return
    raise input_error(str(original), [problem])


def find_list(book: Book, ledger: Ledger, run: RunRecord) -> ListSheet:
    """Find the sheet and the header of the run's list, by its headers and its first row.

    The run remembers what was in the list, not where: that depends on options, and is said in no one place. Of sheets
    that are alike the one that the options named is meant, then a visible one.
    """
    first = next(ledger.rows(run), None)
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
        Text(
            f"the rows of run {run.id} are not in this workbook: was it read by a tcb-ops of another version?",
            f"在这个工作簿中找不到任务 {run.id} 的行：清单是否由其他版本的 tcb-ops 读取？",
        )
    )


def _own(headers: Sequence[str], cells: Sequence[str]) -> tuple[str, ...]:
    """The cells of a row that are the list's own, as the run has them: without the columns of an earlier export."""
    width = max((at for at, header in enumerate(headers, 1) if trim(header)), default=0)
    kept = [at for at in range(width) if not trim(headers[at]).startswith(OURS)]
    own = (cells[at] if at < len(cells) else "" for at in kept)
    return tuple(map(unguard, own)) if len(kept) < width else tuple(map(str, own))


def _same(headers: Sequence[str], cells: Sequence[str], record: RowRecord) -> bool:
    # A cell that a merged one covers has no value in the run, whatever stands in it.
    own = _own(headers, cells)
    return len(own) == len(record.row.cells) and all(
        had in {"", has} for had, has in zip(record.row.cells, own, strict=True)
    )
