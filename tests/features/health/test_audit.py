"""An audit: which calls it makes of whom, and what it makes of their answers."""

from datetime import datetime

import pytest
from workspace import BOOKS, QUICK, TEA, TEA_TEST, write_csv

import tcb_ops as tcb
from tcb_ops.features.health import HALTED, UNHEALTHY
from tcb_ops.features.health.audit_calls import deciding
from tcb_ops.features.health.audit_kind import AUDIT
from tcb_ops.features.health.interfaces import AuthorizerInfo, Quota
from tcb_ops.features.health.verdicts import Answers, Facts
from tcb_ops.features.simulator.faults import (
    Component,
    EnvStatus,
    Fault,
    FaultStep,
    Reset,
    SimulatedAccount,
    SimulatedEnvironment,
)
from tcb_ops.model import Merchant, Outcome, Owner, Reason, RowEnd

PLATFORM = Component("wxplatform", secret="practice-secret", ticket="practice-ticket")
FLEET = [Merchant(f"wx{n:02}", f"商户 {n}", f"env-{n:02}-a1b2c3") for n in range(12)]


@pytest.mark.parametrize(
    ("end", "becomes"),
    [
        (RowEnd(1, Outcome.LINKED, errcode=0), "healthy"),
        (RowEnd(1, Outcome.UPLOADED, Reason.UNVERIFIED), "healthy"),
        (RowEnd(1, Outcome.REFUSED, Reason.REFUSED, errcode=85088), "unhealthy"),
        (RowEnd(1, Outcome.REFUSED, Reason.REFUSED, errcode=-987654), "unhealthy"),
        (RowEnd(1, Outcome.REFUSED, Reason.REFUSED, errcode=-1), "unknown"),
        (RowEnd(1, Outcome.REFUSED, Reason.REFUSED, errcode=45011), "unknown"),
        (RowEnd(1, Outcome.REFUSED, Reason.DEAD_TOKEN, errcode=40001), "unhealthy"),
        (RowEnd(1, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=61007), "unhealthy"),
        (RowEnd(1, Outcome.NOT_ATTEMPTED, Reason.NO_TOKEN), "unhealthy"),
        (RowEnd(1, Outcome.NOT_ATTEMPTED, Reason.NO_TOKEN, errcode=45011), "unknown"),
        (RowEnd(1, Outcome.FAILED, Reason.NO_ANSWER), "unknown"),
        (RowEnd(1, Outcome.FAILED, Reason.BAD_LINK), "unhealthy"),
        (RowEnd(1, Outcome.UNKNOWN, Reason.NO_TOKEN), "unknown"),
        (RowEnd(1, UNHEALTHY, HALTED), "unhealthy"),
    ],
)
def test_how_an_environment_is_judged(end, becomes):
    judged = AUDIT.end_of(end)
    assert judged.outcome == becomes
    assert AUDIT.end_of(judged) == judged


@pytest.mark.parametrize(
    ("may_upload", "status", "left", "expected"),
    [
        (False, "HALTED", 0, "61007"),
        (True, "HALTED", 0, "halted"),
        (None, "UNAVAILABLE", None, "unavailable"),
        (True, "NORMAL", 0, "45009"),
        (None, "", 0, "45009"),
        (None, "", None, None),
        (True, "NORMAL", 1, None),
    ],
)
def test_what_an_accounts_answers_say_before_a_link_is_asked_for(may_upload, status, left, expected):
    links = None if left is None else Quota(1_000, 1_000 - left, left)
    environments = {"env": status} if status else {}
    info = None if may_upload is None else AuthorizerInfo("", frozenset({49} if may_upload else {18}))
    answers = Answers(environments, links, info)
    verdict = deciding(Facts(merchant=Merchant("", "", "env"), answers=answers))
    assert (verdict and verdict.code) == expected


def audit(workspace, **options):
    return tcb.audit(workspace.merchants, settings=workspace.settings, limits=QUICK, **options)


def with_component(workspace, tokens):
    workspace.keep_tokens(tokens)
    file = {"source": "file", "file": workspace.folder / "tokens.csv", "component_appid": PLATFORM.appid}
    return workspace.with_options(tokens=file)


