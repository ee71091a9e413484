"""Other interfaces of the platform: what is asked, what counts as an answer, what an answer may not quote.

Samples: the interfaces' own pages.
"""

import json
from typing import Any

import pytest
from scripted import SECRET, Connection, Server, always

from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.model import Owner, Secret
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import (
    ApiError,
    AuthorizerInfo,
    AuthorizerPage,
    CloudEnvironment,
    InvalidResponse,
    Quota,
)
from tcb_ops.wechat.transport import Transport

APP_SECRET = "PLANTED-app-secret"


async def _ask(server: Server, interface: str, body: dict[str, Any], token: Secret | None = None) -> Any:
    async with server, Transport(connections=1) as transport:
        return await PlatformClient(transport, server.base).call(
            interface, body, token, (Secret(APP_SECRET),)
        )


def _saying(body: object, status: str = "200 OK") -> Server:
    return Server(always(json.dumps(body, ensure_ascii=False).encode(), status))


def test_a_success_without_an_errcode_is_the_object(run):
    server = _saying({"component_access_token": "t", "expires_in": 7200})
    result = run(_ask(server, "cgi-bin/component/api_component_token", {"component_appid": "wx茶"}))
    assert result == {"component_access_token": "t", "expires_in": 7200}
    assert server.heads[0].startswith(b"POST /cgi-bin/component/api_component_token HTTP/1.1\r\n")
    assert server.bodies == ['{"component_appid":"wx茶"}'.encode()]


@pytest.mark.parametrize(
    ("interface", "target"),
    [
        ("cgi-bin/component/api_get_authorizer_list", "component_access_token"),
        ("tcb/getenvinfo", "access_token"),
        ("componenttcb/describeenvs", "access_token"),
        ("cgi-bin/openapi/quota/get", "access_token"),
    ],
)
def test_the_token_stands_in_the_query_under_the_interfaces_own_name(run, interface, target):
    server = _saying({"errcode": 0})
    run(_ask(server, interface, {}, Secret("a b+c")))
    assert server.heads[0].startswith(f"POST /{interface}?{target}=a%20b%2Bc HTTP/1.1".encode())


def test_a_refusal_quotes_neither_the_token_nor_the_secrets_of_the_body(run):
    errmsg = f"invalid appsecret {APP_SECRET} of {SECRET} rid: 61725984-6126f6f9-040f19c4"
    server = _saying({"errcode": 40125, "errmsg": errmsg})
    result = run(_ask(server, "cgi-bin/component/api_component_token", {}, Secret(SECRET)))
    assert result == ApiError(40125, "invalid appsecret ••• of •••", "61725984-6126f6f9-040f19c4", 200)


@pytest.mark.parametrize(
    ("body", "status", "retryable"),
    [
        ([], "200 OK", True),
        ({}, "200 OK", True),
        ({"x": 1}, "502 Bad Gateway", True),
        ({"x": 1}, "404 Not Found", False),
    ],
    ids=["a list", "an empty object", "a gateway's error", "a page that is not there"],
)
def test_what_is_neither_an_object_nor_an_errcode_is_no_answer(run, body, status, retryable):
    result = run(_ask(_saying(body, status), "tcb/getenvinfo", {}))
    assert isinstance(result, InvalidResponse)
    assert result.retryable is retryable


def test_a_connection_that_breaks_is_a_transport_error_without_the_token(run):
    async def script(connection: Connection) -> None:
        await connection.request()
        connection.reset()

    with pytest.raises(TransportError) as caught:
        run(_ask(Server(script), "tcb/getenvinfo", {}, Secret(SECRET)))
    assert caught.value.fault is TransportFault.RESET
    assert SECRET not in repr((caught.value, caught.value.__cause__, caught.value.__context__))


# --- merchants: ----------------------------------------------------------------------------------------------------

