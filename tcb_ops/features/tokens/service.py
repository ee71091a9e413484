"""`source = "service"`: the company's token server, which refreshes the tokens and returns them on request."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

from tcb_ops.details import detail
from tcb_ops.errors import SettingsError, TokenError, TokenSourceError, TransportError, TransportFault
from tcb_ops.features.tokens import TokenCode
from tcb_ops.features.tokens.answers import read_token, token_fingerprint
from tcb_ops.i18n import Text, _
from tcb_ops.model import Secret
from tcb_ops.settings import Settings
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.tokens import Token
from tcb_ops.wechat.transport import HttpRequest, Timeouts, Transport

AT_ONCE = 64
"""Maximum requests at once; the timeout of the others starts later."""
TIMEOUTS = Timeouts(connect=4, answer=6)
LARGEST_ANSWER = 64 * 1024
REFUSED_HEADER = "X-Tcb-Refused"


def service_tokens(settings: Settings) -> ServiceTokens:
    """Return the token source of the settings. Raises SettingsError that names a missing one."""
    tokens = settings.tokens
    if not tokens.url:
        text = _(
            "tokens.url is missing: set it to the address of the token server, e.g. "
            '"https://tokens.example.com/{{appid}}".'
        )
        raise SettingsError(text)
    headers = {}
    if tokens.auth_env:
        value = os.environ.get(tokens.auth_env, "").strip()
        if not value or not value.isascii() or not value.isprintable():
            text = _(
                "the environment variable {auth_env} (tokens.auth_env) is not set, or is not a valid "
                "header value: it must contain the value that the token server expects in {auth_header}."
            )
            raise SettingsError(text.format(auth_env=tokens.auth_env, auth_header=tokens.auth_header))
        headers[tokens.auth_header] = Secret(value)
    return ServiceTokens(tokens.url, headers)


class ServiceTokens:
    """The token source for `source = "service"`: requests an appid's token by `GET URL`.

    Args:
        url: with `{appid}` as the placeholder; https, except on loopback.
        headers: sent with each request, including the server's secret.
        timeouts: of one request.
        clock: returns Unix seconds.

    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, Secret],
        *,
        timeouts: Timeouts = TIMEOUTS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url, self._headers = url, dict(headers)
        self._timeouts, self._clock = timeouts, clock
        self._host = urlsplit(url).netloc
        self._transport: Transport | None = None
        self._room = asyncio.Semaphore(AT_ONCE)

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Request the token; the caller decides whether to try again."""
        async with self._room:
            response = await self._ask(appid, refused)
        if not isinstance(response, TransportError):
            return read_service_response(response, appid, self._host, self._clock())
        if response.fault is TransportFault.UNREACHABLE:
            away = detail(TokenCode.SERVICE_AWAY, host=self._host, why=response.text)
            raise TokenSourceError(away, transient=True)
        silent = detail(TokenCode.SERVICE_SILENT, host=self._host, why=response.text)
        raise TokenError.of(appid, silent, transient=True)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    async def _ask(self, appid: str, refused: Secret | None) -> HttpResponse | TransportError:
        if self._transport is None:
            self._transport = Transport(connections=AT_ONCE, timeouts=self._timeouts)
        headers = {"Accept": "application/json"} | {n: v.reveal() for n, v in self._headers.items()}
        if refused is not None:
            headers[REFUSED_HEADER] = token_fingerprint(refused)
        url = self._url.replace("{appid}", quote(appid, safe=""))
        try:
            return await self._transport.send(HttpRequest("GET", url, headers))
        except TransportError as error:
            return error


def read_service_response(response: HttpResponse, appid: str, host: str, now: float) -> Token:
    """Return the token in a response of the token server.

    =======================================  =======================================
    answer                                   result
    =======================================  =======================================
    2xx, JSON with an access_token           the token
    2xx, anything else, or more than 64 KB   TokenError
    401, 403                                 TokenSourceError
    404                                      TokenError
    3xx, which is not followed               TokenError
    5xx, 408, 429                            TokenError, transient
    any other status                         TokenError
    =======================================  =======================================
    """
    status = response.status
    if status in {401, 403}:
        raise TokenSourceError(detail(TokenCode.SERVICE_CREDENTIALS, host=host, status=status))
    if 200 <= status < 300:
        read: Text = detail(TokenCode.TOO_MUCH)
        if len(response.body) <= LARGEST_ANSWER:
            token = read_token(response.body, now)
            if isinstance(token, Token):
                return token
            read = token
        reason = detail(TokenCode.ANSWERED_WITH, read=read)
    elif status == 404:
        reason = detail(TokenCode.ANSWERED_404)
    elif 300 <= status < 400:
        reason = detail(TokenCode.ANSWERED_REDIRECT, status=status)
    else:
        reason = detail(TokenCode.ANSWERED_STATUS, status=status)
    may_pass = status >= 500 or status in {408, 429}
    raise TokenError.of(appid, detail(TokenCode.SERVICE_NO_TOKEN, host=host, why=reason), transient=may_pass)
