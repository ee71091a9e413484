"""The simulated platform: upload links, tokens, authorizers, environments, quotas, files by their file_id.

Responses are HTTP 200, with an errcode if a call is refused, in the formats of the interfaces' own pages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from tcb_ops.catalogue import errcode
from tcb_ops.errors import has_surrogates
from tcb_ops.features.simulator.cos import CosStore, bucket_of, download_url, issue
from tcb_ops.features.simulator.faults import FaultStep
from tcb_ops.features.simulator.state import (
    BEIJING,
    Accounts,
    Request,
    Response,
    SimulatorState,
    Wants,
    alias_of,
)

LONGEST_PATH = 850
"""Maximum length of a path, in bytes of UTF-8: the store's limit for a key (436/14518)."""
PAGE = 500
"""Maximum number of authorizers listed per call."""
FILES_PER_CALL = 50
"""Maximum number of files that one call names."""
_DOWNLOAD_LIFETIME = 7200
"""Default lifetime of a download URL in seconds, without max_age."""
CONFIRM = "/simulator/confirm"
"""Not the platform's: with a merchant's token, its administrator confirms what waits for it."""
_ALIAS = re.compile("[a-z][A-Za-z0-9-]*")
_FILE_ID = re.compile(r"cloud://([^./]+)\.([^/]+)/(.+)", re.DOTALL)
_FILE_STATUS = {0: "ok", -503002: "STORAGE_EXCEED_AUTHORITY", -503003: "STORAGE_FILE_NONEXIST"}
_RID = re.compile(rb" rid: ([0-9a-f-]+)\"}$")
_RID_WITHIN, _BODY_KEPT, _REFUSED_KEPT = 80, 1000, 4096
"""Bytes at the end of a response with the rid, bytes of a body and number of calls that are remembered."""
_RATE = {"call_count": 5000, "refresh_second": 60}
"""Returned, but not enforced."""

ERRMSG = {
    -1: "system error",
    -1000: "system error",
    40001: "invalid credential, access_token is invalid or not latest",
    40014: "invalid access_token",
    40066: "invalid url",
    40097: "invalid args",
    40101: "missing parameter",
    41001: "access_token missing",
    42001: "access_token expired",
    43002: "require POST method",
    44002: "empty post data",
    40013: "invalid appid",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    47001: "data format error",
    48001: "api unauthorized",
    48006: "forbid to clear quota because of reaching the limit",
    61003: "component is not authorized by this account",
    61004: "access clientip is not registered",
    61007: "api is unauthorized to component",
    85088: "no qbase privilege",
    -601012: "no permission for this environment",
}
"""The platform's own messages as documented or reported; for other codes the catalogue's meaning is used."""
_JSON = {"Content-Type": "application/json; encoding=utf-8"}

Fields = dict[str, Any]
_OK: Fields = {"errcode": 0, "errmsg": "ok"}
Answer = Fields | int
"""The body of a successful response, or an errcode."""


class _Interface(NamedTuple):
    step: FaultStep
    wants: Wants
    answer: Callable[[str, Fields], Answer]
    """Takes the caller's appid and the body's object."""


