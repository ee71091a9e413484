"""The HTTP transport: the only module that opens connections and sends requests.

The aiohttp session keeps no cookies and reads nothing from netrc. An outer deadline grows with the bytes, no redirect
is followed, what is read is limited, and every library error becomes a TransportError that knows host and port and
nothing else: the access token is in the query.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Self

import aiohttp
import certifi
import yarl
from aiohttp.http_exceptions import HttpProcessingError

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import TcbOpsError, TransportError, TransportFault
from tcb_ops.model import Secret, is_loopback
from tcb_ops.resources import exhausted
from tcb_ops.wechat.responses import HttpResponse


@dataclass(frozen=True, slots=True)
class TransportFailure:
    """A kind of transport failure and its message, which contains host and port."""

    fault: TransportFault
    code: DetailCode

    def error(self, host: str) -> TransportError:
        """Return the error to raise, outside any `except`: a chained library error would contain the token."""
        return TransportError(self.fault, detail(self.code, host=host))


_BROKEN = TransportFailure(TransportFault.RESET, DetailCode.BROKEN)
_TOO_LARGE = TransportFailure(TransportFault.TOO_LARGE, DetailCode.TOO_LARGE)
_BAD_ADDRESS = TransportFailure(TransportFault.GARBAGE, DetailCode.BAD_ADDRESS)

_FAILURES: Mapping[str, TransportFailure] = {
    name: failure
    for failure, names in {
        TransportFailure(TransportFault.UNREACHABLE, DetailCode.NO_CONNECTION): "ClientConnectorError",
        TransportFailure(TransportFault.UNREACHABLE, DetailCode.NO_SUCH_HOST): "ClientConnectorDNSError",
        TransportFailure(TransportFault.UNREACHABLE, DetailCode.SLOW_CONNECT): "ConnectionTimeoutError",
        TransportFailure(TransportFault.UNREACHABLE, DetailCode.NO_TLS): (
            "ClientSSLError ClientConnectorSSLError ClientConnectorCertificateError ServerFingerprintMismatch"
        ),
        TransportFailure(TransportFault.UNREACHABLE, DetailCode.PROXY): (
            "ClientProxyConnectionError ClientHttpProxyError"
        ),
        TransportFailure(TransportFault.TIMEOUT, DetailCode.SILENT): (
            "ServerTimeoutError SocketTimeoutError TimeoutError"
        ),
        TransportFailure(TransportFault.GARBAGE, DetailCode.NOT_HTTP): (
            "ClientResponseError ContentTypeError TooManyRedirects RedirectClientError InvalidUrlRedirectClientError "
            "NonHttpUrlRedirectClientError WSServerHandshakeError HttpProcessingError"
        ),
        _BAD_ADDRESS: "InvalidURL InvalidUrlClientError NonHttpUrlClientError ValueError",
        _BROKEN: (
            "ClientError ClientConnectionError ClientConnectionResetError ClientOSError ServerConnectionError "
            "ServerDisconnectedError ClientPayloadError UploadAbortedError OSError"
        ),
    }.items()
    for name in names.split()
}
"""All public exceptions of aiohttp, that of its parser (HttpProcessingError), and Python's own.

By class name, since the oldest supported aiohttp lacks some of these classes.
"""


def transport_failure(error: BaseException) -> TransportFailure | None:
    """Return the failure that a library error means, by its class or nearest base; None for any other error.

    ==============================================  ===========
    refused, no route, unknown host, TLS, proxy     unreachable
    no connection within the connect timeout        unreachable
    silence, or the outer deadline                  timeout
    reset or closed before or within the answer     reset
    not HTTP, a head over the limits, a bad URL     garbage
    ==============================================  ===========
    """
    return next((_FAILURES[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in _FAILURES), None)


LARGEST_ANSWER = 1024 * 1024
"""Maximum bytes of a response body; a link has about 1 KiB."""

_IN_FLIGHT = 4 * 1024 * 1024
"""Bytes that the socket buffers may still hold after the last write."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of a request. Seconds, and bytes per second."""

    connect: float = 10
    answer: float = 60
    """From the request's last byte to the response's; also the longest pause while a large body is sent."""
    slowest: int = 32 * 1024
    """The slowest upload that is tolerated: the deadline grows by the body's bytes / slowest."""

    def deadline(self, sending: int) -> float:
        """Return the seconds after which a request is aborted in any case. `sending` is the body's bytes."""
        return self.connect + self.answer + sending / self.slowest

    def silence(self, sending: int) -> float:
        """Return the seconds without progress after which it is aborted, with time to empty the socket buffers."""
        return self.answer + min(sending, _IN_FLIGHT) / self.slowest


STANDARD = Timeouts()


