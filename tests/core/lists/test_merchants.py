"""The merchants file: reading, and which of its lines a row means."""

import pytest
from tables import table

from tcb_ops.errors import InputError
from tcb_ops.features.health.merchants_sync import read_for_sync
from tcb_ops.lists.merchants import Merchants, Unresolved, cached_resolve, read_merchants, resolve
from tcb_ops.model import Merchant, Owner

FULL = (
    "appid,name,env,default,owner,status,region\n"
    "wxtea,茶语小铺,tea-1,yes,,,华东\n"
    "wxtea,茶语小铺,tea-2,,merchant,,华东\n"
    "wxbooks,城南书店,books-1,,platform,left,华北\n"
)


def test_a_merchants_file_is_read_with_all_its_columns(write):
    merchants = read_merchants(write(FULL, "m.csv"))
    assert len(merchants) == 3
    assert merchants[2] == Merchant(
        "wxbooks",
        "城南书店",
        "books-1",
        default=False,
        owner=Owner.PLATFORM,
        left=True,
        columns=(
            ("appid", "wxbooks"),
            ("name", "城南书店"),
            ("env", "books-1"),
            ("default", ""),
            ("owner", "platform"),
            ("status", "left"),
            ("region", "华北"),
        ),
    )
    assert [m.default for m in merchants] == [True, False, False]
    assert merchants.envs == ("tea-1", "tea-2", "books-1")
    assert merchants.source.endswith("m.csv")


def test_headers_and_words_may_be_chinese_and_the_encoding_gb18030(write):
    text = (
        "小程序ID；商户名称；环境ID；默认；负责方；状态\nwxtea；茶语；tea-1；是；平台；已取消授权\n".replace(
            "；", ";"
        )
    )
    (merchant,) = read_merchants(write(text, "m.csv", "gb18030"))
    assert (merchant.appid, merchant.name, merchant.env) == ("wxtea", "茶语", "tea-1")
    assert (merchant.default, merchant.owner, merchant.left) == (True, Owner.PLATFORM, True)


def test_short_blank_and_spaced_lines_are_taken_as_they_are_meant(write):
    merchants = read_merchants(write("appid,name,env,note\n\n wxtea ,茶语\u3000,tea-1\n,,,\n", "m.csv"))
    assert [(m.appid, m.name, m.env) for m in merchants] == [("wxtea", "茶语", "tea-1")]


def test_a_merchant_is_found_by_name_or_appid_whatever_width_and_case(write):
    merchants = read_merchants(write(FULL, "m.csv"))
    for name in ("茶语小铺", " ＷＸＴＥＡ\u3000", "wxtea"):
        assert [m.env for m in merchants.resolve(name)] == ["tea-1", "tea-2"]
    assert merchants.resolve("nobody") == ()
    assert [m.appid for m in merchants.for_env("books-1")] == ["wxbooks"]
    assert merchants.for_env("nowhere") == ()


@table(
    "text, says",
    {
        "a missing column": ("appid,name\nwxtea,茶语\n", [(1, "", "no column for env")]),
        "all missing": ("a,b\n1,2\n", [(1, "", "for appid"), (1, "", "for name"), (1, "", "for env")]),
        "header only": ("appid,name,env\n", [(0, "", "no merchant below")]),
        "empty cells": (
            "appid,name,env\n,茶语,\nwxtea,,e\n",
            [(2, "appid", "empty"), (2, "env", "empty"), (3, "name", "empty")],
        ),
        "the same line twice": (
            "appid,name,env\nwxtea,茶语,e\nwxtea,茶,e\n",
            [(3, "env", "is already in line 2")],
        ),
        "unknown words": (
            "appid,name,env,default,owner,status\nwxtea,茶语,e,maybe,nobody,ill\n",
            [(2, "default", "'maybe'"), (2, "owner", "'nobody'"), (2, "status", "'ill'")],
        ),
        "two defaults": (
            "appid,name,env,default\nwxtea,茶语,e,yes\nwxtea,茶语,f,yes\n",
            [(3, "default", "is already set in line 2")],
        ),
        "too many cells": ("appid,name,env\na,b,c,d\n", [(2, "", "4 cells")]),
        "a broken quote": ('appid,name,env\n,b,c\n"a,b\n', [(2, "appid", "empty"), (3, "", "never closes")]),
    },
)
def test_all_problems_of_a_merchants_file_are_reported_in_one_pass(write, text, says):
    with pytest.raises(InputError) as raised:
        read_merchants(write(text, "m.csv"))
    problems = raised.value.problems
    assert [(p.line, p.column) for p in problems] == [(line, column) for line, column, _ in says]
    for problem, (_, _, part) in zip(problems, says, strict=True):
        assert part in problem.message.en
        assert not problem.skippable
    assert raised.value.source.endswith("m.csv")


@table(
    "where, envs",
    {
        "a column of their own": (["region=华东"], ["tea-1", "tea-2"]),
        "case and spaces": (["Region = 华东 "], ["tea-1", "tea-2"]),
        "both must fit": (["region=华东", "env=tea-2"], ["tea-2"]),
        "one column twice: either": (["env=tea-1", "env=books-1"], ["tea-1", "books-1"]),
        "an empty value": (["default="], ["tea-2", "books-1"]),
    },
)
def test_where_narrows_and_the_whole_file_stays_at_hand(write, where, envs):
    merchants = read_merchants(write(FULL, "m.csv"), where)
    assert [m.env for m in merchants] == envs
    assert len(merchants.whole) == 3
    assert [m in merchants for m in merchants.whole] == [m.env in envs for m in merchants.whole]


