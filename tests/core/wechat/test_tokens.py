"""Where tokens come from: a file that is read again when it changes, a program of the operator's; nothing shown."""

import asyncio
import hashlib
import os
import re
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from scripted import LOOPS, Run, no_more_files
from tables import table

from tcb_ops.errors import ResourceLimitError, SettingsError, TokenError
from tcb_ops.features.component.store import TokenStore
from tcb_ops.model import Secret
from tcb_ops.settings import Settings, TokenSettings, load_settings
from tcb_ops.wechat import open_source
from tcb_ops.wechat.tokens import Token, TokenSource
from tcb_ops.wechat.tokens import command as module
from tcb_ops.wechat.tokens.command import CommandTokens, Credential
from tcb_ops.wechat.tokens.file import FileTokens
from tcb_ops.wechat.tokens.service import ServiceTokens
from tcb_ops.wechat.transport import Transport

SECRET = "SeCrEt+token/42="


@pytest.fixture(params=LOOPS)
def loop(request):
    return str(request.param)


def write(file: Path, text: str, encoding: str = "utf-8") -> Path:
    """Put a file in place all at once, as a refresher does: its inode is another one."""
    fresh = file.with_name("fresh")
    fresh.write_bytes(text.encode(encoding))
    fresh.replace(file)
    return file


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "tokens.csv", f"appid,access_token\nwx1,{SECRET}\nwx2,other\n")


def ask(run: Run, source: TokenSource, appid: str = "wx1", refused: Secret | None = None) -> Token:
    async def asked() -> Token:
        try:
            return await source.token(appid, refused)
        finally:
            await source.aclose()

    token: Token = run(asked())
    return token


def shown(error: SettingsError | TokenError) -> str:
    """Everything that a log or a screen could show of an error."""
    return f"{error!r} {error.text.en} {error.text.zh} {error.__cause__!r}" + (
        "" if error.__suppress_context__ else repr(error.__context__)
    )


class Pauses:
    """Sleeps no time; at each pause the next thing is done, and a clock of its own goes on."""

    def __init__(self, *then: Any) -> None:
        self.then, self.slept, self.start = list(then), 0.0, time.time()

    def clock(self) -> float:
        return self.start + self.slept

    async def __call__(self, seconds: float) -> None:
        self.slept += seconds
        if self.then:
            self.then.pop(0)()


# --- the file -----------------------------------------------------------------------------------------------------------


@table(
    "text, encoding, token",
    {
        "byte-order-mark": ("appid,access_token\nwx1,t\n", "utf-8-sig", Token(Secret("t"))),
        "spaces-and-case": (" AppID , ACCESS_TOKEN \r\n wx1 , t \r\n\r\n", "utf-8", Token(Secret("t"))),
        "columns-in-any-order": ("name,access_token,appid\n茶,t,wx1\n", "utf-8", Token(Secret("t"))),
        "quoted": ('appid,access_token\nwx1,"a,b"\n', "utf-8", Token(Secret("a,b"))),
        "unix": ("appid,access_token,expires_at\nwx1,t,1700000000\n", "utf-8", Token(Secret("t"), 1.7e9)),
        "iso-8601": (
            "appid,access_token,expires_at\nwx1,t,2023-11-14T22:13:20+00:00\n",
            "utf-8",
            Token(Secret("t"), 1.7e9),
        ),
        "no-end": ("appid,access_token,expires_at\nwx1,t,\n", "utf-8", Token(Secret("t"))),
        "short-line": ("appid,access_token,expires_at\nwx1,t\n", "utf-8", Token(Secret("t"))),
    },
)
def test_token_files_as_operators_write_them(run, tmp_path, text, encoding, token):
    assert ask(run, FileTokens(write(tmp_path / "t.csv", text, encoding))) == token


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(run, file):
    source = FileTokens(file)
    refused = ask(run, source).value
    assert ask(run, source, refused=refused).value == refused
    write(file, "appid,access_token\nwx1,fresh\n")
    assert ask(run, source, refused=refused).value == Secret("fresh")


