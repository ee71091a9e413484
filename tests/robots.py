"""Group robots at the simulator's address, for tests of `[[notify]]`: they accept, refuse, hang or return a web page.

Their limits, signatures and responses are those of the vendors' documents.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from enum import StrEnum
from typing import Any, NamedTuple

from aiohttp import web

from tcb_ops.features.simulator import Simulator

ROBOT_PATH = "/robot/"
"""The beginning of a robot's address: `BASE/robot/KIND/BEHAVIOUR?…`, with KIND wecom, feishu, dingtalk or webhook."""
HANG_SECONDS = 3600
_ROBOT_LIMIT = 2048
_REQUEST = 20 * 1024
"""Maximum size of a request to Feishu or DingTalk, in bytes."""


class Behaviour(StrEnum):
    """How a robot responds to a message."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    """HTTP 200 with an errcode, as with a revoked key."""
    HANG = "hang"
    HTML = "html"
    """HTTP 200 with a web page, such as a proxy's login page."""
    BUSY = "busy"
    """Too many messages, for the first one; later ones are accepted."""
    ERROR = "error"
    """HTTP 500."""


class RobotMessage(NamedTuple):
    """A message that a robot accepted."""

    kind: str
    text: str
    """Its content; for a webhook the whole body."""


class Robots:
    """The simulated robots; `secret`: the key of their signatures, empty for none."""

    def __init__(self, secret: str = "") -> None:
        self.messages: list[RobotMessage] = []
        self.requests = 0
        self._secret = secret
        self._was_busy = False

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond to a message."""
        self.requests += 1
        _empty, _robot, kind, behaviour = request.path.split("/", 3)
        body = await request.read()
        if behaviour == Behaviour.HANG:
            await asyncio.sleep(HANG_SECONDS)
        if behaviour == Behaviour.ERROR:
            return web.Response(status=500)
        if behaviour == Behaviour.HTML:
            return web.Response(text="<!DOCTYPE html><title>Login</title>", content_type="text/html")
        if behaviour == Behaviour.BUSY and not self._was_busy:
            self._was_busy = True
            return _robot_answer(kind, 45009 if kind == "wecom" else 130101)
        code = {"wecom": 93000, "feishu": 19001, "dingtalk": 310000}.get(kind, 1)
        if behaviour == Behaviour.REFUSE:
            return _robot_answer(kind, code)
        text = _content(kind, body)
        if text is None or not self._signed(kind, request, body):
            return _robot_answer(kind, {"wecom": 44004, "feishu": 19021}.get(kind, 310000))
        self.messages.append(RobotMessage(kind, text))
        return _robot_answer(kind, 0)

    def _signed(self, kind: str, request: web.BaseRequest, body: bytes) -> bool:
        if not self._secret or kind == "wecom":
            return True
        if kind == "webhook":
            made = hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
            return request.headers.get("X-Tcb-Ops-Signature") == f"sha256={made}"
        if kind == "feishu":
            asked = json.loads(body)
            key, sign = f"{asked.get('timestamp')}\n{self._secret}".encode(), asked.get("sign")
            digest = hmac.new(key, b"", hashlib.sha256).digest()
        else:
            sign = request.query.get("sign")
            text = f"{request.query.get('timestamp')}\n{self._secret}".encode()
            digest = hmac.new(self._secret.encode(), text, hashlib.sha256).digest()
        return bool(sign == base64.b64encode(digest).decode())


class SimulatorWithRobots(Simulator):
    """The simulator, with `robots` at `BASE/robot/KIND/BEHAVIOUR`."""

    def __init__(self, *args: Any, robot_secret: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.robots = Robots(robot_secret)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path.startswith(ROBOT_PATH):
            return await self.robots.answer(request)
        return await super()._answer(request)


def _content(kind: str, body: bytes) -> str | None:
    """Return a message's content; None if the robot would refuse it."""
    try:
        asked: Any = json.loads(body.decode())
        if kind == "webhook":
            return body.decode()
        if kind == "feishu":
            return str(asked["content"]["text"]) if len(body) <= _REQUEST else None
        content = asked["text"]["content"]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    if kind == "wecom":
        return str(content) if len(content.encode()) <= _ROBOT_LIMIT else None
    return str(content) if len(body) <= _REQUEST else None


def _robot_answer(kind: str, code: int) -> web.Response:
    body: dict[str, Any] = {"errcode": code, "errmsg": "ok" if not code else "invalid webhook url"}
    if kind == "feishu":
        body = {"code": code, "msg": "success" if not code else "param invalid", "data": {}}
    return web.json_response(body)
