"""Corrected lists: the fix-me file, which says what to fix in a list, and which run such a file or failed.csv corrects."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tcb_ops.formatting import guard
from tcb_ops.frames import Given
from tcb_ops.i18n import Lang, Text, _
from tcb_ops.kinds import Kind, provided
from tcb_ops.lists.batch import Batch, Problems
from tcb_ops.model import Outcome, Problem
from tcb_ops.runs.histories import columns_of, merged_runs
from tcb_ops.runs.list_kinds import ListKind
from tcb_ops.runs.plan import RunSpec
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord
from tcb_ops.settings import Settings
from tcb_ops.table_files import write_table

_FIXME_COLUMNS = ("tcb_line", "tcb_column", "tcb_problem", "tcb_fix", "tcb_list", "tcb_checksum")
_COLUMNS = frozenset({"tcb_ended_at", "tcb_list", "tcb_outcome", "tcb_column"})
"""Columns by which a failed.csv or a fix-me file is recognised."""


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


def corrected_run(
    batch: Batch, kind: Kind | None, ledger: LedgerReader | None, settings: Settings
) -> RunRecord | Text | None:
    """Return the run that a corrected fix-me file or failed.csv corrects, else a warning; None for any other list.

    It is the original of the newest finished run of the kind (None: of links or upload) and target which skipped these rows as
    invalid, or with whose retries and corrections they did not succeed, at the times that failed.csv has.

    ===================================================================  =========
    the list                                                             result
    ===================================================================  =========
    has no such columns, or is of a run without list                     None
    lacks tcb_line, both tcb_ended_at and tcb_list, or the list's        a warning
    has a row twice, one of no finished run, or one that has succeeded   a warning
    any other, also with more columns                                    the run
    ===================================================================  =========
    """
    if batch.exported.isdisjoint(_COLUMNS):
        return None
    text, is_clear = batch.staging.origin()
    origin, of_lists = _origin(text, settings), list[RunRecord]()
    if ledger is not None and is_clear:
        runs = [run for run in ledger.runs(settings.run_target, damaged=[]) if _may_have(origin, run)]
        of_lists = [run for run in runs if isinstance(run.kind, ListKind)]
        for run in of_lists:
            if run.kind == (kind or run.kind) and _corrects(batch, origin, ledger, run, settings):
                return merged_runs(ledger, run)[0]
        if runs and not of_lists:
            return None
    return _(
        "{list_name} corrects no earlier run: a retry of that run would send its old rows again. To correct it, change only "
        "values in a copy of its failed.csv or fix-me file, and keep the tcb_ columns; columns may be added.",
        list_name=batch.source.name,
    )


def corrected_spec(spec: RunSpec, batch: Batch, ledger: LedgerReader, settings: Settings) -> RunSpec:
    """Return the spec of a corrected fix-me file or failed.csv with the rows' lines in their list, and the run that it corrects.

    The spec of any other list is returned unchanged, with a warning if it has the columns of such a file.
    """
    corrected = corrected_run(batch, spec.kind, ledger, settings)
    if not isinstance(corrected, RunRecord):
        return replace(spec, warning=corrected)
    return replace(
        spec,
        rows=lambda: (replace(row, line=row.of_line) for row in spec.rows()),
        urls=spec.urls and provided("source_urls")(batch.staging.queries("of_line")),
        options={**spec.options, "corrects": corrected.id},
        given=spec.given and spec.given._replace(lines=_lines_of(spec.given, batch)),
    )


def _lines_of(given: Given, batch: Batch) -> list[int]:
    """Return the lines of a frame's rows in the list that they are of; -1 for those that are no rows of the batch."""
    of_line = {row.line: row.of_line for row in batch.rows()}
    return [of_line.get(line, -1) for line in given.lines]


def _may_have(origin: str | int, run: RunRecord) -> bool:
    if run.finished_at is None:
        return False
    in_time = isinstance(origin, int) and run.created_at - 1 <= origin <= run.finished_at + 1
    return in_time or origin == run.list_sha256


def _corrects(
    batch: Batch, origin: str | int, ledger: LedgerReader, run: RunRecord, settings: Settings
) -> bool:
    """Return whether every row of a list is one of a run that was skipped, or did not succeed."""
    try:
        columns_of(run.headers, batch.headers)
    except ValueError:
        return False
    if origin == run.list_sha256:
        invalid = ledger.rows(run, outcomes=frozenset({Outcome.INVALID}))
        failing: set[tuple[int, str | int]] = {(record.row.line, origin) for record in invalid}
    else:
        failing = {
            (record.row.line, time)
            for member in merged_runs(ledger, run)
            for record in ledger.rows(member, outcomes=frozenset(Outcome.all()) - Outcome.successes())
            for time in _seconds(record.end.ended_at)
        }
    return all((row.of_line, _origin(row.origin, settings)) in failing for row in batch.rows())


def _seconds(time: float | None) -> tuple[str | int, ...]:
    """Return what a file may say of a time: the second, the next one where it was rounded up; nothing for None."""
    return ("",) if time is None else (int(time), int(time) + 1)


def _origin(text: str, settings: Settings) -> str | int:
    """Return the second that a text is the time of, else the text; times of pandas are in the settings' time zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return int((time if time.tzinfo else time.replace(tzinfo=settings.zone)).timestamp())
