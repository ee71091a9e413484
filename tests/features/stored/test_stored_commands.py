"""confirm, undo and delete as an operator types them."""

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from workspace import TEA, cancel, many

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault, FaultStep

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import CommandLine

    OpenCli = Callable[..., CommandLine]

pytestmark = pytest.mark.integration


def interrupted_upload(cli, wait_for):
    """Upload the list, and cancel when some of its files are stored."""
    cli.workspace.sim.play([Fault(step=FaultStep.STORE, path="banner/[5-9].png", delay=60)])
    handle = cli.workspace.start_upload(limits=tcb.RunLimits(per_env=1))
    wait_for(lambda: handle.so_far().counts.get("uploaded", 0) > 0)
    cancel(handle)
    cli.workspace.sim.play([])
    return handle


def test_an_upload_says_whether_it_was_confirmed_or_undone(open_cli):
    cli = open_cli()
    text = "30 paths hold files that earlier runs of this ledger uploaded."
    result = cli.upload()
    assert (result.code, text in result.err) == (0, False)
    for file in (cli.folder / "files").iterdir():
        file.write_text(f"second {file.name}", encoding="utf-8")
    again = cli.upload("--new-run", "--json", "--backup", "backup")
    assert text in again.err
    assert cli("confirm", "--content").code == 0
    found = cli("show", again.json["run"], "--json").json
    assert (found["kind"], found["confirmed"]["counts"]) == ("upload", {"present": 30})
    assert cli("report", found["run"]).code == 0
    page = cli.folder / "reports" / found["run"] / "report.html"
    assert "looked for the files: 30 present." in page.read_text(encoding="utf-8")
    assert cli("undo", found["run"]).code == 0
    undo, mark = cli.latest().id, f" files of this upload were undone by run {cli.latest().id} on "
    shown = cli("show", found["run"])
    assert (shown.code, mark in shown.out, "Confirmed" in shown.out) == (0, True, False)
    assert mark in cli("show", found["run"], "--line", "2").err
    (changed,) = cli("show", found["run"], "--json").json["changed_by"]
    assert (changed["run"], changed["kind"], changed["files"]) == (undo, "undo", 30)
    assert f"undone by {undo}" in cli("runs").out
    assert cli("report", found["run"]).code == 0
    assert mark in page.read_text(encoding="utf-8")
    assert "Confirmed" not in page.read_text(encoding="utf-8")
    confirmed = cli("confirm", found["run"])
    assert (confirmed.code, "All 30 rows succeeded: undone." in confirmed.out) == (0, True)
    assert "tcb-ops upload" not in confirmed.err


def test_an_undo_says_what_it_will_do_and_does_it(open_cli):
    cli = open_cli()
    cli.upload("--backup", "backup")
    for file in (cli.folder / "files").iterdir():
        file.write_text(f"second {file.name}", encoding="utf-8")
    cli.upload("--new-run", "--backup", "backup")
    result = cli("undo")
    assert result.code == 0
    assert "30 files will be restored from the backup." in result.err
    assert "All 30 rows succeeded: restored." in result.out
    first = cli("runs", "--json").json["runs"][-1]["run"]
    undone = cli("undo", first)
    assert (undone.code, "30 files will be deleted: nothing was there before." in undone.err) == (0, True)
    assert cli.workspace.sim.objects == {}
    again = cli("delete", first)
    assert (again.code, "Nothing is left to delete." in again.err) == (2, True)


def test_an_undo_says_that_pending_rows_stay(open_cli, wait_for):
    cli = open_cli()
    handle = interrupted_upload(cli, wait_for)
    pending = handle.so_far().counts["pending"]
    result = cli("undo", handle.id)
    assert result.code == 0
    assert f"{pending} rows of the upload are pending." in result.err


def test_latest_is_the_newest_run_that_the_command_can_resume(open_cli):
    cli = open_cli()
    away = cli.upload("--api-base", "http://127.0.0.1:9", "--patience", "0.2", "--json")
    assert away.code == 3
    with sqlite3.connect(cli.folder / "ledger.db") as db:
        db.execute("UPDATE runs SET target = ?", (cli.workspace.sim.base,))
    assert cli("audit").code == 0
    assert cli("upload", "--resume", "latest", "--json").json["run"] == away.json["run"]
    with sqlite3.connect(cli.folder / "ledger.db") as db:
        db.execute("UPDATE runs SET finished_at = NULL WHERE id = ?", (away.json["run"],))
    assert cli("audit").code == 0
    assert cli.upload("--resume", "latest", "--json").json["run"] == away.json["run"]