LIST = {
    "total_count": 33,
    "list": [
        {"authorizer_appid": "wx1", "refresh_token": "planted-refresh", "auth_time": 1558000607},
        {"authorizer_appid": "wx2", "auth_time": 1558000607},
    ],
}
INFO = {
    "authorizer_info": {"nick_name": " 茶语\u2028小铺\n", "principal_name": "某公司", "MiniProgramInfo": {}},
    "authorization_info": {
        "authorizer_appid": "wx1",
        "func_info": [{"funcscope_category": {"id": 18}}, {"funcscope_category": {"id": 49}}],
    },
}
ENVS = {
    "errcode": 0,
    "errmsg": "ok",
    "info_list": [{"env": "test2-4a89da", "alias": "test2", "status": "NORMAL", "package_id": "basic"}],
}
QUOTA = {
    "errcode": 0,
    "errmsg": "ok",
    "quota": {"daily_limit": 10, "used": 12, "remain": -2},
    "rate_limit": {"call_count": 5000, "refresh_second": 60},
}
NORMAL = (CloudEnvironment("test2-4a89da", "NORMAL"),)
CALLS = {
    "page": (
        lambda a: a.authorizers(Secret(SECRET), 500),
        LIST,
        AuthorizerPage(33, ("wx1", "wx2")),
        "/cgi-bin/component/api_get_authorizer_list?component_access_token=",
        {"component_appid": "wxcomp", "offset": 500, "count": 500},
    ),
    "info": (
        lambda a: a.authorizer(Secret(SECRET), "wx1"),
        INFO,
        AuthorizerInfo("茶语\u2028小铺", frozenset({18, 49})),
        "/cgi-bin/component/api_get_authorizer_info?component_access_token=",
        {"component_appid": "wxcomp", "authorizer_appid": "wx1"},
    ),
    "environments": (
        lambda a: a.environments(Secret(SECRET)),
        ENVS,
        NORMAL,
        "/tcb/getenvinfo?access_token=",
        {},
    ),
    "own environments": (
        lambda a: a.environments(Secret(SECRET), Owner.PLATFORM),
        ENVS,
        NORMAL,
        "/componenttcb/describeenvs?access_token=",
        {},
    ),
    "quota": (
        lambda a: a.quota(Secret(SECRET)),
        QUOTA,
        Quota(10, 12, -2),
        "/cgi-bin/openapi/quota/get?access_token=",
        {"cgi_path": "/tcb/uploadfile"},
    ),
}
EACH_CALL = pytest.mark.parametrize(("call", "sample", "found", "target", "body"), CALLS.values(), ids=CALLS)


async def ask(call: Any, answer: bytes) -> tuple[Any, Server]:
    async with Server(always(answer)) as server, Transport(connections=1) as transport:
        return await call(PlatformClient(transport, server.base, component_appid="wxcomp")), server


@EACH_CALL
def test_an_answer_of_the_documented_shape_is_read(run, call, sample, found, target, body):
    result, server = run(ask(call, json.dumps(sample).encode()))
    assert result == found
    assert server.heads[0].startswith(f"POST {target}".encode())
    assert json.loads(server.bodies[0]) == body
    assert "planted-refresh" not in repr(result)


@EACH_CALL
def test_an_errcode_is_a_refusal(run, call, sample, found, target, body):
    result, _ = run(ask(call, b'{"errcode":61003,"errmsg":"not authorized rid: 1-2-3"}'))
    assert (type(result), result.errcode, result.rid) == (ApiError, 61003, "1-2-3")


NONSENSE = {
    "empty": {"x": 1},
    "wrong kinds": {
        "total_count": "33",
        "list": {},
        "info_list": {"env": 1},
        "quota": [],
        "authorizer_info": [],
        "authorization_info": 3,
    },
    "wrong numbers": {
        "total_count": True,
        "list": [],
        "quota": {"daily_limit": 1e9, "used": None, "remain": 1},
        "info_list": None,
        "authorizer_info": {},
    },
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
@EACH_CALL
def test_an_answer_that_lacks_what_was_asked_for_is_none(run, call, sample, found, target, body, answer):
    result, _ = run(ask(call, json.dumps(answer).encode()))
    assert isinstance(result, InvalidResponse)
    assert result.retryable


@pytest.mark.parametrize(
    ("sample", "call", "found"),
    [
        (
            {"total_count": 2, "list": ["wx1", {"authorizer_appid": 7}, {"authorizer_appid": "wx2"}]},
            "page",
            AuthorizerPage(2, ("wx2",)),
        ),
        (
            {
                "authorizer_info": {"nick_name": "\ud800x"},
                "authorization_info": {"func_info": [1, {"funcscope_category": 49}]},
            },
            "info",
            AuthorizerInfo("x", frozenset()),
        ),
        ({"info_list": [{"env": ""}, {"env": "e-1"}, 3]}, "environments", (CloudEnvironment("e-1", ""),)),
    ],
    ids=["appids", "name and sets", "environments"],
)
def test_odd_entries_are_left_out_and_the_rest_is_taken(run, sample, call, found):
    result, _ = run(ask(CALLS[call][0], json.dumps(sample).encode()))
    assert result == found


@pytest.mark.parametrize(
    ("quota", "left"), [(Quota(10, 3, 7), 7), (Quota(10, 12, -2), 0), (Quota(0, 0, 0), None)], ids=str
)
def test_calls_left_of_a_quota(quota, left):
    assert quota.left == left


def test_an_environment_told_twice_is_one_and_a_name_of_nothing_is_none(run):
    twice = {"info_list": [{"env": "e-1", "status": "HALTED"}, {"env": "e-1\u200b", "status": "NORMAL"}]}
    result, _ = run(ask(CALLS["environments"][0], json.dumps(twice).encode()))
    assert result == (CloudEnvironment("e-1", "NORMAL"),)
    unseen = {"authorizer_info": {"nick_name": "\u200b\u3000"}, "authorization_info": {}}
    assert run(ask(CALLS["info"][0], json.dumps(unseen).encode()))[0] == AuthorizerInfo("", frozenset())
