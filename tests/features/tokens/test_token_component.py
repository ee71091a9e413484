"""Tokens that tcb-ops refreshes by itself: one refresh at a time, stored before it is used, ahead of the end."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from rigged_simulator import Simulator
from scripted import Connection, Run, Server, always, shown
from tables import table

from tcb_ops.catalogue import errcode
from tcb_ops.errors import SettingsError, TokenError, TokenSourceError
from tcb_ops.features.simulator.faults import Component, Fault, Faults, FaultStep, Reset
from tcb_ops.features.tokens import component_store as store_module
from tcb_ops.features.tokens.component import MOST_REFUSED, ComponentTokens, ErrorScope, error_scope
from tcb_ops.features.tokens.component_store import StoredToken, TokenStore
from tcb_ops.hooks import TokenSource
from tcb_ops.model import Merchant, Secret
from tcb_ops.programs import Credential
from tcb_ops.settings import Settings, TokenSettings
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError
from tcb_ops.wechat.tokens import Token, open_source
from tcb_ops.wechat.transport import Transport

PLATFORM, SECRET, TICKET = "wxplatform", "PrAcTiCe-app-secret", "ticket@@@PrAcTiCe"
MERCHANTS = [Merchant(f"wx{n}", f"商户 {n}", f"env-{n}") for n in range(3)]


@dataclass
class Clock:
    """Time that goes on when it is message to."""

    now: float = field(default_factory=lambda: float(int(time.time())))

    def __call__(self) -> float:
        return self.now


@dataclass
class CommandLine:
    """A platform on loopback, and the settings of one operator of it."""

    sim: Simulator
    folder: Path
    clock: Clock

    @property
    def store(self) -> Path:
        return self.folder / "tcb-ops.tokens"

    def source(self, **changed: Any) -> ComponentTokens:
        given = {"appid": PLATFORM, "secret": SECRET, "ticket": self.folder / "ticket", "base": self.sim.base}
        given |= changed
        (self.folder / "secret").write_text(given["secret"])
        secret = Credential("tokens.secret", "file", str(self.folder / "secret"))
        ticket = Credential("tokens.ticket", "file", str(given["ticket"]))
        store = TokenStore(self.store, given["appid"], given["base"])
        return ComponentTokens(given["appid"], secret, ticket, store, given["base"], clock=self.clock)

    def stored(self, appid: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.store / f"{appid}.json").read_text())
        return found

    async def works(self, token: Secret) -> bool:
        """Whether the platform takes a merchant's token."""
        async with Transport(connections=1) as transport:
            result = await PlatformClient(transport, self.sim.base).call("tcb/getenvinfo", {}, token)
        return not isinstance(result, ApiError)


@pytest.fixture
def open_cli(tmp_path):
    with ExitStack() as stack:

        def opened(*faults: Fault, merchants: Any = MERCHANTS, **component: Any) -> CommandLine:
            clock = Clock()
            platform = Component(PLATFORM, SECRET, TICKET, **component)
            options = {"component": platform, "faults": Faults(tuple(faults)), "clock": clock}
            sim = stack.enter_context(Simulator(merchants, {}, **options))
            (tmp_path / "ticket").write_text(TICKET)
            return CommandLine(sim, tmp_path, clock)

        yield opened


@pytest.fixture
def cli(open_cli):
    return open_cli()


@asynccontextmanager
async def using(source: TokenSource) -> AsyncIterator[TokenSource]:
    try:
        yield source
    finally:
        await source.aclose()


def ask(run: Run, source: TokenSource, appid: str = "wx0", refused: Secret | None = None) -> Secret:
    async def asked() -> Secret:
        async with using(source):
            return (await source.token(appid, refused)).value

    value: Secret = run(asked())
    return value


