"""The calls of an audit's environments: for the account, and for a link.

Each appid gets one call for its environments (getenvinfo; describeenvs for the platform's own), one for the link calls
left today and, if the component token is available, one for its permission sets. Each environment gets one call for an
upload link, unless the other responses have decided already: an environment that is HALTED gets none.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial

from tcb_ops.details import Detail, detail
from tcb_ops.errcodes import Decision, Scope, errcode
from tcb_ops.errors import TcbOpsError, TransportError
from tcb_ops.features.audit import REFUSED_TOKENS, UNHEALTHY, AuditCode
from tcb_ops.model import Merchant, Owner, Reason, RowEnd
from tcb_ops.runs.calls import CallContext, Calls, FailedAttempt, SomeEnds
from tcb_ops.runs.scheduler import Task
from tcb_ops.runs.stop_errors import refused_component, refused_platform
from tcb_ops.runs.verdicts import Answers, Facts, Issue, cause_of
from tcb_ops.wechat.call_policy import CallFailure, NextStep, classify
from tcb_ops.wechat.responses import (
    PERMISSIONS as PERMISSION_SETS,
)
from tcb_ops.wechat.responses import (
    ApiError,
    AuthorizerInfo,
    InvalidResponse,
    Quota,
)

QUOTA, PERMISSIONS = "quota", "permissions"
"""Checks that may be left out, by their names in the ledger."""
_NEEDS_NONE = AuthorizerInfo("", PERMISSION_SETS)
"""What stands for the grants of an environment of the platform's own."""


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What the platform answered about an appid and its environments."""

    answers: Answers

    @property
    def detail(self) -> Detail | None:
        """What the ledger keeps about a healthy environment; None if there is nothing to keep."""
        quota, info = self.answers.quota, self.answers.info
        asked = {QUOTA: quota, PERMISSIONS: info}
        not_checked = [name for name, answer in asked.items() if answer is None or isinstance(answer, Issue)]
        figures = quota.figures if isinstance(quota, Quota) else None
        used, limit = (figures["used"], figures["daily_limit"]) if figures else ("–", "–")
        if not_checked:
            return detail(AuditCode.NOT_CHECKED, checks=", ".join(not_checked), used=used, limit=limit)
        return detail(AuditCode.LINK_CALLS, used=used, limit=limit) if figures else None

    def cause(self, env: str, owner: Owner) -> tuple[Reason, int | None, Detail | None] | None:
        """Return the reason, errcode and detail of a cause for which an environment gets no link call; None for others.

        An environment that the account does not list may be shared by another account: only the link call shows whether
        it works. See the table of `verdicts.cause_of`.
        """
        facts = Facts(merchant=Merchant("", "", env, owner=owner), answers=self.answers)
        name = cause_of(facts)
        if name not in _DECIDED:
            return None
        reason, code = _DECIDED[name]
        unusual = name == "unavailable"
        return reason, code, detail(AuditCode.ENV_STATUS, status=facts.status) if unusual else None


_DECIDED = {
    "set_missing": (Reason.REFUSED, 61007),
    "halted": (Reason.HALTED, None),
    "unavailable": (Reason.UNAVAILABLE, None),
    "quota_used": (Reason.REFUSED, 45009),
    "component_quota": (Reason.REFUSED, 45009),
}
"""The causes for which no link is requested, with the reason and the errcode of the environment's end."""


@dataclass(slots=True)
class _Account:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    answer: AccountFacts | ApiError | None = None
    """What it answered for good; None before that."""


class AuditCalls(Calls):
    """The calls of an audit. An environment that its account's answers have decided gets no link."""

    def __init__(self, context: CallContext) -> None:
        super().__init__(context)
        self._accounts: dict[tuple[str, Owner], _Account] = {}
        self._component, self._component_appid = self.component, context.settings.tokens.component_appid

    def forget(self, appid: str, owner: Owner) -> None:
        """Forget what was found about an account of which no environment is left."""
        self._accounts.pop((appid, owner), None)

    async def advance(self, task: Task) -> RowEnd | FailedAttempt | SomeEnds:
        """Make the calls of an environment until it ends or one fails."""
        try:
            facts = await self._facts(task)
        except TransportError as error:
            return self._no_answer(task, error, "link")
        if not isinstance(facts, AccountFacts):
            return self._refused(task, facts)
        if (cause := facts.cause(task.row.env, task.lane.owner)) is not None:
            reason, code, message = cause
            return self._end(task, UNHEALTHY, reason, message, errcode=code)
        link = await self._current_link(task)
        return (
            link
            if isinstance(link, FailedAttempt)
            else replace(self._linked(task, link), detail=facts.detail)
        )

    # --- the account ----------------------------------------------------------------------------------------------

    async def _facts(self, task: Task) -> AccountFacts | ApiError | InvalidResponse:
        """Return the facts about an account, asked for once, however many of its environments wait for them.

        A permanent refusal is kept, too. Raises TransportError, and PlatformStopError for a refused component token.
        """
        appid, owner = task.lane.app.appid, task.lane.owner
        account = self._accounts.setdefault((appid, owner), _Account())
        async with account.lock:
            if account.answer is not None:
                return account.answer
            environments = await self.wechat.environments(task.token, owner)
            self.last_answer = self.clock()
            task.counts.calls += 1
            if isinstance(environments, InvalidResponse):
                return environments
            if isinstance(environments, ApiError):
                decision, _scope = classify(environments)
                if decision in {Decision.STOP, Decision.FIX} and errcode(environments.errcode).known:
                    account.answer = environments
                return environments
            links = await self._link_calls(task)
            task.counts.calls += 1
            info = await self._grants(appid) if owner is not Owner.PLATFORM else _NEEDS_NONE
            account.answer = AccountFacts(Answers(environments, links, info))
            return account.answer

    async def _link_calls(self, task: Task) -> Quota | None:
        """Return today's link calls; None if they could not be checked."""
        try:
            quota = await self.wechat.quota(task.token, task.lane.owner)
        except TransportError:
            return None
        if isinstance(quota, ApiError) and classify(quota) == (Decision.STOP, Scope.PLATFORM):
            raise refused_platform(quota.errcode, quota.errmsg)
        return None if isinstance(quota, ApiError | InvalidResponse) else quota

    async def _grants(self, appid: str) -> AuthorizerInfo | None:
        """Return which permission sets a merchant granted; None if that could not be checked."""
        if self._component is None:
            return None
        try:
            info: AuthorizerInfo | CallFailure = await self._component.call(
                self._component_appid, partial(self.wechat.authorizer, appid=appid)
            )
        except TcbOpsError:  # there is no component token: it is not requested again for others
            self._component = None
            return None
        if isinstance(info, AuthorizerInfo):
            return info
        answer = info.answer
        if isinstance(answer, ApiError):
            if info.step is NextStep.STOP_RUN:
                raise refused_platform(answer.errcode, answer.errmsg)
            if answer.errcode in REFUSED_TOKENS:
                raise refused_component(self._component_appid, answer.errcode, answer.errmsg)
        return None
