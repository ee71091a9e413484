"""confirm, undo and delete as an operator types them."""

from __future__ import annotations

import csv
import shlex
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from source_server import Sources
from workspace import TEA, many, write_csv

import tcb_ops as tcb
from tcb_ops.simulator import Fault, FaultStep, Reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import PanelContext

    OpenDesk = Callable[..., PanelContext]


def test_an_upload_is_confirmed_in_the_same_command(open_desk: OpenDesk) -> None:
    desk = open_desk()
    said = desk.upload("--confirm")
    assert said.code == 0
    assert "Confirmed: all 30 files are there (run " in said.out
    found = desk.upload("--confirm", "--new-run", "--json").json
    assert found["kind"] == "upload"
    assert found["confirmed"]["counts"] == {"present": 30}
    page = (desk.folder / "reports" / found["run"] / "report.html").read_text(encoding="utf-8")
    assert "Confirmed: all 30 files are there" in page


def test_what_is_missing_is_uploaded_again_by_the_suggested_command(open_desk: OpenDesk) -> None:
    desk = open_desk()
    desk.upload()
    shop = desk.shop
    shop.sim.remove(shop.merchants[0].env, "banner/1.png")
    said = desk("confirm")
    assert said.code == 1
    assert "29 of 30 rows succeeded, 1 did not: 1 absent." in said.out
    command = next(line for line in said.err.splitlines() if line.startswith("tcb-ops upload"))
    assert desk(*command.split()[1:]).code == 0
    assert desk("confirm").code == 0  # of the latest upload, the suggested one
    assert desk.latest().counts == {"present": 1}


def test_an_upload_says_what_it_replaces(open_desk: OpenDesk) -> None:
    desk = open_desk()
    assert "replaced" not in desk.upload().err
    said = desk.upload("--new-run")
    assert "30 paths hold files that earlier runs of this ledger uploaded; they are replaced." in said.err
    assert "replaced" not in desk.upload("--new-run", "--if-exists", "skip").err


def test_an_undo_says_what_it_will_do_and_does_it(open_desk: OpenDesk) -> None:
    desk = open_desk()
    desk.upload("--backup", "backup")
    desk.upload("--new-run", "--backup", "backup")
    said = desk("undo")
    assert said.code == 0
    assert "30 files will be restored from the backup." in said.err
    assert "All 30 rows succeeded: restored or deleted." in said.out
    first = desk("undo", desk("runs", "--json").json["runs"][-1]["run"])
    assert "30 files were new and will be deleted." in first.err
    assert first.code == 0
    assert desk.shop.sim.objects == {}


def test_an_undo_says_that_pending_rows_stay(open_desk: OpenDesk, until: Callable[..., None]) -> None:
    desk = open_desk()
    desk.shop.sim.play([Fault(step=FaultStep.STORE, path="banner/[5-9].png", delay=60)])
    handle = tcb.start_upload(desk.shop.read(), settings=desk.shop.settings, limits=tcb.RunLimits(per_env=1))
    until(lambda: handle.so_far().counts.get("uploaded", 0) > 0)
    handle.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        handle.wait()
    desk.shop.sim.play([])
    pending = handle.so_far().counts["pending"]
    said = desk("undo", handle.id)
    assert said.code == 0
    assert f"{pending} rows of the upload are pending." in said.err


