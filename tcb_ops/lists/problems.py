"""Report problems of a list: as a line, as an error, as a fix-me CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from tcb_ops.errors import InputError, UsageError
from tcb_ops.formatting import guard
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.lists.staging import Problems
from tcb_ops.model import Problem
from tcb_ops.resources import system_reason

PROBLEMS_SHOWN = 50
"""Problems on stderr; the fix-me CSV has all."""


def new_fixme(source: Path) -> Path:
    """Return an unused name beside the list: an existing fix-me file may have been edited."""
    names = (
        f"{source.with_suffix('')}.fix-me{number}.csv"
        for number in ("", *(f"-{n}" for n in range(2, 10_000)))
    )
    return next(Path(name) for name in names if not Path(name).exists())


def format_problem(source: str, problem: Problem, lang: Lang) -> str:
    """Format one line: `FILE:LINE: column 'X': problem — fix`; without LINE for a problem of the file as a whole."""
    where = f"{source}:{problem.line}: " if problem.line else f"{source}: "
    message, fix = problem.message.of(lang), problem.fix.of(lang)
    if lang is Lang.ZH:
        column = f"“{problem.column}”列：" if problem.column else ""
        return f"{where}{column}{message} —— {fix}"
    column = f"column '{problem.column}': " if problem.column else ""
    return f"{where}{column}{message} — {fix}"


def input_error(
    source: str,
    problems: Sequence[Problem],
    decided: Text | None = None,
    missing_files: Sequence[str] = (),
) -> InputError:
    """Return the error that refuses a file: the number of problems, and the first one in full."""
    many, first = len(problems), problems[0]
    en, zh = format_problem(source, first, Lang.EN), format_problem(source, first, Lang.ZH)
    if many > 1:
        en = f"{source} has {plural(many, 'problem')}, so nothing was sent. The first: {en}"
        zh = f"{source} 有 {many:,} 处问题，什么都没有发送。第一处：{zh}"
    return InputError(Text(en, zh), source, problems, decided, missing_files)


_COLUMNS = ("tcb_line", "tcb_column", "tcb_problem", "tcb_fix")


def write_fixme(problems: Sequence[Problem], dest: str | Path, lang: Lang = Lang.EN) -> int:
    """Write the rows that have problems, and return their number; for 0 no file is written.

    `problems` are `Batch.problems` or an InputError's. The list's own columns come first, then tcb_line, tcb_column,
    tcb_problem and tcb_fix, which reading drops again; each row is written once. Problems of a file as a whole have no
    row. For Excel: UTF-8 with BOM, CRLF, no cell that would run as a formula.

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
                found = "; ".join(p.message.of(lang) for p in about)
                fix = "; ".join(p.fix.of(lang) for p in about)
                out.writerow(map(guard, (*cells, str(about[0].line), columns, found, fix)))
                written += 1
    except OSError as error:
        why = system_reason(error)
        failed = Text(f"{dest} cannot be written ({why.en})", f"{dest} 无法写入（{why.zh}）")
    else:
        return written
    raise UsageError(failed)
