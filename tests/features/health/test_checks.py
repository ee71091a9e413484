"""The checks of the machine, the files, the clock and a token; no check can hang the doctor, or end it."""

import sqlite3
import threading
from contextlib import closing

import pytest
from tables import table

from tcb_ops.checks import DoctorCheck, DoctorFinding, Grade
from tcb_ops.errors import SettingsError, TcbOpsError
from tcb_ops.features.health.doctor import (
    all_checks,
    check_ledger,
    check_merchants,
    check_windows,
    grade_clock,
    probe_limited,
    run_checks,
    windows_finding,
)
from tcb_ops.i18n import Bilingual
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.settings import load_settings


def settings(**options):
    return load_settings(options={"api_base": "https://api.weixin.qq.com"} | options)


def check_secrets(given):
    (check,) = (check for check in all_checks(given, None, ()) if check.name == "secrets")
    return check.probe()


def test_a_ledger_that_is_not_there_is_not_made(tmp_path):
    given = settings(ledger=str(tmp_path / "own.db"))
    assert check_ledger(given).grade is Grade.OK
    assert list(tmp_path.iterdir()) == []
    Ledger(given.ledger).close()
    found = check_ledger(given)
    assert (found.grade, found.seen.en) == (Grade.OK, str(tmp_path / "own.db"))


def other_program(file):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE notes (text)")


@table(
    "make, seen",
    {
        "another program's": (other_program, "another program's database"),
        "no database": (lambda file: file.write_text("no database at all " * 10), "not an SQLite file"),
        "a folder": (lambda file: file.mkdir(), "it is a folder"),
        "no folder": (lambda file: file.parent.rename(file.parent.parent / "moved"), "does not exist"),
    },
)
def test_what_is_no_ledger_is_said(tmp_path, make, seen):
    folder = tmp_path / "work"
    folder.mkdir()
    make(folder / "ledger.db")
    with pytest.raises(TcbOpsError) as caught:
        check_ledger(settings(ledger=str(folder / "ledger.db")))
    assert seen in caught.value.problem.en


def test_the_merchants_file_is_counted_or_its_problems_shown(tmp_path):
    file = tmp_path / "merchants.csv"
    missing = check_merchants(settings(merchants=file), ())
    assert (missing.grade, "init" in missing.fix.en) == (Grade.BAD, True)
    file.write_text("appid,name,env,status\nwx1,甲,e-1,\nwx1,甲,e-2,left\nwx2,乙,e-3,\n", encoding="utf-8")
    good = check_merchants(settings(merchants=file), ())
    assert good.grade is Grade.OK
    assert good.seen.en.endswith("3 lines, 2 merchants, 3 environments")
    file.write_text("appid,name,env\n" + "wx1,,e-1\n" * 5, encoding="utf-8")
    bad = check_merchants(settings(merchants=file), ())
    assert (bad.grade, bad.seen.en.count("merchants.csv:")) == (Grade.BAD, 3)


@pytest.mark.posix("file modes")
@table(
    "base, mode, grade",
    {
        "own": ("https://api.weixin.qq.com", 0o600, Grade.OK),
        "group": ("https://api.weixin.qq.com", 0o640, Grade.BAD),
        "others": ("https://api.weixin.qq.com", 0o604, Grade.BAD),
        "a rehearsal's": ("http://127.0.0.1:1", 0o644, Grade.WARNING),
    },
)
def test_who_may_read_a_token_file(tmp_path, base, mode, grade):
    file = tmp_path / "tokens.csv"
    file.write_text("appid,access_token\n")
    file.chmod(mode)
    found = check_secrets(settings(api_base=base, tokens={"source": "file", "file": file}))
    assert found.grade is grade
    assert (found.fix is None) == (grade is Grade.OK)
    if found.fix:
        assert found.fix.commands() == [f"chmod 600 {file}"]


