"""What is left of a run after its retries and corrections."""

from __future__ import annotations

from collections import Counter

from tcb_ops.i18n import Text, _, as_list
from tcb_ops.kinds import counted, row_count
from tcb_ops.model import Outcome
from tcb_ops.runs.histories import corrections_of, merged_runs
from tcb_ops.runs.list_kinds import ListKind
from tcb_ops.runs.next_commands import of_run
from tcb_ops.runs.next_commands import retry as retry_command
from tcb_ops.runs.plan import rows_to_retry
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord
from tcb_ops.settings import Settings


def rest_to_retry(ledger: LedgerReader, run: RunRecord, settings: Settings) -> tuple[Text, list[str]] | None:
    """Return the retry of what is left of the original of a retry or correction, and of its other corrections; None without any.

    Where only skipped rows are left, it is the report that has them.
    """
    if not isinstance(run.kind, ListKind) or not (run.parent or run.corrects):
        return None
    original = merged_runs(ledger, run)[0]
    subjects = (original, *corrections_of(ledger, original))
    remaining = Counter(
        record.end.outcome for subject in subjects for record in rows_to_retry(ledger, subject, invalid=True)
    )
    if not remaining:
        return None
    values = {"id": original.id, "counts": as_list(counted(Outcome.in_order(remaining)))}
    if not (count := remaining.total() - remaining[Outcome.INVALID]):
        text = _(
            "Left of run {id}: {counts}. To write them, with what is wrong, to a new failed.csv:", **values
        )
        return text, of_run(settings, original, "report", "--final")
    text = _(
        "Left of run {id}: {counts}. Their causes: tcb-ops errcodes {id}. When they are fixed, run {rows} again:"
    )
    return text.format(**values, rows=row_count(count)), retry_command(settings, original)
