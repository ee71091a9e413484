"""Runs that a signal or Python ends: message, exit code, and how they are resumed, with the list or from the ledger alone."""

from __future__ import annotations

import csv
import json
import signal
from collections import Counter

import pytest
from free_ports import free_port
from workspace import BOOKS, TEA, TEA_TEST, cancel, many

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.run import find_handle

pytestmark = pytest.mark.slow

HELD = [Fault(delay=0.03)]
ROWS = many(TEA, TEA_TEST, BOOKS, rows=60)
FEW = ("--concurrency", "8", "--json")


def words(kind, *more):
    return (kind, "list.csv", *(("--root", "files") if kind == "upload" else ()), *more)


def counter(kind):
    return "stored" if kind == "upload" else "link:0"


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
    ("kind", "number", "code"),
    [
        ("links", signal.SIGINT, 130),
        ("upload", getattr(signal, "SIGHUP", None), 143),
        pytest.param("links", signal.SIGTERM, 143, marks=pytest.mark.soak),
    ],
)
def test_a_signal_ends_a_run_tidily_and_the_same_command_goes_on(open_cli, wait_for, kind, number, code):
    cli = open_cli(ROWS, HELD)
    with cli.process(*words(kind, *FEW)) as process:
        wait_for(lambda: cli.workspace.sim.stats[counter(kind)] >= 40)
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
    assert (process.returncode, "Traceback" in err) == (code, False)
    found = json.loads(out)
    assert 0 < cli.assert_complete(found, 180)["pending"] < 180
    assert f"To resume run {found['run']} (SIMULATED {cli.workspace.sim.base}):" in err
    assert "Unfinished:" in cli("show").out
    listed = cli("runs", "--json").json["runs"]
    assert [(one["run"], one["finished"]) for one in listed] == [(found["run"], False)]
    assert cli("report").code == 0, "what there is can be looked at"
    done = 180 - found["counts"]["pending"]
    result = cli(*words(kind, *FEW))
    first = result.err.splitlines()[0]
    assert first.startswith(
        f"SIMULATED {cli.workspace.sim.base} · tcb-ops.toml · Resuming run {found['run']}: {done} of 180 rows"
    )
    assert result.json["run"] == found["run"]
    assert_all_done(cli, kind, result)
    assert cli.workspace.sim.stats[counter(kind)] <= 180 + 2 * 8


@pytest.fixture
def stopped(open_cli):
    """A workspace with an unfinished run: the target was away. Its id comes along."""
    cli = open_cli(many(TEA, BOOKS, rows=5), port=free_port())
    result = cli.upload("--json", "--api-base", cli.workspace.sim.base, "--patience", "10", "--limit", "5")
    assert result.code == 0
    cli.workspace.sim.__exit__(None, None, None)
    away = cli.upload("--json", "--patience", "0.1")
    assert away.code == 3
    cli.workspace.sim.__enter__()
    return cli, away.json["run"]


def test_a_stopped_new_run_is_given_a_command_that_resumes_that_run(open_cli):
    cli = open_cli(many(TEA, rows=1))
    result = cli.upload("--new-run", "--api-base", "http://127.0.0.1:9", "--patience", "0.2")
    assert result.code == 3
    (again,) = [line for line in result.err.splitlines() if line.startswith("tcb-ops upload --resume ")]
    assert "--new-run" not in again
    assert "--target http://127.0.0.1:9" in again


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


def test_a_list_that_is_done_is_sent_again_but_not_without_a_word(open_cli):
    cli = open_cli()
    warning = "hold files that earlier runs of this ledger uploaded. --skip-unchanged leaves out"
    assert warning not in cli.upload("--json").err
    assert warning in cli.upload("--json").err
    assert warning not in cli.upload("--skip-unchanged").err


def cut_off(workspace, start, **options):
    """Begin a run and cancel it after the first rows."""
    going = start(workspace.read(), settings=workspace.settings, **options)
    next(going.watch())
    cancel(going)
    return str(going.id)


@pytest.fixture
def workspace(open_workspace):
    return open_workspace(many(TEA, rows=60), [Fault(delay=0.2)])


def test_a_run_is_gone_on_with_when_its_list_is_gone(workspace, assert_complete):
    run_id = cut_off(workspace, tcb.start_upload, note="nightly")
    workspace.list.unlink()
    run = tcb.resume(settings=workspace.settings)
    assert run.id == run_id
    assert run.record.note == "nightly"
    assert assert_complete(run, 60) == {"uploaded": 60}
    assert workspace.sim.stats["stored"] == 60


def test_links_go_on_into_their_own_file(workspace, assert_complete):
    cut_off(workspace, tcb.start_links, out=workspace.folder / "mine.csv")
    assert assert_complete(tcb.resume(settings=workspace.settings), 60) == {"linked": 60}
    assert len((workspace.folder / "mine.csv").read_text(encoding="utf-8").splitlines()) == 61


def test_a_canary_stays_one(open_workspace):
    workspace = open_workspace(faults=[Fault(env=TEA.env, path="banner/1.png", errcode=40097)])
    with pytest.raises(tcb.CanaryError):
        workspace.upload(canary=1)
    with pytest.raises(tcb.CanaryError):
        tcb.resume(settings=workspace.settings)


def test_who_works_on_a_run_is_known_while_it_is_worked_on(workspace):
    going = workspace.start_upload()
    assert find_handle(going.id) is going
    held = going.so_far().holder()
    assert f"Run {going.id} is being worked on by" in held.en
    run = going.wait()
    assert find_handle(going.id) is None
    assert run.holder() is None
