"""The fix-me CSV: the rows of a list that have problems, with what to fix in each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tcb_ops.i18n import Lang
from tcb_ops.lists.batch import Problems
from tcb_ops.model import Problem
from tcb_ops.table_files import write_table

_COLUMNS = ("tcb_line", "tcb_column", "tcb_problem", "tcb_fix", "tcb_list")


def write_fixme(
    problems: Sequence[Problem], source: Path, lang: Lang, dest: Path | None = None
) -> tuple[Path, int]:
    """Write the rows of a list that have problems to a new file; return it and their number, for 0 no file is written.

    `problems` are `Batch.problems` or those of an InputError. The list's own columns come first, then tcb_line,
    tcb_column, tcb_problem, tcb_fix and tcb_list (its SHA-256), by which a run of the file knows what it corrects; each row is
    written once. Problems of the whole file have no row. Written for Excel, as a CSV or a workbook, by the ending of its name.

    `dest` None: beside the list `source`, under a new name: an earlier file may have been edited. Raises UsageError if `dest`
    exists or cannot be written.
    """
    if dest is None:
        numbers = ("", *(f"-{n}" for n in range(2, 10_000)))
        names = (Path(f"{source.with_suffix('')}.fix-me{number}.csv") for number in numbers)
        dest = next(name for name in names if not os.path.lexists(name))
    if not isinstance(problems, Problems) or not problems.rows:
        return dest, 0
    lines = (
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
    write_table(dest, (*problems.headers, *_COLUMNS), lines, mask=str)
    return dest, problems.rows
