"""The handshake: what identifies itself as the simulator is one; any other address is live."""

from __future__ import annotations

import json
from importlib.metadata import version

from tcb_ops.details import Detail, DetailCode
from tcb_ops.errors import TransportError
from tcb_ops.model import Listener
from tcb_ops.wechat.transport import HttpRequest, Timeouts, Transport

PATH = "/.well-known/tcb-ops-simulator"
_NAME = "tcb-ops simulator"


def answer() -> bytes:
    """Return the simulator's answer."""
    return json.dumps({"server": _NAME, "version": version("tcb-ops")}).encode()


async def listener_at(base: str) -> Listener:
    """Ask what listens at an http address: without a token, two seconds at most.

    ====================================================  =========
    the simulator's answer, of any version                simulator
    a refused connection                                  nothing
    any other: another answer, a redirect, silence        other
    ====================================================  =========
    """
    try:
        async with Transport(connections=1, timeouts=Timeouts(connect=1, answer=1)) as transport:
            response = await transport.send(HttpRequest("GET", base + PATH))
        content = json.loads(response.body) if response.status == 200 else None
    except TransportError as error:
        refused = isinstance(error.problem, Detail) and error.problem.code is DetailCode.NO_CONNECTION
        return Listener.NOTHING if refused else Listener.OTHER
    except (ValueError, RecursionError):
        return Listener.OTHER
    identified = isinstance(content, dict) and content.get("server") == _NAME
    return Listener.SIMULATOR if identified else Listener.OTHER
