"""Runs that end early, by whatever means, and go on: nothing lost, nothing done twice that the ledger calls done."""

import asyncio
import csv
import os
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from free_ports import free_port
from rigged_simulator import Simulator
from workspace import BOOKS, QUICK, TEA, TEA_TEST, AssertComplete, Workspace, cancel, many

import tcb_ops as tcb
from tcb_ops.engine import scheduler
from tcb_ops.engine.limits import RunLimits
from tcb_ops.engine.progress import Progress
from tcb_ops.errors import OutageError, PlatformStopError
from tcb_ops.features.simulator.faults import Fault, FaultStep
from tcb_ops.model import Merchant, Outcome
from tcb_ops.run import Run
from tcb_ops.signals import handled
from tcb_ops.wechat.tokens import FileTokens

pytestmark = pytest.mark.slow

FEW = RunLimits(concurrency=8, per_env=4, backoff=0.01, slow_wait=0.05, patience=0.3)
HELD = [Fault(delay=0.03)]
"""Calls that take long enough for a test to act in mid-run."""

START = """
import sys
import tcb_ops as tcb
kind, folder, base, concurrency = sys.argv[1:]
settings = tcb.load_settings(options={
    "api_base": base, "ledger": folder + "/ledger.db", "lang": "en",
    "tokens": {"source": "file", "file": folder + "/tokens.csv"},
})
merchants = tcb.read_merchants(folder + "/merchants.csv")
batch = tcb.read_paths(folder + "/list.csv", merchants, folder + "/files")
options = {"settings": settings, "limits": tcb.RunLimits(concurrency=int(concurrency), per_env=4)}
print("ready", flush=True)
sys.stdin.readline()
try:
    if kind == "links":
        tcb.links(batch, out=folder + "/links.csv", **options)
    else:
        tcb.upload(batch, **options)
except tcb.UsageError as error:
    print(error)
    sys.exit(2)
"""
"""A run in a process of its own, which waits for a line before it begins."""


def started(workspace: Workspace, kind: str = "upload", concurrency: int = 8) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", START, kind, str(workspace.folder), workspace.sim.base, str(concurrency)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(argv, text=True, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


def begin(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()


def start(workspace: Workspace, kind: str, limits: RunLimits = FEW, **options: Any) -> tcb.RunHandle:
    options |= {"settings": workspace.settings, "limits": limits}
    if kind == "links":
        return tcb.start_links(workspace.read(), out=workspace.folder / "links.csv", **options)
    return workspace.start_upload(**options)


def latest(workspace: Workspace) -> Run:
    return tcb.open_run(settings=workspace.settings)


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def assert_all_done(
    workspace: Workspace, run: Run, kind: str, assert_complete: AssertComplete, rows: int
) -> None:
    """Every row once in the ledger, links.csv whole and in order, every object in the store."""
    assert assert_complete(run, rows) == {"linked" if kind == "links" else "uploaded": rows}
    assert run.record.finished_at is not None
    listed = read_csv(workspace.list)
    if kind == "links":
        written = read_csv(workspace.folder / "links.csv")
        assert [(row["env"], row["path"]) for row in written] == [(row["env"], row["path"]) for row in listed]
        assert all(row["errcode"] == "0" and row["authorization"] for row in written)
        assert not (workspace.folder / "links.csv.part").exists()
    else:
        keys = Counter(
            (bucket.split("-", 1)[1].rsplit("-", 1)[0], key) for bucket, key in workspace.sim.objects
        )
        assert keys == Counter((row["env"], row["path"]) for row in listed)


# --- told to end ----------------------------------------------------------------------------------------------------


def test_a_ctrl_c_when_every_row_has_ended_is_raised_once_the_report_is_written(open_workspace):
    workspace = open_workspace(many(TEA, rows=3))
    watched, arrived = threading.Event(), threading.Event()

    class Tokens(FileTokens):
        async def aclose(self) -> None:
            """Send a Ctrl-C after the last row, before the work has ended."""
            await super().aclose()
            await asyncio.to_thread(watched.wait)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.to_thread(arrived.wait)

    def ctrl_c(_number: int, _frame: FrameType | None) -> None:
        arrived.set()
        raise KeyboardInterrupt

    def show(news: Iterator[Progress]) -> None:
        watched.set()
        deque(news, maxlen=0)

    written: list[Run] = []
    with handled(ctrl_c):
        working = workspace.start_upload(tokens=Tokens(workspace.folder / "tokens.csv"))
        working.follow(show)
        with pytest.raises(tcb.InterruptedRunError, match="had ended by then") as caught:
            working.wait(written.append)
    assert caught.value.exit_code == 130
    (command,) = caught.value.text.commands()
    assert command.startswith(f"tcb-ops show {working.id} ")
    assert [run.counts for run in written] == [{"uploaded": 3}]
    assert latest(workspace).record.finished_at is not None


def test_a_ctrl_c_while_the_report_is_written_names_the_run(open_workspace):
    workspace = open_workspace(many(TEA, rows=3))

    def ctrl_c(_run: Run) -> None:
        signal.raise_signal(signal.SIGINT)

    working = workspace.start_upload()
    with pytest.raises(tcb.InterruptedRunError, match=f"run {working.id} had ended by then"):
        working.wait(ctrl_c)


@pytest.mark.parametrize("moment", ["the reason is recorded", "the lock is released"])
def test_a_second_ctrl_c_at_the_end_still_names_the_command_that_resumes(open_workspace, monkeypatch, moment):
    workspace = open_workspace(many(TEA, rows=50), HELD)
    working = workspace.start_upload()

    def ctrl_c(*_arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)

    if moment == "the reason is recorded":
        monkeypatch.setattr(working._ledger, "stop", ctrl_c)
    else:
        working._held.callback(ctrl_c)
    working.cancel()
    with pytest.raises(tcb.InterruptedRunError) as caught:
        working.wait()
    (command,) = caught.value.text.commands()
    assert f"--resume {working.id}" in command


@pytest.mark.parametrize("kind", ["links", "upload"])
def test_a_cancelled_run_leaves_its_rows_pending_and_goes_on(open_workspace, assert_complete, wait_for, kind):
    workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=50), HELD)
    working = start(workspace, kind)
    wait_for(lambda: workspace.sim.stats.get("link_calls", 0) >= 30)
    working.cancel()
    with pytest.raises(tcb.InterruptedRunError) as caught:
        working.wait()
    assert caught.value.exit_code == 130
    assert working.id in str(caught.value)
    counts = assert_complete(latest(workspace), 150)
    assert 0 < counts["pending"] < 150
    assert latest(workspace).summary()["counts"]["pending"] == counts["pending"]
    going = start(workspace, kind)
    assert (going.resumed, going.id) == (True, working.id)
    assert_all_done(workspace, going.wait(), kind, assert_complete, 150)
    again = workspace.sim.stats["stored"] if kind == "upload" else workspace.sim.stats["link_calls"]
    assert again <= 150 + 2 * FEW.concurrency


