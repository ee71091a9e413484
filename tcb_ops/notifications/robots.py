"""What each kind of group robot takes and answers: bodies, signatures, limits, and whether it really accepted. Pure.

A robot refuses with HTTP 200 and an errcode, so that the status alone proves nothing. Sources:
developer.work.weixin.qq.com/document/path/91770, open.feishu.cn (custom bot), open.dingtalk.com (custom robot).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tcb_ops.i18n import Text, _, verbatim
from tcb_ops.notifications.message import Message
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.tokens import read_object

LIMITS: Mapping[tuple[str, str], int] = {
    ("wecom", "text"): 2048,
    ("wecom", "markdown"): 4096,
    ("feishu", "text"): 20_000,
    ("feishu", "markdown"): 20_000,
    ("dingtalk", "text"): 20_000,
    ("dingtalk", "markdown"): 20_000,
}
"""Bytes. WeCom counts the content, the others the whole request."""
BUSY = frozenset({45009, 130101, 9499, 11232})
"""Codes that mean: too many messages, try again in a minute."""
_HINTS: Mapping[int, Text] = {
    93000: _("the robot's key is not valid: create its address again"),
    45009: _("too many messages: 20 a minute are allowed"),
    310000: _("the robot's security settings refuse it: check keyword, signature and IP addresses"),
    300001: _("the robot's access_token is not valid"),
    19001: _("the robot's address is not valid"),
    19021: _("the signature is wrong, or this machine's clock"),
    19022: _("this machine's address is not allowed"),
    19024: _("the robot asks for a keyword that the message lacks"),
}


def robot_body(kind: str, form: str, message: Message, secret: str, now: float) -> bytes:
    """Return the body of the request to a robot, with the message cut to what it takes."""
    most = LIMITS[kind, form]
    if kind == "wecom":
        return _encoded(_content(kind, form, message.title, message.fit(most)))
    extra = _feishu_sign(secret, int(now)) if kind == "feishu" and secret else {}
    room = most
    while True:  # quotes and line breaks take two bytes each in JSON
        body = _encoded(_content(kind, form, message.title, message.fit(room)) | extra)
        if len(body) <= most or room <= 0:
            return body
        room -= max(len(body) - most, 1)


def _content(kind: str, form: str, title: str, text: str) -> dict[str, Any]:
    if kind == "feishu":
        if form == "text":
            return {"msg_type": "text", "content": {"text": text}}
        return {"msg_type": "interactive", "card": {"elements": [{"tag": "markdown", "content": text}]}}
    if form == "text":
        return {"msgtype": "text", "text": {"content": text}}
    inner = {"title": title, "text": text} if kind == "dingtalk" else {"content": text}
    return {"msgtype": "markdown", "markdown": inner}


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _feishu_sign(secret: str, at: int) -> dict[str, str]:
    digest = hmac.new(f"{at}\n{secret}".encode(), b"", hashlib.sha256).digest()
    return {"timestamp": str(at), "sign": base64.b64encode(digest).decode()}


def dingtalk_url(url: str, secret: str, now: float) -> str:
    """Return a DingTalk robot's address with its signature."""
    at = round(now * 1000)
    digest = hmac.new(secret.encode(), f"{at}\n{secret}".encode(), hashlib.sha256).digest()
    return f"{url}&timestamp={at}&sign={quote(base64.b64encode(digest).decode(), safe='')}"


def webhook_signature(secret: str, body: bytes) -> str:
    """Return the value of X-Tcb-Ops-Signature: the body's HMAC-SHA256 in hex."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def refusal(kind: str, response: HttpResponse) -> tuple[Text, int] | None:
    """Return why a message was not accepted, and the errcode (0 for none); None where it was.

    ==========  ======  =====================================  ========
    kind        status  body                                   accepted
    ==========  ======  =====================================  ========
    any         not 2xx any                                    no
    a robot     2xx     errcode (Feishu: code, StatusCode) 0   yes
    a robot     2xx     another errcode                        no
    a robot     2xx     anything else, a web page              no
    webhook     2xx     an errcode or code other than 0        no
    webhook     2xx     a web page                             no
    webhook     2xx     anything else, nothing                 yes
    ==========  ======  =====================================  ========
    """
    if not 200 <= response.status < 300:
        return verbatim(f"HTTP {response.status}"), 0
    answer = read_object(response.body)
    names = ("code", "StatusCode") if kind == "feishu" else ("errcode",)
    if kind == "webhook":
        names = ("errcode", "code")
    codes = [answer[name] for name in names if type(answer.get(name)) is int]
    if any(codes):
        code = next(filter(None, codes))
        hint = _HINTS.get(code)
        shown = verbatim(f"errcode {code}")
        return (shown if hint is None else _("errcode {code}: {hint}", code=code, hint=hint)), code
    if codes or (kind == "webhook" and not response.body.lstrip().startswith(b"<")):
        return None
    return _("it answered with something other than a robot's JSON: check the address"), 0
