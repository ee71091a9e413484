"""What settings take beyond their types: rules, which return a value as it is kept, or raise InvalidValueError."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from tcb_ops.hooks import PdfHooks, hooks
from tcb_ops.i18n import Text, _
from tcb_ops.model import SIMULATOR, is_loopback
from tcb_ops.values import InvalidValueError


def _matching(pattern: str, rule: Text) -> Callable[[Any], Any]:

    def checked(value: Any) -> Any:
        for item in value if isinstance(value, tuple) else (value,):
            if not re.fullmatch(pattern, str(item), re.DOTALL):
                raise InvalidValueError(rule)
        return value

    return checked


def api_base(value: str) -> str:
    """Check the URL that calls go to; it has no last slash."""
    parts = _url(value)
    if parts is None or "?" in value or not _is_host(parts.hostname or ""):
        rule = _("must be `simulator`, or look like https://api.weixin.qq.com")
        near = _nearest_target(value)
        raise InvalidValueError(_("{rule} (did you mean {near}?)", rule=rule, near=near) if near else rule)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise InvalidValueError(
            _("must be https: the URL contains tokens (http is only for a simulator on this machine)")
        )
    return value.rstrip("/")


def _nearest_target(value: str) -> str:
    """Return the target that was probably meant: `simulator`, or a host with its scheme; empty if there is none."""
    from difflib import get_close_matches

    if get_close_matches(value.lower(), [SIMULATOR]):
        return SIMULATOR
    scheme = "http" if is_loopback(value.partition(":")[0]) else "https"
    is_host = re.fullmatch(r"localhost|[\w-]+([.][\w-]+)*:[0-9]+|[\w-]+([.][\w-]+)+", value, re.ASCII)
    return f"{scheme}://{value}" if is_host else ""


def _url(value: str) -> SplitResult | None:
    """Return the parts of a URL of http or https without user, fragment, spaces and control characters; None for others."""
    with suppress(ValueError):
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        if usable and "@" not in parts.netloc and value.isprintable() and not re.search(r"[\s#]", value):
            return parts
    return None


def _is_host(host: str) -> bool:
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    return ":" in host or re.fullmatch(r"[0-9A-Za-z._-]+", name) is not None


def timezone(value: str) -> str:
    """Check the name of a time zone."""
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise InvalidValueError(_("must be a time zone such as Asia/Shanghai")) from None
    return value


def token_url(value: str) -> str:
    """Check the URL of a token server."""
    if not value:
        return value
    parts = _url(value)
    if parts is None or not value.isascii():
        raise InvalidValueError(_("must look like https://tokens.example.com/{{appid}}"))
    if "{appid}" not in value.partition("://")[2].partition("/")[2]:
        raise InvalidValueError(
            _(
                "has no {{appid}} after its host, where the appid goes; it must look like "
                "https://tokens.example.com/{{appid}}"
            )
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise InvalidValueError(
            _("must be https: its responses contain tokens (http is only for a server on this machine)")
        )
    return value


def pdf(value: bool) -> bool:
    """Check whether PDF reports are installed, if they are asked for."""
    if value and hooks(PdfHooks) is None:
        raise InvalidValueError(_("PDF reports are not installed; remove it, or install all of tcb-ops"))
    return value


source_hosts = _matching(
    r"(\*\.)?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*|[0-9A-Fa-f:]+",
    _("must be names of hosts without https:// and path, such as files.example.com or *.example.com"),
)
schedulers = _matching(
    r"tcp://\S+:[0-9]+", _("must be addresses of schedulers, such as tcp://127.0.0.1:8786")
)
header = _matching(
    r"[0-9A-Za-z!#$%&'*+.^_`|~-]+", _("is not the name of a header; one looks like Authorization")
)
redirect_uri = _matching(r"(https://\S+)?", _("must be an https URL"))
report_url = _matching(
    r"(https?://[^\s/]+/\S*\{run\}\S*)?", _("must look like https://reports.example.com/{{run}}/")
)
secret_place = _matching(
    r"((env|file|command):\s*\S.*)?",
    _("must say where the secret is (env:NAME, file:PATH or command:PROGRAM), not contain the secret itself"),
)
without_control_characters = _matching(  # in TOML, "D:\new" contains a line break
    r"[^\x00-\x1f\x7f]*",
    _("contains a control character, such as \\n or \\t; in a path write / in place of each \\"),
)
PathName = Annotated[Path, without_control_characters]


Count = Annotated[int, msgspec.Meta(ge=0)]
