"""The token source that refreshes merchants' tokens by itself."""

from enum import unique

from tcb_ops.details import DetailCodes
from tcb_ops.i18n import _
from tcb_ops.kinds import Feature


@unique
class ComponentCode(DetailCodes):
    """The codes of the component's tokens."""

    COMPONENT_SILENT = _("api_component_token at {host} gave no usable response. {why}")
    REFRESH_REFUSED = _("the token of {appid} cannot be refreshed: errcode {answer}.")
    REFRESH_SILENT = _(
        "the token of {appid} cannot be refreshed now: {interface} gave no usable response. {why}"
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
        "other processes have kept {appid}'s token locked for {longest_hold:g} s: the platform answers them slowly, or one of them hangs."
    )
    NO_APPID = _("{appid} is not an appid: correct it in the merchants file.")
    TOKEN_STORE = _(
        "token store: {path}: {why}. Without it, tokens cannot be refreshed safely: check the disk and its "
        "permissions."
    )


FEATURE = Feature(
    provides={"component": "tcb_ops.features.component.source:component_tokens"},
    needs=["programs", "single_calls"],
)
