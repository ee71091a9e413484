"""Single calls for an account, outside of runs and ledgers: questions to the platform, and an upload link for ad-hoc work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tcb_ops.errcodes import errcode
from tcb_ops.errors import (
    OutageError,
    RefusedError,
    TokenError,
    TokenSourceError,
    TransportError,
    TransportFault,
    UsageError,
)
from tcb_ops.i18n import Lang, Text, _
from tcb_ops.lists.merchants import Merchants, Unresolved, resolve
from tcb_ops.model import Link, Merchant, Owner, Reason, Secret
from tcb_ops.runs.stop_errors import NO_COMPONENT, refused_platform
from tcb_ops.settings import Settings
from tcb_ops.wechat import open_client
from tcb_ops.wechat.call_policy import Caller, CallFailure, NextStep
from tcb_ops.wechat.responses import ApiError, InvalidResponse, UnsafeLink

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Issue:
    """A problem of a merchant, and what to do about it."""

    code: str
    """An errcode, or one of our own: `no_token`, `dead_token`, `no_answer`, `halted` …"""
    meaning: Text
    action: Text
    errmsg: str = ""
    """As sent by the platform."""

    @property
    def errcode(self) -> int | None:
        """The code as a number, if it is an errcode."""
        return int(self.code) if self.code.lstrip("-").isdigit() else None

    def as_dict(self, lang: Lang) -> dict[str, Any]:
        """Return all fields, for JSON and data frames."""
        return {
            "code": self.code,
            "errcode": self.errcode,
            "meaning": self.meaning.of(lang),
            "action": self.action.of(lang),
            "errmsg": self.errmsg,
        }


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
        return _DEAD_COMPONENT_TOKEN if owner is Owner.PLATFORM else _DEAD_TOKEN
    if isinstance(answer, ApiError):
        entry = errcode(answer.errcode, owner)
        return Issue(str(answer.errcode), entry.meaning, entry.action, answer.errmsg)
    return Issue(
        Reason.NO_ANSWER,
        answer.why if isinstance(answer, InvalidResponse) else answer.text,
        _("Check the network and any proxy on the way, then run the check again."),
    )


RENEW_COMPONENT = _(
    "Let the token source refresh the component token, and make sure that only one program refreshes it."
)
_DEAD_TOKEN = Issue(
    Reason.DEAD_TOKEN,
    _("Its token was refused, and the token source returned the same token again."),
    _("Let the token source refresh it; if that does not help, ask the merchant to authorize again."),
)
_DEAD_COMPONENT_TOKEN = replace(_DEAD_TOKEN, action=RENEW_COMPONENT)


def merchant_of(env: str, appid: str | None, merchants: Merchants) -> Merchant:
    """Return the merchant with this environment, by the rules for a row of a list. Raises UsageError."""
    merchant = resolve(merchants, env, "", appid or "")
    assert merchant is not None  # noqa: S101  only --where leaves lines out
    if isinstance(merchant, Unresolved):
        name, message, fix = merchant.column, merchant.message, merchant.fix
        raise UsageError(_("{name}: {message}; {fix}.", name=name, message=message, fix=fix))
    return merchant


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
