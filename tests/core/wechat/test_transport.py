import asyncio
import gc
import logging
import os
import time
import traceback
from collections.abc import AsyncGenerator

import aiohttp
import pytest
import yarl
from free_ports import free_port
from scripted import LOOPS, SECRET, Connection, Script, Server, always, no_more_files
from tables import table

from tcb_ops.errors import ResourceLimitError, TransportError, TransportFault
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.single_transport import SingleTransport
from tcb_ops.wechat.transport import STANDARD, HttpRequest, Timeouts, Transport, proxy_for, transport_error

QUICK = Timeouts(connect=0.5, answer=0.1, slowest=1 << 30)


@pytest.fixture(params=LOOPS)
def loop(request):
    return str(request.param)


def post(base: str) -> HttpRequest:
    return HttpRequest("POST", f"{base}/tcb/uploadfile?access_token={SECRET}")


async def stream(chunks: int, size: int, every: float = 0) -> AsyncGenerator[bytes, None]:
    for _ in range(chunks):
        await asyncio.sleep(every)
        yield bytes(size)


def posted(base: str, length: int) -> HttpRequest:
    return HttpRequest("POST", f"{base}/?access_token={SECRET}", {"Content-Length": str(length)})


TRANSPORTS = {"of runs": Transport, "of single calls": SingleTransport}


@pytest.fixture(params=TRANSPORTS.values(), ids=TRANSPORTS)
def open_transport(request):
    return request.param


async def sent(
    script: Script, timeouts: Timeouts = STANDARD, transport: type[Transport | SingleTransport] = Transport
) -> HttpResponse:
    async with Server(script) as server, transport(connections=2, timeouts=timeouts) as opened:
        return await opened.send(post(server.base), b"{}")


# Servers that do not answer as servers do


