r"""What the platform answers, whichever interface was asked: its JSON, an errcode, or no answer one can use.

Bodies are raw compact UTF-8 JSON (a `\uXXXX` path yields objects without a download link), errors are HTTP 200 with an
errcode and a rid; success bodies of `cgi-bin/component` have no errcode. Source: domain.md §1.1, §2.3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from tcb_ops.i18n import Text
from tcb_ops.model import Secret
from tcb_ops.secrets import LONGEST_TEXT, redact
from tcb_ops.wechat.transport import Answer, Transport
from tcb_ops.wechat.transport_errors import BROKEN, transport_failure

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_ERRMSG = 1000
_RID_WITHIN = 200
"""Characters at an errmsg's end in which its rid is looked for."""
_RID = re.compile(r"[0-9A-Za-z-]{1,64}")

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Refusal:
    """The platform answered with an errcode."""

    errcode: int
    errmsg: str
    """Without its rid, without secrets."""
    rid: str
    """For openapi/rid/get, seven days long; empty where the answer had none."""
    http_status: int


@dataclass(frozen=True, slots=True)
class InvalidResponse:
    """An answer came, but neither what was asked for nor an errcode: a gateway's page, garbage, missing fields."""

    http_status: int
    why: Text
    retryable: bool


class Interfaces:
    """The platform's other interfaces: who authorized it, environments, quotas, files.

    Args:
        transport: sends the requests.
        base: the target, e.g. `https://api.weixin.qq.com`; a path behind the host is kept.

    """

    def __init__(self, transport: Transport, base: str) -> None:
        self._transport = transport
        self._base = base.rstrip("/")

    async def ask(
        self,
        interface: str,
        body: Mapping[str, Any],
        token: Secret | None = None,
        secrets: Iterable[Secret] = (),
    ) -> dict[str, Any] | Refusal | InvalidResponse:
        """Ask an interface, such as `tcb/getenvinfo`; gives the answer's object where it holds no errcode but 0.

        `token` goes into the query, as `component_access_token` for `cgi-bin/component`, else as `access_token`.
        `secrets` are those of the body: like the token, they are taken out of what an errmsg quotes.

        Raises:
            TransportError: no answer at all.

        """
        url = f"{self._base}/{interface}"
        if token is not None:
            name = "component_access_token" if interface.startswith("cgi-bin/component/") else "access_token"
            url += f"?{name}={quote(token.reveal(), safe='')}"
        request = self._request(url, body)
        request.read()
        answer = await self._transport.send(request)
        return read_answer(answer, (*secrets, *((token,) if token is not None else ())))

    def _request(self, url: str, body: Mapping[str, Any]) -> httpx.Request:
        try:
            return httpx.Request(
                "POST",
                url,
                headers={"Content-Type": "application/json"},
                stream=httpx.ByteStream(to_json(body)),
            )
        except (httpx.InvalidURL, ValueError) as error:
            trouble = transport_failure(error) or BROKEN
        raise trouble.error(self._base.partition("://")[2].partition("/")[0].rpartition("@")[2])


def to_json(body: Mapping[str, Any]) -> bytes:
    """Write a body."""
    return _encode(body).encode()


def read_answer(answer: Answer, secrets: Iterable[Secret]) -> dict[str, Any] | Refusal | InvalidResponse:
    """What an answer says.

    ======================  ======================  ===========================================
    body                    HTTP status             result
    ======================  ======================  ===========================================
    an errcode other than 0 any                     Refusal
    anything else           5xx, 408, 429           InvalidResponse, retryable
    anything else           other than 2xx          InvalidResponse
    not an object, or empty 2xx                     InvalidResponse, retryable
    an object               2xx                     the object
    ======================  ======================  ===========================================
    """
    status = answer.status
    said = _json(answer.body)
    errcode = _errcode(said)
    if errcode:
        errmsg, rid = _errmsg(said.get("errmsg"), secrets)
        return Refusal(errcode, errmsg, rid, status)
    if not 200 <= status < 300:
        why = Text(
            en=f"The platform answered HTTP {status} without an errcode: a gateway in between, or a wrong API base.",
            zh=f"平台返回 HTTP {status}，且没有 errcode：可能是中间网关所答，或 API 地址有误。",
        )
        return InvalidResponse(status, why, retryable=status >= 500 or status in {408, 429})
    if errcode is None:
        why = Text(
            en=f"The platform answered HTTP {status} with something that is not its JSON; trying again may help.",
            zh=f"平台返回 HTTP {status}，但内容不是约定的 JSON，可重试。",
        )
        return InvalidResponse(status, why, retryable=True)
    return said


def _json(body: bytes) -> dict[str, Any]:
    """The body's JSON object, or an empty one; RecursionError is what thousands of brackets raise."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _errcode(said: dict[str, Any]) -> int | None:
    """The errcode, 0 where the object has none, None where it is no errcode (or the object is empty)."""
    errcode = said.get("errcode", 0)
    if isinstance(errcode, float) and errcode.is_integer():
        errcode = int(errcode)
    if (
        isinstance(errcode, bool)
        or not isinstance(errcode, int | str)
        or not re.fullmatch(r"-?[0-9]{1,9}", str(errcode))
    ):
        return None
    return int(errcode) if said else None


def _errmsg(errmsg: object, secrets: Iterable[Secret]) -> tuple[str, str]:
    """The errmsg without its rid and without secrets, and the rid.

    Every step is linear in what a gateway may send; secrets go before the cut, which could leave half of one.
    """
    text = UNPRINTABLE.sub(" ", errmsg).strip() if isinstance(errmsg, str) else ""
    secrets = tuple(secrets)
    at = text.rfind("rid:", -_RID_WITHIN)
    rid = text[at + 4 :].strip()
    if at < 0 or text[max(at - 1, 0) : at].isalnum() or not _RID.fullmatch(rid):
        rid = ""
    else:
        text = text[:at].rstrip(" ,")
        rid = rid if redact(rid, secrets) == rid else ""
    return redact(text[:LONGEST_TEXT], secrets)[:_LONGEST_ERRMSG], rid
