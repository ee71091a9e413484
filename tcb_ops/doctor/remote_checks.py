"""Checks over the network: the target, its clock, the token source, and calls from this address."""

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
from tcb_ops.i18n import _
from tcb_ops.merchants.check import ask
from tcb_ops.merchants.status import Issue
from tcb_ops.model import Merchant, Owner, is_loopback
from tcb_ops.resources import system_reason
from tcb_ops.runs.loop import hand_over
from tcb_ops.runs.stop_errors import NO_COMPONENT
from tcb_ops.settings import Settings
from tcb_ops.wechat import open_source
from tcb_ops.wechat.call_policy import Caller, CallLimits
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import HttpResponse, InvalidResponse, read_response
from tcb_ops.wechat.tokens import Token, TokenSource
from tcb_ops.wechat.transport import Timeouts, Transport

QUICK = Timeouts(connect=4, answer=4)
"""Short, because a user is waiting."""
TOKEN_SECONDS = 8.0
"""Seconds for the token source, and again for the call with its token."""
TRIED = 3
"""Merchants to try until one has a token."""
SKEWED, WRONG = 60, 300
"""Clock difference in seconds for a warning and a failure: links expire after about 15 minutes (domain.md §1.1)."""
_CERTIFICATES = _("Check the files that SSL_CERT_FILE and SSL_CERT_DIR name.")


def check_target(settings: Settings) -> list[CheckResult]:
    """Call the target without a token, which uses no quota, and compare its clock with this machine's. Blocks."""
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
    except OSError as error:  # ssl does not name the file that it could not read
        cause = system_reason(error)
        seen = _("TLS cannot be set up: {cause}", cause=cause)
        return [CheckResult("target", Grade.BAD, seen, _CERTIFICATES)]
    found = read_response(response, ())
    if isinstance(found, InvalidResponse):
        why = _("{api_base}: {why}", api_base=settings.api_base, why=found.why)
        return [from_error("target", TransportError(TransportFault.GARBAGE, why))]
    seen = _(
        "{api_base} responded as expected in {seconds:.0f} ms",
        api_base=settings.api_base,
        seconds=seconds * 1000,
    )
    if proxied:
        seen = _("{seen}, through the proxy of the environment", seen=seen)
    offset = clock_offset(response.headers.get("date", ""), began_at, seconds)
    return [CheckResult("target", Grade.OK, seen), check_clock(offset)]


def _unknown_host(host: str, port: int) -> CheckResult | None:
    """Return a bad result if the host name cannot be resolved.

    Resolved in the check's own thread, which is abandoned if the name server does not respond.
    """
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        seen = _("the host name {host} is not known", host=host)
        fix = _("Check api_base for a typing mistake, then this machine's DNS and network.")
        return CheckResult("target", Grade.BAD, seen, fix)
    return None


async def _reach(settings: Settings) -> tuple[float, float, HttpResponse]:
    """Return the start of the call (Unix seconds), its duration in seconds, and the response."""
    async with Transport(connections=1, timeouts=QUICK) as transport:
        client = PlatformClient(transport, settings.api_base)
        began_at, began = time.time(), time.perf_counter()
        response = await client.probe()
        return began_at, time.perf_counter() - began, response


def clock_offset(date: str, began_at: float, seconds: float) -> float | None:
    """Return the seconds that the target's clock is ahead of this machine's; None without a usable Date.

    A Date is cut to whole seconds, and was written about the middle of the exchange.
    """
    with suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(date).timestamp() + 0.5 - (began_at + seconds / 2)
    return None


def check_clock(offset: float | None) -> CheckResult:
    """Grade the difference between the target's clock and this machine's; `offset` is in seconds."""
    if offset is None:
        return skipped("clock", _("the target's response has no Date"))
    apart = abs(offset)
    if apart < 1.5:
        return CheckResult("clock", Grade.OK, _("matches the target's, within about a second"))
    seen = (
        _("this machine is {seconds:,.0f} s behind the target", seconds=apart)
        if offset > 0
        else _("this machine is {seconds:,.0f} s ahead of the target", seconds=apart)
    )
    if apart <= SKEWED:
        return CheckResult("clock", Grade.OK, seen)
    fix = _(
        "Synchronize the clock with a time server (chrony, systemd-timesyncd): tokens and links expire, links "
        "after about 15 minutes."
    )
    return CheckResult("clock", Grade.WARNING if apart <= WRONG else Grade.BAD, seen, fix)


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """An account whose token is tried."""

    appid: str
    name: str
    owner: Owner

    @property
    def label(self) -> str:
        """Name and appid, for display."""
        return f"{self.name} ({self.appid})" if self.name else self.appid


