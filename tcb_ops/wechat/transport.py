"""The HTTP transport: the only module that opens connections and sends requests.

It takes an httpx.Request, and sends it over an aiohttp session of its own: httpx's pool is quadratic past eight
connections, and httpx-aiohttp costs as much as aiohttp itself, re-quotes URLs, ignores the write timeout and reports
refused and reset connections alike. The session keeps no cookies and reads nothing from netrc. An outer deadline grows
with the bytes, no redirect is followed, what is read is limited, and every library error becomes a TransportError that
knows host and port and nothing else: the access token is in the query.
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
import httpx
import yarl
from aiohttp.http_exceptions import HttpProcessingError

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import TcbOpsError, TransportError, TransportFault
from tcb_ops.model import Secret, is_loopback
from tcb_ops.resources import exhausted
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
    httpx.InvalidURL: (TransportFault.GARBAGE, DetailCode.BAD_ADDRESS),
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


def _too_large(url: httpx.URL) -> TransportError:
    return TransportError(TransportFault.TOO_LARGE, detail(DetailCode.TOO_LARGE, host=_host_of(url)))


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


def proxy_for(url: httpx.URL, proxies: Mapping[str, str]) -> str | None:
    """Return the proxy for a URL among those of the environment (`urllib.request.getproxies_environment()`).

    Loopback never uses a proxy: simulator traffic must not leave the machine. Only http and https proxies are
    supported; others (socks5) are ignored.
    """
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or is_loopback(url.host):
        return None
    netloc = url.netloc.decode("ascii")
    if urllib.request.proxy_bypass_environment(netloc, dict(proxies)):  # type: ignore[attr-defined]  # not in typeshed
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    return proxy if proxy.startswith(("http://", "https://")) else None


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _exactly(url: str) -> yarl.URL:
    """Return the URL with its request target unchanged; non-ASCII is sent as UTF-8. Raises ValueError.

    Two characters are invalid in a request target and are encoded: space, and `#` (part of an unencoded path, since a
    fragment is never sent).
    """
    if _CONTROL.search(url):
        raise ValueError
    url = url.replace(" ", "%20").replace("#", "%23")
    exact = yarl.URL(url, encoded=True)
    if not url.endswith(exact.raw_path_qs):  # e.g. a trailing `?`, which yarl drops
        raise ValueError
    return exact


async def _watched(
    stream: httpx.AsyncByteStream | httpx.SyncByteStream, progress: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    """Give a stream's chunks, and report each that the connection takes."""
    # Those of this package are asynchronous generators.
    async with aclosing(aiter(stream)) as chunks:  # type: ignore[arg-type, type-var]
        progress()
        async for chunk in chunks:
            yield chunk
            progress()


class Incoming:
    """A response whose body is still to be read."""

    def __init__(self, response: aiohttp.ClientResponse, url: httpx.URL, timeouts: Timeouts) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._content = response.content
        # Of a whole answer the connection has been returned already. No public attribute leads to its errors then.
        self._protocol = getattr(response.content, "_protocol", None)
        self._url, self._timeouts = url, timeouts

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
                failed = _error_of(error, self._url)
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
                    raise _too_large(self._url)
        return received


_LIBRARY_ERRORS = (httpx.InvalidURL, aiohttp.ClientError, HttpProcessingError, OSError, ValueError)


def _error_of(error: BaseException, url: httpx.URL) -> TcbOpsError:
    """Return the error to raise for a library's, outside any `except`."""
    return exhausted(error) or transport_error(error, _host_of(url))


def _host_of(url: httpx.URL) -> str:
    return f"{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}"


_HEADERS = {"User-Agent": f"tcb-ops/{version('tcb-ops')}", "Accept-Encoding": "identity"}


class RequestTemplate:
    """A request that is sent again and again with another body: its URL and headers are converted once."""

    __slots__ = ("address", "headers", "method", "url")

    def __init__(self, request: httpx.Request, exact_url: str | None = None) -> None:
        """`exact_url`: the URL to send unchanged, without httpx's quoting. Raises ValueError if it cannot be sent."""
        self.method, self.url = request.method, request.url
        self.address = yarl.URL(str(request.url)) if exact_url is None else _exactly(exact_url)
        # Given httpx's own Mapping, aiohttp would go through it in Python.
        self.headers = [(name.decode(), value.decode()) for name, value in request.headers.raw]