def test_an_appid_without_a_line_is_one_merchants_trouble(run, file):
    with pytest.raises(TokenError, match=r"tokens\.csv has no token for wx3") as caught:
        ask(run, FileTokens(file), "wx3")
    assert "wx3" in caught.value.text.zh
    assert SECRET not in shown(caught.value)


@table(
    "text, why",
    {
        "empty": ("", "line 1: no column appid, access_token"),
        "missing-column": (f"appid,token\nwx1,{SECRET}\n", "line 1: no column access_token"),
        "no-appid": (f"appid,access_token\nwx1,a\n,{SECRET}\n", "line 3: the appid is empty"),
        "no-ascii": (f"appid,access_token\nwx1,{SECRET}中\n", "line 2: the access_token is empty, longer"),
        "control-character": (
            f"appid,access_token\nwx1,{SECRET}\x07\n",
            "line 2: the access_token is empty, longer",
        ),
        "twice": (f"appid,access_token\nwx1,a\nwx1,{SECRET}\n", "line 3: the appid appears twice"),
        "bad-end": (f"appid,access_token,expires_at\nwx1,{SECRET},soon\n", "line 2: expires_at is neither"),
        "no-end-at-all": (f"appid,access_token,expires_at\nwx1,{SECRET},1e999\n", "line 2: expires_at is"),
        "long": (
            f"appid,access_token\nwx1,{SECRET}{'x' * 5000}\n",
            "line 2: the access_token is empty, longer",
        ),
        "endless": (f"appid,access_token\nwx1,{SECRET}{'x' * 200_000}\n", "line 2: not valid CSV"),
        "unclosed-quote": (f'appid,access_token\nwx1,"{SECRET}\nwx2,other\n', "line 2: not valid CSV"),
    },
)
def test_a_token_file_that_cannot_work_is_said_with_its_line_and_shows_no_token(tmp_path, text, why):
    with pytest.raises(SettingsError, match=why) as caught:
        FileTokens(write(tmp_path / "t.csv", text))
    assert str(tmp_path / "t.csv") in caught.value.text.zh
    assert SECRET not in shown(caught.value)
    assert caught.value.exit_code == 2


@table(
    "line, why",
    {
        "empty": ("wx1,", "line 3: the access_token is empty, longer"),
        "no-ascii": ("wx1,中", "line 3: the access_token is empty, longer"),
        "bad-end": ("wx1,t,soon", "line 3: expires_at is neither"),
        "twice": (f"wx1,{SECRET}\nwx1,{SECRET}", "line 4: the appid appears twice"),
    },
)
@pytest.mark.parametrize("when", ["at-start", "in-mid-run"])
def test_a_line_that_cannot_be_used_is_its_own_merchants_trouble(run, file, line, why, when):
    pauses = Pauses()
    source = FileTokens(file, pauses.clock, pauses) if when == "in-mid-run" else None
    write(file, f"appid,access_token,expires_at\nwx2,other\n{line}\n")
    source = source or FileTokens(file, pauses.clock, pauses)
    with pytest.raises(TokenError, match=why) as caught:
        ask(run, source)
    assert SECRET not in shown(caught.value)
    assert ask(run, source, "wx2").value == Secret("other")
    write(file, "appid,access_token\nwx1,fixed\n")
    assert ask(run, source).value == Secret("fixed")


def test_a_token_file_that_is_missing_a_folder_or_no_utf_8_is_said(tmp_path):
    with pytest.raises(SettingsError, match="there is no such file"):
        FileTokens(tmp_path / "none.csv")
    with pytest.raises(SettingsError, match="cannot be read"):
        FileTokens(tmp_path)
    (tmp_path / "gbk.csv").write_bytes("appid,access_token,名称\n".encode("gbk"))
    with pytest.raises(SettingsError, match="is not UTF-8"):
        FileTokens(tmp_path / "gbk.csv")


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in the file system")
def test_a_token_file_that_is_a_pipe_or_a_device_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(SettingsError, match="not a regular file"):
            FileTokens(path)


