"""Chinese and Latin text on a terminal."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from tcb_ops.catalogue import all_errcodes
from tcb_ops.formatting import wrap
from tcb_ops.i18n import Lang
from tcb_ops.reports.formats.terminal import Wrapped, shorten


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("请重新授权并勾选权限集。", 10, ["请重新授权", "并勾选权限", "集。"]),
        ("请用 tcb/createclouduser 开通", 22, ["请用", "tcb/createclouduser 开", "通"]),
        ("ask the owner", 8, ["ask the", "owner"]),
        ("权限集「小程序」", 8, ["权限集", "「小程", "序」"]),
        ("a-word-that-is-too-long 了", 10, ["a-word-that-is-too-long", "了"]),
        ("", 10, [""]),
        ("短", 10, ["短"]),
    ],
)
def test_lines_break_between_characters_and_at_no_closing_mark(text, width, lines):
    assert wrap(text, width).split("\n") == lines


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("lang", list(Lang))
def test_nothing_is_lost_and_no_line_is_short_for_nothing(lang, width):
    for known in all_errcodes():
        text = known.action.of(lang)
        lines = wrap(text, width).split("\n")
        assert "".join("".join(lines).split()) == "".join(text.split())
        assert all(cell_len(line) <= width for line in lines)
        longest = max(cell_len(word) for word in re.findall(r"[!-~]+|.", text))
        assert all(cell_len(line) > width - longest - 4 for line in lines[:-1])


@pytest.mark.parametrize(
    ("text", "width", "shortened"),
    [
        ("merchants.csv", 13, "merchants.csv"),
        ("merchants.csv", 9, "merc….csv"),
        ("十一月门店清单.csv", 12, "十一…单.csv"),
        ("十一月门店清单.csv", 11, "十一….csv"),
    ],
)
def test_a_long_cell_loses_its_middle(text, width, shortened):
    assert shorten(text, width) == shortened
    assert cell_len(shortened) <= width


def test_it_is_drawn_to_the_width_there_is():
    out = io.StringIO()
    Console(file=out, width=10).print(Wrapped("61007 请重新授权", bold=5))
    assert out.getvalue() == "61007 请重\n新授权\n"
