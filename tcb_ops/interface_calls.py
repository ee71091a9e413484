"""Single calls for ad-hoc work: one upload link, or any interface of the platform."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from tcb_ops.arguments import checked
from tcb_ops.errors import (
    ArgumentError,
    RefusedError,
    SettingsError,
    TcbOpsError,
    TokenError,
    TransportError,
    TransportFault,
    UsageError,
    check_value,
)
from tcb_ops.i18n import _
from tcb_ops.model import Link, Merchant, Owner, Secret
from tcb_ops.secrets import redact
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, merchants_file, opened_target, settings_for

if TYPE_CHECKING:
    from tcb_ops.engine.single_calls import CallFailure
    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.wechat.client import PlatformClient
    from tcb_ops.wechat.responses import ApiError, InvalidResponse, UnsafeLink

Answer = TypeVar("Answer")

_INTERFACE = re.compile(r"[a-z][a-z0-9_-]*(/[A-Za-z0-9_-]+){1,4}")
_COMPONENT = ("cgi-bin/component/", "componenttcb/")
"""The beginnings of the interfaces that take the component token."""
_OF_TCB = (
    *("batchdownloadfile", "batchgetenvid", "describeenvs", "getbucket", "getenvinfo", "staticfilelist"),
    *("describestaticstore", "uploadfile"),
)
READING = frozenset(
    {
        *(f"{room}/{name}" for room in ("tcb", "componenttcb") for name in _OF_TCB),
        *(f"cgi-bin/component/api_get_authorizer_{name}" for name in ("info", "list", "option")),
        *("cgi-bin/openapi/quota/get", "cgi-bin/openapi/rid/get"),
    }
)
"""The interfaces that are known to change nothing; any other counts as one that does."""
_OF_ROWS = frozenset({"row_wrong", "env_gone", "of_another_interface"})
"""Causes that are told of the rows of a list: another interface means another argument by their errcodes."""
_SECRET_KEY = re.compile(
    "token|secret|authorization|ticket|auth_code|signature|cos_file_id|^url$", re.IGNORECASE
)


def takes_component_token(interface: str) -> bool:
    """Return whether an interface is known to take the component token."""
    return interface.startswith(_COMPONENT)


def hidden(answer: Any, *, secret: bool = False) -> Any:
    """Return an answer with each secret in it, such as a token or a link, as a Secret; `secret`: whether its texts are."""
    if isinstance(answer, Mapping):
        return {
            key: hidden(value, secret=_SECRET_KEY.search(key) is not None) for key, value in answer.items()
        }
    if isinstance(answer, list):
        return [hidden(value, secret=secret) for value in answer]
    is_secret = isinstance(answer, str) and answer and (secret or redact(answer) != answer)
    return Secret(answer) if is_secret else answer


@checked
def call(
    merchant: str | None,
    interface: str,
    body: Mapping[str, object] | None = None,
    *,
    as_component: bool | None = None,
    **options: Unpack[TargetOptions],
) -> dict[str, Any]:
    """Call an interface of the platform, such as `tcb/getenvinfo`, and return its answer. Python never asks.

    The token is renewed once if it is refused, and 45011 pauses the call. Secrets in the answer, such as tokens and links,
    are `Secret`s: only `.reveal()` shows them.

    Args:
        merchant: its name or appid in the merchants file, or an appid; None if the interface takes the component token.
        interface: without the leading slash.
        body: a JSON object; None: an empty one. `cgi-bin/component/…` gets the component's appid where it lacks it.
        as_component: use the component token, not the merchant's; None: as the interface is known to take it.
        options: see TargetOptions.

    Raises UsageError (unknown merchant, no interface, no component), TokenError, TransportError, RefusedError (the platform's errcode).

    """
    settings = settings_for(options)
    written = _INTERFACE.fullmatch(interface) is not None
    check_value("interface", interface, written, _("an interface's name, such as tcb/getenvinfo"))
    component = takes_component_token(interface) if as_component is None else as_component
    appid = settings.tokens.component_appid if component else _appid_of(merchant or "", settings)
    if not appid:
        text = _("{interface} takes the component token: set tokens.component_appid in the settings.")
        raise SettingsError(text.format(interface=interface))
    sent = dict(body or {})
    try:
        json.dumps(sent, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise ArgumentError("body", body, _("an object that JSON can express")) from None
    if interface.startswith("cgi-bin/component/"):
        sent.setdefault("component_appid", appid)

    def request(
        client: PlatformClient, token: Secret
    ) -> Awaitable[dict[str, Any] | ApiError | InvalidResponse]:
        return client.call(interface, sent, token)

    with opened_target(settings, lambda: _merchants(settings)) as opened:
        owner = Owner.PLATFORM if component else Owner.MERCHANT
        of_row = interface.endswith("/uploadfile")
        answer: dict[str, Any] = _made(
            appid, request, opened, owner, once=interface not in READING, of_row=of_row
        )
    shown: dict[str, Any] = hidden(answer)
    return shown


def _merchants(settings: Settings) -> tuple[Merchant, ...]:
    from tcb_ops.lists.merchants import read_merchants

    return tuple(read_merchants(settings.merchants).whole) if settings.merchants.exists() else ()


def _appid_of(merchant: str, settings: Settings) -> str:
    """Return the appid of a merchant of the file, or the argument if it is an appid itself."""
    from tcb_ops.lists.merchants import read_merchants

    lines = read_merchants(settings.merchants).whole.resolve(merchant) if settings.merchants.exists() else ()
    appids = {line.appid for line in lines} or {merchant} & set(re.findall(r"^wx[0-9A-Za-z]{4,}$", merchant))
    if len(appids) == 1:
        return appids.pop()
    if appids:
        fix = _("Give the appid of one of them.")
        raise UsageError(_("{merchant} means several merchants.", merchant=merchant), fix)
    fix = _("Give a name or appid of the merchants file, {file}.", file=merchants_file(settings))
    raise UsageError(_("There is no merchant {merchant}.", merchant=merchant or "-"), fix)


@checked
def upload_link(env: str, path: str, *, appid: str | None = None, **options: Unpack[TargetOptions]) -> Link:
    """Request one upload link, for ad-hoc work. Only `.reveal()` shows its secret parts.

    `appid` is needed if several merchants share the environment. Raises UsageError (unknown env, bad path),
    TokenError, TransportError, RefusedError (the platform's errcode).
    """
    from tcb_ops.engine.stop_errors import NO_COMPONENT
    from tcb_ops.lists.merchants import read_merchants
    from tcb_ops.lists.paths import path_problem
    from tcb_ops.wechat.responses import UnsafeLink

    settings = settings_for(options)
    if (problem := path_problem(path)) is not None:
        raise UsageError(_("path: {wrong}.", wrong=problem[0]))
    merchants = read_merchants(merchants_file(settings))
    merchant = line_of(merchants, env, appid or "")
    appid = merchant.appid if merchant.owner is Owner.MERCHANT else settings.tokens.component_appid
    if not appid:
        raise TokenError(NO_COMPONENT)

    def request(
        client: PlatformClient, token: Secret
    ) -> Awaitable[Link | ApiError | InvalidResponse | UnsafeLink]:
        return client.upload_link(merchant.env, path, token, merchant.owner)

    with opened_target(settings, lambda: merchants) as opened:
        link = cast("Link | UnsafeLink", _made(appid, request, opened, merchant.owner))
    if isinstance(link, UnsafeLink):
        raise TransportError(TransportFault.GARBAGE, link.why)
    return link


def line_of(merchants: Merchants, env: str, appid: str = "", *, merchant: str = "") -> Merchant:
    """Return the line of the merchants file for an environment, or a merchant. Raises UsageError."""
    from tcb_ops.lists.merchants import Unresolved, resolve

    line = resolve(merchants, env, merchant, appid)
    assert line is not None  # noqa: S101  only --where leaves lines out
    if isinstance(line, Unresolved):
        name, message, fix = line.column, line.message, line.fix
        raise UsageError(_("{name}: {message}; {fix}.", name=name, message=message, fix=fix))
    return line


def _made(
    appid: str,
    request: Callable[[PlatformClient, Secret], Awaitable[Answer | ApiError | InvalidResponse]],
    settings: Settings,
    owner: Owner,
    *,
    once: bool = False,
    of_row: bool = True,
) -> Answer:
    """Make a call with an appid's token and return its answer. Raises the errors of `call`.

    `once`: what may change something is not sent again where its answer was lost: it may cost money twice.
    `of_row`: whether it asks for a row's link, so that the advice about rows fits.
    """
    from tcb_ops.engine.loop import result_of, submit_coroutine
    from tcb_ops.engine.single_calls import CallFailure, open_client

    async def made() -> Answer | CallFailure:
        async with open_client(settings) as (client, caller):
            caller.limits = replace(caller.limits, attempts=1) if once else caller.limits
            return await caller.call(appid, lambda token: request(client, token))

    result: Answer | CallFailure = result_of(submit_coroutine(made()))
    if isinstance(result, CallFailure):
        raise error_of(result, owner, of_row=of_row)
    return result


def error_of(failure: CallFailure, owner: Owner, *, of_row: bool = True) -> TcbOpsError:
    """Return the error of a failed call; `owner`: of the environment that it was about. `of_row`: as in `_made`."""
    from tcb_ops.catalogue import Decision, errcode
    from tcb_ops.wechat.responses import ApiError

    match failure.answer:
        case TransportError() as error:
            return error
        case ApiError(errcode=code, errmsg=errmsg):
            entry = errcode(code, owner)
            if not of_row and entry.cause in _OF_ROWS:
                text = _("errcode {errcode} {errmsg}.", errcode=code, errmsg=errmsg)
                fix = _("Compare the body with the documentation of the interface.")
                return RefusedError(text, code, fix=fix)
            text = _("errcode {errcode} {errmsg}: {meaning}")
            text = text.format(errcode=code, errmsg=errmsg, meaning=entry.meaning)
            waits = not of_row and entry.decision is Decision.RETRY
            fix = _("Wait, then make the same call again.") if waits else entry.action
            return RefusedError(text, code, fix=fix)
        case unusable:
            return TransportError(TransportFault.GARBAGE, unusable.why)
