"""No check can hang the doctor, or end it."""

import threading

import pytest

from tcb_ops.checks import DoctorCheck, DoctorFinding, Grade
from tcb_ops.errors import SettingsError
from tcb_ops.features.doctor.report import probe_limited, run_checks
from tcb_ops.i18n import Bilingual, Lang

LABEL, FIX = Bilingual("Clock", "时钟"), Bilingual("Fix the clock.", "请修正时钟。")


def check(name, probe, needs=()):
    return DoctorCheck(name, LABEL, probe, FIX, needs)


def graded(grade):
    return lambda: DoctorFinding(grade, Bilingual("so", "好"))


def test_a_check_is_made_where_those_it_needs_passed_and_has_a_fix_where_it_did_not():
    results = list(
        run_checks(
            [
                check("well", graded(Grade.OK)),
                check("worn", graded(Grade.WARNING)),
                check("broken", graded(Grade.BAD)),
                check("above well and worn", graded(Grade.OK), ("well", "worn")),
                check("above broken", graded(Grade.OK), ("well", "broken")),
            ]
        )
    )
    assert [(result.grade, result.fix) for result in results] == [
        (Grade.OK, None),
        (Grade.WARNING, FIX),
        (Grade.BAD, FIX),
        (Grade.OK, None),
        (Grade.SKIPPED, None),
    ]
    assert results[1].as_dict(Lang.ZH) == {
        "check": "worn",
        "grade": "warning",
        "seen": "好",
        "fix": "请修正时钟。",
    }


def test_a_check_that_hangs_is_left_behind():
    over = threading.Event()

    def hangs():
        over.wait(20)
        return DoctorFinding(Grade.OK, LABEL)

    try:
        finding = probe_limited(check("clock", hangs), 0.05)
    finally:
        over.set()
    assert (finding.grade, "did not finish within" in finding.seen.en) == (Grade.BAD, True)
    assert finding.fix


@pytest.mark.parametrize(
    ("error", "seen", "fix"),
    [
        (
            SettingsError(Bilingual("x is wrong.", "x 有误。"), Bilingual("Fix it.", "请修正。")),
            "x is wrong.",
            "Fix it.",
        ),
        (SettingsError(Bilingual("x is wrong.", "x 有误。")), "x is wrong.", "Fix the clock."),
        (OSError(28, "No space left on device", "a.db"), "a.db: the disk is full", "Fix the clock."),
        (KeyError("secret-word"), "the check itself failed (KeyError)", "report"),
    ],
    ids=["ours", "ours without a fix", "the system's", "a defect"],
)
def test_an_error_is_found_and_not_raised(error, seen, fix):
    def raises():
        raise error

    (result,) = run_checks([check("ledger", raises)])
    assert (result.grade, result.seen.en) == (Grade.BAD, seen)
    assert fix in result.fix.en
    assert "secret-word" not in str(result)
