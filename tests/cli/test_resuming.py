"""Going on with a run from the ledger alone, and knowing who works on one."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from workspace import TEA, many

import tcb_ops as tcb
from tcb_ops.api import run_holder
from tcb_ops.run import find_handle
from tcb_ops.simulator import Fault


def cut_off(shop: Any, start: Any, **options: Any) -> str:
    """Begin a run and cancel it after the first rows."""
    going = start(shop.read(), settings=shop.settings, **options)
    next(going.watch())
    going.cancel()
    with pytest.raises(tcb.InterruptedRunError):
        going.wait()
    return str(going.id)


@pytest.fixture
def shop(open_shop: Any) -> Any:
    return open_shop(many(TEA, rows=60), [Fault(delay=0.05)])


def test_a_run_is_gone_on_with_when_its_list_is_gone(shop: Any, whole: Any):
    run_id = cut_off(shop, tcb.start_upload, note="nightly")
    shop.list.unlink()
    run = tcb.resume(settings=shop.settings)
    assert run.id == run_id
    assert run.record.note == "nightly"
    assert whole(run, 60) == {"uploaded": 60}
    assert shop.sim.stats["stored"] == 60


def test_links_go_on_into_their_own_file(shop: Any, whole: Any):
    cut_off(shop, tcb.start_links, out=shop.folder / "mine.csv")
    run = tcb.resume(settings=shop.settings)
    assert whole(run, 60) == {"linked": 60}
    assert len((shop.folder / "mine.csv").read_text(encoding="utf-8").splitlines()) == 61


def test_a_finished_run_is_not_gone_on_with(shop: Any):
    run = tcb.upload(shop.read(), settings=shop.settings)
    with pytest.raises(tcb.UsageError, match="it is finished"):
        tcb.resume(run.id, settings=shop.settings)


def test_a_canary_stays_one(open_shop: Any):
    shop = open_shop(faults=[Fault(env=TEA.env, path="banner/1.png", errcode=40097)])
    with pytest.raises(tcb.CanaryError):
        tcb.upload(shop.read(), settings=shop.settings, canary=1)
    with pytest.raises(tcb.CanaryError):
        tcb.resume(settings=shop.settings)


def test_who_works_on_a_run_is_known_while_it_is_worked_on(shop: Any):
    going = tcb.start_upload(shop.read(), settings=shop.settings)
    assert find_handle(going.id) is going
    held = run_holder(going.id, settings=shop.settings)
    assert held is not None
    assert f"run {going.id} is being worked on by" in held.en
    going.wait()
    assert find_handle(going.id) is None
    assert run_holder(going.id, settings=shop.settings) is None


def test_several_threads_may_wait_and_one_ends_the_run(shop: Any):
    going = tcb.start_links(shop.read(), settings=shop.settings, out=shop.folder / "links.csv")
    ended: list[tcb.Run] = []
    waiting = [threading.Thread(target=lambda: ended.append(going.wait())) for _ in range(4)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert [run.counts for run in ended] == [{"linked": 60}] * 4
