"""Many processes and killed ones: one refresh reaches the platform, and a working refresh token is always kept."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import token_worker
from rigged_simulator import Simulator
from scripted import Connection, Server, length_in
from token_worker import settings_for

from tcb_ops.features.simulator.faults import Component
from tcb_ops.model import Merchant
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError
from tcb_ops.wechat.tokens import open_source
from tcb_ops.wechat.transport import Transport

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, and killed")

SECRET, TICKET = "PrAcTiCe-secret", "PrAcTiCe-ticket"


@dataclass
class Clock:
    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class CommandLine:
    sim: Simulator
    store: Path
    clock: Clock
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def token(self, refused: Any = None, base: str = "") -> Any:
        async def asked() -> Any:
            source = open_source(settings_for(base or self.sim.base, str(self.store)))
            try:
                return (await source.token("wx0", refused)).value
            finally:
                await source.aclose()

        return asyncio.run(asked())

    def works(self, token: Any) -> bool:
        async def asked() -> bool:
            async with Transport(connections=1) as transport:
                result = await PlatformClient(transport, self.sim.base).call("tcb/getenvinfo", {}, token)
            return not isinstance(result, ApiError)

        return asyncio.run(asked())

    def stored(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.store / "wx0.json").read_text())
        return found

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, token_worker.__file__, *words], stdout=subprocess.PIPE)
        self.children.append(child)
        return child

    @contextmanager
    def at(self, base: str) -> Iterator[None]:
        """The store as one of the proxy's base: it is the same platform behind it."""
        identity = self.store / "_platform.json"
        result = json.loads(identity.read_text())
        identity.write_text(json.dumps(result | {"api_base": base}))
        yield
        identity.write_text(json.dumps(result))


@pytest.fixture(
    params=[
        pytest.param(False, marks=pytest.mark.soak, id="same-refresh-token"),
        pytest.param(True, id="rotated"),
    ]
)
def cli(request, tmp_path, monkeypatch):
    monkeypatch.setenv("PRACTICE_SECRET", SECRET)
    monkeypatch.setenv("PRACTICE_TICKET", TICKET)
    component = Component("wxplatform", SECRET, TICKET, rotate=request.param)
    clock = Clock()
    merchants = [Merchant("wx0", "茶语小铺", "env-0")]
    with Simulator(merchants, {}, component=component, clock=clock) as sim:
        cli = CommandLine(sim, tmp_path / "tcb-ops.tokens", clock)
        yield cli
        for child in cli.children:
            child.kill()
            child.wait()
            if child.stdout:
                child.stdout.close()


@pytest.mark.integration
@pytest.mark.parametrize("cli", [True], ids=["rotated"], indirect=True)
def test_50_processes_of_20_tasks_that_meet_one_expired_token_refresh_it_once(cli):
    first = cli.token()
    cli.sim.expire("wx0")
    before = cli.sim.stats
    assert cli.start("rows", cli.sim.base, str(cli.store), "50", "20").wait(timeout=240) == 0
    stats = cli.sim.stats - before
    assert stats["authorizer_token"] == 1
    assert stats["authorizer_list"] == stats["component_token"] == 0
    assert stats["link:0"] == 1000
    stored = cli.stored()
    assert stored["access_token"] != first.reveal()
    assert stored["refresh_token"] == cli.sim.refresh_token("wx0")


def check(cli: CommandLine) -> None:
    """The store is readable, and what it holds brings a token that works: at once, and after the overlap."""
    assert cli.works(cli.token(cli.token()))
    assert cli.stored()["refresh_token"] == cli.sim.refresh_token("wx0")


@pytest.mark.kill
@pytest.mark.parametrize("step", ["asked", "refreshed", "half-answered"])
@pytest.mark.parametrize("late", [False, True], ids=["soon", "after-the-overlap"])
def test_a_process_killed_at_a_step_of_a_refresh_leaves_a_working_refresh_token(cli, step, late):
    cli.token()
    cli.sim.expire("wx0")
    reached = asyncio.Event()

    async def between(connection: Connection) -> None:
        """Hand a call on to the platform as far as the step, and hold it there."""
        head, body = await connection.request()
        if b"api_authorizer_token" in head and step == "asked":
            reached.set()
            await connection.gone()
        answer = await asyncio.to_thread(hand_on, cli.sim.port, head, body)
        if b"api_authorizer_token" in head:
            await connection.say(answer[: len(answer) - 20] if step == "half-answered" else b"")
            reached.set()
            await connection.gone()
        await connection.say(answer)

    async def killed() -> None:
        async with Server(between) as server:
            with cli.at(server.base):
                child = cli.start("churn", server.base, str(cli.store))
                await asyncio.wait_for(reached.wait(), 240)
                child.send_signal(signal.SIGKILL)
                await asyncio.to_thread(child.wait)

    asyncio.run(killed())
    if late:
        cli.clock.ahead = 400
    check(cli)


def hand_on(port: int, head: bytes, body: bytes) -> bytes:
    """The simulator's answer to a request, byte for byte."""
    import socket

    with socket.create_connection(("127.0.0.1", port), timeout=60) as there:
        there.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1) + body)
        answer = b""
        while chunk := there.recv(65536):
            answer += chunk
    assert length_in(answer)
    return answer


@pytest.mark.kill
def test_a_process_killed_at_any_moment_leaves_a_working_refresh_token(cli):
    chance = random.Random(5)
    for _ in range(5):
        child = cli.start("churn", cli.sim.base, str(cli.store))
        assert child.stdout is not None
        assert child.stdout.read(1) == b".", "it refreshes"
        time.sleep(chance.uniform(0, 0.1))  # any moment is what is meant
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert cli.stored()["refresh_token"], "readable as it stands"
        check(cli)
