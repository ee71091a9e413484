"""No check can hang the doctor, or end it."""

import threading

import pytest

from tcb_ops.errors import SettingsError, TcbOpsError
from tcb_ops.features.doctor.report import CheckResult, Grade, from_error, run_limited
from tcb_ops.i18n import Bilingual, Lang

OK = CheckResult("clock", Grade.OK, Bilingual("so", "好"))


def test_a_check_that_ends_gives_what_it_found_and_says_what_it_did_not_come_to():
    found = run_limited(
        ["target", "clock"], lambda: [CheckResult("target", Grade.BAD, Bilingual("no", "无"))], 5
    )
    assert [(f.name, f.grade) for f in found] == [("target", Grade.BAD), ("clock", Grade.SKIPPED)]
    assert run_limited(["clock"], lambda: [OK], 5) == [OK]


def test_a_check_that_hangs_is_left_behind():
    over = threading.Event()

    def hangs():
        over.wait(20)
        return [OK]

    try:
        (found,) = run_limited(["clock"], hangs, 0.05)
    finally:
        over.set()
    assert (found.grade, "did not finish within" in found.seen.en) == (Grade.BAD, True)
    assert found.fix


@pytest.mark.parametrize(
    ("error", "seen", "fix"),
    [
        (
            SettingsError(Bilingual("x is wrong.", "x 有误。"), Bilingual("Fix it.", "请修正。")),
            "x is wrong.",
            "Fix it.",
        ),
        (OSError(28, "No space left on device", "a.db"), "a.db: the disk is full", "Fix that"),
        (KeyError("secret-word"), "the check itself failed (KeyError)", "report"),
    ],
    ids=["ours", "the system's", "a defect"],
)
def test_an_error_is_found_and_not_raised(error, seen, fix):
    def raises():
        raise error

    (found,) = run_limited(["ledger"], raises, 5)
    assert (found.grade, found.seen.en) == (Grade.BAD, seen)
    assert fix in found.fix.en
    assert "secret-word" not in str(found)


def test_an_error_that_says_no_fix_gets_the_checks_own():
    found = from_error("merchants", TcbOpsError(Bilingual("It is so.", "是这样。")))
    assert (found.seen.en, found.fix.en) == ("It is so.", "Fix the merchants file.")
    assert found.as_dict(Lang.ZH) == {
        "check": "merchants",
        "grade": "bad",
        "seen": "是这样。",
        "fix": "请修正商户表。",
    }