# --- what it gives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotate", [False, True], ids=["same-refresh-token", "rotated"])
def test_an_empty_store_is_filled_from_the_list_and_a_refused_token_refreshed(run, open_cli, rotate):
    cli = open_cli(rotate=rotate)
    first = ask(run, cli.source())
    assert run(cli.works(first))
    stats = cli.sim.stats
    assert (stats["component_token"], stats["authorizer_list"], stats["authorizer_token"]) == (1, 1, 1)
    assert cli.stored("wx0")["access_token"] == first.reveal()
    assert cli.stored("wx0")["refresh_token"] == cli.sim.refresh_token("wx0")
    cli.sim.expire("wx0")
    second = ask(run, cli.source(), refused=first)
    assert second != first
    assert run(cli.works(second))
    assert cli.stored("wx0")["refresh_token"] == cli.sim.refresh_token("wx0"), "the newest is kept"
    assert cli.sim.stats["authorizer_list"] == 1


def test_a_newer_stored_token_is_used_instead_of_a_refresh(run, cli):
    first = ask(run, cli.source())
    second = ask(run, cli.source(), refused=first)
    calls = cli.sim.stats["authorizer_token"]
    assert ask(run, cli.source(), refused=first) == second
    assert cli.sim.stats["authorizer_token"] == calls == 2


def test_twenty_tasks_that_meet_one_refused_token_make_one_refresh(run, cli):
    first = ask(run, cli.source())
    cli.sim.expire("wx0")

    async def all_at_once() -> set[Secret]:
        sources = [cli.source() for _ in range(4)]
        got = await asyncio.gather(*(source.token("wx0", first) for source in sources for _ in range(5)))
        for source in sources:
            await source.aclose()
        return {token.value for token in got}

    (second,) = run(all_at_once())
    assert second != first
    assert cli.sim.stats["authorizer_token:wx0"] == 2


def test_a_token_is_renewed_at_an_hour_and_fifty_minutes(run, cli):
    first = ask(run, cli.source())
    cli.clock.now += 6599
    assert ask(run, cli.source()) == first
    cli.clock.now += 1
    second = ask(run, cli.source())
    assert second != first
    token = cli.stored("wx0")
    assert token["expires_at"] == cli.clock.now + 7200
    assert token["renew_at"] == cli.clock.now + 6600
    assert cli.sim.stats["component_token"] == 2, "the component's own as well"


def test_a_renewal_ahead_that_fails_leaves_the_token_that_still_lives(run, open_cli):
    cli = open_cli(Fault(appid="wx0", step=FaultStep.AUTHORIZER_TOKEN, calls=((2, 5),), status=502))
    first = ask(run, cli.source())
    cli.clock.now += 6700

    async def renewed() -> Any:
        async with using(cli.source()) as source:
            return await source.token("wx0")

    token = run(renewed())
    assert token.value == first
    assert token.renew_at == cli.clock.now + 60
    cli.clock.now += 600
    with pytest.raises(TokenError, match="cannot be refreshed now"):
        ask(run, cli.source())


def test_the_component_token_is_the_one_of_the_components_appid(run, cli):
    async def asked() -> Any:
        async with using(cli.source()) as source, Transport(connections=1) as transport:
            token = (await source.token(PLATFORM)).value
            return await PlatformClient(transport, cli.sim.base).call("componenttcb/describeenvs", {}, token)

    assert not isinstance(run(asked()), ApiError)
    assert cli.sim.stats["component_token"] == 1


def test_a_component_token_that_is_refused_is_renewed_once(run, cli):
    ask(run, cli.source())
    cli.sim.expire(PLATFORM)
    assert run(cli.works(ask(run, cli.source(), "wx1")))
    assert cli.sim.stats["component_token"] == 2


def test_a_token_that_stays_refused_is_not_refreshed_for_ever(run, cli):
    async def asked() -> int:
        async with using(cli.source()) as source:
            token, times = await source.token("wx0"), 0
            while times < 20 and (fresh := await source.token("wx0", token.value)).value != token.value:
                token, times = fresh, times + 1
            return times

    assert run(asked()) == MOST_REFUSED


@pytest.mark.integration
def test_a_refresh_that_nobody_waits_for_any_more_is_stored_all_the_same(run, open_cli):
    cli = open_cli(Fault(appid="wx0", step=FaultStep.AUTHORIZER_TOKEN, delay=0.3), rotate=True)

    async def given_up() -> None:
        async with using(cli.source()) as source:
            asking = asyncio.create_task(source.token("wx0"))
            while not cli.sim.stats["authorizer_token"]:  # noqa: ASYNC110  another thread's counter
                await asyncio.sleep(0.005)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    run(given_up())
    assert cli.stored("wx0")["refresh_token"] == cli.sim.refresh_token("wx0")


