"""Token sources beside the file: the company's token server, a program, and the component, which refreshes tokens by itself."""

from enum import unique
from typing import TYPE_CHECKING

from tcb_ops.details import DetailCodes
from tcb_ops.hooks import Feature, TokenHooks, lazily
from tcb_ops.i18n import _


@unique
class TokenCode(DetailCodes):
    """The codes of programs and servers that give tokens."""

    NO_ACCESS_TOKEN = _("content without an access_token of at most {longest_token} characters")
    NO_EXPIRY = _("an invalid expiry time")
    TOO_MUCH = _("more than 64 KB")
    PRINTED = _("printed {read}")
    TOKEN_PROGRAM = _("The token program {program} {reason} for {appid}: run it by hand to see why.")
    SERVICE_AWAY = _("The token server {host} cannot be reached. {why}")
    SERVICE_SILENT = _("The token server {host} did not respond for {appid}. {why}")
    SERVICE_CREDENTIALS = _(
        "The token server {host} rejected the credentials (HTTP {status}): check the environment variable that tokens.auth_env names, and tokens.auth_header."
    )
    ANSWERED_WITH = _("returned {read}: it should be JSON with access_token and expires_in")
    ANSWERED_404 = _("does not know this merchant (HTTP 404): add it there")
    ANSWERED_REDIRECT = _(
        "returned a redirect (HTTP {status}), which is not followed: set tokens.url to the final address"
    )
    ANSWERED_STATUS = _("returned HTTP {status}: see its own log")
    SERVICE_NO_TOKEN = _("No token for {appid}: the token server {host} {why}.")


@unique
class ComponentCode(DetailCodes):
    """The codes of the component's tokens."""

    COMPONENT_SILENT = _("api_component_token at {host} gave no usable response. {why}")
    REFRESH_REFUSED = _("The token of {appid} cannot be refreshed: errcode {answer}.")
    REFRESH_SILENT = _(
        "The token of {appid} cannot be refreshed now: {interface} gave no usable response. {why}"
    )
    NOT_AUTHORIZED = _(
        "{appid} needs a new authorization. api_get_authorizer_list has no refresh token for it."
    )
    AUTHORIZATION_OVER = _(
        "{appid} needs a new authorization: its refresh token is refused and api_get_authorizer_list has no other."
    )
    LIST_LACKS = _("It lacks list or total_count.")
    LIST_SHORT = _("It listed {seen:,} of {total:,} merchants.")
    COMPONENT_REFUSED = _("{interface} returned errcode {errcode} ({errmsg}), which affects every merchant.")
    LACKS_EXPIRY = _("It lacks {name} or expires_in.")
    NO_RECORD = _("is not a token record")
    TOKEN_RECORD = _("{file} {reason}: delete it, and the refresh token is looked up again.")
    TOKEN_LOCKED = _(
        "Other processes have kept {appid}'s token locked for {longest_hold:g} s: the platform answers them slowly, or one of them hangs."
    )
    NO_APPID = _("{appid} is not an appid: correct it in the merchants file.")
    TOKEN_STORE = _(
        "Token store: {path}: {why}. Without it, tokens cannot be refreshed safely: check the disk and its "
        "permissions."
    )


if TYPE_CHECKING:
    from tcb_ops.features.tokens import component as _component
    from tcb_ops.features.tokens import sources as _sources
else:
    _component, _sources = lazily(__name__, "component", "sources")

FEATURE = Feature(
    hooks=[
        TokenHooks(
            sources={
                "command": _sources.command_tokens,
                "component": _component.component_tokens,
                "service": _sources.service_tokens,
            }
        )
    ],
)
