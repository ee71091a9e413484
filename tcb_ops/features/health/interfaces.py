"""The platform's interfaces that tell about accounts and calls, and what their answers mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from tcb_ops.formatting import trim
from tcb_ops.i18n import Text, _
from tcb_ops.model import Link, Owner, Secret
from tcb_ops.wechat.responses import (
    ApiError,
    InvalidResponse,
    UnsafeLink,
    count_in,
    missing_field,
    objects_in,
    text_in,
)
from tcb_ops.wechat.tokens import read_object

if TYPE_CHECKING:
    from tcb_ops.wechat.client import PlatformClient  # loads the HTTP client, which a verdict does not need

PERMISSIONS = frozenset({49, 64})
"""The permission sets that include tcb/uploadfile; one is enough. 49 is 小程序云开发管理; only older pages list 64."""
ENVIRONMENTS = {Owner.MERCHANT: "tcb/getenvinfo", Owner.PLATFORM: "componenttcb/describeenvs"}
AUTHORIZER, QUOTA = "cgi-bin/component/api_get_authorizer_info", "cgi-bin/openapi/quota/get"
_LONGEST_NAME = 200
_INTERFACE = re.compile(r"/?[a-z_/-]+")
_NAME = re.compile(r"[a-z_]{1,40}")
_IP = re.compile(r"[0-9A-Fa-f.:]{2,45}")


@dataclass(frozen=True, slots=True)
class AuthorizerInfo:
    """A mini program that authorized the platform."""

    name: str
    """Its display name; may be empty."""
    permissions: frozenset[int]
    """The permission sets that it granted."""
    unconfirmed: bool = False
    """Whether those for upload links wait for the platform's confirmation (confirm_info of func_info)."""

    @property
    def may_upload(self) -> bool:
        """Whether they include one for upload links."""
        return bool(self.permissions & PERMISSIONS)


@dataclass(frozen=True, slots=True)
class Quota:
    """Calls of one interface per day, midnight to midnight in Beijing."""

    daily_limit: int
    """0 if unknown."""
    used: int
    remain: int

    @property
    def left(self) -> int | None:
        """Calls left today; None if the limit is unknown."""
        return max(0, self.remain) if self.daily_limit > 0 else None

    @property
    def figures(self) -> dict[str, int] | None:
        """The three fields by name; None if the limit is unknown, since then none of them is meaningful."""
        if self.daily_limit <= 0:
            return None
        return {"daily_limit": self.daily_limit, "used": self.used, "remain": self.remain}


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """What the platform received in a call, without tokens and contents."""

    at: float
    """Unix seconds."""
    milliseconds: int
    """Until it was answered."""
    interface: str
    """Path without the query, such as `/tcb/uploadfile`."""
    token: bool
    """Whether a token was in the query."""
    fields: tuple[str, ...]
    """The names in the body's object; none if it was empty or no JSON object."""
    address: str
    """The IP address that the call came from; empty if it is not told."""

    @property
    def text(self) -> Text:
        """Say what was received."""
        text = _("{interface} from {address}, answered in {ms:,} ms; token: {token}; body: {fields}")
        return text.format(
            interface=self.interface or "–",
            address=self.address or "–",
            ms=self.milliseconds,
            token=_("yes") if self.token else _("NO"),
            fields=", ".join(self.fields) or _("none"),
        )


async def authorizers(
    client: PlatformClient, token: Secret, component: str, offset: int
) -> tuple[int, list[str]] | ApiError | InvalidResponse:
    """Return the number of authorizers of the platform, and the appids of up to 500 from `offset`.

    Needs the token of the component, by its appid.
    """
    from tcb_ops.wechat.client import AUTHORIZERS_PER_PAGE

    body = {"component_appid": component, "offset": offset, "count": AUTHORIZERS_PER_PAGE}
    return await client.ask("cgi-bin/component/api_get_authorizer_list", body, token, read_authorizers)


async def authorizer(
    client: PlatformClient, token: Secret, component: str, appid: str
) -> AuthorizerInfo | ApiError | InvalidResponse:
    """Return a mini program's name and permission sets. Needs the token of the component, by its appid."""
    body = {"component_appid": component, "authorizer_appid": appid}
    return await client.ask(AUTHORIZER, body, token, read_authorizer)


async def environments(
    client: PlatformClient, token: Secret, owner: Owner = Owner.MERCHANT
) -> dict[str, str] | ApiError | InvalidResponse:
    """Return the environments of the token's mini program, or with the component token those of the platform.

    Each with its status: NORMAL, HALTED (unpaid, over quota or banned) or UNAVAILABLE.
    """
    return await client.ask(ENVIRONMENTS[owner], {}, token, read_environments)


