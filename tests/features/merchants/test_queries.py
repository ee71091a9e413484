"""Checking every merchant over real sockets: the simulator plays the accounts."""

import asyncio
from dataclasses import replace

import pytest
from token_server import COMPONENT

import tcb_ops as tcb
from tcb_ops.errors import OutageError, PlatformStopError
from tcb_ops.features.merchants.queries import AT_ONCE, begin_check, map_concurrently
from tcb_ops.features.simulator import EnvStatus, Fault, FaultStep, SimulatedAccount, SimulatedEnvironment
from tcb_ops.i18n import Bilingual
from tcb_ops.model import Merchant, Owner
from tcb_ops.wechat.call_policy import CallLimits

TEA = Merchant("wxtea", "茶语小铺", "tea-1")
TEA_TEST = Merchant("wxtea", "茶语小铺", "tea-2")
BOOKS = Merchant("wxbooks", "城南书店", "books-1")
OWN = Merchant("wxtea", "平台", "own-1", owner=Owner.PLATFORM)
QUICK = CallLimits(attempts=2, backoff=0.01, slow_wait=0.01)


def merchant_states(settings, merchants, **given):
    return begin_check(settings, merchants, **given).result().states


def codes(states):
    return {state.merchant.env: [t.code for t in state.issues] for state in states}


def test_all_is_well_and_each_account_is_asked_once(open_token_server):
    token_server = open_token_server(
        [TEA, TEA_TEST, BOOKS, OWN], accounts=[SimulatedAccount("wxtea", daily_limit=10, used=4)]
    )
    states = tcb.check_merchants([TEA, TEA_TEST, BOOKS, OWN], settings=token_server.settings)
    assert [state.merchant for state in states] == [TEA, TEA_TEST, BOOKS, OWN]
    assert all(state.works for state in states)
    assert [(s.token, s.permission, s.cloud, s.env_status) for s in states] == [
        (True, True, True, "NORMAL"),
        (True, True, True, "NORMAL"),
        (True, True, True, "NORMAL"),
        (True, None, True, "NORMAL"),
    ]
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
    found = codes(merchant_states(token_server.settings, [*lines, stranger], limits=QUICK))
    expected = {f"{account.appid}-env": [code] if code else [] for account, code in ill.values()}
    assert found == expected | {"not-its-own": ["not_listed"]}


@pytest.mark.parametrize("met", ["refused", "nothing left"])
def test_a_quota_of_the_platforms_own_is_said_to_be_the_platforms(open_token_server, met):
    used_up = [SimulatedAccount(COMPONENT.appid, daily_limit=5, used=5)] if met == "nothing left" else []
    faults = [Fault(step=FaultStep.DESCRIBE_ENVS, errcode=45009)] if met == "refused" else []
    token_server = open_token_server([TEA, OWN], accounts=used_up, faults=faults)
    (state,) = merchant_states(token_server.settings, [OWN], limits=QUICK)
    (issue,) = state.issues
    assert issue.meaning.en == "The platform's own calls for today are used up."
    assert "/componenttcb/uploadfile" in issue.action.en


def test_without_a_component_token_all_but_the_permission_sets_is_seen(open_token_server):
    token_server = open_token_server([TEA, OWN], accounts=[SimulatedAccount("wxtea", permissions=(18,))])
    checked = begin_check(token_server.with_options(component_appid=""), [TEA, OWN], limits=QUICK).result()
    tea, own = checked.states
    assert (tea.permission, [t.code for t in tea.issues]) == (False, ["61007"])
    assert [t.code for t in own.issues] == ["no_token"]
    assert "component_appid" in own.issues[0].action.en
    assert "Set component_appid" in checked.note.en
    assert token_server.sim.stats["authorizer_info"] == 0


@pytest.mark.parametrize("ill", ["not given", "refused"])
def test_a_component_token_that_does_not_serve_is_no_merchants_trouble(open_token_server, ill):
    token_server = open_token_server([TEA, BOOKS])
    if ill == "not given":
        token_server.keep_tokens("wxtea", "wxbooks")
    else:
        token_server.sim.rotate(COMPONENT.appid)
    checked = begin_check(token_server.settings, [TEA, BOOKS], limits=QUICK).result()
    assert [(state.works, state.permission) for state in checked.states] == [(True, None), (True, None)]
    assert "component token does not work" in checked.note.en


def test_a_shared_environment_is_what_its_owner_is_told(open_token_server):
    guest = Merchant("wxbooks", "城南书店", "tea-1")
    token_server = open_token_server(
        [TEA, BOOKS, guest], environments=[SimulatedEnvironment("tea-1", EnvStatus.HALTED)]
    )
    assert codes(merchant_states(token_server.settings, [TEA, BOOKS, guest], limits=QUICK)) == {
        "tea-1": ["halted"],
        "books-1": [],
    }


def test_passing_trouble_passes_and_one_that_stays_is_one_merchants(open_token_server):
    faults = [
        Fault(appid="wxtea", step=FaultStep.ENV_INFO, calls=((1, 1),), errcode=-1),
        Fault(appid="wxbooks", step=FaultStep.ENV_INFO, status=502),
    ]
    token_server = open_token_server([TEA, BOOKS], faults)
    assert codes(merchant_states(token_server.settings, [TEA, BOOKS], limits=QUICK)) == {
        "tea-1": [],
        "books-1": ["no_answer"],
    }


def test_nobody_there_stops_the_look(open_token_server):
    token_server = open_token_server([TEA])
    nowhere = replace(token_server.settings, api_base="http://127.0.0.1:1")
    with pytest.raises(OutageError, match=r"No connection to 127\.0\.0\.1:1"):
        merchant_states(nowhere, [TEA], limits=QUICK)


def test_each_keeps_the_order_and_goes_few_at_a_time():
    going, most, done = 0, 0, []

    async def work(n):
        nonlocal going, most
        going += 1
        most = max(most, going)
        await asyncio.sleep(0)
        going -= 1
        return -n

    assert asyncio.run(map_concurrently(range(30), work, lambda *at: done.append(at))) == [
        -n for n in range(30)
    ]
    assert (most, done) == (AT_ONCE, [(n + 1, 30) for n in range(30)])
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
        asyncio.run(map_concurrently(range(30), work))
    assert sorted(ended) == [0, 1, *range(3, AT_ONCE)]
