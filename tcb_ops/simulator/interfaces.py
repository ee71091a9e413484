"""The interfaces that give tokens and tell of authorizers: POST cgi-bin/component/….

Their good answers have no errcode. Shapes: domain.md §2.3. All are pure but for what they change in Authorizations.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from tcb_ops.simulator.accounts import SimulatedEnvironment
from tcb_ops.simulator.authorizations import Authorizations, Wants
from tcb_ops.simulator.cos import Store
from tcb_ops.simulator.faults import FaultStep, Reset
from tcb_ops.simulator.links import bucket_of, download_url
from tcb_ops.simulator.responses import errcode_json, instead, json_answer, read_object, token_of, within
from tcb_ops.simulator.state import SimulatorState

if TYPE_CHECKING:
    from aiohttp import web

PAGE = 500
"""Authorizers that one call lists at most."""


def component_token(known: Authorizations, _appid: str, asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer api_component_token.

    ==========================================  =======
    no component_appid, or another's            41018, 61011
    no component_appsecret, or a wrong one      41004, 40125
    no or a wrong ticket, one that ran out      61006, 61005
    ==========================================  =======
    """
    refused = _other_component(known, asked)
    if refused:
        return refused
    secret = asked.get("component_appsecret")
    if not secret:
        return 41004
    if secret != known.component.secret:
        return 40125
    refused = known.ticket_refusal(str(asked.get("component_verify_ticket")))
    if refused:
        return refused
    return {
        "component_access_token": known.issue(known.component.appid),
        "expires_in": known.component.token_lifetime,
    }


