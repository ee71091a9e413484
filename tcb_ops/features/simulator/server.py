"""The simulator's server: on loopback, in its own thread with its own event loop; also as the embedded target of a run."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO, Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from tcb_ops.errors import UsageError
from tcb_ops.features.simulator.cos import CosStore
from tcb_ops.features.simulator.faults import Component, Faults, Reset, load_faults
from tcb_ops.features.simulator.platform import CONFIRM, Platform
from tcb_ops.features.simulator.state import (
    Accounts,
    Request,
    Response,
    SimulatedObject,
    SimulatorState,
    Tokens,
)
from tcb_ops.i18n import Text, _
from tcb_ops.model import Merchant
from tcb_ops.settings import Settings
from tcb_ops.signals import handled
from tcb_ops.system_errors import system_reason
from tcb_ops.wechat.client import HANDSHAKE, handshake_answer

HOST = "127.0.0.1"
_LOG = logging.getLogger("tcb_ops.features.simulator")
# A request that is not HTTP gets a 400; aiohttp would log it as an error, with the token in its target.
_LOG.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
_IN_MEMORY = 512 * 1024
"""Bytes of a body that is not read into a file first."""
_PLATFORM_ROUTES = ("/tcb/", "/componenttcb/", "/cgi-bin/", CONFIRM)


class Simulator:
    """The platform and COS on one port of 127.0.0.1, for exactly these merchants and tokens.

    A context manager that listens inside its block. `tokens` is appid → token, or a CSV `appid,access_token[,expires_at]`.
    `faults` has the platform's own account, too, and merchants' accounts and environments with problems. `store` is a
    folder for the objects' bytes. Raises UsageError if the port is not available, SettingsError for a bad token file.
    """

    def __init__(
        self,
        merchants: Sequence[Merchant],
        tokens: Mapping[str, str] | Path,
        *,
        faults: Faults = Faults(),  # noqa: B008  frozen and empty
        store: Path | None = None,
        port: int = 0,
        clock: Callable[[], float] = time.time,
        link_lifetime: int = 900,
    ) -> None:
        self.port = port
        """0 for any free port; the actual one once it listens."""
        self._state = SimulatorState(faults, clock)
        self._tokens = Tokens(tokens)
        self._accounts = Accounts(merchants, self._tokens, clock, faults, store)
        self._store = CosStore(self._state, merchants, store)
        self._platform = Platform(self._state, self._accounts, self._store, link_lifetime)
        self._platform.base = self.base
        self._store_directory = store
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._listens = threading.Event()
        self._failed: OSError | None = None

    @property
    def base(self) -> str:
        """`http://127.0.0.1:PORT`: the API base, and the beginning of every link."""
        return f"http://{HOST}:{self.port}"

    @property
    def stats(self) -> Counter[str]:
        """Counters so far: `link_calls`, `store_calls`, and by result `link:ERRCODE`, `store:STATUS`, `link:reset` and the like.

        `stored` counts objects received, `objects` different ones, `escaped_bodies` paths sent as ASCII escapes,
        `component_links` link calls for the platform's own environments, `fetched` downloads. Every other interface has
        `STEP`, `STEP:APPID` and `STEP:ERRCODE`, such as `authorizer_token`.
        """
        return self._state.stats.copy() | Counter(objects=len(self._state.objects))

    @property
    def objects(self) -> dict[tuple[str, str], SimulatedObject]:
        """The stored objects so far: (bucket, key) → size, md5, times received."""
        return dict(self._state.objects)

    def __enter__(self) -> Self:
        if self._store_directory is not None:
            self._store_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._listens.clear()
        self._failed = None
        self._thread = threading.Thread(target=self._run, name="tcb-ops-simulator", daemon=True)
        self._thread.start()
        self._listens.wait()
        if self._failed is not None:
            self._thread.join()
            self._thread = None
            raise UsageError(_no_port(self.port, self._failed))
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    def _run(self) -> None:
        factory = None
        if sys.platform != "win32":
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            try:
                runner.run(self._serve())
            finally:
                self._listens.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # The access log is off: it would take most of the time. Link calls are small, so reading each at once is safe.
        server = web.Server(self._answer, access_log=None, logger=_LOG)
        runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await runner.setup()
        try:
            site = web.TCPSite(runner, HOST, self.port, backlog=1024)
            await site.start()
            self.port = runner.addresses[0][1]
            self._platform.base = self.base
            self._listens.set()
            await self._stop.wait()
            # asyncio fails on a connection that is accepted in the iteration in which listening stops.
            await _settled()
        except OSError as error:
            self._failed = error
        finally:
            await runner.cleanup()
            # Sockets close in the following iterations: the loop must not end before them.
            await _settled(server)

    async def handle(self, request: Request) -> Response:
        """Decide about a request and carry it out, without a connection. Waits only for a fault's delay."""
        if request.target == HANDSHAKE:
            return Response(200, handshake_answer(), {"Content-Type": "application/json"})
        part = self._platform if request.target.startswith(_PLATFORM_ROUTES) else self._store
        response = await part.handle(request)
        response.headers["Date"] = _date(int(self._state.clock()))
        return response

    async def _answer(self, http: web.BaseRequest) -> web.StreamResponse:
        request = Request(http.method, http.raw_path, http.headers)
        unread = not request.target.startswith(_PLATFORM_ROUTES) and self._store.head_refusal(request)
        with ExitStack() as stack:
            if not unread:
                try:
                    request = request._replace(body=await _read(http, stack))
                except (ConnectionError, web.RequestPayloadError):
                    return _reset(http)  # the client has gone or does not speak HTTP
            response = await self.handle(request)
        if response.reset is Reset.BEFORE:
            return _reset(http)
        if response.reset is Reset.MIDDLE:
            return _cut_short(http, response)
        body: bytes | BinaryIO = b""
        if not isinstance(response.body, Path):
            body = response.body
        elif response.body.stat().st_size <= _IN_MEMORY:
            # An open file would be closed only after the client has it all, and Windows deletes no open file.
            body = response.body.read_bytes()
        else:
            body = response.body.open("rb")
        answer = web.Response(status=response.status, body=body, headers=response.headers)
        if unread:
            answer.force_close()
        return answer


