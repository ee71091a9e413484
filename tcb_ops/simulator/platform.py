"""The simulated platform: getUploadTcbFileLink (POST /tcb/uploadfile)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from aiohttp import web

from tcb_ops.simulator.answers import errcode_json
from tcb_ops.simulator.faults import Reset, Step
from tcb_ops.simulator.links import bucket_of, issue, link_url
from tcb_ops.simulator.wire import instead, within

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tcb_ops.model import Merchant
    from tcb_ops.simulator.books import Books
    from tcb_ops.simulator.tokens import Tokens

__all__ = ["LONGEST_PATH", "Platform", "path_allowed", "read_body"]

LONGEST_PATH = 850
"""Bytes of a path in UTF-8: the store's limit for a key (436/14518)."""

_JSON = {"Content-Type": "application/json; encoding=utf-8"}


class Platform:
    """Answers link calls for the given merchants and tokens."""

    def __init__(
        self,
        books: Books,
        merchants: Sequence[Merchant],
        tokens: Tokens,
        clock: Callable[[], float],
        link_lifetime: int,
        *,
        raw_urls: bool,
    ) -> None:
        self.base = ""
        """`http://127.0.0.1:PORT`, once it listens."""
        self._books = books
        self._tokens = tokens
        self._clock = clock
        self._link_lifetime = link_lifetime
        self._raw_urls = raw_urls
        self._allowed = {(merchant.appid, merchant.env) for merchant in merchants}
        self._buckets = {merchant.env: bucket_of(merchant.env) for merchant in merchants}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a call: HTTP 200 with an errcode, unless a fault says otherwise."""
        body = await request.read()
        asked = read_body(body)
        env, path = ("", "") if isinstance(asked, int) else asked
        place = self._books.arrived(Step.LINK, env, path)
        appid = self._refused(request.method, request.raw_path, env, asked)
        if isinstance(appid, int):
            return self._errcode(place, appid)
        if body.isascii() and not path.isascii():
            # The documented trap: the platform says ok, and the file cannot be downloaded afterwards.
            self._books.stats["escaped_bodies"] += 1
        fault = self._books.fault(Step.LINK, env, appid, path)
        if fault is None:
            return self._link(place, env, path, appid, self._link_lifetime)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        played = instead(request, fault)
        if played is not None:
            name, response = played
            self._books.answered(place, Step.LINK, name)
            return response
        if fault.errcode is not None:
            return self._errcode(place, fault.errcode, fault.errmsg)
        lifetime = self._link_lifetime if fault.lifetime is None else fault.lifetime
        response = self._link(place, env, path, appid, lifetime)
        return within(request, response) if fault.reset is Reset.MIDDLE else response

    def _refused(self, method: str, target: str, env: str, asked: tuple[str, str] | int) -> str | int:
        """Give the errcode that refuses a call, in the order method, token, body, environment; else the appid."""
        route, _, query = target.partition("?")
        if route != "/tcb/uploadfile":
            return 40066
        if method != "POST":
            return 43002
        fields = (part.partition("=") for part in query.split("&"))
        token = next((unquote_plus(value) for name, _, value in fields if name == "access_token"), "")
        if not token:
            return 41001
        appid = self._tokens.owner(token, self._clock())
        if isinstance(appid, int):
            return appid
        if isinstance(asked, int):
            return asked
        return appid if (appid, env) in self._allowed else -601012

    def _link(self, place: int, env: str, path: str, appid: str, lifetime: int) -> web.Response:
        bucket = self._buckets[env]
        url = link_url(self.base, bucket, path, raw=self._raw_urls)
        answer = issue(url, env, bucket, path, appid, int(self._clock()), lifetime)
        self._books.answered(place, Step.LINK, 0)
        return web.Response(
            body=json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode(), headers=_JSON
        )

    def _errcode(self, place: int, code: int, errmsg: str = "") -> web.Response:
        self._books.answered(place, Step.LINK, code)
        return web.Response(body=errcode_json(code, self._books.new_id(self._clock()), errmsg), headers=_JSON)


def read_body(body: bytes) -> tuple[str, str] | int:
    """Read env and path from a body, or give the errcode that refuses it.

    =======================================  =======
    body                                     errcode
    =======================================  =======
    empty                                    44002
    not UTF-8, not JSON, not an object       47001
    env or path absent, null or empty        40101
    env or path of another type              40097
    path against the rules                   40097
    =======================================  =======
    """
    if not body:
        return 44002
    try:
        asked = json.loads(body.decode())
    except (ValueError, RecursionError):
        return 47001
    if not isinstance(asked, dict):
        return 47001
    env, path = asked.get("env"), asked.get("path")
    if env is None or path is None or env == "" or path == "":
        return 40101
    if not isinstance(env, str) or not isinstance(path, str) or not path_allowed(path):
        return 40097
    return env, path


def path_allowed(path: str) -> bool:
    """Whether a path follows the naming rules: no leading slash, no `//`, at most 850 bytes."""
    try:
        return not path.startswith("/") and "//" not in path and 0 < len(path.encode()) <= LONGEST_PATH
    except UnicodeEncodeError:  # half a surrogate pair
        return False
