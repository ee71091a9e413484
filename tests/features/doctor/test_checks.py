"""The browser; the files of a run: merchants, ledger, disk, secrets."""

import sqlite3
import stat
from contextlib import closing

import pytest

from tcb_ops.checks import Grade
from tcb_ops.errors import TcbOpsError
from tcb_ops.features.doctor.checks import (
    check_browser,
    check_disk,
    check_ledger,
    check_merchants,
    check_secrets,
    secret_places,
)
from tcb_ops.runs.ledger import Ledger
from tcb_ops.settings import TokenSettings, load_settings


def program(folder, name, script):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def test_a_browser_is_there_or_missing_or_not_wanted(tmp_path, monkeypatch):
    found = check_browser()
    assert found.grade is Grade.SKIPPED  # tests have none, on purpose
    monkeypatch.delenv("TCB_OPS_CHROMIUM")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check_browser()
    assert (found.grade, "TCB_OPS_CHROMIUM" in found.fix.en) == (Grade.WARNING, True)
    program(tmp_path, "chromium", "exit 0")
    found = check_browser()
    assert (found.grade, found.seen.en) == (Grade.OK, str(tmp_path / "chromium"))


def settings(**options):
    return load_settings(options={"api_base": "https://api.weixin.qq.com"} | options)


@pytest.mark.parametrize(
    ("free", "grade"),
    [(10**9, Grade.OK), (10**9 - 1, Grade.WARNING), (10**8, Grade.WARNING), (10**8 - 1, Grade.BAD)],
)
def test_room_on_the_disk(tmp_path, free, grade):
    found = check_disk(free, tmp_path)
    assert (found.grade, found.fix is None) == (grade, grade is Grade.OK)


def test_a_ledger_that_is_not_there_is_not_made(tmp_path):
    assert check_ledger(settings(ledger=str(tmp_path / "new.db"))).grade is Grade.OK
    assert list(tmp_path.iterdir()) == []


def test_a_ledgers_runs_are_counted(tmp_path):
    Ledger(str(tmp_path / "own.db")).close()
    found = check_ledger(settings(ledger=str(tmp_path / "own.db")))
    assert (found.grade, found.seen.en) == (Grade.OK, f"{tmp_path / 'own.db'}: 0 runs")


def other_program(file):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE notes (text)")


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (other_program, "another program's database"),
        (lambda file: file.write_text("no database at all " * 10), "not an SQLite file"),
        (lambda file: file.mkdir(), "it is a folder"),
        (lambda file: file.parent.rename(file.parent.parent / "moved"), "does not exist"),
    ],
    ids=["another program's", "no database", "a folder", "no folder"],
)
def test_what_is_no_ledger_is_said(tmp_path, make, seen):
    folder = tmp_path / "work"
    folder.mkdir()
    make(folder / "ledger.db")
    with pytest.raises(TcbOpsError) as caught:
        check_ledger(settings(ledger=str(folder / "ledger.db")))
    assert seen in caught.value.problem.en


@pytest.mark.slow
def test_a_ledger_that_somebody_writes_to_is_well(tmp_path):
    file = tmp_path / "own.db"
    Ledger(str(file)).close()
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert check_ledger(settings(ledger=str(file))).grade is Grade.OK
        connection.execute("ROLLBACK")


def test_the_merchants_file_is_counted_or_its_problems_shown(tmp_path):
    file = tmp_path / "merchants.csv"
    missing = check_merchants(settings(merchants=file), ())
    assert (missing.grade, "init" in missing.fix.en) == (Grade.BAD, True)
    file.write_text("appid,name,env,status\nwx1,甲,e-1,\nwx1,甲,e-2,left\nwx2,乙,e-3,\n", encoding="utf-8")
    good = check_merchants(settings(merchants=file), ())
    assert good.grade is Grade.OK
    assert good.seen.en.endswith("3 lines, 2 mini programs, 3 environments, 1 of them left")
    file.write_text("appid,name,env\n" + "wx1,,e-1\n" * 5, encoding="utf-8")
    bad = check_merchants(settings(merchants=file), ())
    assert (bad.grade, bad.seen.en.count("merchants.csv:")) == (Grade.BAD, 3)


@pytest.mark.parametrize(
    ("base", "mode", "grade"),
    [
        ("https://api.weixin.qq.com", 0o600, Grade.OK),
        ("https://api.weixin.qq.com", 0o640, Grade.BAD),
        ("https://api.weixin.qq.com", 0o604, Grade.BAD),
        ("http://127.0.0.1:1", 0o644, Grade.WARNING),
    ],
    ids=["own", "group", "others", "a rehearsal's"],
)
def test_who_may_read_a_token_file(tmp_path, base, mode, grade):
    file = tmp_path / "tokens.csv"
    file.write_text("appid,access_token\n")
    file.chmod(mode)
    found = check_secrets(settings(api_base=base, tokens={"source": "file", "file": file}))
    assert found.grade is grade
    assert (found.fix is None) == (grade is Grade.OK)
    if found.fix:
        assert found.fix.en == f"chmod go-rwx {file}"


def test_of_a_folder_everything_in_it_is_restricted(tmp_path):
    file = tmp_path / "store" / "tokens.json"
    file.parent.mkdir(mode=0o700)
    file.write_text("{}")
    file.chmod(0o644)
    found = check_secrets(settings(tokens={"source": "component", "store": file.parent}))
    assert found.fix is not None
    assert found.fix.en == f"chmod -R go-rwx {file.parent}"


def test_files_that_hold_secrets_are_those_of_the_source_in_use(tmp_path):
    named = {"secret": f"file:{tmp_path / 'secret'}", "ticket": "env:TICKET", "store": tmp_path / "store"}
    assert secret_places(TokenSettings(source="component", **named)) == [tmp_path / "secret", named["store"]]
    assert secret_places(TokenSettings(source="command")) == []
    (tmp_path / "store").mkdir(mode=0o700)
    kept = tmp_path / "store" / "wx1.json"
    kept.write_text("{}")
    kept.chmod(0o644)
    found = check_secrets(settings(tokens={"source": "component", **named}))
    assert (found.grade, str(kept) in found.seen.en) == (Grade.BAD, True)
