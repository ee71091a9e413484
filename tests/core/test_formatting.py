"""Texts: trimmed, folded, shown on a terminal, and made inert for a spreadsheet."""

import random

import pytest

from tcb_ops.formatting import fold, format_duration, guard, shown, trim, unguard


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
def test_trim_takes_off_what_nobody_sees_at_the_ends(raw, value):
    assert trim(raw) == value


def test_fold_makes_width_and_case_irrelevant():
    assert fold("　ＡppＩＤ ") == fold("appid")


def test_shown_escapes_what_a_terminal_would_act_on_and_cuts_what_is_long():
    assert shown("a\x1b[31m\u200b") == "a\\x1b[31m\\u200b"
    assert shown("目录" * 100, 10) == "目录目录目录目录目…"


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (-3, "<1s", "1 秒以内"),
        (0.04, "<1s", "1 秒以内"),
        (0.6, "1s", "1 秒"),
        (59.4, "59s", "59 秒"),
        (64, "1m04s", "1 分 4 秒"),
        (200, "3m20s", "3 分 20 秒"),
        (7_500, "2h05m", "2 小时 5 分"),
    ],
)
def test_a_duration_has_two_units_at_most_and_is_never_zero(seconds, english, chinese):
    duration = format_duration(seconds)
    assert (duration.en, duration.zh) == (english, chinese)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        pytest.param("=1+1", "'=1+1", id="formula"),
        pytest.param("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0", id="plus"),
        pytest.param("-2+3", "'-2+3", id="minus"),
        pytest.param("@SUM(A1)", "'@SUM(A1)", id="at"),
        pytest.param("\t=1", "'\t=1", id="tab"),
        pytest.param("\r=1", "'\r=1", id="carriage-return"),
        pytest.param("\n=1", "'\n=1", id="line-break"),
        pytest.param("＝1", "'＝1", id="full-width-equals"),
        pytest.param("＋1", "'＋1", id="full-width-plus"),
        pytest.param("－1", "'－1", id="full-width-minus"),
        pytest.param("＠a", "'＠a", id="full-width-at"),
        pytest.param("'=1", "''=1", id="an-apostrophe-of-its-own"),
        pytest.param("-5", "-5", id="negative-number"),
        pytest.param("+3.5e-7", "+3.5e-7", id="number-with-exponent"),
        pytest.param("-.5", "-.5", id="number-without-a-whole-part"),
        pytest.param("-5\n", "'-5\n", id="not-quite-a-number"),
        pytest.param("007", "007", id="digits"),
        pytest.param("'tis", "'tis", id="harmless-apostrophe"),
        pytest.param("a=b", "a=b", id="equals-within"),
        pytest.param("", "", id="empty"),
        pytest.param("a\x01b\x1b[31m\x7f\tc", "a␁b␛[31m\\u007f\tc", id="control characters"),
        pytest.param(
            "a\x9b31m\u202eb\u2066\u200f", r"a\u009b31m\u202eb\u2066\u200f", id="C1 and bidirectional marks"
        ),
        pytest.param("C:\\users\\u2000", "C:\\users\\u2000", id="no escape"),
    ],
)
def test_a_cell_is_written_inert_and_read_back(cell, written):
    assert guard(cell) == written
    assert unguard(written) == cell


def test_guard_and_unguard_are_inverse_for_any_text():
    chance = random.Random(7)
    for _ in range(5_000):
        cell = "".join(chance.choices("'=+-@＝\t\r\n\0\x1b\x7f\x85\u202e1.e a", k=chance.randrange(6)))
        written = guard(cell)
        assert unguard(written) == cell
        assert written[:1] not in set("=@＝\t\r\n"), written


def test_what_a_person_typed_stays_as_it_is():
    assert unguard("'quoted'") == "'quoted'"