class Platform:
    """The interfaces of the API base."""

    def __init__(
        self, state: SimulatorState, accounts: Accounts, store: CosStore, link_lifetime: int
    ) -> None:
        self.base = ""
        """`http://127.0.0.1:PORT`, set when it listens."""
        self._state, self._accounts, self._store = state, accounts, store
        self._link_lifetime = link_lifetime
        self._refused: dict[str, Fields] = {}
        """What was received in the latest calls that were refused, by rid."""
        merchants, components, prefix = Wants.MERCHANTS, Wants.COMPONENTS, "/cgi-bin/component/api_"
        self._interfaces = {
            "/tcb/uploadfile": _Interface(FaultStep.LINK, merchants, self._link),
            "/componenttcb/uploadfile": _Interface(FaultStep.LINK, components, self._link),
            "/tcb/createclouduser": _Interface(FaultStep.CREATE_CLOUD_USER, merchants, self._open_cloud),
            "/tcb/createenvandresource": _Interface(FaultStep.CREATE_ENV, merchants, self._create_env),
            "/tcb/getenvinfo": _Interface(FaultStep.ENV_INFO, merchants, self._env_info),
            "/tcb/batchdownloadfile": _Interface(FaultStep.DOWNLOAD, merchants, self._download),
            "/tcb/batchdeletefile": _Interface(FaultStep.DELETE, merchants, self._delete),
            "/componenttcb/describeenvs": _Interface(FaultStep.DESCRIBE_ENVS, components, self._own_envs),
            "/componenttcb/batchdownloadfile": _Interface(FaultStep.DOWNLOAD, components, self._download),
            "/componenttcb/batchdeletefile": _Interface(FaultStep.DELETE, components, self._delete),
            "/cgi-bin/openapi/quota/get": _Interface(FaultStep.QUOTA, Wants.EITHER, self._quota),
            "/cgi-bin/clear_quota": _Interface(FaultStep.CLEAR_QUOTA, Wants.EITHER, self._clear_quota),
            "/cgi-bin/openapi/rid/get": _Interface(FaultStep.RID, Wants.EITHER, self._received),
        }
        if accounts.component.secret:
            self._interfaces |= {
                f"{prefix}component_token": _Interface(FaultStep.COMPONENT_TOKEN, Wants.NOBODYS, self._issue),
                f"{prefix}authorizer_token": _Interface(
                    FaultStep.AUTHORIZER_TOKEN, components, self._refresh
                ),
                f"{prefix}create_preauthcode": _Interface(
                    FaultStep.PREAUTH_CODE, components, self._preauth_code
                ),
                f"{prefix}get_authorizer_list": _Interface(FaultStep.AUTHORIZER_LIST, components, self._list),
                f"{prefix}get_authorizer_info": _Interface(FaultStep.AUTHORIZER_INFO, components, self._info),
            }

    async def handle(self, request: Request) -> Response:
        """Respond to a call, and remember what it was if it is refused."""
        response = await self._respond(request)
        body = response.body if isinstance(response.body, bytes) else b""
        if refused := _RID.search(body[-_RID_WITHIN:]):
            route, _mark, query = request.target.partition("?")
            token = token_of(query)
            caller = self._accounts.tokens.owner(token, self._accounts.clock()) if token else 0
            self._refused[refused[1].decode()] = {
                "appid": caller,
                "invoke_time": int(self._accounts.clock()),
                "cost_in_ms": 31,
                "request_url": f"{route}?access_token=*" if token else route,
                "request_body": bytes(request.body[:_BODY_KEPT]).decode(errors="replace"),
                "response_body": body.decode(errors="replace"),
                "client_ip": "127.0.0.1",
            }
            if len(self._refused) > _REFUSED_KEPT:
                self._refused.pop(next(iter(self._refused)))
        return response

    async def _respond(self, request: Request) -> Response:
        """Respond to a call, unless a fault is played instead.

        Checks, in order: interface, method, token, account, body; of an upload link also path, environment, quota.
        """
        route, _, query = request.target.partition("?")
        if route == CONFIRM:
            return self._confirm(request.method, query)
        interface = self._interfaces.get(route)
        if interface is None:
            return self._give(FaultStep.LINK, 40066)
        step, body = interface.step, bytes(request.body)
        asked = read_object(body)
        fields = asked if isinstance(asked, dict) else {}
        env, path, about = (_text(fields.get(name)) for name in ("env", "path", "authorizer_appid"))
        appid = self._caller(request.method, route, query, interface.wants)
        called, refused = ("", appid) if isinstance(appid, int) else (appid, 0)
        subject = about if about and interface.wants is Wants.COMPONENTS else called
        if step is FaultStep.LINK:
            self._state.arrived(step, env, path)
            self._state.stats["component_links"] += interface.wants is Wants.COMPONENTS
        else:
            path = subject
            self._state.called(step, subject)
        if not refused and isinstance(asked, int):
            refused = asked
        if not refused and step is FaultStep.LINK:
            refused = self._link_refusal(called, route, fields)
            # A documented trap: the platform reports success, but the file cannot be downloaded afterwards.
            self._state.stats["escaped_bodies"] += not refused and body.isascii() and not path.isascii()
        if refused:
            return self._give(step, refused)
        fault, played = await self._state.fault(step, env, subject, path)
        if played is not None:
            return played
        if fault.errcode is not None:
            return self._give(step, fault.errcode, fault.errmsg)
        if step is FaultStep.LINK:
            fields |= {"env": fault.other_env or env, "lifetime": fault.lifetime}
        response = self._give(step, self._carry_out(interface, called, route, fields))
        response.reset = fault.reset
        return response

    def _carry_out(self, interface: _Interface, called: str, route: str, fields: Fields) -> Answer:
        """Return the answer to a call, or the errcode that refuses it: a quota, or the component that it names."""
        if interface.step is not FaultStep.LINK and not self._accounts.spend(called, route):
            return 45009
        named = fields.get("component_appid")
        if route.startswith("/cgi-bin/component/") and named != self._accounts.component.appid:
            return 61011 if named else 41018
        return interface.answer(called, fields)

    def _caller(self, method: str, route: str, query: str, wants: Wants) -> str | int:
        appid = self._accounts.caller(token_of(query), wants) if method == "POST" else 43002
        if isinstance(appid, int) or appid == self._accounts.component.appid:
            return appid
        account = self._accounts.account(appid)
        # The quota is not part of the cloud's permission set.
        refused = account.refusal() if route.startswith("/tcb/") or account.revoked else 0
        if refused and self._accounts.authorizes(appid):
            refused = self._accounts.account(appid).refusal()
        return refused or appid

    def _confirm(self, method: str, query: str) -> Response:
        appid = self._accounts.caller(token_of(query), Wants.MERCHANTS) if method == "POST" else 43002
        answer = appid if isinstance(appid, int) else {**_OK, "confirmed": self._accounts.confirm(appid)}
        return self._give("confirm", answer)

    def _link_refusal(self, appid: str, route: str, asked: Fields) -> int:
        env, path = asked.get("env"), asked.get("path")
        if env is None or path is None or env == "" or path == "":
            return 40101
        if not isinstance(env, str) or not isinstance(path, str) or not path_allowed(path):
            return 40097
        refused = self._accounts.env_refusal(appid, env)
        return refused or (0 if self._accounts.spend(appid, route) else 45009)

    def _link(self, appid: str, asked: Fields) -> Fields:
        lifetime = self._link_lifetime if asked["lifetime"] is None else asked["lifetime"]
        return issue(self.base, asked["env"], asked["path"], appid, int(self._accounts.clock()), lifetime)

    def _give(self, step: str, answer: Answer, errmsg: str = "") -> Response:
        """Count an answer, and return it: HTTP 200 with a JSON body; for an errcode `{"errcode":…,"errmsg":"… rid: …"}`."""
        self._state.answered(step, answer if isinstance(answer, int) else 0)
        if isinstance(answer, int):
            text = errmsg or ERRMSG.get(answer) or errcode(answer).meaning.en
            answer = {"errcode": answer, "errmsg": f"{text} rid: {self._state.new_id()}"}
        body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        return Response(200, body, dict(_JSON))

    def _issue(self, _appid: str, asked: Fields) -> Answer:
        component, secret = self._accounts.component, asked.get("component_appsecret")
        if not secret:
            return 41004
        if secret != component.secret:
            return 40125
        refused = self._accounts.ticket_refusal(str(asked.get("component_verify_ticket")))
        if refused:
            return refused
        token = self._accounts.issue(component.appid)
        return {"component_access_token": token, "expires_in": component.token_lifetime}

    def _refresh(self, _appid: str, asked: Fields) -> Answer:
        appid, token = str(asked.get("authorizer_appid")), str(asked.get("authorizer_refresh_token"))
        given = self._accounts.refresh(appid, token)
        if isinstance(given, int):
            return given
        return {
            "authorizer_access_token": given[0],
            "expires_in": self._accounts.component.token_lifetime,
            "authorizer_refresh_token": given[1],
        }

    def _preauth_code(self, appid: str, _asked: Fields) -> Answer:
        return {"pre_auth_code": f"preauthcode@@@{self._accounts.tokens.new_value(appid)}", "expires_in": 600}

    def _list(self, _appid: str, asked: Fields) -> Answer:
        offset, count = asked.get("offset"), asked.get("count")
        if type(offset) is not int or type(count) is not int or offset < 0 or not 1 <= count <= PAGE:
            return 40097
        authorizers = self._accounts.authorizers()
        listed = []
        for account in authorizers[offset : offset + count]:
            entry: Fields = {"authorizer_appid": account.appid}
            token = self._accounts.refresh_tokens[account.appid]
            if token.listed:
                entry["refresh_token"] = token.newest
            listed.append(entry | {"auth_time": self._accounts.began})
        return {"total_count": len(authorizers), "list": listed}

    def _info(self, _appid: str, asked: Fields) -> Answer:
        appid = str(asked.get("authorizer_appid"))
        if not self._accounts.is_authorizer(appid):
            return 61003
        account = self._accounts.account(appid)
        waits = {"confirm_info": {"need_confirm": 1, "already_confirm": 0}}
        confirmation = waits if account.unconfirmed else {}
        return {
            "authorizer_info": {
                "nick_name": account.name,
                "service_type_info": {"id": 0},
                "verify_type_info": {"id": 0},
                "user_name": f"gh_{appid[-12:]}",
                "principal_name": account.name,
                "MiniProgramInfo": {"visit_status": 0},
            },
            "authorization_info": {
                "authorizer_appid": appid,
                "func_info": [
                    {"funcscope_category": {"id": number}} | confirmation for number in account.permissions
                ],
            },
        }

    def _open_cloud(self, appid: str, _asked: Fields) -> Answer:
        return self._accounts.open_cloud(appid) or _OK

    def _create_env(self, appid: str, asked: Fields) -> Answer:
        """Create an environment: of type CreatePostpayPackage, or in the retired form, with an id of the caller's."""
        kind, alias, env = asked.get("type"), asked.get("alias"), asked.get("env")
        if not self._accounts.account(appid).cloud:
            return 85088
        if not alias or not (kind or env):
            return 40101
        if not _ALIAS.fullmatch(_text(alias)) or kind not in {None, "CreatePostpayPackage"}:
            return 40097
        if kind is None:
            self._accounts.create_env(appid, alias, _text(env))
            return {**_OK, "status": "INITIALIZING"}
        return {**_OK, "envid": self._accounts.create_env(appid, alias)}

    def _clear_quota(self, appid: str, asked: Fields) -> Answer:
        return (40013 if asked.get("appid") != appid else self._accounts.clear_quota(appid)) or _OK

    def _env_info(self, appid: str, asked: Fields) -> Answer:
        if not self._accounts.account(appid).cloud:
            return 85088
        env, envs = asked.get("env"), self._envs(appid)
        entries = [entry for entry in envs if env in {None, "", entry["env"]}]
        return -601012 if env and not entries else {**_OK, "info_list": entries}

    def _own_envs(self, appid: str, _asked: Fields) -> Answer:
        entries = [
            entry | {"dbinstance_id": f"tnt-{entry['env'][:9]}", "bucket_id": bucket_of(entry["env"])}
            for entry in self._envs(appid)
        ]
        return {**_OK, "info_list": entries}

    def _envs(self, appid: str) -> list[Fields]:
        began = datetime.fromtimestamp(self._accounts.began, BEIJING)
        return [
            {
                "env": environment.env,
                "alias": alias_of(environment.env),
                "create_time": f"{began:%Y-%m-%d %H:%M:%S}",
                "update_time": f"{began:%Y-%m-%d %H:%M:%S}",
                "status": str(environment.status),
                "package_id": "basic",
                "package_name": "基础版 1",
            }
            for environment in self._accounts.environments_of(appid)
        ]

    def _quota(self, appid: str, asked: Fields) -> Answer:
        path = asked.get("cgi_path")
        if path is None or path == "":
            return 40101
        if not isinstance(path, str) or not path.startswith("/") or "//" in path or "?" in path:
            return 76003
        if path not in self._interfaces:
            return 76021
        wants = self._interfaces[path].wants
        mine = Wants.COMPONENTS if appid == self._accounts.component.appid else Wants.MERCHANTS
        if wants not in {mine, Wants.EITHER}:
            return 76022
        limit, used = self._accounts.daily_limit(appid, path), self._accounts.used[appid, path]
        return {
            **_OK,
            "quota": {"daily_limit": limit, "used": used, "remain": max(0, limit - used)},
            "rate_limit": _RATE,
            "component_rate_limit": _RATE,
        }

    def _received(self, appid: str, asked: Fields) -> Answer:
        request = self._refused.get(str(asked.get("rid")))
        if request is None:
            return 76001
        if appid not in {request["appid"], self._accounts.component.appid}:
            return 76003
        return {**_OK, "request": {name: value for name, value in request.items() if name != "appid"}}

    def _download(self, appid: str, asked: Fields) -> Answer:
        files = self._files(appid, asked, "file_list", dict)
        if isinstance(files, int):
            return files
        answers = []
        for file in files:
            file_id, max_age = str(file.get("fileid")), file.get("max_age", _DOWNLOAD_LIFETIME)
            if type(max_age) is not int or max_age < 0:
                return 40097
            status, bucket, path = self._find(asked["env"], file_id)
            expires = int(self._accounts.clock()) + max_age
            url = "" if status else download_url(self.base, bucket, path, expires)
            entry = {"fileid": file_id, "download_url": url, "status": status}
            answers.append(entry | {"errmsg": _FILE_STATUS[status]})
        return {**_OK, "file_list": answers}

    def _delete(self, appid: str, asked: Fields) -> Answer:
        ids = self._files(appid, asked, "fileid_list", str)
        if isinstance(ids, int):
            return ids
        answers = []
        for file_id in ids:
            status, bucket, path = self._find(asked["env"], file_id)
            if not status:
                self._store.remove(bucket, path)
            answers.append({"fileid": file_id, "status": status, "errmsg": _FILE_STATUS[status]})
        return {**_OK, "delete_list": answers}

    def _files(self, appid: str, asked: Fields, key: str, kind: type) -> list[Any] | int:
        env, file_ids = asked.get("env"), asked.get(key)
        if not env or not file_ids:
            return 40101
        if not isinstance(env, str) or not isinstance(file_ids, list):
            return 40097
        if len(file_ids) > FILES_PER_CALL or not all(isinstance(each, kind) for each in file_ids):
            return 40097
        return self._accounts.env_refusal(appid, env) or file_ids

    def _find(self, env: str, file_id: str) -> tuple[int, str, str]:
        parts = _FILE_ID.fullmatch(file_id)
        if parts is None:
            return -503003, "", ""
        if parts[1] != env or parts[2] != bucket_of(env):
            return -503002, "", ""
        return (0 if self._store.holds(parts[2], parts[3]) else -503003), parts[2], parts[3]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def path_allowed(path: str) -> bool:
    """Return whether a path follows the naming rules: no leading slash, no `//`, at most 850 bytes."""
    follows = not path.startswith("/") and "//" not in path and not has_surrogates(path)
    return follows and 0 < len(path.encode()) <= LONGEST_PATH


def token_of(query: str) -> str:
    """Return the access token of a query: `access_token` on newer pages, `component_access_token` on older ones."""
    fields = (part.partition("=") for part in query.split("&"))
    names = {"access_token", "component_access_token"}
    return next((unquote_plus(value) for name, _, value in fields if name in names), "")


def read_object(body: bytes) -> dict[str, Any] | int:
    """Return a body's JSON object, or the errcode that refuses it: 44002 if empty, 47001 if not a JSON object."""
    if not body:
        return 44002
    try:
        asked = json.loads(body.decode())
    except (ValueError, RecursionError):
        return 47001
    return asked if isinstance(asked, dict) else 47001
