"""Responses that are read while something else is sent, and sources that are slow."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from source_server import Sources

from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.features.sources.urls import SourceClient
from tcb_ops.model import Secret
from tcb_ops.wechat.transport import HttpRequest, Timeouts, Transport

BIG = bytes(2_000_000)


def test_what_is_read_leaves_connections_to_what_is_sent():
    async def both(source: str, store: str) -> int:
        async with (
            Transport(connections=1, timeouts=Timeouts(connect=1, answer=1)) as transport,
            transport.open(HttpRequest("GET", source)) as answer,
        ):
            await transport.send(HttpRequest("GET", store))
            return sum([len(chunk) async for chunk in answer.chunks()])

    with Sources() as sources, Sources() as other:
        assert asyncio.run(both(sources.serve("/a", BIG), other.serve("/b", b""))) == len(BIG)


def with_client(use: Callable[[SourceClient], Awaitable[None]], timeouts: Timeouts) -> None:
    async def run() -> None:
        async with Transport(connections=9, timeouts=timeouts) as transport:
            await use(SourceClient(transport, ("127.0.0.1",), loopback=True))

    asyncio.run(run())


@pytest.mark.parametrize("how", [{"keep_open": True}, {"drip": True}], ids=["silent", "a byte at a time"])
@pytest.mark.parametrize("size", [100_000, 8_000_000], ids=["read as a whole", "streamed"])
def test_a_body_that_comes_too_slowly_is_given_up(how, size):
    async def read(client: SourceClient) -> None:
        async with client.opened(Secret(url), "x", None, "") as body:
            async for _chunk in body.chunks():
                pass

    with Sources() as sources:
        url = sources.serve("/a", b"half", declared=size, **how)
        with pytest.raises(TransportError) as caught:
            with_client(read, Timeouts(connect=0.1, answer=0.1, slowest=1 << 40))
        assert caught.value.fault is TransportFault.TIMEOUT


@pytest.mark.integration
def test_a_source_that_waits_for_the_store_is_not_slow():
    async def read(client: SourceClient) -> None:
        async with client.opened(Secret(url), "x", None, "") as body:
            async for _chunk in body.chunks():
                await asyncio.sleep(0.3 if not body.md5 and not slept else 0)  # the store takes its time
                slept.append(True)
        assert body.md5

    slept: list[bool] = []
    with Sources() as sources:
        url = sources.serve("/a", BIG)
        with_client(read, Timeouts(connect=0.1, answer=0.1, slowest=1 << 40))
