"""Checks over the network: the target, its clock, the token source, and whether calls from here are accepted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial

from tcb_ops.checks import DoctorFinding, Grade
from tcb_ops.errors import TokenError, TransportError, TransportFault
from tcb_ops.features.merchants.check import Issue
from tcb_ops.features.merchants.queries import ask
from tcb_ops.i18n import _
from tcb_ops.model import Merchant, Owner
from tcb_ops.runs.loop import submit_coroutine
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
REMOTE_SECONDS = 18.0
"""Time limit for a check over the network."""
TOKEN_SECONDS = 8.0
"""Seconds for the token source."""
TRIED = 3
"""Merchants to try until one has a token."""
SKEWED, WRONG = 60, 300
"""Clock difference in seconds for a warning and a failure: links expire after about 15 minutes (getUploadTcbFileLink)."""


def reach(settings: Settings) -> DoctorFinding:
    """Call the target without a token, which uses no quota. Blocks; raises TransportError."""
    _began_at, seconds, _response = _probe(settings)
    return DoctorFinding(
        Grade.OK,
        _(
            "{api_base} responded as expected in {seconds:.0f} ms",
            api_base=settings.api_base,
            seconds=seconds * 1000,
        ),
    )


def compare_clocks(settings: Settings) -> DoctorFinding:
    """Compare the target's clock with this machine's. Blocks; raises TransportError."""
    began_at, seconds, response = _probe(settings)
    return grade_clock(clock_offset(response.headers.get("date", ""), began_at, seconds))


def _probe(settings: Settings) -> tuple[float, float, HttpResponse]:
    """Return the start of the call (Unix seconds), its duration in seconds, and the platform's response."""

    async def call() -> tuple[float, float, HttpResponse]:
        async with Transport(connections=1, timeouts=QUICK) as transport:
            client = PlatformClient(transport, settings.api_base)
            began_at, began = time.time(), time.perf_counter()
            response = await client.probe()
            return began_at, time.perf_counter() - began, response

    exchange = submit_coroutine(call()).result()
    answer = read_response(exchange[2], ())
    if isinstance(answer, InvalidResponse):
        why = _("{api_base}: {why}", api_base=settings.api_base, why=answer.why)
        raise TransportError(TransportFault.GARBAGE, why)
    return exchange


def clock_offset(date: str, began_at: float, seconds: float) -> float | None:
    """Return the seconds that the target's clock is ahead of this machine's; None without a usable Date.

    A Date is cut to whole seconds, and was written about the middle of the exchange.
    """
    with suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(date).timestamp() + 0.5 - (began_at + seconds / 2)
    return None


def grade_clock(offset: float | None) -> DoctorFinding:
    """Grade the difference between the target's clock and this machine's; `offset` is in seconds."""
    if offset is None:
        return DoctorFinding(Grade.SKIPPED, _("the target's response has no Date"))
    apart = abs(offset)
    if apart < 1.5:
        return DoctorFinding(Grade.OK, _("matches the target's, within about a second"))
    seen = (
        _("this machine is {seconds:,.0f} s behind the target", seconds=apart)
        if offset > 0
        else _("this machine is {seconds:,.0f} s ahead of the target", seconds=apart)
    )
    if apart <= SKEWED:
        return DoctorFinding(Grade.OK, seen)
    fix = _(
        "Synchronize the clock with a time server (chrony, systemd-timesyncd): tokens and links expire, links "
        "after about 15 minutes."
    )
    return DoctorFinding(Grade.WARNING if apart <= WRONG else Grade.BAD, seen, fix)


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
    present = [merchant for merchant in merchants if not merchant.left]
    names = {m.appid: m.name for m in reversed(present) if m.owner is Owner.MERCHANT}
    appids = list(dict.fromkeys(m.appid for m in present if m.owner is Owner.MERCHANT))
    if appids:
        return [TokenOwner(appid, names[appid], Owner.MERCHANT) for appid in appids[:TRIED]]
    return [TokenOwner(component_appid, "component", Owner.PLATFORM)] if present else []


