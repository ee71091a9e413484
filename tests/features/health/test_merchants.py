"""Checking every merchant: the verdict over one line, the table of states, and the calls over real sockets."""

import asyncio
import csv
import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console
from token_server import BOOKS, COMPONENT, TEA, TEA_TEST

import tcb_ops as tcb
from tcb_ops.engine.limits import RunLimits
from tcb_ops.errors import OutageError, PlatformStopError
from tcb_ops.features.health.interfaces import AuthorizerInfo, Quota
from tcb_ops.features.health.merchants import MerchantState, MerchantStates, check_lines, state_of
from tcb_ops.features.health.questions import AT_ONCE, map_concurrently
from tcb_ops.features.health.verdicts import (
    Actor,
    Answers,
    Facts,
    grouped,
    presumed_verdict,
    render_verdicts,
)
from tcb_ops.features.simulator.faults import (
    EnvStatus,
    Fault,
    FaultStep,
    SimulatedAccount,
    SimulatedEnvironment,
)
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.model import Merchant, Owner

OWN = Merchant("wxtea", "平台", "own-1", owner=Owner.PLATFORM)


def judged(line, *answers, **elsewhere):
    return state_of(Facts(merchant=line, answers=Answers(*answers), elsewhere=elsewhere))


def code_of(state):
    return state.verdict.code if state.verdict is not None else None


@pytest.mark.parametrize("status", ["NORMAL", "HALTED"])
def test_a_shared_environment_has_the_status_that_its_owner_is_told(status):
    state = judged(TEA, (), None, AuthorizerInfo("茶", frozenset({18, 49})), **{"tea-1": status})
    assert (state.env_status, state.works) == (status, status == "NORMAL")


def test_an_environment_that_is_not_the_platforms_is_told_so():
    assert code_of(judged(OWN, {"other": "NORMAL"})) == "not_listed"


def state(n, code=None, name="商户{}号", **more):
    merchant = Merchant(f"wx{n}", name.format(n), f"env-{n}")
    verdict = replace(presumed_verdict(code), merchant=merchant) if code else None
    return MerchantState(merchant, verdict=verdict, **more)


def drawn(states, width=80, lang=Lang.EN):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False
    )
    groups = grouped((each.verdict, each.merchant.name) for each in states if each.verdict is not None)
    for part in render_verdicts([(verdict, names, 0) for verdict, names in groups], lang):
        console.print(part)
    return console.file.getvalue()


def test_a_trouble_that_hundreds_have_does_not_hide_the_others():
    text = drawn([*(state(n, "61007") for n in range(300)), state(900, "85088"), state(901, "halted")])
    assert "61007 · 300 lines · 商户0号, 商户1号, 商户2号 and 297 more" in " ".join(text.split())
    assert text.index("61007 · 300 lines") < text.index("85088 · 1 line")
    assert len(text.splitlines()) < 45
    assert "the merchant: " in text
    assert drawn([state(n) for n in range(13)]) == ""


def test_a_narrow_screen_is_not_exceeded():
    text = drawn([state(1, "no_token", name="名字很长很长很长的旗舰体验店分店{}")], 80)
    assert all(cell_len(line) <= 80 for line in text.splitlines())


def test_what_the_platform_says_neither_moves_the_cursor_nor_runs_in_a_spreadsheet(tmp_path):
    nasty = Merchant("wx1", "=1+1\x1b[2J", "e-1")
    refused = replace(presumed_verdict("48001"), merchant=nasty, errmsg="@errmsg")
    one = MerchantState(nasty, verdict=refused)
    assert "\x1b" not in drawn([one])
    states = MerchantStates([one, state(2, "halted"), state(3, quota=Quota(9, 2, 7))])
    states.write(tmp_path / "s.csv", Lang.ZH)
    assert (
        (tmp_path / "s.csv")
        .read_bytes()
        .startswith(b"\xef\xbb\xbfappid,merchant,env,owner,left,works,env_status")
    )
    with (tmp_path / "s.csv").open(encoding="utf-8-sig", newline="") as file:
        first, second, third = csv.DictReader(file)
    assert (first["merchant"][:2], first["errmsg"]) == ("'=", "'@errmsg")
    assert (second["code"], second["who"]) == ("halted", "merchant")
    assert [third[name] for name in ("works", "remain", "code")] == ["yes", "7", ""]


