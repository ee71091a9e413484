"""`tokens serve`: the token server of `source = "service"`, which serves the tokens of this machine's source.

Responses and log lines contain no token but the one that was asked for. Whoever has the key gets every merchant's token.
Whoever can connect, without the key too, must not be able to keep the others out.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
import shlex
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from aiohttp import web

from tcb_ops.errors import SettingsError, TcbOpsError, TokenError, UsageError
from tcb_ops.i18n import NOTHING, Text, _, verbatim
from tcb_ops.model import Secret, is_loopback
from tcb_ops.resources import descriptor_limit, system_reason
from tcb_ops.settings import TokenSettings
from tcb_ops.signals import exit_code, handled
from tcb_ops.wechat.tokens import Token, TokenSource, token_fingerprint
from tcb_ops.wechat.tokens.command import Credential
from tcb_ops.wechat.tokens.component import LET_FINISH, SharedTasks
from tcb_ops.wechat.tokens.service import REFUSED_HEADER

SHORTEST_KEY = 16
"""Characters of the key."""
OLD_WORKS = 300.0
"""Seconds for which a token still works after a newer one was issued (docs/en/explanation/tokens.md)."""
SILENT = 10.0
"""Seconds for which a connection may be open without a complete request, TLS handshake included."""
MOST = 256
"""Connections at the same time."""
_PAUSE = 1.0
"""Seconds after which accepting is tried again when the system has no descriptor or memory for a connection."""
_BEARER = "Bearer "
_APPID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_LOG = logging.getLogger("tcb_ops.tokens")
# aiohttp logs requests that are not HTTP, with their target, and the traces of handlers.
_LOG.addFilter(lambda _record: False)


@dataclass(frozen=True, slots=True)
class Access:
    """One request, for the log."""

    at: float
    """Unix seconds."""
    appid: str
    """`-` if the request has not the key or asks for no appid."""
    status: int
    why: Text = NOTHING


async def serve_key(settings: TokenSettings) -> Secret:
    """Read the key that clients must send, with or without `Bearer `. Raises SettingsError that names its location."""
    credential = Credential.named("tokens.serve_key", settings.serve_key)
    if credential.kind == "file":
        check_private(Path(credential.where))
    key = (await credential.read()).reveal().removeprefix(_BEARER).strip()
    if len(key) < SHORTEST_KEY:
        raise SettingsError(
            _(
                "tokens.serve_key: the key is too short. Make a long random one, e.g. with: openssl rand -hex 32"
            )
        )
    return Secret(key)


def check_private(file: Path) -> None:
    """Raise SettingsError if others may read a file with a secret. One that is missing is reported when it is read."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return
    if os.name == "posix" and mode & 0o077:
        raise SettingsError(
            _(
                "{file} can be read by other users of this machine. Restrict it to yourself:\nchmod 600 {shlex}",
                file=file,
                shlex=shlex.quote(str(file)),
            )
        )


