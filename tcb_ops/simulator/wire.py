"""What a fault does to a connection instead of an answer."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING

from aiohttp import web

from tcb_ops.simulator.answers import error_page
from tcb_ops.simulator.faults import Reset

if TYPE_CHECKING:
    from asyncio import Transport

    from tcb_ops.simulator.faults import Fault

__all__ = ["instead", "reset", "within"]


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
