"""The company's token server: asked with the appid, told what was refused, never shown what it said."""

import asyncio
import hashlib
import json
import time
from typing import Any

import pytest
from scripted import Connection, Run, Script, Server, always
from tables import table

from tcb_ops.errors import SettingsError, TcbOpsError, TokenError, TokenSourceError
from tcb_ops.features.tokens.sources import TIMEOUTS, ServiceTokens, read_service_response
from tcb_ops.model import Secret
from tcb_ops.settings import Settings, TokenSettings
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.tokens import Token, open_source
from tcb_ops.wechat.transport import Timeouts

SECRET, AUTH = "SeCrEt+token/42=", "Bearer PrAcTiCe-key"
GOOD = json.dumps({"access_token": SECRET, "expires_in": 7200}).encode()
QUICK = Timeouts(connect=0.4, answer=0.4)


def asked(
    run: Run, script: Script, refused: Secret | None = None, appid: str = "wx1", timeouts: Timeouts = TIMEOUTS
) -> tuple[Any, Server]:
    """What a source gives, or raises, and the server that it asked."""

    async def ask() -> tuple[Any, Server]:
        async with Server(script) as server:
            source = ServiceTokens(
                f"{server.base}/tokens/{{appid}}?v=1", {"Authorization": Secret(AUTH)}, timeouts=timeouts
            )
            try:
                return await source.token(appid, refused), server
            except TcbOpsError as error:
                return error, server
            finally:
                await source.aclose()

    result: tuple[Any, Server] = run(ask())
    return result


def shown(error: TcbOpsError) -> str:
    return f"{error!r} {error.__cause__!r} {error.__context__!r} {error.text.en} {error.text.zh}"


def test_the_server_is_asked_for_one_appid_with_the_header_and_says_when_the_token_ends(run):
    token, server = asked(run, always(GOOD))
    assert token.value == Secret(SECRET)
    assert token.expires_at == pytest.approx(time.time() + 7200, abs=30)
    (head,) = server.heads
    assert head.startswith(b"GET /tokens/wx1?v=1 HTTP/1.1\r\n")
    assert f"\r\nAuthorization: {AUTH}\r\n".encode() in head
    assert b"x-tcb-refused" not in head.lower()


def test_the_server_is_told_which_token_was_refused_without_seeing_it(run):
    _, server = asked(run, always(GOOD), Secret(SECRET))
    mark = hashlib.sha256(SECRET.encode()).hexdigest()[:12]
    assert f"X-Tcb-Refused: {mark}\r\n".encode() in server.heads[0]
    assert SECRET.encode() not in server.heads[0]


def test_an_appid_cannot_lead_to_another_address(run):
    _, server = asked(run, always(GOOD), appid="../admin?x=1#y")
    assert server.heads[0].startswith(b"GET /tokens/..%2Fadmin%3Fx%3D1%23y?v=1 HTTP/1.1\r\n")


@table(
    "status, body, kind, says",
    {
        "good": (200, GOOD, Token, ""),
        "expires-at": (200, b'{"access_token": "t", "expires_at": 1700000000}', Token, ""),
        "page": (200, b"<html>", TokenError, "content without an access_token"),
        "other-key": (200, b'{"token": "SeCrEt"}', TokenError, "content without an access_token"),
        "empty": (200, b"", TokenError, "content without an access_token"),
        "brackets": (200, b"[" * 9999, TokenError, "content without an access_token"),
        "end": (
            200,
            b'{"access_token": "SeCrEt", "expires_in": 1e999}',
            TokenError,
            "an invalid expiry time",
        ),
        "large": (200, GOOD + b" " * 70_000, TokenError, "more than 64 KB"),
        "unknown": (404, b"SeCrEt", TokenError, "does not know this merchant"),
        "401": (401, b"SeCrEt", TokenSourceError, "tokens.auth_env"),
        "403": (403, b"SeCrEt", TokenSourceError, "tokens.auth_env"),
        "redirect": (302, b"", TokenError, "redirect"),
        "500": (500, b"SeCrEt", TokenError, "HTTP 500"),
        "429": (429, b"SeCrEt", TokenError, "HTTP 429"),
        "418": (418, b"SeCrEt", TokenError, "HTTP 418"),
    },
)
def test_whose_trouble_an_answer_is(status, body, kind, says):
    if kind is Token:
        assert isinstance(
            read_service_response(HttpResponse(status, {}, body), "wx1", "tokens.example", 0.0),
            Token,
        )
        return
    with pytest.raises(TcbOpsError, match=says) as caught:
        read_service_response(HttpResponse(status, {}, body), "wx1", "tokens.example", 0.0)
    assert type(caught.value) is kind
    assert "tokens.example" in caught.value.text.zh
    assert "SeCrEt" not in shown(caught.value)


