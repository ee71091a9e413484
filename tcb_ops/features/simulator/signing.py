"""COS's SHA-1 request signature, and the links that contain it: pure functions.

Source: cloud.tencent.com/document/product/436/7778. The upload links of the WeChat cloud have the whole signature in one
form field, `Signature`, with method `post`, the decoded path of the link's URL, and empty lists.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

SECRET_ID = "AKIDsimulatorsimulatorsimulatorsimul"  # noqa: S105  signs on loopback only
SECRET_KEY = "simulatorsimulatorsimulatorsimul"  # noqa: S105  signs on loopback only
_TENCENT_APPID = "1258717764"
_PLUS_AND_SLASH = b"\xfb\xff\xbf"
"""In base64 "+/+/": every link reveals a client that loses plus signs."""


class Authorization(NamedTuple):
    """The parts of a `q-sign-algorithm=…` string that are checked."""

    secret_id: str
    key_time: str
    """`start;end` in Unix seconds, as in the string."""
    end: int
    signature: str


def authorization(secret_id: str, secret_key: str, key_time: str, method: str, path: str) -> str:
    """Return the complete `q-sign-algorithm=sha1&…` string. `path` is decoded and begins with `/`."""
    signed = signature(secret_key, key_time, http_string(method, path))
    return (
        f"q-sign-algorithm=sha1&q-ak={secret_id}&q-sign-time={key_time}&q-key-time={key_time}"
        f"&q-header-list=&q-url-param-list=&q-signature={signed}"
    )


def signature(secret_key: str, key_time: str, http: str) -> str:
    """Return the 40 hex digits of q-signature for an HttpString."""
    return _hmac_sha1(sign_key(secret_key, key_time), string_to_sign(key_time, http))


@lru_cache(maxsize=64)
def sign_key(secret_key: str, key_time: str) -> str:
    """Return SignKey; cached, because all links of one second share it."""
    return _hmac_sha1(secret_key, key_time)


def http_string(method: str, path: str) -> str:
    """Return HttpString, the signed part of the request: no parameter and no header is signed."""
    return f"{method.lower()}\n{path}\n\n\n"


def string_to_sign(key_time: str, http: str) -> str:
    """Return StringToSign, which COS includes in a SignatureDoesNotMatch response."""
    return f"sha1\n{key_time}\n{hashlib.sha1(http.encode()).hexdigest()}\n"  # noqa: S324  COS's own algorithm


def read_authorization(text: str) -> Authorization | None:
    """Parse a `q-sign-algorithm=…` string; return None for any other text."""
    parts = dict(part.partition("=")[::2] for part in text.split("&"))
    start, _, end = parts.get("q-sign-time", "").partition(";")
    if parts.get("q-sign-algorithm") != "sha1" or not (is_seconds(start) and is_seconds(end)):
        return None
    if parts.get("q-key-time") != parts["q-sign-time"]:
        return None
    return Authorization(parts.get("q-ak", ""), parts["q-sign-time"], int(end), parts.get("q-signature", ""))


def is_seconds(text: str) -> bool:
    """Return whether a text can be Unix seconds."""
    return text.isascii() and text.isdigit() and len(text) <= 12


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha1").hex()


def bucket_of(env: str) -> str:
    """Return an environment's bucket: the hex of the id's first two characters, the id, the Tencent appid."""
    return f"{env[:2].encode().hex()}-{env}-{_TENCENT_APPID}"


def link_url(base: str, bucket: str, path: str) -> str:
    """Return the path-style URL."""
    return f"{base}/{bucket}/{quote(path, safe='/-_.~')}"


def issue(base: str, env: str, path: str, appid: str, start: int, lifetime: int) -> dict[str, str | int]:
    """Return the response of getUploadTcbFileLink. `start` is in Unix seconds, `lifetime` in seconds."""
    bucket, key_time = bucket_of(env), f"{start};{start + lifetime}"
    return {
        "errcode": 0,
        "errmsg": "ok",
        "url": link_url(base, bucket, path),
        "token": link_token(bucket, path, key_time, appid),
        "authorization": authorization(SECRET_ID, SECRET_KEY, key_time, "post", f"/{bucket}/{path}"),
        "file_id": f"cloud://{env}.{bucket}/{path}",
        "cos_file_id": cos_file_id(bucket, path),
    }


def download_url(base: str, bucket: str, path: str, end: int) -> str:
    """Return the URL from which a file can be downloaded until `end`, in Unix seconds."""
    query = f"sign={download_sign(bucket, path, end)}&t={end}"
    return f"{link_url(base, bucket, path)}?{query}"


def _proof(*parts: object) -> bytes:
    return hmac.digest(SECRET_KEY.encode(), "\n".join(map(str, parts)).encode(), "sha256")


def link_token(bucket: str, path: str, key_time: str, appid: str) -> str:
    """Return the security token of a link, which ends with the merchant's appid."""
    return f"{_proof('token', bucket, path, key_time, appid).hex()}.{appid}"


def cos_file_id(bucket: str, path: str) -> str:
    """Return the required value of the form field x-cos-meta-fileid."""
    return base64.b64encode(_PLUS_AND_SLASH + _proof("file", bucket, path)).decode()


def download_sign(bucket: str, path: str, end: int) -> str:
    """Return the signature of a download URL."""
    return _proof("download", bucket, path, end).hex()
