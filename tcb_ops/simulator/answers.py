"""The bodies that the platform and COS answer with: pure functions.

Shapes: the interface page of getUploadTcbFileLink (errcodes come as HTTP 200 with a rid at the end of errmsg) and
cloud.tencent.com/document/product/436/7730 (COS's XML).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tcb_ops.errcodes import errcode

__all__ = ["ERRMSG", "Refusal", "errcode_json", "error_page", "post_response_xml", "refusal_xml"]

ERRMSG = {
    -1: "system error",
    -1000: "system error",
    40001: "invalid credential, access_token is invalid or not latest",
    40014: "invalid access_token",
    40066: "invalid url",
    40097: "invalid args",
    40101: "missing parameter",
    41001: "access_token missing",
    42001: "access_token expired",
    43002: "require POST method",
    44002: "empty post data",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    47001: "data format error",
    48001: "api unauthorized",
    61003: "component is not authorized by this account",
    61004: "access clientip is not registered",
    61007: "api is unauthorized to component",
    85088: "no qbase privilege",
    -601012: "no permission for this environment",
}
"""The platform's own words where a document or a report gives them; elsewhere the catalogue's meaning stands in."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal by COS, or what a fault puts in its place."""

    status: int
    code: str
    message: str
    details: tuple[tuple[str, str], ...] = ()
    """Further elements, such as StringToSign or ServerTime."""


def errcode_json(code: int, rid: str, errmsg: str = "") -> bytes:
    """Give `{"errcode":…,"errmsg":"… rid: …"}`."""
    text = errmsg or ERRMSG.get(code) or errcode(code).meaning.en
    return json.dumps(
        {"errcode": code, "errmsg": f"{text} rid: {rid}"}, ensure_ascii=False, separators=(",", ":")
    ).encode()


def refusal_xml(refusal: Refusal, resource: str, request_id: str) -> bytes:
    """Give COS's `<Error>` body."""
    elements = [
        ("Code", refusal.code),
        ("Message", refusal.message),
        *refusal.details,
        ("Resource", resource),
        ("RequestId", request_id),
        ("TraceId", request_id[::-1]),
    ]
    return _xml("Error", elements)


def post_response_xml(location: str, bucket: str, key: str, etag: str) -> bytes:
    """Give the body of an answer to `success_action_status` 201."""
    return _xml(
        "PostResponse", [("Location", location), ("Bucket", bucket), ("Key", key), ("ETag", f'"{etag}"')]
    )


def error_page(status: int) -> bytes:
    """Give the HTML page of a gateway that stands before the service."""
    return f"<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center></body></html>\r\n".encode()


def _xml(root: str, elements: list[tuple[str, str]]) -> bytes:
    lines = "".join(f"  <{name}>{escape(_plain(text))}</{name}>\n" for name, text in elements)
    return f"<?xml version='1.0' encoding='utf-8' ?>\n<{root}>\n{lines}</{root}>\n".encode()


def _plain(text: str) -> str:
    """Leave out what XML 1.0 cannot hold."""
    return "".join(char for char in text if char >= " " or char in "\t\n\r")
