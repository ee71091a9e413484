"""A single upload link, for ad-hoc work: no run, no ledger."""

from __future__ import annotations

from pathlib import Path

from tcb_ops.errcodes import errcode
from tcb_ops.errors import RefusedError, TokenError, TransportError, TransportFault, UsageError
from tcb_ops.i18n import _, ngettext
from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import Link, Merchant, Owner
from tcb_ops.runs.stop_errors import NO_COMPONENT
from tcb_ops.settings import Settings
from tcb_ops.wechat import open_client
from tcb_ops.wechat.call_policy import CallFailure
from tcb_ops.wechat.responses import ApiError, UnsafeLink


def merchant_of(env: str, appid: str | None, merchants: Merchants, file: Path) -> Merchant:
    """Return the merchant with this environment: the one of this appid, else the one whose default it is, else the only one."""
    callers = merchants.for_env(env)
    if not callers:
        raise UsageError(
            _("env: no merchant of {merchants} has the environment {env}.", merchants=file, env=env),
            _("Use an environment of that file."),
        )
    if appid:
        matching = [merchant for merchant in callers if merchant.appid == appid]
    else:
        matching = [merchant for merchant in callers if merchant.default] or list(callers)
    if len(matching) != 1:
        raise UsageError(
            _(
                "environment {env}: {merchants} match (it has {known}); choose one with appid=.",
                env=env,
                merchants=ngettext("{n:,} merchant", "{n:,} merchants", len(matching)),
                known=", ".join(merchant.appid for merchant in callers),
            )
        )
    return matching[0]


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
