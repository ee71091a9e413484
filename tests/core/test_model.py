"""The values that flow, and errors, which keep what happened and what to do apart."""

import pickle

import pytest

from tcb_ops.errors import RefusedError, SettingsError
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Bilingual
from tcb_ops.model import PLATFORM, Secret, is_foreign, is_loopback


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("localhost.evil.cn", False),
        ("127.0.0.1.evil.cn", False),
        ("", False),
    ],
)
def test_what_is_this_machine(host, is_it):
    assert is_loopback(host) is is_it


def test_a_secret_shows_itself_only_when_asked():
    secret = Secret("s3cret-token")
    assert "s3cret" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "s3cret-token"
    with pytest.raises(TypeError) as raised:
        pickle.dumps(secret)
    assert "s3cret" not in str(raised.value)


def test_secrets_are_equal_by_what_they_hold():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("云上茶铺 a/b.png", "云上茶铺 a/b.png"),
        ("red \x1b[31m name", "red ␛[31m name"),
        ("two\r\nlines\tone", "two  lines one"),
        ("bell\x07 c1\x9b rtl\u202e half\ud800", "bell␇ c1\\u009b rtl\\u202e half\\ud800"),
    ],
    ids=["as it is", "an escape sequence", "line ends", "others that do not print"],
)
def test_a_text_from_outside_is_one_line_that_a_terminal_can_take(text, shown):
    assert sanitize(text) == shown


PROBLEM, FIX = Bilingual("It is so.", "是这样。"), Bilingual("Do this.", "做这个。")


@pytest.mark.parametrize(
    "error",
    [
        SettingsError(PROBLEM, FIX),
        RefusedError(PROBLEM, 85088, fix=FIX),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_says_the_problem_and_then_the_fix(error):
    assert (error.problem, error.fix) == (PROBLEM, FIX)
    assert (str(error), error.text.zh) == ("It is so. Do this.", "是这样。做这个。")


def test_an_error_without_a_fix_says_the_problem():
    error = SettingsError(PROBLEM)
    assert (error.fix, error.text) == (None, PROBLEM)


@pytest.mark.parametrize(
    ("target", "foreign"),
    [
        (PLATFORM, False),
        ("https://api2.weixin.qq.com", False),
        ("https://hk.api.weixin.qq.com", False),
        ("https://api.weixin.qq.com.example.cn", True),
        ("https://api.weixin.qq.cm", True),
        ("https://8.8.8.8", True),
        ("https://10.0.0.7", False),
        ("http://127.0.0.1:8080", False),
        ("https://proxy", False),
        ("https://wx.lan", False),
    ],
)
def test_a_public_host_that_is_not_the_platforms_is_foreign(target, foreign):
    assert is_foreign(target) is foreign
