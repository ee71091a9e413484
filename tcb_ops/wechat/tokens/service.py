"""`source = "service"`: the company's own token server, which refreshes tokens and is only asked for them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

import httpx

from tcb_ops.errors import SettingsError, TokenError, TokenSourceError, TransportError, TransportFault
from tcb_ops.i18n import Text
from tcb_ops.model import Secret
from tcb_ops.settings import TokenSettings
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.tokens.token import Token, read_token, token_fingerprint
from tcb_ops.wechat.transport import Timeouts, Transport

AT_ONCE = 64
"""Questions on their way at once; the others wait before their time runs."""
TIMEOUTS = Timeouts(connect=4, answer=6)
RETRY_WAIT = 1.0
LARGEST_ANSWER = 64 * 1024
REFUSED_HEADER = "X-Tcb-Refused"


class ServiceTokens:
    """Asks `GET URL` for one appid's token.

    Args:
        url: with `{appid}` where the appid goes; https, but on loopback.
        headers: what the server wants to see, its secret included.
        timeouts: of one question, which is asked twice at most.
        retry_wait: seconds between the two.
        clock: Unix seconds.

    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, Secret],
        *,
        timeouts: Timeouts = TIMEOUTS,
        retry_wait: float = RETRY_WAIT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url, self._headers = url, dict(headers)
        self._timeouts, self._retry_wait, self._clock = timeouts, retry_wait, clock
        self._host = urlsplit(url).netloc
        self._transport: Transport | None = None
        self._room = asyncio.Semaphore(AT_ONCE)

    @classmethod
    def of(cls, settings: TokenSettings) -> ServiceTokens:
        """Make it as the settings say. Raises SettingsError for what is missing, naming it."""
        if not settings.url:
            raise SettingsError(
                Text(
                    'tokens.url is missing: give the token server\'s, e.g. "https://tokens.example.com/{appid}".',
                    '缺少 tokens.url：请写上令牌服务的地址，例如 "https://tokens.example.com/{appid}"。',
                )
            )
        headers = {}
        if settings.auth_env:
            value = os.environ.get(settings.auth_env, "").strip()
            if not value or not value.isascii() or not value.isprintable():
                raise SettingsError(
                    Text(
                        f"the environment variable {settings.auth_env} (tokens.auth_env) is not set, or is no header's value: "
                        f"it holds what the token server wants to see in {settings.auth_header}.",
                        f"环境变量 {settings.auth_env}（tokens.auth_env）未设置，或不能用作请求头："
                        f"它应是令牌服务要求的 {settings.auth_header} 的值。",
                    )
                )
            headers[settings.auth_header] = Secret(value)
        return cls(settings.url, headers)

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Ask the server, once more where that may help."""
        async with self._room:
            response = await self._ask(appid, refused)
            if isinstance(response, TransportError) or _may_pass(response.status):
                await asyncio.sleep(self._retry_wait)
                response = await self._ask(appid, refused)
        if not isinstance(response, TransportError):
            return read_service_response(response, appid, self._host, self._clock())
        why = response.text
        if response.fault is TransportFault.UNREACHABLE:
            raise TokenSourceError(
                Text(
                    f"the token server {self._host} cannot be reached. {why.en}",
                    f"无法连接令牌服务 {self._host}。{why.zh}",
                ),
                transient=True,
            )
        raise TokenError.of(
            appid,
            lambda appid: Text(
                f"the token server {self._host} gave no answer for {appid}. {why.en}",
                f"令牌服务 {self._host} 没有给出 {appid} 的应答。{why.zh}",
            ),
            transient=True,
        )

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
            return await self._transport.send(httpx.Request("GET", url, headers=headers))
        except TransportError as error:
            return error


def _may_pass(status: int) -> bool:
    return status >= 500 or status in {408, 429}


def read_service_response(response: HttpResponse, appid: str, host: str, now: float) -> Token:
    """Return the token that an answer of the token server holds.

    =======================================  =======================================
    answer                                   result
    =======================================  =======================================
    2xx, JSON with an access_token           the token
    2xx, anything else, or more than 64 KB   TokenError
    401, 403                                 TokenSourceError
    404                                      TokenError
    3xx, which is not followed               TokenError
    5xx, 408, 429, on both tries             TokenError, transient
    any other status                         TokenError
    =======================================  =======================================
    """
    status = response.status
    if status in {401, 403}:
        raise TokenSourceError(
            Text(
                f"the token server {host} rejected the credentials (HTTP {status}): check the environment variable that "
                "tokens.auth_env names, and tokens.auth_header.",
                f"令牌服务 {host} 拒绝访问（HTTP {status}）：请检查 tokens.auth_env 所指的环境变量和 tokens.auth_header。",
            )
        )
    if 200 <= status < 300:
        read = Text("more than 64 KB", "超过 64 KB 的内容")
        if len(response.body) <= LARGEST_ANSWER:
            found = read_token(response.body, now)
            if isinstance(found, Token):
                return found
            read = found
        why = Text(
            f"answered with {read.en}: it should be JSON with access_token and expires_in",
            f"返回了{read.zh}：应为含 access_token 和 expires_in 的 JSON",
        )
    elif status == 404:
        why = Text("does not know it (HTTP 404): add it there", "没有这个商户（HTTP 404）：请在那里添加")
    elif 300 <= status < 400:
        why = Text(
            f"answered with a redirect (HTTP {status}), which is not followed: put the final address into tokens.url",
            f"返回了重定向（HTTP {status}），不会跟随：请在 tokens.url 中填写最终地址",
        )
    else:
        why = Text(f"answered HTTP {status}: see its own log", f"返回 HTTP {status}：请查看它的日志")
    raise TokenError.of(
        appid,
        lambda appid: Text(
            f"no token for {appid}: the token server {host} {why.en}.",
            f"没有 {appid} 的令牌：令牌服务 {host} {why.zh}。",
        ),
        transient=_may_pass(status),
    )