@pytest.mark.parametrize("command", ["confirm", "undo", "delete"])
def test_the_embedded_simulator_is_said_to_start_without_files(open_cli, command):
    cli = open_cli()
    cli.upload("--target", "simulator")
    hint = "The embedded simulator starts without files each time."
    assert hint in cli(command, "latest", "--target", "simulator").err
    cli.upload()
    assert hint not in cli(command, "latest").err


def test_a_row_that_stored_nothing_hides_no_earlier_upload(open_cli):
    cli = open_cli(many(TEA, rows=3))
    cli.upload("--backup", "backup")
    first = cli.latest().id
    assert cli.upload("--new-run", "--skip-unchanged", "--json").json["counts"] == {"unchanged": 3}
    for n in range(3):
        (cli.folder / "files" / f"{n}.bin").write_bytes(b"other")
    cli.workspace.sim.play([Fault(errcode=40097)])
    assert cli.upload("--json", "--new-run").json["counts"] == {"refused": 3}
    cli.workspace.sim.play([])
    cli.workspace.sim.put(TEA.env, "banner/0.png", b"somebody else's")
    assert cli("confirm", "list.csv", "--content", "--json").json["counts"] == {"present": 2, "different": 1}
    assert "not uploaded by a run" not in cli("delete", "list.csv", "--limit", "1").err
    assert cli("undo", first, "--json").json["counts"] == {"conflict": 1, "deleted": 2}


def test_contents_that_nobody_here_uploaded_are_not_confirmed(open_cli):
    cli = open_cli(many(TEA, rows=1))
    cli.workspace.sim.put(TEA.env, "banner/0.png", b"somebody else's")
    assert cli("confirm", "list.csv", "--json").json["counts"] == {"present": 1}
    result = cli("confirm", "list.csv", "--content")
    assert result.code == 1
    assert "no_checksum" in result.out
    assert "tcb-ops retry" not in result.err
    assert cli("errcodes", "--kind", "confirm", "--json").json["reasons"][0]["reason"] == "no_checksum"


@pytest.mark.parametrize("option", ["--where", "--target", "--note"])
def test_runs_are_pruned_of_the_whole_ledger_or_not_at_all(open_cli, option):
    cli = open_cli()
    cli.upload()
    given = {"--where": "owner=merchant", "--target": cli.workspace.sim.base}.get(option, "x")
    result = cli("prune", "--older-than", "1d", option, given)
    assert result.code == 2
    assert option in result.err
    assert len(cli("runs", "--json").json["runs"]) == 1


def test_a_damaged_backup_is_named_as_the_cause(open_cli):
    cli = open_cli(many(TEA, rows=1))
    cli.workspace.sim.put(TEA.env, "banner/0.png", b"before")
    cli.upload("--backup", "backup")
    (saved,) = cli.folder.glob("backup/*/*.data")
    intact = saved.read_bytes()
    saved.write_bytes(b"damage")
    result = cli("undo")
    assert result.code == 1
    assert "backup_damaged" in result.out
    saved.write_bytes(intact)
    assert cli("retry", "--kind", "undo").code == 0  # what it suggests
    assert cli.workspace.sim.content(TEA.env, "banner/0.png") == b"before"


def test_a_confirmation_says_what_it_leaves_out_and_what_was_undone(open_cli, wait_for):
    cli = open_cli()
    handle = interrupted_upload(cli, wait_for)
    pending = handle.so_far().counts["pending"]
    assert f"{pending} rows of upload {handle.id} are pending, and are not confirmed." in cli("confirm").err
    assert "hold files that earlier runs" not in cli.upload().err  # resumed: they are its own
    assert cli("undo").code == 0
    again = cli("undo")
    assert "30 files will not be touched: nothing of the upload is there" in again.err
    assert " files of this upload were undone by run " in cli("confirm").err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("delete",), "tcb-ops delete latest"),
        (("upload", "--resume", "latest", "--backup", "b"), "as it was started"),
    ],
    ids=["nothing to delete", "a backup without its list"],
)
def test_what_is_not_clear_is_refused_with_what_to_do(open_cli, words, says):
    result = open_cli()(*words)
    assert (result.code, says in result.err) == (2, True)


