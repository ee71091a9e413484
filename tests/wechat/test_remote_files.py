"""Responses that are read while something else is sent."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from source_server import Sources

from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.wechat.transport import Timeouts, Transport

BIG = bytes(2_000_000)


def test_what_is_read_leaves_connections_to_what_is_sent() -> None:
    async def both(source: str, store: str) -> int:
        async with (
            Transport(connections=1, timeouts=Timeouts(connect=1, answer=1)) as transport,
            transport.open(httpx.Request("GET", source), source) as answer,
        ):
            await transport.send(httpx.Request("GET", store))
            return sum([len(chunk) async for chunk in answer.chunks()])

    with Sources() as sources, Sources() as other:
        assert asyncio.run(both(sources.serve("/a", BIG), other.serve("/b", b""))) == len(BIG)


def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    async def read(source: str) -> None:
        timeouts = Timeouts(connect=0.1, answer=0.2, slowest=1 << 40)
        async with (
            Transport(connections=1, timeouts=timeouts) as transport,
            transport.open(httpx.Request("GET", source), source) as answer,
        ):
            async for _chunk in answer.chunks():
                pass

    with Sources() as sources:
        url = sources.serve("/a", b"half", declared=8, keep_open=True)
        with pytest.raises(TransportError) as caught:
            asyncio.run(read(url))
        assert caught.value.fault is TransportFault.TIMEOUT
