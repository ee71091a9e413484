"""The daily quotas of accounts, compared with what a list needs. Pure, except for the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from tcb_ops.errors import StoppedError, TcbOpsError
from tcb_ops.i18n import Text, _
from tcb_ops.merchants.status import Issue
from tcb_ops.model import Owner
from tcb_ops.runs.loop import hand_over
from tcb_ops.settings import Settings
from tcb_ops.wechat.call_policy import CallLimits
from tcb_ops.wechat.responses import Quota

SECONDS = 10.0
"""Time limit for the requests; what was received by then is used."""
_BEIJING = ZoneInfo("Asia/Shanghai")


@dataclass(frozen=True, slots=True)
class QuotaAccount:
    """The account that a row's link call counts against: a mini program's, or the platform's for its own environments."""

    appid: str
    owner: Owner = Owner.MERCHANT


@dataclass(frozen=True, slots=True)
class Allowances:
    """The quotas that could be read."""

    quotas: dict[QuotaAccount, Quota]
    why_not: Text | None
    """The first reason why some are unknown."""


def fits(rows: int, quota: Quota | None, rate: float | None, seconds_left: float) -> bool | None:
    """Return whether so many link calls fit into the account's day; None if unknown.

    ================  =====================  =======
    calls left        time at the rate       result
    ================  =====================  =======
    fewer than rows   any                    False
    any               longer than the day    False
    not known         within, or no rate     None
    enough            within, or no rate     True
    ================  =====================  =======
    """
    left = quota.left if quota is not None else None
    if (left is not None and rows > left) or (rate is not None and rows / rate > seconds_left):
        return False
    return None if left is None else True


def seconds_left_of_the_day(now: datetime) -> float:
    """Return the seconds until the quotas are reset: midnight in Beijing, which has no daylight saving time."""
    there = now.astimezone(_BEIJING)
    midnight = there.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - there).total_seconds()


def ask_allowances(
    settings: Settings, accounts: Iterable[QuotaAccount], seconds: float = SECONDS
) -> Allowances:
    """Query each account's remaining calls for upload links. Blocks for at most `seconds`; failures are not raised."""
    wanted = list(dict.fromkeys(accounts))
    if not wanted:
        return Allowances({}, None)
    try:
        return hand_over(_ask(settings, wanted, seconds)).result()
    except TcbOpsError as error:  # invalid token settings are reported by the run
        return Allowances({}, error.text)


async def _ask(settings: Settings, wanted: list[QuotaAccount], seconds: float) -> Allowances:
    from tcb_ops.merchants.check import ask, connected, each

    component = settings.tokens.component_appid
    quotas: dict[QuotaAccount, Quota] = {}
    reasons: list[Text] = []
    async with connected(settings, CallLimits(attempts=1)) as (caller, client):

        async def about(account: QuotaAccount) -> None:
            mine = account.owner is Owner.MERCHANT
            if not mine and not component:
                reasons.append(_NEEDS_COMPONENT)
                return
            call = partial(client.quota, owner=account.owner)
            found = await ask(caller, account.appid if mine else component, call, account.owner)
            if isinstance(found, Issue):
                reasons.append(_("{meaning} {action}", meaning=found.meaning, action=found.action))
            else:
                quotas[account] = found

        try:
            async with asyncio.timeout(seconds):
                await each(wanted, about)
        except TimeoutError:
            reasons.append(_("Not all answered within {seconds:g} s.", seconds=seconds))
        except StoppedError as error:
            reasons.append(error.text)
    return Allowances(quotas, reasons[0] if reasons else None)


_NEEDS_COMPONENT = _(
    "Calls for the platform's own environments count against the component's quota: set component_appid under "
    "[tokens]."
)
