"""Tokens of an operator's program: how it is run, told and ended; nothing that it prints is shown."""

import asyncio
import hashlib
import re
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from scripted import LOOPS, ask, no_more_files, shown
from tables import table

from tcb_ops import programs
from tcb_ops.errors import ResourceLimitError, SettingsError, TokenError
from tcb_ops.features.tokens import sources as module
from tcb_ops.features.tokens.sources import CommandTokens, ServiceTokens
from tcb_ops.hooks import TokenSource
from tcb_ops.model import Secret
from tcb_ops.programs import Credential
from tcb_ops.settings import Settings, TokenSettings, load_settings
from tcb_ops.wechat.single_transport import SingleTransport
from tcb_ops.wechat.tokens import Token, open_source

SECRET = "SeCrEt+token/42="


@pytest.fixture(params=LOOPS)
def loop(request):
    return str(request.param)


def program(code: str, *arguments: str) -> CommandTokens:
    return CommandTokens((sys.executable, "-c", "import json, os, sys, time\n" + code, *arguments))


def test_the_appid_is_the_last_argument_or_stands_where_it_is_named(run):
    result = 'print(json.dumps({"access_token": "/".join(sys.argv[1:])}))'
    assert ask(run, program(result, "x"), "wx1; echo $HOME").value == Secret("x/wx1; echo $HOME"), "no shell"
    assert ask(run, program(result, "--for={appid}", "y")).value == Secret("--for=wx1/y")


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ("", None),
        (', "expires_at": 1700000000', 1.7e9),
        (', "expires_in": 7200', "in two hours"),
        (', "expires_in": "7200"', None),
        (', "expires_in": true', None),
        (', "expires_at": 1700000000, "expires_in": 7200', 1.7e9),
    ],
)
def test_the_programs_answer_may_say_when_the_token_ends(run, more, end):
    token = ask(run, program(f"print('''{{\"access_token\": \"t\"{more}}}''')"))
    if end == "in two hours":
        assert token.expires_at == pytest.approx(time.time() + 7200, abs=30)
    else:
        assert token.expires_at == end


def test_the_program_is_told_which_token_was_refused_without_seeing_it(run):
    result = 'print(json.dumps({"access_token": os.environ["TCB_OPS_APPID"] + "/" + os.environ.get("TCB_OPS_REFUSED", "-")}))'
    assert ask(run, program(result)).value == Secret("wx1/-")
    mark = hashlib.sha256(SECRET.encode()).hexdigest()[:12]
    assert ask(run, program(result), refused=Secret(SECRET)).value == Secret(f"wx1/{mark}")


NO_TOKEN = "content without an access_token"


def printing(value: object) -> str:
    return f"print(json.dumps({value!r}))"


@table(
    "code, why",
    {
        "exit-code": (f"print('{SECRET}'); sys.exit(3)", "ended with exit code 3"),
        "stderr": (f"print('{SECRET}', file=sys.stderr); sys.exit(1)", "ended with exit code 1"),
        "no-json": (f"print('{SECRET}')", NO_TOKEN),
        "no-object": (printing([SECRET]), NO_TOKEN),
        "other-key": (printing({"token": SECRET}), NO_TOKEN),
        "empty": (printing({"access_token": ""}), NO_TOKEN),
        "number": (printing({"access_token": 5}), NO_TOKEN),
        "line-break": (printing({"access_token": f"{SECRET}\n"}), NO_TOKEN),
        "brackets": ("print('[' * 60_000)", NO_TOKEN),
        "binary": ("os.write(1, b'\\xff\\xfe')", NO_TOKEN),
        "long": (printing({"access_token": SECRET + "x" * 5000}), "of at most 4096"),
        **{
            f"ends at {number}": (
                f"print(json.dumps({{'access_token': 't', 'expires_in': {number}}}))",
                "an invalid expiry time",
            )
            for number in ("10**400", "float('nan')", "float('inf')")
        },
    },
)
def test_a_program_without_a_token_is_one_merchants_trouble_and_what_it_printed_is_not_shown(run, code, why):
    with pytest.raises(TokenError, match=why) as caught:
        ask(run, program(code))
    assert "wx1" in caught.value.text.zh
    assert SECRET not in shown(caught.value)


@pytest.mark.integration
@pytest.mark.parametrize("where", ["stdout", "stderr"])
def test_a_program_that_prints_without_end_is_one_merchants_trouble_and_fills_no_memory(
    run, monkeypatch, where
):
    monkeypatch.setattr(programs, "COMMAND_SECONDS", 10 if where == "stdout" else 1.5)
    why = "printed more than 64 KB" if where == "stdout" else "did not finish"
    tracemalloc.start()
    try:
        with pytest.raises(TokenError, match=f"{why}.* for wx1"):
            ask(run, program(f"while True: sys.{where}.write('x' * 65536)"))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.integration
