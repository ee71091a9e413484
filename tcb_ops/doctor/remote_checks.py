"""Checks of what answers over the network: the target, its clock, the token source, and calls from this address."""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import urlsplit

from tcb_ops.doctor import CheckResult, Grade, from_error, skipped
from tcb_ops.errors import OutageError, TcbOpsError, TokenError, TransportError, TransportFault
from tcb_ops.i18n import Text
from tcb_ops.merchants.check import ask
from tcb_ops.merchants.status import Issue
from tcb_ops.model import Merchant, Owner, is_loopback
from tcb_ops.runs.loop import hand_over
from tcb_ops.runs.stop_errors import NO_COMPONENT
from tcb_ops.settings import Settings
from tcb_ops.wechat.call_policy import Caller, CallLimits
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import HttpResponse, InvalidResponse, read_response
from tcb_ops.wechat.tokens import Token, TokenSource, open_source
from tcb_ops.wechat.transport import Timeouts, Transport

QUICK = Timeouts(connect=4, answer=4)
"""Somebody watches."""
TOKEN_SECONDS = 8.0
"""What the token source may take, and then the call with its token."""
TRIED = 3
"""Merchants that are tried where the first ones have no token."""
SKEWED, WRONG = 60, 300
"""Seconds of difference that warn, and that are bad: links live some 15 minutes (domain.md §1.1)."""
_CERTIFICATES = Text(
    "Check the files that SSL_CERT_FILE and SSL_CERT_DIR name.",
    "请检查 SSL_CERT_FILE 和 SSL_CERT_DIR 指定的文件。",
)


def check_target(settings: Settings) -> list[CheckResult]:
    """Call the target without a token, which costs nothing, and compare its clock with ours. Blocks."""
    target = urlsplit(settings.api_base)
    host = target.hostname or ""
    proxied = (
        target.scheme in urllib.request.getproxies_environment()
        and not is_loopback(host)
        and not urllib.request.proxy_bypass(host)
    )
    unknown = None if proxied else _unknown_host(host, target.port or 443)
    if unknown is not None:
        return [unknown]
    try:
        began_at, seconds, response = hand_over(_reach(settings)).result()
    except TransportError as error:
        return [from_error("target", error)]
    except OSError as error:  # ssl says which file it could not read, but not its name
        cause = error.strerror or type(error).__name__
        seen = Text(f"TLS cannot be set up: {cause}", f"无法准备 TLS：{cause}")
        return [CheckResult("target", Grade.BAD, seen, _CERTIFICATES)]
    found = read_response(response, ())
    if isinstance(found, InvalidResponse):
        why = Text(f"{settings.api_base}: {found.why.en}", f"{settings.api_base}：{found.why.zh}")
        return [from_error("target", TransportError(TransportFault.GARBAGE, why))]
    via = (", through the proxy of the environment", "，经由环境变量中的代理") if proxied else ("", "")
    seen = Text(
        f"{settings.api_base} answers as the platform does in {seconds * 1000:.0f} ms{via[0]}",
        f"{settings.api_base} 应答正常，用时 {seconds * 1000:.0f} 毫秒{via[1]}",
    )
    offset = clock_offset(response.headers.get("date", ""), began_at, seconds)
    return [CheckResult("target", Grade.OK, seen), check_clock(offset)]


def _unknown_host(host: str, port: int) -> CheckResult | None:
    """What is wrong with a host name. Asked here, since a thread that waits for a name server is left behind at the end."""
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        seen = Text(f"the host name {host} is not known", f"无法解析主机名 {host}")
        fix = Text(
            "Check api_base for a typing mistake, then this machine's DNS and network.",
            "请检查 api_base 是否有误，再检查本机的 DNS 和网络。",
        )
        return CheckResult("target", Grade.BAD, seen, fix)
    return None


