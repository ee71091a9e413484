"""The questions to WeChat about accounts and rows, outside of runs and ledgers; `verdicts` says what follows from the answers."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TypeVar

from tcb_ops.catalogue import errcode
from tcb_ops.engine.limits import NextStep, RunLimits
from tcb_ops.engine.single_calls import Caller, CallFailure, open_client
from tcb_ops.engine.stop_errors import refused_platform
from tcb_ops.errors import OutageError, PlatformStopError, StoppedError, TokenError, TokenSourceError
from tcb_ops.features.health import interfaces
from tcb_ops.features.health.interfaces import AuthorizerInfo, Quota, ReceivedRequest
from tcb_ops.features.health.verdicts import (
    NEEDS_COMPONENT,
    NO_TOKENS,
    Answers,
    Facts,
    Issue,
    presumed,
    presumed_verdict,
    seems_gone,
)
from tcb_ops.i18n import NOTHING, Text, _
from tcb_ops.model import Merchant, Owner, Reason, Secret
from tcb_ops.settings import Settings
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError, InvalidResponse
from tcb_ops.wechat.transport import uses_proxy

AT_ONCE = 64
"""Accounts asked about at the same time."""
ONCE = RunLimits(attempts=1)

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Progress = Callable[[int, int], None]


def ignore(*_: object) -> None:
    """Do nothing: the default for `progress` and `notify`."""


def _no_tokens(error: StoppedError) -> Issue:
    """Return the issue of a token source that has no token for anybody; it may name an errcode."""
    told = error.reason.params if error.reason is not None else {}
    code, errmsg = str(told.get("errcode", NO_TOKENS)), str(told.get("errmsg", ""))
    return Issue(code, error.problem, error.fix or error.problem, errmsg, error)


def _issue_of(failure: CallFailure, owner: Owner) -> Issue:
    answer = failure.answer
    if failure.step is NextStep.REFRESH:
        renewal = presumed_verdict("component" if owner is Owner.PLATFORM else Reason.DEAD_TOKEN)
        meaning = _("Its token was refused, and the token source returned the same token again.")
        return Issue(Reason.DEAD_TOKEN, meaning, renewal.action, getattr(answer, "errmsg", ""))
    if isinstance(answer, ApiError):
        code, errmsg, entry = answer.errcode, answer.errmsg, errcode(answer.errcode, owner)
        stop = refused_platform(code, errmsg) if failure.step is NextStep.STOP_RUN else None
        return Issue(str(code), entry.meaning, entry.action, errmsg, stop)
    why = answer.why if isinstance(answer, InvalidResponse) else answer.text
    action = _("Check the network and any proxy on the way, then run the check again.")
    return Issue(Reason.NO_ANSWER, why, action, stop=OutageError(why) if failure.unreachable else None)


COMPONENT_CODES = frozenset({Reason.DEAD_TOKEN, Reason.NO_TOKEN, "40001", "40014", "42001", "48001", "61014"})
"""Issues of the token itself. With the component token they concern no merchant."""


MOST_CALLS = 5
"""Calls about one account and row."""
RID_SECONDS = 7 * 86_400
"""For which the platform keeps what it received."""


@dataclass(slots=True)
class Probes:
    """The questions to the platform about accounts."""

    caller: Caller
    client: PlatformClient
    component: str
    """The platform's own appid; empty if it is not known."""
    stops: bool = True
    """Whether an issue that concerns every merchant is raised; else it is the answer, like any other."""
    component_issue: Issue | None = None
    """Why the component token does not work, once that is known."""
    calls: Counter[str] = field(default_factory=Counter)
    """The calls that were made about each account."""
    answers: dict[str, Answers] = field(default_factory=dict)
    locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def account(
        self,
        appid: str,
        owner: Owner = Owner.MERCHANT,
        environments: Mapping[str, str] | None = None,
        quota: Quota | Issue | None = None,
    ) -> Answers:
        """Ask about an account: its environments, its link calls of today, and what it granted to the platform.

        What is given has been asked already. An account of the platform's own needs no grant. Without a working token there
        is nothing else to ask.
        """
        if not appid:
            return Answers(NEEDS_COMPONENT)
        listed = await self.environments(appid, owner) if environments is None else environments
        if isinstance(listed, Issue) and listed.stop is not None:
            return Answers(listed)
        if quota is None and (not isinstance(listed, Issue) or listed.errcode is not None):
            quota = await self.quota(appid, owner)
        info = await self.grants(appid) if owner is Owner.MERCHANT else None
        return Answers(listed, quota, info, clock=self.client.clock_offset)

    async def environments(self, appid: str, owner: Owner = Owner.MERCHANT) -> dict[str, str] | Issue:
        """Ask for an account's environments, and the status of each."""
        request = partial(interfaces.environments, self.client, owner=owner)
        return await self._ask(appid, appid, request, owner)

    async def quota(self, appid: str, owner: Owner = Owner.MERCHANT) -> Quota | Issue:
        """Ask how many link calls an account has left today."""
        return await self._ask(appid, appid, partial(interfaces.quota, self.client, owner=owner), owner)

    async def about(self, facts: Facts, now: float) -> Facts:
        """Add the answers about a line's account, asked once; of a row, also what the platform received in its call.

        At most MOST_CALLS calls. What is known of the call is not asked again. `now`: Unix seconds.
        """
        appid = self.component if facts.own else facts.merchant.appid
        async with self.locks[appid]:
            if appid not in self.answers:
                owner, quota = facts.merchant.owner, facts.answers.quota
                self.answers[appid] = await self.account(appid, owner, quota=quota)
        request = facts.answers.request
        told = replace(facts, answers=replace(self.answers[appid], request=request))
        if seems_gone(told) and self.calls[appid] < MOST_CALLS:
            line = facts.merchant
            asking = partial(interfaces.link, self.client, env=line.env, path=facts.path, owner=line.owner)
            link = await self._ask(appid, appid, asking, line.owner)
            told = replace(told, answers=replace(told.answers, link=link))
        if facts.code and request is None:
            request = await self._received(appid, facts, now)
        return replace(told, answers=replace(told.answers, request=request))

    async def _received(self, appid: str, facts: Facts, now: float) -> ReceivedRequest | Issue | None:
        if not facts.rid:
            return Issue("no_rid", _("the rows have no rid"), NOTHING)
        if now - facts.ended_at > RID_SECONDS:
            return Issue("old_rid", _("the rid is older than seven days"), NOTHING)
        environments = self.answers[appid].environments
        code = environments.code if isinstance(environments, Issue) else ""
        accepted = not code or presumed(code) in {"set_missing", "no_cloud"}
        caller = appid if accepted else self.component
        if not caller or self.calls[appid] >= MOST_CALLS:
            return None
        request = partial(interfaces.received, self.client, rid=facts.rid)
        return await self._ask(appid, caller, request)

    async def grants(self, appid: str) -> AuthorizerInfo | Issue:
        """Ask which permission sets a merchant granted; the component token's own issue is asked for once."""
        if not self.component:
            return NEEDS_COMPONENT
        if self.component_issue is not None:
            return self.component_issue
        request = partial(interfaces.authorizer, self.client, component=self.component, appid=appid)
        info = await self._ask(appid, self.component, request)
        if isinstance(info, Issue) and info.code in COMPONENT_CODES:
            self.component_issue = info
        return info

    async def authorizers(self, offset: int) -> tuple[int, list[str]] | Issue:
        """Ask how many have authorized the platform, and for the appids of a page from `offset`."""
        request = partial(interfaces.authorizers, self.client, component=self.component, offset=offset)
        return await self._ask(self.component, self.component, request)

    async def _ask(
        self,
        about: str,
        appid: str,
        request: Callable[[Secret], Awaitable[Answer | ApiError | InvalidResponse]],
        owner: Owner = Owner.MERCHANT,
    ) -> Answer | Issue:
        """Make one call with an appid's token; return its result, or the issue that prevents it."""

        async def counted(token: Secret) -> Answer | ApiError | InvalidResponse:
            self.calls[about] += 1
            return await request(token)

        try:
            result = await self.caller.call(appid, counted)
        except TokenError as error:
            issue = Issue(Reason.NO_TOKEN, _("there is no token for it"), error.text)
            if error.transient and not self.caller.source_answered:
                issue = _no_tokens(TokenSourceError(error.text))
        except (PlatformStopError, TokenSourceError) as error:
            issue = _no_tokens(error)
        else:
            if not isinstance(result, CallFailure):
                return result
            issue = _issue_of(result, owner)
        if self.stops and issue.stop is not None:
            raise issue.stop
        if appid == self.component and issue.code in COMPONENT_CODES - {Reason.NO_TOKEN}:
            return replace(issue, action=presumed_verdict("component").action)
        return issue


