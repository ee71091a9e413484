from __future__ import annotations

import pytest

from tcb_ops.lists.merchants import Merchants
from tcb_ops.lists.validate import (
    MerchantResolver,
    Unresolved,
    not_advised,
    path_problem,
    resolve,
    too_long_in_urls,
)
from tcb_ops.model import Merchant

GOOD = [
    "a.png",
    "a/b/c.png",
    "目录/图 1.png",
    ".hidden",
    "a/.well-known/x",
    "a..b/c...png",
    "a/...",
    "folder/",
    "a,b:c;d=e&f$g@h+i?j.png",
    "-!_.*",
    "a" * 850,
    "中" * 283,
    "😀.png",
]
BAD = [
    pytest.param("", "is empty", id="empty"),
    pytest.param("/a.png", "begins with /", id="leading slash"),
    pytest.param("//a.png", "begins with /", id="two leading slashes"),
    pytest.param("\\a.png", "begins with \\", id="leading backslash"),
    pytest.param("a/access_token=•••", "contains •••", id="hidden in a report"),
    pytest.param("a//b.png", "contains //", id="double slash"),
    pytest.param("a//", "contains //", id="double slash at the end"),
    pytest.param(".", "a . segment", id="dot"),
    pytest.param("./a", "a . segment", id="dot first"),
    pytest.param("a/./b", "a . segment", id="dot within"),
    pytest.param("a/..", "a .. segment", id="dots last"),
    pytest.param("a/../b", "a .. segment", id="dots within"),
    pytest.param("../b", "a .. segment", id="dots first"),
    *(
        pytest.param(f"a{chr(c)}b", f"U+{c:04X}", id=f"control {c}")
        for c in (0, 9, 10, 13, 24, 25, 26, 27, 31, 127)
    ),
    pytest.param("a" * 851, "851 bytes", id="851 bytes"),
    pytest.param("中" * 284, "852 bytes", id="852 bytes of Chinese"),
]


@pytest.mark.parametrize("path", GOOD)
def test_a_path_within_the_naming_rules_passes(path: str) -> None:
    assert path_problem(path) is None


@pytest.mark.parametrize(("path", "says"), BAD)
def test_a_path_that_breaks_a_naming_rule_is_reported_with_a_fix(path: str, says: str) -> None:
    problem = path_problem(path)
    assert problem is not None
    message, fix = problem
    assert says in message.en
    assert message.zh
    assert fix.en
    assert fix.zh


@pytest.mark.parametrize("character", [*'`^"\\{}[]~%#><', "é", "\u00a0", "\u200b"])
def test_characters_that_the_storage_advises_against_are_noticed(character: str) -> None:
    assert path_problem(f"a{character}b") is None
    assert not_advised(f"a{character}b") == character


@pytest.mark.parametrize("path", ["aZ09-!_.*/b", "目录/图.png", "a,:;=&$@+? b"])
def test_other_characters_are_not(path: str) -> None:
    assert not_advised(path) == ""


def test_a_path_too_long_only_when_percent_encoded_is_noticed() -> None:
    assert not too_long_in_urls("中" * 94)  # 846
    assert too_long_in_urls("中" * 95)  # 855
    assert not too_long_in_urls("a" * 850)


def no_names(_value: str, _names: object) -> list[str]:
    return []


def answer(found: Merchant | Unresolved | None) -> str:
    match found:
        case None:
            return "left out"
        case Unresolved(column, message):
            return f"{column}: {message.en}"
        case Merchant(appid, _, env):
            return f"{appid} {env}"


@pytest.mark.parametrize(
    ("defaults", "fix"),
    [
        ((), "give the appid in a column appid, or mark the line of 甲 default=yes in the merchants file"),
        (
            ("甲",),
            "give the appid in a column appid, or mark the line of 乙 default=yes in the merchants file",
        ),
        (("甲", "乙"), "give the appid in a column appid"),
    ],
    ids=["none has a default", "one has", "both have"],
)
def test_a_shared_environments_fix_is_one_that_the_merchants_file_takes(
    defaults: tuple[str, ...], fix: str
) -> None:
    lines = [Merchant(f"wx{name}", name, "shared") for name in ("甲", "乙")]
    lines += [Merchant(f"wx{name}", name, f"own-{name}", default=True) for name in defaults]
    found = resolve(Merchants(lines), "shared", "", "", no_names)
    assert isinstance(found, Unresolved)
    assert found.fix.en == fix


