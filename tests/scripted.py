"""Servers that speak, mumble or hang up as a test scripts it, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from types import TracebackType

    from tcb_ops.errors import TcbOpsError
    from tcb_ops.hooks import TokenSource
    from tcb_ops.model import Secret
    from tcb_ops.wechat.tokens import Token

SECRET = "SeCrEt-access-token-42"
LOOPS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "uvloop"]
"""The event loops that runs use."""


def length_in(head: bytes) -> int:
    """The Content-Length of a request's head."""
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
    return int(length[1]) if length else 0


@dataclass
class Connection:
    """One client's connection to a scripted server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: Server

    async def head(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.server.heads.append(head)
        return head

    async def request(self) -> tuple[bytes, bytes]:
        head = await self.head()
        body = await self.reader.readexactly(length_in(head))
        self.server.bodies.append(body)
        self.server.asked.set()
        return head, body

    async def say(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def answer(self, body: bytes = b"{}", status: str = "200 OK", headers: str = "") -> None:
        await self.say(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.server.left.set()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine in a fresh loop: the `run` fixture."""

Script = Callable[[Connection], Awaitable[None]]


@dataclass
class Server:
    """Plays a script to each connection and notes what came; the connection is closed when the script ends."""

    script: Script
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    port: int = 0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self.script(Connection(reader, writer, self))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:  # the test is over; asyncio would log it
            pass
        finally:
            writer.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._play, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def always(body: bytes = b"{}", status: str = "200 OK", headers: str = "") -> Script:
    """A well-behaved server: the same answer to every request, connections kept."""

    async def script(connection: Connection) -> None:
        while True:
            await connection.request()
            await connection.answer(body, status, headers)

    return script


def good_token(appid: str) -> tuple[str, bytes]:
    """A token server's answer."""
    return "200 OK", f'{{"access_token": "token-of-{appid}", "expires_in": 7200}}'.encode()


@contextmanager
def token_server(
    answers: Mapping[str, tuple[str, bytes] | None], key: str = ""
) -> Iterator[tuple[str, list[bytes]]]:
    """A token server in a thread of its own: appid → status and body, None to hang. Gives its URL and the requests it got.

    Whoever does not send the key is refused.
    """
    up, down = threading.Event(), threading.Event()
    server: list[Server] = []

    async def script(connection: Connection) -> None:
        while True:
            head, _ = await connection.request()
            answer = answers.get(head.split(b" ")[1].removeprefix(b"/").decode(), ("404 Unknown", b""))
            if answer is None:
                await connection.gone()
                return
            status, body = answer if key.encode() in head else ("401 No", b"")
            await connection.answer(body, status)

    async def serve() -> None:
        async with Server(script) as listening:
            server.append(listening)
            up.set()
            await asyncio.to_thread(down.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(240)
    try:
        yield f"{server[0].base}/{{appid}}", server[0].heads
    finally:
        down.set()
        thread.join()


@contextmanager
def no_more_files() -> Iterator[None]:
    """Within the block this process can open nothing: no file, no connection."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def ask(run: Run, source: TokenSource, appid: str = "wx1", refused: Secret | None = None) -> Token:
    """Return a token of a source, which is closed."""

    async def asked() -> Token:
        try:
            return await source.token(appid, refused)
        finally:
            await source.aclose()

    token: Token = run(asked())
    return token


def shown(error: TcbOpsError) -> str:
    """Everything that a log or a screen could show of an error."""
    return f"{error!r} {error.text.en} {error.text.zh} {error.__cause__!r}" + (
        "" if error.__suppress_context__ else repr(error.__context__)
    )
