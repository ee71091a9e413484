"""Runs that a signal ends: message, exit code, and that the same command resumes them."""

import csv
import json
import signal
import sqlite3
from collections import Counter
from contextlib import closing

import pytest
from workspace import BOOKS, TEA, TEA_TEST, many

from tcb_ops.features.simulator import Fault

HELD = [Fault(delay=0.01)]
ROWS = many(TEA, TEA_TEST, BOOKS, rows=60)
FEW = ("--concurrency", "8", "--json")


def words(kind, *more):
    return (kind, "list.csv", *(("--root", "files") if kind == "upload" else ()), *more)


def counter(kind):
    return "stored" if kind == "upload" else "link:0"


def stop_in_mid_run(cli, kind, number, wait_for):
    """Start a run as a process, signal it when some rows are done, and give what it said."""
    with cli.process(*words(kind, *FEW)) as process:
        wait_for(lambda: cli.workspace.sim.stats[counter(kind)] >= 40)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return process.returncode, out, err


def assert_all_done(cli, kind, result):
    assert result.code == 0
    assert cli.assert_complete(result.json, 180) == {"uploaded" if kind == "upload" else "linked": 180}
    listed = read_csv(cli.folder / "list.csv")
    if kind == "links":
        written = read_csv(cli.folder / "links.csv")
        assert [(row["env"], row["path"]) for row in written] == [(row["env"], row["path"]) for row in listed]
        assert all(row["errcode"] == "0" and row["url"] for row in written)
    else:
        held = Counter((b.split("-", 1)[1].rsplit("-", 1)[0], key) for b, key in cli.workspace.sim.objects)
        assert held == Counter((row["env"], row["path"]) for row in listed)


def read_csv(file):
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.kill
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
@pytest.mark.parametrize("kind", ["links", "upload"])
def test_a_signal_ends_a_run_tidily_and_the_same_command_goes_on(open_cli, wait_for, kind, number, code):
    cli = open_cli(ROWS, HELD)
    ended, out, err = stop_in_mid_run(cli, kind, number, wait_for)
    assert ended == code
    found = json.loads(out)
    assert 0 < cli.assert_complete(found, 180)["pending"] < 180
    assert f"To resume run {found['run']} (SIMULATED {cli.workspace.sim.base}):" in err
    done = 180 - found["counts"]["pending"]
    result = cli(*words(kind, *FEW))
    first = result.err.splitlines()[0]
    assert first.startswith(
        f"SIMULATED {cli.workspace.sim.base} · tcb-ops.toml · Resuming run {found['run']}: {done} of 180 rows"
    )
    assert result.json["run"] == found["run"]
    assert_all_done(cli, kind, result)
    assert cli.workspace.sim.stats[counter(kind)] <= 180 + 2 * 8


@pytest.mark.kill
@pytest.mark.parametrize("kind", ["links", "upload"])
def test_a_killed_run_goes_on_and_sends_little_twice(open_cli, wait_for, kind):
    cli = open_cli(ROWS, HELD)
    ended, out, _ = stop_in_mid_run(cli, kind, signal.SIGKILL, wait_for)
    assert (ended, out) == (-signal.SIGKILL, "")
    result = cli(*words(kind, *FEW))
    assert result.json["run"] in result.err
    assert_all_done(cli, kind, result)
    assert cli.workspace.sim.stats[counter(kind)] <= 180 + 2 * 8


@pytest.mark.kill
def test_a_run_that_was_stopped_says_so_where_runs_are_shown(open_cli, wait_for):
    cli = open_cli(ROWS, HELD)
    _, out, _ = stop_in_mid_run(cli, "upload", signal.SIGINT, wait_for)
    run = json.loads(out)["run"]
    assert "unfinished" in cli("show").out
    assert "Unfinished:" in cli("show").out
    listed = cli("runs", "--json").json["runs"]
    assert [(one["run"], one["finished"]) for one in listed] == [(run, False)]
    report = cli("report")
    assert report.code == 0, "what there is can be looked at"


