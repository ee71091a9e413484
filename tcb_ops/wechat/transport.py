"""The HTTP transport of runs and of files. `single_transport` sends what is not hot, by the same rules.

Its aiohttp session keeps no cookies and reads nothing from netrc. An outer deadline grows with the bytes, no redirect is
followed, what is read is limited, and every library error becomes a TransportError that knows host and port and nothing
else: the access token is in the query.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Self

import aiohttp
import certifi
import yarl
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import TcbOpsError, TransportError, TransportFault
from tcb_ops.model import is_loopback
from tcb_ops.system_errors import exhausted
from tcb_ops.wechat.responses import HttpResponse

_FAILURES: Mapping[type[BaseException], tuple[TransportFault, DetailCode]] = {
    aiohttp.ClientConnectorError: (TransportFault.UNREACHABLE, DetailCode.NO_CONNECTION),
    aiohttp.ClientConnectorDNSError: (TransportFault.UNREACHABLE, DetailCode.NO_SUCH_HOST),
    aiohttp.ConnectionTimeoutError: (TransportFault.UNREACHABLE, DetailCode.SLOW_CONNECT),
    aiohttp.ClientSSLError: (TransportFault.UNREACHABLE, DetailCode.NO_TLS),
    aiohttp.ClientProxyConnectionError: (TransportFault.UNREACHABLE, DetailCode.PROXY),
    aiohttp.ClientHttpProxyError: (TransportFault.UNREACHABLE, DetailCode.PROXY),
    aiohttp.ServerTimeoutError: (TransportFault.TIMEOUT, DetailCode.SILENT),
    aiohttp.ClientResponseError: (TransportFault.GARBAGE, DetailCode.NOT_HTTP),
    HttpProcessingError: (TransportFault.GARBAGE, DetailCode.NOT_HTTP),
    aiohttp.InvalidURL: (TransportFault.GARBAGE, DetailCode.BAD_ADDRESS),
    TimeoutError: (TransportFault.TIMEOUT, DetailCode.SILENT),
    ValueError: (TransportFault.GARBAGE, DetailCode.BAD_ADDRESS),
}
"""What the libraries' errors mean, by class or nearest base; any other: the connection broke."""


def transport_error(error: BaseException, host: str) -> TransportError:
    """Return the error to raise for a library's, outside any `except`: a chained one would contain the token.

    ==============================================  ===========
    refused, no route, unknown host, TLS, proxy     unreachable
    no connection within the connect timeout        unreachable
    silence, or the outer deadline                  timeout
    not HTTP, a head over the limits, a bad URL     garbage
    any other: reset or closed before or within     reset
    ==============================================  ===========
    """
    broken = TransportFault.RESET, DetailCode.BROKEN
    fault, code = next((_FAILURES[kind] for kind in type(error).__mro__ if kind in _FAILURES), broken)
    return TransportError(fault, detail(code, host=host))


def too_large(host: str) -> TransportError:
    """Return the error to raise for a response of more than LARGEST_ANSWER bytes."""
    return TransportError(TransportFault.TOO_LARGE, detail(DetailCode.TOO_LARGE, host=host))


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
    netloc = url.host_port_subcomponent or ""
    if urllib.request.proxy_bypass_environment(netloc, dict(proxies)):  # type: ignore[attr-defined]  # not in typeshed
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    return proxy if proxy.startswith(("http://", "https://")) else None


def uses_proxy(address: str) -> bool:
    """Return whether calls to an address go through a proxy of this machine's environment."""
    return proxy_for(yarl.URL(address), urllib.request.getproxies_environment()) is not None


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class HttpRequest:
    """A request without its body, converted once: it may be sent again and again."""

    __slots__ = ("address", "headers", "host", "method")

    def __init__(self, method: str, url: str, headers: Mapping[str, str] = {}) -> None:
        """`url` is sent unchanged, non-ASCII as UTF-8. Raises TransportError if it cannot be sent.

        Two characters are invalid in a request target and are encoded: space, and `#` (part of an unencoded path, since a
        fragment is never sent).
        """
        scheme, _colon, rest = url.partition("://")
        host = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2]
        port = "" if re.search(r":[0-9]*$", host) else ":443" if scheme == "https" else ":80"
        self.method, self.headers, self.host = method, list(headers.items()), host + port
        url = url.replace(" ", "%20").replace("#", "%23")
        valid = False
        with suppress(ValueError):
            self.address = yarl.URL(url, encoded=True)
            # yarl drops e.g. a trailing `?`.
            valid = bool(self.address.host) and url.endswith(self.address.raw_path_qs[1:])
        if not valid or _CONTROL.search(url):
            raise TransportError(TransportFault.GARBAGE, detail(DetailCode.BAD_ADDRESS, host=self.host))


