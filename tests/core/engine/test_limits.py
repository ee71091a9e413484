"""How hard a run presses: never over its limits, and with few garbage collections."""

import asyncio
import gc
import sqlite3
import time
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
from rigged_simulator import Simulator
from workspace import BOOKS, TEA, TEA_TEST, many

import tcb_ops as tcb
from tcb_ops.engine import loop
from tcb_ops.engine.limits import RunLimits
from tcb_ops.engine.loop import COLLECT
from tcb_ops.features.simulator.faults import Fault, FaultStep
from tcb_ops.features.simulator.state import SimulatorState
from tcb_ops.model import Merchant

pytestmark = pytest.mark.slow

SLOW = [Fault(delay=0.03), Fault(step=FaultStep.STORE, delay=0.03)]
"""Calls that stay in flight long enough to be counted."""
TEN = tuple(Merchant(f"wx{n}", f"商户 {n}", f"shop{n}-1a2b") for n in range(10))


@pytest.fixture
def most(monkeypatch):
    """The most calls at a time that had arrived and were not answered: by environment, and of all."""
    most, env_of = Counter[str](), dict[Any, str]()
    arrived, answer = SimulatorState.arrived, Simulator._answer

    def counted(state: SimulatorState, step: FaultStep, env: str, path: str) -> None:
        arrived(state, step, env, path)
        env_of[asyncio.current_task()] = env
        now = Counter(env_of.values())
        for name, calls in (now | {"all": now.total()}).items():
            most[name] = max(most[name], calls)

    async def answered(simulator: Simulator, request: Any) -> Any:
        try:
            return await answer(simulator, request)
        finally:
            env_of.pop(asyncio.current_task(), None)

    monkeypatch.setattr(SimulatorState, "arrived", counted)
    monkeypatch.setattr(Simulator, "_answer", answered)
    return most


@pytest.mark.parametrize(("concurrency", "per_env"), [(6, 8), (64, 3), (5, 2)])
def test_requests_in_flight_reach_the_limits_and_never_pass_them(
    open_workspace, assert_complete, most, concurrency, per_env
):
    workspace = open_workspace(many(*TEN[:4], rows=12), SLOW, merchants=TEN[:4])
    pace = RunLimits(concurrency=concurrency, per_env=per_env)
    assert assert_complete(workspace.upload(limits=pace), 48) == {"uploaded": 48}
    assert most.pop("all") == min(concurrency, 4 * per_env)
    assert max(most.values()) <= per_env


def test_the_rate_is_kept_per_merchant_and_over_its_environments(open_workspace, assert_complete):
    workspace = open_workspace(many(TEA, TEA_TEST, rows=10))
    began = time.monotonic()
    run = workspace.upload(limits=RunLimits(rate=40))
    assert time.monotonic() - began >= 19 / 40
    assert assert_complete(run, 20) == {"uploaded": 20}


def test_a_ledger_that_does_not_keep_up_holds_the_calls_at_twice_the_concurrency(
    open_workspace, assert_complete, wait_for
):
    workspace = open_workspace(many(TEA, TEA_TEST, rows=100), [Fault(delay=0.01)])
    out = workspace.folder / "links.csv"
    working = tcb.start_links(
        workspace.read(), settings=workspace.settings, out=out, limits=RunLimits(concurrency=8)
    )

    def ahead() -> int:
        return workspace.sim.stats.get("link_calls", 0) - working.so_far().counts.get("linked", 0)

    with closing(sqlite3.connect(workspace.settings.ledger)) as other:
        other.execute("BEGIN IMMEDIATE")
        wait_for(lambda: ahead() >= 16)
        calls = iter(range(50))
        wait_for(lambda: next(calls) == 49)  # as many looks in which nothing more may be sent
        assert ahead() == 16
        other.rollback()
    assert assert_complete(working.wait(), 200) == {"linked": 200}


def test_a_row_whose_time_has_come_waits_for_room_without_burning_the_processor(open_workspace):
    workspace = open_workspace(
        many(TEA, BOOKS, rows=1), [Fault(errcode=-1, calls=((1, 1),)), Fault(delay=1.5)]
    )
    batch = workspace.read()
    began = time.process_time()
    run = tcb.upload(batch, settings=workspace.settings, limits=RunLimits(concurrency=1, backoff=0.01))
    assert time.process_time() - began < 1
    assert run.counts == {"uploaded": 2}


@pytest.fixture
def thresholds():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("thresholds")
@pytest.mark.parametrize(
    ("before", "during"),
    [((700, 10, 10), COLLECT), ((50_000, 5, 5), (50_000, *COLLECT[1:])), ((0, 10, 10), (0, 10, 10))],
    ids=["Python's own", "higher ones", "turned off"],
)
def test_thresholds_are_raised_once_there_is_a_loop(monkeypatch, before, during):
    monkeypatch.setattr(loop, "_loop", None)
    gc.set_threshold(*before)
    running = loop.own_loop()
    assert gc.get_threshold() == during
    running.call_soon_threadsafe(running.stop)