async def map_concurrently(
    items: Sequence[Item], work: Callable[[Item], Awaitable[Answer]], progress: Progress = ignore
) -> list[Answer]:
    """Do the work for every item, AT_ONCE at a time; return the results in the items' order.

    `progress`: called with the items done and their number. The first exception cancels the others and is raised unchanged.
    """
    room, done = asyncio.Semaphore(AT_ONCE), count(1)

    async def work_in_turn(item: Item) -> Answer:
        async with room:
            result = await work(item)
        progress(next(done), len(items))
        return result

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work_in_turn(item)) for item in items]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def ask_about(
    questions: Sequence[Facts],
    merchants: Iterable[Merchant],
    settings: Settings,
    *,
    now: float = 0.0,
    limits: RunLimits = ONCE,
    stops: bool = False,
    progress: Progress = ignore,
    notify: Callable[[Text], None] = ignore,
) -> list[Facts]:
    """Ask WeChat about lines of the merchants file, or rows; return each with the answers, in their order.

    `merchants`: the whole file, since merchants may share an environment. `now`: Unix seconds, for the age of rows' rids.
    `stops`: raise what concerns every merchant, else that is the answer. `notify`: called for a pause that the platform
    asks for.
    """
    opening = open_client(settings, connections=AT_ONCE, limits=limits, notify=notify)
    async with opening as (client, caller):
        probes = Probes(caller, client, settings.tokens.component_appid, stops)
        answered = await map_concurrently(questions, lambda facts: probes.about(facts, now), progress)
    appids, statuses = defaultdict[str, set[str]](set), dict[str, str]()
    for line in merchants:
        appids[line.env].add(line.appid)
    for facts in answered:
        statuses |= facts.listed or {}
    proxied = uses_proxy(settings.api_base)
    return [
        replace(facts, elsewhere={} if facts.own else statuses, appids=appids, proxied=proxied)
        for facts in answered
    ]