def test_a_token_file_without_end_is_not_read_to_it(tmp_path):
    with (tmp_path / "t.csv").open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    with pytest.raises(SettingsError, match="larger than 16 MB"):
        FileTokens(tmp_path / "t.csv")


@table(
    "text, mended, waited",
    {
        "emptied": ("", True, 1),
        "half-a-header": ("appid,acc", True, 1),
        "without-the-line": ("appid,access_token\n", True, 1),
        "without-the-token": ("appid,access_token\nwx1,", True, 1),
        "half-a-line-of-another": ("appid,access_token\nwx1,fresh\nwx2,ha", False, 0),
        "without-the-last-line-break": ("appid,access_token\nwx1,fresh", False, 0),
    },
)
def test_a_half_written_file_is_waited_for(run, file, text, mended, waited):
    then = [lambda: None, lambda: file.write_text("appid,access_token\nwx1,fresh\n")]
    pauses = Pauses(*then if mended else ())
    source = FileTokens(file, pauses.clock, pauses)
    file.write_text(text)
    for _ in range(2):
        assert ask(run, source).value == Secret("fresh")
        assert pauses.slept == waited


def test_an_appid_that_stays_away_is_waited_for_once_the_file_has_changed(run, file):
    pauses = Pauses()
    source = FileTokens(file, pauses.clock, pauses)
    with pytest.raises(TokenError, match="has no token for wx3"):
        ask(run, source, "wx3")
    assert not pauses.slept
    write(file, "appid,access_token\nwx1,fresh\n")
    for _ in range(2):
        with pytest.raises(TokenError, match="has no token for wx3"):
            ask(run, source, "wx3")
        assert pauses.slept == 2


# --- the program --------------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(module, "COMMAND_SECONDS", 10 if where == "stdout" else 1.5)
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
    monkeypatch.setattr(module, "COMMAND_SECONDS", 1.5)
    code = f"sleep 60 & echo $! > '{tmp_path / 'pid'}'; {waits}"  # a shell starts at once, however busy the machine
    with pytest.raises(TokenError, match="did not finish"):
        ask(run, CommandTokens(("sh", "-c", code)))
    status, end = Path("/proc", (tmp_path / "pid").read_text(), "stat"), time.monotonic() + 240
    while status.exists() and ") Z " not in status.read_text():
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.02)


# --- which source ---------------------------------------------------------------------------------------------------------


def test_the_settings_name_the_source(file):
    def source_of(**tokens: Any) -> TokenSource:
        return open_source(Settings(tokens=TokenSettings(**tokens)))

    assert isinstance(source_of(file=file), FileTokens)
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
    file = write(tmp_path / "conf" / "tcb-ops.toml", text)
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


def test_a_tokens_repr_is_not_the_token():
    assert SECRET not in repr(Token(Secret(SECRET), 1.0))


# --- no file can be opened ----------------------------------------------------------------------------------------------


def test_too_few_descriptors_are_everybodys_trouble_whatever_the_source(run, tmp_path, file):
    settings = TokenSettings(file=file, command=("true",), url="http://127.0.0.1:9/{appid}")
    for source in (FileTokens(file), CommandTokens(settings.command), ServiceTokens(settings.url, {})):
        if isinstance(source, FileTokens):
            write(file, "appid,access_token\nwx1,fresh\n")

        async def asked(source: TokenSource = source) -> None:
            if isinstance(source, ServiceTokens):
                source._transport = Transport(connections=1)
            try:
                with no_more_files():
                    await source.token("wx1")
            finally:
                await source.aclose()

        with pytest.raises(ResourceLimitError, match="raise the limit"):
            run(asked())
    store = TokenStore(tmp_path / "store", "wxplatform", "http://127.0.0.1:9")
    with no_more_files(), pytest.raises(ResourceLimitError):
        store.read("wx1")