def test_an_answer_that_is_lost_after_a_rotation_is_asked_for_again(run, open_cli):
    fault = Fault(appid="wx0", step=FaultStep.AUTHORIZER_TOKEN, calls=((1, 1),), reset=Reset.MIDDLE)
    cli = open_cli(fault, rotate=True)
    assert run(cli.works(ask(run, cli.source())))
    assert cli.stored("wx0")["refresh_token"] == cli.sim.refresh_token("wx0")


# --- merchants ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_500_merchants_refresh_once_each_and_none_waits_for_a_slow_one(run, open_cli):
    merchants = [Merchant(f"wx{n}", f"商户 {n}", f"env-{n}") for n in range(500)]
    slow = Fault(appid="wx8", step=FaultStep.AUTHORIZER_TOKEN, delay=0.5)
    cli = open_cli(slow, merchants=merchants)

    async def everyone() -> list[str]:
        landed = []
        async with using(cli.source()) as source:

            async def one(appid: str) -> None:
                await source.token(appid)
                landed.append(appid)

            async with TokenStore(cli.store, PLATFORM, cli.sim.base).hold(
                "wx7"
            ):  # as a slow process beside us
                waiting = asyncio.create_task(one("wx7"))
                await asyncio.gather(*(one(m.appid) for m in merchants if m.appid != "wx7"))
            await waiting
        return landed

    landed = run(everyone())
    assert landed[-1] == "wx7"
    stats = cli.sim.stats
    assert {stats[f"authorizer_token:{merchant.appid}"] for merchant in merchants} == {1}
    assert (stats["component_token"], stats["authorizer_list"]) == (1, 1)


def test_a_refresh_token_that_is_refused_is_looked_up_once(run, cli):
    first = ask(run, cli.source())
    cli.sim.drop_refresh_token("wx0")
    before = cli.sim.stats
    assert run(cli.works(ask(run, cli.source(), refused=first)))
    stats = cli.sim.stats - before
    assert (stats["authorizer_list"], stats["authorizer_token"]) == (1, 2)
    assert cli.stored("wx0")["refresh_token"] == cli.sim.refresh_token("wx0")


def test_a_look_that_fails_is_not_tried_again_by_each_merchant_that_waits_for_it(run, open_cli):
    cli = open_cli(Fault(step=FaultStep.AUTHORIZER_LIST, status=500))

    async def everyone() -> list[Any]:
        async with using(cli.source()) as source:
            asked = (source.token(merchant.appid) for merchant in MERCHANTS)
            return await asyncio.gather(*asked, return_exceptions=True)

    troubles = run(everyone())
    assert all(isinstance(trouble, TokenError) for trouble in troubles)
    assert all(merchant.appid in str(trouble) for merchant, trouble in zip(MERCHANTS, troubles, strict=True))
    assert cli.sim.stats["authorizer_list"] == 2  # asked, and once more since that may help


def platform_that_says(listed: Any, *refreshed: Any, later: Any = ()) -> Server:
    """A platform that answers the list, `later` the next times, and one refresh after the other, as it is message to."""
    answers = {
        b"api_component_token": [{"component_access_token": "t", "expires_in": 7200}],
        b"api_get_authorizer_list": [listed, *later],
        b"api_authorizer_token": list(refreshed),
    }

    async def script(connection: Connection) -> None:
        while True:
            head, _ = await connection.request()
            result = next(found for name, found in answers.items() if name in head)
            await connection.answer(json.dumps(result.pop(0) if len(result) > 1 else result[0]).encode())

    return Server(script)


def ask_of(run: Run, cli: CommandLine, server: Server, appid: str = "wx0") -> Token:
    async def asked() -> Token:
        async with server, using(cli.source(base=server.base)) as source:
            return await source.token(appid)

    token: Token = run(asked())
    return token


def answer(token: str, refresh: str) -> dict[str, Any]:
    return {"authorizer_access_token": token, "expires_in": 7200, "authorizer_refresh_token": refresh}


