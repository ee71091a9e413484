"""Runs move between ledgers whole, or not at all."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from postgres import PASSWORD
from workspace import BOOKS, QUICK, TEA, TEA_TEST, OpenWorkspace, Workspace, many

import tcb_ops as tcb
from tcb_ops.api import copy_runs
from tcb_ops.cli.main import run as run_command
from tcb_ops.model import Outcome, Row, RowEnd
from tcb_ops.runs import ledger as ledger_module
from tcb_ops.runs import ledger_copy
from tcb_ops.runs.audit_kind import AUDIT
from tcb_ops.runs.cluster_task import FencedError, PartitionLedger
from tcb_ops.runs.coordinator import CoordinatorLedger
from tcb_ops.runs.ledger import HAND_OVER, Ledger
from tcb_ops.runs.ledger_copy import together
from tcb_ops.runs.links import LINKS
from tcb_ops.runs.locks import hold, process_identity
from tcb_ops.runs.records import EnvRecord, NewRun, RunRecord, Usage
from tcb_ops.runs.uploads import UPLOAD
from tcb_ops.simulator import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from postgres import Postgres

FAULTS = (
    Fault(path="banner/1.png", errcode=85088),
    Fault(env=BOOKS.env, path="banner/2.png", step="store", code="AccessDenied", status=403),  # type: ignore[arg-type]
)


@pytest.fixture
def url(postgres: Postgres, database: str) -> str:
    return postgres.url(database)


@pytest.fixture
def worked(open_workspace: OpenWorkspace, tmp_path: Path) -> Workspace:
    """A shop whose ledger has uploads, a retry, audits, a confirmation and an undo, and a run that was cut off."""
    workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=4), FAULTS)
    settings = workspace.settings
    tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    first = tcb.upload(
        workspace.read(), settings=settings, limits=QUICK, backup=tmp_path / "kept", note="十一月"
    )
    tcb.retry(first, workspace.merchants, settings=settings, limits=QUICK)
    tcb.confirm(first, settings=settings, limits=QUICK)
    tcb.undo(first, settings=settings, limits=QUICK)
    tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    going = tcb.start_links(workspace.read(), settings=settings, limits=QUICK, out=tmp_path / "links.csv")
    going.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        going.wait()
    return workspace


def a_run(run_id: str = "run-1", **more: Any) -> NewRun:
    made: dict[str, Any] = {
        "kind": UPLOAD, "target": "http://127.0.0.1:1", "list_name": "list.csv", "list_sha256": "a" * 64,
        "list_bytes": 1, "headers": ("env",), "root": "", "settings": {}, "note": "", "operator": "li", "host": "ops",
        "out": "", "created_at": 1e9,
    }  # fmt: skip
    return NewRun(id=run_id, **made | more)


def plan(ledger: Ledger, new: NewRun, rows: int) -> RunRecord:
    where = EnvRecord(0, TEA.env, TEA.appid, TEA.name, "merchant", left=False)
    listed = (
        Row(n + 2, TEA.env, f"{'a' * 500}/{n}.png", TEA.appid, TEA.name, f"{n}.png", ("x" * 500,))
        for n in range(rows)
    )
    return ledger.plan(new, listed, [where])


def everything(where: str) -> list[Any]:
    """What a ledger says of every run, the oldest first."""
    with closing(Ledger(where)) as ledger:
        found = []
        for run in reversed(ledger.runs()):
            about = {name: getattr(run, name) for name in RunRecord.__dataclass_fields__ if name != "number"}
            previous, confirmed = ledger.previous(run), ledger.confirmation(run)
            found.append(
                (
                    about,
                    list(ledger.rows(run)),
                    ledger.envs(run),
                    ledger.tallies(run),
                    ledger._has_sums(run),
                    ledger.phase_seconds(run),
                    ledger.exports(run),
                    [retry.id for retry in ledger.retries(run)],
                    previous.id if previous else None,
                    confirmed,
                )
            )
        return found


def exported(workspace: Workspace, where: str, folder: Path) -> dict[str, bytes]:
    """The CSVs of the reports of all runs of a ledger."""
    settings = workspace.with_options(ledger=where)
    files = {}
    for run in tcb.all_runs(settings=settings):
        if run.record.finished_at is not None:
            report = run.export(folder / run.id, pdf=False)
            files |= {f"{run.id}/{file.name}": file.read_bytes() for file in report.glob("*.csv")}
    return files


@pytest.mark.slow
def test_a_ledger_goes_to_postgresql_and_back_as_it_was(worked: Workspace, url: str, tmp_path: Path) -> None:
    first, back = worked.settings.ledger, str(tmp_path / "back.db")
    upload = next(run for run in tcb.all_runs(settings=worked.settings) if run.record.kind is UPLOAD)
    folder = upload.export(tmp_path / "report", pdf=False)
    before = everything(first)
    seen: list[tuple[int, int, int]] = []
    moved = copy_runs(first, url, progress=lambda *now: seen.append(now), settings=worked.settings)
    again = copy_runs(url, back, settings=worked.settings)
    assert moved.runs == again.runs == tuple(one[0]["id"] for one in before)
    assert len(moved.runs) == 7
    assert (moved.there, moved.rows) == ((), sum(len(one[1]) for one in before))
    assert seen[-1] == (7, 7, moved.rows)
    assert everything(url) == before
    assert everything(back) == before
    ours = exported(worked, first, tmp_path / "a")
    assert any(name.endswith("/results.csv") for name in ours)
    assert any(name.endswith("/errcodes.csv") for name in ours)
    assert ours == exported(worked, url, tmp_path / "b") == exported(worked, back, tmp_path / "c")
    assert tcb.verify(folder, settings=worked.with_options(ledger=back)).good


@pytest.mark.slow
def test_a_run_that_was_cut_off_is_resumed_in_the_other_ledger(worked: Workspace, tmp_path: Path) -> None:
    copy_runs(worked.settings.ledger, tmp_path / "b.db", settings=worked.settings)
    settings = worked.with_options(ledger=str(tmp_path / "b.db"))
    run = tcb.resume("latest", settings=settings, limits=QUICK)
    assert run.record.kind is LINKS
    assert "pending" not in run.counts


@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
@pytest.mark.kill
def test_a_copy_that_is_killed_leaves_no_half_run_and_is_completed(
    to: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = tmp_path / "a.db"
    dest = str(tmp_path / "b.db") if to == "sqlite" else request.getfixturevalue("url")
    with closing(Ledger(str(source))) as ledger:
        for number in (1, 2, 3):
            plan(ledger, a_run(f"run-{number}", created_at=1e9 + number), rows=1_000)
    code = (
        "import os, sys; from tcb_ops.api import copy_runs; from tcb_ops.runs import ledger_copy; "
        "ledger_copy.BATCH = 100; "
        "copy_runs(*sys.argv[1:], progress=lambda _d, _n, rows: rows == 1500 and os.kill(os.getpid(), 9))"
    )
    killed = subprocess.run([sys.executable, "-c", code, source, dest], check=False, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    with closing(Ledger(dest)) as ledger:
        assert [run.id for run in ledger.runs()] == ["run-1"]
        assert len(list(ledger.rows(ledger.run("run-1")))) == 1_000
    done = copy_runs(source, dest)
    assert (done.there, done.runs, done.rows) == (("run-1",), ("run-2", "run-3"), 2_000)
    assert copy_runs(source, dest).runs == ()
    with closing(Ledger(dest)) as ledger, closing(Ledger(str(source))) as ours:
        assert [run.id for run in ledger.runs()] == ["run-3", "run-2", "run-1"]
        for run in ledger.runs():
            assert list(ledger.rows(run)) == list(ours.rows(ours.run(run.id)))


@pytest.mark.slow
def test_the_memory_of_a_copy_does_not_grow_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_copy, "BATCH", 500)
    monkeypatch.setattr("tcb_ops.runs.reader.BATCH", 500)
    with closing(Ledger(str(tmp_path / "a.db"))) as ledger:
        plan(ledger, a_run(), rows=20_000)
    copy_runs(tmp_path / "a.db", tmp_path / "first.db")  # loads modules
    tracemalloc.start()
    try:
        copy_runs(tmp_path / "a.db", tmp_path / "b.db")
        copy_runs(tmp_path / "a.db", tmp_path / "b.db")
        assert tracemalloc.get_traced_memory()[1] < 8_000_000, "the rows have 20 MB"
    finally:
        tracemalloc.stop()


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_differs_is_refused_unchanged(worked: Workspace, tmp_path: Path) -> None:
    source, dest = worked.settings.ledger, str(tmp_path / "b.db")
    copy_runs(source, dest, settings=worked.settings)
    tcb.resume("latest", settings=worked.settings, limits=QUICK)
    before = everything(dest)
    with pytest.raises(tcb.UsageError, match=r"is in .*b\.db already, but not as it is to be copied"):
        copy_runs(source, dest, settings=worked.settings)
    assert everything(dest) == before


def test_a_run_with_one_other_row_differs(tmp_path: Path) -> None:
    with closing(Ledger(str(tmp_path / "a.db"))) as ledger:
        plan(ledger, a_run(), rows=30)
    copy_runs(tmp_path / "a.db", tmp_path / "b.db")
    with closing(sqlite3.connect(tmp_path / "b.db")) as connection, connection:
        connection.execute("UPDATE rows SET md5 = 'x' WHERE line = 30")
    with pytest.raises(tcb.UsageError, match="not as it is to be copied"):
        copy_runs(tmp_path / "a.db", tmp_path / "b.db")


@pytest.mark.slow
def test_a_later_report_makes_no_difference(worked: Workspace, tmp_path: Path) -> None:
    source, dest = worked.settings.ledger, str(tmp_path / "b.db")
    copy_runs(source, dest, settings=worked.settings)
    exported(worked, dest, tmp_path / "reports")
    assert copy_runs(source, dest, settings=worked.settings).runs == ()


def test_a_message_that_arrives_later_makes_no_difference(tmp_path: Path) -> None:
    with closing(Ledger(str(tmp_path / "a.db"))) as ledger:
        run = plan(ledger, a_run(), rows=3)
        copy_runs(tmp_path / "a.db", tmp_path / "b.db")
        ledger.note_undelivered(run, ["wecom robot.url"])
    assert copy_runs(tmp_path / "a.db", tmp_path / "b.db").runs == ()


@pytest.mark.parametrize("held", ["from", "to"])
def test_a_run_that_is_worked_on_is_refused_with_who_does(held: str, tmp_path: Path) -> None:
    source, dest = tmp_path / "a.db", tmp_path / "b.db"
    with closing(Ledger(str(source))) as ours, closing(Ledger(str(dest))) as theirs:
        plan(ours, a_run(), rows=3)
        with (
            hold(ours if held == "from" else theirs, "run-1"),
            pytest.raises(tcb.UsageError, match=f"run-1 is being worked on by {process_identity()}"),
        ):
            copy_runs(source, dest)
        assert theirs.runs() == []
        assert copy_runs(source, dest).runs == ("run-1",)


def test_a_copy_waits_for_the_workers_of_a_starting_process_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, dest = str(tmp_path / "a.db"), tmp_path / "b.db"
    with closing(CoordinatorLedger(source)) as ledger:
        run = plan(ledger, a_run(), rows=3)
        session = ledger.begin(run)
        ledger.add_partitions(run, session, [ledger.environments(run)], 0)
        with closing(PartitionLedger(source, run.id, session, 0, "ops-1/11")) as worker:
            worker.claim()
            end, late = (RowEnd(line, Outcome.UPLOADED, attempts=2, bytes=1, ended_at=2.0) for line in (2, 3))

            def record_what_was_in_flight(seconds: float) -> None:
                assert seconds == HAND_OVER
                worker.renew({})
                assert worker.stopping
                worker.record(worker.partition_run(), [end], Usage())

            monkeypatch.setattr(ledger_module.time, "sleep", record_what_was_in_flight)
            assert copy_runs(source, dest).runs == ("run-1",)
            monkeypatch.undo()
            with pytest.raises(FencedError):
                worker.record(worker.partition_run(), [late], Usage())
        for where in (source, str(dest)):
            with closing(Ledger(where)) as one:
                assert one.counts(one.run("run-1")) == {Outcome.UPLOADED: 1, Outcome.PENDING: 2}
        assert copy_runs(source, dest).there == ("run-1",), "the second one does not wait"


@pytest.mark.slow
def test_a_database_is_recognised_under_another_url(
    url: str, postgres: Postgres, database: str, tmp_path: Path
) -> None:
    postgres.run("CREATE SCHEMA other", database)
    again = f"postgresql+psycopg:///{database}?user=postgres&host=localhost&hostaddr=127.0.0.1&port={postgres.port}"
    with closing(Ledger(url)) as ledger:
        plan(ledger, a_run(), rows=3)
    with pytest.raises(tcb.UsageError, match="cannot be copied into itself"):
        copy_runs(url, again)
    with closing(Ledger(str(tmp_path / "a.db"))) as ledger:
        plan(ledger, a_run("run-2"), rows=3)
    assert copy_runs(tmp_path / "a.db", again).runs == ("run-2",)
    assert copy_runs(url, f"{url}?options=-csearch_path%3Dother").runs == ("run-1", "run-2")


def test_what_cannot_be_copied_is_said(tmp_path: Path) -> None:
    source = tmp_path / "a.db"
    with closing(Ledger(str(source))) as ledger:
        plan(ledger, a_run(), rows=3)
    (tmp_path / "link.db").symlink_to(source)
    (tmp_path / "hard.db").hardlink_to(source)
    (tmp_path / "text.db").write_text("not a ledger", encoding="utf-8")
    for dest, told in (
        (source, "cannot be copied into itself"),
        (tmp_path / "link.db", "cannot be copied into itself"),
        (tmp_path / "hard.db", "cannot be copied into itself"),
        (f"sqlite:///{source}", "cannot be copied into itself"),
        (tmp_path / "text.db", "it is not an SQLite file"),
        (tmp_path / "nowhere" / "b.db", "does not exist"),
        ("mysql://op:hunter2@127.0.0.1/runs", "cannot be the ledger"),
    ):
        with pytest.raises(tcb.UsageError, match=told) as caught:
            copy_runs(source, dest)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(tcb.UsageError, match=r"nosuch\.db does not exist"):
        copy_runs(tmp_path / "nosuch.db", tmp_path / "b.db")
    assert not (tmp_path / "nosuch.db").exists()
    with pytest.raises(tcb.RunNotFoundError, match="no run 'nosuch'"):
        copy_runs(source, tmp_path / "b.db", ["nosuch"])


def test_a_ledger_of_a_later_version_is_refused_on_either_side(tmp_path: Path) -> None:
    for name in ("old.db", "new.db"):
        with closing(Ledger(str(tmp_path / name))) as ledger:
            plan(ledger, a_run(), rows=1)
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection, connection:
        connection.execute("UPDATE tcb_ops SET version = 99")
    for pair in (("old.db", "new.db"), ("new.db", "old.db"), ("new.db", "third.db")):
        with pytest.raises(tcb.UsageError, match="its schema version is 99"):
            copy_runs(*(tmp_path / name for name in pair))


# --- which runs ------------------------------------------------------------------------------------------------------


def recorded(number: int, parent: str = "", **settings: Any) -> RunRecord:
    values = {name: getattr(a_run(f"r{number}"), name) for name in NewRun.__dataclass_fields__}
    return RunRecord(**values | {"parent": parent, "settings": settings}, number=number)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, "r1 r2 r3 r4 r5 r6"),
        ({"r6"}, "r6"),
        ({"r2"}, "r1 r2 r3 r4"),
        ({"r4"}, "r1 r2 r3 r4"),
        ({"r5", "r6"}, "r5 r6"),
    ],
)
def test_runs_that_belong_together_go_together(wanted: set[str] | None, found: str) -> None:
    listed = [
        recorded(1),
        recorded(2, parent="r1"),
        recorded(3, of=["r1", "r2"]),
        recorded(4, undoes="r1", of=["r1", "r2"]),
        recorded(5, parent="pruned"),
        recorded(6),
    ]
    assert [run.id for run in together(listed[::-1], wanted)] == found.split()


@pytest.mark.slow
def test_an_audit_takes_along_the_one_that_it_is_compared_with(worked: Workspace, tmp_path: Path) -> None:
    audits = [run for run in tcb.all_runs(settings=worked.settings) if run.record.kind is AUDIT]
    copied = copy_runs(
        worked.settings.ledger, tmp_path / "b.db", [audits[0].id[:-1]], settings=worked.settings
    )
    assert copied.runs == (audits[1].id, audits[0].id)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_says_what_it_copies_and_no_password(
    worked: Workspace, postgres: Postgres, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def typed(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return run_command(words), *capsys.readouterr()

    postgres.run("GRANT CREATE ON SCHEMA public TO guarded", database)
    url = f"postgresql+psycopg://guarded:{PASSWORD}@127.0.0.1:{postgres.port}/{database}"
    source, result = worked.settings.ledger, list[str]()
    code, out, err = typed("ledger", "copy", source, url)
    result += [out, err]
    assert code == 0
    assert out.startswith("7 runs with ")
    assert f"postgresql+psycopg://guarded@127.0.0.1:{postgres.port}/{database}" in out
    assert "can be seen in this machine's process list" in err
    code, out, err = typed("ledger", "copy", source, url, "latest", "--json", "--target", worked.sim.base)
    result += [out, err]
    found = json.loads(out)
    assert (code, found["copied"], found["rows"], len(found["there"])) == (0, [], 0, 1)
    for words in ((url, "nowhere/b.db"), (source, url, "--where", "name=x"), (source, url + "x"), (url, url)):
        code, out, err = typed("ledger", "copy", *words)
        result += [out, err]
        assert (code, out) == (2, "")
    assert [text for text in result if PASSWORD in text] == []
