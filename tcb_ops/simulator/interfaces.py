"""The platform's interfaces besides uploadfile: which they are, whose token they want, and how a call goes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tcb_ops.simulator.answers import errcode_json
from tcb_ops.simulator.authorizations import Wants
from tcb_ops.simulator.component import authorizer_info, authorizer_list, authorizer_token, component_token
from tcb_ops.simulator.environments import describe_envs, env_info, quota_of
from tcb_ops.simulator.faults import Reset, Step
from tcb_ops.simulator.objects import delete_files, download_files
from tcb_ops.simulator.wire import instead, json_answer, read_object, token_of, within

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from tcb_ops.simulator.authorizations import Authorizations
    from tcb_ops.simulator.books import Books
    from tcb_ops.simulator.store import Store

__all__ = ["Interfaces"]

_UPLOADS = {"/tcb/uploadfile": Wants.MERCHANTS, "/componenttcb/uploadfile": Wants.COMPONENTS}

Answer = dict[str, Any] | int
"""A good answer's body, or an errcode."""


@dataclass(frozen=True, slots=True)
class _Interface:
    step: Step
    wants: Wants
    answer: Callable[[str, dict[str, Any]], Answer]
    """From the caller's appid and the body's object."""


class Interfaces:
    """Answers the calls that are no link calls."""

    def __init__(self, books: Books, known: Authorizations, store: Store) -> None:
        self.base = ""
        """`http://127.0.0.1:PORT`, once it listens."""
        self._books = books
        self._known = known
        self._interfaces = {
            "/tcb/getenvinfo": _Interface(Step.ENV_INFO, Wants.MERCHANTS, partial(env_info, known)),
            "/componenttcb/describeenvs": _Interface(
                Step.DESCRIBE_ENVS, Wants.COMPONENTS, partial(describe_envs, known)
            ),
            "/cgi-bin/openapi/quota/get": _Interface(Step.QUOTA, Wants.EITHER, self._quota),
        }
        for wing, wants in (("/tcb", Wants.MERCHANTS), ("/componenttcb", Wants.COMPONENTS)):
            self._interfaces[f"{wing}/batchdownloadfile"] = _Interface(
                Step.DOWNLOAD,
                wants,
                lambda appid, asked: download_files(known, store, self.base, appid, asked),
            )
            self._interfaces[f"{wing}/batchdeletefile"] = _Interface(
                Step.DELETE, wants, partial(delete_files, known, store)
            )
        if known.component.secret:
            self._interfaces |= {
                f"/cgi-bin/component/{name}": _Interface(step, wants, partial(answer, known))
                for name, step, wants, answer in (
                    ("api_component_token", Step.COMPONENT_TOKEN, Wants.NOBODYS, component_token),
                    ("api_authorizer_token", Step.AUTHORIZER_TOKEN, Wants.COMPONENTS, authorizer_token),
                    ("api_get_authorizer_list", Step.AUTHORIZER_LIST, Wants.COMPONENTS, authorizer_list),
                    ("api_get_authorizer_info", Step.AUTHORIZER_INFO, Wants.COMPONENTS, authorizer_info),
                )
            }

    def has(self, route: str) -> bool:
        """Whether a path is one of these interfaces."""
        return route in self._interfaces

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a call: HTTP 200 with an errcode or a good answer, unless a fault says otherwise."""
        route, _, query = request.raw_path.partition("?")
        interface = self._interfaces[route]
        body = await request.read()
        asked = read_object(body)
        appid = self._caller(request.method, query, interface.wants, route)
        said = asked if isinstance(asked, dict) else {}
        env = said["env"] if isinstance(said.get("env"), str) else ""
        about = said.get("authorizer_appid") if interface.wants is Wants.COMPONENTS else None
        whose = about if isinstance(about, str) else appid if isinstance(appid, str) else ""
        self._books.called(interface.step, whose)
        if isinstance(appid, int) or isinstance(asked, int):
            return self._give(interface.step, appid if isinstance(appid, int) else asked)
        fault = self._books.fault(interface.step, env, whose, whose)
        if fault is not None:
            if fault.delay:
                await asyncio.sleep(fault.delay)
            played = instead(request, fault)
            if played is not None:
                name, response = played
                self._books.stats[f"{interface.step}:{name}"] += 1
                return response
            if fault.errcode is not None:
                return self._give(interface.step, fault.errcode, fault.errmsg)
        self._known.spend(appid, route)
        response = self._give(interface.step, interface.answer(appid, asked))
        return within(request, response) if fault is not None and fault.reset is Reset.MIDDLE else response

    def _caller(self, method: str, query: str, wants: Wants, route: str) -> str | int:
        if method != "POST":
            return 43002
        appid = self._known.caller(token_of(query), wants)
        if isinstance(appid, int) or appid == self._known.component.appid:
            return appid
        account = self._known.account(appid)
        refused = account.refusal()
        # The quota is not part of the cloud's permission set.
        return refused if refused and (route.startswith("/tcb/") or account.revoked) else appid

    def _give(self, step: Step, answer: Answer, errmsg: str = "") -> web.Response:
        code = answer if isinstance(answer, int) else 0
        self._books.stats[f"{step}:{code}"] += 1
        if isinstance(answer, int):
            return json_answer(errcode_json(answer, self._books.new_id(self._known.clock()), errmsg))
        return json_answer(answer)

    def _quota(self, appid: str, asked: dict[str, Any]) -> Answer:
        """Answer openapi/quota/get.

        ==========================================================  =======
        no cgi_path                                                 40101
        no text, or not of the form /tcb/uploadfile                 76003
        no such interface                                           76021
        one of the other kind of token, or of none                  76022
        ==========================================================  =======
        """
        path = asked.get("cgi_path")
        if path is None or path == "":
            return 40101
        if not isinstance(path, str) or not path.startswith("/") or "//" in path or "?" in path:
            return 76003
        wants = _UPLOADS.get(path) or (self._interfaces[path].wants if path in self._interfaces else None)
        if wants is None:
            return 76021
        mine = Wants.COMPONENTS if appid == self._known.component.appid else Wants.MERCHANTS
        return quota_of(self._known, appid, path) if wants in {mine, Wants.EITHER} else 76022