def ends(run):
    """Outcome and cause by environment."""
    codes = {cause.env: cause.code for cause in run.overview().causes}
    return {one.row.env: (str(one.end.outcome), codes.get(one.row.env, "")) for one in run.rows()}


def open_fleet(open_workspace, **options):
    tokens = {merchant.appid: f"token-of-{merchant.appid}" for merchant in FLEET[:-1]}
    return open_workspace(
        [],
        [
            Fault(appid="wx07", errcode=-1),
            Fault(appid="wx08", reset=Reset.BEFORE),
            Fault(env=FLEET[9].env, step=FaultStep.STORE, code="PaymentRequired", status=402),
            Fault(env=FLEET[10].env, step=FaultStep.QUOTA, errcode=-1),
        ],
        merchants=FLEET,
        tokens=tokens,
        accounts=[
            SimulatedAccount("wx00", daily_limit=50, used=20),
            SimulatedAccount("wx01", cloud=False),
            SimulatedAccount("wx02", permissions=(1,)),
            SimulatedAccount("wx03", revoked=True),
            SimulatedAccount("wx04", daily_limit=5, used=5),
        ],
        environments=[
            SimulatedEnvironment(FLEET[5].env, EnvStatus.HALTED),
            SimulatedEnvironment(FLEET[6].env, EnvStatus.UNAVAILABLE),
        ],
        **options,
    )


CAUSES = (
    "",
    "85088",
    "61007",
    "61003",
    "45009",
    "halted",
    "unavailable",
    "-1",
    "no_answer",
    "",
    "",
    "no_token",
)
"""By line of the fleet; empty: healthy."""
EXPECTED = {
    merchant.env: ("unknown" if code in {"-1", "no_answer"} else "unhealthy" if code else "healthy", code)
    for merchant, code in zip(FLEET, CAUSES, strict=True)
}


def test_each_environment_is_healthy_unhealthy_or_unknown_with_its_cause(open_workspace, assert_complete):
    workspace = open_fleet(open_workspace)
    run = audit(workspace)
    assert list(run.audit().fewest_link_calls.values()) == [30, 50, 20, "商户 0", "wx00"]
    assert assert_complete(run, 12) == {"healthy": 3, "unhealthy": 7, "unknown": 2}
    assert ends(run) == EXPECTED
    assert not workspace.sim.stats["store_calls"]
    assert run.audit().not_checked == {"permissions": 3}


def test_no_appid_is_asked_more_than_needed(open_workspace):
    many = [Merchant("wxtea", "茶语小铺", f"tea-{n}-1a2b3c") for n in range(6)]
    workspace = open_workspace([], merchants=[*many, BOOKS])
    assert audit(workspace).succeeded
    stats = workspace.sim.stats
    for step in ("env_info", "quota"):
        assert stats[f"{step}:wxtea"] == stats[f"{step}:wxbooks"] == 1
    assert stats["link_calls"] == 7


def test_an_appid_that_is_refused_is_asked_once_for_all_its_environments(open_workspace):
    many = [Merchant("wxtea", "茶语小铺", f"tea-{n}-1a2b3c") for n in range(6)]
    workspace = open_workspace(
        [], merchants=[*many, BOOKS], accounts=[SimulatedAccount("wxtea", cloud=False)]
    )
    assert audit(workspace).counts == {"healthy": 1, "unhealthy": 6}
    assert workspace.sim.stats["env_info:wxtea"] == 1
    assert workspace.sim.stats["link_calls"] == 1


@pytest.mark.needs("evidence")
@pytest.mark.parametrize("code", [61004, 61005, 61006])
def test_a_refusal_of_the_platform_makes_the_rest_unknown_and_the_next_audit_reports_no_recovery(
    open_workspace, assert_complete, code
):
    workspace = open_workspace([], [Fault(env=BOOKS.env, errcode=85088)])
    first = audit(workspace)
    assert first.counts == {"healthy": 2, "unhealthy": 1}
    workspace.sim.play([Fault(step=FaultStep.ENV_INFO, env="*", errcode=code)])
    stopped = audit(workspace)
    assert assert_complete(stopped, 3) == {"unknown": 3}
    assert str(code) in stopped.stopped.en
    assert stopped.record.finished_at is not None
    assert {cause.code for cause in stopped.overview().causes} == {str(code)}
    result = stopped.audit()
    assert (result.new, result.recovered, result.still) == ((), (), ())
    assert result.exit_code("none") == 3
    workspace.sim.play([Fault(env=BOOKS.env, errcode=85088)])
    third = audit(workspace).audit()
    assert third.previous.id == first.id
    assert third.counts() | {"still": 1, "healthy": 2} == third.counts()
    assert not third.recovered


