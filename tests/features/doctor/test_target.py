"""The clock, and whose token is tried; what is on the wire is in test_doctor_command.py."""

import sys

import pytest

from tcb_ops.features.doctor.finding import Grade
from tcb_ops.features.doctor.target import (
    TokenOwner,
    call_with_token,
    clock_offset,
    first_token_owners,
    grade_clock,
)
from tcb_ops.model import Merchant, Owner
from tcb_ops.settings import load_settings


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
    found = grade_clock(offset)
    assert found.grade is grade
    assert (found.fix is not None) == (grade in {Grade.WARNING, Grade.BAD})


def test_ahead_and_behind_are_this_machines():
    assert "behind" in grade_clock(400).seen.en
    assert "慢" in grade_clock(400).seen.zh
    assert "ahead of" in grade_clock(-400).seen.en


@pytest.mark.parametrize(
    ("date", "offset"),
    [("Thu, 01 Jan 1970 00:16:40 GMT", -0.5), ("yesterday", None), ("", None)],
    ids=["a Date", "nonsense", "none"],
)
def test_the_targets_clock_is_read_at_the_middle_of_the_exchange(date, offset):
    assert clock_offset(date, began_at=1000, seconds=2) == offset


TEA = Merchant("wxtea", "茶", "tea-1")
TEA_TEST = Merchant("wxtea", "茶", "tea-2")
MANY = [Merchant(f"wx{n}", f"{n}", f"env-{n}") for n in range(5)]
OWN = Merchant("wx", "平台", "own-1", owner=Owner.PLATFORM)


@pytest.mark.parametrize(
    ("merchants", "whose"),
    [
        ([OWN, TEA, TEA_TEST], [TokenOwner("wxtea", "茶 (wxtea)", Owner.MERCHANT)]),
        (MANY, [TokenOwner(f"wx{n}", f"{n} (wx{n})", Owner.MERCHANT) for n in range(3)]),
        ([OWN], [TokenOwner("wxcomponent", "wxcomponent", Owner.PLATFORM)]),
        ([], []),
    ],
    ids=["a merchant's", "the first three", "the platform's own", "none"],
)
def test_whose_token_is_tried(merchants, whose):
    assert first_token_owners(merchants, "wxcomponent") == whose


@pytest.mark.slow
def test_a_program_for_tokens_that_hangs_is_not_waited_for():
    hangs = [sys.executable, "-c", "import time; time.sleep(9)"]
    options = {"api_base": "http://127.0.0.1:1", "tokens": {"source": "command", "command": hangs}}
    found = call_with_token(load_settings(options=options), [TEA], seconds=0.3)
    assert (found.grade, "returned no token" in found.seen.en, bool(found.fix)) == (Grade.BAD, True, True)
