"""Corrected lists: the fix-me file, which says what to fix in a list, and which run such a file or failed.csv corrects."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from tcb_ops.formatting import guard
from tcb_ops.i18n import Lang
from tcb_ops.lists.batch import Problems
from tcb_ops.model import Problem
from tcb_ops.table_files import write_table

_FIXME_COLUMNS = ("tcb_line", "tcb_column", "tcb_problem", "tcb_fix", "tcb_list", "tcb_checksum")


def write_fixme(
    problems: Sequence[Problem], source: Path, lang: Lang, dest: Path | None = None
) -> tuple[Path, int]:
    """Write the rows of a list that have problems to a file; return it and their number, for 0 no file is written.

    `problems` are `Batch.problems` or those of an InputError. The list's own columns come first, then tcb_line,
    tcb_column, tcb_problem, tcb_fix, tcb_list (its SHA-256), by which a run of the file knows what it corrects, and
    tcb_checksum (of the row), which tells whether somebody has changed it; each row is written once. Problems of the whole file
    have no row. Written for Excel, as a CSV or a workbook, by the ending of its name.

    `dest` None: beside the list `source`. An earlier fix-me file is replaced, unless somebody has changed it: then the next
    number is taken. Raises UsageError if `dest` is any other file, or cannot be written.
    """
    if dest is None:
        numbers = ("", *(f"-{n}" for n in range(2, 10_000)))
        names = (Path(f"{source.with_suffix('')}.fix-me{number}.csv") for number in numbers)
        dest = next(name for name in names if not os.path.lexists(name) or _is_unchanged(name))
    if not isinstance(problems, Problems) or not problems.rows:
        return dest, 0
    rows = (
        (
            *cells,
            line,
            "; ".join(dict.fromkeys(problem.column for problem in about if problem.column)),
            "; ".join(problem.message.of(lang) for problem in about),
            "; ".join(problem.fix.of(lang) for problem in about),
            sha256,
        )
        for cells, sha256, line, about in problems.by_row()
    )
    lines = ((*row, _checksum([guard(str(cell)) for cell in row])) for row in rows)
    heads = (*problems.headers, *_FIXME_COLUMNS)
    write_table(dest, heads, lines, replace=_is_unchanged(dest), mask=str)
    return dest, problems.rows


def _checksum(cells: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(cells).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_unchanged(file: Path) -> bool:
    """Return whether a file is a fix-me file, a CSV, of which nobody has changed a row."""
    if not file.is_file() or file.is_symlink():
        return False
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream)
            is_fix_me = next(lines, [])[-len(_FIXME_COLUMNS) :] == [*_FIXME_COLUMNS]
            return is_fix_me and all(line and line[-1] == _checksum(line[:-1]) for line in lines)
    except (OSError, UnicodeError, csv.Error):
        return False
