"""The simulated services beside the platform: Tencent Cloud's quotas, and group robots to rehearse `[[notify]]`.

The quota interface checks TC3-HMAC-SHA256 signatures of temporary keys. Sources: cloud.tencent.com/document/api/213/30654
(signature), /product/876/42145 (DescribeQuotaData), /api/876/78167 (DescribeBaasPackageList). Robots accept, refuse, hang or
return a web page; their limits, signatures and responses are those of the vendors' documents.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from aiohttp import web

from tcb_ops.simulator.accounts import Accounts
from tcb_ops.simulator.faults import FaultStep
from tcb_ops.simulator.state import SimulatorState, instead

ACTION = "X-TC-Action"
"""The header by which a request is recognised as one of this interface."""
_CLOCK_SECONDS = 300
"""How far a request's time may be off."""
_AUTHORIZATION = re.compile(
    r"TC3-HMAC-SHA256 Credential=([^/]+)/(\d{4}-\d\d-\d\d)/tcb/tc3_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class _Keys:
    appid: str
    secret_key: str
    token: str
    expires: float


class CloudQuotas:
    """Issues keys, and answers with the usage of the environments of their mini program."""

    def __init__(self, state: SimulatorState, accounts: Accounts) -> None:
        self._state, self._accounts = state, accounts
        self._keys: dict[str, _Keys] = {}

    def issue(self, appid: str, seconds: int) -> dict[str, Any]:
        """Return new keys for a mini program: the response of getqcloudtoken."""
        made = hashlib.sha256(f"{appid}/{len(self._keys)}".encode()).hexdigest()
        secret_id, expires = f"AKID{made[:32]}", self._accounts.clock() + seconds
        keys = self._keys[secret_id] = _Keys(appid, made[::-1][:32], f"practice-cloud-token-{made}", expires)
        return {
            "errcode": 0,
            "errmsg": "ok",
            "secretid": secret_id,
            "secretkey": keys.secret_key,
            "token": keys.token,
            "expired_time": int(expires),
        }

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond to a signed call."""
        body = await request.read()
        keys = self._caller(request, body)
        if isinstance(keys, str):
            return self._give({"Error": {"Code": keys, "Message": "practice"}})
        asked = json.loads(body)
        env = str(asked.get("EnvId"))
        self._state.called(FaultStep.CLOUD_QUOTA, keys.appid)
        fault = self._state.fault(FaultStep.CLOUD_QUOTA, env, keys.appid, env)
        if fault is not None:
            played = await instead(request, fault)
            return played[1] if played is not None else self._give(_cloud_error("InternalError"))
        found = next((one for one in self._accounts.environments_of(keys.appid) if one.env == env), None)
        if found is None:
            return self._give(_cloud_error("ResourceNotFound"))
        action = request.headers[ACTION]
        if action == "DescribeBaasPackageList":
            capacity = {"TimeUnit": "m", "Unit": "GB", "MaxSize": found.storage_gb}
            package = {
                "PackageName": asked.get("PackageName"),
                "ResourceLimit": json.dumps({"Qps": 500, "Capacity": capacity}),
            }
            return self._give({"PackageList": [package]})
        values = {
            "StorageSizepkg": (found.storage_mb, 0),
            "StorageWritepkg": (found.writes, found.writes_limit),
        }
        metric = asked.get("MetricName")
        if action != "DescribeQuotaData" or metric not in values:
            return self._give(_cloud_error("InvalidParameter"))
        used, limit = values[metric]
        return self._give({"MetricName": metric, "Value": used, "SubValue": str(limit) if limit else None})

    def _caller(self, request: web.BaseRequest, body: bytes) -> _Keys | str:
        """Return the keys that signed a request, or the code that refuses it."""
        parts = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
        keys = self._keys.get(parts[1]) if parts is not None else None
        if parts is None or keys is None or request.headers.get("X-TC-Token") != keys.token:
            return "AuthFailure.SecretIdNotFound"
        now, at = self._accounts.clock(), request.headers.get("X-TC-Timestamp", "")
        if now >= keys.expires:
            return "AuthFailure.TokenFailure"
        if not at.isdigit() or abs(now - int(at)) > _CLOCK_SECONDS:
            return "AuthFailure.SignatureExpire"
        _whole, _id, day, names, given = parts[0], *parts.groups()
        if f"{datetime.fromtimestamp(int(at), UTC):%Y-%m-%d}" != day:
            return "AuthFailure.SignatureFailure"
        lines = [f"{name}:{_signed_value(request, name)}\n" for name in names.split(";")]
        whole = f"POST\n/\n\n{''.join(lines)}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        key = f"TC3{keys.secret_key}".encode()
        for part in (day, "tcb", "tc3_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = f"TC3-HMAC-SHA256\n{at}\n{day}/tcb/tc3_request\n{hashlib.sha256(whole.encode()).hexdigest()}"
        right = hmac.new(key, text.encode(), "sha256").hexdigest() == given and "host" in names.split(";")
        return keys if right else "AuthFailure.SignatureFailure"

    def _give(self, found: dict[str, Any]) -> web.Response:
        return web.json_response({"Response": {**found, "RequestId": self._state.new_id()}})


def _signed_value(request: web.BaseRequest, name: str) -> str:
    value = request.headers.get(name, "")
    return value.lower() if name == "x-tc-action" else value


def _cloud_error(code: str) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": "practice"}}


# --- group robots ---


ROBOT_PATH = "/robot/"
"""The beginning of a robot's address: `BASE/robot/KIND/BEHAVIOUR?…`, with KIND wecom, feishu, dingtalk or webhook."""
HANG_SECONDS = 3600
_ROBOT_LIMITS = {"text": 2048, "markdown": 4096}
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


def _content(kind: str, body: bytes) -> str | None:
    """Return a message's content; None if the robot would refuse it."""
    try:
        asked: Any = json.loads(body.decode())
        if kind == "webhook":
            return body.decode()
        if kind == "feishu":
            form = asked["msg_type"]
            content = asked["content"]["text"] if form == "text" else asked["card"]["elements"][0]["content"]
            return str(content) if len(body) <= _REQUEST else None
        form = asked["msgtype"]
        content = asked[form]["text"] if (kind, form) == ("dingtalk", "markdown") else asked[form]["content"]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    if kind == "wecom":
        return str(content) if len(content.encode()) <= _ROBOT_LIMITS[form] else None
    return str(content) if len(body) <= _REQUEST else None


def _robot_answer(kind: str, code: int) -> web.Response:
    body: dict[str, Any] = {"errcode": code, "errmsg": "ok" if not code else "invalid webhook url"}
    if kind == "feishu":
        body = {"code": code, "msg": "success" if not code else "param invalid", "data": {}}
    return web.json_response(body)
