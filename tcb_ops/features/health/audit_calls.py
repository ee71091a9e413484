"""The calls of an audit's environments: for the account, and for a link.

Each appid gets one call for its environments (getenvinfo; describeenvs for the platform's own), one for the link calls
left today and, if the component token is available, one for its permission sets. Each environment gets one call for an
upload link, unless the other responses have decided already: an environment that is HALTED gets none.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from tcb_ops.catalogue import Decision, errcode
from tcb_ops.details import Detail, detail
from tcb_ops.engine.calls import CallContext, Calls, FailedAttempt, SomeEnds
from tcb_ops.engine.limits import classify
from tcb_ops.engine.scheduler import Task
from tcb_ops.engine.single_calls import Caller
from tcb_ops.engine.stop_errors import stopped
from tcb_ops.errors import OutageError, PlatformStopError, TokenSourceError, TransportError
from tcb_ops.features.health import NO_ENV, REFUSED_TOKENS, UNAVAILABLE, UNHEALTHY, AuditCode, interfaces
from tcb_ops.features.health.interfaces import Quota
from tcb_ops.features.health.questions import Probes
from tcb_ops.features.health.verdicts import Answers, Facts, Issue, Verdict, cause_of, presumed, verdict_of
from tcb_ops.model import Merchant, Owner, Reason, RowEnd
from tcb_ops.wechat.responses import ApiError, InvalidResponse

QUOTA, PERMISSIONS = "quota", "permissions"
"""Checks that may be left out, by their names in the ledger."""
_DECIDING = frozenset({"set_missing", "halted", "unavailable", "quota_used", "component_quota"})
"""The causes for which no link is requested."""


def healthy_detail(facts: Facts) -> Detail | None:
    """Return what the ledger keeps about a healthy environment; None if there is nothing to keep."""
    quota, info = facts.answers.quota, facts.answers.info
    asked = {QUOTA: quota} if facts.own else {QUOTA: quota, PERMISSIONS: info}
    not_checked = [name for name, answer in asked.items() if answer is None or isinstance(answer, Issue)]
    figures = quota.figures if isinstance(quota, Quota) else None
    used, limit = (figures["used"], figures["daily_limit"]) if figures else ("–", "–")
    if not_checked:
        return detail(AuditCode.NOT_CHECKED, checks=", ".join(not_checked), used=used, limit=limit)
    return detail(AuditCode.LINK_CALLS, used=used, limit=limit) if figures else None


def deciding(facts: Facts) -> Verdict | None:
    """Return the verdict on an environment that gets no link call, by what its account answered; None for others.

    An environment that the account does not list may be shared by another account: only the link call shows whether
    it works.
    """
    verdict = verdict_of(facts)
    return verdict if verdict is not None and verdict.cause in _DECIDING else None


def refused_component(appid: str, code: int, errmsg: str) -> PlatformStopError:
    """Return the error for an audit whose component token the platform refuses, even a new one."""
    facts = {"appid": appid, "errcode": code, "errmsg": errmsg or "-", "owner": Owner.PLATFORM}
    return stopped(PlatformStopError, AuditCode.COMPONENT_TOKEN, **facts)


class AuditCalls(Calls):
    """The calls of an audit. An environment that its account's answers have decided gets no link."""

    def __init__(self, context: CallContext) -> None:
        super().__init__(context)
        caller, component = Caller(context.tokens, context.limits), context.settings.tokens.component_appid
        caller.source_answered = True  # the engine has the merchants' tokens from it
        self._probes = Probes(caller, self.wechat, component)
        self._answered: dict[tuple[str, Owner], Answers | ApiError] = {}
        """What accounts answered for good."""

    def forget(self, appid: str, owner: Owner) -> None:
        """Forget what was found about an account of which no environment is left."""
        self._answered.pop((appid, owner), None)

    async def advance(self, task: Task) -> RowEnd | FailedAttempt | SomeEnds:
        """Make the calls of an environment until it ends or one fails."""
        try:
            answers = await self._answers(task)
        except TransportError as error:
            return self._no_answer(task, error, "link")
        if not isinstance(answers, Answers):
            return self._refused(task, answers)
        facts = Facts(merchant=Merchant("", "", task.row.env, owner=task.lane.owner), answers=answers)
        if (verdict := deciding(facts)) is not None:
            code, _space, _component = verdict.code.partition(" ")
            if code.isdigit():
                return self._end(task, UNHEALTHY, Reason.REFUSED, errcode=int(code))
            unusual = detail(AuditCode.ENV_STATUS, status=facts.status) if code == UNAVAILABLE else None
            return self._end(task, UNHEALTHY, Reason(code), unusual)
        link = await self._current_link(task)
        if isinstance(link, FailedAttempt):
            code = str(link.end.errcode)
            if presumed(code) == "env_gone" and cause_of(replace(facts, code=code)) == "no_env":
                return self._end(task, UNHEALTHY, NO_ENV)
            return link
        return replace(self._linked(task, link), detail=healthy_detail(facts))

    async def _answers(self, task: Task) -> Answers | ApiError | InvalidResponse:
        """Return what an account answered, asked once, however many of its environments wait for it.

        A permanent refusal is kept, too. Raises TransportError, and PlatformStopError for a refused component token.
        """
        appid, owner = task.lane.app.appid, task.lane.owner
        async with self._probes.locks[appid]:
            if (answered := self._answered.get((appid, owner))) is not None:
                return answered
            environments = await interfaces.environments(self.wechat, task.token, owner)
            self.last_answer = self.clock()
            task.counts.calls += 1
            if isinstance(environments, InvalidResponse):
                return environments
            if isinstance(environments, ApiError):
                decision, _scope = classify(environments)
                if decision in {Decision.STOP, Decision.FIX} and errcode(environments.errcode).known:
                    self._answered[appid, owner] = environments
                return environments
            self._probes.caller.tokens[appid] = task.token
            answers = Answers(environments)
            with suppress(OutageError, TokenSourceError):  # the call for the link tells
                answers = await self._probes.account(appid, owner, environments)
            info = answers.info
            if isinstance(info, Issue) and (info.errcode in REFUSED_TOKENS or info.code == Reason.DEAD_TOKEN):
                raise refused_component(self._probes.component, info.errcode or 40001, info.errmsg)
            self._answered[appid, owner] = answers
            return answers