@pytest.mark.slow
def test_two_at_once_do_not_work_on_one_run(open_cli, wait_for):
    cli = open_cli(ROWS, [Fault(delay=0.05)])
    with cli.process(*words("upload", *FEW)) as process:
        wait_for(lambda: cli.workspace.sim.stats["stored"] >= 5)
        result = cli(*words("upload", *FEW))
        assert (result.code, result.out) == (2, "")
        assert "is being worked on by" in result.err
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.fixture
def stopped(open_cli):
    """A workspace with an unfinished run: the target was away. Its id comes along."""
    cli = open_cli(many(TEA, BOOKS, rows=5))
    result = cli.upload("--json", "--api-base", cli.workspace.sim.base, "--patience", "10", "--limit", "5")
    assert result.code == 0
    port = cli.workspace.sim.port
    cli.workspace.sim.__exit__(None, None, None)
    away = cli.upload("--json", "--patience", "0.1")
    assert away.code == 3
    cli.workspace.sim.port = port
    cli.workspace.sim.__enter__()
    return cli, away.json["run"]


def age(cli, run, hours):
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger, ledger:
        changed = ledger.execute(
            "UPDATE runs SET created_at = created_at - ? WHERE id = ?", (hours * 3600, run)
        )
        assert changed.rowcount == 1


@pytest.mark.slow
def test_an_unfinished_run_is_gone_on_with_and_a_finished_one_never(stopped):
    cli, run = stopped
    assert cli.upload("--json").json["run"] == run
    fresh = cli.upload("--json")
    assert fresh.json["run"] != run
    assert "Resuming" not in fresh.err


@pytest.mark.slow
def test_new_run_starts_another_run(stopped):
    cli, run = stopped
    result = cli.upload("--json", "--new-run")
    assert result.code == 0
    assert result.json["run"] != run


def test_a_stopped_new_run_is_given_a_command_that_resumes_that_run(open_cli):
    cli = open_cli(many(TEA, rows=1))
    result = cli.upload("--new-run", "--api-base", "http://127.0.0.1:9", "--patience", "0.2")
    assert result.code == 3
    (again,) = [line for line in result.err.splitlines() if line.startswith("tcb-ops upload --resume ")]
    assert "--new-run" not in again
    assert "--target http://127.0.0.1:9" in again


@pytest.mark.slow
def test_resume_takes_a_prefix_and_refuses_what_does_not_fit(stopped):
    cli, run = stopped
    finished = next(one["run"] for one in cli("runs", "--json").json["runs"] if one["finished"])
    before = cli.calls
    for wanted, result in ((finished, "it is finished"), ("2", "give more of the id"), ("nope", "nope")):
        refused = cli.upload("--resume", wanted)
        assert refused.code == 2
        assert result in refused.err.lower(), refused.err
    assert cli.links("--resume", run).code == 2
    assert cli.calls == before
    assert cli.upload("--json", "--resume", run[:-1]).json["run"] == run


@pytest.mark.slow
def test_a_run_over_a_day_old_is_named_with_both_ways_on(stopped):
    cli, run = stopped
    age(cli, run, 23)
    age(cli, run, 2)
    before = cli.calls
    result = cli.upload("--json")
    assert (result.code, result.out) == (2, "")
    assert f"--resume {run}" in result.err
    assert "--new-run" in result.err
    assert cli.calls == before
    assert cli.upload("--json", "--resume", run).json["run"] == run


@pytest.mark.slow
def test_another_list_another_root_or_another_target_is_another_run(stopped):
    cli, run = stopped
    (cli.folder / "elsewhere").mkdir()
    for file in (cli.folder / "files").iterdir():
        (cli.folder / "elsewhere" / file.name).write_bytes(file.read_bytes())
    assert cli("upload", "list.csv", "--root", "elsewhere", "--json").json["run"] != run
    listed = (cli.folder / "list.csv").read_bytes()
    (cli.folder / "list.csv").write_bytes(listed + b"\r\n")
    assert cli.upload("--json").json["run"] != run
    (cli.folder / "list.csv").write_bytes(listed)
    assert cli.upload("--json").json["run"] == run


@pytest.mark.slow
def test_a_list_that_is_done_is_sent_again_but_not_without_a_word(open_cli):
    cli = open_cli()
    warning = "hold files that earlier runs of this ledger uploaded. --skip-unchanged leaves out"
    assert warning not in cli.upload("--json").err
    assert warning in cli.upload("--json").err
    assert warning not in cli.upload("--skip-unchanged").err


@pytest.mark.slow
def test_a_run_that_lacks_only_its_report_is_resumed(open_cli):
    cli = open_cli()
    first = cli.upload("--json").json["run"]
    with closing(sqlite3.connect(cli.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE runs SET report = ''")  # killed before it was written
    stored = cli.workspace.sim.stats["stored"]
    assert (cli.upload("--json").json["run"], cli.workspace.sim.stats["stored"]) == (first, stored)
