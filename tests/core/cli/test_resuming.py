"""Going on with a run from the ledger alone, and knowing who works on one."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from workspace import TEA, many

import tcb_ops as tcb
from tcb_ops.features.simulator import Fault
from tcb_ops.run import find_handle


def cut_off(workspace: Any, start: Any, **options: Any) -> str:
    """Begin a run and cancel it after the first rows."""
    going = start(workspace.read(), settings=workspace.settings, **options)
    next(going.watch())
    going.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        going.wait()
    return str(going.id)


@pytest.fixture
def workspace(open_workspace: Any) -> Any:
    return open_workspace(many(TEA, rows=60), [Fault(delay=0.05)])


@pytest.mark.slow
def test_a_run_is_gone_on_with_when_its_list_is_gone(workspace: Any, assert_complete: Any):
    run_id = cut_off(workspace, tcb.start_upload, note="nightly")
    workspace.list.unlink()
    run = tcb.resume(settings=workspace.settings)
    assert run.id == run_id
    assert run.record.note == "nightly"
    assert assert_complete(run, 60) == {"uploaded": 60}
    assert workspace.sim.stats["stored"] == 60


@pytest.mark.slow
def test_links_go_on_into_their_own_file(workspace: Any, assert_complete: Any):
    cut_off(workspace, tcb.start_links, out=workspace.folder / "mine.csv")
    run = tcb.resume(settings=workspace.settings)
    assert assert_complete(run, 60) == {"linked": 60}
    assert len((workspace.folder / "mine.csv").read_text(encoding="utf-8").splitlines()) == 61


@pytest.mark.slow
def test_a_finished_run_is_not_gone_on_with(workspace: Any):
    run = tcb.upload(workspace.read(), settings=workspace.settings)
    with pytest.raises(tcb.UsageError, match="it is finished"):
        tcb.resume(run.id, settings=workspace.settings)


def test_a_canary_stays_one(open_workspace: Any):
    workspace = open_workspace(faults=[Fault(env=TEA.env, path="banner/1.png", errcode=40097)])
    with pytest.raises(tcb.CanaryError):
        tcb.upload(workspace.read(), settings=workspace.settings, canary=1)
    with pytest.raises(tcb.CanaryError):
        tcb.resume(settings=workspace.settings)


@pytest.mark.slow
def test_who_works_on_a_run_is_known_while_it_is_worked_on(workspace: Any):
    going = tcb.start_upload(workspace.read(), settings=workspace.settings)
    assert find_handle(going.id) is going
    held = going.so_far().holder()
    assert held is not None
    assert f"run {going.id} is being worked on by" in held.en
    run = going.wait()
    assert find_handle(going.id) is None
    assert run.holder() is None


@pytest.mark.slow
def test_several_threads_may_wait_and_one_ends_the_run(workspace: Any):
    going = tcb.start_links(workspace.read(), settings=workspace.settings, out=workspace.folder / "links.csv")
    ended: list[tcb.Run] = []
    waiting = [threading.Thread(target=lambda: ended.append(going.wait())) for _ in range(4)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert [run.counts for run in ended] == [{"linked": 60}] * 4
