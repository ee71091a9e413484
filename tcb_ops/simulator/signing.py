"""COS's sha1 request signature: pure functions from a request to its signature.

Source: cloud.tencent.com/document/product/436/7778. The upload links of the WeChat cloud carry this signature whole
in one form field, `Signature`, with method `post`, the decoded path of the link's URL, and empty lists.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Authorization",
    "authorization",
    "http_string",
    "read_authorization",
    "sign_key",
    "signature",
    "string_to_sign",
]

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Authorization:
    """The parts of a `q-sign-algorithm=…` string that a checker needs."""

    secret_id: str
    key_time: str
    """`start;end`, Unix seconds, as it stands in the string."""
    start: int
    end: int
    signature: str


def authorization(
    secret_id: str,
    secret_key: str,
    key_time: str,
    method: str,
    path: str,
    params: Pairs = (),
    headers: Pairs = (),
) -> str:
    """Give the whole `q-sign-algorithm=sha1&…` string. `path` is decoded and begins with `/`."""
    signed = signature(secret_key, key_time, http_string(method, path, params, headers))
    header_list = ";".join(name for name, _ in _listed(headers))
    param_list = ";".join(name for name, _ in _listed(params))
    return (
        f"q-sign-algorithm=sha1&q-ak={secret_id}&q-sign-time={key_time}&q-key-time={key_time}"
        f"&q-header-list={header_list}&q-url-param-list={param_list}&q-signature={signed}"
    )


def signature(secret_key: str, key_time: str, http: str) -> str:
    """Give the 40 hex digits of q-signature for an HttpString."""
    return _hmac_sha1(sign_key(secret_key, key_time), string_to_sign(key_time, http))


@lru_cache(maxsize=64)
def sign_key(secret_key: str, key_time: str) -> str:
    """Give SignKey: the same for every link of one second, hence the cache."""
    return _hmac_sha1(secret_key, key_time)


def http_string(
    method: str, path: str, params: Iterable[tuple[str, str]] = (), headers: Iterable[tuple[str, str]] = ()
) -> str:
    """Give HttpString: what of the request is signed."""
    return f"{method.lower()}\n{path}\n{_joined(params)}\n{_joined(headers)}\n"


def string_to_sign(key_time: str, http: str) -> str:
    """Give StringToSign, as COS also shows it in a SignatureDoesNotMatch answer."""
    return f"sha1\n{key_time}\n{hashlib.sha1(http.encode()).hexdigest()}\n"  # noqa: S324  COS's own algorithm


def read_authorization(text: str) -> Authorization | None:
    """Take a `q-sign-algorithm=…` string apart; None where it is not one."""
    parts = dict(part.partition("=")[::2] for part in text.split("&"))
    start, _, end = parts.get("q-sign-time", "").partition(";")
    if parts.get("q-sign-algorithm") != "sha1" or not (_is_seconds(start) and _is_seconds(end)):
        return None
    if parts.get("q-key-time") != parts["q-sign-time"]:
        return None
    return Authorization(
        parts.get("q-ak", ""), parts["q-sign-time"], int(start), int(end), parts.get("q-signature", "")
    )


def _is_seconds(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def _listed(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted((quote(name, safe="-_.~").lower(), quote(value, safe="-_.~")) for name, value in pairs)


def _joined(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" for name, value in _listed(pairs)) if pairs else ""


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha1").hex()