LISTED = {"total_count": 1, "list": [{"authorizer_appid": "wx0", "refresh_token": "r1", "auth_time": 1}]}


@table(
    "listed",
    {
        "null": {"errcode": 0, "list": None},
        "nothing": {"errcode": 0, "errmsg": "ok"},
        "no-list": {"total_count": 2, "list": {}},
        "no-count": {"list": []},
        "fewer-than-it-says": {"total_count": 2, "list": []},
    },
)
def test_a_list_that_is_none_says_nothing_about_a_merchants_authorization(run, cli, listed):
    why = r"wx0 cannot be refreshed now: api_get_authorizer_list gave"
    with pytest.raises(TokenError, match=why) as caught:
        ask_of(run, cli, platform_that_says(listed))
    assert not caught.value.errcode


def test_a_list_that_holds_fewer_than_it_says_serves_those_it_holds(run, cli):
    short = platform_that_says({**LISTED, "total_count": 3}, answer("a", "r1"))
    assert ask_of(run, cli, short).value == Secret("a")


OUTDATED = {"errcode": 61023, "errmsg": "refresh_token is invalid"}
FRESH = answer("a", "r3")


def listing(refresh: str) -> dict[str, Any]:
    return {"total_count": 1, "list": [{"authorizer_appid": "wx0", "refresh_token": refresh}]}


@pytest.mark.parametrize("code", [61023, 42002])
def test_a_refresh_token_that_another_machine_has_just_rotated_is_looked_up_after_a_moment(run, cli, code):
    """The list shows the old one for a moment longer."""

    lagging = platform_that_says(listing("r1"), {**OUTDATED, "errcode": code}, FRESH, later=[listing("r2")])
    assert ask_of(run, cli, lagging).value == Secret("a")
    assert b'"authorizer_refresh_token":"r2"' in lagging.bodies[-1]
    assert cli.stored("wx0")["refresh_token"] == "r3"


def test_a_refresh_token_that_has_been_stored_meanwhile_is_used(run, cli):
    """By a process on another machine, whose lock this one does not see."""

    async def asked() -> tuple[Token, list[bytes]]:
        async def script(connection: Connection) -> None:
            while True:
                head, body = await connection.request()
                if b"api_component_token" in head:
                    result: Any = {"component_access_token": "t", "expires_in": 7200}
                elif b'"r1"' in body:
                    source._store.write("wx0", StoredToken(None, Secret("r2")))
                    result = OUTDATED
                else:
                    result = FRESH
                await connection.answer(json.dumps(result).encode())

        async with Server(script) as server, using(cli.source(base=server.base)) as source:
            source._store.write("wx0", StoredToken(None, Secret("r1")))
            return await source.token("wx0"), server.heads

    token, heads = run(asked())
    assert token.value == Secret("a")
    assert not [head for head in heads if b"api_get_authorizer_list" in head]


def test_two_machines_that_refresh_the_same_merchant_never_say_it_needs_an_authorization(run, open_cli):
    cli = open_cli(rotate=True)
    there = replace(cli, folder=cli.folder / "there")
    there.folder.mkdir()
    (there.folder / "ticket").write_text(TICKET)
    token = ask(run, cli.source())
    for machine in (there, cli, there, cli):
        token = ask(run, machine.source(), refused=token)
        assert run(cli.works(token))


@pytest.mark.parametrize(
    "rest",
    [{"expires_in": 7200}, {"authorizer_access_token": "a", "expires_in": "abc"}],
    ids=["no-token", "no-end"],
)
def test_a_rotated_refresh_token_is_stored_even_where_nothing_else_came(run, cli, rest):
    async def asked() -> list[bytes]:
        rotated = {**rest, "authorizer_refresh_token": "r2"}
        answers = platform_that_says(LISTED, rotated, answer("b", "r2"))
        async with answers as server, using(cli.source(base=server.base)) as source:
            with pytest.raises(TokenError, match="api_authorizer_token gave no usable response"):
                await source.token("wx0")
            assert cli.stored("wx0")["refresh_token"] == "r2"
            assert (await source.token("wx0")).value == Secret("b")
        return server.bodies

    assert b'"authorizer_refresh_token":"r2"' in run(asked())[-1]