def test_what_is_missing_is_uploaded_again_from_its_list_if_the_urls_have_queries(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_desk()
    monkeypatch.setenv("TCB_OPS_SOURCE_HOSTS", '["127.0.0.1"]')
    with Sources() as web:
        env, url = desk.shop.merchants[0].env, web.serve("/1", b"one") + "?sign=0123456789abcdef"
        write_csv(desk.folder / "web.csv", ("环境", "path", "file"), [(env, "web/1", url)])
        assert desk("upload", "web.csv", "--root", "files", "--column", "env=环境").code == 0
        desk.shop.sim.remove(env, "web/1")
        said = desk("confirm")
        assert said.code == 1
        command = next(line for line in said.err.splitlines() if line.startswith("tcb-ops upload"))
        assert "--column 'env=环境'" in command
        assert desk(*shlex.split(command)[1:]).code == 0
        assert desk("confirm", "--content").code == 0
    assert "0123456789ab" not in said.out + said.err


def test_latest_is_the_newest_run_that_the_command_can_resume(open_desk: OpenDesk) -> None:
    desk = open_desk()
    away = desk.upload("--api-base", "http://127.0.0.1:9", "--patience", "0.2", "--json")
    assert away.code == 3
    with sqlite3.connect(desk.folder / "ledger.db") as db:
        db.execute("UPDATE runs SET target = ?", (desk.shop.sim.base,))
    assert desk("audit").code == 0
    assert desk("upload", "--resume", "latest", "--json").json["run"] == away.json["run"]
    with sqlite3.connect(desk.folder / "ledger.db") as db:
        db.execute("UPDATE runs SET finished_at = NULL WHERE id = ?", (away.json["run"],))
    assert desk("audit").code == 0
    assert desk.upload("--resume", "latest", "--json").json["run"] == away.json["run"]


def test_a_prefix_resumes_no_upload_that_was_undone(open_desk: OpenDesk) -> None:
    desk = open_desk()
    assert desk.upload().code == 0
    run = desk.latest().id
    assert desk("undo").code == 0
    with sqlite3.connect(desk.folder / "ledger.db") as db:
        db.execute("UPDATE runs SET finished_at = NULL WHERE id = ?", (run,))
    said = desk.upload("--resume", run[:-1])
    assert said.code == 2
    assert "it was undone" in said.err


def test_a_dry_run_looks_at_the_backup_folder_and_makes_none(open_desk: OpenDesk) -> None:
    desk = open_desk()
    said = desk.upload("--dry-run", "--backup", "/dev/full/backup")
    assert said.code == 2
    assert "backups cannot be written to /dev/full/backup" in said.err
    assert desk.upload("--dry-run", "--backup", "new/backup").code == 0
    assert not (desk.folder / "new").exists()


@pytest.mark.parametrize("command", ["confirm", "undo", "delete"])
def test_the_embedded_simulator_is_said_to_start_without_files(open_desk: OpenDesk, command: str) -> None:
    desk = open_desk()
    desk.upload("--target", "simulator")
    hint = "The embedded simulator starts without files each time."
    assert hint in desk(command, "latest", "--target", "simulator").err
    desk.upload()
    assert hint not in desk(command, "latest").err


def test_nothing_left_to_delete_is_said_alone(open_desk: OpenDesk) -> None:
    desk = open_desk()
    desk.upload()
    assert desk("undo").code == 0
    said = desk("delete", desk("runs", "--json").json["runs"][-1]["run"])
    assert said.code == 2
    assert "Nothing is left to delete." in said.err


def test_a_row_that_stored_nothing_hides_no_earlier_upload(open_desk: OpenDesk) -> None:
    desk = open_desk(many(TEA, rows=3))
    desk.upload("--backup", "backup")
    first = desk.latest().id
    kept = desk.upload("--new-run", "--if-exists", "fail", "--json")  # same bytes: unchanged
    assert kept.json["counts"] == {"unchanged": 3}
    for n in range(3):
        (desk.folder / "files" / f"{n}.bin").write_bytes(b"other")
    assert desk.upload("--if-exists", "fail", "--json", "--new-run").json["counts"] == {"failed": 3}
    desk.shop.sim.put(TEA.env, "banner/0.png", b"somebody else's")
    assert desk("confirm", "list.csv", "--content", "--json").json["counts"] == {"present": 2, "different": 1}
    assert "not uploaded by a run" not in desk("delete", "list.csv", "--limit", "1").err
    assert desk("undo", first, "--json").json["counts"] == {"conflict": 1, "deleted": 2}


def test_contents_that_nobody_here_uploaded_are_not_confirmed(open_desk: OpenDesk) -> None:
    desk = open_desk(many(TEA, rows=1))
    desk.shop.sim.put(TEA.env, "banner/0.png", b"somebody else's")
    assert desk("confirm", "list.csv", "--json").json["counts"] == {"present": 1}
    said = desk("confirm", "list.csv", "--content")
    assert said.code == 1
    assert "no_checksum" in said.out
    assert "tcb-ops retry" not in said.err
    assert desk("errcodes", "--json").json["reasons"][0]["reason"] == "no_checksum"


@pytest.mark.parametrize("option", ["--where", "--target", "--note", "--operator", "--host"])
def test_runs_are_pruned_of_the_whole_ledger_or_not_at_all(open_desk: OpenDesk, option: str) -> None:
    desk = open_desk()
    desk.upload()
    given = {"--where": "owner=merchant", "--target": desk.shop.sim.base}.get(option, "x")
    said = desk("runs", "prune", "--older-than", "1d", option, given)
    assert said.code == 2
    assert option in said.err
    assert desk("runs", "--older-than", "1d").code == 2
    assert desk("runs", "--dry-run").code == 2
    assert len(desk("runs", "--json").json["runs"]) == 1


def test_a_damaged_backup_is_named_as_the_cause(open_desk: OpenDesk) -> None:
    desk = open_desk(many(TEA, rows=1))
    desk.shop.sim.put(TEA.env, "banner/0.png", b"before")
    desk.upload("--backup", "backup")
    (saved,) = desk.folder.glob("backup/*/*.data")
    intact = saved.read_bytes()
    saved.write_bytes(b"damage")
    said = desk("undo")
    assert said.code == 1
    assert "backup_damaged" in said.out
    saved.write_bytes(intact)
    assert desk("retry").code == 0  # what it suggests
    assert desk.shop.sim.content(TEA.env, "banner/0.png") == b"before"


def test_a_confirmation_says_what_it_leaves_out_and_what_was_undone(
    open_desk: OpenDesk, until: Callable[..., None]
) -> None:
    desk = open_desk()
    desk.shop.sim.play([Fault(step=FaultStep.STORE, path="banner/[5-9].png", delay=60)])
    handle = tcb.start_upload(desk.shop.read(), settings=desk.shop.settings, limits=tcb.RunLimits(per_env=1))
    until(lambda: handle.so_far().counts.get("uploaded", 0) > 0)
    handle.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        handle.wait()
    desk.shop.sim.play([])
    pending = handle.so_far().counts["pending"]
    assert f"{pending} rows of upload {handle.id} are pending, and are not confirmed." in desk("confirm").err
    assert "hold files that earlier runs" not in desk.upload().err  # resumed: they are its own
    assert desk("undo").code == 0
    again = desk("undo")
    assert "30 of these files were undone before; they are only looked at." in again.err
    assert f"Upload {handle.id} was undone by run " in desk("confirm").err


def test_what_a_confirmation_finds_after_an_upload_comes_with_its_command(open_desk: OpenDesk) -> None:
    desk = open_desk(many(TEA, rows=2))
    desk.shop.sim.play([Fault(step=FaultStep.DOWNLOAD, errcode=45009)])
    said = desk.upload("--confirm", "--attempts", "1")
    assert said.code == 1
    assert f"Confirmation {desk.latest().id}: " in said.out
    assert any(line.startswith(f"tcb-ops retry {desk.latest().id}") for line in said.err.splitlines())


def test_delete_needs_to_be_told_what(open_desk: OpenDesk) -> None:
    desk = open_desk()
    said = desk("delete")
    assert said.code == 2
    assert "tcb-ops delete latest" in said.err


@pytest.mark.parametrize("command", ["undo", "delete"])
def test_a_live_target_needs_yes_without_a_terminal(open_desk: OpenDesk, command: str) -> None:
    desk = open_desk()
    desk.upload()
    calls = sum(desk.shop.sim.stats.values())
    said = desk(command, "latest", "--target", "https://api.weixin.qq.com")
    assert said.code == 2
    assert sum(desk.shop.sim.stats.values()) == calls


def test_foreign_files_are_listed_before_anything_is_deleted(open_desk: OpenDesk) -> None:
    desk = open_desk()
    said = desk("delete", "list.csv")
    assert said.code == 2
    assert "30 files were not uploaded by a run of this ledger:" in said.err
    assert "and 10 more" in said.err
    assert desk("delete", "list.csv", "--foreign").code == 0  # all are already gone


def test_download_links_go_into_a_file_of_their_own(open_desk: OpenDesk) -> None:
    desk = open_desk()
    desk.upload()
    desk.shop.sim.remove(desk.shop.merchants[0].env, "banner/1.png")
    said = desk("links", "latest", "--download", "--max-age", "60")
    assert said.code == 1
    assert "29 of 30 rows have a download link, valid for 1m00s" in said.out.replace("\n", " ").replace(
        " min", "min"
    )
    file = desk.folder / "downloads.csv"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["备注"] for row in rows] == [f"第 {n} 行" for n in range(30)]
    assert [(row["errcode"], bool(row["download_url"])) for row in rows[:3]] == [
        ("0", True),
        ("-503003", False),
        ("0", True),
    ]
    with httpx.Client() as client:
        fetched = client.get(rows[0]["download_url"]).content
    assert fetched == (desk.folder / "files" / "0.bin").read_bytes()
    assert desk.shop.sim.stats["download"] == 3
    ledger = (desk.folder / "ledger.db").read_bytes()
    assert b"sign=" not in ledger
    assert "sign=" not in said.out + said.err
    assert not list(desk.folder.glob("*.part"))


