"""An audit's checks of an environment: which calls are made, and what their answers make of it.

Each appid is asked once for its environments (getenvinfo; describeenvs for the platform's own), once for the link calls
left today and, where the component token can be had, once for its permission sets. Each environment is asked for one
upload link. What these answers have decided already is not asked: an environment that is HALTED gets no link call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from tcb_ops.details import Detail, DetailCode, detail
from tcb_ops.errcodes import Decision, Scope, errcode, store_code
from tcb_ops.errors import TcbOpsError, TransportError
from tcb_ops.model import Outcome, Owner, Reason, RowEnd, Secret
from tcb_ops.runs.stop_errors import refused_component, refused_platform
from tcb_ops.wechat.call_policy import Caller, CallFailure, NextStep, classify
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError, AuthorizerInfo, InvalidResponse

NORMAL, HALTED = "NORMAL", "HALTED"
REFUSED_TOKENS = frozenset({40001, 40014, 42001})
"""Errcodes of the token itself. Of the component token they concern every merchant."""
QUOTA, PERMISSIONS = "quota", "permissions"
"""Checks that may be left out, as the ledger names them."""


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What an appid's answers say of it and its environments."""

    statuses: Mapping[str, str]
    """Status by environment."""
    left: int | None = None
    """Link calls left today; None where no limit is known, or it was not told."""
    may_upload: bool | None = None
    """Whether a permission set with the upload link is granted; None where it was not asked."""
    not_checked: tuple[str, ...] = ()
    """The checks that could not be made."""


@dataclass(slots=True)
class _Account:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    found: AccountFacts | ApiError | None = None


@dataclass(slots=True)
class AccountChecks:
    """Asks about accounts, each once, however many of its environments wait for the answer."""

    wechat: PlatformClient
    component: Caller | None
    """Makes calls with the component token; None where the settings name no component."""
    component_appid: str
    accounts: dict[tuple[str, Owner], _Account] = field(default_factory=dict)
    component_works: bool = True

    async def ask(
        self, appid: str, owner: Owner, token: Secret
    ) -> tuple[AccountFacts | ApiError | InvalidResponse, int]:
        """Return what is known of an account, and the calls made for it now.

        A refusal that is no matter of time is kept and not asked again. Raises TransportError, and PlatformStopError
        for a refused component token.
        """
        account = self.accounts.setdefault((appid, owner), _Account())
        async with account.lock:
            if account.found is not None:
                return account.found, 0
            found = await self.wechat.environments(token, owner)
            if isinstance(found, InvalidResponse):
                return found, 1
            if isinstance(found, ApiError):
                if classify(found)[0] in {Decision.STOP, Decision.FIX} and errcode(found.errcode).known:
                    account.found = found
                return found, 1
            statuses = {one.env: one.status for one in found}
            left, quota_missing = await self._left(owner, token)
            may_upload, sets_missing = await self._may_upload(appid, owner)
            missing = (*([QUOTA] if quota_missing else []), *([PERMISSIONS] if sets_missing else []))
            account.found = AccountFacts(statuses, left, may_upload, missing)
            return account.found, 2

    async def _left(self, owner: Owner, token: Secret) -> tuple[int | None, bool]:
        """Return the link calls left today, and whether that could not be asked."""
        try:
            found = await self.wechat.quota(token, owner)
        except TransportError:
            return None, True
        if isinstance(found, ApiError) and classify(found) == (Decision.STOP, Scope.PLATFORM):
            raise refused_platform(found.errcode, found.errmsg)
        if isinstance(found, ApiError | InvalidResponse):
            return None, True
        return found.left, False

    async def _may_upload(self, appid: str, owner: Owner) -> tuple[bool | None, bool]:
        """Return whether the merchant granted a set that carries the link, and whether that could not be asked."""
        if owner is Owner.PLATFORM:
            return None, False
        if self.component is None or not self.component_works:
            return None, True
        try:
            found: AuthorizerInfo | CallFailure = await self.component.call(
                self.component_appid, partial(self.wechat.authorizer, appid=appid)
            )
        except TcbOpsError:  # the token source has no component token: others need not ask for it again
            self.component_works = False
            return None, True
        if isinstance(found, AuthorizerInfo):
            return found.may_upload, False
        answer = found.answer
        if isinstance(answer, ApiError):
            if found.step is NextStep.STOP_RUN:
                raise refused_platform(answer.errcode, answer.errmsg)
            if answer.errcode in REFUSED_TOKENS:
                raise refused_component(self.component_appid, answer.errcode, answer.errmsg)
        return None, True


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an environment cannot be worked on."""

    reason: Reason
    errcode: int | None = None
    detail: Detail | None = None


def cause_of(facts: AccountFacts, env: str) -> Cause | None:
    """Return what the account's answers already say against an environment; None where a link is to be asked for.

    ==================  ===========  ==========  ===========
    permission set      status       calls left  cause
    ==================  ===========  ==========  ===========
    not granted         any          any         61007
    granted, not asked  HALTED       any         halted
    granted, not asked  another      any         unavailable
    granted, not asked  NORMAL       0           45009
    granted, not asked  not listed   0           45009
    anything else                                none
    ==================  ===========  ==========  ===========

    An environment that the account does not list may be shared by another: whether it works is for the link to say.
    """
    if facts.may_upload is False:
        return Cause(Reason.REFUSED, 61007)
    status = facts.statuses.get(env, NORMAL)
    if status == HALTED:
        return Cause(Reason.HALTED)
    if status != NORMAL:
        return Cause(Reason.UNAVAILABLE, detail=detail(DetailCode.ENV_STATUS, status=status))
    return Cause(Reason.REFUSED, 45009) if facts.left == 0 else None


_NO_VERDICT = {Reason.NO_ANSWER, Reason.NOT_ASKED}
_FOR_LATER = {Decision.RETRY, Decision.RETRY_ONCE, Decision.SLOW}


def judged(end: RowEnd) -> RowEnd:
    """Return how an audit's environment ends, from how a list's row would have ended.

    ===========================================================  =========
    the row                                                      becomes
    ===========================================================  =========
    linked, uploaded                                             healthy
    an errcode or a store's code that says: later, more slowly   unknown
    any other errcode, stopped rows of the same appid too        unhealthy
    no answer; not asked                                         unknown
    anything else: no token, a store that refuses                unhealthy
    healthy, unhealthy, unknown                                  itself
    ===========================================================  =========
    """
    if end.outcome in {Outcome.HEALTHY, Outcome.UNHEALTHY, Outcome.UNKNOWN}:
        return end
    if end.outcome in {Outcome.LINKED, Outcome.UPLOADED}:
        return replace(end, outcome=Outcome.HEALTHY)
    unknown = end.reason in _NO_VERDICT
    if end.reason is Reason.DEAD_TOKEN:
        unknown = False
    elif end.errcode:
        unknown = errcode(end.errcode).decision in _FOR_LATER
    elif end.store_code:
        unknown = store_code(end.store_code, "", end.http_status or 0).decision in _FOR_LATER
    return replace(end, outcome=Outcome.UNKNOWN if unknown else Outcome.UNHEALTHY)


def not_asked(stopped: Detail) -> RowEnd:
    """Return how the environments end that an audit did not reach because of a problem that affects every merchant."""
    code = stopped.params.get("errcode")
    return RowEnd(
        0,
        Outcome.UNKNOWN,
        Reason.NOT_ASKED,
        stopped,
        errcode=code if isinstance(code, int) else None,
    )
