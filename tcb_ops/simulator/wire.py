"""What a call to the platform says, how an answer is written, and what a fault does to a connection instead."""

from __future__ import annotations

import json
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from aiohttp import web

from tcb_ops.simulator.answers import error_page
from tcb_ops.simulator.faults import Reset

if TYPE_CHECKING:
    from asyncio import Transport

    from tcb_ops.simulator.faults import Fault

__all__ = ["instead", "json_answer", "read_object", "reset", "token_of", "within"]

_JSON = {"Content-Type": "application/json; encoding=utf-8"}


def token_of(query: str) -> str:
    """Give the access token of a query. Newer pages write `access_token`, older `component_access_token`."""
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
    """Give HTTP 200 with a JSON body."""
    if isinstance(answer, dict):
        answer = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    return web.Response(body=answer, headers=_JSON)


def instead(request: web.BaseRequest, fault: Fault) -> tuple[str, web.Response] | None:
    """Play a fault that replaces the answer, with its name for the books; None where there is an answer yet."""
    if fault.reset is Reset.BEFORE:
        return "reset", reset(request)
    if fault.status is not None and not fault.code:
        page = web.Response(status=fault.status, body=error_page(fault.status), content_type="text/html")
        return f"status {fault.status}", page
    if fault.garbage:
        return "garbage", web.Response(body=b"<<< no JSON", content_type="application/json")
    return None


def reset(request: web.BaseRequest) -> web.Response:
    """Break the connection with a TCP reset. The response that it gives can no longer be sent."""
    transport = request.transport
    if transport is not None:
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


def within(request: web.BaseRequest, response: web.Response) -> web.Response:
    """Send the first part of an answer and close. The response that it gives can no longer be sent."""
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
