"""Asking who has authorized the platform: the list whole or not at all, and whose issue is whose."""

import asyncio
import json
from dataclasses import replace

import pytest
from scripted import Server, always
from token_server import COMPONENT

from tcb_ops.errors import PlatformStopError, SettingsError, StoppedError
from tcb_ops.merchants.status import Issue
from tcb_ops.merchants.sync import begin_sync
from tcb_ops.model import Merchant
from tcb_ops.simulator import Fault, FaultStep
from tcb_ops.wechat.call_policy import CallLimits

TEA = Merchant("wxtea", "茶语小铺", "tea-1")
BOOKS = Merchant("wxbooks", "城南书店", "books-1")
QUICK = CallLimits(attempts=2, backoff=0.01, slow_wait=0.01)


def test_who_is_looked_at_may_be_narrowed_but_who_is_there_is_known(open_token_server):
    token_server = open_token_server([TEA, BOOKS])
    seen = []
    found = begin_sync(token_server.settings, only={"wxtea"}, progress=lambda *at: seen.append(at)).result()
    assert found.appids == {"wxtea", "wxbooks"}
    assert [(one.appid, one.name, [e.env for e in one.environments]) for one in found.authorizers] == [
        ("wxtea", "茶语小铺", ["tea-1"])
    ]
    assert seen == [(1, 1)]
    assert token_server.sim.stats["env_info"] == 1


@pytest.mark.parametrize(
    "listed", [[], [{"authorizer_appid": "wxtea"}]], ids=["no page", "the same page again and again"]
)
def test_a_list_that_is_short_of_its_own_total_is_no_list(open_token_server, listed):
    token_server = open_token_server([TEA])

    async def sync():
        answer = json.dumps({"total_count": 3, "list": listed}).encode()
        async with Server(always(answer)) as server:
            settings = replace(token_server.settings, api_base=server.base)
            return await asyncio.wrap_future(begin_sync(settings, limits=QUICK))

    with pytest.raises(StoppedError, match="3 merchants have authorized it, but listed"):
        asyncio.run(sync())


def test_a_component_token_that_dies_on_the_way_stops_the_sync(open_token_server):
    token_server = open_token_server([TEA, BOOKS], [Fault(step=FaultStep.AUTHORIZER_INFO, errcode=42001)])
    with pytest.raises(PlatformStopError, match=COMPONENT.appid):
        begin_sync(token_server.settings, limits=QUICK).result()


def test_a_code_that_nobody_knows_stops_the_sync_with_the_platform_s_own_words(open_token_server):
    token_server = open_token_server(
        [TEA], [Fault(step=FaultStep.AUTHORIZER_LIST, errcode=12345, errmsg="no such thing")]
    )
    with pytest.raises(PlatformStopError) as caught:
        begin_sync(token_server.settings, limits=QUICK).result()
    assert caught.value.text.en == (
        f"The platform refused to list the merchants (component_appid {COMPONENT.appid}): errcode 12345, “no such thing”."
    )


def test_a_merchant_that_is_revoked_meanwhile_is_its_own_trouble(open_token_server):
    faults = [
        Fault(appid="wxtea", step=step, errcode=61003)
        for step in (FaultStep.AUTHORIZER_INFO, FaultStep.ENV_INFO)
    ]
    token_server = open_token_server([TEA, BOOKS], faults)
    books, tea = begin_sync(token_server.settings, limits=QUICK).result().authorizers
    assert (books.name, len(books.environments)) == ("城南书店", 1)
    assert isinstance(tea.environments, Issue)
    assert (tea.name, tea.environments.code) == ("", "61003")


def test_without_a_component_appid_nothing_is_asked(open_token_server):
    token_server = open_token_server([TEA])
    with pytest.raises(SettingsError, match="component_appid"):
        begin_sync(token_server.with_options(component_appid=""))
    assert not token_server.sim.stats