async def quota(
    client: PlatformClient, token: Secret, owner: Owner = Owner.MERCHANT
) -> Quota | ApiError | InvalidResponse:
    """Return today's quota of upload link calls."""
    from tcb_ops.wechat.client import INTERFACES

    counted = {"cgi_path": f"/{INTERFACES[owner]}/uploadfile"}
    return await client.ask(QUOTA, counted, token, read_quota)


async def link(
    client: PlatformClient, token: Secret, env: str, path: str, owner: Owner = Owner.MERCHANT
) -> Literal[True] | ApiError | InvalidResponse:
    """Return whether a link for an upload is issued; it is dropped."""
    answer = await client.upload_link(env, path, token, owner)
    if isinstance(answer, UnsafeLink):
        return InvalidResponse(200, answer.why, retryable=False)
    return True if isinstance(answer, Link) else answer


async def received(
    client: PlatformClient, token: Secret, rid: str
) -> ReceivedRequest | ApiError | InvalidResponse:
    """Return what the platform received in a call of the last seven days, by its rid (openapi/rid/get)."""
    return await client.ask("cgi-bin/openapi/rid/get", {"rid": rid}, token, read_request)


# --- what the answers mean --------------------------------------------------------------------------------------------


def read_authorizers(payload: dict[str, Any]) -> tuple[int, list[str]] | InvalidResponse:
    """Read a page of api_get_authorizer_list, without its refresh tokens: the total of all pages, and appids."""
    total, listed = count_in(payload.get("total_count")), objects_in(payload.get("list"))
    if total is None or listed is None:
        return missing_field("total_count, list")
    return total, [appid for entry in listed if (appid := _name(entry.get("authorizer_appid")))]


def read_authorizer(payload: dict[str, Any]) -> AuthorizerInfo | InvalidResponse:
    """Read the response of api_get_authorizer_info."""
    info, granted = payload.get("authorizer_info"), payload.get("authorization_info")
    if not isinstance(info, dict) or not isinstance(granted, dict):
        return missing_field("authorizer_info, authorization_info")
    sets: dict[int, bool] = {}
    for entry in objects_in(granted.get("func_info")) or ():
        scope, confirmed = entry.get("funcscope_category"), entry.get("confirm_info")
        number = count_in(scope.get("id")) if isinstance(scope, dict) else None
        if number is not None:
            flags = confirmed if isinstance(confirmed, dict) else {}
            sets[number] = bool(flags.get("need_confirm")) and not flags.get("already_confirm")
    waits = [sets[number] for number in PERMISSIONS & sets.keys()]
    return AuthorizerInfo(_name(info.get("nick_name")), frozenset(sets), all(waits) and bool(waits))


def read_environments(payload: dict[str, Any]) -> dict[str, str] | InvalidResponse:
    """Read the response of getenvinfo or describeenvs: the status of each environment."""
    listed = objects_in(payload.get("info_list"))
    if listed is None:
        return missing_field("info_list")
    return {env: _name(entry.get("status")) for entry in listed if (env := _name(entry.get("env")))}


def read_quota(payload: dict[str, Any]) -> Quota | InvalidResponse:
    """Read the response of openapi/quota/get."""
    quota = payload.get("quota")
    if not isinstance(quota, dict):
        return missing_field("quota")
    limit, used, remain = (count_in(quota.get(name)) for name in ("daily_limit", "used", "remain"))
    if limit is None or used is None or remain is None:
        return missing_field("daily_limit, used, remain")
    return Quota(limit, used, remain)


def read_request(payload: dict[str, Any]) -> ReceivedRequest | InvalidResponse:
    """Read the response of openapi/rid/get; of texts that may hold secrets only names and an address are kept."""
    request = payload.get("request")
    if not isinstance(request, dict) or count_in(request.get("invoke_time")) is None:
        return missing_field("request")
    interface, _mark, query = text_in(request.get("request_url")).partition("?")
    parameters = {part.partition("=")[0] for part in query.split("&") if part.partition("=")[2]}
    path = urlsplit(interface).path if "://" in interface else interface
    names = read_object(text_in(request.get("request_body")).encode())
    address = text_in(request.get("client_ip"))
    return ReceivedRequest(
        float(request["invoke_time"]),
        count_in(request.get("cost_in_ms")) or 0,
        path[:_LONGEST_NAME] if _INTERFACE.fullmatch(path) else "",
        bool(parameters & {"access_token", "component_access_token"}),
        tuple(name for name in names if _NAME.fullmatch(name))[:10],
        address if _IP.fullmatch(address) else "",
    )


def _name(value: object) -> str:
    return trim(text_in(value))[:_LONGEST_NAME]