@pytest.mark.parametrize("name", ["ledger.db", "list.csv", "merchants.csv", "tokens.csv"])
def test_download_links_replace_no_other_file(open_desk: OpenDesk, name: str) -> None:
    desk = open_desk()
    desk.upload()
    before = (desk.folder / name).read_bytes()
    said = desk("links", "latest", "--download", "--out", name)
    assert said.code == 2
    assert "an earlier file of links" in said.err
    assert (desk.folder / name).read_bytes() == before
    assert desk("links", "latest", "--download").code == 0
    assert desk("links", "latest", "--download").code == 0  # its own file is replaced


@pytest.mark.parametrize("fault", [{"errcode": 61004}, {"reset": Reset.BEFORE}], ids=["61004", "reset"])
def test_an_outage_replaces_no_download_links(open_desk: OpenDesk, fault: dict[str, Any]) -> None:
    desk = open_desk()
    desk.upload()
    assert desk("links", "latest", "--download").code == 0
    before = (desk.folder / "downloads.csv").read_bytes()
    desk.shop.sim.play([Fault(step=FaultStep.DOWNLOAD, **fault)])
    said = desk("links", "latest", "--download")
    assert said.code == 3
    assert "No download links were written." in said.err
    assert (desk.folder / "downloads.csv").read_bytes() == before


