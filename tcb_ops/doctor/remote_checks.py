"""The target: reached, and by a clock like ours."""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from tcb_ops.doctor.check_result import CheckResult, Grade, of_error, skipped
from tcb_ops.errors import OutageError, PlatformStopError, TcbOpsError, TokenError, TransportError
from tcb_ops.i18n import Text
from tcb_ops.merchants.check import ask
from tcb_ops.merchants.status import Issue
from tcb_ops.model import Merchant, Owner, is_loopback
from tcb_ops.runs.loop import hand_over
from tcb_ops.runs.stop_errors import NO_COMPONENT
from tcb_ops.settings import Settings
from tcb_ops.wechat.call_policy import Caller, CallLimits
from tcb_ops.wechat.client import COMPONENT_UPLOADS, UPLOADS, PlatformClient
from tcb_ops.wechat.responses import InvalidResponse
from tcb_ops.wechat.tokens import Token, TokenSource, open_source
from tcb_ops.wechat.transport import Exchange, RecordingTransport, Timeouts, Transport

QUICK = Timeouts(connect=4, answer=4)
"""Somebody watches."""
SKEWED, WRONG = 60, 300
"""Seconds of difference that warn, and that are bad: links live some 15 minutes (domain.md §1.1)."""


def look_at_target(settings: Settings) -> list[CheckResult]:
    """Ask the target without a token, which costs nothing, and read its clock off the answer. Blocks."""
    target = urlsplit(settings.api_base)
    host = target.hostname or ""
    proxied = (
        target.scheme in urllib.request.getproxies_environment()
        and not is_loopback(host)
        and not urllib.request.proxy_bypass(host)
    )
    if not proxied:
        trouble = _unknown(host, target.port or 443)
        if trouble is not None:
            return [trouble]
    try:
        exchange, grade, said = hand_over(_reach(settings)).result()
    except OSError as error:  # ssl says which file it could not read, but not its name
        why = error.strerror or type(error).__name__
        return [
            CheckResult(
                "target",
                Grade.BAD,
                Text(f"TLS cannot be set up: {why}", f"无法准备 TLS：{why}"),
                _CERTIFICATES,
            )
        ]
    if exchange is None or grade is Grade.BAD:
        return [
            of_error("target", Text(f"{settings.api_base}: {said.en}", f"{settings.api_base}：{said.zh}"))
        ]
    via = (", through the proxy of the environment", "，经由环境变量中的代理") if proxied else ("", "")
    seen = Text(
        f"{settings.api_base} {said.en} in {exchange.seconds * 1000:.0f} ms{via[0]}",
        f"{settings.api_base} {said.zh}，用时 {exchange.seconds * 1000:.0f} 毫秒{via[1]}",
    )
    return [CheckResult("target", Grade.OK, seen), clock(offset_of(exchange))]


def _unknown(host: str, port: int) -> CheckResult | None:
    """What is wrong with a host name. Asked here, since a thread that waits for a name server is left behind at the end."""
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        seen = Text(f"the host name {host} is not known", f"无法解析主机名 {host}")
        mend = Text(
            "Check api_base for a typing mistake, then this machine's DNS and network.",
            "请检查 api_base 是否有误，再检查本机的 DNS 和网络。",
        )
        return CheckResult("target", Grade.BAD, seen, mend)
    return None


async def _reach(settings: Settings) -> tuple[Exchange | None, Grade, Text]:
    async with RecordingTransport(connections=1, timeouts=QUICK) as transport:
        client = PlatformClient(transport, settings.api_base)
        try:
            said = await client.call("tcb/getenvinfo", {})
        except TransportError as error:
            return None, Grade.BAD, error.text
        if isinstance(said, InvalidResponse):
            return transport.exchanges[0], Grade.BAD, said.why
        return transport.exchanges[0], Grade.OK, Text("answers as the platform does", "应答正常")


def offset_of(exchange: Exchange) -> float | None:
    """Seconds that the target's clock is ahead of ours; None where its answer has no Date.

    A Date has whole seconds, cut off; it was written about the middle of the exchange.
    """
    named = {name.lower(): value for name, value in exchange.headers}.get("date", "")
    with suppress(ValueError, TypeError, OverflowError):
        there = parsedate_to_datetime(named).timestamp() + 0.5
        return there - (exchange.began_at + exchange.seconds / 2)
    return None


def clock(offset: float | None) -> CheckResult:
    """How this machine's clock stands to the target's.

    ======================  ========
    seconds apart           grade
    ======================  ========
    not known               skipped
    up to 60                ok
    up to 300               warning
    more                    bad
    ======================  ========
    """
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
    mend = Text(
        "Set the clock by a time server (chrony, systemd-timesyncd): tokens and links have ends, and links live some 15 minutes.",
        "请通过时间服务器校准时钟（chrony、systemd-timesyncd）：令牌和链接都有到期时间，链接约 15 分钟过期。",
    )
    return CheckResult("clock", Grade.WARNING if apart <= WRONG else Grade.BAD, seen, mend)


_CERTIFICATES = Text(
    "Check the files that SSL_CERT_FILE and SSL_CERT_DIR name.",
    "请检查 SSL_CERT_FILE 和 SSL_CERT_DIR 指定的文件。",
)


TOKEN_TAKES = 8.0
"""Seconds that the token source may take, and then the call with its token."""
TRIED = 3
"""Merchants that are tried where the first ones have no token."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whose token is tried."""

    appid: str
    name: str
    owner: Owner

    @property
    def who(self) -> str:
        """Name and appid, for people."""
        return f"{self.name} ({self.appid})" if self.name else self.appid

    @property
    def uploads(self) -> str:
        """The upload link's interface as openapi/quota/get wants it."""
        return UPLOADS if self.owner is Owner.MERCHANT else COMPONENT_UPLOADS


