"""Token sources beside the file: the company's token server, and a program."""

from enum import unique

from tcb_ops.details import DetailCodes
from tcb_ops.i18n import _
from tcb_ops.kinds import Feature


@unique
class TokenCode(DetailCodes):
    """The codes of programs and servers that give tokens."""

    NO_ACCESS_TOKEN = _("content without an access_token of at most {longest_token} characters")
    NO_EXPIRY = _("an invalid expiry time")
    TOO_MUCH = _("more than 64 KB")
    PRINTED = _("printed {read}")
    TOKEN_PROGRAM = _("the token program {program} {reason} for {appid}: run it by hand to see why.")
    SERVICE_AWAY = _("the token server {host} cannot be reached. {why}")
    SERVICE_SILENT = _("the token server {host} did not respond for {appid}. {why}")
    SERVICE_CREDENTIALS = _(
        "the token server {host} rejected the credentials (HTTP {status}): check the environment variable that tokens.auth_env names, and tokens.auth_header."
    )
    ANSWERED_WITH = _("returned {read}: it should be JSON with access_token and expires_in")
    ANSWERED_404 = _("does not know this merchant (HTTP 404): add it there")
    ANSWERED_REDIRECT = _(
        "returned a redirect (HTTP {status}), which is not followed: set tokens.url to the final address"
    )
    ANSWERED_STATUS = _("returned HTTP {status}: see its own log")
    SERVICE_NO_TOKEN = _("no token for {appid}: the token server {host} {why}.")


FEATURE = Feature(
    provides={
        "command": "tcb_ops.features.tokens.sources:command_tokens",
        "service": "tcb_ops.features.tokens.sources:service_tokens",
    },
    needs=["programs"],
)
