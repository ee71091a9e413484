"""Corrected lists: the fix-me file, which says what to fix in a list, and which run such a file or failed.csv corrects."""

from __future__ import annotations

from datetime import datetime

from tcb_ops.engine.list_kinds import ListKind
from tcb_ops.i18n import Text, _
from tcb_ops.kinds import Kind
from tcb_ops.ledger.histories import columns_of, merged_runs
from tcb_ops.ledger.reader import LedgerReader
from tcb_ops.ledger.records import RunRecord
from tcb_ops.lists.batch import Batch
from tcb_ops.model import Outcome
from tcb_ops.settings import Settings

_COLUMNS = frozenset({"tcb_ended_at", "tcb_list", "tcb_outcome", "tcb_column"})
"""Columns by which a failed.csv or a fix-me file is recognised."""


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
