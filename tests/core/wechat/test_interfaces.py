"""Other interfaces of the platform: what is asked, what counts as an answer, what an answer may not quote.

Samples: the interfaces' own pages.
"""

import json
from typing import Any

import pytest
from scripted import SECRET, Connection, Server, always

from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.model import Secret
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.responses import ApiError, InvalidResponse
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
