"""How hard a run presses: never over its limits, and fair over the environments."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from workspace import BOOKS, TEA, TEA_TEST, AssertComplete, OpenWorkspace, WaitFor, many

import tcb_ops as tcb
from tcb_ops.features.simulator import Fault, FaultStep
from tcb_ops.model import Merchant
from tcb_ops.runs.limits import RunLimits

if TYPE_CHECKING:
    from tcb_ops.features.simulator import Call

SLOW = [Fault(delay=0.03), Fault(step=FaultStep.STORE, delay=0.03)]
"""Calls that stay in flight long enough to be counted."""
TEN = tuple(Merchant(f"wx{n}", f"商户 {n}", f"shop{n}-1a2b") for n in range(10))


def in_flight(calls: list[Call]) -> Counter[str]:
    """Calls that have arrived and are not answered, by environment."""
    return Counter(call.env for call in calls if call.answer == "")


@pytest.mark.slow
@pytest.mark.parametrize(("concurrency", "per_env"), [(6, 8), (64, 3), (5, 2)])
def test_requests_in_flight_reach_the_limits_and_never_pass_them(
    open_workspace: OpenWorkspace,
    assert_complete: AssertComplete,
    wait_for: WaitFor,
    concurrency: int,
    per_env: int,
) -> None:
    workspace = open_workspace(many(*TEN[:4], rows=12), SLOW, merchants=TEN[:4])
    pace = RunLimits(concurrency=concurrency, per_env=per_env)
    working = tcb.start_upload(workspace.read(), settings=workspace.settings, limits=pace)
    most = Counter[str]()

    def watched() -> bool:
        now = in_flight(workspace.sim.calls)
        for env, count in now.items():
            most[env] = max(most[env], count)
        most["all"] = max(most["all"], now.total())
        return workspace.sim.stats.get("stored", 0) == 48

    wait_for(watched)
    assert assert_complete(working.wait(), 48) == {"uploaded": 48}
    assert most.pop("all") == min(concurrency, 4 * per_env)
    assert max(most.values()) <= per_env


@pytest.mark.slow
def test_the_rate_is_kept_per_merchant_and_over_its_environments(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete
) -> None:
    workspace = open_workspace(many(TEA, TEA_TEST, rows=10))
    began = time.monotonic()
    run = tcb.upload(workspace.read(), settings=workspace.settings, limits=RunLimits(rate=40))
    assert time.monotonic() - began >= 19 / 40
    assert assert_complete(run, 20) == {"uploaded": 20}


@pytest.mark.slow
def test_a_ledger_that_does_not_keep_up_holds_the_calls_at_twice_the_concurrency(
    open_workspace: OpenWorkspace, assert_complete: AssertComplete, wait_for: WaitFor
) -> None:
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


@pytest.mark.slow
def test_a_row_whose_time_has_come_waits_for_room_without_burning_the_processor(
    open_workspace: OpenWorkspace,
) -> None:
    workspace = open_workspace(
        many(TEA, BOOKS, rows=1), [Fault(errcode=-1, calls=((1, 1),)), Fault(delay=1.5)]
    )
    batch = workspace.read()
    began = time.process_time()
    run = tcb.upload(batch, settings=workspace.settings, limits=RunLimits(concurrency=1, backoff=0.01))
    assert time.process_time() - began < 1
    assert run.counts == {"uploaded": 2}
