"""Group robots at the simulator's address, for tests of `[[notify]]`: they accept, refuse, hang or return a web page.

Their limits, signatures and responses are those of the vendors' documents.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import unquote

from aiohttp import web
from rigged_simulator import Simulator

from tcb_ops.features.simulator.cos import bucket_of
from tcb_ops.features.simulator.faults import FaultStep
from tcb_ops.features.simulator.state import Request, Response, SimulatedObject

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
        self._cached: dict[tuple[str, str], SimulatedObject] = {}
        self.answer_files()

    def answer_files(self, alter: Callable[[list[Any]], list[Any]] = list, *, most: int = 50) -> None:
        """Alter the entries of answers about files, such as their order, and how many files one call may name."""
        self._alter, self._most = alter, most

    def cache(self, env: str, key: str) -> None:
        """Let a cache keep an object as it is now, and answer with it from now on."""
        self._cached[bucket_of(env), key] = self._state.objects[bucket_of(env), key]

    async def handle(self, request: Request) -> Response:
        resource = unquote(request.target.partition("?")[0])
        bucket, _, key = resource[1:].partition("/")
        stale = self._cached.get((bucket, key))
        fresh = "no-cache" in request.headers.get("Cache-Control", "")
        if stale is not None and request.method == "GET" and not fresh:
            now, self._state.objects[bucket, key] = self._state.objects[bucket, key], stale
            response = await super().handle(request)  # it does not wait
            self._state.objects[bucket, key] = now
            response.headers["X-Cache-Lookup"] = "Cache Hit"
            return response
        if not key.startswith("batch"):
            return await super().handle(request)
        asked = json.loads(bytes(request.body))
        if len(asked.get("file_list") or asked["fileid_list"]) > self._most:
            step = FaultStep.DOWNLOAD if key == "batchdownloadfile" else FaultStep.DELETE
            self._state.answered(step, 40097)
            return Response(200, b'{"errcode":40097,"errmsg":"invalid args"}')
        response = await super().handle(request)
        if isinstance(response.body, bytes) and response.body.startswith(b'{"errcode":0'):
            answer = json.loads(response.body)
            altered = {
                name: self._alter(answer[name]) for name in ("file_list", "delete_list") if name in answer
            }
            response.body = json.dumps(answer | altered).encode()
        return response

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
