"""The report folder: whole or not there, never over something else, and proof of what it says."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from file_limit import files_of_at_most
from tables import table
from workspace import store_says

from tcb_ops.details import DetailCode, detail
from tcb_ops.engine.stop_errors import stop_reason
from tcb_ops.errors import StoppedError, UsageError
from tcb_ops.features.evidence.verify import check_report
from tcb_ops.features.health.audit_kind import AUDIT
from tcb_ops.features.health.settings import AuditRunSettings
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.records import Usage
from tcb_ops.model import Outcome, Reason, RowEnd, RunSettings
from tcb_ops.reports import export
from tcb_ops.reports.export import check_destination
from tcb_ops.secrets import CHUNK, find_leak

pytestmark = pytest.mark.integration

ACTIONS = ["actions.py", "actions.sh"]
FILES = [*ACTIONS, "errcodes.csv", "failed.csv", "manifest.json", "report.html", "report.xlsx", "results.csv"]


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def manifest(folder):
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def test_the_folder_holds_the_files_and_nothing_is_left_beside_it(a_run, tmp_path):
    dest = tmp_path / "reports" / "today"
    assert a_run().export(dest) == dest
    assert names(dest) == FILES
    assert names(dest.parent) == ["today"]


def test_the_manifest_proves_the_files_and_the_input(a_run, every_end, tmp_path):
    reported = a_run(every_end, finished=False, target="simulator")
    found = manifest(reported.export(tmp_path / "out"))
    for name, told in found["files"].items():
        body = (tmp_path / "out" / name).read_bytes()
        assert told == {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
    assert sorted([*found["files"], "manifest.json"]) == sorted([*FILES, "SIMULATED-演练.txt"])
    assert sum(found["counts"].values()) == found["rows"] == len(every_end)
    assert (found["simulated"], found["mark"]) == (True, "SIMULATED 演练")
    assert "演练" in (tmp_path / "out" / "SIMULATED-演练.txt").read_text(encoding="utf-8")
    assert found["finished_at"] is None
    assert found["input"] == {"name": "清单.csv", "sha256": "ab" * 32, "bytes": 123}
    assert found["created_at"] == "2025-11-25T09:26:40.250+08:00"
    assert found["exported_at"] == "2025-11-25T10:00:00.000+08:00"
    assert (found["operator"], found["host"], found["note"]) == ("li.na", "ops-1", "每周上传")
    live = manifest(a_run([], id="live").export(tmp_path / "live"))
    assert (live["simulated"], "mark" in live, live["finished_at"] is None) == (False, False, False)
    assert not [name for name in live["files"] if "SIMULATED" in name]
    assert found["settings"] == {"concurrency": 64, "skip_unchanged": False, "canary": 0}
    assert set(found["versions"]) == {"tcb-ops", "Python", "platform"}


def test_an_echoed_secret_is_in_none_of_the_files(a_run, tmp_path):
    echo = "access_token=PLANTED&q-signature=PLANTED"
    ends = [
        RowEnd(0, Outcome.REFUSED, Reason.REFUSED, store_says(echo), 40097, echo, echo),
        RowEnd(
            0, Outcome.FAILED, Reason.STORE_REFUSED, store_says(echo), 0, echo, echo, 400, echo, file_id=echo
        ),
        RowEnd(
            0,
            Outcome.FAILED,
            Reason.NO_ANSWER,
            detail(DetailCode.NO_CONNECTION, host=f"https://a.example/x?{echo}"),
        ),
        RowEnd(0, Outcome.INVALID, Reason.INVALID, store_says(echo)),
        RowEnd(0, Outcome.PENDING),
    ]
    reported = a_run(ends, finished=False)
    reported.ledger.stop(reported.run, stop_reason(StoppedError(Bilingual(echo, echo))))
    for lang in Lang:
        for name, body in contents(reported.export(tmp_path / "out", lang=lang)).items():
            assert b"PLANTED" not in body, name


# --- what is in the way ---------------------------------------------------------------------------------------------


def test_a_report_of_the_same_run_is_replaced(a_run, tmp_path):
    reported = a_run()
    reported.export(tmp_path / "out")
    (tmp_path / "out" / "results.csv").write_text("old", encoding="utf-8")
    reported.export(tmp_path / "out", lang=Lang.ZH)
    assert (tmp_path / "out" / "results.csv").read_text(encoding="utf-8-sig").startswith("货号")
    assert names(tmp_path / "out") == FILES
    assert [name for name in names(tmp_path) if name.startswith("out")] == ["out"]


def test_what_a_desktop_leaves_in_a_folder_is_not_in_the_way(a_run, tmp_path):
    (tmp_path / "out").mkdir()
    reported = a_run()
    reported.export(tmp_path / "out")
    (tmp_path / "out" / ".DS_Store").touch()
    reported.export(tmp_path / "out")
    assert set(names(tmp_path / "out")) - {".DS_Store"} == set(FILES)
    assert check_report(tmp_path / "out", reported.ledger).good


def test_a_report_of_another_run_gives_way_only_when_told(a_run, tmp_path):
    a_run().export(tmp_path / "out")
    other, before = a_run(id="20251126-090000-zzzz"), contents(tmp_path / "out")
    with pytest.raises(UsageError, match="contains the report of run 20251125-093000-k7q2"):
        other.export(tmp_path / "out")
    assert contents(tmp_path / "out") == before
    other.export(tmp_path / "out", replace=True)
    assert manifest(tmp_path / "out")["run"] == "20251126-090000-zzzz"


def test_a_report_without_a_workbook_replaces_one_with_it(a_run, tmp_path, monkeypatch):
    reported = a_run()
    reported.export(tmp_path / "out")
    with monkeypatch.context() as patch:  # as without the feature
        patch.setattr(export, "ALWAYS", tuple(name for name in export.ALWAYS if name != "report.xlsx"))
        reported.export(tmp_path / "out")
    assert names(tmp_path / "out") == [name for name in FILES if name != "report.xlsx"]
    reported.export(tmp_path / "out")
    assert names(tmp_path / "out") == FILES


@pytest.mark.parametrize("replace_it", [False, True], ids=["", "replace"])
@table(
    "file, content",
    {
        "folder_of_photos": ("out/photo.jpg", b"mine"),
        "a_file": ("out", b"mine"),
        "another_program_s_manifest": ("out/manifest.json", b'{"name": "app"}'),
        "a_broken_manifest": ("out/manifest.json", b"\xff{"),
        "a_nested_folder": ("out/results.csv/other", b""),
    },
)
def test_anything_else_is_named_and_not_touched(a_run, tmp_path, file, content, replace_it):
    dest = tmp_path / "out"
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(content)
    before = contents(tmp_path / "out") if dest.is_dir() else dest.read_bytes()
    reported = a_run()
    with pytest.raises(UsageError) as refused:
        reported.export(dest, replace=replace_it)
    assert str(dest) in refused.value.text.en
    assert str(dest) in refused.value.text.zh
    assert (contents(dest) if dest.is_dir() else dest.read_bytes()) == before
    with pytest.raises(UsageError):
        check_destination(dest, reported.run.id, replace=replace_it)


def test_a_file_the_operator_put_beside_the_report_keeps_it_from_being_replaced(a_run, tmp_path):
    reported = a_run()
    (reported.export(tmp_path / "out") / "my notes.txt").write_text("mine", encoding="utf-8")
    before = contents(tmp_path / "out")
    with pytest.raises(UsageError, match=r"would be lost: my notes\.txt"):
        reported.export(tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_before_a_run_only_a_free_place_will_do(a_run, tmp_path):
    check_destination(tmp_path / "not" / "there" / "yet")
    a_run().export(tmp_path / "out")
    with pytest.raises(UsageError, match="contains the report of run"):
        check_destination(tmp_path / "out")
    check_destination(tmp_path / "out", replace=True)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no folder can be created in"):
        check_destination(tmp_path / "file" / "below")


@pytest.mark.skipif(os.name == "nt", reason="links to folders need a privilege there")
def test_a_link_to_a_folder_stays_a_link(a_run, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk", target_is_directory=True)
    reported = a_run()
    for _ in range(2):
        reported.export(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "disk") == FILES


# --- when the disk does not take it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [False, True], ids=["nothing-there", "an-older-report-there"])
def test_a_disk_that_takes_no_more_leaves_what_was_there(a_run, tmp_path, there):
    reported = a_run([RowEnd(0, Outcome.UPLOADED)] * 2_000)
    if there:
        reported.export(tmp_path / "out")
    before = contents(tmp_path / "out") if there else {}
    with files_of_at_most(20_000), pytest.raises(StoppedError) as stopped:
        reported.export(tmp_path / "out")
    assert f"tcb-ops report {reported.run.id}" in stopped.value.text.en
    assert str(tmp_path / "out") in stopped.value.text.zh
    assert stopped.value.__cause__ is None
    assert stopped.value.__context__ is None
    assert [name for name in names(tmp_path) if name.startswith("out")] == ["out"] * there
    assert (contents(tmp_path / "out") if there else {}) == before


def test_an_open_file_is_noticed_before_anything_of_the_old_report_changes(a_run, tmp_path, monkeypatch):
    reported = a_run()
    reported.export(tmp_path / "out")
    before = contents(tmp_path / "out")
    rename = Path.rename

    def refuse_open(file: Path, to: Path) -> Path:
        if file == tmp_path / "out" / "report.xlsx":
            raise PermissionError(errno.EACCES, "open in Excel", str(file))
        return rename(file, to)

    monkeypatch.setattr(Path, "rename", refuse_open)
    with pytest.raises(StoppedError, match=r"report\.xlsx"):
        reported.export(tmp_path / "out")
    assert contents(tmp_path / "out") == before
    assert [name for name in names(tmp_path) if name.startswith("out")] == ["out"]


def test_a_file_that_is_opened_while_others_are_replaced_is_named_and_so_is_the_mixed_report(
    a_run, tmp_path, monkeypatch
):
    reported = a_run()
    reported.export(tmp_path / "out", lang=Lang.ZH)
    replace_file = Path.replace

    def refuse_open(file: Path, to: Path) -> Path:
        if to.name == "results.csv":
            raise PermissionError(errno.EACCES, "open in Excel", str(file), None, str(to))
        return replace_file(file, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse_open)
        with pytest.raises(StoppedError, match=r"results\.csv: "):
            reported.export(tmp_path / "out")
    checks = check_report(tmp_path / "out", reported.ledger).checks
    assert "a newer export did not end" in checks[0].text.en
    assert "report.html" in {check.what for check in checks if check.state == "differs"}
    reported.export(tmp_path / "out")
    assert check_report(tmp_path / "out", reported.ledger).good
    assert names(tmp_path / "out") == FILES


def test_files_are_replaced_one_by_one_and_the_manifest_last(a_run, tmp_path, monkeypatch):
    reported = a_run()
    folder = reported.export(tmp_path / "out").stat().st_ino
    replaced = []
    replace_file = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda file, to: (replaced.append(to.name), replace_file(file, to))[1]
    )
    reported.export(tmp_path / "out")
    assert set(replaced) == set(FILES)
    assert replaced[-1] == "manifest.json"
    assert (tmp_path / "out").stat().st_ino == folder


@pytest.mark.skipif(os.name == "nt", reason="permissions are another matter there")
def test_reports_can_be_read_by_others_as_the_umask_says(a_run, tmp_path):
    mask = os.umask(0o022)
    try:
        out = a_run().export(tmp_path / "out")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o755
    assert {stat.S_IMODE((out / name).stat().st_mode) for name in FILES} == {0o644}


def test_a_record_from_before_the_run_s_end_is_looked_up_again(a_run, tmp_path):
    reported = a_run([RowEnd(0, Outcome.UPLOADED)])
    stale = replace(reported, run=replace(reported.run, finished_at=None))
    assert manifest(stale.export(tmp_path / "out"))["finished_at"] is not None


# --- one moment, no secret, nothing left ----------------------------------------------------------------------------


def test_every_file_is_of_one_moment_while_the_run_goes_on(a_run, tmp_path):
    """A row ends each time the ledger is asked something: the report is of the moment at which it began."""
    reported = a_run([RowEnd(0, Outcome.PENDING)] * 40, finished=False)
    lines = iter(range(2, 42))

    class GoingOn(Ledger):
        def __init__(self, ledger: Ledger) -> None:
            self.__dict__.update(vars(ledger))

        def fetch(self, statement: str, values: Any) -> Any:
            found = super().fetch(statement, values)
            reported.ledger.record(reported.run, [RowEnd(next(lines), Outcome.UPLOADED)], Usage())
            return found

    out = replace(reported, ledger=GoingOn(reported.ledger)).export(tmp_path / "out")
    counts = manifest(out)["counts"]
    results = (out / "results.csv").read_text(encoding="utf-8-sig")
    assert {name: len(re.findall(f",{name},", results)) for name in counts} == counts
    assert sum(counts.values()) == 40
    failed = (out / "failed.csv").read_text(encoding="utf-8-sig")
    assert failed.count(",pending,") == counts["pending"]
    assert reported.ledger.counts(reported.run)[Outcome.UPLOADED] > counts.get("uploaded", 0)


def test_a_ledger_that_takes_no_writing_still_gives_a_report(a_run, tmp_path, caplog):
    reported = a_run()
    with closing(sqlite3.connect(tmp_path / "reports.db")) as base, base:
        base.execute("CREATE TRIGGER kept BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'kept'); END")
    out = reported.export(tmp_path / "out")
    assert check_report(out, reported.ledger).good
    assert "the report is complete" in caplog.text


@pytest.mark.kill
def test_a_report_that_is_seen_is_one_that_the_ledger_knows(a_run, tmp_path):
    reported = a_run()
    reported.export(tmp_path / "earlier")
    code = (
        "import os, sys; from pathlib import Path; from tcb_ops.reports import export; from tcb_ops.ledger.ledger import Ledger\n"
        "from tcb_ops.settings import Settings\n"
        "put = export._put\n"
        "export._put = lambda part, real: (put(part, real), os._exit(9))\n"
        "ledger = Ledger(sys.argv[1]); export.export(ledger, ledger.run('latest'), Path(sys.argv[2]), Settings(), now=1.8e9)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "reports.db"), str(tmp_path / "out")]
    assert subprocess.run(words, check=False).returncode == 9
    assert check_report(tmp_path / "out", reported.ledger).good


@table(
    "about, shown",
    {
        "token": ({"cells": ("access_token=80_AbCdEfGhIjKl", "{path}")}, "access_token=•••,"),
        "key-id": ({"cells": ("https://x.example/?q-ak=AKIDabcdefgh&a=1", "{path}")}, "?q-ak=•••&a=1,"),
        "security-token": (
            {"cells": ('{"x-cos-security-token": "AbCdEfGhIj"}', "{path}")},
            'token"": ""•••""}"',
        ),
        "path": ({"path": "a/access_token%3D80_AbCdEfGhIjKl"}, "a/access_token%3D•••,"),
        "header": ({"headers": ("refresh_token=80_AbCdEfGhIjKl", "path")}, "refresh_token=•••,"),
        "signature": ({"note": "q-signature=0123456789abcdef"}, "q-signature=•••"),
        "ticket": ({"note": "ticket@@@AbCdEfGhIjKl"}, "ticket@@@•••"),
        "setting": (
            {"settings": RunSettings(selection=(("column", "path=access_token=80_AbCdEfGhIjKl"),))},
            "access_token=•••",
        ),
        "Title_Case": ({"cells": ("Access_Token: 80_AbCdEfGhIjKl", "{path}")}, "Access_Token: •••,"),
        "capitals": ({"cells": ("?Q-AK%3dAKIDabcdefgh", "{path}")}, "?Q-AK%3d•••,"),
        "capitals in the note": ({"note": "ACCESS_TOKEN=80_AbCdEfGhIjKl"}, "ACCESS_TOKEN=•••"),
    },
)
def test_a_secret_among_the_operator_s_own_texts_is_masked_and_keeps_no_report_back(
    a_run, tmp_path, caplog, about, shown
):
    clean = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088)
    reported = a_run([clean], **{"note": "", **about})
    out = reported.export(tmp_path / "out")
    wanted = "results.csv" if {"cells", "path", "headers"} & about.keys() else "manifest.json"
    assert shown in (out / wanted).read_text(encoding="utf-8-sig")
    for name, body in contents(out).items():
        for secret in (b"80_AbC", b"AKIDabc", b"AbCdEfGh", b"0123456789abcdef"):
            assert secret not in body, name
    assert ("1 row of the list" in caplog.text) == bool({"cells", "path"} & about.keys())
    assert check_report(out, reported.ledger).good


def test_a_report_that_would_hold_a_secret_is_not_finished(a_run, tmp_path):
    clean = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088)
    reported = a_run(
        [clean], kind=AUDIT, settings=AuditRunSettings(known=({"access_token": "80_AbCdEfGhIjKl"},))
    )
    with pytest.raises(StoppedError) as refused:
        reported.export(tmp_path / "out")
    result = refused.value.text
    assert "manifest.json" in result.en
    assert "80_AbC" not in result.en + result.zh
    assert [name for name in names(tmp_path) if name.startswith("out")] == []
    assert reported.ledger.run(reported.run.id).report == ""


def test_a_secret_across_two_chunks_is_found_and_prose_about_tokens_is_not(tmp_path):
    file = tmp_path / "results.csv"
    for at in (CHUNK - 5, CHUNK - 20, CHUNK + 1):
        file.write_bytes(b"x" * (at - 1) + b"\n" + b"q-signature=0123456789" + b"\n" * CHUNK)
        assert find_leak(file) is not None
    file.write_bytes(b"\nX-COS-Security-Token: AbCdEfGhIjKl")
    assert find_leak(file) is not None
    prose = "errmsg,access_token: expired; access_token=•••; q-ak=•••; token@@@; see x-cos-security-token"
    file.write_text(prose, encoding="utf-8")
    assert find_leak(file) is None