@pytest.mark.kill
@pytest.mark.parametrize("kind", ["links", "upload"])
def test_a_killed_run_goes_on_and_does_every_row_once(open_workspace, assert_complete, wait_for, kind):
    workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=100), HELD)
    counter = "link:0" if kind == "links" else "stored"
    with started(workspace, kind) as process:
        begin(process)
        wait_for(lambda: workspace.sim.stats.get(counter, 0) >= 100)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    before = latest(workspace)
    done = 300 - assert_complete(before, 300)["pending"]
    assert 0 < done < 300
    going = start(workspace, kind)
    assert (going.resumed, going.id) == (True, before.id)
    assert_all_done(workspace, going.wait(), kind, assert_complete, 300)
    assert workspace.sim.stats[counter] <= 300 + 2 * FEW.concurrency


# --- stopped --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["links", "upload"])
def test_61004_stops_the_run_with_its_rows_pending_and_fixed_it_goes_on(
    open_workspace, assert_complete, kind
):
    errmsg = "access clientip is not registered requestIP: 203.0.113.9"
    workspace = open_workspace(
        many(TEA, BOOKS, rows=50),
        [Fault(appid=TEA.appid, path="banner/20.png", errcode=61004, errmsg=errmsg, calls=((1, 1),))],
    )
    with pytest.raises(PlatformStopError, match=r"203\.0\.113\.9") as caught:
        start(workspace, kind).wait()
    assert caught.value.exit_code == 3
    run = latest(workspace)
    assert run.record.stopped is not None
    assert f"errcode 61004（{errmsg}）" in run.record.stopped.zh
    assert run.record.finished_at is None
    counts = assert_complete(run, 100)
    assert counts.keys() == {"pending", "linked" if kind == "links" else "uploaded"}
    again = start(workspace, kind)
    assert latest(workspace).record.stopped is None, (
        "what stopped an earlier session is not why this one ends"
    )
    assert_all_done(workspace, again.wait(), kind, assert_complete, 100)
    assert latest(workspace).record.stopped is None


