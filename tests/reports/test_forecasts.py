"""What runs out soon: the pace of a quota, and what an audit predicts from it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from workspace import BOOKS, QUICK, TEA, OpenWorkspace, Workspace, many

import tcb_ops as tcb
from tcb_ops.features.simulator import Component, Fault, FaultStep, SimulatedAccount, SimulatedEnvironment
from tcb_ops.model import Merchant, Owner
from tcb_ops.reports.forecasts import DAY, days_left, days_of_month_left, short_of_calls

if TYPE_CHECKING:
    from tcb_ops.features.audit.result import AuditResult

NOW = 1_764_000_000.0


def days_ago(*readings: tuple[int, int]) -> list[tuple[float, int]]:
    return [(NOW - days * DAY, used) for days, used in readings]


@pytest.mark.parametrize(
    ("used", "limit", "earlier", "expected"),
    [
        (10, 0, days_ago((1, 5)), None),
        (100, 100, [], (0.0, 0.0)),
        (120, 100, days_ago((1, 100)), (0.0, 20.0)),
        (90, 100, [], None),
        (90, 100, days_ago((1, 90)), None),
        (90, 100, days_ago((1, 85)), (2.0, 5.0)),
        (90, 100, days_ago((1, 88), (4, 80)), (4.0, 2.5)),
        (90, 100, days_ago((1, 85), (2, 99), (3, 1)), (2.0, 5.0)),  # something was deleted, or a month began
        (90, 100, days_ago((-1, 80)), None),  # the clock was set back
    ],
)
def test_in_how_many_days_a_quota_is_used_up(
    used: int, limit: int, earlier: list[tuple[float, int]], expected: tuple[float, float] | None
):
    assert days_left(used, limit, earlier, NOW) == expected


@pytest.mark.parametrize(
    ("used", "limit", "pace", "short"),
    [
        (0, 0, 900, False),
        (400, 500, 300, False),  # today's calls have been made
        (400, 500, 500, False),
        (400, 500, 501, True),
        (500, 500, 500, False),
        (0, 500, 501, True),
    ],
)
def test_whether_todays_link_calls_last(used: int, limit: int, pace: float, short: bool):
    assert short_of_calls(used, limit, pace) is short


@pytest.mark.parametrize(
    ("at", "days"),
    [
        (datetime(2026, 11, 29, 16, tzinfo=UTC), 1.0),
        (datetime(2026, 12, 30, 16, tzinfo=UTC), 1.0),
        (datetime(2026, 10, 31, 16, tzinfo=UTC), 30.0),
    ],
)
def test_monthly_quotas_are_reset_on_the_first_in_beijing(at: datetime, days: float):
    assert days_of_month_left(at.timestamp()) == days


def audited(workspace: Workspace, at: float, monkeypatch: pytest.MonkeyPatch, **options: Any) -> AuditResult:
    monkeypatch.setattr("tcb_ops.api.time.time", lambda: at)
    return tcb.audit(workspace.merchants, settings=workspace.with_options(**options), limits=QUICK).audit()


def clock() -> float:
    """Return the time as the audit sees it, patched or not."""
    return time.time()


def usage(env: str, night: int, storage: int, **more: int) -> SimulatedEnvironment:
    return SimulatedEnvironment(env, storage_mb=storage, nights=((night, night),), **more)


ON = {"audit": {"quotas": True}}


@pytest.mark.slow
def test_storage_that_is_full_in_three_days_is_predicted_once_as_new(
    open_workspace: OpenWorkspace, monkeypatch: pytest.MonkeyPatch
):
    plan = [usage(TEA.env, night, 4300 + 100 * night, storage_gb=5) for night in (1, 2, 3, 4, 5, 6)]
    workspace = open_workspace([], merchants=[TEA, BOOKS], environments=plan, clock=clock)
    found = []
    for night in range(1, 7):
        workspace.sim.set_night(night)
        found.append(audited(workspace, NOW + night * DAY, monkeypatch, **ON))
    assert [[one.is_new for one in result.forecasts] for result in found] == [[], [True], *[[False]] * 4]
    (last,) = found[-1].forecasts
    assert last.text.en == "storage is full in 2 days (4,900 of 5,120 MB)"
    assert (last.env, last.limit, round(last.pace)) == (TEA.env, 5120, 100)
    assert [result.changed for result in found] == [False, True, False, False, False, False]
    assert {result.exit_code() for result in found} == {0}
    assert not found[-1].not_checked.keys() & {"storage", "writes"}


def test_writes_are_predicted_within_their_month_alone(
    open_workspace: OpenWorkspace, monkeypatch: pytest.MonkeyPatch
):
    plan = [
        SimulatedEnvironment(TEA.env, writes=writes, writes_limit=1000, nights=((night, night),))
        for night, writes in ((1, 700), (2, 800))
    ]
    workspace = open_workspace([], merchants=[TEA], environments=plan, clock=clock)
    for first, due in (
        (datetime(2026, 11, 10, 18, tzinfo=UTC).timestamp(), ["writes"]),
        (datetime(2026, 12, 28, 18, tzinfo=UTC).timestamp(), []),
    ):
        workspace.sim.set_night(1)
        audited(workspace, first, monkeypatch, **ON)
        workspace.sim.set_night(2)
        result = audited(workspace, first + DAY, monkeypatch, **ON)
        assert [one.quota for one in result.forecasts] == due


def test_link_calls_left_are_compared_with_the_daily_pace_of_the_ledger(open_workspace: OpenWorkspace):
    limits = [
        SimulatedAccount(TEA.appid, daily_limit=limit, nights=((n, n),)) for n, limit in ((1, 100), (2, 30))
    ]
    workspace = open_workspace(many(TEA, rows=40), merchants=[TEA, BOOKS], accounts=limits)
    tcb.links(workspace.read(), out=workspace.folder / "links.csv", settings=workspace.settings, limits=QUICK)
    workspace.sim.set_night(1)
    assert not tcb.audit(workspace.merchants, settings=workspace.settings, limits=QUICK).audit().forecasts
    workspace.sim.set_night(2)
    (one,) = tcb.audit(workspace.merchants, settings=workspace.settings, limits=QUICK).audit().forecasts
    assert (one.appid, one.quota, one.limit, one.pace, one.is_new) == (TEA.appid, "links", 30, 40, True)
    assert one.text.en == "link calls: 30 left today, about 40 a day are made"


def test_nothing_is_requested_while_quotas_are_off(open_workspace: OpenWorkspace):
    workspace = open_workspace([])
    tcb.audit(workspace.merchants, settings=workspace.settings, limits=QUICK)
    assert not workspace.sim.stats["cloud_keys"]
    assert not workspace.sim.stats["cloud_quota"]


def test_keys_are_requested_once_per_appid_and_a_packages_storage_once(open_workspace: OpenWorkspace):
    several = [Merchant("wxtea", "茶语小铺", f"tea-{n}-1a2b3c") for n in range(6)]
    own = Merchant("wxtea", "平台素材", "assets-1a2b", owner=Owner.PLATFORM)
    workspace = open_workspace([], merchants=[*several, BOOKS, own], component_appid="wxplatform")
    workspace.keep_tokens(
        {
            "wxtea": "token-of-wxtea",
            BOOKS.appid: f"token-of-{BOOKS.appid}",
            "wxplatform": workspace.sim.rotate("wxplatform"),
        }
    )
    tokens = {"source": "file", "file": workspace.folder / "tokens.csv", "component_appid": "wxplatform"}
    settings = workspace.with_options(tokens=tokens, **ON)
    run = tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    stats = workspace.sim.stats
    assert run.counts == {"healthy": 8}
    assert (stats["cloud_keys:wxtea"], stats[f"cloud_keys:{BOOKS.appid}"]) == (1, 1)
    assert stats["cloud_quota"] == 7 * 2 + 1
    assert run.audit().not_checked == {"permissions": 7, "storage": 1, "writes": 1}  # the platform's own


def test_environments_with_a_problem_are_not_measured(open_workspace: OpenWorkspace):
    workspace = open_workspace([], [Fault(env=BOOKS.env, errcode=85088)], merchants=[BOOKS])
    run = tcb.audit(workspace.merchants, settings=workspace.with_options(**ON), limits=QUICK)
    assert run.counts == {"unhealthy": 1}
    assert not workspace.sim.stats["cloud_keys"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(step=FaultStep.CLOUD_KEYS, env="*", errcode=48001),
        Fault(step=FaultStep.CLOUD_QUOTA, env="*", errcode=1),
        Fault(step=FaultStep.CLOUD_QUOTA, env="*", garbage=True),
    ],
)
def test_what_cannot_be_read_leaves_the_environment_healthy_and_is_listed(
    open_workspace: OpenWorkspace, fault: Fault
):
    workspace = open_workspace([], [fault], merchants=[TEA])
    run = tcb.audit(workspace.merchants, settings=workspace.with_options(**ON), limits=QUICK)
    assert run.counts == {"healthy": 1}
    assert run.audit().not_checked == {"permissions": 1, "storage": 1, "writes": 1}


def test_cloud_keys_are_stored_and_shown_nowhere(open_workspace: OpenWorkspace):
    workspace = open_workspace([], merchants=[TEA], component=Component("wxplatform"))
    run = tcb.audit(workspace.merchants, settings=workspace.with_options(**ON), limits=QUICK)
    run.export(workspace.folder / "report")
    keys = [
        secret
        for known in workspace.sim._platform._keys.items()
        for secret in (known[0], known[1].secret_key, known[1].token)
    ]
    assert len(keys) == 3
    files = [file for file in workspace.folder.rglob("*") if file.is_file()]
    assert len(files) > 5
    for file in files:
        content = file.read_bytes()
        assert not [key for key in keys if key[:12].encode() in content], file
