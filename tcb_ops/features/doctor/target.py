"""Checks over the network: the target, its clock, and a call with a token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial

from tcb_ops.errors import TokenError, TransportError, TransportFault
from tcb_ops.features.doctor.finding import DoctorFinding, Grade
from tcb_ops.i18n import Text, _
from tcb_ops.model import Merchant, Owner
from tcb_ops.runs.loop import submit_coroutine
from tcb_ops.runs.single_calls import Issue, ask
from tcb_ops.runs.stop_errors import NO_COMPONENT
from tcb_ops.settings import Settings
from tcb_ops.wechat import open_source
from tcb_ops.wechat.call_policy import Caller, CallLimits
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import HttpResponse, InvalidResponse, read_response
from tcb_ops.wechat.tokens import TokenSource
from tcb_ops.wechat.transport import Timeouts, Transport

QUICK = Timeouts(connect=4, answer=4)
"""Short, because a user is waiting."""
TOKEN_SECONDS = 8.0
"""Seconds for the token source."""
TRIED = 3
"""Merchants to try until one has a token."""
SKEWED, WRONG = 60, 300
"""Clock difference in seconds for a warning and a failure: links expire after about 15 minutes (getUploadTcbFileLink)."""


def reach(settings: Settings) -> DoctorFinding:
    """Call the target without a token, which uses no quota. Blocks; raises TransportError."""
    _began_at, seconds, _response = _probe(settings)
    seen = _("{api_base} responded as expected in {ms:.0f} ms", api_base=settings.api_base, ms=seconds * 1000)
    return DoctorFinding(Grade.OK, seen)


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
    seen = (
        _("this machine is {seconds:,.0f} s behind the target", seconds=offset)
        if offset > 0
        else _("this machine is {seconds:,.0f} s ahead of the target", seconds=-offset)
    )
    if abs(offset) <= SKEWED:
        return DoctorFinding(Grade.OK, seen)
    fix = _(
        "Synchronize the clock with a time server (chrony, systemd-timesyncd): tokens and links expire, links "
        "after about 15 minutes."
    )
    return DoctorFinding(Grade.WARNING if abs(offset) <= WRONG else Grade.BAD, seen, fix)


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """An account whose token is tried."""

    appid: str
    label: str
    owner: Owner


def first_token_owners(merchants: Sequence[Merchant], component_appid: str) -> list[TokenOwner]:
    """Return whose tokens to try: the first merchants, or the platform if all environments are its own."""
    names = {m.appid: m.name for m in reversed(merchants) if m.owner is Owner.MERCHANT}
    appids = list(dict.fromkeys(m.appid for m in merchants if m.owner is Owner.MERCHANT))
    if appids:
        return [TokenOwner(appid, f"{names[appid]} ({appid})", Owner.MERCHANT) for appid in appids[:TRIED]]
    return [TokenOwner(component_appid, component_appid, Owner.PLATFORM)] if merchants else []


def call_with_token(
    settings: Settings, merchants: Sequence[Merchant], seconds: float = TOKEN_SECONDS
) -> DoctorFinding:
    """Check that the token source has a token, and that the target accepts a call from this machine with it.

    The call is openapi/quota/get, a read, for the first merchant with a token. `seconds` limits the source. Blocks. Raises
    what prevents it, and what concerns every merchant, such as 61004 for an address that is not allowed.
    """
    if not merchants:
        return DoctorFinding(Grade.SKIPPED, _("no merchant to request a token for"))
    kind = settings.tokens.source
    try:
        label, issue = submit_coroutine(_call(settings, merchants, seconds)).result()
    except TimeoutError:
        slow = _("the source ({kind}) returned no token within {seconds:.0f} s", kind=kind, seconds=seconds)
        return DoctorFinding(Grade.BAD, slow, _("Check whether it works by itself, and why it is slow."))
    if issue is None:
        seen: Text = _("calls from this machine are accepted (queried the quota of {label})", label=label)
        return DoctorFinding(Grade.OK, seen)
    if issue.errcode is None:
        return DoctorFinding(Grade.BAD, issue.meaning, issue.action)
    seen = _(
        "calls from this machine are accepted, but {label} is refused: errcode {code} {meaning}",
        label=label,
        code=issue.code,
        meaning=issue.meaning,
    )
    fix = _("{action} `tcb-ops merchants check` checks every merchant.", action=issue.action)
    return DoctorFinding(Grade.WARNING, seen, fix)


async def _call(
    settings: Settings, merchants: Sequence[Merchant], seconds: float
) -> tuple[str, Issue | None]:
    """Return whose token was used, and why the platform refused the call; None if it did not."""
    source = open_source(settings)
    try:
        async with asyncio.timeout(seconds):
            owner = await _first_with_token(source, settings, merchants)
        async with Transport(connections=1, timeouts=QUICK) as transport:
            client = PlatformClient(transport, settings.api_base)
            caller = Caller(source, CallLimits(attempts=1))
            answer = await ask(caller, owner.appid, partial(client.quota, owner=owner.owner), owner.owner)
    finally:
        await source.aclose()
    return owner.label, answer if isinstance(answer, Issue) else None


async def _first_with_token(
    source: TokenSource, settings: Settings, merchants: Sequence[Merchant]
) -> TokenOwner:
    """Return the first owner with a token; raises the first owner's error where none has one."""
    first_error: TokenError | None = None
    for owner in first_token_owners(merchants, settings.tokens.component_appid):
        if not owner.appid:
            raise TokenError(NO_COMPONENT)
        try:
            await source.token(owner.appid)
        except TokenError as error:
            first_error = first_error or error
        else:
            return owner
    raise first_error or TokenError(NO_COMPONENT)
