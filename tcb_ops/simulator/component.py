"""The interfaces that give tokens and tell of authorizers: POST cgi-bin/component/….

Their good answers have no errcode. Shapes: domain.md §2.3. All are pure but for what they change in Authorizations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tcb_ops.simulator.authorizations import Authorizations

__all__ = ["authorizer_info", "authorizer_list", "authorizer_token", "component_token"]

PAGE = 500
"""Authorizers that one call lists at most."""


def component_token(known: Authorizations, _appid: str, asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer api_component_token.

    ==========================================  =======
    no component_appid, or another's            41018, 61011
    no component_appsecret, or a wrong one      41004, 40125
    no or a wrong ticket, one that ran out      61006, 61005
    ==========================================  =======
    """
    refused = _other_component(known, asked)
    if refused:
        return refused
    secret = asked.get("component_appsecret")
    if not secret:
        return 41004
    if secret != known.component.secret:
        return 40125
    refused = known.ticket_refusal(str(asked.get("component_verify_ticket")))
    if refused:
        return refused
    return {
        "component_access_token": known.issue(known.component.appid),
        "expires_in": known.component.token_lifetime,
    }


def authorizer_token(known: Authorizations, _appid: str, asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer api_authorizer_token: 61003 for who has not authorized, 61023 for a wrong refresh token."""
    refused = _other_component(known, asked)
    if refused:
        return refused
    given = known.refresh(str(asked.get("authorizer_appid")), str(asked.get("authorizer_refresh_token")))
    if isinstance(given, int):
        return given
    return {
        "authorizer_access_token": given[0],
        "expires_in": known.component.token_lifetime,
        "authorizer_refresh_token": given[1],
    }


def authorizer_list(known: Authorizations, _appid: str, asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer api_get_authorizer_list: 40097 for a page that cannot be."""
    refused = _other_component(known, asked)
    if refused:
        return refused
    offset, count = asked.get("offset"), asked.get("count")
    if type(offset) is not int or type(count) is not int or offset < 0 or not 1 <= count <= PAGE:
        return 40097
    authorizers = known.authorizers()
    listed = []
    for account in authorizers[offset : offset + count]:
        refresh_token = known.listed_refresh_token(account.appid)
        entry: dict[str, Any] = {"authorizer_appid": account.appid}
        if refresh_token:  # where the platform has lost it, the key is missing
            entry["refresh_token"] = refresh_token
        listed.append(entry | {"auth_time": known.began})
    return {"total_count": len(authorizers), "list": listed}


def authorizer_info(known: Authorizations, _appid: str, asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer api_get_authorizer_info: 61003 for who has not authorized."""
    refused = _other_component(known, asked)
    if refused:
        return refused
    appid = str(asked.get("authorizer_appid"))
    if not known.is_authorizer(appid):
        return 61003
    account = known.account(appid)
    return {
        "authorizer_info": {
            "nick_name": account.name,
            "head_img": "",
            "service_type_info": {"id": 0},
            "verify_type_info": {"id": 0},
            "user_name": f"gh_{appid[-12:]}",
            "principal_name": account.name,
            "business_info": {
                "open_pay": 0,
                "open_shake": 0,
                "open_scan": 0,
                "open_card": 0,
                "open_store": 0,
            },
            "alias": "",
            "qrcode_url": "",
            "signature": "",
            "MiniProgramInfo": {
                "network": {},
                "categories": [{"first": "工具", "second": "效率"}],
                "visit_status": 0,
            },
        },
        "authorization_info": {
            "authorizer_appid": appid,
            "func_info": [{"funcscope_category": {"id": number}} for number in account.permissions],
        },
    }


def _other_component(known: Authorizations, asked: dict[str, Any]) -> int:
    appid = asked.get("component_appid")
    if not appid:
        return 41018
    return 0 if appid == known.component.appid else 61011