def test_a_target_that_is_away_stops_the_run_and_no_attempt_is_counted(open_workspace, assert_complete):
    port = free_port()
    workspace = open_workspace(many(TEA, BOOKS, rows=10), port=port)
    workspace.sim.__exit__(None, None, None)
    notes: list[Progress] = []
    with pytest.raises(OutageError) as caught:
        start(workspace, "upload", progress=notes.append).wait()
    assert caught.value.exit_code == 3
    assert assert_complete(latest(workspace), 20) == {"pending": 20}
    assert {record.end.attempts for record in latest(workspace).rows()} == {0}
    tokens = {merchant.appid: f"token-of-{merchant.appid}" for merchant in workspace.merchants}
    with Simulator(list(workspace.merchants), tokens, port=port) as sim:
        run = start(workspace, "upload").wait()
        assert assert_complete(run, 20) == {"uploaded": 20}
        assert sim.stats["link_calls"] == 20
    assert {record.end.attempts for record in run.rows()} == {2}


# --- from wherever it is called ---------------------------------------------------------------------------------------


def test_what_was_committed_is_reported_though_nothing_follows(open_workspace):
    workspace = open_workspace(
        many(TEA, BOOKS, rows=20), [Fault(env=BOOKS.env, path="banner/1.png", delay=60)]
    )
    working = start(workspace, "links")
    rates: list[float] = []
    for look in working.watch():
        if look.done >= 39:  # the other row takes a minute
            rates.append(look.rate)
            if len(rates) == 2:
                break
    assert look.done == 39
    assert rates[0] > rates[1], "what is told while no row ends"
    cancel(working)


def test_what_is_shown_is_already_in_the_ledger_and_only_grows(open_workspace):
    workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=60), HELD)
    compared: list[tuple[int, int]] = []

    def show(look: Progress) -> None:
        compared.append((look.done, latest(workspace).counts.get("uploaded", 0)))

    working = start(workspace, "upload", progress=show)
    looks = list(working.watch())
    assert working.wait().id == looks[-1].run
    assert all(shown <= kept for shown, kept in compared)
    done = [look.done for look in looks]
    assert done == sorted(done)
    assert done[-1] == 180 == looks[-1].total == compared[-1][0]
    assert dict(looks[-1].counts) == {Outcome.UPLOADED: 180}


def test_nothing_secret_is_kept_but_in_links_csv(open_workspace, caplog):
    caplog.set_level("DEBUG")
    workspace = open_workspace(
        many(TEA, BOOKS, rows=20),
        [Fault(path="banner/3.png", errcode=40001), Fault(path="banner/5.png", errcode=-1)],
    )
    for kind in ("upload", "links"):
        start(workspace, kind, QUICK).wait()
    links = read_csv(workspace.folder / "links.csv")
    secrets = {
        value for row in links for name in ("token", "authorization", "cos_file_id") if (value := row[name])
    }
    secrets |= {f"token-of-{TEA.appid}", f"token-of-{BOOKS.appid}", "q-signature=", "access_token="}
    assert len(secrets) > 40
    kept = b"".join(file.read_bytes() for file in workspace.folder.glob("ledger.db*") if file.is_file())
    result = caplog.text + "".join(repr(record) for record in latest(workspace).rows())
    assert b"banner/3.png" in kept
    assert [secret for secret in secrets if secret.encode() in kept or secret in result] == []


def test_a_run_stops_when_its_links_file_cannot_be_written(open_workspace, assert_complete, tmp_path):
    workspace = open_workspace(many(TEA, rows=30), HELD)
    working = start(workspace, "links")
    (tmp_path / "links.csv").mkdir()  # the finished file cannot be put in place
    with pytest.raises(tcb.StoppedError, match=r"links\.csv"):
        working.wait()
    assert latest(workspace).record.finished_at is None
    (tmp_path / "links.csv").rmdir()
    assert_all_done(workspace, start(workspace, "links").wait(), "links", assert_complete, 30)
    assert workspace.sim.stats["link:0"] == 30


def test_the_part_file_of_an_abandoned_run_is_refused_and_given_up_with_new_run(
    open_workspace, assert_complete
):
    workspace = open_workspace()
    part, out = workspace.folder / "links.csv.part", workspace.folder / "links.csv"
    part.write_text("# 20260101-000000-beef\n", encoding="utf-8")
    with pytest.raises(tcb.UsageError, match="discard it with new_run=True"):
        tcb.links(workspace.read(), out=out, settings=workspace.settings, limits=QUICK)
    assert part.read_text(encoding="utf-8") == "# 20260101-000000-beef\n"
    assert tcb.runs(settings=workspace.settings) == []  # refused, so never begun
    run = tcb.links(workspace.read(), out=out, settings=workspace.settings, limits=QUICK, new_run=True)
    assert assert_complete(run, 30) == {"linked": 30}
    part.write_text(f"# {run.id}\n", encoding="utf-8")  # what a kill right after the end leaves
    tcb.links(workspace.read(), out=out, settings=workspace.settings, limits=QUICK)
    assert not part.exists()


