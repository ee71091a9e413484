from __future__ import annotations

import pytest

from tcb_ops.formatting import fold, shown, trim


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        pytest.param("a b", "a b", id="inner space stays"),
        pytest.param("  a\t", "a", id="spaces and tab"),
        pytest.param("\u00a0a\u00a0", "a", id="no-break spaces"),
        pytest.param("\u3000环境\u3000", "环境", id="ideographic spaces"),
        pytest.param("\ufeffa\u200b", "a", id="a BOM and a zero-width space"),
        pytest.param("\x1ba", "\x1ba", id="a control character is not trimmed away"),
        pytest.param("007", "007", id="leading zeros"),
    ],
)
def test_trim_takes_off_what_nobody_sees_at_the_ends(raw: str, value: str) -> None:
    assert trim(raw) == value


def test_fold_makes_width_and_case_irrelevant() -> None:
    assert fold("　ＡppＩＤ ") == fold("appid")


def test_shown_escapes_what_a_terminal_would_act_on_and_cuts_what_is_long() -> None:
    assert shown("a\x1b[31m\u200b") == "a\\x1b[31m\\u200b"
    assert shown("目录" * 100, 10) == "目录目录目录目录目…"
