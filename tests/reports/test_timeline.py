"""The course of a run: the drawing, where the time went, the advice."""

from __future__ import annotations

import re

import pytest

from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome
from tcb_ops.reports.formats.charts import HEIGHT, WIDTH, draw
from tcb_ops.reports.formats.html import OWN, PHASES, bottleneck
from tcb_ops.runs.progress import PHASES as MEASURED
from tcb_ops.runs.records import TimelineBucket


def moments(*counts: dict[Outcome, int]) -> list[TimelineBucket]:
    return [TimelineBucket(100.0 + at, 101.0 + at, outcomes) for at, outcomes in enumerate(counts)]


def test_the_drawing_holds_all_rows_and_stays_in_its_frame() -> None:
    drawing = draw(
        moments(
            {Outcome.UPLOADED: 6, Outcome.REFUSED: 2},
            {},
            {Outcome.NOT_ATTEMPTED: 3, Outcome.FAILED: 1, Outcome.UNCHANGED: 1},
        )
    )
    assert drawing is not None
    assert drawing.sums == (7, 3, 3)
    assert (drawing.began, drawing.ended, drawing.peak) == (100.0, 103.0, 8.0)
    assert drawing.mean == pytest.approx(13 / 3)
    heights: dict[float, float] = {}
    for path in (drawing.good, drawing.skipped, drawing.bad):
        for x, y, wide, high in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v-([\d.]+)h-[\d.]+z", path):
            assert 0 <= float(x) < float(x) + float(wide) <= WIDTH
            assert 0 <= round(float(y) - float(high), 1) <= HEIGHT
            heights[float(x)] = heights.get(float(x), 0) + float(high)
    assert sorted(heights.values()) == pytest.approx([HEIGHT * 5 / 8, HEIGHT], abs=0.1)


def test_nothing_that_ended_is_nothing_to_draw() -> None:
    assert draw([]) is None


def test_a_long_pause_is_told_and_none_of_less_than_a_minute() -> None:
    one = {Outcome.UPLOADED: 1}
    paused = draw(moments(one, *[{}] * 60, one))
    assert paused is not None
    assert paused.quiet == (101.0, 161.0)
    for of_no_matter in (moments(*[one] * 250, *[{}] * 60, one), moments(one, *[{}] * 59, one)):
        drawing = draw(of_no_matter)
        assert drawing is not None
        assert drawing.quiet is None


def test_every_measured_phase_has_a_name() -> None:
    assert {*MEASURED, OWN} == set(PHASES)


@pytest.mark.parametrize(
    ("spent", "phase", "share"),
    [
        ({"link": 20.0, "limit": 70.0}, "limit", "70%"),
        ({"link": 55.0, "store": 30.0}, "link", "55%"),
        ({"link": 1.0}, OWN, "99%"),
    ],
)
def test_one_sentence_names_what_most_of_the_time_went_to(
    spent: dict[str, float], phase: str, share: str
) -> None:
    sentence = bottleneck(spent, 100.0)
    assert sentence is not None
    for lang in Lang:
        assert f"{share} {PHASES[phase].of(lang)}" in sentence.of(lang)


@pytest.mark.parametrize(
    ("spent", "seconds"), [({}, 100.0), ({"link": 3.0}, 4.0)], ids=["not measured", "short"]
)
def test_no_bottleneck_of_runs_that_were_short_or_not_measured(
    spent: dict[str, float], seconds: float
) -> None:
    assert bottleneck(spent, seconds) is None
