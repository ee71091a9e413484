"""Which run a command means: a new one, or one to go on with."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from workspace import TEA, TEA_TEST, OpenWorkspace, Workspace, many

import tcb_ops as tcb
from tcb_ops.errors import PlatformStopError, UsageError
from tcb_ops.features.audit.kind import AUDIT
from tcb_ops.features.simulator import Fault
from tcb_ops.kinds import Kind
from tcb_ops.runs.list_kinds import UPLOAD
from tcb_ops.runs.plan import Choice, choose

if TYPE_CHECKING:
    from tcb_ops.run import Run

DAY = 24 * 3600.0
STOP = [Fault(path="banner/1.png", errcode=61004)]


@pytest.mark.parametrize(
    ("unfinished_since", "kind", "new_run", "choice"),
    [
        pytest.param(None, UPLOAD, False, Choice.NEW, id="none"),
        pytest.param(None, UPLOAD, True, Choice.NEW, id="none-and-new-run"),
        pytest.param(1000.0, UPLOAD, False, Choice.RESUME, id="under-a-day"),
        pytest.param(1000.0, UPLOAD, True, Choice.NEW, id="under-a-day-and-new-run"),
        pytest.param(1000.0 - DAY, UPLOAD, False, Choice.ASK, id="a-day"),
        pytest.param(1000.0 - DAY + 1, UPLOAD, False, Choice.RESUME, id="a-second-under-a-day"),
        pytest.param(0.0, UPLOAD, True, Choice.NEW, id="older-and-new-run"),
        pytest.param(None, AUDIT, False, Choice.NEW, id="no-audit"),
        pytest.param(1000.0 - DAY * 23 / 24 + 1, AUDIT, False, Choice.RESUME, id="audit-under-23-hours"),
        pytest.param(1000.0 - DAY * 23 / 24 + 1, AUDIT, True, Choice.NEW, id="audit-and-new-run"),
        pytest.param(1000.0 - DAY * 23 / 24, AUDIT, False, Choice.NEW, id="audit-of-23-hours"),
        pytest.param(1000.0 - 2 * DAY, AUDIT, False, Choice.NEW, id="audit-of-two-days"),
    ],
)
def test_an_unfinished_run_is_resumed_for_a_day_and_an_audit_for_23_hours(
    unfinished_since: float | None, kind: Kind, new_run: bool, choice: Choice
) -> None:
    assert choose(unfinished_since, 1000.0, kind, new_run=new_run) is choice


def stopped(workspace: Workspace, **options: Any) -> Run:
    """An unfinished run of the shop's list."""
    with pytest.raises(PlatformStopError):
        tcb.upload(workspace.read(), settings=workspace.settings, **options)
    return tcb.open_run(settings=workspace.settings)


def begun(workspace: Workspace, run: Run, seconds_ago: float) -> None:
    """Date a run back."""
    with closing(sqlite3.connect(workspace.settings.ledger)) as ledger, ledger:
        ledger.execute("UPDATE runs SET created_at = created_at - ? WHERE id = ?", (seconds_ago, run.id))


def ids(workspace: Workspace) -> list[str]:
    return [run.id for run in tcb.all_runs(settings=workspace.settings)]


@pytest.fixture
def workspace(open_workspace: OpenWorkspace) -> Workspace:
    opened: Workspace = open_workspace(many(TEA, TEA_TEST, rows=3), STOP)
    return opened


def test_the_same_command_goes_on_and_new_run_does_not(workspace: Workspace) -> None:
    run = stopped(workspace)
    assert stopped(workspace).id == run.id
    assert stopped(workspace, new_run=True).id != run.id
    assert len(ids(workspace)) == 2


