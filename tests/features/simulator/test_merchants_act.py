"""What an operator asks for in a merchant's name: opening 云开发, an environment, an authorization, a fresh quota."""

import pytest
from features.simulator.conftest import APPID, COMPONENT, ENV, OTHER_APPID, TOKEN

from tcb_ops.features.simulator.faults import SimulatedAccount

DAY = 86_400
CREATE = {"type": "CreatePostpayPackage"}


@pytest.fixture
def world(start):
    """Start a simulator whose clock a test moves; `world.now` is its time."""

    class World:
        now = 1_764_000_000.0  # 2025-11-25 00:00 in Beijing

        def start(self, account=None, **options):
            accounts = [account] if account else []
            options = {"component": COMPONENT, "clock": lambda: self.now} | options
            self.talk = start(accounts=accounts, **options)
            return self

        def code(self, interface, **body):
            return self.talk.call(interface, TOKEN, **body)["errcode"]

        def link(self, env=ENV):
            return self.talk.ask(env=env)["errcode"]

        def status(self):
            listed = self.talk.call("tcb/getenvinfo", TOKEN)["info_list"]
            return {entry["env"]: entry["status"] for entry in listed}

    return World()


def test_opening_takes_a_message_a_person_and_the_same_call_again(world):
    world.start(SimulatedAccount(APPID, cloud=False))
    assert world.link() == 85088
    assert world.code("tcb/createenvandresource", alias="shop-a", **CREATE) == 85088
    assert [world.code("tcb/createclouduser") for _each in range(2)] == [-601049, -601026]
    assert world.talk.call("simulator/confirm", TOKEN) == {
        "errcode": 0,
        "errmsg": "ok",
        "confirmed": ["cloud"],
    }
    assert world.talk.call("tcb/createclouduser", TOKEN) == {"errcode": 0, "errmsg": "ok"}
    assert world.talk.call("simulator/confirm", TOKEN)["confirmed"] == []
    assert world.status() == {}
    assert world.link() == -601012


def test_the_administrator_gets_another_message_after_24_hours(world):
    world.start(SimulatedAccount(APPID, cloud=False, phone=False))
    codes = []
    for seconds in (0, DAY - 1, 1, 1):
        world.now += seconds
        codes.append(world.code("tcb/createclouduser"))
    assert codes == [-601048, -601026, -601048, -601026]


def test_an_administrator_who_confirms_by_itself_does_so_after_its_seconds(world):
    world.start(SimulatedAccount(APPID, cloud=False, confirms_after=60))
    codes = []
    for seconds in (0, 59, 1):
        world.now += seconds
        codes.append(world.code("tcb/createclouduser"))
    assert codes == [-601049, -601026, 0]


def test_a_new_environment_is_there_at_once_and_ready_later(world):
    world.start(SimulatedAccount(APPID, cloud=False, confirms_after=0, ready_after=600))
    assert [world.code("tcb/createclouduser") for _each in range(2)] == [-601049, 0]
    made = world.talk.call("tcb/createenvandresource", TOKEN, alias="shop-a", **CREATE)
    assert made == {"errcode": 0, "errmsg": "ok", "envid": ENV}
    assert (world.status(), world.link()) == ({ENV: "UNAVAILABLE"}, -501018)
    world.now += 600
    assert (world.status(), world.link()) == ({ENV: "NORMAL"}, 0)
    other = world.talk.call("tcb/createenvandresource", TOKEN, alias="shop-a", **CREATE)["envid"]
    assert other.startswith("shop-a-")
    assert other != ENV
    assert set(world.status()) == {ENV, other}
    assert world.talk.upload(env=ENV).status_code == 204


def test_the_retired_form_takes_the_callers_id(world):
    world.start(SimulatedAccount(APPID, ready_after=0))
    made = world.talk.call("tcb/createenvandresource", TOKEN, env="mine-01", alias="mine")
    assert made == {"errcode": 0, "errmsg": "ok", "status": "INITIALIZING"}
    assert "mine-01" in world.status()


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, 40101),
        (CREATE, 40101),
        ({"alias": "shop"}, 40101),
        ({"alias": "1-shop", **CREATE}, 40097),
        ({"alias": "店", **CREATE}, 40097),
        ({"alias": 7, **CREATE}, 40097),
        ({"alias": "shop", "type": "CreatePrepayPackage"}, 40097),
    ],
)
def test_an_environment_is_refused_without_type_or_a_proper_alias(world, body, errcode):
    assert world.start().code("tcb/createenvandresource", **body) == errcode


