"""Real answers as they may be kept and passed on: their forms and lengths, none of their secrets. Pure.

What is shown is listed here; anything else is described, so that a field nobody has thought of gives nothing away.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tcb_ops.i18n import Text
from tcb_ops.secrets import redact
from tcb_ops.wechat.transport import Exchange

_HARMLESS = frozenset(
    (
        *(
            "date",
            "server",
            "content-type",
            "content-length",
            "connection",
            "etag",
            "cache-control",
            "keep-alive",
        ),
        *("transfer-encoding", "x-cos-request-id", "x-cos-trace-id", "x-cos-storage-class", "accept-ranges"),
        *(
            "x-cos-server-side-encryption",
            "x-cos-hash-crc64ecma",
            "last-modified",
            "content-disposition",
            "vary",
        ),
    )
)
"""Headers whose values are shown. x-cos-hash-crc64ecma is of the bytes, which are ours."""
_SHOWN = frozenset(("errcode", "errmsg", "status", "file_id", "fileid", "env"))
_URLS = frozenset(("url", "download_url"))
_SIGNED_OPENLY = frozenset(
    ("q-sign-algorithm", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list")
)
_XML_SHOWN = frozenset(("Code", "Message", "FormatString", "ServerTime", "RequestId", "TraceId", "Resource"))
_LONGEST = 500
_FORMS = (
    (Text("decimal digits", "十进制数字"), r"[0-9]+"),
    (Text("lower-case hex", "小写十六进制"), r"[0-9a-f]+"),
    (Text("hex", "十六进制"), r"[0-9A-Fa-f]+"),
    (Text("letters and digits", "字母和数字"), r"[0-9A-Za-z]+"),
    (Text("URL-safe base64", "URL 安全的 base64"), r"[0-9A-Za-z_-]+=*"),
    (Text("base64", "base64"), r"[0-9A-Za-z+/]+=*"),
    (Text("printable ASCII", "可打印 ASCII"), r"[\x20-\x7e]+"),
)
_OTHER = Text("other characters", "其他字符")


def looks(text: str) -> Text:
    """What a text looks like, not what it is: `40 characters, lower-case hex`."""
    kind = next((name for name, pattern in _FORMS if re.fullmatch(pattern, text)), _OTHER)
    return Text(f"{len(text)} characters, {kind.en}", f"{len(text)} 个字符，{kind.zh}")


def form_of(text: str) -> str:
    """The same for a file: `<40 characters, lower-case hex>`."""
    return f"<{looks(text).en}>" if text else "<empty>"


def signature_of(authorization: str) -> dict[str, str]:
    """The parts of a COS signature in their order; the key id and the signature as forms."""
    parts = (part.partition("=") for part in authorization.split("&"))
    return {
        name if re.fullmatch(r"[a-z-]{1,40}", name) else form_of(name): (
            value
            if name in _SIGNED_OPENLY and re.fullmatch(r"[0-9A-Za-z;,._-]{0,200}", value)
            else form_of(value)
        )
        for name, _, value in parts
    }


def as_kept(exchange: Exchange) -> dict[str, Any]:
    """One exchange for the file: request line without the query's values, status, headers, and the body's form."""
    seen: dict[str, Any] = {
        "request": {"method": exchange.method, "url": _address(exchange.url), "bytes": exchange.sent},
        "seconds": round(exchange.seconds, 3),
        "status": exchange.status,
    }
    if exchange.trouble is not None:
        return seen | {"trouble": exchange.trouble.en}
    headers = [
        (name, value[:_LONGEST] if name.lower() in _HARMLESS else form_of(value))
        for name, value in exchange.headers
    ]
    return seen | {"headers": [f"{name}: {value}" for name, value in headers], "body": _body(exchange.body)}


def _address(url: str) -> dict[str, Any]:
    """Scheme, host and path of an address as they are; of its query the names and the values' forms."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return {"form": form_of(url)}
    where = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"
    query = {name[:100]: form_of(value) for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    return {"address": where, "query": query} if parts.query else {"address": where}


def _body(body: bytes) -> Any:
    if not body:
        return "<empty>"
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict):
        return {name: _value(name, value) for name, value in said.items()}
    if b"<Error" in body[:2000]:
        return _xml(body.decode(errors="replace"))
    return f"<{len(body)} bytes>"


def _value(name: str, value: object) -> Any:
    match value:
        case dict():
            return {str(key)[:100]: _value(str(key), inner) for key, inner in value.items()}
        case list():
            return [_value(name, inner) for inner in value[:50]]
        case bool() | int() | float() | None:
            return value
        case str() if name == "authorization":
            return signature_of(value)
        case str() if name in _URLS:
            return _address(value) | {"length": len(value)}
        case str() if name in _SHOWN:
            return redact(value)[:_LONGEST]
        case _:
            return form_of(str(value))


def _xml(text: str) -> dict[str, str]:
    """The first level of COS's error document. StringToSign holds a digest and times: its form is kept."""
    found = re.findall(r"<([A-Za-z]{1,40})>([^<]*)</\1>", text[:20_000])
    return {
        name: redact(value)[:_LONGEST] if name in _XML_SHOWN else form_of(value) for name, value in found[:20]
    }