def test_a_rotated_refresh_token_replaces_the_old_one_beside_a_token_that_still_lives(run, cli):
    async def asked() -> Token:
        answers = platform_that_says(LISTED, answer("a", "r1"), {"authorizer_refresh_token": "r2"})
        async with answers as server, using(cli.source(base=server.base)) as source:
            await source.token("wx0")
            cli.clock.now += 6700
            return await source.token("wx0")

    assert run(asked()).value == Secret("a")
    assert (cli.stored("wx0")["access_token"], cli.stored("wx0")["refresh_token"]) == ("a", "r2")


@pytest.mark.parametrize(("held", "error"), [("wx0", TokenError), (PLATFORM, TokenSourceError)])
def test_a_lock_that_another_keeps_is_its_owners_trouble_and_the_components_everybodys(
    run, cli, monkeypatch, held, error
):
    monkeypatch.setattr(store_module, "LONGEST_HOLD", 0.1)

    async def asked() -> None:
        async with TokenStore(cli.store, PLATFORM, cli.sim.base).hold(held), using(cli.source()) as source:
            await source.token("wx0")

    with pytest.raises(error, match=f"Other processes have kept {held}'s token locked"):
        run(asked())


def test_a_broken_record_of_the_components_token_is_everybodys(run, cli):
    source = cli.source()
    (cli.store / f"{PLATFORM}.json").write_text("{}")
    with pytest.raises(TokenSourceError, match="not a token record: delete it"):
        ask(run, source)


def test_a_merchant_that_the_list_cannot_help_needs_a_new_authorization_and_the_others_go_on(run, cli):
    first = ask(run, cli.source())
    cli.sim.drop_refresh_token("wx0", listed=False)
    before = cli.sim.stats
    with pytest.raises(TokenError, match="wx0 needs a new authorization") as caught:
        ask(run, cli.source(), refused=first)
    assert caught.value.errcode == 61023
    assert errcode(61023).action.en.startswith("Send the merchant a new authorization link")
    assert "wx0 需要重新授权" in caught.value.text.zh
    assert (cli.sim.stats - before)["authorizer_list"] == 2  # at once, and after a moment
    assert run(cli.works(ask(run, cli.source(), "wx1")))


def test_a_merchant_that_is_not_on_the_list_needs_an_authorization(run, cli):
    with pytest.raises(TokenError, match="wx-unknown needs a new authorization"):
        ask(run, cli.source(), "wx-unknown")
    assert cli.sim.stats["authorizer_token"] == 0


# --- what stops everybody -------------------------------------------------------------------------------------------------


