"""The HTTP transport of calls that are not hot: single calls, component tokens, token servers, robots.

It sends what `transport.Transport` sends, on httpx and by the same rules. httpx's client would write whole URLs, tokens
included, to its log and its exceptions, and keep cookies: its transports, which are used here, do neither.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Self

import h11
import httpx

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.system_errors import exhausted
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.transport import (
    HEADERS,
    LARGEST_ANSWER,
    STANDARD,
    HttpRequest,
    Timeouts,
    proxy_for,
    tls_context,
    too_large,
)

# Its debug messages quote what a server sent instead of an answer, which may be the token.
logging.getLogger("httpcore").setLevel(logging.WARNING)

_ERRORS = (httpx.TransportError, httpx.InvalidURL, OSError, ValueError)


def single_call_error(error: BaseException, host: str, *, answering: bool) -> TransportError:
    """Return the error to raise for a library's, outside any `except`: a chained one would contain the token.

    ==============================================  ===========
    refused, no route, unknown host, TLS, proxy     unreachable
    no connection within the connect timeout        unreachable
    silence, or the outer deadline                  timeout
    not HTTP, a head over the limits, a bad URL     garbage
    any other: reset or closed before or within     reset
    ==============================================  ===========

    `answering`: the response's head has arrived.
    """
    causes = set(map(type, _causes(error)))
    fault, code = TransportFault.RESET, DetailCode.BROKEN
    if isinstance(error, httpx.ConnectTimeout):
        fault, code = TransportFault.UNREACHABLE, DetailCode.SLOW_CONNECT
    elif isinstance(error, httpx.ProxyError):
        fault, code = TransportFault.UNREACHABLE, DetailCode.PROXY
    elif isinstance(error, httpx.ConnectError):
        fault = TransportFault.UNREACHABLE
        code = DetailCode.NO_CONNECTION
        if socket.gaierror in causes:
            code = DetailCode.NO_SUCH_HOST
        elif any(issubclass(cause, ssl.SSLError) for cause in causes):
            code = DetailCode.NO_TLS
    elif isinstance(error, httpx.TimeoutException | TimeoutError):
        fault, code = TransportFault.TIMEOUT, DetailCode.SILENT
    elif isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL | ValueError):
        fault, code = TransportFault.GARBAGE, DetailCode.BAD_ADDRESS
    elif h11.RemoteProtocolError in causes and not answering:
        fault, code = TransportFault.GARBAGE, DetailCode.NOT_HTTP
    return TransportError(fault, detail(code, host=host))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class SingleTransport:
    """Sends HTTP requests and reads their responses. Create and close it inside the running loop.

    Args:
        connections: maximum requests in flight; further ones wait for a connection while their deadline runs.
        timeouts: see Timeouts.

    """

    def __init__(self, *, connections: int, timeouts: Timeouts = STANDARD) -> None:
        self._timeouts = timeouts
        self._limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._tls = tls_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        self._proxies = urllib.request.getproxies_environment()
        self._transports: dict[str | None, httpx.AsyncHTTPTransport] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in self._transports.values():
            await transport.aclose()
        self._transports.clear()

    def _transport(self, request: HttpRequest) -> httpx.AsyncHTTPTransport:
        proxy = proxy_for(request.address, self._proxies)
        if proxy not in self._transports:
            self._transports[proxy] = httpx.AsyncHTTPTransport(
                verify=self._tls, trust_env=False, limits=self._limits, proxy=proxy
            )
        return self._transports[proxy]

    async def send(self, request: HttpRequest, body: bytes = b"") -> HttpResponse:
        """Send a request and return the response, of any status, redirects included.

        Raises:
            TransportError: no usable response. Contains host and port, and no chained cause.
            ResourceLimitError: this machine cannot open another connection.

        """
        timeouts, answering = self._timeouts, False
        timeout = httpx.Timeout(timeouts.answer, connect=timeouts.connect, pool=None)
        try:
            sent = httpx.Request(
                request.method,
                str(request.address),
                headers=[*HEADERS.items(), *request.headers],
                content=body,
                extensions={"timeout": timeout.as_dict()},
            )
            async with asyncio.timeout(timeouts.deadline(len(body))):
                response = await self._transport(request).handle_async_request(sent)
                answering = True
                received = b""
                try:
                    async for chunk in response.stream:  # type: ignore[union-attr]  # of httpx's own asynchronous transport
                        received += chunk
                        if len(received) > LARGEST_ANSWER:
                            break
                finally:
                    await response.aclose()
        except _ERRORS as error:
            failed = exhausted(error) or single_call_error(error, request.host, answering=answering)
        else:
            if len(received) <= LARGEST_ANSWER:
                return HttpResponse(response.status_code, response.headers, received)
            failed = too_large(request.host)
        raise failed
