"""Which run a command means: a new one, or one to go on with."""

import sqlite3
from contextlib import closing
from datetime import datetime
from typing import Any

import pytest
from tables import table
from workspace import TEA, TEA_TEST, Workspace, many

import tcb_ops as tcb
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.engine.plan import choose, new_run_id
from tcb_ops.errors import PlatformStopError, UsageError
from tcb_ops.features.health.audit_kind import AUDIT
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.run import Run

DAY = 24 * 3600.0
STOP = [Fault(path="banner/1.png", errcode=61004)]


@table(
    "unfinished_since, kind, new_run, choice",
    {
        "none": (None, UPLOAD, False, "new"),
        "none-and-new-run": (None, UPLOAD, True, "new"),
        "under-a-day": (1000.0, UPLOAD, False, "resume"),
        "under-a-day-and-new-run": (1000.0, UPLOAD, True, "new"),
        "a-day": (1000.0 - DAY, UPLOAD, False, "ask"),
        "a-second-under-a-day": (1000.0 - DAY + 1, UPLOAD, False, "resume"),
        "older-and-new-run": (0.0, UPLOAD, True, "new"),
        "no-audit": (None, AUDIT, False, "new"),
        "audit-under-23-hours": (1000.0 - DAY * 23 / 24 + 1, AUDIT, False, "resume"),
        "audit-and-new-run": (1000.0 - DAY * 23 / 24 + 1, AUDIT, True, "new"),
        "audit-of-23-hours": (1000.0 - DAY * 23 / 24, AUDIT, False, "new"),
        "audit-of-two-days": (1000.0 - 2 * DAY, AUDIT, False, "new"),
    },
)
def test_an_unfinished_run_is_resumed_for_a_day_and_an_audit_for_23_hours(
    unfinished_since, kind, new_run, choice
):
    assert choose(unfinished_since, 1000.0, kind, new_run=new_run) is choice


def test_two_runs_of_one_second_never_share_an_id(open_workspace):
    workspace = open_workspace(many(TEA, rows=1))
    run_id = workspace.upload().id
    start = datetime.fromisoformat(run_id[:15].replace("-", "T"))
    digits = iter([run_id[16:], run_id[16:], "beef"])
    with closing(Ledger(workspace.settings.ledger)) as ledger:
        assert new_run_id(ledger, start, lambda: next(digits)) == f"{start:%Y%m%d-%H%M%S}-beef"


def stopped(workspace: Workspace, **options: Any) -> Run:
    """An unfinished run of the shop's list."""
    with pytest.raises(PlatformStopError):
        workspace.upload(**options)
    return tcb.open_run(settings=workspace.settings)


def begun(workspace: Workspace, run: Run, seconds_ago: float) -> None:
    """Date a run back."""
    with closing(sqlite3.connect(workspace.settings.ledger)) as ledger, ledger:
        ledger.execute("UPDATE runs SET created_at = created_at - ? WHERE id = ?", (seconds_ago, run.id))


def ids(workspace: Workspace) -> list[str]:
    return [run.id for run in tcb.runs(settings=workspace.settings)]


@pytest.fixture
def workspace(open_workspace):
    opened: Workspace = open_workspace(many(TEA, TEA_TEST, rows=3), STOP)
    return opened


def test_the_same_command_goes_on_and_new_run_does_not(workspace):
    run = stopped(workspace)
    assert stopped(workspace).id == run.id
    assert stopped(workspace, new_run=True).id != run.id
    assert len(ids(workspace)) == 2


def test_an_old_run_asks_and_without_an_answer_both_ways_out_are_named(workspace):
    run = stopped(workspace)
    begun(workspace, run, DAY + 60)
    sent = workspace.sim.stats["link_calls"]
    with pytest.raises(UsageError) as caught:
        workspace.upload()
    assert f"--resume {run.id}" in caught.value.text.en
    assert "--new-run" in caught.value.text.en
    assert workspace.sim.stats["link_calls"] == sent
    asked: list[str] = []

    def yes(run_id: str, _begun: float) -> bool:
        asked.append(run_id)
        return True

    stopped(workspace, may_resume=yes)
    assert asked == [run.id]
    stopped(workspace, resume=run.id)
    assert ids(workspace) == [run.id]


def change(workspace: Workspace, what: str) -> None:
    match what:
        case "finished":
            with closing(sqlite3.connect(workspace.settings.ledger)) as ledger, ledger:
                ledger.execute("UPDATE runs SET finished_at = 1.0")
        case "list":
            workspace.list.write_text(workspace.list.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        case "root":
            (workspace.folder / "files").rename(workspace.folder / "elsewhere")
            (workspace.folder / "files").symlink_to(workspace.folder / "elsewhere")


@pytest.mark.posix("links")
@pytest.mark.parametrize("changed", ["list", "root", "part"])
def test_a_changed_list_root_or_part_is_another_run(workspace, changed):
    with pytest.raises(PlatformStopError):
        tcb.upload(
            workspace.read().limited(5), settings=workspace.settings
        ) if changed == "part" else workspace.upload()
    run = tcb.open_run(settings=workspace.settings)
    change(workspace, changed)
    again = stopped(workspace)
    assert again.id != run.id
    assert stopped(workspace).id == again.id


def test_another_target_is_another_run(workspace):
    stopped(workspace)
    settings = workspace.with_options(api_base=workspace.sim.base.replace("127.0.0.1", "localhost"))
    with pytest.raises(tcb.TcbOpsError):
        workspace.upload(settings=settings)
    assert len(ids(workspace)) == 2


@pytest.mark.posix("links")
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ("finished", "it is finished"),
        ("kind", "it is upload to"),
        ("list", "the list has changed"),
        ("root", "its files are below"),
    ],
)
def test_resume_refuses_a_run_that_is_not_meant(workspace, changed, why):
    run = stopped(workspace)
    change(workspace, changed)
    call, options = tcb.upload, {"resume": run.id, "settings": workspace.settings}
    if changed == "kind":
        call, options = tcb.links, options | {"out": workspace.folder / "links.csv"}
    with pytest.raises(UsageError, match=why) as caught:
        call(workspace.read(), **options)
    assert run.id in str(caught.value)
    assert ids(workspace) == [run.id]


def test_a_list_with_a_column_of_links_csv_is_refused(workspace):
    text = workspace.list.read_text(encoding="utf-8").replace("备注", "URL", 1)
    workspace.list.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="URL"):
        tcb.links(workspace.read(), settings=workspace.settings, out=workspace.folder / "links.csv")
    assert ids(workspace) == []


def test_a_token_file_that_cannot_be_read_is_found_before_anything_is_planned(workspace):
    (workspace.folder / "tokens.csv").unlink()
    with pytest.raises(tcb.SettingsError, match=r"tokens\.csv"):
        workspace.upload()
    assert not (workspace.folder / "ledger.db").exists()


def test_a_runs_settings_say_how_it_was_told_to_work_without_secrets_of_the_note(workspace):
    run = stopped(workspace, note="see access_token=practice-token")
    assert run.record.note == "see access_token=•••"
    run = stopped(workspace, note="每周", new_run=True, limits=tcb.RunLimits(concurrency=3))
    assert (run.record.note, run.record.list_name, run.record.kind) == ("每周", "list.csv", "upload")
    assert run.record.settings.concurrency == 3
    assert run.record.settings.etag == "fail"
    assert run.record.rows == 6
