"""The verdict over one line, and the table of states: some of each issue, and a CSV that no spreadsheet runs."""

import csv
import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from tcb_ops.errcodes import errcode
from tcb_ops.features.merchants.check import (
    Issue,
    MerchantAnswers,
    MerchantState,
    draw_states,
    judge,
    of_the_component,
    write_states,
)
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.model import Merchant, Owner
from tcb_ops.wechat.responses import AuthorizerInfo, CloudEnvironment, Quota

TEA = Merchant("wxtea", "茶语小铺", "tea-1")
OWN = Merchant("wxtea", "平台", "plat-1", owner=Owner.PLATFORM)
NORMAL = (CloudEnvironment("tea-1", "NORMAL"),)
SET_49, SET_64, NO_SET = (
    AuthorizerInfo("茶", frozenset({18, 49})),
    AuthorizerInfo("茶", frozenset({64})),
    AuthorizerInfo("茶", frozenset({18})),
)


def issue(code):
    known = errcode(int(code)) if code.lstrip("-").isdigit() else errcode(0)
    return Issue(code, known.meaning, known.action)


CASES = {
    # answered: environments, info, quota → token, permission, cloud, status, codes
    "all well": ((NORMAL, SET_49, Quota(10, 3, 7)), (True, True, True, "NORMAL", ())),
    "set 64 will do": ((NORMAL, SET_64, None), (True, True, True, "NORMAL", ())),
    "no component token": ((NORMAL, None, None), (True, None, True, "NORMAL", ())),
    "no limit known": ((NORMAL, SET_49, Quota(0, 0, 0)), (True, True, True, "NORMAL", ())),
    "used up": ((NORMAL, SET_49, Quota(10, 10, 0)), (True, True, True, "NORMAL", ("45009",))),
    "quota not told": ((NORMAL, SET_49, issue("76022")), (True, True, True, "NORMAL", ())),
    "no token": ((issue("no_token"), SET_49, None), (False, True, None, "", ("no_token",))),
    "dead token": ((issue("dead_token"), None, None), (False, None, None, "", ("dead_token",))),
    "revoked": ((issue("61003"), issue("61003"), None), (False, None, None, "", ("61003",))),
    "set not granted": ((issue("61007"), NO_SET, None), (True, False, None, "", ("61007",))),
    "set not granted, unasked": ((issue("48001"), None, None), (True, False, None, "", ("48001",))),
    "set not granted, yet answered": ((NORMAL, NO_SET, None), (True, False, True, "NORMAL", ("61007",))),
    "no 云开发": ((issue("85088"), SET_49, None), (True, True, False, "", ("85088",))),
    "no 云开发, no set": ((issue("85088"), NO_SET, None), (True, False, False, "", ("61007", "85088"))),
    "halted": (
        ((CloudEnvironment("tea-1", "HALTED"),), SET_49, None),
        (True, True, True, "HALTED", ("halted",)),
    ),
    "unavailable": (
        ((CloudEnvironment("tea-1", "UNAVAILABLE"),), None, None),
        (True, None, True, "UNAVAILABLE", ("unavailable",)),
    ),
    "a new word": (
        ((CloudEnvironment("tea-1", "FROZEN"),), None, None),
        (True, None, True, "FROZEN", ("unavailable",)),
    ),
    "not its environment": (
        ((CloudEnvironment("x", "NORMAL"),), None, None),
        (True, None, True, "", ("not_listed",)),
    ),
    "no environments": (((), None, None), (True, None, True, "", ("not_listed",))),
    "no answer": ((issue("no_answer"), issue("no_answer"), None), (None, None, None, "", ("no_answer",))),
    "info not answered": ((NORMAL, issue("no_answer"), None), (True, None, True, "NORMAL", ())),
    "an unknown code": ((issue("-12345"), None, None), (None, None, None, "", ("-12345",))),
}


@pytest.mark.parametrize(("answered", "expected"), CASES.values(), ids=CASES)
def test_the_table_of_answers_and_verdicts(answered, expected):
    environments, info, quota = answered
    state = judge(TEA, MerchantAnswers(environments, quota, info), {})
    codes = tuple(t.code for t in state.issues)
    assert (state.token, state.permission, state.cloud, state.env_status, codes) == expected
    assert state.works is not bool(codes)


@pytest.mark.parametrize("status", ["NORMAL", "HALTED"])
def test_a_shared_environment_has_the_status_that_its_owner_is_told(status):
    state = judge(TEA, MerchantAnswers((), None, SET_49), {"tea-1": status})
    assert (state.env_status, state.works) == (status, status == "NORMAL")


@pytest.mark.parametrize("code", ["48001", "61007", "61003"])
def test_an_environment_of_the_platforms_own_never_lacks_a_permission_set(code):
    lang = Lang.EN
    state = judge(OWN, MerchantAnswers(issue(code), None, NO_SET), {})
    assert state.permission is None
    if code != "61003":
        assert "49" not in state.issues[0].meaning.of(lang) + state.issues[0].action.of(lang)
    well = judge(OWN, MerchantAnswers((CloudEnvironment("plat-1", "NORMAL"),), None, NO_SET), {})
    assert (well.works, well.permission) == (True, None)


def test_an_environment_that_is_not_the_platforms_is_told_so():
    state = judge(OWN, MerchantAnswers((CloudEnvironment("other", "NORMAL"),)), {})
    assert [t.code for t in state.issues] == ["not_listed"]
    assert "clear owner" in state.issues[0].action.en


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
    assert "… and 262 more that are not ready" in text
    assert text.index("61007 · 300 lines") < text.index("85088 · 1 line")
    assert "商户" not in drawn([state(n) for n in range(13)])  # of those that can work, a few are shown
    assert drawn([state(n) for n in range(12)]).count("商户") == 12


def test_a_narrow_screen_breaks_no_id():
    states = [
        state(1, "no_token", name="名字很长很长很长的旗舰体验店分店{}"),
        state(2, quota=Quota(9000, 1, 8999)),
    ]
    text = drawn(states, 80)
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    for whole in ("env-1", "no_token", "8,999"):
        assert whole in text


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
