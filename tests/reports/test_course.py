"""The course of a run: the drawing, where the time went, the advice."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome
from tcb_ops.reports.timeline import HEIGHT, PHASE_NAMES, WIDTH, advice, draw, duration, where_it_went
from tcb_ops.runs.progress import PHASES
from tcb_ops.runs.records import Moment

SETTINGS: dict[str, Any] = {"concurrency": 64, "per_env": 8, "rate": None}


def moments(*counts: dict[Outcome, int]) -> list[Moment]:
    return [Moment(100.0 + at, 101.0 + at, outcomes) for at, outcomes in enumerate(counts)]


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


def test_the_phases_and_our_own_time_add_up_to_the_run() -> None:
    parts = where_it_went({"link": 20.0, "limit": 70.0}, 100.0)
    assert [phase for phase, _, _ in parts] == ["limit", "link", "own"]
    assert sum(seconds for _, seconds, _ in parts) == 100.0
    assert sum(share for _, _, share in parts) == pytest.approx(1.0)
    assert where_it_went({}, 100.0) == [], "a run from before there was a meter"


def test_every_phase_of_the_meter_has_a_name() -> None:
    assert {*PHASES, "own"} == set(PHASE_NAMES)


# most of the time, settings -> what the sentence is about
ADVISED = {
    "outage": ({"outage": 60.0, "link": 1}, {}, "network"),
    "slow": ({"slow": 60.0, "link": 1}, {}, "--rate"),
    "backoff": ({"backoff": 60.0, "link": 1}, {}, "causes"),
    "token": ({"token": 60.0, "link": 1}, {}, "token source"),
    "limit, with a rate": ({"limit": 60.0, "link": 1}, {"rate": 5.0}, "--rate 5.0 held"),
    "limit": ({"limit": 60.0, "link": 1}, {}, "--per-env 8 held"),
    "store": ({"store": 60.0, "link": 1}, {}, "--skip-unchanged"),
    "link": ({"link": 60.0, "store": 1}, {}, "--concurrency over 64"),
    "own": ({"link": 1.0}, {}, "disk"),
}


@pytest.mark.parametrize(("spent", "changed", "about"), ADVISED.values(), ids=ADVISED)
def test_one_sentence_of_advice_from_where_most_time_went(
    spent: dict[str, float], changed: dict[str, Any], about: str
) -> None:
    said = advice(spent, 100.0, SETTINGS | changed)
    assert said is not None
    assert about in said.en
    assert re.match(r"\d+% of the time: ", said.en)
    assert re.match(r"\d+% 的时间：", said.zh)


@pytest.mark.parametrize(
    ("spent", "seconds"), [({}, 100.0), ({"link": 3.0}, 4.0)], ids=["not measured", "short"]
)
def test_no_advice_without_ground(spent: dict[str, float], seconds: float) -> None:
    assert advice(spent, seconds, SETTINGS) is None


@pytest.mark.parametrize(
    ("seconds", "en", "zh"),
    [
        (0.25, "0.2 s", "0.2 秒"),
        (9.96, "10 s", "10 秒"),
        (42.0, "42 s", "42 秒"),
        (59.7, "1 min 0 s", "1 分 0 秒"),
        (250.0, "4 min 10 s", "4 分 10 秒"),
        (7500.0, "2 h 5 min", "2 小时 5 分"),
        (180000.0, "2 d 2 h", "2 天 2 小时"),
    ],
)
def test_durations_as_people_say_them(seconds: float, en: str, zh: str) -> None:
    assert (duration(seconds).of(Lang.EN), duration(seconds).of(Lang.ZH)) == (en, zh)
