"""Where an appid's access token comes from: a file, a program, a token server, or the platform itself.

A source answers one question, `token(appid, refused)`. `refused` is the token that the platform has just refused
(40001, 40014, 42001): a source looks again and gives what it has; whether that differs is the caller's to check.
Only `component` keeps tokens on disk; none logs anything.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from tcb_ops.details import DetailCode, detail
from tcb_ops.i18n import Text
from tcb_ops.model import Secret

LONGEST_TOKEN = 4096
"""Characters; the platform's have some 200, and may have 512 (domain.md §4)."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and, where the source says so, its end."""

    value: Secret
    expires_at: float | None = None
    """Unix seconds."""
    renew_at: float | None = None
    """Unix seconds from which on the source has a newer one; None where the source does not renew ahead."""


class TokenSource(Protocol):
    """A source of access tokens by appid."""

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        """Return the appid's token, looked up again when `refused` names the one that failed.

        The component token is the token of the component's own appid. Raises TokenError where this appid has none,
        TokenSourceError where no appid has one, TransportError where the platform itself was asked and is away.
        """

    async def aclose(self) -> None:
        """Close threads, files and connections."""


def token_fingerprint(refused: Secret) -> str:
    """Return the first 12 hex digits of a token's SHA-256: how a source is told which one was refused."""
    return hashlib.sha256(refused.reveal().encode()).hexdigest()[:12]


def read_token(answer: bytes, now: float) -> Token | Text:
    """Read `{"access_token": "…", "expires_in": 7200}` (or `expires_at`, Unix seconds).

    For what cannot be used, return a noun phrase that names what it was and quotes nothing: it may be the token.
    """
    payload = read_object(answer)
    value = payload.get("access_token")
    if isinstance(value, str) and len(value) > LONGEST_TOKEN:
        return detail(DetailCode.TOKEN_TOO_LONG, longest_token=LONGEST_TOKEN)
    if not is_token(value):
        return detail(DetailCode.NO_ACCESS_TOKEN)
    try:
        return Token(Secret(value), _end(payload, now))
    except (ValueError, OverflowError):
        return detail(DetailCode.NO_EXPIRY)


def is_token(value: object) -> TypeGuard[str]:
    """Return whether a value can stand in a query as a token: printable ASCII, not endless."""
    return (
        isinstance(value, str) and 0 < len(value) <= LONGEST_TOKEN and value.isascii() and value.isprintable()
    )


def read_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object that a text is, or an empty one."""
    try:
        found = json.loads(text)
    # RecursionError is what thousands of brackets raise; the texts quote what was read, so they go no further.
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _end(answer: Mapping[str, Any], now: float) -> float | None:
    for key, start in (("expires_at", 0.0), ("expires_in", now)):
        value = answer.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return finite(start + value)
    return None


def finite(moment: float) -> float:
    """Return the moment itself. Raises ValueError for NaN and infinity."""
    if not math.isfinite(moment):
        raise ValueError
    return moment
