"""Questions to the platform, asked with concurrent calls: what merchants can do today, who authorizes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TypeVar

from tcb_ops.errors import (
    PlatformStopError,
    SettingsError,
    StoppedError,
)
from tcb_ops.features.merchants.check import MerchantState, state_of
from tcb_ops.features.merchants.sync import Authorized, Authorizer
from tcb_ops.i18n import Text, _, ngettext
from tcb_ops.model import Merchant, Owner
from tcb_ops.runs.loop import submit_coroutine
from tcb_ops.runs.single_calls import COMPONENT_CODES, NEEDS_COMPONENT, Probes, ask, of_the_component
from tcb_ops.runs.verdicts import Answers, Facts, Issue, appids_by_env
from tcb_ops.settings import Settings
from tcb_ops.wechat import open_client
from tcb_ops.wechat.call_policy import Caller, CallLimits
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import AuthorizerInfo

AT_ONCE = 8
"""Merchants queried at the same time."""
STANDARD = CallLimits()

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


def ignore(*_: object) -> None:
    """Do nothing: the default for `progress` and `notify`."""


@dataclass(frozen=True, slots=True)
class CheckedMerchants:
    """The result of a check."""

    states: tuple[MerchantState, ...]
    """In the order of the lines."""
    note: Text | None
    """Why permission sets were not checked; None if they were."""


def begin_check(
    settings: Settings,
    merchants: Iterable[Merchant],
    *,
    limits: CallLimits = STANDARD,
    progress: Progress = ignore,
    notify: Callable[[Text], None] = ignore,
) -> Future[CheckedMerchants]:
    """Start to check every line; the future returns their states. Cancelling it ends the calls.

    The future raises SettingsError, PlatformStopError (61004 and the like), OutageError (no host could be reached).

    Args:
        settings: the target and the token source.
        merchants: lines of a merchants file; those that have left are not checked.
        limits: apply to each call.
        progress: called with the mini programs done and their number, on the private loop's thread.
        notify: called for a pause that the platform asks for.

    """
    return submit_coroutine(_check(settings, list(merchants), limits, progress, notify))


async def map_concurrently(
    items: Sequence[Item], work: Callable[[Item], Awaitable[Result]], progress: Progress = ignore
) -> list[Result]:
    """Do the work for every item, AT_ONCE at a time; return the results in the items' order.

    The first exception cancels the others and is raised unchanged.
    """
    room, done = asyncio.Semaphore(AT_ONCE), count(1)

    async def work_in_turn(item: Item) -> Result:
        async with room:
            result = await work(item)
        progress(next(done), len(items))
        return result

    tasks = [asyncio.ensure_future(work_in_turn(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _check(
    settings: Settings,
    merchants: list[Merchant],
    limits: CallLimits,
    progress: Progress,
    notify: Callable[[Text], None],
) -> CheckedMerchants:
    component = settings.tokens.component_appid
    asked = [line for line in merchants if not line.left]
    appids = list(dict.fromkeys(line.appid for line in asked if line.owner is Owner.MERCHANT))
    async with open_client(settings, connections=2 * AT_ONCE, limits=limits, notify=notify) as opened:
        client, caller = opened
        probes = Probes(caller, client, component)
        of_platform = Answers(NEEDS_COMPONENT)
        if component and len(asked) > sum(line.owner is Owner.MERCHANT for line in asked):
            of_platform = await probes.account(component, Owner.PLATFORM)
        answers = dict(zip(appids, await map_concurrently(appids, probes.account, progress), strict=True))
    note = None
    if not component:
        note = _NOT_CHECKED.format(meaning=NEEDS_COMPONENT.meaning, action=NEEDS_COMPONENT.action)
    elif (issue := probes.component_issue) is not None:
        reason = _("the component token does not work: {meaning}", meaning=issue.meaning)
        note = _NOT_CHECKED.format(meaning=reason, action=issue.action)
    return CheckedMerchants(_states(merchants, answers, of_platform), note)


def _states(
    merchants: Sequence[Merchant], answers: Mapping[str, Answers], of_platform: Answers
) -> tuple[MerchantState, ...]:
    appids, statuses = appids_by_env(merchants), dict[str, str]()
    for answer in (*answers.values(), of_platform):
        if not isinstance(answer.environments, Issue):
            statuses |= {each.env: each.status for each in answer.environments or ()}

    def state(line: Merchant) -> MerchantState:
        if line.left:
            return MerchantState(line)
        own = line.owner is Owner.PLATFORM
        return state_of(
            Facts(
                merchant=line,
                answers=of_platform if own else answers[line.appid],
                elsewhere={} if own else statuses,
                appids=appids,
            )
        )

    return tuple(map(state, merchants))


_NOT_CHECKED = _("Permission sets were not checked: {meaning}. {action}")


# --- who authorizes the platform -------------------------------------------------------------------------------------


def begin_sync(
    settings: Settings,
    *,
    only: Collection[str] | None = None,
    limits: CallLimits = STANDARD,
    notify: Callable[[Text], None] = ignore,
) -> Future[Authorized]:
    """Start to query who authorizes the platform; the future returns them. Cancelling it ends the calls.

    With `only`, environments are requested for these appids only. `limits` and `notify` are begin_check's.

    Raises SettingsError without a component_appid. The future raises PlatformStopError if the list is refused,
    OutageError if no host could be reached, StoppedError if the list is incomplete.
    """
    if not settings.tokens.component_appid:
        raise SettingsError(
            _(
                "merchants sync needs the component token: set component_appid under [tokens] in "
                "tcb-ops.toml, and make sure that the token source can provide that appid's token."
            )
        )
    return submit_coroutine(_sync(settings, only, limits, notify))


async def _sync(
    settings: Settings,
    only: Collection[str] | None,
    limits: CallLimits,
    notify: Callable[[Text], None],
) -> Authorized:
    component = settings.tokens.component_appid
    async with open_client(settings, connections=2 * AT_ONCE, limits=limits, notify=notify) as opened:
        client, caller = opened
        appids = await _list(caller, client, component)
        asked_for = [appid for appid in appids if only is None or appid in only]

        async def about(appid: str) -> Authorizer:
            info: AuthorizerInfo | Issue = await ask(
                caller, component, partial(client.authorizer, appid=appid)
            )
            if isinstance(info, Issue) and info.code in COMPONENT_CODES:
                raise _stop(component, info)
            name = "" if isinstance(info, Issue) else info.name
            return Authorizer(appid, name, await ask(caller, appid, client.environments))

        return Authorized(frozenset(appids), tuple(await map_concurrently(asked_for, about)))


async def _list(caller: Caller, client: PlatformClient, component: str) -> list[str]:
    """Return every appid once, in the platform's order."""
    appids: dict[str, None] = {}
    offset, total = 0, 1
    while offset < total:
        page = await ask(caller, component, partial(client.authorizers, offset=offset))
        if isinstance(page, Issue):
            raise _stop(component, page)
        offset, total = offset + len(page.appids), page.total
        appids |= dict.fromkeys(page.appids)
        if not page.appids:
            break
    if not appids or len(appids) < total:
        raise StoppedError(
            _(
                "The platform says that {merchants} have authorized it, but listed {count:,}. Nothing was changed: check "
                "component_appid {component}, and run the same command again.",
                merchants=ngettext("{n:,} merchant", "{n:,} merchants", total),
                count=len(appids),
                component=component,
            )
        )
    return list(appids)


def _stop(component: str, issue: Issue) -> PlatformStopError:
    issue = of_the_component(issue)
    return PlatformStopError(
        _(
            "The merchants cannot be listed with the component token (component_appid {component}): {code}, {meaning} "
            "{errmsg}\n{action}",
            component=component,
            code=issue.code,
            meaning=issue.meaning,
            errmsg=issue.errmsg,
            action=issue.action,
        )
    )
