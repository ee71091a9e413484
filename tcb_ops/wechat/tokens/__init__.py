"""Sources of access tokens: a file, a program, a token server, or the platform itself.

A source has one method, `token(appid, refused)`. `refused` is the token that the platform has just refused (40001,
40014, 42001): the source looks the token up again, and the caller checks whether the result differs. Only `component`
stores tokens on disk; no source logs anything.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import msgspec

from tcb_ops.details import DetailCode, detail
from tcb_ops.i18n import Text
from tcb_ops.model import Secret

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


def token_fingerprint(refused: Secret) -> str:
    """Return the first 12 hex digits of a token's SHA-256, which identify a refused token to a source."""
    return hashlib.sha256(refused.reveal().encode()).hexdigest()[:12]


def read_token(answer: bytes, now: float) -> Token | Text:
    """Read a token from `{"access_token": "…", "expires_in": 7200}` (or `expires_at`, Unix seconds).

    If it is invalid, return a noun phrase that describes it and quotes nothing, since the text may contain the token.
    """
    payload = read_object(answer)
    value = payload.get("access_token")
    if not is_token(value):
        return detail(DetailCode.NO_ACCESS_TOKEN, longest_token=LONGEST_TOKEN)
    try:
        return Token(Secret(value), _end(payload, now))
    except (ValueError, OverflowError):
        return detail(DetailCode.NO_EXPIRY)


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


def _end(answer: Mapping[str, Any], now: float) -> float | None:
    for key, start in (("expires_at", 0.0), ("expires_in", now)):
        value = answer.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return finite(start + value)
    return None


def finite(moment: float) -> float:
    """Return the argument. Raises ValueError for NaN and infinity."""
    if not math.isfinite(moment):
        raise ValueError
    return moment
