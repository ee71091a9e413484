"""Single calls for an account, outside of runs and ledgers: questions to the platform, and an upload link for ad-hoc work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from tcb_ops.errcodes import errcode
from tcb_ops.errors import (
    OutageError,
    PlatformStopError,
    RefusedError,
    StoppedError,
    TokenError,
    TokenSourceError,
    TransportError,
    TransportFault,
    UsageError,
)
from tcb_ops.i18n import NOTHING, _
from tcb_ops.lists.merchants import Merchants, Unresolved, resolve
from tcb_ops.model import Link, Merchant, Owner, Reason, RowEnd, Secret
from tcb_ops.runs.stop_errors import NO_COMPONENT, refused_platform
from tcb_ops.runs.verdicts import NO_TOKENS, Answers, Issue, presumed, presumed_verdict
from tcb_ops.settings import Settings
from tcb_ops.wechat import open_client
from tcb_ops.wechat.call_policy import Caller, CallFailure, CallLimits, NextStep
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import (
    ApiError,
    AuthorizerInfo,
    InvalidResponse,
    Quota,
    ReceivedRequest,
    UnsafeLink,
)

Answer = TypeVar("Answer")


async def ask(
    caller: Caller,
    appid: str,
    request: Callable[[Secret], Awaitable[Answer | ApiError | InvalidResponse]],
    owner: Owner = Owner.MERCHANT,
) -> Answer | Issue:
    """Make one call for an account; return its result, or the issue that prevents it.

    Raises PlatformStopError for a refusal that concerns every merchant, OutageError if no host could be reached, and
    the token source's errors that concern every merchant.
    """
    try:
        result = await caller.call(appid, request)
    except TokenError as error:
        if error.transient and not caller.source_answered:
            raise TokenSourceError(error.text) from None
        return Issue(Reason.NO_TOKEN, _("There is no token for it."), error.text)
    if not isinstance(result, CallFailure):
        return result
    answer = result.answer
    if isinstance(answer, ApiError) and result.step is NextStep.STOP_RUN:
        raise refused_platform(answer.errcode, answer.errmsg)
    if isinstance(answer, TransportError) and result.unreachable:
        raise OutageError(answer.text)
    return _issue_of(result, owner)


def _issue_of(failure: CallFailure, owner: Owner) -> Issue:
    answer = failure.answer
    if failure.step is NextStep.REFRESH:
        renewal = presumed_verdict("component" if owner is Owner.PLATFORM else Reason.DEAD_TOKEN)
        return Issue(Reason.DEAD_TOKEN, _DEAD_TOKEN, renewal.action, getattr(answer, "errmsg", ""))
    if isinstance(answer, ApiError):
        entry = errcode(answer.errcode, owner)
        return Issue(str(answer.errcode), entry.meaning, entry.action, answer.errmsg)
    return Issue(
        Reason.NO_ANSWER,
        answer.why if isinstance(answer, InvalidResponse) else answer.text,
        _("Check the network and any proxy on the way, then run the check again."),
    )


_DEAD_TOKEN = _("Its token was refused, and the token source returned the same token again.")
_REFUSED = frozenset({Reason.DEAD_TOKEN, "40001", "40014", "42001"})
COMPONENT_CODES = _REFUSED | {Reason.NO_TOKEN, "48001", "61014"}
"""Issues of the token itself. With the component token they concern no merchant."""


MOST_CALLS = 5
"""Calls about one account and row."""
RID_SECONDS = 7 * 86_400
"""For which the platform keeps what it received."""


@dataclass(slots=True)
class Probes:
    """The questions to the platform about accounts. Each raises what concerns every merchant, see `ask`."""

    caller: Caller
    client: PlatformClient
    component: str
    """The platform's own appid; empty if it is not known."""
    component_issue: Issue | None = None
    """Why the component token does not work, once that is known."""
    calls: Counter[str] = field(default_factory=Counter)
    """The calls that were made about each account."""
    answers: dict[str, Answers] = field(default_factory=dict)
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def account(self, appid: str, owner: Owner = Owner.MERCHANT) -> Answers:
        """Ask about an account: its environments, its link calls of today, and what it granted to the platform.

        An account of the platform's own needs no grant. Without a working token there is nothing else to ask.
        """
        environments = await self._ask(appid, appid, partial(self.client.environments, owner=owner), owner)
        quota, info = None, None
        if not isinstance(environments, Issue) or environments.errcode is not None:
            quota = await self._ask(appid, appid, partial(self.client.quota, owner=owner), owner)
        if owner is Owner.MERCHANT:
            info = await self.grants(appid)
        return Answers(environments, quota, info, clock=self.client.clock_offset)

    async def about(self, line: Merchant, end: RowEnd | None, now: float) -> Answers:
        """Ask about a line's account, and what the platform received in the call of a row; at most MOST_CALLS calls.

        What concerns every merchant is an answer here, too.
        """
        own = line.owner is Owner.PLATFORM
        appid = self.component if own else line.appid
        lock = self.locks.setdefault(appid, asyncio.Lock())
        async with lock:
            if appid not in self.answers:
                try:
                    answers = Answers(NEEDS_COMPONENT) if not appid else await self.account(appid, line.owner)
                except (PlatformStopError, OutageError, TokenSourceError) as error:
                    answers = Answers(_issue_of_stop(error))
                self.answers[appid] = answers
        answers = self.answers[appid]
        return (
            answers
            if end is None
            else replace(answers, request=await self._received(appid, end, now, answers))
        )

    async def _received(
        self, appid: str, end: RowEnd, now: float, answers: Answers
    ) -> ReceivedRequest | Issue | None:
        if not end.rid:
            return _NO_RID
        if now - (end.ended_at or 0.0) > RID_SECONDS:
            return _OLD_RID
        environments = answers.environments
        works = not isinstance(environments, Issue) or presumed(environments.code) in {
            "set_missing",
            "no_cloud",
        }
        caller = appid if works else self.component
        if not caller or self.calls[appid] >= MOST_CALLS:
            return None
        try:
            return await self._ask(appid, caller, partial(self.client.received, rid=end.rid), Owner.MERCHANT)
        except (PlatformStopError, OutageError, TokenSourceError) as error:
            return _issue_of_stop(error)

    async def grants(self, appid: str) -> AuthorizerInfo | Issue:
        """Ask which permission sets a merchant granted; the component token's own issue is asked for once."""
        if not self.component:
            return NEEDS_COMPONENT
        if self.component_issue is not None:
            return self.component_issue
        request = partial(self.client.authorizer, appid=appid)
        info = await self._ask(appid, self.component, request, Owner.MERCHANT)
        if isinstance(info, Issue) and info.code in COMPONENT_CODES:
            self.component_issue = info = of_the_component(info)
        return info

    async def _ask(
        self,
        about: str,
        appid: str,
        request: Callable[[Secret], Awaitable[Answer | ApiError | InvalidResponse]],
        owner: Owner,
    ) -> Answer | Issue:
        async def counted(token: Secret) -> Answer | ApiError | InvalidResponse:
            self.calls[about] += 1
            return await request(token)

        return await ask(self.caller, appid, counted, owner)