def authorizer_token(known: Authorizations, _appid: str, asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer api_authorizer_token: 61003 for who has not authorized, 61023 for a wrong refresh token."""
    refused = _other_component(known, asked)
    if refused:
        return refused
    given = known.refresh(str(asked.get("authorizer_appid")), str(asked.get("authorizer_refresh_token")))
    if isinstance(given, int):
        return given
    return {
        "authorizer_access_token": given[0],
        "expires_in": known.component.token_lifetime,
        "authorizer_refresh_token": given[1],
    }


def authorizer_list(known: Authorizations, _appid: str, asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer api_get_authorizer_list: 40097 for a page that cannot be."""
    refused = _other_component(known, asked)
    if refused:
        return refused
    offset, count = asked.get("offset"), asked.get("count")
    if type(offset) is not int or type(count) is not int or offset < 0 or not 1 <= count <= PAGE:
        return 40097
    authorizers = known.authorizers()
    listed = []
    for account in authorizers[offset : offset + count]:
        refresh_token = known.listed_refresh_token(account.appid)
        entry: dict[str, Any] = {"authorizer_appid": account.appid}
        if refresh_token:  # where the platform has lost it, the key is missing
            entry["refresh_token"] = refresh_token
        listed.append(entry | {"auth_time": known.began})
    return {"total_count": len(authorizers), "list": listed}


def authorizer_info(known: Authorizations, _appid: str, asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer api_get_authorizer_info: 61003 for who has not authorized."""
    refused = _other_component(known, asked)
    if refused:
        return refused
    appid = str(asked.get("authorizer_appid"))
    if not known.is_authorizer(appid):
        return 61003
    account = known.account(appid)
    return {
        "authorizer_info": {
            "nick_name": account.name,
            "head_img": "",
            "service_type_info": {"id": 0},
            "verify_type_info": {"id": 0},
            "user_name": f"gh_{appid[-12:]}",
            "principal_name": account.name,
            "business_info": {
                "open_pay": 0,
                "open_shake": 0,
                "open_scan": 0,
                "open_card": 0,
                "open_store": 0,
            },
            "alias": "",
            "qrcode_url": "",
            "signature": "",
            "MiniProgramInfo": {
                "network": {},
                "categories": [{"first": "工具", "second": "效率"}],
                "visit_status": 0,
            },
        },
        "authorization_info": {
            "authorizer_appid": appid,
            "func_info": [{"funcscope_category": {"id": number}} for number in account.permissions],
        },
    }


def _other_component(known: Authorizations, asked: dict[str, Any]) -> int:
    appid = asked.get("component_appid")
    if not appid:
        return 41018
    return 0 if appid == known.component.appid else 61011


_RATE = {"call_count": 5000, "refresh_second": 60}
"""Shown, and not held against anybody."""


def env_info(known: Authorizations, appid: str, asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer getenvinfo: 85088 where 云开发 is not open, -601012 for an env that is not the caller's."""
    if not known.account(appid).cloud:
        return 85088
    env = asked.get("env")
    found = [each for each in known.environments_of(appid) if env in {None, "", each.env}]
    if env and not found:
        return -601012
    return _listed(known, found)


def describe_envs(known: Authorizations, appid: str, _asked: dict[str, Any]) -> dict[str, Any] | int:
    """Answer describeenvs: the platform's own environments, each with its bucket."""
    answer = _listed(known, known.environments_of(appid))
    for entry in answer["info_list"]:
        entry |= {"dbinstance_id": f"tnt-{entry['env'][:9]}", "bucket_id": bucket_of(entry["env"])}
    return answer


def quota_of(known: Authorizations, appid: str, cgi_path: str) -> dict[str, Any]:
    """Give the answer of quota/get for an interface that is there; a limit of 0 stands for none."""
    limit, used = known.daily_limit(appid, cgi_path), known.used[appid, cgi_path]
    return {
        "errcode": 0,
        "errmsg": "ok",
        "quota": {"daily_limit": limit, "used": used, "remain": max(0, limit - used)},
        "rate_limit": _RATE,
        "component_rate_limit": _RATE,
    }


def _listed(known: Authorizations, environments: list[SimulatedEnvironment]) -> dict[str, Any]:
    made = datetime.fromtimestamp(known.began, UTC) + timedelta(hours=8)  # the platform speaks Beijing time
    return {
        "errcode": 0,
        "errmsg": "ok",
        "info_list": [
            {
                "env": environment.env,
                "alias": environment.env.rpartition("-")[0] or environment.env,
                "create_time": f"{made:%Y-%m-%d %H:%M:%S}",
                "update_time": f"{made:%Y-%m-%d %H:%M:%S}",
                "status": str(environment.status),
                "package_id": "basic",
                "package_name": "基础版 1",
            }
            for environment in environments
        ],
    }


MOST = 50
"""Files that one call may name."""
_LIFE = 7200
"""Seconds that a download URL lives where max_age does not say."""
_FILE_ID = re.compile(r"cloud://([^./]+)\.([^/]+)/(.+)", re.DOTALL)


def download_files(
    known: Authorizations, store: Store, base: str, appid: str, asked: dict[str, Any]
) -> dict[str, Any] | int:
    """Answer batchdownloadfile: a URL on the simulator for each file."""
    files = _list(asked, "file_list", dict)
    refused = files if isinstance(files, int) else known.env_refusal(appid, str(asked.get("env")))
    if isinstance(files, int) or refused:
        return refused
    answers = []
    for file in files:
        file_id, max_age = str(file.get("fileid")), file.get("max_age", _LIFE)
        if type(max_age) is not int or max_age < 0:
            return 40097
        status, bucket, path = _find(store, asked["env"], file_id)
        url = "" if status else download_url(base, bucket, path, int(known.clock()) + max_age)
        answers.append({"fileid": file_id, "download_url": url} | _status(status))
    return {"errcode": 0, "errmsg": "ok", "file_list": answers}


def delete_files(
    known: Authorizations, store: Store, appid: str, asked: dict[str, Any]
) -> dict[str, Any] | int:
    """Answer batchdeletefile: each file that is there is gone."""
    ids = _list(asked, "fileid_list", str)
    refused = ids if isinstance(ids, int) else known.env_refusal(appid, str(asked.get("env")))
    if isinstance(ids, int) or refused:
        return refused
    answers = []
    for file_id in ids:
        status, bucket, path = _find(store, asked["env"], file_id)
        if not status:
            store.remove(bucket, path)
        answers.append({"fileid": file_id} | _status(status))
    return {"errcode": 0, "errmsg": "ok", "delete_list": answers}


def _list(asked: dict[str, Any], key: str, kind: type) -> list[Any] | int:
    if not asked.get("env") or not asked.get(key):
        return 40101
    found = asked[key]
    if not isinstance(asked["env"], str) or not isinstance(found, list) or len(found) > MOST:
        return 40097
    return found if all(isinstance(each, kind) for each in found) else 40097


def _find(store: Store, env: str, file_id: str) -> tuple[int, str, str]:
    parts = _FILE_ID.fullmatch(file_id)
    if parts is None:
        return -503003, "", ""
    if parts[1] != env or parts[2] != bucket_of(env):
        return -503002, "", ""
    return (0 if store.holds(parts[2], parts[3]) else -503003), parts[2], parts[3]


def _status(status: int) -> dict[str, Any]:
    said = {0: "ok", -503002: "STORAGE_EXCEED_AUTHORITY", -503003: "STORAGE_FILE_NONEXIST"}
    return {"status": status, "errmsg": said[status]}


_UPLOADS = {"/tcb/uploadfile": Wants.MERCHANTS, "/componenttcb/uploadfile": Wants.COMPONENTS}

Answer = dict[str, Any] | int
"""A good answer's body, or an errcode."""


@dataclass(frozen=True, slots=True)
class _Interface:
    step: FaultStep
    wants: Wants
    answer: Callable[[str, dict[str, Any]], Answer]
    """From the caller's appid and the body's object."""


class Interfaces:
    """Answers the calls that are no link calls."""

    def __init__(self, books: SimulatorState, known: Authorizations, store: Store) -> None:
        self.base = ""
        """`http://127.0.0.1:PORT`, once it listens."""
        self._books = books
        self._known = known
        self._interfaces = {
            "/tcb/getenvinfo": _Interface(FaultStep.ENV_INFO, Wants.MERCHANTS, partial(env_info, known)),
            "/componenttcb/describeenvs": _Interface(
                FaultStep.DESCRIBE_ENVS, Wants.COMPONENTS, partial(describe_envs, known)
            ),
            "/cgi-bin/openapi/quota/get": _Interface(FaultStep.QUOTA, Wants.EITHER, self._quota),
        }
        for wing, wants in (("/tcb", Wants.MERCHANTS), ("/componenttcb", Wants.COMPONENTS)):
            self._interfaces[f"{wing}/batchdownloadfile"] = _Interface(
                FaultStep.DOWNLOAD,
                wants,
                lambda appid, asked: download_files(known, store, self.base, appid, asked),
            )
            self._interfaces[f"{wing}/batchdeletefile"] = _Interface(
                FaultStep.DELETE, wants, partial(delete_files, known, store)
            )
        if known.component.secret:
            self._interfaces |= {
                f"/cgi-bin/component/{name}": _Interface(step, wants, partial(answer, known))
                for name, step, wants, answer in (
                    ("api_component_token", FaultStep.COMPONENT_TOKEN, Wants.NOBODYS, component_token),
                    ("api_authorizer_token", FaultStep.AUTHORIZER_TOKEN, Wants.COMPONENTS, authorizer_token),
                    ("api_get_authorizer_list", FaultStep.AUTHORIZER_LIST, Wants.COMPONENTS, authorizer_list),
                    ("api_get_authorizer_info", FaultStep.AUTHORIZER_INFO, Wants.COMPONENTS, authorizer_info),
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

    def _give(self, step: FaultStep, answer: Answer, errmsg: str = "") -> web.Response:
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
