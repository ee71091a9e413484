"""Runs that a signal ends: what is said, with which exit code, and that the same command goes on."""

import csv
import json
import signal
import sqlite3
from collections import Counter
from contextlib import closing

import pytest
from workspace import BOOKS, TEA, TEA_TEST, many

from tcb_ops.simulator import Fault

HELD = [Fault(delay=0.01)]
ROWS = many(TEA, TEA_TEST, BOOKS, rows=60)
FEW = ("--concurrency", "8", "--json")


def words(kind, *more):
    return (kind, "list.csv", *(("--root", "files") if kind == "upload" else ()), *more)


def counter(kind):
    return "stored" if kind == "upload" else "link:0"


def stop_in_mid_run(desk, kind, number, until):
    """Start a run as a process, signal it when some rows are done, and give what it said."""
    with desk.process(*words(kind, *FEW)) as process:
        until(lambda: desk.shop.sim.stats[counter(kind)] >= 40)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return process.returncode, out, err


def assert_all_done(desk, kind, said):
    assert said.code == 0
    assert desk.whole(said.json, 180) == {"uploaded" if kind == "upload" else "linked": 180}
    listed = read_csv(desk.folder / "list.csv")
    if kind == "links":
        written = read_csv(desk.folder / "links.csv")
        assert [(row["env"], row["path"]) for row in written] == [(row["env"], row["path"]) for row in listed]
        assert all(row["errcode"] == "0" and row["url"] for row in written)
    else:
        held = Counter((b.split("-", 1)[1].rsplit("-", 1)[0], key) for b, key in desk.shop.sim.objects)
        assert held == Counter((row["env"], row["path"]) for row in listed)


def read_csv(file):
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.kill
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
@pytest.mark.parametrize("kind", ["links", "upload"])
def test_a_signal_ends_a_run_tidily_and_the_same_command_goes_on(open_desk, until, kind, number, code):
    desk = open_desk(ROWS, HELD)
    ended, out, err = stop_in_mid_run(desk, kind, number, until)
    assert ended == code
    found = json.loads(out)
    assert 0 < desk.whole(found, 180)["pending"] < 180
    assert f"To resume run {found['run']} (SIMULATED {desk.shop.sim.base}):" in err
    done = 180 - found["counts"]["pending"]
    said = desk(*words(kind, *FEW))
    first = said.err.splitlines()[0]
    assert first.startswith(
        f"SIMULATED {desk.shop.sim.base} · Resuming run {found['run']}: {done} of 180 rows"
    )
    assert said.json["run"] == found["run"]
    assert_all_done(desk, kind, said)
    assert desk.shop.sim.stats[counter(kind)] <= 180 + 2 * 8


@pytest.mark.kill
@pytest.mark.parametrize("kind", ["links", "upload"])
def test_a_killed_run_goes_on_and_sends_little_twice(open_desk, until, kind):
    desk = open_desk(ROWS, HELD)
    ended, out, _ = stop_in_mid_run(desk, kind, signal.SIGKILL, until)
    assert (ended, out) == (-signal.SIGKILL, "")
    said = desk(*words(kind, *FEW))
    assert said.json["run"] in said.err
    assert_all_done(desk, kind, said)
    assert desk.shop.sim.stats[counter(kind)] <= 180 + 2 * 8


@pytest.mark.kill
def test_a_run_that_was_stopped_says_so_where_runs_are_shown(open_desk, until):
    desk = open_desk(ROWS, HELD)
    _, out, _ = stop_in_mid_run(desk, "upload", signal.SIGINT, until)
    run = json.loads(out)["run"]
    assert "unfinished" in desk("show").out
    assert "Unfinished:" in desk("show").out
    listed = desk("runs", "--json").json["runs"]
    assert [(one["run"], one["finished"]) for one in listed] == [(run, False)]
    report = desk("report")
    assert report.code == 0, "what there is can be looked at"


@pytest.mark.slow
def test_two_at_once_do_not_work_on_one_run(open_desk, until):
    desk = open_desk(ROWS, [Fault(delay=0.05)])
    with desk.process(*words("upload", *FEW)) as process:
        until(lambda: desk.shop.sim.stats["stored"] >= 5)
        said = desk(*words("upload", *FEW))
        assert (said.code, said.out) == (2, "")
        assert "is being worked on by" in said.err
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.fixture
def stopped(open_desk):
    """A desk with an unfinished run: the target was away. Its id comes along."""
    desk = open_desk(many(TEA, BOOKS, rows=5))
    said = desk.upload("--json", "--api-base", desk.shop.sim.base, "--patience", "10", "--limit", "5")
    assert said.code == 0
    port = desk.shop.sim.port
    desk.shop.sim.__exit__(None, None, None)
    away = desk.upload("--json", "--patience", "0.1")
    assert away.code == 3
    desk.shop.sim.port = port
    desk.shop.sim.__enter__()
    return desk, away.json["run"]