def saying(raw: bytes, then: bytes = b"", every: float = 0, *, reset: bool = False) -> Script:
    """Read the request, say this, and close; or say `then` again and again, or break the connection."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.say(raw)
        while then:
            await connection.say(then)
            await asyncio.sleep(every)
        if reset:
            connection.reset()

    return script


async def never_answers(connection: Connection) -> None:
    await connection.request()
    await connection.gone()


async def breaks_its_chunks_later(connection: Connection) -> None:
    await connection.request()
    await connection.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    await asyncio.sleep(0.05)
    await connection.say(b"zz\r\n")
    await connection.gone()


OK, TOKEN = b"HTTP/1.1 200 OK\r\n", SECRET.encode()
HALF = OK + b"Content-Length: 100\r\n\r\nhalf"
TRAPS = {
    "never answers": (never_answers, TransportFault.TIMEOUT),
    "drips": (saying(OK + b"Content-Length: 9000\r\n\r\n", b".", 0.05), TransportFault.TIMEOUT),
    "drips its head": (saying(OK + b"X: ", b".", 0.05), TransportFault.TIMEOUT),
    "closes before the answer": (saying(b""), TransportFault.RESET),
    "resets before the answer": (saying(b"", reset=True), TransportFault.RESET),
    "closes within the head": (saying(OK + b"Content-Le"), TransportFault.RESET),
    "closes within the body": (saying(HALF), TransportFault.RESET),
    "resets within the body": (saying(HALF, reset=True), TransportFault.RESET),
    "talks garbage": (saying(b"\x16\x03\x01 what? " + TOKEN + b"\r\n\r\n"), TransportFault.GARBAGE),
    "echoes the token in a bad head": (
        saying(b"HTTP/1.1 2xx POST /tcb/uploadfile?access_token=" + TOKEN + b"\r\nX: " + TOKEN + b"\r\n\r\n"),
        TransportFault.GARBAGE,
    ),
    "sends a long header": (saying(OK + b"X: " + TOKEN * 40_000 + b"\r\n\r\n"), TransportFault.GARBAGE),
    "sends many headers": (saying(OK + b"X: y\r\n" * 50_000 + b"\r\n"), TransportFault.GARBAGE),
    "says it will send much": (
        saying(OK + b"Content-Length: 9000000000\r\n\r\n", bytes(65536)),
        TransportFault.TOO_LARGE,
    ),
    "never ends": (saying(OK + b"\r\n", bytes(65536)), TransportFault.TOO_LARGE),
}


def shown(error: BaseException) -> str:
    everything = [str(error), repr(error), repr(error.args), repr(vars(error))]
    return "\n".join(everything + traceback.format_exception(error))


@pytest.mark.integration
@table("script, fault", TRAPS)
def test_a_server_that_brings_no_answer_is_one_fault_without_secrets(
    run, script, fault, open_transport, caplog
):
    caplog.set_level(logging.DEBUG)
    began = time.monotonic()
    with pytest.raises(TransportError) as caught:
        run(sent(script, QUICK if fault is TransportFault.TIMEOUT else STANDARD, open_transport))
    gc.collect()  # what asyncio has to say about exceptions nobody fetched, it says now
    assert caught.value.fault is fault
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert SECRET not in shown(caught.value)
    assert SECRET not in caplog.text
    assert "/tcb/uploadfile" not in shown(caught.value) + caplog.text
    assert "127.0.0.1" in caught.value.text.en
    assert "127.0.0.1" in caught.value.text.zh
    assert time.monotonic() - began < 15


@pytest.mark.integration
@pytest.mark.parametrize(
    "script",
    [saying(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhalf\r\n"), breaks_its_chunks_later],
    ids=["at once", "later"],
)
def test_a_chunk_that_breaks_ends_the_call(run, script, open_transport):
    # Whether as garbage or as silence is the parser's affair: aiohttp 3.14 closes the connection and tells nobody.
    with pytest.raises(TransportError):
        run(sent(script, QUICK, open_transport))


def test_refused_is_unreachable_and_not_a_reset(run, open_transport):
    async def refused() -> None:
        async with open_transport(connections=1, timeouts=QUICK) as transport:
            await transport.send(post(f"http://127.0.0.1:{free_port()}"))

    with pytest.raises(TransportError) as caught:
        run(refused())
    assert caught.value.fault is TransportFault.UNREACHABLE
    assert SECRET not in shown(caught.value)


def test_a_server_that_does_not_speak_tls_is_unreachable(run, open_transport):
    async def plain(connection: Connection) -> None:
        await connection.reader.read(100)
        await connection.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def spoken() -> None:
        async with Server(plain) as server, open_transport(connections=1) as transport:
            await transport.send(post(server.base.replace("http:", "https:")))

    with pytest.raises(TransportError) as caught:
        run(spoken())
    assert caught.value.fault is TransportFault.UNREACHABLE
    assert "TLS" in caught.value.text.en
    assert SECRET not in shown(caught.value)


async def never_reads(connection: Connection) -> None:
    await connection.head()
    connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


@pytest.mark.integration
@pytest.mark.parametrize("silent", ["one write", "stream", "a proxy's tunnel"])
def test_a_server_that_never_reads_the_body_is_a_timeout_long_before_the_deadline(run, monkeypatch, silent):
    async def posting() -> None:
        proxied = silent == "a proxy's tunnel"
        async with Server(never_answers if proxied else never_reads) as server:
            # 1 GiB at 16 MiB/s: a deadline of more than 60 s, a silence of 0.55 s
            timeouts = Timeouts(connect=0.5, answer=0.3, slowest=16 << 20)
            if proxied:
                monkeypatch.setenv("https_proxy", server.base)
            base = "https://cos.example.cn" if proxied else server.base
            async with Transport(connections=1, timeouts=timeouts) as transport:
                if silent == "one write":
                    await transport.send(posted(base, 1 << 20), iter([bytes(1 << 20)]), sending=1 << 20)
                else:
                    await transport.send(posted(base, 1 << 30), stream(4096, 1 << 18), sending=1 << 30)

    began = time.monotonic()
    with pytest.raises(TransportError) as caught:
        run(posting())
    assert caught.value.fault is TransportFault.TIMEOUT
    assert time.monotonic() - began < 55


@pytest.mark.integration
def test_a_slow_sending_that_goes_on_is_not_given_up(run):
    async def posting() -> HttpResponse:
        async with Server(always(b"all of it")) as server:
            timeouts = Timeouts(connect=0.5, answer=0.8, slowest=16 << 20)
            async with Transport(connections=1, timeouts=timeouts) as transport:
                # longer than connecting and silence together, shorter than the deadline
                return await transport.send(posted(server.base, 384), stream(6, 64, 0.3), sending=1 << 30)

    assert run(posting()).body == b"all of it"


@table(
    "sending, deadline, silence",
    {
        "a link": (0, 70, 60),
        "32 KiB": (32 * 1024, 71, 61),
        "4 MiB": (4 << 20, 198, 188),
        "5 GiB: hours of sending, minutes of silence": (5 << 30, 163_910, 188),
    },
)
def test_the_deadline_grows_with_the_bytes_and_the_silence_with_the_socket_buffers(
    sending, deadline, silence
):
    assert Timeouts().deadline(sending) == deadline
    assert Timeouts().silence(sending) == silence


# Answers that are there


def test_an_answer_is_its_status_headers_and_body_and_shows_only_the_status(run):
    answer = run(sent(always(SECRET.encode(), "418 Teapot", f"X-Echo: {SECRET}\r\n")))
    assert (answer.status, answer.body, answer.headers["x-echo"]) == (418, SECRET.encode(), SECRET)
    assert repr(answer) == "HttpResponse(status=418)"


def test_requests_say_who_asks_and_want_plain_bytes(run, open_transport):
    async def heads() -> bytes:
        async with Server(always()) as server, open_transport(connections=1) as transport:
            await transport.send(post(server.base), b"{}")
            return server.heads[0]

    head = run(heads()).lower()
    assert b"\r\nuser-agent: tcb-ops/" in head
    assert b"\r\naccept-encoding: identity\r\n" in head
    assert b"\r\nauthorization:" not in head


def test_cookies_of_one_merchants_answer_are_not_sent_for_another(run, open_transport):
    async def twice() -> list[bytes]:
        async with Server(always(headers="Set-Cookie: session=of-merchant-a; Path=/\r\n")) as server:
            async with open_transport(connections=1) as transport:
                for name in ("localhost", "127.0.0.1"):  # an IP address's cookies are refused by jars anyway
                    await transport.send(post(f"http://{name}:{server.port}"))
                    await transport.send(post(f"http://{name}:{server.port}"))
            return server.heads

    heads = run(twice())
    assert len(heads) == 4
    assert not any(b"cookie" in head.lower() for head in heads)


def test_connections_are_kept_and_never_more_than_allowed(run, open_transport):
    async def many() -> int:
        async with Server(always()) as server, open_transport(connections=4) as transport:
            for _ in range(5):
                await asyncio.gather(*(transport.send(post(server.base), b"{}") for _ in range(8)))
            return server.connections

    assert run(many()) == 4


def test_a_connection_that_was_closed_while_idle_is_not_used_again(run, open_transport):
    async def once(connection: Connection) -> None:
        await connection.request()
        await connection.answer()

    async def twice() -> int:
        async with Server(once) as server, open_transport(connections=1) as transport:
            await transport.send(post(server.base), b"{}")
            await asyncio.gather(*server.tasks)
            await asyncio.sleep(0.05)  # the close has to reach the client; nothing here can tell when it has
            await transport.send(post(server.base), b"{}")
            return server.connections

    assert run(twice()) == 2


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_ones(run, open_transport):
    if os.name == "nt" and open_transport is SingleTransport:
        pytest.skip("Windows' event loop has read it before httpx looks whether the connection is readable")

    async def answers_twice(connection: Connection) -> None:
        while True:
            await connection.request()
            name = str(len(connection.server.bodies)).encode()
            await connection.answer(name)
            await connection.server.left.wait()  # its first answer has been read
            connection.server.left.clear()
            await connection.answer(name)
            connection.server.asked.set()

    async def many() -> list[bytes]:
        bodies = []
        async with Server(answers_twice) as server, open_transport(connections=1) as transport:
            for _ in range(3):
                bodies.append((await transport.send(post(server.base), b"{}")).body)
                server.asked.clear()
                server.left.set()
                await server.asked.wait()
                for _turn in range(3):  # what has been sent on loopback is read in the next turn
                    await asyncio.sleep(0)
        return bodies

    assert run(many()) == [b"1", b"2", b"3"]


def test_what_is_sent_after_the_end_opens_no_connection_that_nobody_closes(run):
    async def late() -> int:
        async with Server(always()) as server:
            async with Transport(connections=1) as transport:
                pass
            with pytest.raises(RuntimeError, match="closed"):
                await transport.send(post(server.base), b"{}")
            with pytest.raises(RuntimeError, match="closed"):
                async with transport.open(post(server.base)):
                    pass
            return server.connections

    assert run(late()) == 0


def test_a_post_that_may_have_arrived_is_not_sent_twice_by_the_library(run, open_transport):
    async def reset() -> int:
        async with Server(saying(b"", reset=True)) as server, open_transport(connections=1) as transport:
            with pytest.raises(TransportError):
                await transport.send(post(server.base), b"{}")
            return server.connections

    assert run(reset()) == 1


@pytest.mark.posix("megabytes through Wine's sockets take minutes on a busy machine")
def test_an_answer_that_comes_before_the_body_was_read_ends_the_sending(run):
    async def refuses_early(connection: Connection) -> None:
        await connection.head()
        await connection.answer(b"<Error/>", "403 Forbidden", "Connection: close\r\n")
        connection.server.left.set()

    async def posting() -> list[int | TransportFault]:
        seen: list[int | TransportFault] = []
        async with Transport(connections=1) as transport:
            for _ in range(20):
                async with Server(refuses_early) as server:
                    try:
                        answer = await transport.send(
                            posted(server.base, 64 << 20), stream(256, 1 << 18), sending=64 << 20
                        )
                        seen.append(answer.status)
                    except TransportError as error:
                        seen.append(error.fault)
        return seen

    began = time.monotonic()
    seen = run(posting())
    assert set(seen) <= {403, TransportFault.RESET}, "which of them depends on what the system delivers first"
    assert time.monotonic() - began < 50


def test_cancelling_in_mid_flight_passes_through_and_frees_the_connection(run, open_transport):
    async def second_time_lucky(connection: Connection) -> None:
        await connection.request()
        if connection.server.connections == 1:
            await connection.gone()
        await connection.answer(b"second")

    async def cancelled() -> HttpResponse:
        async with Server(second_time_lucky) as server, open_transport(connections=1) as transport:
            task = asyncio.create_task(transport.send(post(server.base), b"{}"))
            await server.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.left.wait()
            return await transport.send(post(server.base), b"{}")

    assert run(cancelled()).body == b"second"


def test_nothing_is_logged_at_any_level(run, open_transport, caplog):
    caplog.set_level(logging.DEBUG)

    async def good() -> None:
        async with Server(always(SECRET.encode())) as server, open_transport(connections=1) as transport:
            await transport.send(post(server.base), b"{}")
            await transport.send(HttpRequest("POST", f"{server.base}/b/{SECRET}"), b"{}")

    run(good())
    gc.collect()
    assert SECRET not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("aiohttp")]


# The exact URL


EXACT = {
    "/bucket/a%41b": b"/bucket/a%41b",
    "/bucket/%e7%9b%ae%2f": b"/bucket/%e7%9b%ae%2f",
    '/bucket/{}|^`"\\<>[]~': b'/bucket/{}|^`"\\<>[]~',
    "/bucket/a//b": b"/bucket/a//b",
    "/bucket/a/./b/../c": b"/bucket/a/./b/../c",
    "/bucket/a+b&c=d;e,f:g@h!$'()*": b"/bucket/a+b&c=d;e,f:g@h!$'()*",
    "/bucket/a?b=%41": b"/bucket/a?b=%41",
    "/bucket/100%": b"/bucket/100%",
    "/bucket/a b": b"/bucket/a%20b",
    "/bucket/a#b": b"/bucket/a%23b",
    "/bucket/目录/é": "/bucket/目录/é".encode(),
    "/bucket/\U0001f4e6": "/bucket/\U0001f4e6".encode(),
}


@pytest.mark.parametrize(("target", "wire"), EXACT.items(), ids=EXACT)
def test_an_exact_url_goes_out_byte_for_byte(run, target, wire):
    async def exactly() -> bytes:
        async with Server(always()) as server, Transport(connections=1) as transport:
            await transport.send(HttpRequest("POST", server.base + target), b"x")
            return server.heads[0]

    assert run(exactly()).split(b"\r\n")[0] == b"POST " + wire + b" HTTP/1.1"


@pytest.mark.parametrize("bad", ["/a\r\nX: y", "/a\nb", "/a\x00", "/a\tb", "/a\x7f", "/a?"], ids=ascii)
def test_an_exact_url_that_cannot_stand_on_the_wire_is_refused(bad):
    with pytest.raises(TransportError) as caught:
        HttpRequest("POST", f"https://me:{SECRET}@cos.example/{SECRET}{bad}")
    assert caught.value.fault is TransportFault.GARBAGE
    assert "cos.example:443" in str(caught.value)
    assert SECRET not in shown(caught.value)
    assert caught.value.__context__ is None


# Proxies


@table(
    "url, proxies, proxy",
    {
        "none": ("https://api.weixin.qq.com/x", {}, None),
        "its scheme's": ("https://a.cn/", {"https": "http://p:1"}, "http://p:1"),
        "another scheme's": ("http://a.cn/", {"https": "http://p:1"}, None),
        "all": ("http://a.cn/", {"all": "http://p:1"}, "http://p:1"),
        "without a scheme": ("http://a.cn/", {"http": "p:1"}, "http://p:1"),
        "socks is passed over": ("http://a.cn/", {"all": "socks5://p:1"}, None),
        "no_proxy host": ("http://a.cn/", {"http": "http://p:1", "no": "a.cn"}, None),
        "no_proxy suffix": ("http://x.a.cn/", {"http": "http://p:1", "no": ".a.cn"}, None),
        "no_proxy port": ("http://a.cn:81/", {"http": "http://p:1", "no": "a.cn:81"}, None),
        "no_proxy all": ("http://a.cn/", {"http": "http://p:1", "no": "*"}, None),
        "loopback": ("http://127.0.0.1:80/", {"http": "http://p:1"}, None),
        "all of loopback": ("http://127.9.9.9/", {"http": "http://p:1"}, None),
        "loopback v6": ("http://[::1]:80/", {"http": "http://p:1"}, None),
        "localhost": ("http://localhost/", {"all": "http://p:1"}, None),
    },
)
def test_which_proxy_a_url_goes_through(url, proxies, proxy):
    assert proxy_for(yarl.URL(url), proxies) == proxy


def test_requests_go_through_the_environments_proxy_but_loopback_does_not(run, monkeypatch):
    async def through() -> list[bytes]:
        async with Server(always()) as server:
            monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{server.port}")
            async with Transport(connections=1) as transport:
                await transport.send(HttpRequest("POST", "http://cos.example.cn/a"))
                await transport.send(HttpRequest("POST", "http://cos.example.cn/%41"))
                await transport.send(post(server.base), b"{}")
            return server.heads

    proxied, exact, direct = run(through())
    assert proxied.startswith(b"POST http://cos.example.cn/a HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in proxied
    assert exact.startswith(b"POST http://cos.example.cn/%41 HTTP/1.1\r\n")
    assert direct.startswith(b"POST /tcb/uploadfile")
    assert b"Proxy-Authorization" not in direct


# Every library error has its place


PLACED = [
    (aiohttp.ServerDisconnectedError(), TransportFault.RESET),
    (aiohttp.ClientOSError(104, "reset"), TransportFault.RESET),
    (aiohttp.ClientPayloadError(), TransportFault.RESET),
    (ConnectionResetError(), TransportFault.RESET),
    (BrokenPipeError(), TransportFault.RESET),
    (aiohttp.ConnectionTimeoutError(), TransportFault.UNREACHABLE),
    (aiohttp.SocketTimeoutError(), TransportFault.TIMEOUT),
    (TimeoutError(), TransportFault.TIMEOUT),
    (aiohttp.InvalidURL("x"), TransportFault.GARBAGE),
    (aiohttp.TooManyRedirects(None, ()), TransportFault.GARBAGE),
    (KeyError(), TransportFault.RESET),
]


@pytest.mark.parametrize(("error", "fault"), PLACED, ids=[type(error).__name__ for error, _ in PLACED])
def test_where_an_error_is_placed(error, fault):
    assert transport_error(error, "host:443").fault is fault


def test_too_few_descriptors_are_no_fault_of_the_server(run):
    async def ask() -> None:
        async with Server(always()) as server, Transport(connections=1) as transport:
            with no_more_files():
                await transport.send(HttpRequest("GET", f"{server.base}/?access_token={SECRET}"))

    with pytest.raises(ResourceLimitError, match="raise the limit") as caught:
        run(ask())
    assert SECRET not in "".join(traceback.format_exception(caught.value))