def test_a_part_file_that_is_none_is_never_overwritten(open_workspace):
    workspace = open_workspace()
    part = workspace.folder / "links.csv.part"
    part.write_text("an operator's own notes\n", encoding="utf-8")
    with pytest.raises(tcb.UsageError):
        tcb.links(
            workspace.read(), out=workspace.folder / "links.csv", settings=workspace.settings, new_run=True
        )
    assert part.read_text(encoding="utf-8") == "an operator's own notes\n"


@pytest.mark.parametrize(
    "name", ["list.csv", "tokens.csv", "merchants.csv", "ledger.db", "files", "nowhere/links.csv"]
)
def test_links_are_written_over_nothing_but_an_earlier_links_file(open_workspace, name):
    workspace = open_workspace()
    tcb.runs(settings=workspace.settings)  # so that there is a ledger
    before = {file: file.read_bytes() for file in workspace.folder.glob("*.csv")}
    with pytest.raises(tcb.UsageError, match="out "):
        tcb.links(workspace.read(), out=workspace.folder / name, settings=workspace.settings)
    assert {file: file.read_bytes() for file in before} == before
    assert tcb.runs(settings=workspace.settings) == []
    assert not workspace.sim.calls


def test_a_ledger_that_is_taken_away_in_mid_run_stops_it(open_workspace, wait_for):
    workspace = open_workspace(many(TEA, rows=40), HELD)
    working = start(workspace, "upload")
    wait_for(lambda: workspace.sim.stats["stored"] > 2)
    (workspace.folder / "ledger.db").rename(workspace.folder / "elsewhere.db")
    with pytest.raises(tcb.StoppedError, match="removed or replaced"):
        working.wait()


def test_a_run_that_lacks_but_its_report_is_not_sent_again(open_workspace, assert_complete, tmp_path):
    workspace = open_workspace()
    first = workspace.start_upload(out=tmp_path / "report").wait()
    sent = len(workspace.sim.calls)
    again = workspace.start_upload(out=tmp_path / "report")
    assert (again.id, again.resumed, list(again.watch())) == (first.id, True, [])
    again.wait().export(tmp_path / "report")
    assert len(workspace.sim.calls) == sent
    again = workspace.start_upload(out=tmp_path / "report").wait()
    assert again.id != first.id
    assert assert_complete(again, 30) == {"uploaded": 30}


def test_a_call_that_waits_writes_the_report_before_another_can_take_the_run(open_workspace, tmp_path):
    workspace = open_workspace()
    options = {"settings": workspace.settings, "limits": QUICK}
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").touch()
    with pytest.raises(tcb.UsageError, match="cannot be the report folder"):
        workspace.upload(out=taken, **options)
    assert not workspace.sim.calls
    first = workspace.upload(out=tmp_path / "report", **options)
    assert tcb.verify(tmp_path / "report", settings=workspace.settings).good
    assert workspace.upload(**options).id != first.id
    held = []
    handle = workspace.start_upload(new_run=True, out=tmp_path / "later", **options)
    handle.wait(lambda run: held.append(run.holder()))
    assert held != [None]


def test_of_two_commands_on_one_list_at_once_one_works_and_one_is_told(open_workspace, wait_for):
    workspace = open_workspace(many(TEA, rows=40), [Fault(delay=3.0)])
    both = [started(workspace) for _ in range(2)]
    begin(*both)
    wait_for(lambda: any(process.poll() is not None for process in both))
    workspace.sim.play([])  # slow until then: one must not be done before the other has been refused
    result = [process.communicate(timeout=240)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    assert any("is being worked on by" in text for text in result)
    assert workspace.sim.stats["stored"] == 40


def test_a_stopped_appid_is_not_asked_again_after_a_resume_though_its_turn_had_not_come(
    open_workspace, assert_complete, wait_for, monkeypatch
):
    monkeypatch.setattr(scheduler, "COMING", 4)
    stopped = [Merchant("wxbad", "停用", f"bad-{n}-1a2b3c") for n in range(30)]
    others = [Merchant(f"wx{n}", f"商户 {n}", f"env-{n}-1a2b3c") for n in range(30)]
    refusing = Fault(appid="wxbad", step=FaultStep.LINK, errcode=61003)
    workspace = open_workspace(
        many(*stopped[:3], *others, *stopped[3:], rows=1),
        [refusing, Fault(env="env-*", delay=2)],
        merchants=[*stopped, *others],
    )
    limits = RunLimits(concurrency=1, backoff=0.01)
    handle = workspace.start_upload(limits=limits)
    wait_for(lambda: handle.so_far().counts.get("not_attempted") == 27)
    cancel(handle)
    workspace.sim.play([refusing])
    run = workspace.upload(limits=limits)
    assert run.id == handle.id
    assert assert_complete(run, 60) == {"uploaded": 30, "refused": 3, "not_attempted": 27}
