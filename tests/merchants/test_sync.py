"""What a sync changes; asking who has authorized the platform: the list whole or not at all, and whose issue is whose."""

import asyncio
import json
from dataclasses import replace

import pytest
from scripted import Server, always
from token_server import COMPONENT

from tcb_ops.errors import PlatformStopError, SettingsError, StoppedError
from tcb_ops.i18n import Bilingual
from tcb_ops.merchants.status import Issue
from tcb_ops.merchants.sync import Authorized, Authorizer, begin_sync, decide
from tcb_ops.model import Merchant, Owner
from tcb_ops.simulator import Fault, FaultStep
from tcb_ops.wechat.call_policy import CallLimits
from tcb_ops.wechat.responses import CloudEnvironment

NO_CLOUD = Issue("85088", Bilingual("no", "无"), Bilingual("open it", "开通"))
NO_TOKEN = Issue("no_token", Bilingual("no", "无"), Bilingual("give one", "给一个"))


def here(*authorizers, appids=()):
    return Authorized(frozenset(appids) | {one.appid for one in authorizers}, authorizers)


def one(appid, *envs, name="茶语小铺", status="NORMAL"):
    return Authorizer(appid, name, tuple(CloudEnvironment(env, status) for env in envs))


def line(appid="wx1", env="e-1", name="茶语小铺", **more):
    return Merchant(appid, name, env, **more)


def test_a_merchant_that_is_new_gets_a_line_per_environment_and_no_default():
    changes = decide([], here(one("wx1", "e-1", "e-2")))
    assert changes.added == (line(), line(env="e-2"))
    assert changes.no_default == ("茶语小铺",)
    assert changes.writes


def test_an_environment_that_is_new_takes_the_name_that_the_file_has():
    changes = decide([line(name="我的茶铺", default=True)], here(one("wx1", "e-1", "e-2")))
    assert changes.added == (line(env="e-2", name="我的茶铺"),)
    assert changes.no_default == ()
    assert [(merchant.name, name) for merchant, name in changes.renamed] == [("我的茶铺", "茶语小铺")]


def test_nothing_new_changes_nothing():
    changes = decide([line(), line(env="e-2", default=True)], here(one("wx1", "e-2", "e-1")))
    assert not changes.writes
    assert (changes.renamed, changes.gone, changes.not_normal, changes.no_default) == ((), (), (), ())


@pytest.mark.parametrize(
    ("left", "is_here", "becomes"),
    [(False, True, None), (False, False, "left"), (True, True, "returned"), (True, False, None)],
    ids=["stays", "gone", "back", "still gone"],
)
def test_who_is_gone_leaves_and_who_is_back_returns(left, is_here, becomes):
    other = one("wx2", "x", name="别家")
    found = here(one("wx1", "e-1"), other) if is_here else here(other)
    changes = decide([line(left=left), line("wx2", "x", name="别家")], found)
    assert changes.left == ((0,) if becomes == "left" else ())
    assert changes.returned == ((0,) if becomes == "returned" else ())


def test_lines_of_the_platforms_own_appid_never_leave_but_those_of_a_merchant_do():
    lines = [
        line("wxcomp", "p-1", owner=Owner.PLATFORM),
        line("wxgone", "p-2", owner=Owner.PLATFORM),
        line("wx1", "p-3", owner=Owner.PLATFORM),
    ]
    changes = decide(lines, here(one("wx1", "e-1")), "wxcomp")
    assert changes.left == (1,)
    assert changes.gone == ()


def test_a_name_that_was_but_the_appid_is_replaced_once_there_is_one():
    lines = [line(name="wx1"), line(env="e-2", name="wx1")]
    changes = decide(lines, here(one("wx1", "e-1", "e-2")))
    assert changes.names == ((0, "茶语小铺"), (1, "茶语小铺"))
    assert changes.renamed == ()
    assert decide(lines, here(one("wx1", "e-1", "e-2", name=""))).names == ()
    assert decide([], here(one("wx1", "e-1", name=""))).added == (line(name="wx1"),)


def test_names_are_alike_whatever_their_width_and_the_guard_of_spreadsheets():
    assert decide([line(name="ＡＢ 茶")], here(one("wx1", "e-1", name="ab 茶"))).renamed == ()
    assert decide([line(name="'=茶")], here(one("wx1", "e-1", name="=茶"))).renamed == ()


def test_environments_that_are_halted_or_gone_are_told_and_stay():
    lines = [line(), line(env="e-old"), line(env="e-2")]
    found = here(
        Authorizer("wx1", "茶语小铺", (CloudEnvironment("e-1", "HALTED"), CloudEnvironment("e-2", "NORMAL")))
    )
    changes = decide(lines, found)
    assert changes.not_normal == ((lines[0], "HALTED"),)
    assert changes.gone == (lines[1],)
    assert not changes.writes


def test_an_environment_that_another_merchant_shares_is_not_gone():
    changes = decide(
        [line(), line("wx2", "e-1", name="别家")], here(one("wx1", "e-1"), one("wx2", name="别家"))
    )
    assert changes.gone == ()


@pytest.mark.parametrize(
    ("issue", "unread"), [(NO_CLOUD, False), (NO_TOKEN, True)], ids=["85088", "no token"]
)
def test_a_merchant_whose_environments_cannot_be_had_keeps_its_lines(issue, unread):
    changes = decide([line()], here(Authorizer("wx1", "茶语小铺", issue), one("wx2", "x")))
    assert [(m.appid, t) for m, t in changes.issues] == [("wx1", issue)]
    assert (changes.left, changes.gone, changes.unread) == ((), (), unread)


def test_narrowed_only_whom_it_concerns_changes():
    lines = [line(), line("wx2", "x", name="别家"), line("wx3", "y", name="三家")]
    changes = decide(lines, here(one("wx1", "e-1", "e-9"), appids=["wx9"]), only={"wx1", "wx2"})
    assert [m.env for m in changes.added] == ["e-9"]
    assert changes.left == (1,)


def test_a_merchant_without_an_environment_is_told_not_dropped():
    changes = decide([line()], here(one("wx1", "e-1"), one("wx2", name="新店")))
    assert [(m.appid, m.name) for m in changes.without_env] == [("wx2", "新店")]
    assert changes.added == ()
    assert decide([line("wx2", "gone")], here(one("wx2"))).without_env == ()  # its line says so: gone


def test_a_line_of_the_platforms_own_environment_keeps_its_name_and_gives_it_to_nobody():
    own = line("wx1", "p-1", name="平台素材", owner=Owner.PLATFORM)
    unnamed = line("wx1", "p-2", name="wx1", owner=Owner.PLATFORM)
    changes = decide([own, unnamed], here(one("wx1", "e-1")))
    assert changes.added == (line(),)
    assert (changes.names, changes.renamed, changes.gone) == ((), (), ())
    assert decide(
        [line("wx1", "p-1", owner=Owner.PLATFORM, left=True)], here(one("wx1", "e-1"))
    ).returned == (0,)


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
