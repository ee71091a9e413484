"""What is decided about a stored file, from what is known of it."""

import pytest

from tcb_ops.features.stored import StoredOutcome, StoredReason
from tcb_ops.features.stored.files import UndoStep, confirm_outcome, may_be_stored, undo_step
from tcb_ops.model import Outcome, Reason
from tcb_ops.runs.records import may_have_stored

OURS, OTHER, OLD = "0" * 32, "1" * 32, "2" * 32


@pytest.mark.parametrize(
    ("etag", "outcome"),
    [
        (OURS, StoredOutcome.PRESENT),
        (f"{OURS}-1", StoredOutcome.FOREIGN),
        (f"{OTHER}-12", StoredOutcome.FOREIGN),
        (OLD, StoredOutcome.STALE),
        (OTHER, StoredOutcome.DIFFERENT),
        ("", StoredOutcome.DIFFERENT),
    ],
)
def test_what_an_etag_says(etag, outcome):
    assert confirm_outcome(etag, OURS, {OLD}) is outcome


@pytest.mark.parametrize(
    ("now", "before", "step"),
    [
        (OLD, OLD, UndoStep.NOTHING),
        (OURS, OLD, UndoStep.RESTORE),
        (OTHER, OLD, UndoStep.CONFLICT),
        (None, OLD, UndoStep.CONFLICT),
        (None, None, UndoStep.NOTHING),
        (OURS, None, UndoStep.DELETE),
        (OTHER, None, UndoStep.CONFLICT),
    ],
)
def test_how_an_upload_is_undone(now, before, step):
    assert undo_step(now, OURS, before) is step
    if now == OURS:
        assert undo_step(now, "", before) is UndoStep.CONFLICT


def test_headers_are_undone_too_and_what_may_not_have_been_stored_is_left():
    assert undo_step(OURS, OURS, OURS) is UndoStep.NOTHING
    assert undo_step(OURS, OURS, OURS, same_headers=False) is UndoStep.RESTORE
    assert undo_step(OLD, OURS, OLD, same_headers=False) is UndoStep.NOTHING
    assert undo_step(None, "", None, certain=False) is UndoStep.NOTHING
    assert undo_step(OTHER, "", None, certain=False) is UndoStep.NOT_KNOWN


@pytest.mark.parametrize(
    ("outcome", "saved", "doubtful", "part"),
    [
        (Outcome.UPLOADED, None, False, True),
        (Outcome.UPLOADED, False, False, True),
        (Outcome.PENDING, True, False, True),
        (Outcome.PENDING, False, True, False),
        (Outcome.PENDING, None, False, False),
        (Outcome.REFUSED, True, False, True),
        (Outcome.REFUSED, None, True, True),
        (Outcome.REFUSED, None, False, False),
        (Outcome.FAILED, False, True, False),
        (Outcome.FAILED, None, True, True),
        (Outcome.FAILED, None, False, False),
    ],
)
def test_which_rows_are_part_of_an_undo(outcome, saved, doubtful, part):
    assert may_be_stored(outcome, saved, doubtful=doubtful) is part


@pytest.mark.parametrize(
    ("reason", "attempts", "settings", "doubtful"),
    [
        (Reason.EXISTS, 9, {"if_exists": "fail"}, False),
        (Reason.NO_ANSWER, 1, {}, True),
        (Reason.NO_CONFIRMATION, 2, {}, True),
        (Reason.ETAG_MISMATCH, 2, {"backup": "b"}, True),
        (Reason.STORE_REFUSED, 2, {}, False),
        (Reason.STORE_REFUSED, 3, {"if_exists": "overwrite", "backup": ""}, True),
        (Reason.STORE_REFUSED, 3, {"backup": "b"}, False),
        (Reason.STORE_REFUSED, 4, {"if_exists": "skip"}, True),
        (Reason.REFUSED, 1, {}, False),
        (Reason.REFUSED, 3, {}, True),
        (Reason.FILE_CHANGED, 1, {}, False),
        (Reason.FILE_CHANGED, 2, {}, True),
        (Reason.FILE_CHANGED, 2, {"if_exists": "fail"}, False),
        (StoredReason.BACKUP_FAILED, 2, {"backup": "b"}, False),
        (StoredReason.BACKUP_FAILED, 3, {"backup": "b"}, True),
        (StoredReason.BACKUP_DAMAGED, 1, {"undoes": "20261127-1"}, False),
        (None, 0, {}, False),
    ],
)
def test_which_failed_rows_may_have_stored_their_files(reason, attempts, settings, doubtful):
    assert may_have_stored(reason, attempts, settings) is doubtful
