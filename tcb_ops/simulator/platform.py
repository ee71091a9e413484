"""The simulated platform: getUploadTcbFileLink (POST /tcb/uploadfile, /componenttcb/uploadfile)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tcb_ops.simulator.authorizations import Authorizations, Wants
from tcb_ops.simulator.faults import FaultStep, Reset
from tcb_ops.simulator.links import bucket_of, issue, link_url
from tcb_ops.simulator.responses import errcode_json, instead, json_answer, read_object, token_of, within
from tcb_ops.simulator.state import SimulatorState

if TYPE_CHECKING:
    from aiohttp import web

LONGEST_PATH = 850
"""Bytes of a path in UTF-8: the store's limit for a key (436/14518)."""

_WANTS = {"/tcb/uploadfile": Wants.MERCHANTS, "/componenttcb/uploadfile": Wants.COMPONENTS}


class Platform:
    """Answers link calls of those who may make them."""

    def __init__(
        self, books: SimulatorState, known: Authorizations, link_lifetime: int, *, raw_urls: bool
    ) -> None:
        self.base = ""
        """`http://127.0.0.1:PORT`, once it listens."""
        self._books = books
        self._known = known
        self._clock = known.clock
        self._link_lifetime = link_lifetime
        self._raw_urls = raw_urls

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a call: HTTP 200 with an errcode, unless a fault says otherwise."""
        body = await request.read()
        asked = read_body(body)
        env, path = ("", "") if isinstance(asked, int) else asked
        place = self._books.arrived(FaultStep.LINK, env, path)
        appid = self._refused(request.method, request.raw_path, env, asked)
        if isinstance(appid, int):
            return self._errcode(place, appid)
        if body.isascii() and not path.isascii():
            # The documented trap: the platform says ok, and the file cannot be downloaded afterwards.
            self._books.stats["escaped_bodies"] += 1
        fault = self._books.fault(FaultStep.LINK, env, appid, path)
        if fault is None:
            return self._link(place, env, path, appid, self._link_lifetime)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        played = instead(request, fault)
        if played is not None:
            name, response = played
            self._books.answered(place, FaultStep.LINK, name)
            return response
        if fault.errcode is not None:
            return self._errcode(place, fault.errcode, fault.errmsg)
        lifetime = self._link_lifetime if fault.lifetime is None else fault.lifetime
        response = self._link(place, fault.other_env or env, path, appid, lifetime)
        return within(request, response) if fault.reset is Reset.MIDDLE else response

    def _refused(self, method: str, target: str, env: str, asked: tuple[str, str] | int) -> str | int:
        """Give the errcode that refuses a call, else the caller's appid.

        In the order method, token, account, body, environment, quota.
        """
        route, _, query = target.partition("?")
        wants = _WANTS.get(route)
        if wants is None:
            return 40066
        if wants is Wants.COMPONENTS:
            self._books.stats["component_links"] += 1
        if method != "POST":
            return 43002
        appid = self._known.caller(token_of(query), wants)
        if isinstance(appid, int):
            return appid
        refused = 0 if wants is Wants.COMPONENTS else self._known.account(appid).refusal()
        if refused:
            return refused
        if isinstance(asked, int):
            return asked
        refused = self._known.env_refusal(appid, env)
        if refused:
            return refused
        return appid if self._known.spend(appid, route) else 45009

    def _link(self, place: int, env: str, path: str, appid: str, lifetime: int) -> web.Response:
        bucket = bucket_of(env)
        url = link_url(self.base, bucket, path, raw=self._raw_urls)
        answer = issue(url, env, bucket, path, appid, int(self._clock()), lifetime)
        self._books.answered(place, FaultStep.LINK, 0)
        return json_answer(answer)

    def _errcode(self, place: int, code: int, errmsg: str = "") -> web.Response:
        self._books.answered(place, FaultStep.LINK, code)
        return json_answer(errcode_json(code, self._books.new_id(self._clock()), errmsg))


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
    asked = read_object(body)
    if isinstance(asked, int):
        return asked
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