def first_accounts(merchants: Sequence[Merchant], component_appid: str) -> list[Account]:
    """The accounts whose tokens are tried: the first merchants' that have not left, else the platform's own."""
    there = [m for m in merchants if not m.left]
    own = {m.appid: m.name for m in reversed(there) if m.owner is Owner.MERCHANT}
    appids = dict.fromkeys(m.appid for m in there if m.owner is Owner.MERCHANT)
    if appids:
        return [Account(appid, own[appid], Owner.MERCHANT) for appid in list(appids)[:TRIED]]
    return [Account(component_appid, "component", Owner.PLATFORM)] if there else []


def look_at_tokens(
    settings: Settings, accounts: Sequence[Account], *, reached: bool, seconds: float = TOKEN_TAKES
) -> list[CheckResult]:
    """Whether the token source gives a token, and the target takes it from this machine. Blocks.

    The first account that has a token is tried. The call is openapi/quota/get: a read, which shows 61004 where this
    machine's address is not on the list. `seconds` is how long the source may take, and then the call.
    """
    if settings.tokens.source == "component" and not reached:
        return [skipped("tokens", "the target is not reached, which gives them", "无法连接给出令牌的目标")]
    source = open_source(settings)
    return hand_over(_try(settings, source, accounts, seconds, reached=reached)).result()


async def _try(
    settings: Settings, source: TokenSource, accounts: Sequence[Account], seconds: float, *, reached: bool
) -> list[CheckResult]:
    try:
        if not accounts:
            return [skipped("tokens", "no merchant to ask a token for", "没有可用来取令牌的商户")]
        if not accounts[0].appid:
            return [of_error("tokens", NO_COMPONENT)]
        try:
            async with asyncio.timeout(seconds):
                account, found = await _first_token(settings, source, accounts)
        except TimeoutError:
            return [CheckResult("tokens", Grade.BAD, *_slow(settings, seconds))]
        except TcbOpsError as error:
            return [of_error("tokens", error.text)]
        if account is None or not reached:
            return [found]
        try:
            async with asyncio.timeout(seconds):
                return [found, await _call(settings, source, account)]
        except TimeoutError:
            slow = Text(
                f"no answer for {account.who} within {seconds:.0f} s",
                f"{seconds:.0f} 秒内没有得到 {account.who} 的应答",
            )
            return [found, of_error("address", slow)]
    finally:
        await source.aclose()


async def _first_token(
    settings: Settings, source: TokenSource, accounts: Sequence[Account]
) -> tuple[Account | None, CheckResult]:
    """The first account with a token. Those before it lack theirs, which is a warning: a run would go on without them."""
    lacking: list[TokenError] = []
    for account in accounts:
        try:
            token = await source.token(account.appid)
        except TokenError as error:
            lacking.append(error)
            continue
        if lacking:
            return account, replace(of_error("tokens", lacking[0].text), grade=Grade.WARNING)
        return account, _token(settings, token, account.who, time.time())
    return None, of_error("tokens", lacking[0].text)


def _slow(settings: Settings, seconds: float) -> tuple[Text, Text]:
    return (
        Text(
            f"the source ({settings.tokens.source}) gave no token within {seconds:.0f} s",
            f"令牌来源（{settings.tokens.source}）在 {seconds:.0f} 秒内没有给出令牌",
        ),
        Text("See whether it works by itself, and why it is slow.", "请单独检查它是否可用，以及为何缓慢。"),
    )


def _token(settings: Settings, token: Token, who: str, now: float) -> CheckResult:
    source = settings.tokens.source
    seen = Text(f"{source}: has a token for {who}", f"{source}：有 {who} 的令牌")
    if token.expires_at is None:
        return CheckResult("tokens", Grade.OK, seen)
    left = token.expires_at - now
    if left > 0:
        minutes = f"{left / 60:,.0f}"
        seen = Text(f"{seen.en}, good for {minutes} more min", f"{seen.zh}，还有 {minutes} 分钟到期")
        return CheckResult("tokens", Grade.OK, seen)
    seen = Text(f"{source}: the token for {who} has run out", f"{source}：{who} 的令牌已过期")
    mend = Text("See to whatever refreshes it.", "请检查负责刷新它的程序。")
    return CheckResult("tokens", Grade.WARNING, seen, mend)


async def _call(settings: Settings, source: TokenSource, account: Account) -> CheckResult:
    async with Transport(connections=1, timeouts=QUICK) as transport:
        client = PlatformClient(transport, settings.api_base)
        caller = Caller(source, CallLimits(attempts=1))
        try:
            said = await ask(
                caller, account.appid, lambda token: client.quota(token, account.uploads), account.owner
            )
        except PlatformStopError as error:  # 61004, and what else concerns everybody
            return of_error("address", error.text)
        except OutageError as error:
            return of_error("address", error.text)
    if not isinstance(said, Issue):
        seen = Text(
            f"calls from this machine are taken (asked for the quota of {account.who})",
            f"平台接受本机发出的调用（已查询 {account.who} 的配额）",
        )
        return CheckResult("address", Grade.OK, seen)
    if said.errcode is None:
        return CheckResult("address", Grade.BAD, said.meaning, said.action)
    seen = Text(
        f"calls from this machine are taken, but {account.who} is refused: errcode {said.code} {said.meaning.en}",
        f"平台接受本机发出的调用，但 {account.who} 被拒绝：errcode {said.code} {said.meaning.zh}",
    )
    mend = Text(
        f"{said.action.en} `tcb-ops merchants check` looks at every merchant.",
        f"{said.action.zh}`tcb-ops merchants check` 可检查所有商户。",
    )
    return CheckResult("address", Grade.WARNING, seen, mend)
