"""Which transport fault an error of aiohttp, httpx or the system is, and its message.

Pure: the transport catches, this decides. The messages hold host and port and nothing else of the request, since
the access token is in the query and the libraries put whole URLs into their own texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.i18n import Text


@dataclass(frozen=True, slots=True)
class TransportFailure:
    """One way a request fails, and its message; `{where}` is host and port."""

    fault: TransportFault
    en: str
    zh: str

    def error(self, where: str) -> TransportError:
        """The error to raise, outside any `except`: a chained library error would show the token."""
        return TransportError(
            self.fault, Text(en=self.en.format(where=where), zh=self.zh.format(where=where))
        )


_NO_CONNECTION = TransportFailure(
    TransportFault.UNREACHABLE,
    "No connection to {where}: check the address, the network and the firewall.",
    "无法连接 {where}：请检查地址、网络和防火墙。",
)
_NO_SUCH_HOST = TransportFailure(
    TransportFault.UNREACHABLE,
    "The host name of {where} is not known: check the address and the DNS.",
    "无法解析 {where} 的主机名：请检查地址和 DNS。",
)
_SLOW_CONNECT = TransportFailure(
    TransportFault.UNREACHABLE,
    "{where} did not take the connection in time: check the network and the firewall.",
    "{where} 未在规定时间内接受连接：请检查网络和防火墙。",
)
_NO_TLS = TransportFailure(
    TransportFault.UNREACHABLE,
    "No secure connection to {where}: its certificate or its TLS was not accepted. If a company proxy re-signs "
    "traffic, set SSL_CERT_FILE to its certificates.",
    "无法与 {where} 建立安全连接：证书或 TLS 协议未被接受。若公司代理会替换证书，请用 SSL_CERT_FILE 指定其证书。",
)
_PROXY = TransportFailure(
    TransportFault.UNREACHABLE,
    "The proxy did not connect to {where}: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
    "代理未能连接 {where}：请检查 HTTPS_PROXY、HTTP_PROXY 和 NO_PROXY。",
)
_SILENT = TransportFailure(
    TransportFault.TIMEOUT,
    "{where} did not take the request or did not answer in time; trying again later may help.",
    "{where} 未在规定时间内接收请求或给出应答，可稍后重试。",
)
BROKEN = TransportFailure(
    TransportFault.RESET,
    "The connection to {where} broke before the whole answer was there; trying again may help.",
    "与 {where} 的连接在收到完整应答之前中断，可重试。",
)
_NOT_HTTP = TransportFailure(
    TransportFault.GARBAGE,
    "{where} answered with something that is not HTTP, or with a head that is too long: check the address.",
    "{where} 返回的内容不是 HTTP，或应答头过长：请检查地址。",
)
TOO_LARGE = TransportFailure(
    TransportFault.TOO_LARGE,
    "{where} answered with more than 1 MiB, which none of its answers needs: check the address.",
    "{where} 返回的内容超过 1 MiB，正常应答不会这么大：请检查地址。",
)
_BAD_ADDRESS = TransportFailure(
    TransportFault.GARBAGE,
    "The address at {where} cannot be sent as it stands (control characters, or not an http address).",
    "{where} 的地址无法原样发送（含控制字符，或不是 http 地址）。",
)

_FAILURES: Mapping[str, TransportFailure] = {
    # aiohttp's public exceptions, every one
    "ClientConnectorError": _NO_CONNECTION,
    "ClientConnectorDNSError": _NO_SUCH_HOST,
    "ConnectionTimeoutError": _SLOW_CONNECT,
    "ClientSSLError": _NO_TLS,
    "ClientConnectorSSLError": _NO_TLS,
    "ClientConnectorCertificateError": _NO_TLS,
    "ServerFingerprintMismatch": _NO_TLS,
    "ClientProxyConnectionError": _PROXY,
    "ClientHttpProxyError": _PROXY,
    "ServerTimeoutError": _SILENT,
    "SocketTimeoutError": _SILENT,
    "ClientError": BROKEN,
    "ClientConnectionError": BROKEN,
    "ClientConnectionResetError": BROKEN,
    "ClientOSError": BROKEN,
    "ServerConnectionError": BROKEN,
    "ServerDisconnectedError": BROKEN,
    "ClientPayloadError": BROKEN,
    "UploadAbortedError": BROKEN,
    "ClientResponseError": _NOT_HTTP,
    "ContentTypeError": _NOT_HTTP,
    "TooManyRedirects": _NOT_HTTP,
    "RedirectClientError": _NOT_HTTP,
    "InvalidUrlRedirectClientError": _NOT_HTTP,
    "NonHttpUrlRedirectClientError": _NOT_HTTP,
    "WSServerHandshakeError": _NOT_HTTP,
    "InvalidURL": _BAD_ADDRESS,
    "InvalidUrlClientError": _BAD_ADDRESS,
    "NonHttpUrlClientError": _BAD_ADDRESS,
    # aiohttp's parser, before aiohttp has wrapped it
    "HttpProcessingError": _NOT_HTTP,
    # httpx's, where no error of aiohttp's stands behind them
    "HTTPError": BROKEN,
    "TimeoutException": _SILENT,
    "ConnectTimeout": _SLOW_CONNECT,
    "ConnectError": _NO_CONNECTION,
    "ProxyError": _PROXY,
    "ProtocolError": _NOT_HTTP,
    "UnsupportedProtocol": _BAD_ADDRESS,
    # Python's own
    "TimeoutError": _SILENT,
    "OSError": BROKEN,
    "ValueError": _BAD_ADDRESS,
}
"""By class name, since the oldest aiohttp that is allowed lacks some of these classes."""


def transport_failure(error: BaseException) -> TransportFailure | None:
    """Return which failure a library's error is, from its own class or the nearest base; None for any other error.

    ==============================================  ===========
    refused, no route, unknown host, TLS, proxy     unreachable
    no connection within the connect timeout        unreachable
    silence, or the outer deadline                  timeout
    reset or closed before or within the answer     reset
    not HTTP, a head over the limits, a bad URL     garbage
    ==============================================  ===========

    httpx-aiohttp maps aiohttp's errors onto httpx's and loses the difference between refused and reset, so the
    cause decides where there is one.
    """
    if isinstance(error, httpx.HTTPError) and error.__cause__ is not None:
        error = error.__cause__
    return next((_FAILURES[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in _FAILURES), None)
