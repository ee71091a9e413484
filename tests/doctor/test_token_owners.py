"""Whose token is tried; what is on the wire is in tests/cli/test_doctor.py."""

import sys

import pytest

from tcb_ops.doctor import Grade
from tcb_ops.doctor.remote_checks import TokenOwner, check_tokens, first_token_owners
from tcb_ops.model import Merchant, Owner
from tcb_ops.settings import load_settings

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


def test_a_program_for_tokens_that_hangs_is_not_waited_for():
    hangs = [sys.executable, "-c", "import time; time.sleep(9)"]
    options = {"api_base": "http://127.0.0.1:1", "tokens": {"source": "command", "command": hangs}}
    owners = [TokenOwner("wxtea", "茶", Owner.MERCHANT)]
    (found,) = check_tokens(load_settings(options=options), owners, reached=True, seconds=0.3)
    assert (found.grade, "returned no token" in found.seen.en, bool(found.fix)) == (Grade.BAD, True, True)