def test_an_old_run_asks_and_without_an_answer_both_ways_out_are_named(workspace: Workspace) -> None:
    run = stopped(workspace)
    begun(workspace, run, DAY + 60)
    sent = workspace.sim.stats["link_calls"]
    with pytest.raises(UsageError) as caught:
        tcb.upload(workspace.read(), settings=workspace.settings)
    for result in (caught.value.text.en, caught.value.text.zh):
        assert f"--resume {run.id}" in result
        assert "--new-run" in result
    assert workspace.sim.stats["link_calls"] == sent
    asked: list[str] = []

    def yes(run_id: str, _begun: float) -> bool:
        asked.append(run_id)
        return True

    stopped(workspace, may_resume=yes)
    assert asked == [run.id]
    stopped(workspace, resume=run.id)
    assert ids(workspace) == [run.id]


def test_another_part_of_the_list_is_another_run(workspace: Workspace) -> None:
    first = stopped(workspace, selection="--where region=华东")
    second = stopped(workspace)
    assert second.id != first.id
    stopped(workspace)
    assert len(ids(workspace)) == 2


@pytest.mark.parametrize("change", ["list", "root", "target"])
def test_a_changed_list_root_or_target_is_another_run(workspace: Workspace, change: str) -> None:
    run = stopped(workspace)
    match change:
        case "list":
            workspace.list.write_text(workspace.list.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        case "root":
            (workspace.folder / "files").rename(workspace.folder / "elsewhere")
            (workspace.folder / "files").symlink_to(workspace.folder / "elsewhere")
        case _:
            settings = workspace.with_options(api_base=workspace.sim.base.replace("127.0.0.1", "localhost"))
            with pytest.raises(tcb.TcbOpsError):
                tcb.upload(workspace.read(), settings=settings)
    if change != "target":
        assert stopped(workspace).id != run.id
    assert len(ids(workspace)) == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("finished", "it is finished"),
        ("kind", "it is upload to"),
        ("list", "the list has changed"),
        ("root", "its files are below"),
    ],
)
def test_resume_refuses_a_run_that_is_not_meant(workspace: Workspace, change: str, why: str) -> None:
    run = stopped(workspace)
    call, options = tcb.upload, {"resume": run.id, "settings": workspace.settings}
    match change:
        case "finished":
            with closing(sqlite3.connect(workspace.settings.ledger)) as ledger, ledger:
                ledger.execute("UPDATE runs SET finished_at = 1.0")
        case "kind":
            call, options = tcb.links, options | {"out": workspace.folder / "links.csv"}
        case "list":
            workspace.list.write_text(workspace.list.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        case "root":
            (workspace.folder / "files").rename(workspace.folder / "elsewhere")
            (workspace.folder / "files").symlink_to(workspace.folder / "elsewhere")
    with pytest.raises(UsageError, match=why) as caught:
        call(workspace.read(), **options)
    assert run.id in caught.value.text.zh
    assert ids(workspace) == [run.id]


def test_a_list_with_a_column_of_links_csv_is_refused(workspace: Workspace) -> None:
    text = workspace.list.read_text(encoding="utf-8").replace("备注", "URL", 1)
    workspace.list.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="URL"):
        tcb.links(workspace.read(), settings=workspace.settings, out=workspace.folder / "links.csv")
    assert ids(workspace) == []


def test_a_token_file_that_cannot_be_read_is_found_before_anything_is_planned(workspace: Workspace) -> None:
    (workspace.folder / "tokens.csv").unlink()
    with pytest.raises(tcb.SettingsError, match=r"tokens\.csv"):
        tcb.upload(workspace.read(), settings=workspace.settings)
    assert not (workspace.folder / "ledger.db").exists()


def test_a_runs_settings_say_how_it_was_told_to_work(workspace: Workspace) -> None:
    run = stopped(workspace, note="每周", limits=tcb.RunLimits(concurrency=3))
    assert (run.record.note, run.record.list_name, run.record.kind) == ("每周", "list.csv", "upload")
    assert run.record.settings["concurrency"] == 3
    assert run.record.settings["etag"] == "fail"
    assert run.record.rows == 6
