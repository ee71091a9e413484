from __future__ import annotations

from dataclasses import replace

import pytest

from tcb_ops.errors import UsageError
from tcb_ops.lists.generate import select_targets
from tcb_ops.lists.merchants import Merchants


def narrowed(merchants: Merchants, *envs: str) -> Merchants:
    return Merchants([m for m in merchants if m.env in envs], merchants.source, merchants)


@pytest.mark.parametrize(
    ("to", "envs"),
    [
        pytest.param(["books-77aa01"], ["books-77aa01"], id="an env"),
        pytest.param(["城南书店"], ["books-77aa01"], id="a name"),
        pytest.param([" ＷＸＢＯＯＫＳ "], ["books-77aa01"], id="an appid, wide"),
        pytest.param(["茶语小铺"], ["tea-1a2b3c"], id="a name: its default"),
        pytest.param(
            ["tea-test-9f", "茶语小铺", "wxtea"], ["tea-test-9f", "tea-1a2b3c"], id="each once, in order"
        ),
        pytest.param(["wxsoup"], ["shared-5e6f"], id="a shared env, by its merchant"),
    ],
)
def test_to_names_environments_and_merchants(merchants: Merchants, to: list[str], envs: list[str]) -> None:
    assert [m.env for m in select_targets(merchants, to)] == envs


def test_all_means_each_merchant_s_only_or_default_environment(merchants: Merchants) -> None:
    some = narrowed(merchants, "tea-1a2b3c", "tea-test-9f", "books-77aa01", "shared-5e6f")
    assert [(m.appid, m.env) for m in select_targets(some, ["all"])] == [
        ("wxtea", "tea-1a2b3c"),
        ("wxbooks", "books-77aa01"),
        ("wxnoodle", "shared-5e6f"),
        ("wxsoup", "shared-5e6f"),
    ]
    # Where --where leaves one environment of a merchant, that is the one that is meant.
    assert [m.env for m in select_targets(narrowed(merchants, "tea-test-9f", "bakery-b"), ["all"])] == [
        "tea-test-9f",
        "bakery-b",
    ]


def test_all_envs_means_every_environment_once(merchants: Merchants) -> None:
    some = narrowed(merchants, "tea-1a2b3c", "tea-test-9f", "bakery-a", "bakery-b")
    assert [m.env for m in select_targets(some, ["all-envs"])] == [
        "tea-1a2b3c",
        "tea-test-9f",
        "bakery-a",
        "bakery-b",
    ]


def test_whoever_has_left_is_passed_over(merchants: Merchants) -> None:
    gone = Merchants([replace(m, left=m.appid != "wxbooks") for m in merchants], merchants.source)
    assert [m.env for m in select_targets(gone, ["all"])] == ["books-77aa01"]
    with pytest.raises(UsageError, match="selects no merchant"):
        select_targets(narrowed(gone, "tea-1a2b3c"), ["all-envs"])


@pytest.mark.parametrize(
    ("to", "says"),
    [
        pytest.param("茶语小店", "did you mean 茶语小铺?", id="a name that is nobody's"),
        pytest.param("tea-1a2b3d", "did you mean tea-1a2b3c?", id="an env that is nobody's"),
        pytest.param("zzz", "see merchants.csv", id="nothing like it"),
        pytest.param("", "has this name", id="nothing"),
        pytest.param(
            "麦田烘焙", "several environments: bakery-a (麦田烘焙, wxbakery), bakery-b", id="no default"
        ),
        pytest.param("shared-5e6f", "several merchants share this environment", id="shared"),
        pytest.param("all", "none of them the default: bakery-a (麦田烘焙, wxbakery), bakery-b", id="all"),
        pytest.param("all-envs", "share an environment: shared-5e6f (老街面馆, wxnoodle)", id="all-envs"),
    ],
)
def test_what_matches_nobody_or_several_is_refused(merchants: Merchants, to: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        select_targets(merchants, [to])
    assert says in raised.value.text.en


def test_whom_where_leaves_out_cannot_be_named(merchants: Merchants) -> None:
    with pytest.raises(UsageError, match="excluded by --where"):
        select_targets(narrowed(merchants, "tea-1a2b3c"), ["城南书店"])