@pytest.mark.posix("file modes")
def test_the_store_of_the_component_source_is_checked_and_nothing_of_a_source_that_keeps_nothing(tmp_path):
    named = {"secret": f"file:{tmp_path / 'secret'}", "ticket": "env:TICKET", "store": tmp_path / "store"}
    (tmp_path / "store").mkdir(mode=0o700)
    stored = tmp_path / "store" / "wx1.json"
    stored.write_text("{}")
    stored.chmod(0o644)
    given = settings(tokens={"source": "component", **named})
    finding = check_secrets(given)
    assert (finding.grade, str(named["store"]) in finding.seen.en) == (Grade.BAD, True)
    (tmp_path / "secret").write_text("s")
    stored.chmod(0o600)
    (tmp_path / "secret").chmod(0o600)
    assert check_secrets(given).seen.en == f"{tmp_path / 'secret'}, {named['store']}: readable only by you"
    source = {"source": "command", "command": ["true"]}
    assert "secrets" not in {check.name for check in all_checks(settings(tokens=source), None, ())}


LABEL, FIX = Bilingual("Clock", "时钟"), Bilingual("Fix the clock.", "请修正时钟。")


def check(name, probe, needs=()):
    return DoctorCheck(name, LABEL, probe, FIX, needs)


def graded(grade):
    return lambda: DoctorFinding(grade, Bilingual("so", "好"))


def test_a_check_is_made_where_those_it_needs_passed_and_has_a_fix_where_it_did_not():
    checks = [
        check("well", graded(Grade.OK)),
        check("worn", graded(Grade.WARNING)),
        check("broken", graded(Grade.BAD)),
        check("above well and worn", graded(Grade.OK), ("well", "worn")),
        check("above broken", graded(Grade.OK), ("well", "broken")),
    ]
    assert [(finding.grade, finding.fix) for _check, finding in run_checks(checks)] == [
        (Grade.OK, None),
        (Grade.WARNING, FIX),
        (Grade.BAD, FIX),
        (Grade.OK, None),
        (Grade.SKIPPED, None),
    ]


def test_a_check_that_hangs_is_left_behind():
    over = threading.Event()

    def hangs():
        over.wait(240)
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

    ((_check, result),) = run_checks([check("ledger", raises)])
    assert (result.grade, result.seen.en) == (Grade.BAD, seen)
    assert fix in result.fix.en
    assert "secret-word" not in str(result)


@pytest.mark.parametrize(
    ("offset", "grade"),
    [
        (0.9, None),
        (60, None),
        (-60, None),
        (61, Grade.WARNING),
        (-300, Grade.WARNING),
        (301, Grade.BAD),
        (-86400, Grade.BAD),
    ],
)
def test_the_clock(offset, grade):
    found = grade_clock(offset)
    assert (found and found.grade) == grade


LAPTOP = {"ledger_on": "", "long_paths": True}


@pytest.mark.parametrize(
    ("differs", "grade", "says", "fixes"),
    [
        ({}, Grade.OK, "code page cp936", None),
        ({"long_paths": False}, Grade.WARNING, "260 characters", "LongPathsEnabled"),
        ({"ledger_on": "cloud"}, Grade.WARNING, "the ledger is on OneDrive", "--ledger"),
        ({"ledger_on": "network"}, Grade.BAD, "the ledger is on a network drive", "--ledger"),
    ],
)
def test_what_the_doctor_says_about_a_windows_laptop(differs, grade, says, fixes):
    finding = windows_finding("cp936", **LAPTOP | differs)
    assert finding.grade is grade
    assert says in finding.seen.en
    assert (finding.fix is None) if fixes is None else fixes in finding.fix.en


def test_a_ledger_in_onedrive_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("OneDriveCommercial", str(tmp_path))
    finding = check_windows(settings(ledger=str(tmp_path / "own.db")))
    assert "the ledger is on OneDrive" in finding.seen.en
    assert "code page" in finding.seen.en