async def _read(http: web.BaseRequest, stack: ExitStack) -> bytes | mmap:
    """Read a body to its end, refused or not: a reset could lose an early response. A large one is not in memory."""
    if http.headers.get("Expect", "").lower() == "100-continue" and http.transport is not None:
        http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if (http.content_length or 0) <= _IN_MEMORY:
        return await http.read()
    file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  closed with the stack
    async for chunk in http.content.iter_any():
        file.write(chunk)
    file.flush()
    return stack.enter_context(mmap(file.fileno(), 0, access=ACCESS_READ))


def _reset(http: web.BaseRequest) -> web.Response:
    """Break the connection with a TCP reset. The returned response can no longer be sent."""
    if http.transport is not None:
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        http.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        http.transport.abort()
    return web.Response()


def _cut_short(http: web.BaseRequest, response: Response) -> web.Response:
    transport: asyncio.Transport | None = http.transport
    if transport is not None:
        body = response.body if isinstance(response.body, bytes) else b""
        head = f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n"
        # A response without a body is cut in its head.
        head += f"Content-Length: {len(body)}\r\n\r\n" if body else "Server: tencent-c"
        transport.write(head.encode() + body[: len(body) // 2])
        transport.close()
    return web.Response()


@contextmanager
def embedded(settings: Settings, merchants: Callable[[], Iterable[Merchant]]) -> Iterator[Settings]:
    """Start the simulator on a free port; yield the settings for it. `merchants`: called for those that it serves."""
    served, rehearsal = list(merchants()), settings.section("simulator")
    faults = load_faults(rehearsal.faults) if rehearsal.faults is not None else Faults()
    component = settings.tokens.component_appid or "wxsimulatedplatform"
    appids = dict.fromkeys([*(merchant.appid for merchant in served), component])
    tokens = {appid: secrets.token_hex(24) for appid in appids}
    platform = Component(component, secret=secrets.token_hex(16), ticket=secrets.token_hex(16))
    faults = replace(faults, component=platform)
    with (
        tempfile.TemporaryDirectory(prefix="tcb-ops-simulator-") as folder,
        Simulator(served, tokens, faults=faults, store=rehearsal.store) as simulator,
    ):
        file = Path(folder) / "tokens.csv"
        file.touch(mode=0o600)
        lines = ("appid,access_token", *map(",".join, tokens.items()))
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        own = replace(settings.tokens, source="file", file=file, component_appid=component)
        yield replace(settings, api_base=simulator.base, tokens=own)


def serve(simulator: Simulator, ready: Callable[[], None]) -> None:
    """Run a simulator in the foreground until SIGINT, SIGTERM or SIGHUP; `ready` is called once it listens.

    Must be called in the main thread. Raises UsageError if the port is not available.
    """
    stopped = threading.Event()
    with handled(lambda _number, _frame: stopped.set()), simulator:
        ready()
        stopped.wait()


async def _settled(server: web.Server | None = None) -> None:
    """Let the event loop iterate a few times, so that connections can open or close."""
    for _each in range(5):
        for connection in server.connections if server else ():
            connection.force_close()
        await asyncio.sleep(0)


@lru_cache(maxsize=4)
def _date(now: int) -> str:
    return formatdate(now, usegmt=True)


def _no_port(port: int, error: OSError) -> Text:
    text = _("Port {port} cannot be opened on 127.0.0.1 ({why}): choose another with {--port}.")
    if error.errno == errno.EADDRINUSE:
        text = _(
            "Port {port} is in use by another program: choose another with {--port}, or 0 for any free one."
        )
    return text.format(port=port, why=system_reason(error))