def test_a_resumed_upload_takes_no_backup_without_its_list(open_desk: OpenDesk) -> None:
    desk = open_desk()
    for option in (("--backup", "b"), ("--if-exists", "skip")):
        said = desk("upload", "--resume", "latest", *option)
        assert said.code == 2
        assert "as it was started" in said.err


def test_suggested_uploads_keep_the_backup(open_desk: OpenDesk) -> None:
    desk = open_desk()
    desk.upload("--backup", "backup")
    desk.shop.sim.remove(desk.shop.merchants[0].env, "banner/1.png")
    said = desk("confirm")
    (command,) = [line for line in said.err.splitlines() if line.startswith("tcb-ops upload")]
    assert f"--backup {desk.folder / 'backup'}" in command
    (desk.folder / "files" / "3.bin").unlink()
    said = desk.upload("--backup", "backup", "--confirm", "--on-bad", "skip", "--new-run")
    (command,) = [line for line in said.err.splitlines() if line.startswith("tcb-ops upload")]
    assert f"--backup {desk.folder / 'backup'} --confirm" in command


def test_download_links_of_odd_answers_are_those_that_came(open_desk: OpenDesk) -> None:
    desk = open_desk()
    desk.upload()
    desk.shop.sim.answer_files(lambda files: [*files[::-2], {"fileid": "stranger", "status": 0}], most=5)
    said = desk("links", "--download", "--json")
    assert said.code == 1
    assert 0 < said.json["links"] < said.json["rows"] == 30


def pages(desk: PanelContext) -> int:
    with closing(sqlite3.connect(desk.folder / "ledger.db")) as ledger:
        return int(ledger.execute("PRAGMA page_count").fetchone()[0])


def test_old_runs_are_pruned_and_those_that_others_need_stay(open_desk: OpenDesk) -> None:
    desk = open_desk()
    for _ in range(3):
        desk.upload("--new-run")
    with closing(sqlite3.connect(desk.folder / "ledger.db")) as ledger, ledger:
        ledger.execute(
            "UPDATE runs SET finished_at = finished_at - 200 * 86400, created_at = created_at - 200 * 86400"
        )
    desk("confirm", desk("runs", "--json").json["runs"][1]["run"])
    before = pages(desk)
    ids = [run["run"] for run in desk("runs", "--json").json["runs"]]
    said = desk("runs", "prune", "--older-than", "180d", "--dry-run")
    assert said.code == 0
    assert "2 runs with 60 rows would be removed" in said.err
    assert len(desk("runs", "--json").json["runs"]) == 4
    assert set(desk("runs", "prune", "--older-than", "180d", "--json").json["removed"]) < set(ids)
    assert [run["kind"] for run in desk("runs", "--json").json["runs"]] == ["confirm", "upload"]
    assert pages(desk) < before
    with closing(sqlite3.connect(desk.folder / "ledger.db")) as ledger:
        for table in ("rows", "envs", "tallies", "spent", "exports"):
            left = f"SELECT COUNT(*) FROM {table} WHERE run NOT IN (SELECT number FROM runs)"
            assert ledger.execute(left).fetchone() == (0,), table
    assert desk("runs", "prune").code == 2
    assert desk("runs", "prune", "--older-than", "soon").code == 2


def test_the_settings_give_the_age_from_which_runs_are_pruned(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_desk()
    desk.upload()
    with closing(sqlite3.connect(desk.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE runs SET finished_at = finished_at - 100 * 86400")
    monkeypatch.setenv("TCB_OPS_LIFECYCLE__KEEP_DAYS", "180")
    assert desk("runs", "prune", "--json").json["removed"] == []
    assert len(desk("runs", "prune", "--older-than", "90d", "--dry-run", "--json").json["runs"]) == 1
    monkeypatch.setenv("TCB_OPS_LIFECYCLE__KEEP_DAYS", "90")
    assert len(desk("runs", "prune", "--json").json["removed"]) == 1
