"""Arguments are checked by their annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from tcb_ops.arguments import checked
from tcb_ops.errors import ArgumentError
from tcb_ops.model import Outcome


@checked
def taken(
    flag: bool = True,
    count: int = 0,
    seconds: float = 0.0,
    text: str = "",
    place: str | Path | None = None,
    choice: Literal["a", "b"] = "a",
    names: Sequence[str] = (),
    columns: Mapping[str, str] = {},
    outcomes: frozenset[Outcome] | None = None,
    numbers: Iterable[int] = (),
    call: Callable[[], None] | None = None,
    anything: Any = None,
) -> str:
    return "taken"


@pytest.mark.posix("file names")
@pytest.mark.parametrize(
    ("parameter", "fits", "other"),
    [
        ("flag", [True, False], [1, None, "yes"]),
        ("count", [0, -1, 10**18 - 1], [True, 10**18, -(10**18), 1.0, "1"]),
        ("seconds", [0, 1.5], [True, float("nan"), float("inf"), 10**400, "1"]),
        ("text", ["", "名"], [None, "a\0", "a\udcff", b"a", Path("a")]),
        ("place", [None, "a", Path("a"), "名"], ["", "a\0", "\ud800", "x" * 300, "x/" * 2_500, 5, b"a"]),
        ("choice", ["a", "b"], ["c", "", None, ["a"]]),
        ("names", [["a"], ("a",), {"a"}], ["a", [1], None, object(), iter("a")]),
        ("columns", [{"a": "b"}], [{"a": 1}, {1: "a"}, [("a", "b")], None]),
        ("outcomes", [None, {Outcome.LINKED}, frozenset({"linked"})], [{"up"}, "linked", {()}]),
        ("numbers", [[1], iter([1])], [["1"], "1", 1, None]),
        ("call", [None, print], [5, "print"]),
        ("anything", [None, object(), "\0"], []),
    ],
)
def test_an_argument_fits_its_annotation(parameter: str, fits: list[Any], other: list[Any]) -> None:
    for value in fits:
        assert taken(**{parameter: value}) == "taken"
    for value in other:
        with pytest.raises(ArgumentError, match=rf"^{parameter} cannot be ") as raised:
            taken(**{parameter: value})
        assert raised.value.parameter == parameter


def test_an_unknown_keyword_is_pythons_own_error_and_a_message_says_what_fits() -> None:
    with pytest.raises(TypeError, match=r"taken\(\) got an unexpected keyword argument 'other'"):
        taken(other=1)  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match=r"It must be str \| Path \| None"):
        taken(place=5)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="It must be a path that this system can have"):
        taken(place="a\0")
    with pytest.raises(ArgumentError, match=r"It must be .*uploaded"):
        taken(outcomes={"up"})  # type: ignore[arg-type]