def proxy_for(url: yarl.URL, proxies: Mapping[str, str]) -> str | None:
    """Return the proxy for a URL among those of the environment (`urllib.request.getproxies_environment()`).

    Loopback never uses a proxy: simulator traffic must not leave the machine. Only http and https proxies are
    supported; others (socks5) are ignored.
    """
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or is_loopback(url.host or ""):
        return None
    if urllib.request.proxy_bypass_environment(url.host_port_subcomponent, dict(proxies)):  # type: ignore[attr-defined]  # not in typeshed
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    return proxy if proxy.startswith(("http://", "https://")) else None


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_URL = 64 * 1024
_HEADERS = {"User-Agent": f"tcb-ops/{version('tcb-ops')}", "Accept-Encoding": "identity"}


class Request:
    """A request without its body. It may be sent again and again: its URL is parsed once.

    `exact`: send the URL's path and query unchanged, non-ASCII as UTF-8; otherwise they are quoted as necessary. Two
    characters are invalid in a request target and are encoded: space, and `#` (part of an unencoded path, since a
    fragment is never sent). Raises TransportError for a URL that cannot be sent.
    """

    __slots__ = ("address", "headers", "method")

    def __init__(
        self, method: str, url: str, headers: Mapping[str, str] = {}, *, exact: bool = False
    ) -> None:
        self.method, self.headers = method, headers
        if exact:
            url = url.replace(" ", "%20").replace("#", "%23")
        try:
            self.address = yarl.URL(url, encoded=exact)
            # yarl drops e.g. a trailing `?`.
            sendable = not exact or url.endswith(self.address.raw_path_qs)
        except ValueError:
            sendable = False
        if not sendable or len(url) > _LONGEST_URL or _CONTROL.search(url):
            host = url.partition("://")[2].partition("/")[0].partition("?")[0]
            raise _BAD_ADDRESS.error(host.rpartition("@")[2])

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return f"{self.address.host}:{self.address.port}"


Payload = bytes | AsyncGenerator[bytes, None]
"""The body of a request: sent at once, or chunk by chunk."""


async def _watched(
    chunks: AsyncGenerator[bytes, None], progress: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    """Give the chunks of a body, and report each that the connection takes."""
    async with aclosing(chunks):
        progress()
        async for chunk in chunks:
            yield chunk
            progress()


_LIBRARY_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)


def _error_of(error: BaseException, request: Request) -> TcbOpsError:
    """Return the error to raise for a library's, outside any `except`."""
    return exhausted(error) or (transport_failure(error) or _BROKEN).error(request.host)


class Incoming:
    """A response whose body is still to be read."""

    def __init__(self, response: aiohttp.ClientResponse, request: Request, timeouts: Timeouts) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._content = response.content
        # Of a whole answer the connection has been returned already. No public attribute leads to its errors then.
        self._protocol = getattr(response.content, "_protocol", None)
        self._request, self._timeouts = request, timeouts

    async def chunks(self, *, patient: bool = False) -> AsyncGenerator[bytes, None]:
        """Yield the body. Raises TransportError if it is broken off, or more follows than its Content-Length says.

        `patient`: whoever takes the bytes decides how long that may last; otherwise they must come as fast as an upload must.
        """
        now = asyncio.get_running_loop().time
        begun, received = now(), 0
        while True:
            end = None if patient else begun + self._timeouts.deadline(received)
            try:
                async with asyncio.timeout_at(end):
                    chunk = await self._content.readany()
                if not chunk and self._protocol is not None and self._protocol.exception() is not None:
                    raise aiohttp.ClientPayloadError
            except _LIBRARY_ERRORS as error:
                failed = _error_of(error, self._request)
            else:
                if not chunk:
                    return
                received += len(chunk)
                yield chunk
                continue
            raise failed

    async def read(self) -> bytes:
        """Return the body. Raises TransportError also if it is larger than LARGEST_ANSWER."""
        received = b""
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                received += chunk
                if len(received) > LARGEST_ANSWER:
                    raise _TOO_LARGE.error(self._request.host)
        return received


