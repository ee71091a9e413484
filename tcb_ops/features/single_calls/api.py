"""The public function `upload_link`."""

from __future__ import annotations

from typing import Unpack

from tcb_ops.arguments import checked
from tcb_ops.errcodes import errcode
from tcb_ops.errors import RefusedError, TokenError, TransportError, TransportFault, UsageError
from tcb_ops.features.single_calls.caller import CallFailure, open_client
from tcb_ops.i18n import _
from tcb_ops.lists.merchants import Unresolved, read_merchants, resolve
from tcb_ops.lists.paths import path_problem
from tcb_ops.model import Link, Merchant, Owner
from tcb_ops.runs.loop import result_of, submit_coroutine
from tcb_ops.runs.stop_errors import NO_COMPONENT
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, opened_target, settings_for
from tcb_ops.wechat.responses import ApiError, UnsafeLink


@checked
def upload_link(env: str, path: str, *, appid: str | None = None, **options: Unpack[TargetOptions]) -> Link:
    """Request one upload link, for ad-hoc work. Only `.reveal()` shows its secret parts.

    `appid` is needed if several merchants share the environment. Raises UsageError (unknown env, bad path),
    TokenError, TransportError, RefusedError (the platform's errcode).
    """
    settings = settings_for(options)
    if (problem := path_problem(path)) is not None:
        raise UsageError(_("path: {wrong}.", wrong=problem[0]))
    merchants = read_merchants(settings.merchants)
    merchant = resolve(merchants, env, "", appid or "")
    assert merchant is not None  # noqa: S101  only --where leaves lines out
    if isinstance(merchant, Unresolved):
        name, message, fix = merchant.column, merchant.message, merchant.fix
        raise UsageError(_("{name}: {message}; {fix}.", name=name, message=message, fix=fix))
    with opened_target(settings, lambda: merchants) as opened:
        return result_of(submit_coroutine(_request_link(merchant, path, opened)))


async def _request_link(merchant: Merchant, path: str, settings: Settings) -> Link:
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
    match result.answer if isinstance(result, CallFailure) else result:
        case Link() as link:
            return link
        case TransportError() as error:
            raise error
        case ApiError(errcode=code, errmsg=errmsg):
            entry = errcode(code, merchant.owner)
            text = _("errcode {errcode} {errmsg}: {meaning}")
            text = text.format(errcode=code, errmsg=errmsg, meaning=entry.meaning)
            raise RefusedError(text, code, fix=entry.action)
        case unusable:
            raise TransportError(TransportFault.GARBAGE, unusable.why)
