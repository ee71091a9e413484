"""Which run a corrected fix-me file or failed.csv corrects."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from tcb_ops.i18n import Text, _
from tcb_ops.kinds import Kind
from tcb_ops.lists.batch import Batch
from tcb_ops.model import Outcome
from tcb_ops.runs.histories import columns_of, merged_runs
from tcb_ops.runs.list_kinds import ListKind
from tcb_ops.runs.plan import RunSpec
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord
from tcb_ops.runs.url_files import SourceQueries
from tcb_ops.settings import Settings

_ORIGINS = frozenset({"tcb_ended_at", "tcb_list"})
"""The columns that tell the run of a row: failed.csv has the one, a fix-me file the other."""
_COLUMNS = _ORIGINS | {"tcb_outcome", "tcb_column"}
"""Columns by which either file is recognised."""


def corrected_run(
    batch: Batch, kind: Kind | None, ledger: LedgerReader | None, settings: Settings
) -> RunRecord | Text | None:
    """Return the run that a corrected fix-me file or failed.csv corrects, else a warning; None for any other list.

    It is the original of the newest finished run of the kind (None: of links or upload) and target which skipped these rows as
    invalid, or with whose retries and corrections they did not succeed, at the times that failed.csv has.

    =================================================  ================
    the list                                           result
    =================================================  ================
    has no such columns, or is of a run without list   None
    lacks tcb_line, or both tcb_ended_at and tcb_list  the column
    has a row twice, or one without tcb_line           the row
    is of no finished run                              no such run
    lacks a column of the run's list                   the column
    has a row that succeeded, or is of another time    the row
    any other, also with more columns                  the run
    =================================================  ================
    """
    if batch.exported.isdisjoint(_COLUMNS):
        return None
    text, row = batch.staging.origin()
    origin = _origin(text, settings)
    reason = _unusable(batch.exported, row)
    reasons = [reason] if reason is not None else []
    if ledger is not None and not reasons:
        runs = [run for run in ledger.runs(settings.run_target, damaged=[]) if _may_have(origin, run)]
        of_lists = [run for run in runs if isinstance(run.kind, ListKind)]
        for run in of_lists:
            if run.kind == (kind or run.kind):
                reason = _mismatch(batch, origin, ledger, run, settings)
                if reason is None:
                    return merged_runs(ledger, run)[0]
                reasons.append(reason)
        if runs and not of_lists:
            return None
    reasons.append(_("no finished run of this ledger and target has its rows"))
    return _(
        "{list_name} corrects no earlier run: {why}. A retry of that run would send its old rows again. To correct it, change "
        "only values in a copy of its failed.csv or fix-me file; columns may be added.",
        list_name=batch.source.name,
        why=reasons[0],
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
        queries=spec.queries and SourceQueries(batch.staging.queries("of_line")),
        options={**spec.options, "corrects": corrected.id},
    )


def _unusable(exported: frozenset[str], row: int | None) -> Text | None:
    """Say what the columns lack, or what is wrong with the row in this line of the file."""
    if "tcb_line" not in exported:
        return _lacking("tcb_line")
    if exported.isdisjoint(_ORIGINS):
        return _lacking("tcb_list" if "tcb_column" in exported else "tcb_ended_at")
    return None if row is None else _("its line {line} has the tcb_line of another row, or none", line=row)


def _lacking(name: object) -> Text:
    return _("it lacks the column {name}", name=name)


def _may_have(origin: str | int, run: RunRecord) -> bool:
    if run.finished_at is None:
        return False
    in_time = isinstance(origin, int) and run.created_at - 1 <= origin <= run.finished_at + 1
    return in_time or origin == run.list_sha256


def _mismatch(
    batch: Batch, origin: str | int, ledger: LedgerReader, run: RunRecord, settings: Settings
) -> Text | None:
    """Return why a list does not correct a run; None if it does."""
    try:
        columns_of(run.headers, batch.headers)
    except ValueError as error:
        return _lacking(error)
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
    for row in batch.rows():
        if (row.of_line, _origin(row.origin, settings)) not in failing:
            text = _("its line {line} is of no row that failed or was skipped in run {id}")
            return text.format(line=row.line, id=run.id)
    return None


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
