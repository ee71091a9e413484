r"""The client for the platform's interfaces, and the handshake: what identifies itself as the simulator is one.

The access token is a query parameter. The body is raw compact UTF-8 JSON: an object whose path was sent as `\uXXXX` has
no download link. `responses` reads the responses.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from tcb_ops.details import Detail, DetailCode
from tcb_ops.errors import TransportError
from tcb_ops.model import Link, Listener, Owner, Secret
from tcb_ops.wechat.responses import (
    ApiError,
    HttpResponse,
    InvalidResponse,
    UnsafeLink,
    clock_offset,
    read_link,
    read_response,
)
from tcb_ops.wechat.tokens import read_object
from tcb_ops.wechat.transport import HttpRequest, Timeouts, Transport

AUTHORIZERS_PER_PAGE = 500
"""The maximum per response of api_get_authorizer_list."""
INTERFACES = {Owner.MERCHANT: "tcb", Owner.PLATFORM: "componenttcb"}
"""The beginnings of the interfaces' names, by the owner of the environment."""
_REQUESTS_KEPT = 2048
"""Requests without a body, with their tokens, to cache: one per active merchant."""
_HEADERS = {"Content-Type": "application/json"}

Answer = TypeVar("Answer")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Sender(Protocol):
    """What sends a client's requests: `Transport` in runs, `SingleTransport` elsewhere."""

    async def send(self, request: HttpRequest, body: bytes = b"") -> HttpResponse:
        """Send a request and return the response. Raises TransportError if there is no usable one."""


class PlatformClient:
    """A client for the platform's interfaces. Each call raises TransportError if there is no usable HTTP response.

    Calls take the merchant's token, or the component token if the platform owns the environment.

    Args:
        transport: sends the requests.
        base: the target, e.g. `https://api.weixin.qq.com`, optionally with a path.
        store_hosts: allowed hosts for links, besides COS's own; a leading dot allows subdomains.

    """

    def __init__(self, transport: Sender, base: str, *, store_hosts: tuple[str, ...] = ()) -> None:
        self._transport = transport
        self._base = base.rstrip("/")
        self._store_hosts = store_hosts
        self.clock_offset: float | None = None
        """Seconds that the target's clock was ahead of this machine's at the last call, except one for a link."""
        # Parsing the URL for each request takes longer than sending it.
        self._request = lru_cache(maxsize=_REQUESTS_KEPT)(self._build_request)

    def _build_request(self, interface: str, token: Secret | None) -> HttpRequest:
        url = f"{self._base}/{interface}"
        if token is not None:
            name = "component_access_token" if interface.startswith("cgi-bin/component/") else "access_token"
            url += f"?{name}={quote(token.reveal(), safe='')}"
        return HttpRequest("POST", url, _HEADERS)

    async def _post(
        self, interface: str, body: Mapping[str, Any] | str, token: Secret | None
    ) -> HttpResponse:
        text = body if isinstance(body, str) else _encode(body)
        return await self._transport.send(self._request(interface, token), text.encode())

    async def call(
        self,
        interface: str,
        body: Mapping[str, Any],
        token: Secret | None = None,
        secrets: Iterable[Secret] = (),
    ) -> dict[str, Any] | ApiError | InvalidResponse:
        """Call an interface, such as `tcb/getenvinfo`, and return the response's JSON object.

        The token is sent as `component_access_token` to `cgi-bin/component`, else as `access_token`. `secrets` are
        those in the body: they and the token are removed from the errmsg.
        """
        began_at, began = time.time(), time.perf_counter()
        response = await self._post(interface, body, token)
        seconds = time.perf_counter() - began
        self.clock_offset = clock_offset(response.headers.get("date", ""), began_at, seconds)
        return read_response(response, (*secrets, *((token,) if token is not None else ())))

    async def ask(
        self, interface: str, body: Mapping[str, Any], token: Secret, read: Callable[[dict[str, Any]], Answer]
    ) -> Answer | ApiError | InvalidResponse:
        """Call an interface, and return what `read` makes of the response's object."""
        payload = await self.call(interface, body, token)
        return read(payload) if isinstance(payload, dict) else payload

    async def upload_link(
        self, env: str, path: str, token: Secret, owner: Owner = Owner.MERCHANT
    ) -> Link | ApiError | InvalidResponse | UnsafeLink:
        """Request the upload link for `path` in `env` (getUploadTcbFileLink)."""
        # Encoding two strings is faster than encoding a dict, for which json builds an encoder on every call.
        body = f'{{"env":{_encode(env)},"path":{_encode(path)}}}'
        response = await self._post(f"{INTERFACES[owner]}/uploadfile", body, token)
        payload = read_response(response, (token,))
        if not isinstance(payload, dict):
            return payload
        return read_link(payload, response, env, path, self._base, self._store_hosts)


# --- the handshake --------------------------------------------------------------------------------------------------

HANDSHAKE = "/.well-known/tcb-ops-simulator"
"""The path at which a simulator identifies itself."""
_NAME = "tcb-ops simulator"


def handshake_answer() -> bytes:
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
            response = await transport.send(HttpRequest("GET", base + HANDSHAKE))
    except TransportError as error:
        refused = isinstance(error.problem, Detail) and error.problem.code is DetailCode.NO_CONNECTION
        return Listener.NOTHING if refused else Listener.OTHER
    identified = response.status == 200 and read_object(response.body).get("server") == _NAME
    return Listener.SIMULATOR if identified else Listener.OTHER
