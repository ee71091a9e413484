"""`call`: any interface of the platform, with the token it takes, and no secret shown."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from scripted import Server, always
from workspace import TEA, many

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault, FaultStep, Reset
from tcb_ops.interface_calls import hidden

LIVE = ("--target", "http://localhost:9")
"""No simulator's address: live."""


def test_an_answer_is_printed_and_its_secrets_are_not(open_cli):
    cli = open_cli(many(TEA, rows=1))
    environments = cli("call", TEA.name, "tcb/getenvinfo", "--json").json["answer"]
    assert TEA.env in [each["env"] for each in environments["info_list"]]
    link = cli("call", TEA.appid, "tcb/uploadfile", json.dumps({"env": TEA.env, "path": "a.png"}))
    assert link.code == 0
    shown = json.loads(link.out)
    assert {key for key, value in shown.items() if value == "•••"} == {
        *("url", "token", "authorization", "cos_file_id")
    }
    assert "q-signature" not in link.out + link.err


def test_python_gives_secrets_as_secrets(open_workspace, caplog):
    caplog.set_level(logging.DEBUG)
    workspace = open_workspace(many(TEA, rows=1))
    body = {"env": TEA.env, "path": "a.png"}
    answer = tcb.call(TEA.name, "tcb/uploadfile", body, settings=workspace.settings)
    assert answer["authorization"].reveal().startswith("q-sign-algorithm=")
    token = (workspace.folder / "tokens.csv").read_text(encoding="utf-8").split(",")[-1].strip()
    for secret in (answer["authorization"].reveal(), answer["token"].reveal(), token):
        assert secret not in repr(answer) + caplog.text


def test_an_errcode_is_an_error_with_advice(open_workspace):
    workspace = open_workspace(many(TEA, rows=1), [Fault(errcode=85088, step=FaultStep.ENV_INFO)])
    with pytest.raises(tcb.RefusedError) as refused:
        tcb.call(TEA.appid, "tcb/getenvinfo", settings=workspace.settings)
    assert refused.value.errcode == 85088
    assert refused.value.fix is not None
    with pytest.raises(tcb.RefusedError, match="invalid url"):
        tcb.call(TEA.appid, "tcb/nothing", settings=workspace.settings)


@pytest.mark.parametrize(
    ("code", "fix"),
    [(40097, "Compare the body with the documentation"), (-1, "Wait, then make the same call again.")],
)
def test_the_refusal_of_another_interface_has_no_advice_about_rows(open_workspace, code, fix):
    fault = Fault(errcode=code, step=FaultStep.ENV_INFO)
    workspace = open_workspace(many(TEA, rows=1), [fault])
    with pytest.raises(tcb.RefusedError, match=f"errcode {code} ") as refused:
        tcb.call(TEA.appid, "tcb/getenvinfo", settings=workspace.settings)
    assert refused.value.fix.en.startswith(fix)
    assert "path" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((TEA.appid, "getenvinfo"), 2, "an interface's name, such as tcb/getenvinfo"),
        ((TEA.appid, "tcb/../cgi-bin/token"), 2, "an interface's name"),
        ((TEA.appid, "tcb/getenvinfo?access_token=x"), 2, "an interface's name"),
        ((TEA.appid, "tcb/getenvinfo", "[1]"), 2, "not a JSON object"),
        ((TEA.appid, "tcb/getenvinfo", "{"), 2, "not a JSON object"),
        (("nobody", "tcb/getenvinfo"), 2, "no merchant nobody"),
        (("-", "tcb/getenvinfo"), 2, "no merchant -"),
        (("-", "cgi-bin/component/api_get_authorizer_list"), 2, "component"),
        ((TEA.appid, "tcb/nothing"), 1, "40066"),
    ],
    ids=str,
)
def test_what_cannot_be_called_is_said(open_cli, words, code, said):
    result = open_cli(many(TEA, rows=1))("call", *words)
    assert (result.code, result.out) == (code, ""), result.err
    assert said in result.err


def test_a_dry_run_shows_the_request_without_its_token_and_sends_nothing(open_cli):
    cli = open_cli(many(TEA, rows=1))
    result = cli("call", TEA.appid, "tcb/createenv", '{"alias": "店"}', "--dry-run")
    assert result.code == 0
    assert "/tcb/createenv?access_token=•••\n" in result.out
    assert '{"alias": "店"}' in result.out
    assert cli.calls == 0


def test_a_call_that_may_change_something_live_needs_yes_without_a_terminal(open_cli):
    cli = open_cli(many(TEA, rows=1))
    refused = cli("call", TEA.appid, "tcb/createenv", *LIVE)
    assert refused.code == 2
    assert "--yes" in refused.err
    for words in (("tcb/getenvinfo",), ("tcb/createenv", "--yes")):
        sent = cli("call", TEA.appid, *words, *LIVE)
        assert sent.code != 2, "it was sent, and nothing listens there"
        assert "--yes" not in sent.err


@pytest.mark.parametrize(
    ("interface", "step", "is_repeated"),
    [("tcb/getenvinfo", FaultStep.ENV_INFO, True), ("tcb/createenvandresource", FaultStep.CREATE_ENV, False)],
)
def test_a_call_whose_answer_is_lost_is_repeated_unless_it_may_change_something(
    open_workspace, interface, step, is_repeated
):
    lost = Fault(step=step, reset=Reset.MIDDLE, calls=((1, 1),))
    workspace = open_workspace(many(TEA, rows=1), [lost])
    body = {"type": "CreatePostpayPackage", "alias": "tea"}
    if is_repeated:
        assert tcb.call(TEA.appid, interface, body, settings=workspace.settings)["info_list"]
        return
    with pytest.raises(tcb.TransportError):
        tcb.call(TEA.appid, interface, body, settings=workspace.settings)
    assert workspace.sim.stats[f"{step}"] == 1


@pytest.mark.integration
@pytest.mark.parametrize(
    ("answer", "status"),
    [(b"<html>no</html>", "200 OK"), (b"[]", "200 OK"), (b"", "302 Found"), (b" " * (2 << 20), "200 OK")],
    ids=["no JSON", "no object", "a redirect", "2 MiB"],
)
def test_an_answer_that_is_none_is_an_error_without_secrets(open_workspace, answer, status):
    workspace = open_workspace(many(TEA, rows=1))

    async def called() -> None:
        async with Server(always(answer, status)) as server:
            settings = workspace.with_options(api_base=server.base)
            await asyncio.to_thread(tcb.call, TEA.appid, "tcb/getenvinfo", settings=settings)

    with pytest.raises(tcb.TransportError) as failed:
        asyncio.run(called())
    assert "access_token" not in str(failed.value)


def test_what_hides_a_secret():
    answer = {
        "authorizer_access_token": "abc",
        "info": [{"pre_auth_code": "x", "name": "茶"}],
        "download_url": "https://a.b/c?sign=1234567890abcdef",
        "old_tokens": ["defg"],
        "request": {
            "request_body": '{"authorization_code":"hijk"}',
            "request_url": "/a?pre_auth_code=lmno&x=1",
        },
        "authorization_info": {"authorizer_appid": "wxtea"},
        "errmsg": "ok",
        "url": "",
        "count": 3,
    }
    shown = hidden(answer)
    assert shown["info"][0]["name"] == "茶"
    assert shown["authorization_info"]["authorizer_appid"] == "wxtea"
    assert [shown[key] for key in ("errmsg", "url", "count")] == ["ok", "", 3]
    for text in ("abc", "'x'", "1234567890abcdef", "defg", "hijk", "lmno"):
        assert text not in repr(shown)