def test_a_refused_component_token_concerns_everybody(open_workspace):
    workspace = open_workspace([], component=PLATFORM)
    settings = with_component(
        workspace, {TEA.appid: "token-of-wxtea", BOOKS.appid: "token-of-wxbooks", PLATFORM.appid: "stale"}
    )
    run = tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    assert "unknown" in run.counts
    assert "component token" in run.stopped.en


@pytest.mark.needs("evidence")
def test_without_a_component_token_everything_else_is_checked(open_workspace):
    workspace = open_workspace([], component_appid=PLATFORM.appid)
    settings = with_component(workspace, {TEA.appid: "token-of-wxtea", BOOKS.appid: "token-of-wxbooks"})
    run = tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    assert run.counts == {"healthy": 3}
    assert run.audit().not_checked == {"permissions": 3}
    again = tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    months = {
        datetime.fromtimestamp(each.record.created_at, settings.zone).strftime("%Y-%m")
        for each in (run, again)
    }
    noted = [
        any("Permission sets were not checked" in note.en for note in each.audit().notes())
        for each in (run, again)
    ]
    assert noted == [True, len(months) == 2], "once a month"


def test_an_outage_ends_the_audit_with_the_rest_unknown(open_workspace):
    workspace = open_workspace([])
    away = workspace.with_options(api_base="http://127.0.0.1:9")
    run = tcb.audit(workspace.merchants, settings=away, limits=tcb.RunLimits(backoff=0.01, patience=0.1))
    assert run.counts == {"unknown": 3}
    assert {cause.code for cause in run.overview().causes} == {"not_asked"}
    assert "Nothing listens on" in run.stopped.en


def test_merchants_that_have_left_are_not_audited(open_workspace):
    gone = Merchant("wxgone", "已离开", "gone-1a2b", left=True)
    workspace = open_workspace([], merchants=[TEA, gone])
    assert audit(workspace).counts == {"healthy": 1}
    assert not workspace.sim.stats["env_info:wxgone"]


def test_the_columns_of_the_merchants_file_are_carried_through(open_workspace):
    workspace = open_workspace(faults=[Fault(env=BOOKS.env, errcode=85088)])
    known = ((TEA, "小林", "1"), (TEA_TEST, "小周", "2"), (BOOKS, "小周", "3"))
    lines = [(m.appid, m.name, m.env, "", owner, number) for m, owner, number in known]
    head = ("appid", "小程序名称", "env", "default", "负责人", "tcb_line")
    file = write_csv(workspace.folder / "own.csv", head, lines)
    run = tcb.audit(file, settings=workspace.settings, limits=QUICK)
    assert [*run.results().columns[:5]] == ["appid", "name", "env", "负责人", "tcb_line"]
    assert run.results()["tcb_line"].tolist() == [2, 3, 4], "the lines of the file"
    assert run.record.list_bytes == file.stat().st_size
    assert run.results()["负责人"].tolist() == ["小林", "小周", "小周"]
    assert run.failed().groupby("负责人").size().to_dict() == {"小周": 1}
    assert tcb.retry(run.id, file, settings=workspace.settings).results()["负责人"].tolist() == ["小周"]


def test_an_environment_of_the_platforms_own_is_asked_with_the_component_token(open_workspace):
    own = Merchant("wxtea", "平台素材", "assets-1a2b", owner=Owner.PLATFORM)
    workspace = open_workspace([], merchants=[TEA, own], component_appid=PLATFORM.appid)
    settings = with_component(
        workspace, {TEA.appid: "token-of-wxtea", PLATFORM.appid: workspace.sim.rotate(PLATFORM.appid)}
    )
    run = tcb.audit(workspace.merchants, settings=settings, limits=QUICK)
    assert run.counts == {"healthy": 2}
    assert workspace.sim.stats["describe_envs"] == 1
