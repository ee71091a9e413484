"""An audit's checks of an environment: which calls are made, and how their responses are judged.

Each appid gets one call for its environments (getenvinfo; describeenvs for the platform's own), one for the link calls
left today and, if the component token is available, one for its permission sets. Each environment gets one call for an
upload link, unless the other responses have decided already: an environment that is HALTED gets none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from tcb_ops.details import Detail, detail
from tcb_ops.errcodes import Decision, Scope, errcode
from tcb_ops.errors import TcbOpsError, TransportError
from tcb_ops.features.audit import REFUSED_TOKENS, AuditCode
from tcb_ops.model import Owner, Reason, Secret
from tcb_ops.runs.stop_errors import refused_component, refused_platform
from tcb_ops.wechat.call_policy import Caller, CallFailure, NextStep, classify
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError, AuthorizerInfo, InvalidResponse, Quota

NORMAL, HALTED = "NORMAL", "HALTED"
QUOTA, PERMISSIONS = "quota", "permissions"
"""Checks that may be left out, by their names in the ledger."""


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """Facts about an appid and its environments, from the platform's responses."""

    statuses: Mapping[str, str]
    """Status by environment."""
    may_upload: bool | None = None
    """Whether a permission set with the upload link is granted; None if not checked."""
    not_checked: tuple[str, ...] = ()
    """The checks that could not be made."""
    links: Quota | None = None
    """Today's link calls; None if no limit is known, or they could not be checked."""

    @property
    def detail(self) -> Detail | None:
        """What the ledger keeps about a healthy environment; None if there is nothing to keep."""
        used, limit = (self.links.used, self.links.daily_limit) if self.links is not None else ("–", "–")
        if self.not_checked:
            return detail(AuditCode.NOT_CHECKED, checks=", ".join(self.not_checked), used=used, limit=limit)
        return detail(AuditCode.LINK_CALLS, used=used, limit=limit) if self.links is not None else None


@dataclass(slots=True)
class _Account:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    answer: AccountFacts | ApiError | None = None


@dataclass(slots=True)
class AccountChecks:
    """Checks of accounts, each made once, however many of its environments wait for the result."""

    wechat: PlatformClient
    component: Caller | None
    """Makes calls with the component token; None if the settings name no component."""
    component_appid: str
    accounts: dict[tuple[str, Owner], _Account] = field(default_factory=dict)
    component_works: bool = True

    async def ask(
        self, appid: str, owner: Owner, token: Secret
    ) -> tuple[AccountFacts | ApiError | InvalidResponse, int]:
        """Return the facts about an account, and the number of calls made for it now.

        A permanent refusal is stored, and the call is not repeated. Raises TransportError, and PlatformStopError for a
        refused component token.
        """
        account = self.accounts.setdefault((appid, owner), _Account())
        async with account.lock:
            if account.answer is not None:
                return account.answer, 0
            environments = await self.wechat.environments(token, owner)
            if isinstance(environments, InvalidResponse):
                return environments, 1
            if isinstance(environments, ApiError):
                decision, _scope = classify(environments)
                if decision in {Decision.STOP, Decision.FIX} and errcode(environments.errcode).known:
                    account.answer = environments
                return environments, 1
            links = await self._links(owner, token)
            may_upload, sets_missing = await self._may_upload(appid, owner)
            account.answer = AccountFacts(
                {environment.env: environment.status for environment in environments},
                may_upload,
                (*([QUOTA] if links is None else []), *([PERMISSIONS] if sets_missing else [])),
                links if links is not None and links.daily_limit > 0 else None,
            )
            return account.answer, 2

    async def _links(self, owner: Owner, token: Secret) -> Quota | None:
        """Return today's link calls; None if they could not be checked."""
        try:
            quota = await self.wechat.quota(token, owner)
        except TransportError:
            return None
        if isinstance(quota, ApiError) and classify(quota) == (Decision.STOP, Scope.PLATFORM):
            raise refused_platform(quota.errcode, quota.errmsg)
        return None if isinstance(quota, ApiError | InvalidResponse) else quota

    async def _may_upload(self, appid: str, owner: Owner) -> tuple[bool | None, bool]:
        """Return whether the merchant granted a set with the upload link, and whether that could not be checked."""
        if owner is Owner.PLATFORM:
            return None, False
        if self.component is None or not self.component_works:
            return None, True
        try:
            info: AuthorizerInfo | CallFailure = await self.component.call(
                self.component_appid, partial(self.wechat.authorizer, appid=appid)
            )
        except TcbOpsError:  # there is no component token: it is not requested again for others
            self.component_works = False
            return None, True
        if isinstance(info, AuthorizerInfo):
            return info.may_upload, False
        answer = info.answer
        if isinstance(answer, ApiError):
            if info.step is NextStep.STOP_RUN:
                raise refused_platform(answer.errcode, answer.errmsg)
            if answer.errcode in REFUSED_TOKENS:
                raise refused_component(self.component_appid, answer.errcode, answer.errmsg)
        return None, True


@dataclass(frozen=True, slots=True)
class EnvironmentCause:
    """Why an environment cannot be worked on."""

    reason: Reason
    errcode: int | None = None
    detail: Detail | None = None


def cause_of(facts: AccountFacts, env: str) -> EnvironmentCause | None:
    """Return the most basic cause for which an environment gets no link call; None if a link is requested.

    ====================================  ===========
    fact                                  cause
    ====================================  ===========
    permission set not granted            61007
    status HALTED                         halted
    another status, but not NORMAL        unavailable
    no link calls left today              45009
    permission set or calls not checked   none
    not listed: no status                 none
    ====================================  ===========

    An environment that the account does not list may be shared by another account: only the link call shows whether
    it works.
    """
    if facts.may_upload is False:
        return EnvironmentCause(Reason.REFUSED, 61007)
    status = facts.statuses.get(env, NORMAL)
    if status == HALTED:
        return EnvironmentCause(Reason.HALTED)
    if status != NORMAL:
        return EnvironmentCause(Reason.UNAVAILABLE, detail=detail(AuditCode.ENV_STATUS, status=status))
    if facts.links is not None and facts.links.left == 0:
        return EnvironmentCause(Reason.REFUSED, 45009)
    return None
