"""The clock, whose token is tried, and which object `--live` deletes; what is on the wire is in test_doctor_command.py."""

import sys

import pytest

from tcb_ops.checks import Grade
from tcb_ops.features.doctor.target import (
    TokenOwner,
    clock_offset,
    first_token,
    first_token_owners,
    grade_clock,
)
from tcb_ops.model import Link, Merchant, Owner, Secret
from tcb_ops.settings import load_settings
from tcb_ops.wechat.responses import own_file_id


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
GONE = Merchant("wxgone", "旧", "gone-1", left=True)


@pytest.mark.parametrize(
    ("merchants", "whose"),
    [
        ([GONE, OWN, TEA, TEA_TEST], [TokenOwner("wxtea", "茶", Owner.MERCHANT)]),
        (MANY, [TokenOwner(f"wx{n}", f"{n}", Owner.MERCHANT) for n in range(3)]),
        ([GONE, OWN], [TokenOwner("wxcomponent", "component", Owner.PLATFORM)]),
        ([GONE], []),
        ([], []),
    ],
    ids=["a merchant's", "the first three", "the platform's own", "all have left", "none"],
)
def test_whose_token_is_tried(merchants, whose):
    assert first_token_owners(merchants, "wxcomponent") == whose


@pytest.mark.slow
def test_a_program_for_tokens_that_hangs_is_not_waited_for():
    hangs = [sys.executable, "-c", "import time; time.sleep(9)"]
    options = {"api_base": "http://127.0.0.1:1", "tokens": {"source": "command", "command": hangs}}
    owners = [TokenOwner("wxtea", "茶", Owner.MERCHANT)]
    found = first_token(load_settings(options=options), owners, seconds=0.3)
    assert (found.grade, "returned no token" in found.seen.en, bool(found.fix)) == (Grade.BAD, True, True)


URL = "https://cos.ap-shanghai.myqcloud.com/7465-tea-1-1/tcb-ops-doctor/x.txt"
PATH = "tcb-ops-doctor/x.txt"
OWN_ID = f"cloud://tea-1.7465-tea-1-1/{PATH}"


@pytest.mark.parametrize(
    ("told", "deleted"),
    [
        (OWN_ID, OWN_ID),
        ("cloud://tea-1.7465-tea-1-1/testupload", OWN_ID),
        ("", OWN_ID),
        ("cloud://tea-1.7465-tea-1-1/other-tcb-ops-doctor/x.txt.bak", OWN_ID),
    ],
    ids=["ours", "the documents' sample", "none", "alike"],
)
def test_nothing_but_our_own_object_is_ever_deleted(told, deleted):
    assert (
        own_file_id(Link(Secret(URL), Secret("t"), Secret("s"), told, Secret("c"), 901, 1), PATH, "tea-1")
        == deleted
    )
