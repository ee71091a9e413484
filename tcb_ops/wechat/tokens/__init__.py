"""Sources of access tokens: a file, a program, a token server, or the platform itself.

A source has one method, `token(appid, refused)`. `refused` is the token that the platform has just refused (40001,
40014, 42001): the source looks the token up again, and the caller checks whether the result differs. Only `component`
stores tokens on disk; no source logs anything.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import msgspec

from tcb_ops.kinds import provided
from tcb_ops.model import Secret
from tcb_ops.settings import Settings

_decode = msgspec.json.Decoder().decode
LONGEST_TOKEN = 4096
"""Characters; the platform's tokens (api_authorizer_token, api_component_token) have about 200, and at most 512."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and, if known, when it expires."""

    value: Secret
    expires_at: float | None = None
    """Unix seconds."""
    renew_at: float | None = None
    """Unix seconds from which the source has a newer one; None if the source does not renew tokens in advance."""


class TokenSource(Protocol):
    """A source of access tokens by appid."""

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Return the appid's token; look it up again if `refused` is the one that failed.

        The component token is the token of the component's own appid. Raises TokenError if this appid has no token,
        TokenSourceError if no appid has one, TransportError if the platform itself is the source and cannot be
        reached.
        """

    async def aclose(self) -> None:
        """Close threads, files and connections."""


def open_source(settings: Settings) -> TokenSource:
    """Create the token source named in the settings. Raises SettingsError if its settings are incomplete or invalid."""
    tokens = settings.tokens
    if tokens.source == "file":
        from tcb_ops.wechat.tokens.file import FileTokens

        return FileTokens(tokens.file)
    source: TokenSource = provided(tokens.source)(settings)
    return source


def is_token(value: object) -> TypeGuard[str]:
    """Return whether a value is a valid token: printable ASCII of limited length."""
    return (
        isinstance(value, str) and 0 < len(value) <= LONGEST_TOKEN and value.isascii() and value.isprintable()
    )


def read_object(text: bytes) -> dict[str, Any]:
    """Parse a JSON object; return an empty one if the text is anything else."""
    # The errors quote the text, so they are not passed on. Deep nesting raises RecursionError.
    try:
        payload = _decode(text)
    except (ValueError, RecursionError):
        # Slower, and takes a byte order mark and half of an emoji, too.
        try:
            payload = json.loads(text)
        except (ValueError, RecursionError):
            return {}
    return payload if isinstance(payload, dict) else {}


def finite(moment: float) -> float:
    """Return the argument. Raises ValueError for NaN and infinity."""
    if not math.isfinite(moment):
        raise ValueError
    return moment