def first_token_owners(merchants: Sequence[Merchant], component_appid: str) -> list[TokenOwner]:
    """Return whose tokens to try: the first merchants that have not left, or the platform if all lines are its own."""
    there = [m for m in merchants if not m.left]
    own = {m.appid: m.name for m in reversed(there) if m.owner is Owner.MERCHANT}
    appids = list(dict.fromkeys(m.appid for m in there if m.owner is Owner.MERCHANT))
    if appids:
        return [TokenOwner(appid, own[appid], Owner.MERCHANT) for appid in appids[:TRIED]]
    return [TokenOwner(component_appid, "component", Owner.PLATFORM)] if there else []


def check_tokens(
    settings: Settings, owners: Sequence[TokenOwner], *, reached: bool, seconds: float = TOKEN_SECONDS
) -> list[CheckResult]:
    """Check that the token source has a token, and that the target accepts it from this machine. Blocks.

    Uses the first owner that has a token. The call is openapi/quota/get, a read, which returns 61004 if this machine's
    address is not allowed. `seconds` limits the source, and then the call.
    """
    unreached = skipped("address", _("the target could not be reached"))
    if settings.tokens.source == "component" and not reached:
        why = _("the target, which provides them, could not be reached")
        return [skipped("tokens", why), unreached]
    results = hand_over(_try(settings, open_source(settings), owners, seconds, reached=reached)).result()
    return results if reached else [*results, unreached]


async def _try(
    settings: Settings, source: TokenSource, owners: Sequence[TokenOwner], seconds: float, *, reached: bool
) -> list[CheckResult]:
    try:
        if not owners:
            return [skipped("tokens", _("no merchant to request a token for"))]
        if not owners[0].appid:
            return [from_error("tokens", TokenError(NO_COMPONENT))]
        try:
            async with asyncio.timeout(seconds):
                owner, found = await _first_token(settings, source, owners)
        except TimeoutError:
            kind = settings.tokens.source
            slow = _(
                "the source ({kind}) returned no token within {seconds:.0f} s", kind=kind, seconds=seconds
            )
            fix = _("Check whether it works by itself, and why it is slow.")
            return [CheckResult("tokens", Grade.BAD, slow, fix)]
        except TcbOpsError as error:
            return [from_error("tokens", error)]
        if owner is None or not reached:
            return [found]
        try:
            async with asyncio.timeout(seconds):
                return [found, await _call(settings, source, owner)]
        except (TcbOpsError, TimeoutError) as error:
            if isinstance(error, TcbOpsError):  # 61004 and other errors that affect every merchant
                return [found, from_error("address", error)]
            slow = _("no response for {label} within {seconds:.0f} s", label=owner.label, seconds=seconds)
            return [found, from_error("address", OutageError(slow))]
    finally:
        await source.aclose()


async def _first_token(
    settings: Settings, source: TokenSource, owners: Sequence[TokenOwner]
) -> tuple[TokenOwner | None, CheckResult]:
    """Return the first owner with a token. Owners before it without one are a warning: a run would skip their rows."""
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
    seen = _("{source}: has a token for {owner}", source=source, owner=owner)
    if token.expires_at is None:
        return CheckResult("tokens", Grade.OK, seen)
    left = token.expires_at - now
    if left > 0:
        minutes = f"{left / 60:,.0f}"
        seen = _("{seen}, valid for another {minutes} min", seen=seen, minutes=minutes)
        return CheckResult("tokens", Grade.OK, seen)
    seen = _("{source}: the token for {owner} has expired", source=source, owner=owner)
    fix = _("Check the program that refreshes it.")
    return CheckResult("tokens", Grade.WARNING, seen, fix)


async def _call(settings: Settings, source: TokenSource, owner: TokenOwner) -> CheckResult:
    async with Transport(connections=1, timeouts=QUICK) as transport:
        client = PlatformClient(transport, settings.api_base)
        caller = Caller(source, CallLimits(attempts=1))
        found = await ask(caller, owner.appid, partial(client.quota, owner=owner.owner), owner.owner)
    if not isinstance(found, Issue):
        seen = _("calls from this machine are accepted (queried the quota of {label})", label=owner.label)
        return CheckResult("address", Grade.OK, seen)
    if found.errcode is None:
        return CheckResult("address", Grade.BAD, found.meaning, found.action)
    seen = _(
        "calls from this machine are accepted, but {label} is refused: errcode {code} {meaning}",
        label=owner.label,
        code=found.code,
        meaning=found.meaning,
    )
    fix = _("{action} `tcb-ops merchants check` checks every merchant.", action=found.action)
    return CheckResult("address", Grade.WARNING, seen, fix)