def first_token(
    settings: Settings, owners: Sequence[TokenOwner], seconds: float = TOKEN_SECONDS
) -> DoctorFinding:
    """Check that the token source has a token for one of the owners. Blocks; raises what prevents it.

    Owners before the first with a token are a warning: a run would skip their rows. `seconds` limits the source.
    """
    if not owners:
        return DoctorFinding(Grade.SKIPPED, _("no merchant to request a token for"))
    if not owners[0].appid:
        raise TokenError(NO_COMPONENT)
    source = settings.tokens.source
    try:
        owner, token, lacking = submit_coroutine(_first_token(settings, owners, seconds)).result()
    except TimeoutError:
        slow = _("the source ({kind}) returned no token within {seconds:.0f} s", kind=source, seconds=seconds)
        return DoctorFinding(Grade.BAD, slow, _("Check whether it works by itself, and why it is slow."))
    if lacking is not None:
        return DoctorFinding(Grade.WARNING, lacking.problem, lacking.fix)
    left = None if token.expires_at is None else token.expires_at - time.time()
    if left is not None and left <= 0:
        seen = _("{source}: the token for {owner} has expired", source=source, owner=owner.label)
        return DoctorFinding(Grade.WARNING, seen, _("Check the program that refreshes it."))
    seen = _("{source}: has a token for {owner}", source=source, owner=owner.label)
    if left is not None:
        seen = _("{seen}, valid for another {minutes} min", seen=seen, minutes=f"{left / 60:,.0f}")
    return DoctorFinding(Grade.OK, seen)


async def _first_token(
    settings: Settings, owners: Sequence[TokenOwner], seconds: float
) -> tuple[TokenOwner, Token, TokenError | None]:
    source = open_source(settings)
    try:
        async with asyncio.timeout(seconds):
            return await _choose(source, owners)
    finally:
        await source.aclose()


async def _choose(
    source: TokenSource, owners: Sequence[TokenOwner]
) -> tuple[TokenOwner, Token, TokenError | None]:
    """Return the first owner with a token, the token, and why the first owner has none. Raises that error for none."""
    first_error: TokenError | None = None
    for owner in owners:
        try:
            return owner, await source.token(owner.appid), first_error
        except TokenError as error:
            first_error = first_error or error
    raise first_error or TokenError(NO_COMPONENT)


def call_with_token(settings: Settings, owners: Sequence[TokenOwner]) -> DoctorFinding:
    """Check that the target accepts calls from this machine: openapi/quota/get, a read, with the first token there is.

    Blocks. Raises what concerns every merchant, such as 61004 for an address that is not allowed.
    """
    return submit_coroutine(_call(settings, owners)).result()


async def _call(settings: Settings, owners: Sequence[TokenOwner]) -> DoctorFinding:
    source = open_source(settings)
    try:
        owner, _token, _error = await _choose(source, owners)
        async with Transport(connections=1, timeouts=QUICK) as transport:
            client = PlatformClient(transport, settings.api_base)
            caller = Caller(source, CallLimits(attempts=1))
            answer = await ask(caller, owner.appid, partial(client.quota, owner=owner.owner), owner.owner)
    finally:
        await source.aclose()
    if not isinstance(answer, Issue):
        seen = _("calls from this machine are accepted (queried the quota of {label})", label=owner.label)
        return DoctorFinding(Grade.OK, seen)
    if answer.errcode is None:
        return DoctorFinding(Grade.BAD, answer.meaning, answer.action)
    seen = _(
        "calls from this machine are accepted, but {label} is refused: errcode {code} {meaning}",
        label=owner.label,
        code=answer.code,
        meaning=answer.meaning,
    )
    fix = _("{action} `tcb-ops merchants check` checks every merchant.", action=answer.action)
    return DoctorFinding(Grade.WARNING, seen, fix)