def tls_context(host: str, certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Return the TLS context of a server on `host`; None for plain HTTP, on loopback only. Raises UsageError."""
    if certificate is None and key is None:
        if is_loopback(host):
            return None
        raise UsageError(
            _(
                "On {host} other machines reach it, and its responses contain tokens: give --cert and --key, so that it "
                "uses TLS.",
                host=host,
            ),
            options=["--host", "--cert", "--key"],
        )
    if certificate is None or key is None:
        raise UsageError(_("TLS needs both --cert and --key."), options=["--cert", "--key"])
    check_private(Path(key))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    why = NOTHING
    try:
        # Without a password, OpenSSL asks for one on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        why = verbatim(error.reason or type(error).__name__)
    except (OSError, ValueError) as error:
        why = system_reason(error)
    else:
        return context
    raise UsageError(
        _(
            "{certificate} and {key} cannot be used for TLS ({why}): --cert takes the certificate with its chain, --key its "
            "private key without a passphrase, both PEM.",
            certificate=certificate,
            key=key,
            why=why,
        ),
        options=["--cert", "--key"],
    )


def serve(
    source: TokenSource,
    key: Secret,
    *,
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    ready: Callable[[str], None],
    log: Callable[[Access], None] | None = None,
) -> int:
    """Serve a source's tokens until SIGINT, SIGTERM or SIGHUP; return that signal's exit code.

    Must be called in the main thread. `ready` gets the setting `tokens.url` for clients. Raises UsageError if the port is
    not available.
    """
    return asyncio.run(
        _serve(TokenServer(source, key, log or (lambda _access: None)), host, port, tls, ready)
    )


async def _serve(
    server: TokenServer, host: str, port: int, tls: ssl.SSLContext | None, ready: Callable[[str], None]
) -> int:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    code = 0

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal code
        code = exit_code(number)
        loop.call_soon_threadsafe(stopped.set)

    connections = Connections(server.answer, logger=_LOG, most=most_connections())
    runner = web.ServerRunner(connections, shutdown_timeout=LET_FINISH)
    with handled(stop):
        try:
            await runner.setup()
            listeners = listen(host, port)
            async with connections.accepting(listeners, tls):
                name = f"[{host}]" if ":" in host else host
                number = listeners[0].getsockname()[1]
                ready(f"{'http' if tls is None else 'https'}://{name}:{number}/{{appid}}")
                await stopped.wait()
        except OSError as error:
            why = system_reason(error)
        else:
            return code
        finally:
            await runner.cleanup()
            await server.source.aclose()  # lets running refreshes end
    raise UsageError(
        _(
            "{host}:{port} cannot be opened ({why}): choose another with --host or --port.",
            host=host,
            port=port,
            why=why,
        ),
        options=["--host", "--port"],
    )


class TokenServer:
    """The responses to requests for tokens.

    =======================================  ======
    request                                  status
    =======================================  ======
    without the key, or with another one     401
    not GET                                  405
    for another path than /APPID             404
    for an appid without a token             404
    the source cannot give one at present    503
    any other                                200
    =======================================  ======
    """

    def __init__(self, source: TokenSource, key: Secret, log: Callable[[Access], None]) -> None:
        self.source, self._log = source, log
        self._expected = (_BEARER + key.reveal()).encode()
        self._lookups = SharedTasks[Token]()
        """By appid and fingerprint of a refused token: those who ask at the same time share one."""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request for an appid's token."""
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        allowed, appid = hmac.compare_digest(given, self._expected), request.path.removeprefix("/")
        named = allowed and _APPID.fullmatch(appid) is not None
        payload: dict[str, Any] = {}
        status, why = 404, NOTHING
        if not allowed:
            status = 401
        elif request.method != "GET":
            status = 405
        elif named:
            status, payload, why = await self._token(appid, request)
        self._log(Access(time.time(), appid if named else "-", status, why))
        headers = {"Cache-Control": "no-store"} | ({"WWW-Authenticate": "Bearer"} if status == 401 else {})
        return web.json_response(payload, status=status, headers=headers)

    async def _token(self, appid: str, request: web.BaseRequest) -> tuple[int, dict[str, Any], Text]:
        refused = request.headers.get(REFUSED_HEADER, "")
        try:
            token = await self._lookups.join((appid, refused), lambda: self._look_up(appid, refused))
        except TcbOpsError as error:
            status = 404 if isinstance(error, TokenError) and not error.transient else 503
            return status, {}, error.text
        payload: dict[str, Any] = {"access_token": token.value.reveal()}
        if (end := _end(token)) is not None:
            payload["expires_in"] = round(end - time.time())  # not the moment: clocks differ
        return 200, payload, NOTHING

    async def _look_up(self, appid: str, refused: str) -> Token:
        """Return an appid's token; if it is the refused one, which the client names by its fingerprint, a newer one."""
        token = await self.source.token(appid)
        if refused and refused == token_fingerprint(token.value):
            token = await self.source.token(appid, token.value)
        return token


def _end(token: Token) -> float | None:
    """Return until when a client may use a token: a newer one that the source gets meanwhile ends it earlier."""
    if token.expires_at is None or token.renew_at is None:
        return token.expires_at
    return min(token.expires_at, token.renew_at + OLD_WORKS)


# --- connections ---


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