async def _reach(settings: Settings) -> tuple[float, float, HttpResponse]:
    """Return when the call began (Unix seconds), the seconds that it took, and its answer."""
    async with Transport(connections=1, timeouts=QUICK) as transport:
        client = PlatformClient(transport, settings.api_base)
        began_at, began = time.time(), time.perf_counter()
        response = await client.probe()
        return began_at, time.perf_counter() - began, response


def clock_offset(date: str, began_at: float, seconds: float) -> float | None:
    """Return the seconds that the target's clock is ahead of ours; None where its answer has no usable Date.

    A Date has whole seconds, cut off; it was written about the middle of the exchange.
    """
    with suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(date).timestamp() + 0.5 - (began_at + seconds / 2)
    return None


def check_clock(offset: float | None) -> CheckResult:
    """Compare this machine's clock with the target's; `offset` is in seconds."""
    if offset is None:
        return skipped("clock", "the target's answer has no Date", "目标的应答中没有 Date")
    apart = abs(offset)
    if apart < 1.5:
        return CheckResult(
            "clock", Grade.OK, Text("as the target's, within a second or so", "与目标一致，相差约一秒之内")
        )
    seen = Text(
        f"this machine is {apart:,.0f} s {'behind' if offset > 0 else 'ahead of'} the target",
        f"本机比目标{'慢' if offset > 0 else '快'} {apart:,.0f} 秒",
    )
    if apart <= SKEWED:
        return CheckResult("clock", Grade.OK, seen)
    fix = Text(
        "Set the clock by a time server (chrony, systemd-timesyncd): tokens and links have ends, and links live some 15 minutes.",
        "请通过时间服务器校准时钟（chrony、systemd-timesyncd）：令牌和链接都有到期时间，链接约 15 分钟过期。",
    )
    return CheckResult("clock", Grade.WARNING if apart <= WRONG else Grade.BAD, seen, fix)


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """Whose token is tried."""

    appid: str
    name: str
    owner: Owner

    @property
    def label(self) -> str:
        """Name and appid, for people."""
        return f"{self.name} ({self.appid})" if self.name else self.appid


def first_token_owners(merchants: Sequence[Merchant], component_appid: str) -> list[TokenOwner]:
    """Return whose tokens are tried: the first merchants' that have not left, else the platform's own."""
    there = [m for m in merchants if not m.left]
    own = {m.appid: m.name for m in reversed(there) if m.owner is Owner.MERCHANT}
    appids = list(dict.fromkeys(m.appid for m in there if m.owner is Owner.MERCHANT))
    if appids:
        return [TokenOwner(appid, own[appid], Owner.MERCHANT) for appid in appids[:TRIED]]
    return [TokenOwner(component_appid, "component", Owner.PLATFORM)] if there else []


def check_tokens(
    settings: Settings, owners: Sequence[TokenOwner], *, reached: bool, seconds: float = TOKEN_SECONDS
) -> list[CheckResult]:
    """Check that the token source gives a token, and that the target takes it from this machine. Blocks.

    The first owner that has a token is tried. The call is openapi/quota/get: a read, which shows 61004 where this
    machine's address is not on the list. `seconds` is how long the source may take, and then the call.
    """
    unreached = skipped("address", "the target is not reached", "无法连接目标")
    if settings.tokens.source == "component" and not reached:
        why = ("the target is not reached, which gives them", "无法连接给出令牌的目标")
        return [skipped("tokens", *why), unreached]
    results = hand_over(_try(settings, open_source(settings), owners, seconds, reached=reached)).result()
    return results if reached else [*results, unreached]