def test_where_no_limit_is_known_no_figure_is_told(tmp_path):
    one = state(1, quota=Quota(0, 0, 0))
    assert one.as_dict(Lang.EN)["quota"] is None
    MerchantStates([one]).write(tmp_path / "s.csv", Lang.EN)
    with (tmp_path / "s.csv").open(encoding="utf-8-sig", newline="") as file:
        (line,) = csv.DictReader(file)
    assert [line[name] for name in ("daily_limit", "used", "remain")] == ["", "", ""]


QUICK = RunLimits(attempts=2, backoff=0.01, slow_wait=0.01)


def codes(states):
    return {
        state.merchant.env: [each.code for each in [state.verdict] if each is not None] for state in states
    }


def test_all_is_well_and_each_account_is_asked_once(open_token_server):
    token_server = open_token_server(
        [TEA, TEA_TEST, BOOKS, OWN], accounts=[SimulatedAccount("wxtea", daily_limit=10, used=4)]
    )
    states = tcb.check_merchants([TEA, TEA_TEST, BOOKS, OWN], settings=token_server.settings)
    assert [state.merchant for state in states] == [TEA, TEA_TEST, BOOKS, OWN]
    assert all(state.works for state in states)
    assert [state.env_status for state in states] == ["NORMAL"] * 4
    assert [state.quota.left for state in states] == [6, 6, None, None]
    asked = {
        step: token_server.sim.stats[step]
        for step in ("env_info", "authorizer_info", "describe_envs", "quota")
    }
    assert asked == {"env_info": 2, "authorizer_info": 2, "describe_envs": 1, "quota": 3}
    assert token_server.sim.stats["link_calls"] == 0


def test_each_trouble_is_its_merchants_alone(open_token_server):
    ill = {
        "revoked": (SimulatedAccount("wx1", revoked=True), "61003"),
        "no set": (SimulatedAccount("wx2", permissions=(18,)), "61007"),
        "no cloud": (SimulatedAccount("wx3", cloud=False), "85088"),
        "used up": (SimulatedAccount("wx4", daily_limit=5, used=5), "45009"),
        "no token": (SimulatedAccount("wx5"), "no_token"),
        "halted": (SimulatedAccount("wx6"), "halted"),
        "unavailable": (SimulatedAccount("wx7"), "unavailable"),
        "well": (SimulatedAccount("wx8"), None),
    }
    lines = [Merchant(account.appid, name, f"{account.appid}-env") for name, (account, _) in ill.items()]
    stranger = Merchant("wx8", "well", "not-its-own")
    token_server = open_token_server(
        lines,
        accounts=[account for account, _ in ill.values()],
        environments=[
            SimulatedEnvironment("wx6-env", EnvStatus.HALTED),
            SimulatedEnvironment("wx7-env", EnvStatus.UNAVAILABLE),
        ],
    )
    token_server.keep_tokens(*(f"wx{n}" for n in (1, 2, 3, 4, 6, 7, 8)), COMPONENT.appid)
    found = codes(check_lines(token_server.settings, [*lines, stranger], limits=QUICK))
    expected = {f"{account.appid}-env": [code] if code else [] for account, code in ill.values()}
    assert found == expected | {"not-its-own": ["not_listed"]}


