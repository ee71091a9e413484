from __future__ import annotations

import pytest

from tcb_ops.lists.validate import not_advised, path_problem, too_long_in_urls

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
