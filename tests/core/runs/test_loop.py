"""The garbage collector while runs work: less often, and afterwards as before."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from tcb_ops.runs.loop import COLLECT, fewer_collections

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("thresholds")
@pytest.mark.parametrize(
    ("before", "during"),
    [((700, 10, 10), COLLECT), ((50_000, 5, 5), (50_000, *COLLECT[1:])), ((0, 10, 10), (0, 10, 10))],
    ids=["Python's own", "higher ones", "turned off"],
)
def test_thresholds_are_raised_while_a_run_works_and_restored(
    before: tuple[int, int, int], during: tuple[int, int, int]
) -> None:
    found = []

    def fails() -> None:
        with fewer_collections():
            found.append(gc.get_threshold())
            raise KeyError

    gc.set_threshold(*before)
    with fewer_collections():
        with pytest.raises(KeyError):
            fails()
        found.append(gc.get_threshold())  # another run is still at work
    assert found == [during, during]
    assert gc.get_threshold() == before
