"""What a run will do at a path."""

from dataclasses import replace

import pytest

from tcb_ops.engine.changes import PlannedChange, changes_of, comparing
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.ledger.files import StoredFile
from tcb_ops.model import Outcome, Row, Step, Want

ROW = Row(2, "env", "a.png", "wx1", "商户", "a.png", (), size=5, mtime_ns=None)
HELLO = "5d41402abc4b2a76b9719d911017c592"
THERE = StoredFile(*("run", 2, True, "run", 1, 0.0, HELLO, 5, "", "image/png", "", "", "", "", "", None))
GONE = replace(THERE, md5="", uploaded=False)


@pytest.mark.parametrize(
    ("have", "want", "same", "step"),
    [
        (None, Want.FILE, False, Step.NEW),
        (GONE, Want.FILE, False, Step.NEW),
        (THERE, Want.FILE, False, Step.REPLACED),
        (THERE, Want.FILE, True, Step.UNCHANGED),
        (THERE, Want.NOTHING, False, Step.DELETED),
        (None, Want.NOTHING, False, Step.DELETED),
        (replace(GONE, doubt="other"), Want.NOTHING, False, Step.DELETED),
        (replace(GONE, pending=("other",)), Want.NOTHING, False, Step.DELETED),
        (GONE, Want.NOTHING, False, Step.UNCHANGED),
        (THERE, Want.AS_IT_IS, False, Step.UNCHANGED),
        (None, Want.AS_IT_IS, False, Step.UNCHANGED),
        (THERE, Want.NOT_KNOWN, False, Step.NOT_KNOWN),
        (None, Want.NOT_KNOWN, False, Step.NOT_KNOWN),
    ],
)
def test_a_step_follows_from_what_is_there_and_what_is_wanted(have, want, same, step):
    assert PlannedChange(ROW, have, want, same).step is step


@pytest.mark.parametrize(
    ("text", "changes", "step"),
    [
        ("hello", {}, Step.UNCHANGED),
        ("HELLO", {}, Step.REPLACED),
        ("hello", {"bytes": 6}, Step.REPLACED),
        ("hello", {"content_type": "text/plain"}, Step.REPLACED),
        ("hello", {"doubt": "other"}, Step.REPLACED),
        ("hello", {"found": Outcome.FAILED, "looked": "other"}, Step.REPLACED),
        ("hello", {"pending": ("other",)}, Step.REPLACED),
    ],
)
def test_a_file_is_unchanged_only_where_it_is_certain_to_be_there(tmp_path, text, changes, step):
    (tmp_path / "a.png").write_text(text, encoding="utf-8")
    row = replace(ROW, mtime_ns=(tmp_path / "a.png").stat().st_mtime_ns)
    (change,) = changes_of(UPLOAD, [(row, replace(THERE, **changes))], (), comparing(UPLOAD, tmp_path))
    assert change.step is step
    (left,) = changes_of(UPLOAD, [(row, None)], [(row.env, row.appid)])
    assert left.step is Step.UNCHANGED, "for a merchant that has left, nothing is attempted"
