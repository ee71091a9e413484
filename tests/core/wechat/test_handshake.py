"""The handshake: what identifies itself as the simulator is one; whatever else listens, or does not, is none."""

import asyncio
import json
import socket
import time

import pytest
from scripted import Connection, Server, always

from tcb_ops.features.simulator.server import Simulator
from tcb_ops.model import Listener
from tcb_ops.wechat.client import handshake_answer, listener_at


async def silent(connection: Connection) -> None:
    await connection.request()
    await connection.gone()


async def dribbling(connection: Connection) -> None:
    """A byte now and then, so that no pause is long."""
    await connection.request()
    connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        connection.writer.write(b" ")
        await connection.writer.drain()
        await asyncio.sleep(0.05)


async def no_http(connection: Connection) -> None:
    connection.writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    await connection.gone()


OF_ANOTHER_VERSION = json.dumps(json.loads(handshake_answer()) | {"version": "99.0", "more": [1]}).encode()
SERVERS = {
    "the simulator of another version": (always(OF_ANOTHER_VERSION), Listener.SIMULATOR),
    "a gateway that answers everything": (always(b'{"errcode": 0}'), Listener.OTHER),
    "its answer with an error's status": (always(handshake_answer(), "404 Not Found"), Listener.OTHER),
    "a redirect to a simulator": (
        always(handshake_answer(), "302 Found", "Location: /elsewhere\r\n"),
        Listener.OTHER,
    ),
    "a page": (always(b"<html>"), Listener.OTHER),
    "a list": (always(b'["tcb-ops simulator"]'), Listener.OTHER),
    "no text": (always(b"\xff\xfe\x00"), Listener.OTHER),
    "nested too deeply": (always(b"[" * 100_000), Listener.OTHER),
    "silence": (silent, Listener.OTHER),
    "one byte at a time": (dribbling, Listener.OTHER),
    "another protocol": (no_http, Listener.OTHER),
}


@pytest.mark.parametrize("name", SERVERS)
def test_who_listens_is_known_by_its_answer_alone(name):
    script, expected = SERVERS[name]

    async def ask() -> tuple[Listener, float, list[bytes]]:
        async with Server(script) as server:
            begun = time.monotonic()
            return await listener_at(server.base), time.monotonic() - begun, server.heads

    listener, seconds, heads = asyncio.run(ask())
    assert listener is expected
    assert seconds < 10, "it has two seconds; the rest is for a machine under load"
    assert len(heads) <= 1, "it is asked once, and no redirect is followed"
    assert not [head for head in heads if b"token" in head.lower() or b"cookie" in head.lower()]


def test_a_simulator_identifies_itself_and_a_closed_port_is_nothing():
    with Simulator([], {}) as simulator:
        assert asyncio.run(listener_at(simulator.base)) is Listener.SIMULATOR
        assert not simulator.stats
    with socket.socket() as bound:  # not listening, and nobody else can
        bound.bind(("127.0.0.1", 0))
        assert asyncio.run(listener_at(f"http://127.0.0.1:{bound.getsockname()[1]}")) is Listener.NOTHING
