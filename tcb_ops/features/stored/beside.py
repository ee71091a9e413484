"""What must not be planned or resumed: what changes paths beside an unfinished run, and an upload with another backup."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tcb_ops.errors import UsageError
from tcb_ops.features.stored.queries import pending_in_both
from tcb_ops.i18n import _
from tcb_ops.kinds import Kind
from tcb_ops.runs.ledger import Ledger, taken
from tcb_ops.runs.next_commands import quoted, resume
from tcb_ops.runs.plan import undone_uploads
from tcb_ops.runs.reader import LedgerReader
from tcb_ops.runs.records import RunRecord
from tcb_ops.settings import Settings


def check_beside(
    ledger: Ledger, kind: Kind, options: Mapping[str, Any], settings: Settings
) -> Callable[[LedgerReader, int], None]:
    """Return what raises UsageError if rows of an unfinished run are pending at paths of the run with this number.

    ============  =========================================================================
    kind          unfinished runs
    ============  =========================================================================
    upload        those that take back what uploads have stored: undos, deletes
    undo, delete  uploads, but those that it takes back, and those that are never resumed,
                  since they were undone or deleted
    ============  =========================================================================

    Under the planning lock, of two that are planned at once the second finds the first one's rows. Raises UsageError itself
    if a process works on an upload that is to be taken back.
    """
    passed_over = set[str]()
    if kind.takes_back:
        passed_over = {*options.get("of", ()), *undone_uploads(ledger, settings)}
        for upload in map(ledger.run, options.get("of", ())):
            if upload.finished_at is None:  # it may have been resumed since the rows were looked up
                with taken(ledger, upload):
                    pass

    def check(reader: LedgerReader, number: int) -> None:
        for run in reader.runs(settings.run_target, damaged=[]):
            other = run.kind.changes_store and run.kind.takes_back != kind.takes_back
            if not other or run.finished_at is not None or run.id in passed_over:
                continue
            if (path := pending_in_both(reader, number, run.number)) is not None:
                raise UsageError(
                    _(
                        "run {id} ({kind}) is unfinished, with rows pending at paths of this {own_kind}, such as {path}. Nothing "
                        "was sent. Wait until it has ended. If nobody works on it, resume it first.",
                        id=run.id,
                        kind=run.kind,
                        own_kind=kind,
                        path=path,
                    ),
                    _("To resume it:\n{command}", command=quoted(resume(settings, run))),
                )

    return check


def check_resumed_backup(run: RunRecord, backup: str) -> None:
    """Raise UsageError if an upload is to be resumed with a --backup that it was not started with."""
    planned = str(run.settings.get("backup", ""))
    folders = [os.path.realpath(folder) for folder in (planned, Path(planned).parent) if planned]
    if os.path.realpath(backup) not in folders:
        raise UsageError(
            _(
                "run {id} is unfinished, and was not started with this --backup. To resume it as it was started, leave "
                "--backup out; --new-run starts another run.",
                id=run.id,
            ),
        )
