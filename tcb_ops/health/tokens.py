"""The token source: whether it gives tokens, and the platform takes them from this machine's address."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tcb_ops.accounts.asking import Asking, Trouble
from tcb_ops.errors import OutageError, PlatformStopError, TcbOpsError, TokenError
from tcb_ops.health.finding import Finding, Grade, of_error, skipped
from tcb_ops.health.target import QUICK
from tcb_ops.model import Owner, Text
from tcb_ops.platform.answers import Interfaces
from tcb_ops.platform.authorizers import COMPONENT_UPLOADS, UPLOADS, Authorizers
from tcb_ops.platform.tokens import open_source
from tcb_ops.platform.transport import Transport
from tcb_ops.runs.loop import hand_over
from tcb_ops.runs.pacing import Pace
from tcb_ops.runs.stops import NO_COMPONENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tcb_ops.model import Merchant
    from tcb_ops.platform.tokens import Token, TokenSource
    from tcb_ops.settings import Settings

__all__ = ["Account", "first_accounts", "look_at_tokens"]

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
) -> list[Finding]:
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
) -> list[Finding]:
    try:
        if not accounts:
            return [skipped("tokens", "no merchant to ask a token for", "没有可用来取令牌的商户")]
        if not accounts[0].appid:
            return [of_error("tokens", NO_COMPONENT)]
        try:
            async with asyncio.timeout(seconds):
                account, found = await _first_token(settings, source, accounts)
        except TimeoutError:
            return [Finding("tokens", Grade.BAD, *_slow(settings, seconds))]
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
) -> tuple[Account | None, Finding]:
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


def _token(settings: Settings, token: Token, who: str, now: float) -> Finding:
    source = settings.tokens.source
    seen = Text(f"{source}: has a token for {who}", f"{source}：有 {who} 的令牌")
    if token.expires_at is None:
        return Finding("tokens", Grade.OK, seen)
    left = token.expires_at - now
    if left > 0:
        minutes = f"{left / 60:,.0f}"
        seen = Text(f"{seen.en}, good for {minutes} more min", f"{seen.zh}，还有 {minutes} 分钟到期")
        return Finding("tokens", Grade.OK, seen)
    seen = Text(f"{source}: the token for {who} has run out", f"{source}：{who} 的令牌已过期")
    mend = Text("See to whatever refreshes it.", "请检查负责刷新它的程序。")
    return Finding("tokens", Grade.WARNING, seen, mend)


async def _call(settings: Settings, source: TokenSource, account: Account) -> Finding:
    async with Transport(connections=1, timeouts=QUICK) as transport:
        interfaces = Interfaces(transport, settings.api_base)
        authorizers = Authorizers(interfaces, settings.tokens.component_appid)
        asking = Asking(source, Pace(attempts=1))
        try:
            said = await asking.ask(
                account.appid, lambda token: authorizers.quota(token, account.uploads), account.owner
            )
        except PlatformStopError as error:  # 61004, and what else concerns everybody
            return of_error("address", error.text)
        except OutageError as error:
            return of_error("address", error.text)
    if not isinstance(said, Trouble):
        seen = Text(
            f"calls from this machine are taken (asked for the quota of {account.who})",
            f"平台接受本机发出的调用（已查询 {account.who} 的配额）",
        )
        return Finding("address", Grade.OK, seen)
    if said.errcode is None:
        return Finding("address", Grade.BAD, said.meaning, said.action)
    seen = Text(
        f"calls from this machine are taken, but {account.who} is refused: errcode {said.code} {said.meaning.en}",
        f"平台接受本机发出的调用，但 {account.who} 被拒绝：errcode {said.code} {said.meaning.zh}",
    )
    mend = Text(
        f"{said.action.en} `tcb-ops merchants check` looks at every merchant.",
        f"{said.action.zh}`tcb-ops merchants check` 可检查所有商户。",
    )
    return Finding("address", Grade.WARNING, seen, mend)