def test_where_knows_our_names_of_chinese_columns(write):
    path = write("小程序ID,商户,环境ID\nwxtea,茶语,tea-1\nwxb,书店,b-1\n", "m.csv")
    assert [m.env for m in read_merchants(path, ["name=茶语"])] == ["tea-1"]
    assert [m.env for m in read_merchants(path, ["商户=茶语"])] == ["tea-1"]


@table(
    "text, line",
    {
        "the first row": ('appid,name,env\n"wxtea,茶语,tea-1\nwxb,书店,b-1\n', 2),
        "a quote that closes too early": ('appid,name,env\nwxtea,"茶"语,tea-1\n', 2),
    },
)
@pytest.mark.parametrize("read", [read_merchants, read_for_sync])
def test_an_open_quote_is_reported_with_file_and_line(write, read, text, line):
    with pytest.raises(InputError) as raised:
        read(write(text, "m.csv"))
    assert raised.value.source.endswith("m.csv")
    (problem,) = raised.value.problems
    assert problem.line == line
    assert "quote" in problem.message.en
    assert "引号" in problem.message.zh
    assert raised.value.__cause__ is None


def no_names(_value, _names):
    return []


def answer(found):
    match found:
        case None:
            return "left out"
        case Unresolved(column, message):
            return f"{column}: {message.en}"
        case Merchant(appid, _, env):
            return f"{appid} {env}"


@table(
    "env, merchant, appid, expected",
    {
        "one of E": ("books-77aa01", "", "", "wxbooks books-77aa01"),
        "one of E, a merchant that means nothing": (
            "books-77aa01",
            "whoever",
            "",
            "merchant: 'whoever' is not a merchant of this row's environment",
        ),
        "shared, appid says who": ("shared-5e6f", "", "wxsoup", "wxsoup shared-5e6f"),
        "shared, merchant says who": ("shared-5e6f", "soup & CO", "", "wxsoup shared-5e6f"),
        "shared, nobody says who": ("shared-5e6f", "", "", "env: several merchants share"),
        "shared, a merchant from elsewhere": (
            "shared-5e6f",
            "茶语小铺",
            "",
            "merchant: '茶语小铺' is not a merchant of this row's environment",
        ),
        "an appid from elsewhere": ("books-77aa01", "", "wxtea", "appid: 'wxtea' is not a merchant"),
        "unknown env": ("nowhere", "", "", "env: the merchants file has no environment 'nowhere'"),
        "unknown env beside a known merchant": ("nowhere", "茶语小铺", "", "env: the merchants file has no"),
        "one of M by name": ("", "城南书店", "", "wxbooks books-77aa01"),
        "one of M by appid": ("", "WXBOOKS", "", "wxbooks books-77aa01"),
        "several of M, one the default": ("", "茶语小铺", "", "wxtea tea-1a2b3c"),
        "several of M": ("", "麦田烘焙", "", "merchant: this merchant has several"),
        "unknown merchant": ("", "谁", "", "merchant: the merchants file has no name or appid '谁'"),
        "empty": ("", "", "wxtea", "env: the environment is empty"),
    },
)
def test_who_serves_a_row(merchants, env, merchant, appid, expected):
    assert answer(resolve(merchants, env, merchant, appid, no_names)).startswith(expected)


def test_a_default_line_says_who_calls_for_a_shared_environment(merchants):
    shared = Merchants([*merchants, Merchant("wxmain", "总店", "shared-5e6f", default=True)])
    assert answer(resolve(shared, "shared-5e6f", "", "", no_names)) == "wxmain shared-5e6f"


@table(
    "env, merchant, appid, expected",
    {
        "stays": ("tea-1a2b3c", "", "", "wxtea tea-1a2b3c"),
        "narrowed away": ("books-77aa01", "", "", "left out"),
        "narrowed away by name": ("", "城南书店", "", "left out"),
        "the other one of a shared env": ("shared-5e6f", "", "wxnoodle", "left out"),
        "who calls does not depend on the narrowing": ("shared-5e6f", "", "", "env: several"),
        "a fault of a row that is not asked for": ("books-77aa01", "", "wxtea", "left out"),
        "absent from the whole file": ("nowhere", "", "", "env: the merchants file has no"),
    },
)
def test_rows_of_merchants_narrowed_away_are_left_out(merchants, env, merchant, appid, expected):
    east = Merchants([m for m in merchants if ("region", "华东") in m.columns], "merchants.csv", merchants)
    assert answer(resolve(east, env, merchant, appid, no_names)).startswith(expected)


def test_near_names_are_suggested_but_not_for_ever(merchants):
    resolved = cached_resolve(merchants)
    unknown = resolved("boks-77aa01", "", "")
    assert isinstance(unknown, Unresolved)
    assert "books-77aa01 (城南书店)" in unknown.fix.en
    assert "books-77aa01（城南书店）" in unknown.fix.zh
    unknown = resolved("", "茶语小店", "")
    assert isinstance(unknown, Unresolved)
    assert "茶语小铺" in unknown.fix.en
    late = [resolved(f"books-77aa0{i}x", "", "") for i in range(300)][-1]
    assert isinstance(late, Unresolved)
    assert "did you mean" not in late.fix.en