def age(desk, run, hours):
    with closing(sqlite3.connect(desk.folder / "ledger.db")) as ledger, ledger:
        changed = ledger.execute(
            "UPDATE runs SET created_at = created_at - ? WHERE id = ?", (hours * 3600, run)
        )
        assert changed.rowcount == 1


def test_an_unfinished_run_is_gone_on_with_and_a_finished_one_never(stopped):
    desk, run = stopped
    assert desk.upload("--json").json["run"] == run
    fresh = desk.upload("--json")
    assert fresh.json["run"] != run
    assert "Resuming" not in fresh.err


def test_new_run_starts_another_run(stopped):
    desk, run = stopped
    said = desk.upload("--json", "--new-run")
    assert said.code == 0
    assert said.json["run"] != run


def test_a_stopped_new_run_is_given_a_command_that_resumes_that_run(open_desk):
    desk = open_desk(many(TEA, rows=1))
    said = desk.upload("--new-run", "--api-base", "http://127.0.0.1:9", "--patience", "0.2")
    assert said.code == 3
    (again,) = [line for line in said.err.splitlines() if line.startswith("tcb-ops upload --resume ")]
    assert "--new-run" not in again
    assert "--target http://127.0.0.1:9" in again


def test_resume_takes_a_prefix_and_refuses_what_does_not_fit(stopped):
    desk, run = stopped
    finished = next(one["run"] for one in desk("runs", "--json").json["runs"] if one["finished"])
    before = desk.calls
    for wanted, said in ((finished, "it is finished"), ("2", "give more of the id"), ("nope", "nope")):
        refused = desk.upload("--resume", wanted)
        assert refused.code == 2
        assert said in refused.err.lower(), refused.err
    assert desk.links("--resume", run).code == 2
    assert desk.calls == before
    assert desk.upload("--json", "--resume", run[:-1]).json["run"] == run


def test_a_run_over_a_day_old_is_named_with_both_ways_on(stopped):
    desk, run = stopped
    age(desk, run, 23)
    age(desk, run, 2)
    before = desk.calls
    said = desk.upload("--json")
    assert (said.code, said.out) == (2, "")
    assert f"--resume {run}" in said.err
    assert "--new-run" in said.err
    assert desk.calls == before
    assert desk.upload("--json", "--resume", run).json["run"] == run


def test_a_run_just_under_a_day_old_is_gone_on_with(stopped):
    desk, run = stopped
    age(desk, run, 23)
    assert desk.upload("--json").json["run"] == run


def test_another_list_another_root_or_another_target_is_another_run(stopped):
    desk, run = stopped
    (desk.folder / "elsewhere").mkdir()
    for file in (desk.folder / "files").iterdir():
        (desk.folder / "elsewhere" / file.name).write_bytes(file.read_bytes())
    assert desk("upload", "list.csv", "--root", "elsewhere", "--json").json["run"] != run
    listed = (desk.folder / "list.csv").read_bytes()
    (desk.folder / "list.csv").write_bytes(listed + b"\r\n")
    assert desk.upload("--json").json["run"] != run
    (desk.folder / "list.csv").write_bytes(listed)
    assert desk.upload("--json").json["run"] == run


def test_a_list_that_is_done_is_sent_again_but_not_without_a_word(open_desk):
    desk = open_desk()
    first = desk.upload("--json")
    assert "sent again" not in first.err
    again = desk.upload("--json")
    assert f"Run {first.json['run']} finished this list" in again.err
    assert "sent again" in again.err
    assert "sent again" not in desk.upload("--skip-unchanged").err


def test_a_run_that_lacks_only_its_report_is_resumed_and_not_said_to_be_sent_again(open_desk):
    desk = open_desk()
    first = desk.upload("--json").json["run"]
    with closing(sqlite3.connect(desk.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE runs SET report = ''")  # killed before it was written
    stored = desk.shop.sim.stats["stored"]
    again = desk.upload("--json")
    assert (again.json["run"], desk.shop.sim.stats["stored"]) == (first, stored)
    assert "sent again" not in again.err
    with closing(sqlite3.connect(desk.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE runs SET report = ''")
    assert f"Run {first} finished this list" in desk.upload("--new-run").err