@pytest.mark.parametrize("command", ["undo", "delete"])
def test_a_live_target_needs_yes_without_a_terminal(open_cli, command):
    cli = open_cli()
    cli.upload()
    calls = sum(cli.workspace.sim.stats.values())
    result = cli(command, "latest", "--target", "https://api.weixin.qq.com")
    assert result.code == 2
    assert sum(cli.workspace.sim.stats.values()) == calls


def test_foreign_files_are_listed_before_anything_is_deleted(open_cli):
    cli = open_cli()
    result = cli("delete", "list.csv")
    assert result.code == 2
    assert (
        "30 files were not uploaded by a run of this ledger, or may have been deleted or replaced since:"
        in result.err
    )
    assert "and 10 more" in result.err
    assert cli("delete", "list.csv", "--foreign").code == 0  # all are already gone


def test_what_is_missing_is_uploaded_again_by_the_suggested_command_with_the_backup(open_cli):
    cli = open_cli()
    cli.upload("--backup", "backup")
    cli.workspace.sim.remove(cli.workspace.merchants[0].env, "banner/1.png")
    result = cli("confirm")
    assert result.code == 1
    assert "29 of 30 rows succeeded, 1 did not: 1 absent." in result.out
    (command,) = [line for line in result.err.splitlines() if line.startswith("tcb-ops upload")]
    assert f"--backup {cli.folder / 'backup'}" in command
    assert cli(*command.split()[1:]).code == 0
    assert cli("confirm").code == 0  # of the latest upload, the suggested one
    assert cli.latest().counts == {"present": 1}


def age(cli, days):
    """Make every run of the ledger older."""
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger, ledger:
        ledger.execute(
            f"UPDATE runs SET finished_at = finished_at - {days * 86400}, created_at = created_at - {days * 86400}"
        )


def test_old_runs_are_pruned_and_those_that_others_need_stay(open_cli):
    cli = open_cli()
    for _ in range(3):
        cli.upload("--new-run")
    age(cli, 200)
    cli("confirm", cli("runs", "--json").json["runs"][1]["run"])
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger:
        pages = ledger.execute("PRAGMA page_count").fetchone()
    ids = [run["run"] for run in cli("runs", "--json").json["runs"]]
    result = cli("prune", "--older-than", "180d", "--dry-run")
    assert result.code == 0
    assert "2 runs with 60 rows would be removed" in result.err
    assert len(cli("runs", "--json").json["runs"]) == 4
    assert set(cli("prune", "--older-than", "180d", "--json").json["removed"]) < set(ids)
    assert [run["kind"] for run in cli("runs", "--json").json["runs"]] == ["confirm", "upload"]
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger:
        assert ledger.execute("PRAGMA page_count").fetchone() < pages
        for table in ("rows", "envs", "exports"):
            left = f"SELECT COUNT(*) FROM {table} WHERE run NOT IN (SELECT number FROM runs)"
            assert ledger.execute(left).fetchone() == (0,), table
    assert cli("prune").code == 2
    assert cli("prune", "--older-than", "soon").code == 2


@pytest.mark.parametrize(
    ("earlier", "outcome"),
    [
        pytest.param([("upload",)], "not_undoable", id="uploaded"),
        pytest.param([("upload",), ("delete", "latest", "--yes")], "deleted", id="deleted-since"),
    ],
)
def test_undo_knows_what_pruned_runs_had_stored(open_cli, earlier, outcome):
    cli = open_cli(many(TEA, rows=2))
    for command, *words in earlier:
        assert (cli.upload() if command == "upload" else cli(command, *words)).code == 0
    age(cli, 200)
    assert len(cli("prune", "--older-than", "180d", "--json").json["removed"]) == len(earlier)
    for row in range(2):
        (cli.folder / "files" / f"{row}.bin").write_bytes(b"the next week's")
    assert cli.upload("--new-run").code == 0
    assert cli("undo", "--yes", "--json").json["counts"] == {outcome: 2}
    assert len(cli.workspace.sim.objects) == (2 if outcome == "not_undoable" else 0)


def test_an_unchanged_file_is_recognised_after_its_run_was_pruned(open_cli):
    cli = open_cli(many(TEA, rows=2))
    cli.upload()
    age(cli, 200)
    cli("prune", "--older-than", "180d")
    assert cli.upload("--skip-unchanged", "--json").json["counts"] == {"unchanged": 2}
