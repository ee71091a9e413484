"""The tokens that calls are made with, and the interfaces that give them: shapes, refusals, overlaps on an injected clock."""

from dataclasses import replace

import httpx
import pytest
from tables import table

from tcb_ops.errors import SettingsError
from tcb_ops.features.simulator.faults import Component, Fault, Faults, FaultStep, Reset, SimulatedAccount
from tcb_ops.features.simulator.state import Tokens
from tcb_ops.model import Merchant


def test_a_token_is_its_appids_until_it_is_rotated_or_expires():
    tokens = Tokens({"wx1": "one", "wx2": "two"})
    second, third = (tokens.issue("wx1", 0, lifetime=60, overlap=0) for _ in range(2))
    assert [tokens.owner(token, 0) for token in ("one", second, third, "two")] == [40001, 40001, "wx1", "wx2"]
    assert [tokens.owner(third, 60), tokens.owner("two", 60)] == [42001, "wx2"]
    assert tokens.owner(tokens.issue("wx1", 60, lifetime=60, overlap=0), 60) == "wx1"


def test_of_issued_tokens_the_newest_works_and_for_the_overlap_the_one_before():
    tokens = Tokens({"wx1": "one", "wx2": "two"})
    first = tokens.issue("wx1", now=0, lifetime=7200, overlap=300)
    second = tokens.issue("wx1", now=100, lifetime=7200, overlap=300)
    given = ("one", first, second, "two")
    assert [tokens.owner(token, 399) for token in given] == [40001, "wx1", "wx1", "wx2"]
    assert [tokens.owner(token, 400) for token in given] == [40001, 40001, "wx1", "wx2"]
    assert [tokens.owner(token, 7300) for token in given] == [40001, 40001, 42001, "wx2"]


@table(
    "text",
    {
        "other column": b"appid,token\nwx1,one\n",
        "encoding": b"\xff\xfe",
        "an open quote": b'appid,access_token\n"wx1,one\n',
    },
)
def test_a_bad_file_is_refused_at_the_start_without_its_tokens(tmp_path, text):
    file = tmp_path / "tokens.csv"
    file.write_bytes(text)
    with pytest.raises(SettingsError) as caught:
        Tokens(file)
    assert f"Token file {file}: " in str(caught.value)
    assert "one" not in str(caught.value)


APPID, OTHER, STRANGER = "wx0000000000000001", "wx0000000000000002", "wx0000000000000003"
COMPONENT = Component("wxcccccccccccccccc", "practice-secret", "practice-ticket")
FIRST = f"practice-refresh-token-of-{APPID}"
ASK = {"component_appsecret": "practice-secret", "component_verify_ticket": "practice-ticket"}


class Clock:
    now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def platform(start, clock):
    """Start a simulator that plays the platform; options change the component."""

    def started(accounts=(), faults=(), merchants=None, **component):
        more = {"merchants": merchants} if merchants else {}
        plan = Faults(tuple(faults))
        return start(
            component=replace(COMPONENT, **component), accounts=accounts, faults=plan, clock=clock, **more
        )

    return started


@pytest.mark.parametrize(
    ("wrong", "errcode"),
    [
        ({"component_appid": None}, 41018),
        ({"component_appid": "wx9"}, 61011),
        ({"component_appsecret": None}, 41004),
        ({"component_appsecret": "another"}, 40125),
        ({"component_verify_ticket": None}, 61006),
        ({"component_verify_ticket": "another"}, 61006),
    ],
)
def test_a_wrong_component_or_secret_or_ticket_is_refused(platform, wrong, errcode):
    talk = platform()
    assert talk.component("api_component_token", **ASK | wrong)["errcode"] == errcode
    assert talk.sim.stats[f"component_token:{errcode}"] == 1


def test_a_ticket_runs_out_after_12_hours_or_when_the_next_has_come(platform, clock):
    talk = platform()
    clock.now += 12 * 3600
    assert talk.component("api_component_token", **ASK)["errcode"] == 61005
    new = talk.sim.new_ticket()
    assert talk.component_token(component_verify_ticket=new)
    newer = talk.sim.new_ticket()
    for ticket in ("practice-ticket", new):
        result = talk.component("api_component_token", **ASK | {"component_verify_ticket": ticket})
        assert result["errcode"] == 61006
    assert talk.component_token(component_verify_ticket=newer)


