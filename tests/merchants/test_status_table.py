"""The table of states: some of each issue, each text once, and a CSV that a spreadsheet does not run."""

import csv
import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from tcb_ops.details import DetailCode, detail
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.merchants.status import (
    Issue,
    MerchantState,
    draw_states,
    group,
    of_the_component,
    verdict,
    write_states,
)
from tcb_ops.model import Merchant
from tcb_ops.wechat.responses import Quota


def state(n, *codes, name="商户{}号", **more):
    issues = tuple(Issue(code, Bilingual(f"m{code}", f"含义{code}"), Bilingual("do", "做")) for code in codes)
    return MerchantState(Merchant(f"wx{n}", name.format(n), f"env-{n}"), issues=issues, **more)


def drawn(states, width=80, lang=Lang.EN):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False
    )
    for part in draw_states(states, lang):
        console.print(part)
    return console.file.getvalue()


def test_a_trouble_that_hundreds_have_does_not_hide_the_others():
    text = drawn([*(state(n, "61007") for n in range(300)), state(900, "85088"), state(901, "halted")])
    assert len(re.findall("^商户", text, re.MULTILINE)) == 40
    assert "61007 · 300 lines (商户0号, 商户100号, 商户101号 and 297 more) · m61007" in " ".join(text.split())
    assert "商户900号" in text
    assert "商户901号" in text
    assert "… and 262 more that are not ready" in text
    assert text.index("61007 · 300 lines") < text.index("85088 · 1 line")


def test_hundreds_that_can_work_are_summed_up_and_a_few_are_shown():
    assert "商户" not in drawn([state(n) for n in range(13)])
    assert drawn([state(n) for n in range(12)]).count("商户") == 12
    assert verdict([state(n) for n in range(3)]).en == "3 of 3 lines ready, 0 not ready."


@pytest.mark.parametrize("lang", Lang)
def test_a_narrow_screen_breaks_no_id(lang):
    states = [
        state(1, "no_token", name="名字很长很长很长的旗舰体验店分店{}"),
        state(2, quota=Quota(9000, 1, 8999)),
    ]
    text = drawn(states, 80, lang)
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    for assert_complete in ("env-1", "no_token", "8,999"):
        assert assert_complete in text


def test_the_same_words_but_for_the_merchant_stand_once():
    reported = [
        (
            Merchant(appid, "店", "e"),
            Issue(
                "no_token",
                Bilingual("none", "无"),
                detail(DetailCode.NO_APPID, appid=appid),
            ),
        )
        for appid in ("wx1", "wx2")
    ]
    both, one = (
        f"{appids} is not an appid: correct it in the merchants file." for appids in ("wx1, wx2", "wx1")
    )
    assert [(t.action.en, len(whose)) for t, whose in group(reported)] == [(both, 2)]
    assert [t.action.en for t, _ in group(reported[:1])] == [one]


def test_what_the_platform_says_neither_moves_the_cursor_nor_runs_in_a_spreadsheet(tmp_path):
    nasty = Merchant("wx1", "=1+1\x1b[2J", "e-1")
    one = MerchantState(
        nasty, issues=(Issue("48001", Bilingual("m", "含"), Bilingual("d", "做"), "@errmsg"),)
    )
    assert "\x1b" not in drawn([one])
    write_states(
        [one, state(2, "halted", "45009"), state(3, token=True, quota=Quota(9, 2, 7))],
        tmp_path / "s.csv",
        Lang.ZH,
    )
    assert (tmp_path / "s.csv").read_bytes().startswith(b"\xef\xbb\xbfappid,merchant,env,owner,works,token")
    with (tmp_path / "s.csv").open(encoding="utf-8-sig", newline="") as file:
        first, second, third = csv.DictReader(file)
    assert (first["merchant"][:2], first["errmsg"]) == ("'=", "'@errmsg")
    assert (second["code"], second["meaning"]) == ("halted / 45009", "含义halted / 含义45009")
    assert [third[name] for name in ("works", "token", "permission", "remain", "code")] == [
        "yes",
        "yes",
        "",
        "7",
        "",
    ]


def test_where_no_limit_is_known_no_figure_is_told(tmp_path):
    one = state(1, token=True, quota=Quota(0, 0, 0))
    assert one.as_dict(Lang.EN)["quota"] is None
    write_states([one], tmp_path / "s.csv", Lang.EN)
    with (tmp_path / "s.csv").open(encoding="utf-8-sig", newline="") as file:
        (line,) = csv.DictReader(file)
    assert [line[name] for name in ("daily_limit", "used", "remain")] == ["", "", ""]


def test_with_long_ids_on_a_narrow_screen_the_names_column_keeps_its_head():
    long = Merchant("wx1", "云上茶铺旗舰体验店", "tea-prod-a5cd68-0123456789abcdef")
    text = drawn(
        [MerchantState(long, issues=(Issue("no_token", Bilingual("m", "含"), Bilingual("d", "做")),))], 80
    )
    assert text.startswith("merchant ")
    assert all(cell_len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("dead_token", "refresh the component token"),
        ("40001", "refresh the component token"),
        ("61014", "own appid"),
        ("no_token", "do"),
        ("-1", "do"),
    ],
)
def test_what_to_do_about_a_component_token_is_not_what_a_merchant_does(code, says):
    reported = of_the_component(Issue(code, Bilingual("m", "含"), Bilingual("do", "做")))
    assert says in reported.action.en
    assert "商户重新授权" not in reported.action.zh
