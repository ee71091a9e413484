"""Who authorized the platform, for what, and what their environments are: the interfaces beside the upload link's.

Answers are read here and checked, field by field; refresh tokens that api_get_authorizer_list gives are not kept.
Source: domain.md §2.1-2.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tcb_ops.i18n import Text
from tcb_ops.model import Secret
from tcb_ops.wechat.responses import UNPRINTABLE, Interfaces, InvalidResponse, Refusal

PAGE = 500
"""Authorizers that one answer holds at most."""
PERMISSIONS = frozenset({49, 64})
"""The permission sets that carry tcb/uploadfile: any of them will do. 49 is 小程序云开发管理."""
UPLOADS, COMPONENT_UPLOADS = "/tcb/uploadfile", "/componenttcb/uploadfile"
"""What a link call counts against, as openapi/quota/get wants it: with a leading slash."""
_LONGEST_NAME = 200
_EDGE = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u202f\u205f\u2060\u3000\ufeff"
"""Taken off both ends as reading a merchants file does: a name may be nothing but a zero-width space."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of those who have authorized the platform."""

    total: int
    """Of all pages."""
    appids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Info:
    """A mini program that authorized the platform."""

    name: str
    """Its nick name; empty where it has none."""
    permissions: frozenset[int]
    """The permission sets it granted."""

    @property
    def may_upload(self) -> bool:
        """Whether a set that carries the upload link is among them."""
        return bool(self.permissions & PERMISSIONS)


@dataclass(frozen=True, slots=True)
class Environment:
    """A cloud environment of a mini program, or of the platform."""

    env: str
    status: str
    """NORMAL, HALTED (unpaid, over quota or banned) or UNAVAILABLE."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Calls of one interface a day, midnight to midnight in Beijing."""

    daily_limit: int
    """0: no limit is known."""
    used: int
    remain: int

    @property
    def left(self) -> int | None:
        """Calls left today; None where no limit is known."""
        return max(0, self.remain) if self.daily_limit > 0 else None

    @property
    def figures(self) -> dict[str, int] | None:
        """The three by name; None where no limit is known, and so none of them says anything."""
        if self.daily_limit <= 0:
            return None
        return {"daily_limit": self.daily_limit, "used": self.used, "remain": self.remain}


class Authorizers:
    """Asks the platform about its merchants. Each call gives what was asked for, a Refusal or a InvalidResponse."""

    def __init__(self, interfaces: Interfaces, component_appid: str) -> None:
        self._interfaces = interfaces
        self._component = component_appid

    async def page(self, token: Secret, offset: int) -> Page | Refusal | InvalidResponse:
        """Ask who authorized the platform, 500 from `offset`; with the component token. Raises TransportError."""
        body = {"component_appid": self._component, "offset": offset, "count": PAGE}
        said = await self._interfaces.ask("cgi-bin/component/api_get_authorizer_list", body, token)
        if not isinstance(said, dict):
            return said
        total, listed = _count(said.get("total_count")), _objects(said.get("list"))
        if total is None or listed is None:
            return _lacks("total_count, list")
        return Page(total, tuple(filter(None, (_word(one.get("authorizer_appid")) for one in listed))))

    async def info(self, token: Secret, appid: str) -> Info | Refusal | InvalidResponse:
        """Ask for a mini program's name and permission sets; with the component token. Raises TransportError."""
        body = {"component_appid": self._component, "authorizer_appid": appid}
        said = await self._interfaces.ask("cgi-bin/component/api_get_authorizer_info", body, token)
        if not isinstance(said, dict):
            return said
        about, granted = said.get("authorizer_info"), said.get("authorization_info")
        if not isinstance(about, dict) or not isinstance(granted, dict):
            return _lacks("authorizer_info, authorization_info")
        scopes = (one.get("funcscope_category") for one in _objects(granted.get("func_info")) or ())
        ids = (_count(scope.get("id")) for scope in scopes if isinstance(scope, dict))
        return Info(_word(about.get("nick_name")), frozenset(one for one in ids if one is not None))

    async def environments(self, token: Secret) -> tuple[Environment, ...] | Refusal | InvalidResponse:
        """Ask for a mini program's environments; with its own token. Raises TransportError."""
        return _environments(await self._interfaces.ask("tcb/getenvinfo", {}, token))

    async def own_environments(self, token: Secret) -> tuple[Environment, ...] | Refusal | InvalidResponse:
        """Ask for the platform's own environments; with the component token. Raises TransportError."""
        return _environments(await self._interfaces.ask("componenttcb/describeenvs", {}, token))

    async def quota(self, token: Secret, interface: str) -> Quota | Refusal | InvalidResponse:
        """Ask for the calls that are left of an interface, UPLOADS with a merchant's token. Raises TransportError."""
        said = await self._interfaces.ask("cgi-bin/openapi/quota/get", {"cgi_path": interface}, token)
        if not isinstance(said, dict):
            return said
        quota = said.get("quota")
        if not isinstance(quota, dict):
            return _lacks("quota")
        limit, used, remain = (_count(quota.get(name)) for name in ("daily_limit", "used", "remain"))
        if limit is None or used is None or remain is None:
            return _lacks("daily_limit, used, remain")
        return Quota(limit, used, remain)


def _environments(
    said: dict[str, Any] | Refusal | InvalidResponse,
) -> tuple[Environment, ...] | Refusal | InvalidResponse:
    if not isinstance(said, dict):
        return said
    listed = _objects(said.get("info_list"))
    if listed is None:
        return _lacks("info_list")
    found = {env: _word(one.get("status")) for one in listed if (env := _word(one.get("env")))}
    return tuple(Environment(env, status) for env, status in found.items())


def _objects(value: object) -> list[dict[str, Any]] | None:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else None


def _count(value: object) -> int | None:
    """A whole number, but no truth value."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53 else None


def _word(value: object) -> str:
    """A text in one line, as it may stand in a file; empty where there is none."""
    return UNPRINTABLE.sub(" ", value).strip(_EDGE)[:_LONGEST_NAME] if isinstance(value, str) else ""


def _lacks(fields: str) -> InvalidResponse:
    why = Text(
        en=f"The platform's answer lacks {fields}; trying again may help.",
        zh=f"平台的应答缺少 {fields}，可重试。",
    )
    return InvalidResponse(200, why, retryable=True)