@pytest.mark.parametrize(
    ("env", "merchant", "appid", "expected"),
    [
        pytest.param("books-77aa01", "", "", "wxbooks books-77aa01", id="one of E"),
        pytest.param(
            "books-77aa01",
            "whoever",
            "",
            "merchant: 'whoever' is not a merchant of this row's environment",
            id="one of E, a merchant that means nothing",
        ),
        pytest.param("shared-5e6f", "", "wxsoup", "wxsoup shared-5e6f", id="shared, appid says who"),
        pytest.param("shared-5e6f", "soup & CO", "", "wxsoup shared-5e6f", id="shared, merchant says who"),
        pytest.param("shared-5e6f", "", "", "env: several merchants share", id="shared, nobody says who"),
        pytest.param(
            "shared-5e6f",
            "茶语小铺",
            "",
            "merchant: '茶语小铺' is not a merchant of this row's environment",
            id="shared, a merchant from elsewhere",
        ),
        pytest.param(
            "books-77aa01", "", "wxtea", "appid: 'wxtea' is not a merchant", id="an appid from elsewhere"
        ),
        pytest.param(
            "nowhere", "", "", "env: the merchants file has no environment 'nowhere'", id="unknown env"
        ),
        pytest.param(
            "nowhere",
            "茶语小铺",
            "",
            "env: the merchants file has no",
            id="unknown env beside a known merchant",
        ),
        pytest.param("", "城南书店", "", "wxbooks books-77aa01", id="one of M by name"),
        pytest.param("", "WXBOOKS", "", "wxbooks books-77aa01", id="one of M by appid"),
        pytest.param("", "茶语小铺", "", "wxtea tea-1a2b3c", id="several of M, one the default"),
        pytest.param("", "麦田烘焙", "", "merchant: this merchant has several", id="several of M"),
        pytest.param(
            "", "谁", "", "merchant: the merchants file has no name or appid '谁'", id="unknown merchant"
        ),
        pytest.param("", "", "wxtea", "env: the environment is empty", id="empty"),
    ],
)
def test_who_serves_a_row(merchants: Merchants, env: str, merchant: str, appid: str, expected: str) -> None:
    assert answer(resolve(merchants, env, merchant, appid, no_names)).startswith(expected)


def test_a_default_line_says_who_calls_for_a_shared_environment(merchants: Merchants) -> None:
    shared = Merchants([*merchants, Merchant("wxmain", "总店", "shared-5e6f", default=True)])
    assert answer(resolve(shared, "shared-5e6f", "", "", no_names)) == "wxmain shared-5e6f"


def test_several_are_all_listed_with_name_and_appid(merchants: Merchants) -> None:
    message = answer(resolve(merchants, "shared-5e6f", "", "", no_names))
    assert "shared-5e6f (老街面馆, wxnoodle), shared-5e6f (Soup & Co, wxsoup)" in message


@pytest.mark.parametrize(
    ("env", "merchant", "appid", "expected"),
    [
        pytest.param("tea-1a2b3c", "", "", "wxtea tea-1a2b3c", id="stays"),
        pytest.param("books-77aa01", "", "", "left out", id="narrowed away"),
        pytest.param("", "城南书店", "", "left out", id="narrowed away by name"),
        pytest.param("shared-5e6f", "", "wxnoodle", "left out", id="the other one of a shared env"),
        pytest.param("shared-5e6f", "", "", "env: several", id="who calls does not depend on the narrowing"),
        pytest.param("books-77aa01", "", "wxtea", "left out", id="a fault of a row that is not asked for"),
        pytest.param("nowhere", "", "", "env: the merchants file has no", id="absent from the whole file"),
    ],
)
def test_rows_of_merchants_narrowed_away_are_left_out(
    merchants: Merchants, env: str, merchant: str, appid: str, expected: str
) -> None:
    east = Merchants([m for m in merchants if ("region", "华东") in m.columns], "merchants.csv", merchants)
    assert answer(resolve(east, env, merchant, appid, no_names)).startswith(expected)


def test_near_names_are_suggested_but_not_for_ever(merchants: Merchants) -> None:
    callers = MerchantResolver(merchants)
    unknown = callers.resolve("boks-77aa01", "", "")
    assert isinstance(unknown, Unresolved)
    assert "books-77aa01 (城南书店)" in unknown.fix.en
    assert "books-77aa01 (城南书店)" in unknown.fix.zh
    unknown = callers.resolve("", "茶语小店", "")
    assert isinstance(unknown, Unresolved)
    assert "茶语小铺" in unknown.fix.en
    late = [callers.resolve(f"books-77aa0{i}x", "", "") for i in range(300)][-1]
    assert isinstance(late, Unresolved)
    assert "did you mean" not in late.fix.en
