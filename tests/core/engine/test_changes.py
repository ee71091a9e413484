"""What a run will do at a path."""

from dataclasses import replace

import pytest

from tcb_ops.engine.changes import DAY, PlannedChange, changes_of, comparing, seconds_cached, time_cached
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


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [
        ("", 0),
        ("public", 0),
        ("no-cache", 0),
        ("no-store, max-age=600", 0),
        ("No-Cache, Max-Age=600", 0),
        ("max-age=0", 0),
        ("max-age=600", 600),
        ("public, MAX-AGE=604800, immutable", 7 * DAY),
        ("max-age=60,s-maxage=600", 600),
        ('max-age="600"', 600),
        ("max-age=ten", 0),
        ("max-age=-1", 0),
        ("max-age=99999999999", 0),
    ],
)
def test_how_long_caches_may_show_a_file(cache_control, seconds):
    assert seconds_cached(cache_control) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(600, "10m00s"), (DAY, "1 day"), (DAY + 1, "2 days"), (365 * DAY, "365 days")]
)
def test_the_time_is_in_days_from_one_day_on(seconds, text):
    assert time_cached(seconds).of("en") == text