def test_programs_that_hang_do_not_hold_up_another_merchants(run, monkeypatch):
    monkeypatch.setattr(module, "MAKES_ROOM_AFTER", 0.2)
    source = program('sys.argv[1] == "hangs" and time.sleep(60)\nprint(json.dumps({"access_token": "t"}))')

    async def everyone() -> Token:
        hanging = [asyncio.create_task(source.token("hangs")) for _ in range(2 * module.PROGRAMS_AT_ONCE)]
        try:
            return await asyncio.wait_for(source.token("wx1"), 50)
        finally:
            for one in hanging:
                one.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)
            await source.aclose()

    assert run(everyone()).value == Secret("t")


def test_the_program_has_no_terminal_to_wait_at(run):
    result = 'print(json.dumps({"access_token": "read:" + sys.stdin.read()}))'
    assert ask(run, program(result)).value == Secret("read:")


@pytest.mark.integration
@pytest.mark.skipif(sys.platform == "win32", reason="sessions are POSIX's")
@pytest.mark.parametrize("waits", ["wait", ""], ids=["waits-for-it", "is-gone-itself"])
def test_a_program_that_takes_too_long_is_ended_with_its_children(run, tmp_path, monkeypatch, waits):
    monkeypatch.setattr(programs, "COMMAND_SECONDS", 1.5)
    code = f"sleep 60 & echo $! > '{tmp_path / 'pid'}'; {waits}"  # a shell starts at once, however busy the machine
    with pytest.raises(TokenError, match="did not finish"):
        ask(run, CommandTokens(("sh", "-c", code)))
    status, end = Path("/proc", (tmp_path / "pid").read_text(), "stat"), time.monotonic() + 240
    while status.exists() and ") Z " not in status.read_text():
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.02)


def test_the_settings_name_the_source():
    def source_of(**tokens: str | tuple[str, ...]) -> TokenSource:
        return open_source(Settings(tokens=TokenSettings(**tokens)))

    assert isinstance(source_of(source="command", command=("x",)), CommandTokens)
    assert isinstance(source_of(source="service", url="https://tokens.example/{appid}"), ServiceTokens)


@pytest.mark.posix("scripts")
def test_a_command_of_the_settings_file_runs_in_the_files_folder(run, tmp_path, monkeypatch):
    for name in ("conf", "here"):
        script = tmp_path / name / "get-token"
        script.parent.mkdir()
        script.write_text('#!/bin/sh\nprintf \'{"access_token": "%s"}\' $(cat token)\n', encoding="utf-8")
        script.chmod(0o700)
        (script.parent / "token").write_text(name, encoding="utf-8")
    text = '[tokens]\nsource = "command"\ncommand = ["./get-token"]\n'
    file = tmp_path / "conf" / "tcb-ops.toml"
    file.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    for config in (file, "../conf/tcb-ops.toml"):
        assert ask(run, open_source(load_settings(config))).value == Secret("conf")
    credential = Credential.named("tokens.secret", "command:./get-token", load_settings(file).origin.folder)
    assert "conf" in run(credential.read()).reveal()
    (tmp_path / "conf" / "get-token").unlink()
    with pytest.raises(TokenError, match=re.escape(f"{tmp_path}/conf/get-token cannot be started")):
        ask(run, open_source(load_settings(file)))
    monkeypatch.setenv("TCB_OPS_TOKENS__COMMAND", "./get-token")
    assert ask(run, open_source(load_settings(file))).value == Secret("here")


def test_a_command_that_is_not_named_is_found_at_once():
    with pytest.raises(SettingsError, match=r"tokens\.command is empty"):
        open_source(Settings(tokens=TokenSettings(source="command")))


def test_too_few_descriptors_are_everybodys_trouble(run):
    settings = TokenSettings(command=("true",), url="http://127.0.0.1:9/{appid}")
    for source in (CommandTokens(settings.command), ServiceTokens(settings.url, {})):

        async def asked(source: TokenSource = source) -> None:
            if isinstance(source, ServiceTokens):
                source._transport = SingleTransport(connections=1)
            try:
                with no_more_files():
                    await source.token("wx1")
            finally:
                await source.aclose()

        with pytest.raises(ResourceLimitError, match="raise the limit"):
            run(asked())