def _issue_of_stop(error: StoppedError) -> Issue:
    """Return what concerns every merchant as an issue of the account that was asked about."""
    if isinstance(error, PlatformStopError) and error.reason is not None:
        code, errmsg = str(error.reason.params["errcode"]), str(error.reason.params["errmsg"])
        return Issue(code, error.problem, error.fix or error.problem, errmsg)
    code = Reason.NO_ANSWER if isinstance(error, OutageError) else NO_TOKENS
    return Issue(code, error.problem, error.fix or error.problem)


_NO_RID = Issue("no_rid", _("the rows have no rid"), NOTHING)
_OLD_RID = Issue("old_rid", _("the rid is older than seven days"), NOTHING)
NEEDS_COMPONENT = Issue(
    Reason.NO_TOKEN,
    _("that needs the component token, and no component_appid is set"),
    _("Set component_appid under [tokens], and make sure that the token source can provide its token."),
)


def of_the_component(issue: Issue) -> Issue:
    """Return an issue of the component token with the action for that token, not for a merchant's."""
    if issue.code in _REFUSED:
        return replace(issue, action=presumed_verdict("component").action)
    if issue.code not in COMPONENT_CODES or issue.code == Reason.NO_TOKEN:
        return issue
    action = _("Make sure that component_appid is the third-party platform's own appid.")
    return replace(issue, action=action)


def merchant_of(env: str, appid: str | None, merchants: Merchants) -> Merchant:
    """Return the merchant with this environment, by the rules for a row of a list. Raises UsageError."""
    merchant = resolve(merchants, env, "", appid or "")
    assert merchant is not None  # noqa: S101  only --where leaves lines out
    if isinstance(merchant, Unresolved):
        name, message, fix = merchant.column, merchant.message, merchant.fix
        raise UsageError(_("{name}: {message}; {fix}.", name=name, message=message, fix=fix))
    return merchant


async def calls_left(appids: Sequence[str], settings: Settings) -> dict[str, int]:
    """Ask how many link calls each merchant has left today; those of whom the platform tells no limit are left out.

    Raises what concerns every merchant, see `ask`.
    """
    async with open_client(settings, limits=CallLimits(attempts=1)) as (client, caller):
        quotas = await asyncio.gather(*(ask(caller, appid, client.quota) for appid in appids))
    found = zip(appids, quotas, strict=True)
    return {appid: q.left for appid, q in found if isinstance(q, Quota) and q.left is not None}


async def request_link(merchant: Merchant, path: str, settings: Settings) -> Link:
    """Request an upload link. Raises TokenError, TransportError, RefusedError."""
    appid = merchant.appid
    if merchant.owner is Owner.PLATFORM:
        appid = settings.tokens.component_appid
        if not appid:
            raise TokenError(NO_COMPONENT)
    async with open_client(settings) as (client, caller):
        result: Link | UnsafeLink | CallFailure = await caller.call(
            appid, lambda token: client.upload_link(merchant.env, path, token, merchant.owner)
        )
    answer = result.answer if isinstance(result, CallFailure) else result
    if isinstance(answer, Link):
        return answer
    if isinstance(answer, TransportError):
        raise answer
    if not isinstance(answer, ApiError):  # no usable link
        raise TransportError(TransportFault.GARBAGE, answer.why)
    entry = errcode(answer.errcode, merchant.owner)
    raise RefusedError(
        _(
            "errcode {errcode} {errmsg}: {meaning}",
            errcode=answer.errcode,
            errmsg=answer.errmsg,
            meaning=entry.meaning,
        ),
        answer.errcode,
        fix=entry.action,
    )
