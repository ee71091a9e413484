"""The kinds of runs about files that are stored already: confirm, delete and undo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.features.stored import StoredOutcome, StoredReason
from tcb_ops.features.stored.run_settings import StoredRunSettings, kept_by
from tcb_ops.i18n import Text, _, as_list, pgettext
from tcb_ops.kinds import Kind, row_count
from tcb_ops.model import Outcome, Row, RowEnd, Step, Want

if TYPE_CHECKING:
    from tcb_ops.engine.calls import CallContext, Calls
    from tcb_ops.ledger.records import RunRecord
    from tcb_ops.reports.summary import NextAction
    from tcb_ops.settings import Settings

FILES_PER_CALL = 50
"""Files that batchdownloadfile and batchdeletefile take in one call."""


class _StoredKind(Kind):
    has_list = keeps_headers = False
    settings = StoredRunSettings
    _outcomes: Mapping[Outcome, Outcome] = {}
    """The kind's own outcomes in place of those of a call."""

    def end_of(self, end: RowEnd) -> RowEnd:
        return replace(end, outcome=self._outcomes.get(end.outcome, end.outcome))

    def done_text(self, counts: Mapping[Outcome, int]) -> Text:
        """Return the rows by outcome, `restored 4, deleted 2`; the outcome alone if there is one."""
        if len(counts) == 1:
            return next(iter(counts)).label
        listed = as_list(
            _("{outcome} {rows:,}", outcome=outcome.label, rows=rows) for outcome, rows in counts.items()
        )
        return pgettext("done", "{listed}", listed=listed)

    def next_command(
        self, settings: Settings, run: RunRecord, actions: Sequence[NextAction]
    ) -> tuple[Text, list[str]] | None:
        from tcb_ops.engine.next_commands import retry

        rows = sum(
            action.retried
            for action in actions
            if action.group.code != StoredReason.NO_CHECKSUM  # the answer would be the same again
        )
        if not rows:
            return None
        return _("When the causes are fixed, run {rows} again:", rows=row_count(rows)), retry(settings, run)


class ConfirmKind(_StoredKind):
    """Confirmations: whether stored files are there, and with the bytes that were sent."""

    name = "confirm"
    label = _("confirmation")
    report_title = _("Confirmation report")
    rows_per_call = FILES_PER_CALL
    clustered = True
    findings_of_files = frozenset(
        {StoredOutcome.PRESENT, StoredOutcome.ABSENT, StoredOutcome.DIFFERENT, StoredOutcome.FOREIGN}
    )
    _outcomes: Mapping[Outcome, Outcome] = {
        Outcome.REFUSED: Outcome.UNKNOWN,
        Outcome.FAILED: Outcome.UNKNOWN,
        Outcome.NOT_ATTEMPTED: Outcome.UNKNOWN,
    }

    def calls(self, context: CallContext) -> Calls:
        """Return the calls of its rows."""
        from tcb_ops.features.stored.calls import ConfirmCalls

        return ConfirmCalls(context)

    def next_command(
        self, settings: Settings, run: RunRecord, actions: Sequence[NextAction]
    ) -> tuple[Text, list[str]] | None:
        """Return a retry, else an upload of the files that are missing or differ."""
        from tcb_ops.engine.next_commands import command, upload_options

        again = super().next_command(settings, run, actions)
        to_upload = (StoredOutcome.ABSENT, StoredOutcome.DIFFERENT, StoredOutcome.FOREIGN)
        missing = sum(action.group.outcomes.get(outcome, 0) for action in actions for outcome in to_upload)
        root = kept_by(run).root
        if again is not None or not (missing and root and run.report):
            return again
        purpose = _("To upload {rows} again, if your version is the right one:", rows=row_count(missing))
        words = (str(Path(run.report) / "failed.csv"), "--root", root, *upload_options(run))
        return purpose, command(settings, "upload", *words, target=run.target)


class DeleteKind(_StoredKind):
    """Deletions."""

    name = "delete"
    label = _("deletion")
    report_title = _("Deletion report")
    question = _("Delete files in {live_environments} of {api_base}?")
    changed = pgettext("by a run", "deleted")
    replacing = frozenset({StoredOutcome.DELETED, StoredOutcome.ALREADY_GONE})
    rows_per_call = FILES_PER_CALL
    changes_store = takes_back = True
    wants = Want.NOTHING

    def calls(self, context: CallContext) -> Calls:
        """Return the calls of its rows."""
        from tcb_ops.features.stored.calls import DeleteCalls

        return DeleteCalls(context)


class UndoKind(_StoredKind):
    """Undos: what an upload overwrote is restored, what it added is deleted."""

    name = "undo"
    label = _("undo")
    report_title = _("Undo report")
    question = _("Undo the upload in {live_environments} of {api_base}?")
    changed = pgettext("by a run", "undone")
    replacing = frozenset({StoredOutcome.RESTORED, StoredOutcome.DELETED})
    changes_store = asks_store = takes_back = keeps_headers = True
    _outcomes: Mapping[Outcome, Outcome] = {
        Outcome.REFUSED: Outcome.FAILED,
        Outcome.INVALID: StoredOutcome.NOT_UNDOABLE,
    }

    def calls(self, context: CallContext) -> Calls:
        """Return the calls of its rows."""
        from tcb_ops.features.stored.calls import UndoCalls

        return UndoCalls(context)

    def want(self, row: Row) -> Want:
        """Return what undoes a row: the saved file, or none. One that cannot be undone stays."""
        if row.invalid:
            return Want.AS_IT_IS
        return Want.FILE if row.file else Want.NOTHING

    def least_calls(self, step: Step) -> int:
        """Return those that look, and those that then delete a file, or request a link and store one."""
        look = 2
        return {Step.UNCHANGED: 0, Step.NOT_KNOWN: 1, Step.DELETED: look + 1}.get(step, look + 2)


CONFIRM, DELETE, UNDO = ConfirmKind(), DeleteKind(), UndoKind()
