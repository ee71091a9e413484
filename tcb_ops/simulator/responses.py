"""What the platform and COS answer with, and the faults that replace an answer.

Shapes: the interface page of getUploadTcbFileLink (errcodes come as HTTP 200 with a rid at the end of errmsg) and
cloud.tencent.com/document/product/436/7730 (COS's XML).
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from asyncio import Transport
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from aiohttp import web

from tcb_ops.errcodes import errcode
from tcb_ops.simulator.faults import Fault, Reset

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
class CosRefusal:
    """A refusal by COS, or what a fault puts in its place."""

    status: int
    code: str
    message: str
    details: tuple[tuple[str, str], ...] = ()
    """Further elements, such as StringToSign or ServerTime."""


def refusal_body(code: int, rid: str, errmsg: str = "") -> bytes:
    """Return the body `{"errcode":…,"errmsg":"… rid: …"}`."""
    text = errmsg or ERRMSG.get(code) or errcode(code).meaning.en
    return json.dumps(
        {"errcode": code, "errmsg": f"{text} rid: {rid}"}, ensure_ascii=False, separators=(",", ":")
    ).encode()


def refusal_xml(refusal: CosRefusal, resource: str, request_id: str) -> bytes:
    """Return COS's `<Error>` body."""
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
    """Return the body of an answer to `success_action_status` 201."""
    return _xml(
        "PostResponse", [("Location", location), ("Bucket", bucket), ("Key", key), ("ETag", f'"{etag}"')]
    )


def _xml(root: str, elements: list[tuple[str, str]]) -> bytes:
    lines = "".join(f"  <{name}>{escape(_plain(text))}</{name}>\n" for name, text in elements)
    return f"<?xml version='1.0' encoding='utf-8' ?>\n<{root}>\n{lines}</{root}>\n".encode()


def _plain(text: str) -> str:
    """Leave out what XML 1.0 cannot hold."""
    return "".join(char for char in text if char >= " " or char in "\t\n\r")


_JSON = {"Content-Type": "application/json; encoding=utf-8"}


def token_of(query: str) -> str:
    """Return the access token of a query. Newer pages write `access_token`, older `component_access_token`."""
    fields = (part.partition("=") for part in query.split("&"))
    known = {"access_token", "component_access_token"}
    return next((unquote_plus(value) for name, _, value in fields if name in known), "")


def read_object(body: bytes) -> dict[str, Any] | int:
    """Read a body's JSON object, or give the errcode that refuses it: 44002 empty, 47001 not a JSON object."""
    if not body:
        return 44002
    try:
        asked = json.loads(body.decode())
    except (ValueError, RecursionError):
        return 47001
    return asked if isinstance(asked, dict) else 47001


def json_answer(answer: dict[str, Any] | bytes) -> web.Response:
    """Return HTTP 200 with a JSON body."""
    if isinstance(answer, dict):
        answer = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    return web.Response(body=answer, headers=_JSON)


async def instead(request: web.BaseRequest, fault: Fault) -> tuple[str, web.Response] | None:
    """Play a fault: its delay, then what replaces the answer, with its name for the counters, or None."""
    if fault.delay:
        await asyncio.sleep(fault.delay)
    if fault.reset is Reset.BEFORE:
        return "reset", reset(request)
    if fault.status is not None and not fault.code:
        page = f"<html><head><title>{fault.status}</title></head><body><center><h1>{fault.status}</h1></center></body></html>\r\n"
        return f"status {fault.status}", web.Response(
            status=fault.status, body=page.encode(), content_type="text/html"
        )
    if fault.garbage:
        return "garbage", web.Response(body=b"<<< no JSON", content_type="application/json")
    return None


def reset(request: web.BaseRequest) -> web.Response:
    """Break the connection with a TCP reset. The response that it returns can no longer be sent."""
    transport = request.transport
    if transport is not None:
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


def cut_short(request: web.BaseRequest, fault: Fault | None, response: web.Response) -> web.Response:
    """Return the response; under a fault that resets in the middle send its first part only, and close."""
    if fault is None or fault.reset is not Reset.MIDDLE:
        return response
    transport: Transport | None = request.transport
    if transport is not None:
        body = bytes(response.body) if isinstance(response.body, bytes) else b""
        head = f"HTTP/1.1 {response.status} {response.reason}\r\n"
        if body:
            head += f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n"
        # An answer without a body is cut in its head.
        transport.write((head if body else head + "Server: tencent-c").encode() + body[: len(body) // 2])
        transport.close()
    return web.Response()
