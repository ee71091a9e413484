"""Where a run's time goes: shared out over what the run was waiting for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from workspace import QUICK, TEA, OpenWorkspace, Workspace, many

import tcb_ops as tcb
from tcb_ops.errors import OutageError
from tcb_ops.features.simulator import Fault
from tcb_ops.runs.progress import PHASES, PhaseTimer


class Watch:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# slots, what is under way or held, whether there is room, and how ten seconds are shared out
SHARED = {
    "the calls have it all while as many rows are under way as may be": (
        4,
        {"link": 3, "store": 1, "limit": 5},
        False,
        {"link": 7.5, "store": 2.5},
    ),
    "room: the calls as far as it is used, the rest to what holds": (
        4,
        {"link": 1, "limit": 1, "slow": 2},
        True,
        {"link": 2.5, "limit": 2.5, "slow": 5.0},
    ),
    "room and nothing left to begin: the calls": (64, {"store": 1}, True, {"store": 10.0}),
    "nothing under way, everything held": (
        4,
        {"backoff": 2, "token": 2},
        True,
        {"backoff": 5.0, "token": 5.0},
    ),
    "an outage is all there is": (4, {"outage": 1, "link": 1, "limit": 3}, True, {"outage": 10.0}),
    "nothing under way and nothing held: our own": (4, {}, True, {}),
    "held without room, no calls: our own": (4, {"limit": 2}, False, {}),
}


@pytest.mark.parametrize(("slots", "there", "room", "shared"), SHARED.values(), ids=SHARED)
def test_time_goes_to_what_the_run_waits_for(
    slots: int, there: dict[str, int], room: bool, shared: dict[str, float]
) -> None:
    watch = Watch()
    meter = PhaseTimer(slots, watch)
    for phase, count in there.items():
        for _ in range(count):
            meter.enter(phase)
    meter.room(there=room)
    watch.now += 10
    assert meter.take() == pytest.approx(shared)
    assert meter.take() == {}, "each second is told once"


def test_what_was_left_is_not_counted_any_more() -> None:
    watch = Watch()
    meter = PhaseTimer(1, watch)
    meter.enter("link")
    watch.now = 2.0
    meter.leave("link")
    meter.enter("store")
    watch.now = 5.0
    meter.leave("store")
    watch.now = 100.0
    assert meter.take() == {"link": 2.0, "store": 3.0}


def spent(run: tcb.Run) -> dict[str, float]:
    return run._ledger.phase_seconds(run.record)


def links(workspace: Workspace, **changed: Any) -> tcb.Run:
    return tcb.links(
        workspace.read(),
        settings=workspace.settings,
        limits=replace(QUICK, **changed),
        out=workspace.folder / "links.csv",
        new_run=True,
    )


@pytest.mark.slow
def test_a_run_knows_where_its_time_went_and_it_adds_up(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=12), [Fault(delay=0.03)], merchants=[TEA])
    run = tcb.upload(workspace.read(), settings=workspace.settings, limits=replace(QUICK, per_env=1))
    told = spent(run)
    assert set(told) <= set(PHASES)
    assert told["limit"] > told["link"] > 0, "one row at a time, with room for 63 more"
    assert 0.7 * run.record.seconds < sum(told.values()) <= run.record.seconds + 0.01


SLOWED = {
    "slow": (Fault(calls=((1, 1),), errcode=45011), {"slow_wait": 0.3}),
    "backoff": (Fault(calls=((1, 1),), errcode=-1), {"backoff": 0.3}),
    "limit": (Fault(path="none"), {"rate": 12.0}),
    "link": (Fault(delay=0.25), {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("phase", SLOWED)
def test_pauses_waits_rates_and_calls_are_told_apart(open_workspace: OpenWorkspace, phase: str) -> None:
    fault, pace = SLOWED[phase]
    told = spent(links(open_workspace(many(TEA, rows=4), [fault], merchants=[TEA]), **pace))
    assert told[phase] > 0.15
    assert max(told, key=lambda name: told[name]) == phase


@pytest.mark.slow
def test_an_outage_is_told_though_it_ends_the_run(open_workspace: OpenWorkspace) -> None:
    workspace = open_workspace(many(TEA, rows=2), merchants=[TEA])
    nobody = workspace.with_options(api_base="http://127.0.0.1:9")
    with pytest.raises(OutageError):
        tcb.upload(workspace.read(), settings=nobody, limits=replace(QUICK, patience=0.4))
    told = spent(tcb.open_run(settings=nobody))
    assert told["outage"] > 0.3
    assert max(told, key=lambda name: told[name]) == "outage"
