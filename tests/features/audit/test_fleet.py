"""Night after night: what an audit of an evolving fleet says is what the scenario implies."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from workspace import QUICK

import tcb_ops as tcb
from tcb_ops.features.simulator import EnvStatus, Fault, FaultStep
from tcb_ops.model import Merchant

CODES = (85088, 48001, 61003)


@dataclass
class Scenario:
    """Which environment fails on which nights, with which cause; nights on which the platform refuses everybody."""

    faults: list[list[Fault]] = field(default_factory=list)
    """By night."""
    halted: list[set[str]] = field(default_factory=list)
    """By night: the environments that are HALTED."""
    causes: list[dict[str, str]] = field(default_factory=list)
    """By night: cause by environment."""
    stopped: set[int] = field(default_factory=set)


def scenario(fleet, nights, seed):
    """Make a scenario as its author would write it, and what it implies."""
    chance = random.Random(seed)
    found = Scenario(
        *(
            [[] for _ in range(nights + 1)],
            [set() for _ in range(nights + 1)],
            [{} for _ in range(nights + 1)],
        )
    )
    for merchant in fleet:
        if chance.random() > 0.25:
            continue
        first = chance.randint(1, nights)
        last = min(nights, first + chance.randint(0, 4))
        halted = chance.random() < 0.3
        code = chance.choice(CODES)
        for night in range(first, last + 1):
            if halted:
                found.halted[night].add(merchant.env)
            else:
                found.faults[night].append(Fault(env=merchant.env, errcode=code))
            found.causes[night][merchant.env] = "halted" if halted else str(code)
    found.stopped = {nights // 2}
    found.faults[nights // 2] = [Fault(step=FaultStep.ENV_INFO, errcode=61004)]
    return found


def play(open_workspace, tmp_path, merchants, nights, seed):
    fleet = [Merchant(f"wx{n:04}", f"商户{n}", f"shop-{n:04}-a1b2c3") for n in range(merchants)]
    story = scenario(fleet, nights, seed)
    workspace = open_workspace([], merchants=fleet)
    command = workspace.with_options(notify=[{"kind": "wecom", "url_file": tmp_path / "url"}])
    (tmp_path / "url").write_text(f"{workspace.sim.base}/robot/wecom/accept?key=practice", encoding="utf-8")
    before = None
    for night in range(1, nights + 1):
        workspace.sim.play(story.faults[night])
        for merchant in fleet:
            halted = merchant.env in story.halted[night]
            workspace.sim.set_status(merchant.env, EnvStatus.HALTED if halted else EnvStatus.NORMAL)
        run = tcb.audit(workspace.merchants, settings=command, limits=QUICK)
        result, told = run.audit(), len(workspace.sim.robots.messages)
        tcb.notify(run, settings=command, on_demand=False)
        messages = [message.text for message in workspace.sim.robots.messages[told:]]
        if night in story.stopped:
            assert result.exit_code("new") == 3
            assert run.counts == {"unknown": merchants}
            assert ["61004" in message for message in messages] == [True]
            continue
        now = story.causes[night]
        then = before or {}
        new = {env for env in now if now[env] != then.get(env)}
        recovered = set(then) - set(now)
        assert {one.cause.env: one.cause.code for one in (*result.new, *result.still)} == now
        assert {one.cause.env for one in result.new} == new
        assert {line.env for line in result.recovered} == recovered
        assert not result.unknown
        assert [result.exit_code(on) for on in ("any", "new", "none")] == [bool(now), bool(new), 0]
        assert len(messages) == bool(new or recovered)
        for message in messages:
            assert len(message.encode()) <= 4096
            assert f"newly broken {len(new)} · recovered {len(recovered)} " in message
            shown = {env for env in new | recovered if env in message}
            assert shown == new | recovered or "more environment" in message
        before = now


@pytest.mark.slow
def test_a_week_of_a_small_fleet(open_workspace, tmp_path):
    play(open_workspace, tmp_path, merchants=12, nights=5, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_14_nights_of_300_merchants(open_workspace, tmp_path):
    play(open_workspace, tmp_path, merchants=300, nights=14, seed=16)
