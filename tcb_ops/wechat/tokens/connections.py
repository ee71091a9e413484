"""The connections of `tokens serve`: whoever can connect, without the key too, must not be able to keep the others out."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from tcb_ops.resources import descriptor_limit

SILENT = 10.0
"""Seconds for which a connection may be open without a complete request, TLS handshake included."""
MOST = 256
"""Connections at the same time."""
_PAUSE = 1.0
"""Seconds after which accepting is tried again when the system has no descriptor or memory for a connection."""


def most_connections() -> int:
    """Return how many connections this process may hold: the other half of its descriptors is for the source."""
    limit = descriptor_limit()
    return MOST if limit is None or limit < 0 else max(1, min(MOST, limit // 2))


def listen(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of a host. Raises OSError."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    try:
        for family, _type, _protocol, _name, address in dict.fromkeys(found):
            opened.append(socket.create_server(address, family=family, backlog=128))
            opened[-1].settimeout(0)
    except OSError:
        for each in opened:
            each.close()
        raise
    return opened


class Connections(web.Server):
    """Accepts connections, and closes those that wait: for longer than `silent`, or the first of them when there are `most`.

    A connection waits from the start, and from each response on, until its next complete request. aiohttp's own
    `keepalive_timeout` does not count a TLS handshake.
    """

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        logger: logging.Logger,
        most: int,
        silent: float = SILENT,
    ) -> None:
        super().__init__(self._answered, access_log=None, logger=logger)
        self._answer, self._silent = answer, silent
        self._slots = asyncio.Semaphore(most)
        self._open: dict[web.RequestHandler, tuple[socket.socket, asyncio.Event]] = {}
        self._waiting: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        """In the order in which they began to wait."""
        self._held: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def accepting(
        self, listeners: Sequence[socket.socket], tls: ssl.SSLContext | None
    ) -> AsyncIterator[None]:
        """Accept connections within the block; its end closes the listening sockets."""
        tasks = [asyncio.create_task(self._accept(listener, tls)) for listener in listeners]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for listener in listeners:
                listener.close()

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _address = await loop.sock_accept(listener)
            except ConnectionError:
                continue
            except OSError:  # no descriptor or no memory is left
                self._close_first()
                await asyncio.sleep(_PAUSE)
                continue
            if self._slots.locked():
                self._close_first()
            try:
                await self._slots.acquire()  # waits only while all connections are being answered
            except BaseException:
                connection.close()
                raise
            task = asyncio.create_task(self._hold(connection, tls))
            self._held.add(task)
            task.add_done_callback(self._held.discard)

    async def _hold(self, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Serve a connection until it is closed."""
        handler, closed = self(), asyncio.Event()
        self._open[handler] = (connection, closed)
        self._wait(handler)
        try:
            with suppress(OSError):  # no handshake
                await asyncio.get_running_loop().connect_accepted_socket(lambda: handler, connection, ssl=tls)
                await closed.wait()
        finally:
            del self._open[handler]
            self._go_on(handler)
            self._slots.release()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Note that a connection is closed: called by aiohttp."""
        super().connection_lost(handler, exc)
        if (held := self._open.get(handler)) is not None:
            held[1].set()

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        self._go_on(request.protocol)
        try:
            return await self._answer(request)
        finally:
            self._wait(request.protocol)

    def _wait(self, handler: web.RequestHandler) -> None:
        if handler in self._open:
            later = asyncio.get_running_loop().call_later(self._silent, self._close, handler)
            self._waiting[handler] = later

    def _go_on(self, handler: web.RequestHandler) -> None:
        if (timer := self._waiting.pop(handler, None)) is not None:
            timer.cancel()

    def _close_first(self) -> None:
        if self._waiting:
            self._close(next(iter(self._waiting)))

    def _close(self, handler: web.RequestHandler) -> None:
        self._go_on(handler)
        with suppress(OSError):  # it is closed
            # Not the transport: a handshake has none yet, and it would wait for who does not read.
            self._open[handler][0].shutdown(socket.SHUT_RDWR)