def test_a_merchants_tokens_are_given_for_its_refresh_token(platform):
    talk = platform()
    answer = talk.refresh(talk.component_token(), FIRST)
    assert list(answer) == ["authorizer_access_token", "expires_in", "authorizer_refresh_token"]
    assert (answer["expires_in"], answer["authorizer_refresh_token"]) == (7200, FIRST)
    assert talk.ask(token=answer["authorizer_access_token"])["errcode"] == 0
    stats = talk.sim.stats
    assert (stats["authorizer_token"], stats[f"authorizer_token:{APPID}"], stats["authorizer_token:0"]) == (
        1,
        1,
        1,
    )


@table(
    "appid, refresh_token, errcode",
    {
        "unknown": (APPID, "another", 61023),
        "of another merchant": (APPID, f"practice-refresh-token-of-{OTHER}", 61023),
        "never authorized": (STRANGER, FIRST, 61003),
        "the component itself": (COMPONENT.appid, FIRST, 61003),
    },
)
def test_a_refresh_with_the_wrong_token_or_merchant_is_refused(platform, appid, refresh_token, errcode):
    talk = platform()
    assert talk.refresh(talk.component_token(), refresh_token, appid)["errcode"] == errcode


NAMES = ("api_authorizer_token", "api_get_authorizer_list", "api_get_authorizer_info")


@pytest.mark.parametrize("name", NAMES)
def test_what_needs_the_component_token_refuses_other_tokens(platform, clock, name):
    talk = platform()
    token = talk.component_token()
    merchants = talk.refresh(token, FIRST)["authorizer_access_token"]
    assert [talk.component(name, result)["errcode"] for result in ("", "unknown", merchants)] == [
        41001,
        40001,
        61014,
    ]
    assert talk.component(name, token, component_appid="wx9")["errcode"] == 61011
    clock.now += 7200
    assert talk.component(name, token)["errcode"] == 42001


def test_a_rotated_refresh_token_works_5_minutes_more_and_older_ones_never(platform, clock):
    talk = platform(rotate=True)
    component = talk.component_token()
    second = talk.refresh(component, FIRST)["authorizer_refresh_token"]
    assert second != FIRST
    assert second == talk.sim.refresh_token(APPID)
    clock.now += 299
    third = talk.refresh(component, FIRST)["authorizer_refresh_token"]
    assert talk.refresh(component, FIRST)["errcode"] == 61023
    clock.now += 300
    assert talk.refresh(component, second)["errcode"] == 61023
    assert "errcode" not in talk.refresh(component, third)


def test_a_dropped_refresh_token_is_found_in_the_list_and_nowhere_else(platform):
    talk = platform()
    component = talk.component_token()
    talk.sim.drop_refresh_token(APPID)
    assert talk.refresh(component, FIRST)["errcode"] == 61023
    listed = talk.component("api_get_authorizer_list", component, offset=0, count=500)["list"]
    tokens = {entry["authorizer_appid"]: entry["refresh_token"] for entry in listed}
    assert talk.refresh(component, tokens[APPID])["authorizer_refresh_token"] == tokens[APPID]


def test_the_list_has_every_authorizer_once_page_by_page(platform, clock):
    merchants = [Merchant(f"wx{n:03}", f"商户 {n}", f"env-{n}-{env}") for n in range(7) for env in "ab"]
    talk = platform(
        merchants=merchants, accounts=[SimulatedAccount("wx999", "新商户", refresh_token="of-999")]
    )
    component = talk.component_token()
    pages = [
        talk.component("api_get_authorizer_list", component, offset=offset, count=3)
        for offset in (0, 3, 6, 9)
    ]
    assert [page["total_count"] for page in pages] == [8] * 4
    entries = [entry for page in pages for entry in page["list"]]
    assert [entry["authorizer_appid"] for entry in entries] == [f"wx{n:03}" for n in (*range(7), 999)]
    assert entries[-1] == {
        "authorizer_appid": "wx999",
        "refresh_token": "of-999",
        "auth_time": int(clock.now),
    }


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"offset": 0, "count": 501},
        {"offset": 0, "count": 0},
        {"offset": -1, "count": 1},
        {"offset": "0", "count": 1},
        {"offset": True, "count": 1},
    ],
    ids=str,
)
def test_a_page_that_cannot_be_is_refused(platform, page):
    talk = platform()
    assert talk.component("api_get_authorizer_list", talk.component_token(), **page)["errcode"] == 40097