@lru_cache(maxsize=1)
def _tls_context(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    """Load the certificates named in the environment, or the default ones. Cached: it takes 10 ms."""
    return httpx.create_ssl_context()


class Transport:
    """Sends HTTP requests and reads their responses. Create and close it inside the running loop.

    Args:
        connections: maximum requests in flight; further ones wait for a connection while their deadline runs.
        timeouts: see Timeouts.

    """

    def __init__(self, *, connections: int, timeouts: Timeouts = STANDARD) -> None:
        self._timeouts = timeouts
        self._tls = _tls_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        self._connector = aiohttp.TCPConnector(limit=connections, ssl=self._tls)
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

    def _session(
        self, url: httpx.URL, connector: aiohttp.TCPConnector | None = None
    ) -> aiohttp.ClientSession:
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
                headers=_HEADERS,
                proxy=proxy,
                auto_decompress=False,
                timeout=self._whole,
            )
        return session

    async def send(
        self, request: httpx.Request, *, sending: int = 0, exact_url: str | None = None
    ) -> HttpResponse:
        """Send a request and return the response, of any status, redirects included.

        Args:
            request: with its content, or with a stream and an exact Content-Length.
            sending: bytes of the body, which extend the deadline. A stream without progress is aborted sooner.
            exact_url: the URL to send unchanged, without httpx's quoting; `request` has the same host.

        Raises:
            TransportError: no usable response. Contains host and port, and no chained cause.
            ResourceLimitError: this machine cannot open another connection.

        """
        try:
            template = RequestTemplate(request, exact_url)
            return await self._exchange(template, request, sending)
        except _LIBRARY_ERRORS as error:
            failed = _error_of(error, request.url)
        raise failed

    async def post(self, template: RequestTemplate, body: bytes) -> HttpResponse:
        """Send a request with a small body; return and raise as `send` does."""
        try:
            # The session's own deadline is enough, and costs less.
            return await _answer(self._session(template.url), template, body)
        except _LIBRARY_ERRORS as error:
            failed = _error_of(error, template.url)
        raise failed

    @asynccontextmanager
    async def open(self, request: httpx.Request, exact_url: str) -> AsyncIterator[Incoming]:
        """Send a request without a body, and give its response before its body is read; raises as `send` does.

        These responses have connections of their own, as many as requests: what is read from one is written to another.
        """
        url, timeouts = request.url, self._timeouts
        if self._connector.closed:
            raise RuntimeError("the transport is closed")  # a new connector would be closed by nobody
        if self._incoming is None:
            self._incoming = aiohttp.TCPConnector(limit=self._connector.limit, ssl=self._tls)
        try:
            session, template = self._session(url, self._incoming), RequestTemplate(request, exact_url)
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=timeouts.connect, sock_read=timeouts.answer
            )
            async with asyncio.timeout(timeouts.deadline(0)):
                response = await session.request(
                    template.method,
                    template.address,
                    headers=template.headers,
                    allow_redirects=False,
                    timeout=timeout,
                )
        except _LIBRARY_ERRORS as error:
            failed = _error_of(error, url)
        else:
            try:
                yield Incoming(response, url, timeouts)
            finally:
                response.close()  # one that was read to its end has returned its connection
            return
        raise failed

    async def post_json(self, url: Secret, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
        """Post a JSON body to an address that is a secret itself, as a robot's is. Raises TransportError."""
        address = url.reveal()
        origin = "/".join(address.split("/", 3)[:3])
        request = httpx.Request(
            "POST", f"{origin}/", headers={"Content-Type": "application/json", **headers}, content=body
        )
        return await self.send(request, exact_url=address)

    async def _exchange(
        self, template: RequestTemplate, request: httpx.Request, sending: int
    ) -> HttpResponse:
        session = self._session(template.url)
        if not sending:
            return await _answer(session, template, request.read() or None)
        timeouts = self._timeouts
        if isinstance(request.stream, httpx.ByteStream):
            whole = aiohttp.ClientTimeout(total=timeouts.deadline(sending), sock_connect=timeouts.connect)
            return await _answer(session, template, request.read(), whole)
        now = asyncio.get_running_loop().time
        silence = timeouts.silence(sending)
        end = now() + timeouts.deadline(sending)
        async with asyncio.timeout_at(min(end, now() + timeouts.connect + silence)) as clock:
            data = _watched(request.stream, lambda: clock.reschedule(min(end, now() + silence)))
            try:
                return await _answer(session, template, data, self._connect_only)
            finally:
                # aiohttp leaves a stream that it could not send to the end to the garbage collector.
                with suppress(RuntimeError):  # it is still running it, and about to cancel it
                    await data.aclose()


async def _answer(
    session: aiohttp.ClientSession,
    template: RequestTemplate,
    data: bytes | AsyncIterator[bytes] | None,
    timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109  in place of the session's
) -> HttpResponse:
    """Send a request and read its answer. Raises TransportError if it is larger than LARGEST_ANSWER."""
    response = await session.request(
        template.method,
        template.address,
        data=data,
        headers=template.headers,
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
        raise _too_large(template.url)
    return HttpResponse(response.status, response.headers, body)
