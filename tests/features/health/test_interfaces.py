"""The interfaces that tell about accounts: what is asked, what counts as an answer, what an answer may not quote.

Samples: the interfaces' own pages.
"""

import json
from typing import Any

import pytest
from scripted import SECRET, Server, always

from tcb_ops.features.health import interfaces
from tcb_ops.features.health.interfaces import AuthorizerInfo, Quota
from tcb_ops.model import Owner, Secret
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError, InvalidResponse
from tcb_ops.wechat.transport import Transport

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
NORMAL = {"test2-4a89da": "NORMAL"}
CALLS = {
    "page": (
        lambda client: interfaces.authorizers(client, Secret(SECRET), "wxcomp", 500),
        LIST,
        (33, ["wx1", "wx2"]),
        "/cgi-bin/component/api_get_authorizer_list?component_access_token=",
        {"component_appid": "wxcomp", "offset": 500, "count": 500},
    ),
    "info": (
        lambda client: interfaces.authorizer(client, Secret(SECRET), "wxcomp", "wx1"),
        INFO,
        AuthorizerInfo("茶语\u2028小铺", frozenset({18, 49})),
        "/cgi-bin/component/api_get_authorizer_info?component_access_token=",
        {"component_appid": "wxcomp", "authorizer_appid": "wx1"},
    ),
    "environments": (
        lambda client: interfaces.environments(client, Secret(SECRET)),
        ENVS,
        NORMAL,
        "/tcb/getenvinfo?access_token=",
        {},
    ),
    "own environments": (
        lambda client: interfaces.environments(client, Secret(SECRET), Owner.PLATFORM),
        ENVS,
        NORMAL,
        "/componenttcb/describeenvs?access_token=",
        {},
    ),
    "quota": (
        lambda client: interfaces.quota(client, Secret(SECRET)),
        QUOTA,
        Quota(10, 12, -2),
        "/cgi-bin/openapi/quota/get?access_token=",
        {"cgi_path": "/tcb/uploadfile"},
    ),
}
EACH_CALL = pytest.mark.parametrize(("call", "sample", "found", "target", "body"), CALLS.values(), ids=CALLS)


async def ask(call: Any, answer: bytes) -> tuple[Any, Server]:
    async with Server(always(answer)) as server, Transport(connections=1) as transport:
        return await call(PlatformClient(transport, server.base)), server


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
            (2, ["wx2"]),
        ),
        (
            {
                "authorizer_info": {"nick_name": "\ud800x"},
                "authorization_info": {"func_info": [1, {"funcscope_category": 49}]},
            },
            "info",
            AuthorizerInfo("x", frozenset()),
        ),
        ({"info_list": [{"env": ""}, {"env": "e-1"}, 3]}, "environments", {"e-1": ""}),
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
    assert result == {"e-1": "NORMAL"}
    unseen = {"authorizer_info": {"nick_name": "\u200b\u3000"}, "authorization_info": {}}
    assert run(ask(CALLS["info"][0], json.dumps(unseen).encode()))[0] == AuthorizerInfo("", frozenset())