def test_the_info_of_an_authorizer_has_its_name_and_permission_sets(platform):
    talk = platform(accounts=[SimulatedAccount(APPID, "梧桐花店（总店）", permissions=(17, 64))])
    component = talk.component_token()
    result = talk.component("api_get_authorizer_info", component, authorizer_appid=APPID)
    assert result["authorizer_info"]["nick_name"] == "梧桐花店（总店）"
    assert result["authorizer_info"]["MiniProgramInfo"]["visit_status"] == 0
    assert result["authorization_info"] == {
        "authorizer_appid": APPID,
        "func_info": [{"funcscope_category": {"id": 17}}, {"funcscope_category": {"id": 64}}],
    }
    result = talk.component("api_get_authorizer_info", component, authorizer_appid=OTHER)
    assert result["authorizer_info"]["nick_name"] == "海盐书房"
    assert talk.sim.stats[f"authorizer_info:{OTHER}"] == 1


def test_who_has_revoked_is_refused_everywhere_and_no_longer_listed_until_it_comes_back(platform):
    talk = platform()
    component = talk.component_token()

    def listed():
        result = talk.component("api_get_authorizer_list", component, offset=0, count=500)
        return [entry["authorizer_appid"] for entry in result["list"]]

    talk.sim.revoke(APPID)
    assert listed() == [OTHER]
    assert talk.refresh(component, FIRST)["errcode"] == 61003
    assert talk.component("api_get_authorizer_info", component, authorizer_appid=APPID)["errcode"] == 61003
    assert talk.ask()["errcode"] == 61003
    assert talk.ask(env="books-4d5e6f", token="token-of-b")["errcode"] == 0
    talk.sim.authorize(APPID)
    assert listed() == [APPID, OTHER]
    assert talk.refresh(component, FIRST)["errcode"] == 61023
    assert "errcode" not in talk.refresh(component, talk.sim.refresh_token(APPID))


def test_a_refused_ip_is_61004_for_every_call(platform):
    talk = platform(ip_refused=True)
    result = talk.component("api_component_token", **ASK)
    assert result["errcode"] == 61004
    assert result["errmsg"].startswith("access clientip is not registered rid: ")
    assert [talk.ask()["errcode"], talk.call("tcb/getenvinfo", "token-of-b")["errcode"]] == [61004, 61004]
    talk.sim.refuse_ip(refused=False)
    assert talk.component_token()


@pytest.mark.parametrize("name", ["api_component_token", *NAMES])
def test_without_a_secret_these_interfaces_are_not_there(start, name):
    assert start().component(name, "token-of-b")["errcode"] == 40066
    assert start(component_appid=COMPONENT.appid).component(name, "token-of-b")["errcode"] == 40066


def test_an_answer_that_is_lost_on_its_way_has_rotated_the_refresh_token(platform):
    faults = [Fault(appid=APPID, step=FaultStep.AUTHORIZER_TOKEN, calls=((1, 1),), reset=Reset.MIDDLE)]
    talk = platform(faults=faults, rotate=True)
    component = talk.component_token()
    with pytest.raises(httpx.RemoteProtocolError):
        talk.refresh(component, FIRST)
    assert talk.sim.refresh_token(APPID) != FIRST
    assert "errcode" not in talk.refresh(component, FIRST)


def test_secrets_are_in_no_repr():
    shown = repr(COMPONENT) + repr(SimulatedAccount(APPID, refresh_token="planted"))
    assert not any(secret in shown for secret in ("practice-secret", "practice-ticket", "planted"))
