"""Whose trouble it is when one of the platform's token interfaces refuses, and what is said. Pure.

The same code means different things there: 40001 is the merchant's token on an upload link, the component's token on
api_authorizer_token, and a wrong AppSecret on api_component_token (domain.md §3).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from tcb_ops.errcodes import Decision, Scope, errcode
from tcb_ops.errors import TokenError, TokenSourceError
from tcb_ops.model import Text

if TYPE_CHECKING:
    from tcb_ops.platform.answers import Refusal

__all__ = ["COMPONENT_TOKEN", "Whose", "for_all", "for_one", "whose"]

COMPONENT_TOKEN = "api_component_token"  # noqa: S105  an interface, not a password


class Whose(StrEnum):
    """What a refusal speaks of, and so what follows."""

    TICKET = "ticket"
    """Read the ticket again, once."""
    COMPONENT = "component"
    """The component token: a new one, once."""
    REFRESH_TOKEN = "refresh_token"  # noqa: S105  a word, not a token
    """Look the merchant's refresh token up, once."""
    NOBODY = "nobody"
    """It passes: ask again, once."""
    MERCHANT = "merchant"
    EVERYBODY = "everybody"


def whose(interface: str, code: int) -> Whose:
    """Say whose trouble an errcode of a token interface is.

    ====================  =========================================  =============
    interface             errcode                                    whose
    ====================  =========================================  =============
    any                   -1, -1000 (the catalogue: retry)           nobody
    api_component_token   61005, 61006                               ticket
    api_component_token   any other                                  everybody
    the others            40001, 40014, 42001                        component
    the others            61023, 42002                               refresh_token
    the others            41002, 41004, 41018, 61014, 61024          everybody
    the others            scope platform (61004, 61005, 61011 …)     everybody
    the others            any other (61003, 61007, 50002, 42007 …)   merchant
    ====================  =========================================  =============
    """
    known = errcode(code)
    if known.decision is Decision.RETRY:
        return Whose.NOBODY
    if interface == COMPONENT_TOKEN:
        return Whose.TICKET if code in {61005, 61006} else Whose.EVERYBODY
    if code in {40001, 40014, 42001}:
        return Whose.COMPONENT
    if code in {61023, 42002}:
        return Whose.REFRESH_TOKEN
    if code in {41002, 41004, 41018, 61014, 61024} or known.scope is Scope.PLATFORM:
        return Whose.EVERYBODY
    return Whose.MERCHANT


def for_all(interface: str, refusal: Refusal) -> TokenSourceError:
    """The error for a refusal that stops everybody."""
    # From api_component_token 40001 means the AppSecret (component_access_token page, its errcode table).
    wrong_secret = interface == COMPONENT_TOKEN and refusal.errcode == 40001
    known = errcode(40125 if wrong_secret else refusal.errcode)
    said = f" ({refusal.errmsg})" if refusal.errmsg else ""
    return TokenSourceError(
        Text(
            f"errcode {refusal.errcode}{said} from {interface} stops every merchant. {known.meaning.en} {known.action.en}",
            f"{interface} 返回 errcode {refusal.errcode}{said}，影响所有商户。{known.meaning.zh}{known.action.zh}",
        )
    )


def for_one(appid: str, refusal: Refusal, *, looked_up: bool = False) -> TokenError:
    """The error for a refusal that is one merchant's; `looked_up`: the platform's list did not help."""
    if looked_up:
        return TokenError(
            Text(
                f"{appid} needs a new authorization: its refresh token is refused and api_get_authorizer_list has no other.",
                f"{appid} 需要重新授权：它的 refresh_token 被拒绝，且 api_get_authorizer_list 中没有可用的。",
            ),
            refusal.errcode,
        )
    return TokenError(
        Text(
            f"the token of {appid} cannot be refreshed: errcode {refusal.errcode} {refusal.errmsg}".rstrip()
            + ".",
            f"无法刷新 {appid} 的令牌：errcode {refusal.errcode} {refusal.errmsg}".rstrip() + "。",
        ),
        refusal.errcode,
    )