@pytest.mark.parametrize("status", ["500 Oops", "503 Busy", "429 Slow"])
def test_a_server_that_stumbles_may_be_asked_again_by_the_run(run, status):
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.answer(b"", status)

    error, server = asked(run, script)
    assert (type(error), error.transient, len(server.heads)) == (TokenError, True, 1)


@pytest.mark.integration
def test_a_server_that_does_not_answer_is_one_merchants_trouble(run):
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.gone()

    error, server = asked(run, script, timeouts=QUICK)
    assert isinstance(error, TokenError)
    assert "did not respond for wx1" in error.text.en
    assert server.connections == 1


def test_a_redirect_is_not_followed(run):
    error, server = asked(run, always(b"", "302 Found", "Location: /elsewhere\r\n"))
    assert isinstance(error, TokenError)
    assert len(server.heads) == 1


def test_a_server_that_is_down_is_everybodys_trouble_and_named(run):
    async def ask() -> None:
        source = ServiceTokens("http://127.0.0.1:9/{appid}?key=SeCrEt", {}, timeouts=QUICK)
        try:
            await source.token("wx1")
        finally:
            await source.aclose()

    with pytest.raises(TokenSourceError, match=r"token server 127\.0\.0\.1:9 cannot be reached") as caught:
        run(ask())
    assert caught.value.exit_code == 3
    assert "SeCrEt" not in shown(caught.value)


@pytest.mark.posix("20 connections take Wine 10 s on a busy machine")
def test_a_slow_answer_for_one_merchant_holds_up_no_other(run):
    async def ask() -> None:
        others = asyncio.Event()

        async def script(connection: Connection) -> None:
            head, _ = await connection.request()
            if b"/wx-slow" in head:
                await others.wait()  # and then the connection is closed without an answer
            else:
                await connection.answer(GOOD)

        async with Server(script) as server:
            source = ServiceTokens(f"{server.base}/{{appid}}", {})
            slow = asyncio.create_task(source.token("wx-slow"))
            await asyncio.gather(*(source.token(f"wx{n}") for n in range(20)))
            assert not slow.done()
            others.set()
            with pytest.raises(TokenError):
                await slow
            await source.aclose()

    run(ask())


# --- the settings ---------------------------------------------------------------------------------------------------------


def source_of(**tokens: Any) -> Any:
    return open_source(Settings(tokens=TokenSettings(source="service", **tokens)))


def test_a_server_that_is_not_named_is_found_at_once():
    with pytest.raises(SettingsError, match=r"tokens\.url is missing"):
        source_of()


@pytest.mark.parametrize(
    "value", [None, "", "  ", "a\nb: c", "密钥"], ids=["unset", "empty", "blank", "lines", "no-ascii"]
)
def test_a_header_that_cannot_be_sent_is_found_at_once(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(SettingsError, match="environment variable MY_KEY") as caught:
        source_of(url="https://tokens.example/{appid}", auth_env="MY_KEY")
    assert "c" not in (value or "") or "a\nb" not in shown(caught.value)


def test_the_settings_repr_holds_no_address_of_secrets():
    settings = TokenSettings(url="https://tokens.example/{appid}?key=SeCrEt", secret="env:X", ticket="file:Y")
    assert "SeCrEt" not in repr(settings)
