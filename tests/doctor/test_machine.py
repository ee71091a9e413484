"""What is installed, against what is needed."""

import os
import stat

import pytest
from packaging.requirements import Requirement

from tcb_ops.doctor import Grade
from tcb_ops.doctor.local_checks import (
    check_browser,
    check_fonts,
    check_lab,
    check_packages,
    check_python,
    unmet,
)


@pytest.mark.parametrize(
    ("installed", "met"),
    [(None, False), ("2.0", True), ("2.1rc1", True), ("1.9", False)],
    ids=["nothing", "fits", "a pre-release that fits", "too old"],
)
def test_a_requirement_is_met_by_a_version_that_fits(installed, met):
    need = Requirement("pandas>=2")
    assert unmet([need], lambda name: installed) == ([] if met else [(need, installed)])


def test_here_everything_is_as_required():
    assert [f.grade for f in (*check_python(), *check_packages(), *check_lab())] == [Grade.OK] * 3


def program(folder, name, script):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


@pytest.mark.skipif(os.name != "posix", reason="programs of a shell")
@pytest.mark.parametrize(
    ("script", "grade", "seen"),
    [
        ("echo 'Noto Sans CJK SC,Noto'; echo 'WenQuanYi'", Grade.OK, "Noto Sans CJK SC and 1 more"),
        ("exit 0", Grade.WARNING, "no Chinese font"),
        ("exec /bin/sleep 9", Grade.SKIPPED, "does not respond"),
        (None, Grade.SKIPPED, "fc-list (fontconfig) is not installed"),
    ],
    ids=["two", "none", "hangs", "fc-list (fontconfig) is not installed"],
)
def test_a_chinese_font_is_looked_for(tmp_path, monkeypatch, script, grade, seen):
    monkeypatch.setattr("sys.platform", "linux")
    if script:
        program(tmp_path, "fc-list", script)
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = check_fonts(0.5)
    assert (found.grade, seen in found.seen.en) == (grade, True)
    assert (found.fix is not None) == (grade is Grade.WARNING)


def test_a_browser_is_there_or_missing_or_not_wanted(tmp_path, monkeypatch):
    (found,) = check_browser()
    assert found.grade is Grade.SKIPPED  # tests have none, on purpose
    monkeypatch.delenv("TCB_OPS_CHROMIUM")
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = check_browser()
    assert (found.grade, "TCB_OPS_CHROMIUM" in found.fix.en) == (Grade.WARNING, True)
    program(tmp_path, "chromium", "exit 0")
    (found,) = check_browser()
    assert (found.grade, found.seen.en) == (Grade.OK, str(tmp_path / "chromium"))