@lru_cache(maxsize=1)
def _tls_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Load the certificates named in the environment, or the default ones. Cached: it takes 10 ms."""
    if file or not folder:
        return ssl.create_default_context(cafile=file or certifi.where())
    return ssl.create_default_context(capath=folder)


class Transport:
    """Sends HTTP requests and reads their responses. Close it in the loop that sent them.

    Args:
        connections: maximum requests in flight; further ones wait for a connection while their deadline runs.
        timeouts: see Timeouts.

    """

    def __init__(self, *, connections: int, timeouts: Timeouts = STANDARD) -> None:
        self._connections, self._timeouts = connections, timeouts
        self._tls = _tls_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        self._proxies = urllib.request.getproxies_environment()
        self._connectors: dict[bool, aiohttp.TCPConnector] = {}
        """Of requests, and of responses that are read while something else is sent."""
        self._sessions: dict[tuple[str | None, bool], aiohttp.ClientSession] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection, for good: a new session would be closed by nobody."""
        self._closed = True
        while self._sessions:
            await self._sessions.popitem()[1].close()
        while self._connectors:
            await self._connectors.popitem()[1].close()

    def _session(self, request: Request, *, incoming: bool = False) -> aiohttp.ClientSession:
        """Return the session for a URL's proxy; all of a connector share its connections.

        aiohttp's trust_env would look up netrc and the environment in two threads for each request.
        """
        proxy = proxy_for(request.address, self._proxies) if self._proxies else None
        session = self._sessions.get((proxy, incoming))
        if session is None:
            if self._closed:
                raise RuntimeError("the transport is closed")
            if incoming not in self._connectors:
                self._connectors[incoming] = aiohttp.TCPConnector(limit=self._connections, ssl=self._tls)
            session = self._sessions[proxy, incoming] = aiohttp.ClientSession(
                connector=self._connectors[incoming],
                connector_owner=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                proxy=proxy,
                auto_decompress=False,
                timeout=self._within(self._timeouts.deadline(0)),
            )
        return session

    def _within(self, seconds: float | None) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=seconds, sock_connect=self._timeouts.connect)

    async def send(self, request: Request, body: Payload = b"", *, sending: int = 0) -> HttpResponse:
        """Send a request and return the response, of any status, redirects included.

        Args:
            request: for a stream with an exact Content-Length.
            body: a stream is always closed.
            sending: bytes of the body, which extend the deadline. A stream without progress is aborted sooner.

        Raises:
            TransportError: no usable response. Contains host and port, and no chained cause.
            ResourceLimitError: this machine cannot open another connection.

        """
        try:
            session = self._session(request)
            if not sending:  # the session's own deadline is enough, and costs less
                return await _answer(session, request, body)
            return await self._exchange(session, request, body, sending)
        except _LIBRARY_ERRORS as error:
            failed = _error_of(error, request)
        raise failed

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Incoming]:
        """Send a request without a body, and give its response before its body is read; raises as `send` does.

        These responses have connections of their own, as many as requests: what is read from one is written to another.
        """
        timeouts = self._timeouts
        try:
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=timeouts.connect, sock_read=timeouts.answer
            )
            async with asyncio.timeout(timeouts.deadline(0)):
                response = await self._session(request, incoming=True).request(
                    request.method,
                    request.address,
                    headers=request.headers,
                    allow_redirects=False,
                    timeout=timeout,
                )
        except _LIBRARY_ERRORS as error:
            failed = _error_of(error, request)
        else:
            try:
                yield Incoming(response, request, timeouts)
            finally:
                response.close()  # one that was read to its end has returned its connection
            return
        raise failed

    async def post_json(self, url: Secret, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        """Post a JSON body to an address that is a secret itself, as a robot's is. Raises TransportError."""
        headers = {"Content-Type": "application/json", **headers}
        return await self.send(Request("POST", url.reveal(), headers, exact=True), body)

    async def _exchange(
        self, session: aiohttp.ClientSession, request: Request, body: Payload, sending: int
    ) -> HttpResponse:
        now, timeouts = asyncio.get_running_loop().time, self._timeouts
        deadline, silence = timeouts.deadline(sending), timeouts.silence(sending)
        if isinstance(body, bytes):
            return await _answer(session, request, body, self._within(deadline))
        end = now() + deadline
        async with asyncio.timeout_at(min(end, now() + timeouts.connect + silence)) as clock:
            chunks = _watched(body, lambda: clock.reschedule(min(end, now() + silence)))
            try:
                return await _answer(session, request, chunks, self._within(None))
            finally:
                # aiohttp leaves a stream that it could not send to the end to the garbage collector.
                with suppress(RuntimeError):  # it is still running it, and about to cancel it
                    await chunks.aclose()


async def _answer(
    session: aiohttp.ClientSession,
    request: Request,
    body: Payload,
    timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109  in place of the session's
) -> HttpResponse:
    """Send a request and read its answer. Raises TransportError if it is larger than LARGEST_ANSWER."""
    response = await session.request(
        request.method,
        request.address,
        data=body or None,
        headers=request.headers,
        allow_redirects=False,
        timeout=timeout or session.timeout,
    )
    try:
        content = response.content
        received = await content.readany()
        while not content.at_eof():
            received += await content.readany()
            if len(received) > LARGEST_ANSWER:
                break
    finally:
        # An early response ends the upload; the resulting send error must not hide the response.
        try:
            response.release()
            await response.wait_for_close()
        except (aiohttp.ClientError, OSError):
            pass
    if len(received) > LARGEST_ANSWER:
        raise _TOO_LARGE.error(request.host)
    return HttpResponse(response.status, response.headers, received)
