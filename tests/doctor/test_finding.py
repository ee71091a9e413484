"""No check can hang the doctor, or end it."""

import threading

import pytest

from tcb_ops.doctor.check_result import CheckResult, Grade, limited, of_error
from tcb_ops.errors import SettingsError, TcbOpsError
from tcb_ops.i18n import Lang, Text

OK = CheckResult("clock", Grade.OK, Text("so", "好"))


def test_a_check_that_ends_gives_what_it_found_and_says_what_it_did_not_come_to():
    found = limited(["target", "clock"], lambda: [CheckResult("target", Grade.BAD, Text("no", "无"))], 5)
    assert [(f.name, f.grade) for f in found] == [("target", Grade.BAD), ("clock", Grade.SKIPPED)]
    assert limited(["clock"], lambda: [OK], 5) == [OK]


def test_a_check_that_hangs_is_left_behind():
    over = threading.Event()

    def hangs():
        over.wait(20)
        return [OK]

    try:
        (found,) = limited(["clock"], hangs, 0.05)
    finally:
        over.set()
    assert (found.grade, "no end within" in found.seen.en) == (Grade.BAD, True)
    assert found.mend


@pytest.mark.parametrize(
    ("error", "seen", "mend"),
    [
        (SettingsError(Text("x is wrong. Mend it.", "x 有误。请修正。")), "x is wrong", "Mend it."),
        (OSError(28, "No space left on device", "a.db"), "a.db: No space left on device", "Mend that"),
        (KeyError("secret-word"), "the check itself failed (KeyError)", "report"),
    ],
    ids=["ours", "the system's", "a defect"],
)
def test_an_error_is_found_and_not_raised(error, seen, mend):
    def raises():
        raise error

    (found,) = limited(["ledger"], raises, 5)
    assert (found.grade, found.seen.en) == (Grade.BAD, seen)
    assert mend in found.mend.en
    assert "secret-word" not in str(found)


@pytest.mark.parametrize(
    ("en", "zh", "seen", "mend"),
    [
        ("It is so. Do this. And that.", "是这样。做这个。", "It is so", "Do this. And that."),
        ("No connection to a.b:1: check it.", "无法连接。", "No connection to a.b:1: check it.", "otherwise"),
        ("One. Two.", "只有一句。", "One. Two.", "otherwise"),
    ],
    ids=["two sentences", "one sentence", "one in Chinese"],
)
def test_an_errors_first_sentence_is_what_was_seen_and_the_others_the_mend(en, zh, seen, mend):
    found = of_error("x", TcbOpsError(Text(en, zh)).text, Text("otherwise", "否则"))
    assert (found.seen.en, found.mend.en) == (seen, mend)
    assert found.as_dict(Lang.ZH)["grade"] == "bad"