async def _try(
    settings: Settings, source: TokenSource, owners: Sequence[TokenOwner], seconds: float, *, reached: bool
) -> list[CheckResult]:
    try:
        if not owners:
            return [skipped("tokens", "no merchant to ask a token for", "没有可用来取令牌的商户")]
        if not owners[0].appid:
            return [from_error("tokens", TokenError(NO_COMPONENT))]
        try:
            async with asyncio.timeout(seconds):
                owner, found = await _first_token(settings, source, owners)
        except TimeoutError:
            kind = settings.tokens.source
            slow = Text(
                f"the source ({kind}) gave no token within {seconds:.0f} s",
                f"令牌来源（{kind}）在 {seconds:.0f} 秒内没有给出令牌",
            )
            fix = Text(
                "Check whether it works by itself, and why it is slow.",
                "请单独检查它是否可用，以及为何缓慢。",
            )
            return [CheckResult("tokens", Grade.BAD, slow, fix)]
        except TcbOpsError as error:
            return [from_error("tokens", error)]
        if owner is None or not reached:
            return [found]
        try:
            async with asyncio.timeout(seconds):
                return [found, await _call(settings, source, owner)]
        except (TcbOpsError, TimeoutError) as error:
            if isinstance(error, TcbOpsError):  # 61004, and what else concerns everybody
                return [found, from_error("address", error)]
            slow = Text(
                f"no answer for {owner.label} within {seconds:.0f} s",
                f"{seconds:.0f} 秒内没有得到 {owner.label} 的应答",
            )
            return [found, from_error("address", OutageError(slow))]
    finally:
        await source.aclose()


async def _first_token(
    settings: Settings, source: TokenSource, owners: Sequence[TokenOwner]
) -> tuple[TokenOwner | None, CheckResult]:
    """Return the first owner with a token. Those before it lack theirs: a warning, since a run would skip their rows."""
    lacking: list[TokenError] = []
    for owner in owners:
        try:
            token = await source.token(owner.appid)
        except TokenError as error:
            lacking.append(error)
            continue
        if lacking:
            return owner, replace(from_error("tokens", lacking[0]), grade=Grade.WARNING)
        return owner, _describe_token(settings.tokens.source, token, owner.label, time.time())
    return None, from_error("tokens", lacking[0])


def _describe_token(source: str, token: Token, owner: str, now: float) -> CheckResult:
    seen = Text(f"{source}: has a token for {owner}", f"{source}：有 {owner} 的令牌")
    if token.expires_at is None:
        return CheckResult("tokens", Grade.OK, seen)
    left = token.expires_at - now
    if left > 0:
        minutes = f"{left / 60:,.0f}"
        seen = Text(f"{seen.en}, good for {minutes} more min", f"{seen.zh}，还有 {minutes} 分钟到期")
        return CheckResult("tokens", Grade.OK, seen)
    seen = Text(f"{source}: the token for {owner} has run out", f"{source}：{owner} 的令牌已过期")
    fix = Text("Check the program that refreshes it.", "请检查负责刷新它的程序。")
    return CheckResult("tokens", Grade.WARNING, seen, fix)


async def _call(settings: Settings, source: TokenSource, owner: TokenOwner) -> CheckResult:
    async with Transport(connections=1, timeouts=QUICK) as transport:
        client = PlatformClient(transport, settings.api_base)
        caller = Caller(source, CallLimits(attempts=1))
        found = await ask(caller, owner.appid, partial(client.quota, owner=owner.owner), owner.owner)
    if not isinstance(found, Issue):
        seen = Text(
            f"calls from this machine are accepted (asked for the quota of {owner.label})",
            f"平台接受本机发出的调用（已查询 {owner.label} 的配额）",
        )
        return CheckResult("address", Grade.OK, seen)
    if found.errcode is None:
        return CheckResult("address", Grade.BAD, found.meaning, found.action)
    seen = Text(
        f"calls from this machine are accepted, but {owner.label} is refused: errcode {found.code} {found.meaning.en}",
        f"平台接受本机发出的调用，但 {owner.label} 被拒绝：errcode {found.code} {found.meaning.zh}",
    )
    fix = Text(
        f"{found.action.en} `tcb-ops merchants check` checks every merchant.",
        f"{found.action.zh}`tcb-ops merchants check` 可检查所有商户。",
    )
    return CheckResult("address", Grade.WARNING, seen, fix)