@table(
    "fault, changed, code, action",
    {
        "wrong-secret": (None, {"secret": "PrAcTiCe-wrong-secret"}, 40125, "AppSecret"),
        "wrong-secret-as-40001": (40001, {}, 40001, "AppSecret"),
        "wrong-component": (None, {"appid": "wxother"}, 61011, "component_appid"),
        "ip": (61004, {}, 61004, "whitelist"),
        "expired-ticket": (61005, {}, 61005, "next push"),
        "other-platforms-ticket": (61006, {}, 61006, "next push"),
        "daily-quota": (45009, {}, 45009, "clearComponentQuotaByAppSecret"),
    },
)
def test_the_components_own_refusals_are_everybodys_with_the_action_and_no_secret(
    run, open_cli, fault, changed, code, action
):
    faults = (
        ()
        if fault is None
        else (Fault(step=FaultStep.COMPONENT_TOKEN, errcode=fault, errmsg=f"no {SECRET}"),)
    )
    cli = open_cli(*faults)
    with pytest.raises(TokenSourceError, match=f"errcode {code}") as caught:
        ask(run, cli.source(**changed))
    assert caught.value.exit_code == 3
    assert action in caught.value.text.en
    assert not [secret for secret in (SECRET, TICKET, "wrong-secret") if secret in shown(caught.value)]
    assert cli.sim.stats["component_token"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_a_refused_ticket_is_read_again_once(run, cli, tmp_path):
    """The backend has put a new one there while the old one was under way."""
    fresh = cli.sim.new_ticket()
    (tmp_path / "first").write_text(TICKET)
    (tmp_path / "second").write_text(fresh)
    script = tmp_path / "ticket.sh"
    script.write_text('cd "$(dirname "$0")"; cat first; mv second first 2>/dev/null; exit 0\n')
    source = cli.source()
    source._ticket = Credential("tokens.ticket", "command", f"sh {script}")
    assert run(cli.works(ask(run, source)))
    assert cli.sim.stats["component_token"] == 2


def test_a_credential_that_is_gone_in_mid_run_is_said(run, cli):
    (cli.folder / "ticket").unlink()
    with pytest.raises(TokenSourceError, match=r"tokens\.ticket: file:.*ticket cannot be read"):
        ask(run, cli.source())


def test_nonsense_for_one_merchant_is_its_own_trouble(run, open_cli):
    cli = open_cli(Fault(appid="wx0", step=FaultStep.AUTHORIZER_TOKEN, body="garbage"))
    with pytest.raises(TokenError, match="wx0 cannot be refreshed now"):
        ask(run, cli.source())
    assert run(cli.works(ask(run, cli.source(), "wx1")))


@table(
    "body",
    {
        "page": b"<html>",
        "number": b'{"component_access_token":5,"expires_in":7200}',
        "line-break": b'{"component_access_token":"a\\nb","expires_in":7200}',
        "no-time": b'{"component_access_token":"PrAcTiCe","expires_in":"soon"}',
        "no-end": b'{"component_access_token":"PrAcTiCe","expires_in":1e999}',
        "no-token": b'{"expires_in":7200}',
    },
)
def test_nonsense_instead_of_a_component_token_is_everybodys(run, cli, body):
    why = r"api_component_token at 127\.0\.0\.1:[0-9]+ gave no usable response"
    with pytest.raises(TokenSourceError, match=why) as caught:
        ask_of(run, cli, Server(always(body)))
    assert "PrAcTiCe" not in shown(caught.value)


COMPONENT_REFUSALS = {
    ErrorScope.TICKET: (61005, 61006),
    ErrorScope.EVERYBODY: (40001, 40125, 45009),
    ErrorScope.NOBODY: (-1,),
}
MERCHANT_REFUSALS = {
    ErrorScope.NOBODY: (-1000,),
    ErrorScope.COMPONENT: (40001, 42001, 40014),
    ErrorScope.REFRESH_TOKEN: (61023, 42002),
    ErrorScope.EVERYBODY: (61004, 61005, 61011, 41018, 41002, 41004),
    ErrorScope.MERCHANT: (61003, 61007, 50002, 42007, 99999),
}


def test_what_a_refusal_concerns():
    for interface, refusals in (
        ("api_component_token", COMPONENT_REFUSALS),
        ("api_authorizer_token", MERCHANT_REFUSALS),
    ):
        for scope, codes in refusals.items():
            assert [error_scope(interface, code) for code in codes] == [scope] * len(codes)


# --- the settings ---------------------------------------------------------------------------------------------------------


@table(
    "tokens, why",
    {
        "not-sole": ({}, "needs sole_owner = true"),
        "no-component": ({"sole_owner": True}, r"tokens\.component_appid is missing"),
        "no-secret": ({"sole_owner": True, "component_appid": "wx"}, r"tokens\.secret is missing"),
        "secret-not-set": (
            {"sole_owner": True, "component_appid": "wx", "secret": "env:TCB_NOT_SET"},
            "env:TCB_NOT_SET is empty or not set",
        ),
        "no-ticket-file": (
            {"sole_owner": True, "component_appid": "wx", "secret": "env:PATH", "ticket": "file:none"},
            "file:none cannot be read",
        ),
    },
)
def test_a_component_that_cannot_work_is_refused_before_anything_is_sent(tokens, why, tmp_path):
    settings = Settings(tokens=TokenSettings(source="component", store=tmp_path / "store", **tokens))
    with pytest.raises(SettingsError, match=why) as caught:
        open_source(settings)
    assert caught.value.exit_code == 2
    assert os.environ["PATH"] not in shown(caught.value)
