"""What a program or a server is told of a refused token, and what it returns as a token."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from tcb_ops.details import detail
from tcb_ops.features.tokens import TokenCode
from tcb_ops.i18n import Text
from tcb_ops.model import Secret
from tcb_ops.wechat.tokens import LONGEST_TOKEN, Token, finite, is_token, read_object


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
        return detail(TokenCode.NO_ACCESS_TOKEN, longest_token=LONGEST_TOKEN)
    try:
        return Token(Secret(value), _end(payload, now))
    except (ValueError, OverflowError):
        return detail(TokenCode.NO_EXPIRY)


def _end(answer: Mapping[str, Any], now: float) -> float | None:
    for key, start in (("expires_at", 0.0), ("expires_in", now)):
        value = answer.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return finite(start + value)
    return None
