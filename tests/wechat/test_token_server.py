"""The connections of `tokens serve`, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from contextlib import asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from tcb_ops.wechat.tokens import server as tested
from tcb_ops.wechat.tokens.server import Connections, listen, most_connections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LONG = 600.0


def in_a_loop(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run an asynchronous test."""

    @wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def answer(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="{}")


@asynccontextmanager
async def serving(*, most: int, silent: float, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Accept connections; the block gets the port."""
    connections = Connections(answer, logger=logging.getLogger("tests"), most=most, silent=silent)
    runner = web.ServerRunner(connections)
    await runner.setup()
    listeners = listen("127.0.0.1", 0)
    try:
        async with connections.accepting(listeners, tls):
            yield listeners[0].getsockname()[1]
    finally:
        await runner.cleanup()


async def opened(port: int, *sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.writelines(sent)
    return reader, writer


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return what a connection still sends until the server closes it."""
    async with asyncio.timeout(30):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def endless(client: socket.socket) -> None:
    """Send requests until the server closes the connection."""
    while True:
        await asyncio.get_running_loop().sock_sendall(client, GET * 1000)


@pytest.mark.parametrize(
    ("sent", "responses"),
    [
        ((), 0),
        ((b"GET / HTTP/1.1\r\nHost: ",), 0),
        ((GET,), 1),
        ((b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",), 1),
    ],
    ids=["silent", "half a request", "after a response", "half a body"],
)
@in_a_loop
async def test_a_connection_that_waits_too_long_is_closed(sent: tuple[bytes, ...], responses: int) -> None:
    async with serving(most=4, silent=0.2) as port:
        opened_at = time.monotonic()
        reader, writer = await opened(port, *sent)
        received = await ended(reader)
        waited = time.monotonic() - opened_at
        writer.close()
    assert (received.count(b"HTTP/1.1 200"), received == b"") == (responses, not responses)
    assert waited >= 0.2


@in_a_loop
async def test_a_handshake_that_does_not_begin_is_closed() -> None:
    async with serving(most=4, silent=0.05, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as port:
        reader, writer = await opened(port)
        assert await ended(reader) == b""
        writer.close()


@pytest.mark.slow
@in_a_loop
async def test_a_client_that_reads_nothing_is_closed() -> None:
    async with serving(most=1, silent=0.1) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(0)
            requests = asyncio.create_task(endless(client))
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(requests, 30)


@in_a_loop
async def test_silent_connections_keep_nobody_out() -> None:
    async with serving(most=3, silent=LONG) as port:
        silent = [await opened(port) for _ in range(10)]
        reader, writer = await opened(port, GET)
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        first = [await ended(reader) for reader, _ in silent[:7]]
        assert first == [b""] * 7, "of those who wait, the first are closed"
        for _, each in [*silent, (reader, writer)]:
            each.close()


@in_a_loop
async def test_a_kept_connection_serves_the_next_request() -> None:
    async with serving(most=1, silent=LONG) as port:
        reader, writer = await opened(port)
        for _ in range(3):
            writer.write(GET)
            async with asyncio.timeout(30):
                assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
        writer.close()


@in_a_loop
async def test_without_descriptors_accepting_waits_and_logs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tested, "_PAUSE", 0.01)
    loop, failures = asyncio.get_running_loop(), [OSError(24, "too many open files")] * 3
    accept = loop.sock_accept

    async def accepted(listener: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", accepted)
    async with serving(most=1, silent=LONG) as port:
        reader, writer = await opened(port, GET)
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    assert not failures
    assert not caplog.records


@pytest.mark.parametrize(("limit", "most"), [(None, 256), (-1, 256), (4096, 256), (128, 64), (1, 1)])
def test_connections_leave_descriptors_to_the_source(
    limit: int | None, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "descriptor_limit", lambda: limit)
    assert most_connections() == most
