"""Where tokens come from: a file that is read again when it changes; nothing shown."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from scripted import LOOPS, ask, no_more_files, shown
from tables import table

from tcb_ops.errors import ResourceLimitError, SettingsError, TokenError
from tcb_ops.features.tokens.component_store import TokenStore
from tcb_ops.model import Secret
from tcb_ops.settings import Settings, TokenSettings
from tcb_ops.wechat.tokens import FileTokens, Token, open_source

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


# --- which source ---------------------------------------------------------------------------------------------------------


def test_the_settings_name_the_source(file):
    assert isinstance(open_source(Settings(tokens=TokenSettings(file=file))), FileTokens)


def test_a_tokens_repr_is_not_the_token():
    assert SECRET not in repr(Token(Secret(SECRET), 1.0))


# --- no file can be opened ----------------------------------------------------------------------------------------------


def test_too_few_descriptors_are_everybodys_trouble(run, tmp_path, file):
    source = FileTokens(file)
    write(file, "appid,access_token\nwx1,fresh\n")

    async def asked() -> None:
        with no_more_files():
            await source.token("wx1")

    with pytest.raises(ResourceLimitError, match="raise the limit"):
        run(asked())
    store = TokenStore(tmp_path / "store", "wxplatform", "http://127.0.0.1:9")
    with no_more_files(), pytest.raises(ResourceLimitError):
        store.read("wx1")
