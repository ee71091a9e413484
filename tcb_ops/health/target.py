"""The target: reached, and by a clock like ours."""

from __future__ import annotations

import socket
import urllib.request
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tcb_ops.errors import TransportError
from tcb_ops.health.finding import Finding, Grade, of_error, skipped
from tcb_ops.model import Text, is_loopback
from tcb_ops.platform.answers import Interfaces, NoAnswer
from tcb_ops.platform.recording import RecordingTransport
from tcb_ops.platform.transport import Timeouts
from tcb_ops.runs.loop import hand_over

if TYPE_CHECKING:
    from tcb_ops.platform.recording import Exchange
    from tcb_ops.settings import Settings

__all__ = ["QUICK", "clock", "look_at_target", "offset_of"]

QUICK = Timeouts(connect=4, answer=4)
"""Somebody watches."""
SKEWED, WRONG = 60, 300
"""Seconds of difference that warn, and that are bad: links live some 15 minutes (domain.md §1.1)."""


def look_at_target(settings: Settings) -> list[Finding]:
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
            Finding(
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
    return [Finding("target", Grade.OK, seen), clock(offset_of(exchange))]


def _unknown(host: str, port: int) -> Finding | None:
    """What is wrong with a host name. Asked here, since a thread that waits for a name server is left behind at the end."""
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        seen = Text(f"the host name {host} is not known", f"无法解析主机名 {host}")
        mend = Text(
            "Check api_base for a typing mistake, then this machine's DNS and network.",
            "请检查 api_base 是否有误，再检查本机的 DNS 和网络。",
        )
        return Finding("target", Grade.BAD, seen, mend)
    return None


async def _reach(settings: Settings) -> tuple[Exchange | None, Grade, Text]:
    async with RecordingTransport(connections=1, timeouts=QUICK) as transport:
        interfaces = Interfaces(transport, settings.api_base)
        try:
            said = await interfaces.ask("tcb/getenvinfo", {})
        except TransportError as error:
            return None, Grade.BAD, error.text
        if isinstance(said, NoAnswer):
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


def clock(offset: float | None) -> Finding:
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
        return Finding(
            "clock", Grade.OK, Text("as the target's, within a second or so", "与目标一致，相差约一秒之内")
        )
    seen = Text(
        f"this machine is {apart:,.0f} s {'behind' if offset > 0 else 'ahead of'} the target",
        f"本机比目标{'慢' if offset > 0 else '快'} {apart:,.0f} 秒",
    )
    if apart <= SKEWED:
        return Finding("clock", Grade.OK, seen)
    mend = Text(
        "Set the clock by a time server (chrony, systemd-timesyncd): tokens and links have ends, and links live some 15 minutes.",
        "请通过时间服务器校准时钟（chrony、systemd-timesyncd）：令牌和链接都有到期时间，链接约 15 分钟过期。",
    )
    return Finding("clock", Grade.WARNING if apart <= WRONG else Grade.BAD, seen, mend)


_CERTIFICATES = Text(
    "Check the files that SSL_CERT_FILE and SSL_CERT_DIR name.",
    "请检查 SSL_CERT_FILE 和 SSL_CERT_DIR 指定的文件。",
)