@pytest.mark.parametrize("met", ["refused", "nothing left"])
def test_a_quota_of_the_platforms_own_is_said_to_be_the_platforms(open_token_server, met):
    used_up = [SimulatedAccount(COMPONENT.appid, daily_limit=5, used=5)] if met == "nothing left" else []
    faults = [Fault(step=FaultStep.DESCRIBE_ENVS, errcode=45009)] if met == "refused" else []
    token_server = open_token_server([TEA, OWN], accounts=used_up, faults=faults)
    (state,) = check_lines(token_server.settings, [OWN], limits=QUICK)
    assert (state.verdict.cause, state.verdict.who) == ("component_quota", Actor.ADMINISTRATOR)
    assert "/componenttcb/uploadfile" in state.verdict.action.en


def test_without_a_component_token_all_but_the_permission_sets_is_seen(open_token_server):
    token_server = open_token_server([TEA, OWN], accounts=[SimulatedAccount("wxtea", permissions=(18,))])
    checked = check_lines(token_server.with_options(component_appid=""), [TEA, OWN], limits=QUICK)
    tea, own = checked
    assert code_of(tea) == "61007"
    assert code_of(own) == "no_token"
    assert "component_appid" in own.verdict.action.en
    assert "Set component_appid" in checked.note.en
    assert token_server.sim.stats["authorizer_info"] == 0


@pytest.mark.parametrize("ill", ["not given", "refused"])
def test_a_component_token_that_does_not_serve_is_no_merchants_trouble(open_token_server, ill):
    token_server = open_token_server([TEA, BOOKS])
    if ill == "not given":
        token_server.keep_tokens("wxtea", "wxbooks")
    else:
        token_server.sim.rotate(COMPONENT.appid)
    checked = check_lines(token_server.settings, [TEA, BOOKS], limits=QUICK)
    assert all(state.works for state in checked)
    assert "Permission sets were not checked. " in checked.note.en
    assert ("refresh the component token" in checked.note.en) == (ill == "refused")


def test_a_shared_environment_is_what_its_owner_is_told(open_token_server):
    guest = Merchant("wxbooks", "城南书店", "tea-1")
    token_server = open_token_server(
        [TEA, BOOKS, guest], environments=[SimulatedEnvironment("tea-1", EnvStatus.HALTED)]
    )
    assert codes(check_lines(token_server.settings, [TEA, BOOKS, guest], limits=QUICK)) == {
        "tea-1": ["halted"],
        "books-1": [],
    }


def test_passing_trouble_passes_and_one_that_stays_is_one_merchants(open_token_server):
    faults = [
        Fault(appid="wxtea", step=FaultStep.ENV_INFO, calls=((1, 1),), errcode=-1),
        Fault(appid="wxbooks", step=FaultStep.ENV_INFO, status=502),
    ]
    token_server = open_token_server([TEA, BOOKS], faults)
    assert codes(check_lines(token_server.settings, [TEA, BOOKS], limits=QUICK)) == {
        "tea-1": [],
        "books-1": ["no_answer"],
    }


def test_nobody_there_stops_the_look(open_token_server):
    token_server = open_token_server([TEA])
    nowhere = replace(token_server.settings, api_base="http://127.0.0.1:1")
    with pytest.raises(OutageError, match=r"No connection to 127\.0\.0\.1:1"):
        check_lines(nowhere, [TEA], limits=QUICK)


def test_each_keeps_the_order_and_goes_few_at_a_time():
    going, most, done = 0, 0, []

    async def work(n):
        nonlocal going, most
        going += 1
        most = max(most, going)
        await asyncio.sleep(0)
        going -= 1
        return -n

    assert asyncio.run(map_concurrently(range(90), work, lambda *at: done.append(at))) == [
        -n for n in range(90)
    ]
    assert (most, done) == (AT_ONCE, [(n + 1, 90) for n in range(90)])
    assert asyncio.run(map_concurrently([], work)) == []


def test_a_stop_ends_the_others_and_comes_out_as_it_is():
    ended = []

    async def work(n):
        if n == 2:
            raise PlatformStopError(Bilingual("stop", "停"))
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(n)

    with pytest.raises(PlatformStopError):
        asyncio.run(map_concurrently(range(90), work))
    assert len(ended) <= AT_ONCE
