"""The clock's judgement; what is on the wire is in tests/cli/test_doctor.py."""

import pytest

from tcb_ops.doctor import Grade
from tcb_ops.doctor.remote_checks import check_clock, clock_offset


@pytest.mark.parametrize(
    ("offset", "grade"),
    [
        (None, Grade.SKIPPED),
        (0.9, Grade.OK),
        (60, Grade.OK),
        (-60, Grade.OK),
        (61, Grade.WARNING),
        (-300, Grade.WARNING),
        (301, Grade.BAD),
        (-86400, Grade.BAD),
    ],
)
def test_the_clock(offset, grade):
    found = check_clock(offset)
    assert found.grade is grade
    assert (found.fix is not None) == (grade in {Grade.WARNING, Grade.BAD})


def test_ahead_and_behind_are_this_machines():
    assert "behind" in check_clock(400).seen.en
    assert "慢" in check_clock(400).seen.zh
    assert "ahead of" in check_clock(-400).seen.en


@pytest.mark.parametrize(
    ("date", "offset"),
    [("Thu, 01 Jan 1970 00:16:40 GMT", -0.5), ("yesterday", None), ("", None)],
    ids=["a Date", "nonsense", "none"],
)
def test_the_targets_clock_is_read_at_the_middle_of_the_exchange(date, offset):
    assert clock_offset(date, began_at=1000, seconds=2) == offset