@pytest.mark.parametrize(("revoked", "refused"), [(False, 61007), (True, 61003)])
def test_an_authorization_that_is_renewed_ends_the_refusals(world, revoked, refused):
    world.start(SimulatedAccount(APPID, permissions=(18,), revoked=revoked))
    assert world.link() == refused
    assert world.talk.call("simulator/confirm", TOKEN)["confirmed"] == ["authorization"]
    assert world.link() == 0
    component = world.talk.component_token()
    info = world.talk.component("api_get_authorizer_info", component, authorizer_appid=APPID)
    granted = [entry["funcscope_category"]["id"] for entry in info["authorization_info"]["func_info"]]
    assert sorted(granted) == [18, 49]


def test_a_merchant_authorizes_again_by_itself_after_its_seconds(world):
    world.start(SimulatedAccount(APPID, permissions=(18,), confirms_after=60))
    codes = []
    for seconds in (0, 59, 1):
        world.now += seconds
        codes.append(world.link())
    assert codes == [61007, 61007, 0]


def test_clear_quota_makes_links_work_again_ten_times_a_month(world):
    world.start(SimulatedAccount(APPID, daily_limit=1, used=1, cleared=9))
    assert world.link() == 45009
    assert world.code("cgi-bin/clear_quota", appid=OTHER_APPID) == 40013
    assert world.talk.call("cgi-bin/clear_quota", TOKEN, appid=APPID) == {"errcode": 0, "errmsg": "ok"}
    assert [world.link(), world.link()] == [0, 45009]
    refused = world.talk.call("cgi-bin/clear_quota", TOKEN, appid=APPID)
    assert refused["errcode"] == 48006
    assert refused["errmsg"].startswith("forbid to clear quota because of reaching the limit rid: ")
    assert world.link() == 45009


def test_clearings_are_counted_by_the_month_in_beijing(world):
    world.start(SimulatedAccount(APPID, daily_limit=1))
    world.now = 1_764_518_399.0  # 2025-11-30 23:59:59
    assert [world.code("cgi-bin/clear_quota", appid=APPID) for _each in range(11)] == [0] * 10 + [48006]
    world.now += 1
    assert world.code("cgi-bin/clear_quota", appid=APPID) == 0


def test_the_platform_clears_its_own_quota_with_its_own_token(world):
    token = world.start().talk.component_token()
    assert world.talk.call("cgi-bin/clear_quota", token, appid=COMPONENT.appid)["errcode"] == 0
    assert world.talk.call("cgi-bin/clear_quota", token, appid=APPID)["errcode"] == 40013


def test_a_code_for_the_authorization_link_is_given_to_the_platform_alone(world):
    world.start()
    code = world.talk.component("api_create_preauthcode", world.talk.component_token())
    assert set(code) == {"pre_auth_code", "expires_in"}
    assert world.talk.component("api_create_preauthcode", TOKEN)["errcode"] == 61014


def test_a_store_keeps_what_was_asked_and_done_for_the_next_simulator(world, tmp_path):
    """A rehearsal's embedded simulator ends with each command; the merchant's day goes on."""
    broken = SimulatedAccount(APPID, cloud=False, ready_after=600, daily_limit=1, used=1)
    world.start(broken, store=tmp_path)
    assert world.code("tcb/createclouduser") == -601049
    world.start(broken, store=tmp_path)
    assert world.code("tcb/createclouduser") == -601026
    world.talk.call("simulator/confirm", TOKEN)
    world.start(broken, store=tmp_path)
    assert world.code("tcb/createclouduser") == 0
    made = world.talk.call("tcb/createenvandresource", TOKEN, alias="new", **CREATE)["envid"]
    world.start(broken, store=tmp_path)
    assert world.status() == {made: "UNAVAILABLE"}
    world.now += 600
    assert (world.status(), world.link(made)) == ({made: "NORMAL"}, 45009)
    assert world.code("cgi-bin/clear_quota", appid=APPID) == 0
    world.start(broken, store=tmp_path)
    assert world.link(made) == 0
