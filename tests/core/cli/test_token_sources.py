"""Sources of tokens at the command line: what stops everybody is one message, and the exit code says what kind."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from dataclasses import replace

import pytest
from workspace import BOOKS, TEA, many

from tcb_ops.features.simulator import Component, Fault, FaultStep
from tcb_ops.model import Merchant, Owner

PLATFORM = Component("wxplatform", "PrAcTiCe-app-secret", "PrAcTiCe-ticket")
OWN = Merchant("wxplatform", "平台自有", "own-env-1", owner=Owner.PLATFORM)
WHOLE = (
    'source = "component"',
    "sole_owner = true",
    'component_appid = "wxplatform"',
    'secret = "env:PRACTICE_SECRET"',
    'ticket = "file:ticket.txt"',
)


@pytest.fixture(params=["en", "zh"])
def lang(request, monkeypatch):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8" if request.param == "zh" else "C")
    return request.param


@pytest.fixture
def open_platform(open_cli, monkeypatch):
    """A platform whose tokens are refreshed here, with these lines under `[tokens]`."""

    def opened(*tokens, faults=(), lang="en", component=PLATFORM):
        cli = open_cli(many(TEA, BOOKS, rows=2), faults, lang=lang, component=component, tokens={})
        (cli.folder / "ticket.txt").write_text(PLATFORM.ticket)
        monkeypatch.setenv("PRACTICE_SECRET", PLATFORM.secret)
        configure(cli, *(tokens or WHOLE))
        return cli

    return opened


def configure(cli, *tokens):
    file = cli.folder / "tcb-ops.toml"
    head = file.read_text(encoding="utf-8").split("[tokens]")[0]
    file.write_text("\n".join([head, "[tokens]", *tokens]), encoding="utf-8")


def sentences(err):
    """The lines in which the command says why it ends."""
    return [line for line in err.splitlines() if line.startswith("tcb-ops: ")]


def test_a_platform_that_refreshes_by_itself_from_the_settings_file(open_platform):
    cli = open_platform()
    assert cli.links().code == 0
    assert (cli.folder / "tcb-ops.tokens" / "wxtea.json").exists(), "beside the settings file"
    before = cli.workspace.sim.stats
    assert cli.links("--new-run").code == 0
    assert (cli.workspace.sim.stats - before)["component_token"] == 0


@pytest.mark.parametrize(
    ("tokens", "en", "zh"),
    [
        pytest.param(
            [WHOLE[0], *WHOLE[2:]], "needs sole_owner = true", "需要 sole_owner = true", id="not-sole"
        ),
        pytest.param(
            [WHOLE[0], *WHOLE[1:3], WHOLE[4]],
            "tokens.secret is missing",
            "缺少 tokens.secret",
            id="no-secret",
        ),
        pytest.param(
            [*WHOLE[:4], 'ticket = "file:none.txt"'],
            "none.txt cannot be read",
            "none.txt 无法读取",
            id="no-ticket",
        ),
        pytest.param(
            [*WHOLE[:3], 'secret = "PrAcTiCe-app-secret"', WHOLE[4]],
            "not contain the secret",
            "不要写密钥本身",
            id="literal",
        ),
        pytest.param(['source = "service"'], "tokens.url is missing", "缺少 tokens.url", id="no-url"),
        pytest.param(
            ['source = "service"', 'url = "http://tokens.example/{appid}"'],
            "must be https",
            "必须是 https",
            id="http",
        ),
    ],
)
def test_a_source_that_cannot_work_is_exit_2_before_anything_is_sent(open_platform, lang, tokens, en, zh):
    cli = open_platform(*tokens, lang=lang)
    result = cli.links()
    assert result.code == 2
    (sentence,) = sentences(result.err)
    assert (zh if lang == "zh" else en) in sentence
    assert PLATFORM.secret not in result.err
    assert not cli.calls
    assert cli.workspace.sim.stats["component_token"] == 0


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_store_that_others_may_read_is_exit_2_with_the_fix(open_platform, lang):
    cli = open_platform(lang=lang)
    assert cli.links().code == 0
    (cli.folder / "tcb-ops.tokens" / "wxtea.json").chmod(0o644)
    result = cli.links("--new-run")
    assert result.code == 2
    assert "chmod -R go-rwx" in sentences(result.err)[0]


@pytest.mark.parametrize(
    ("code", "en", "zh"),
    [(61004, "whitelist", "白名单"), (61006, "next push", "下一次推送"), (40125, "AppSecret", "AppSecret")],
)
def test_what_stops_everybody_is_exit_3_with_one_message_and_the_rows_pending(
    open_platform, lang, code, en, zh
):
    cli = open_platform(faults=[Fault(step=FaultStep.COMPONENT_TOKEN, errcode=code)], lang=lang)
    result = cli.links("--json")
    assert result.code == 3
    (sentence,) = sentences(result.err)
    assert str(code) in sentence
    assert (zh if lang == "zh" else en) in sentence
    assert cli.latest().counts == {"pending": 4}


@pytest.mark.slow
def test_a_token_server_that_is_down_is_exit_3_and_named(open_cli, lang):
    cli = open_cli(many(TEA, BOOKS, rows=2), lang=lang)
    configure(cli, 'source = "service"', 'url = "http://127.0.0.1:9/{appid}"')
    result = cli.links("--patience", "0.3")
    assert result.code == 3
    (sentence,) = sentences(result.err)
    assert "127.0.0.1:9" in sentence
    assert re.search("token server|令牌服务", sentence)
    assert cli.latest().counts == {"pending": 4}


def test_the_ticket_the_store_and_the_settings_are_never_listed_for_upload(open_platform):
    cli = open_platform()
    assert cli.links().code == 0
    (cli.folder / "mine.png").touch()
    result = cli("list", ".", "--to", TEA.env, "--out", "all.csv", "--include", "*")
    assert result.code == 0, result.err
    listed = (cli.folder / "all.csv").read_text(encoding="utf-8-sig")
    assert "mine.png" in listed
    assert not re.search(r"ticket\.txt|tcb-ops\.tokens|tcb-ops\.toml", listed)


@pytest.mark.kill
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(
    "words",
    [
        ("merchants", "check"),
        ("merchants", "sync"),
        ("doctor",),
    ],
    ids="-".join,
)
def test_a_command_that_is_interrupted_keeps_the_refresh_that_is_on_its_way(open_platform, wait_for, words):
    rotating = replace(PLATFORM, rotate=True)
    slow = Fault(appid=TEA.appid, step=FaultStep.AUTHORIZER_TOKEN, delay=1)
    cli = open_platform(faults=[slow], component=rotating)
    sim = cli.workspace.sim
    with cli.process(*words) as process:
        wait_for(lambda: sim.stats[f"authorizer_token:{TEA.appid}"])
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    kept = json.loads((cli.folder / "tcb-ops.tokens" / f"{TEA.appid}.json").read_text())
    assert kept["refresh_token"] == sim.refresh_token(TEA.appid)