async def _watched(
    stream: AsyncGenerator[bytes, None], progress: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    """Give a stream's chunks, and report each that the connection takes."""
    async with aclosing(stream) as chunks:
        progress()
        async for chunk in chunks:
            yield chunk
            progress()


class Incoming:
    """A response whose body is still to be read."""

    def __init__(self, response: aiohttp.ClientResponse, host: str, timeouts: Timeouts) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._content = response.content
        # Of a whole answer the connection has been returned already. No public attribute leads to its errors then.
        self._protocol = getattr(response.content, "_protocol", None)
        self._host, self._timeouts = host, timeouts

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body. Raises TransportError if it is broken off, or more follows than its Content-Length says.

        The bytes must come as fast as those of an upload must. Time in which the caller works on a chunk does not count.
        """
        now = asyncio.get_running_loop().time
        waited, received = 0.0, 0
        while True:
            begun = now()
            try:
                async with asyncio.timeout_at(begun + self._timeouts.deadline(received) - waited):
                    chunk = await self._content.readany()
                waited += now() - begun
                wrong = self._protocol.exception() if not chunk and self._protocol is not None else None
                # A whole answer may end with the connection.
                if wrong is not None and not isinstance(wrong, aiohttp.ServerDisconnectedError):
                    raise aiohttp.ClientPayloadError
            except _LIBRARY_ERRORS as error:
                failed = _error_of(error, self._host)
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
                    raise too_large(self._host)
        return received


_LIBRARY_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)


def _error_of(error: BaseException, host: str) -> TcbOpsError:
    """Return the error to raise for a library's, outside any `except`."""
    return exhausted(error) or transport_error(error, host)


HEADERS = {"User-Agent": f"tcb-ops/{version('tcb-ops')}", "Accept-Encoding": "identity"}


@lru_cache(maxsize=1)
def tls_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Load the certificates to trust: those that the environment names, or certifi's. Cached: it takes 10 ms."""
    return ssl.create_default_context(cafile=file or (None if folder else certifi.where()), capath=folder)


class _Connector(aiohttp.TCPConnector):
    """A pool that closes an idle connection on which something has come that nobody asked for.

    aiohttp would take a second answer to an earlier request for the answer to the next one.
    """

    async def _get(
        self, key: aiohttp.client_reqrep.ConnectionKey, traces: list[aiohttp.tracing.Trace]
    ) -> aiohttp.connector.Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is None or not connection.protocol.should_close:
                break
            connection.close()
        return connection


class _Parts(aiohttp.payload.Payload):
    """A body in parts. Given as one, aiohttp would copy it behind the request's head."""

    _value: Iterator[bytes | bytearray]

    def __init__(self, parts: Iterator[bytes | bytearray]) -> None:
        super().__init__(parts, content_type="application/octet-stream")

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise NotImplementedError  # only a request that is signed, or sent again, asks

    async def write(self, writer: AbstractStreamWriter) -> None:
        for part in self._value:
            await writer.write(part)


class Transport:
    """Sends HTTP requests and reads their responses. Create and close it inside the running loop.

    Args:
        connections: maximum requests in flight; further ones wait for a connection while their deadline runs.
        timeouts: see Timeouts.

    """

    def __init__(self, *, connections: int, timeouts: Timeouts = STANDARD) -> None:
        self._timeouts = timeouts
        self._tls = tls_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        self._connector = _Connector(limit=connections, ssl=self._tls)
        self._whole = aiohttp.ClientTimeout(total=timeouts.deadline(0), sock_connect=timeouts.connect)
        """Of a request without a body to speak of."""
        self._connect_only = aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect)
        self._proxies = urllib.request.getproxies_environment()
        self._sessions: dict[tuple[str | None, bool], aiohttp.ClientSession] = {}
        self._incoming: aiohttp.TCPConnector | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        for session in self._sessions.values():
            await session.close()
        await self._connector.close()
        if self._incoming is not None:
            await self._incoming.close()

    def _session(self, url: yarl.URL, connector: aiohttp.TCPConnector | None = None) -> aiohttp.ClientSession:
        """Return the session for a URL's proxy; all of a connector share its connections.

        aiohttp's trust_env would look up netrc and the environment in two threads for each request.
        """
        proxy = proxy_for(url, self._proxies) if self._proxies else None
        key = (proxy, connector is None)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = aiohttp.ClientSession(
                connector=connector or self._connector,
                connector_owner=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=HEADERS,
                proxy=proxy,
                auto_decompress=False,
                timeout=self._whole,
            )
        return session

    async def send(
        self,
        request: HttpRequest,
        body: bytes | Iterator[bytes | bytearray] | AsyncGenerator[bytes, None] = b"",
        *,
        sending: int = 0,
    ) -> HttpResponse:
        """Send a request and return the response, of any status, redirects included.

        Args:
            request: with an exact Content-Length if the body comes in parts or is a stream.
            body: its bytes, 64 KiB at most; their parts, each given to the connection when it has taken the one before;
                or a stream, which is closed afterwards.
            sending: bytes of all parts, or of the stream, which extend the deadline. A stream without progress is
                aborted sooner.

        Raises:
            TransportError: no usable response. Contains host and port, and no chained cause.
            ResourceLimitError: this machine cannot open another connection.

        """
        try:
            session = self._session(request.address)
            if isinstance(body, bytes):  # the session's own deadline is enough, and costs less
                return await _answer(session, request, body or None)
            return await self._send_much(session, request, body, sending)
        except _LIBRARY_ERRORS as error:
            failed = _error_of(error, request.host)
        raise failed

    @asynccontextmanager
    async def open(self, request: HttpRequest) -> AsyncIterator[Incoming]:
        """Send a request without a body, and give its response before its body is read; raises as `send` does.

        These responses have connections of their own, as many as requests: what is read from one is written to another.
        """
        timeouts = self._timeouts
        if self._connector.closed:
            raise RuntimeError("the transport is closed")  # a new connector would be closed by nobody
        if self._incoming is None:
            self._incoming = _Connector(limit=self._connector.limit, ssl=self._tls)
        try:
            session = self._session(request.address, self._incoming)
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=timeouts.connect, sock_read=timeouts.answer
            )
            async with asyncio.timeout(timeouts.deadline(0)):
                response = await session.request(
                    request.method,
                    request.address,
                    headers=request.headers,
                    allow_redirects=False,
                    timeout=timeout,
                )
        except _LIBRARY_ERRORS as error:
            failed = _error_of(error, request.host)
        else:
            try:
                yield Incoming(response, request.host, timeouts)
            finally:
                response.close()  # one that was read to its end has returned its connection
            return
        raise failed

    async def _send_much(
        self,
        session: aiohttp.ClientSession,
        request: HttpRequest,
        body: Iterator[bytes | bytearray] | AsyncGenerator[bytes, None],
        sending: int,
    ) -> HttpResponse:
        timeouts = self._timeouts
        if isinstance(body, Iterator):
            timeout = aiohttp.ClientTimeout(total=timeouts.deadline(sending), sock_connect=timeouts.connect)
            return await _answer(session, request, _Parts(body), timeout)
        now = asyncio.get_running_loop().time
        silence = timeouts.silence(sending)
        end = now() + timeouts.deadline(sending)
        async with asyncio.timeout_at(min(end, now() + timeouts.connect + silence)) as clock:
            data = _watched(body, lambda: clock.reschedule(min(end, now() + silence)))
            try:
                return await _answer(session, request, data, self._connect_only)
            finally:
                # aiohttp leaves a stream that it could not send to the end to the garbage collector.
                with suppress(RuntimeError):  # it is still running it, and about to cancel it
                    await data.aclose()


async def _answer(
    session: aiohttp.ClientSession,
    request: HttpRequest,
    data: bytes | _Parts | AsyncIterator[bytes] | None,
    timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109  in place of the session's
) -> HttpResponse:
    response = await session.request(
        request.method,
        request.address,
        data=data,
        headers=request.headers,
        allow_redirects=False,
        timeout=timeout or session.timeout,
    )
    try:
        content = response.content
        body = await content.readany()
        while not content.at_eof():
            body += await content.readany()
            if len(body) > LARGEST_ANSWER:
                break
    finally:
        # An early response ends the upload; the resulting send error must not hide the response.
        with suppress(aiohttp.ClientError, OSError):
            response.release()
            await response.wait_for_close()
    if len(body) > LARGEST_ANSWER:
        raise too_large(request.host)
    return HttpResponse(response.status, response.headers, body)
