"""The fix-me CSV: the rows with problems, to be mended in a spreadsheet and read back in."""

from __future__ import annotations

import csv
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.errors import UsageError
from tcb_ops.lists.staging import Problems
from tcb_ops.model import Lang, Text
from tcb_ops.spreadsheet import guard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcb_ops.model import Problem

__all__ = ["write_fixme"]

_COLUMNS = ("tcb_line", "tcb_column", "tcb_problem", "tcb_mend")


def write_fixme(problems: Sequence[Problem], dest: str | Path, lang: Lang = Lang.EN) -> int:
    """Write the rows that have problems, and return how many; for 0 nothing is written.

    Takes `Batch.problems` or an InputError's. The list's own columns come first, then tcb_line, tcb_column,
    tcb_problem and tcb_mend, which reading drops again; a row with several problems stands once. Problems of a file
    as a whole have no row. For Excel: UTF-8 with BOM, CRLF, no cell that would run as a formula.

    Raises UsageError where `dest` cannot be written.
    """
    if not isinstance(problems, Problems):
        return 0
    rows = problems.by_row()
    first = next(rows, None)
    if first is None:
        return 0
    written = 0
    try:
        with Path(dest).open("w", encoding="utf-8-sig", newline="") as file:
            out = csv.writer(file)
            out.writerow([*map(guard, problems.headers), *_COLUMNS])
            for cells, about in chain([first], rows):
                columns = "; ".join(dict.fromkeys(p.column for p in about if p.column))
                what = "; ".join(p.message.of(lang) for p in about)
                mend = "; ".join(p.mend.of(lang) for p in about)
                out.writerow(map(guard, (*cells, str(about[0].line), columns, what, mend)))
                written += 1
    except OSError as error:
        why = error.strerror or "?"
        failed = Text(f"{dest} cannot be written ({why})", f"{dest} 无法写入（{why}）")
    else:
        return written
    raise UsageError(failed)
