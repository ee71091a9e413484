"""Charts: one colour per code, text escaped, cells that a keyboard reaches."""

from __future__ import annotations

import re
from datetime import UTC
from xml.etree import ElementTree as ET

import pytest

from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.i18n import Lang
from tcb_ops.ledger.records import Tally, TimelineBucket
from tcb_ops.model import Outcome, Reason
from tcb_ops.reports.charts import HEIGHT, WIDTH, charts_of, draw, errcode_matrix
from tcb_ops.reports.charts import MATRIX_CODES as CODES
from tcb_ops.reports.charts import MATRIX_MERCHANTS as MERCHANTS
from tcb_ops.reports.rendering import code_colour, outcome_class
from tcb_ops.reports.summary import causes_of


def test_a_code_has_one_colour_and_common_codes_differ():
    codes = ["40001", "40097", "85088", "61007", "45009", "-501005", "-501018", "no_token", "AccessDenied"]
    colours = [code_colour(code) for code in codes]
    assert colours == [code_colour(code) for code in codes]
    assert len(set(colours)) == len(codes)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)
    parts = [[int(code_colour(str(code))[n : n + 2], 16) for n in (1, 3, 5)] for code in range(1000)]
    assert all(green <= blue + 1 for _red, green, blue in parts), "green is for success"


def test_every_outcome_has_a_colour():
    assert {outcome_class(one) for one in Outcome.all()} == {"good", "bad", "failed", "skip", "pending"}


def test_the_heat_map_has_a_button_per_cell_and_escapes_names():
    evil = "<b>\"&'"
    tallies = [
        Tally("wx1", evil, "env-1", Outcome.REFUSED, Reason.REFUSED, 85088, "", 12),
        Tally("wx2", "乙", "env-2", Outcome.FAILED, Reason.STORE_REFUSED, None, evil, 1),
    ]
    drawn = heat_map(tallies)
    cells = ET.fromstring(f"<div>{drawn}</div>").findall(".//button")
    assert [(cell.get("data-appid"), cell.get("data-code")) for cell in cells] == [
        ("wx1", "85088"),
        ("wx2", evil),
    ]
    assert [cell.get("style") for cell in cells] == ["--share: 1.00", "--share: 1.00"]
    assert cells[0].get("aria-label") == f"{evil}, 85088: 12 rows"


def test_names_in_the_heat_map_are_whole():
    names = ["Old Town Noodles 2", "Old Town Noodles 31", "很长的商户名" * 4 + "31 店"]
    tallies = [
        Tally(f"wx{at}", name, "env", Outcome.FAILED, Reason.STORE_REFUSED, None, "InternalError", 1)
        for at, name in enumerate(names)
    ]
    texts = {head.text for head in ET.fromstring(f"<div>{heat_map(tallies)}</div>").iter("th")}
    assert {*names, "InternalError"} <= texts


def test_the_heat_map_has_no_empty_line_and_says_that_there_are_more_codes():
    drawn = heat_map([tally(at, 1000 + at, 1) for at in range(36)])
    heads = ET.fromstring(f"<div>{drawn}</div>").iter("th")
    labels = [head for head in heads if head.get("scope") == "row"]
    assert len(labels) == drawn.count("<button ") > 0
    assert f"the {len(labels)} merchants and {len(labels)} codes with the most rows" in drawn


def heat_map(tallies):
    totals = {each.appid: each.rows for each in tallies}
    return charts_of(causes_of(tallies), [], UTC).html(UPLOAD, totals, Lang.EN)


def tally(at, code, rows, outcome=Outcome.REFUSED):
    return Tally(f"wx{at}", f"商户{at}", f"env{at}", outcome, Reason.REFUSED, code, "", rows)


def matrix(groups):
    return errcode_matrix(causes_of(groups))


@pytest.mark.parametrize(
    ("rows", "most", "dark"), [(0, 9, 0), (1, 1, 5), (1, 100, 1), (10, 100, 3), (100, 100, 5), (3, 30_000, 1)]
)
def test_shades_follow_the_logarithm(rows, most, dark):
    table = matrix([tally(0, 1000, most)])
    assert table.shade(rows) == dark


def test_the_worst_come_first_and_the_rest_is_summed_up():
    groups = [tally(at, 1000 + at % 20, at + 1) for at in range(100)]
    table = matrix(groups)
    assert len(table.lines) == MERCHANTS
    assert len(table.codes) == CODES
    assert (table.merchants, table.other_codes) == (100, 20 - CODES)
    assert [line.rows for line in table.lines] == sorted((line.rows for line in table.lines), reverse=True)
    every = [*table.lines, table.rest]
    assert sum(line.rows for line in every) == table.total.rows == sum(range(1, 101))
    for line in [*every, table.total]:
        assert sum(line.cells) + line.others == line.rows
    for column in range(CODES):
        assert sum(line.cells[column] for line in every) == table.total.cells[column]


def test_good_and_pending_rows_are_not_in_it():
    assert matrix([tally(0, 0, 5, Outcome.UPLOADED), tally(0, 0, 5, Outcome.PENDING)]) is None


def moments(*counts):
    return [TimelineBucket(100.0 + at, 101.0 + at, outcomes) for at, outcomes in enumerate(counts)]


@pytest.mark.parametrize(
    ("seconds", "peak", "mean"),
    [(0.1, "6.0", "6.0"), (0.75, "6.0", "6.0"), (4, "2.5", "1.5"), (50, "0.3", "0.1")],
)
def test_rates_are_those_of_a_second_at_least(seconds, peak, mean):
    width = seconds / 5
    rows = (3, 1, 0, 2, 0)
    drawing = draw(
        [
            TimelineBucket(at * width, (at + 1) * width, {Outcome.UPLOADED: n} if n else {})
            for at, n in enumerate(rows)
        ],
        UTC,
    )
    assert (drawing.peak, drawing.mean) == (peak, mean)


def test_the_drawing_holds_all_rows_and_stays_in_its_frame():
    drawing = draw(
        moments(
            {Outcome.UPLOADED: 6, Outcome.REFUSED: 2},
            {},
            {Outcome.NOT_ATTEMPTED: 3, Outcome.FAILED: 1, Outcome.UNCHANGED: 1},
        ),
        UTC,
    )
    assert drawing.sums == (7, 3, 3)
    assert (drawing.began, drawing.ended, drawing.peak) == (100.0, 103.0, "8.0")
    assert drawing.mean == "4.3"
    heights: dict[float, float] = {}
    for path in (drawing.good, drawing.skipped, drawing.bad):
        for x, y, wide, high in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v-([\d.]+)h-[\d.]+z", path):
            assert 0 <= float(x) < float(x) + float(wide) <= WIDTH
            assert 0 <= round(float(y) - float(high), 1) <= HEIGHT
            heights[float(x)] = heights.get(float(x), 0) + float(high)
    assert sorted(heights.values()) == pytest.approx([HEIGHT * 5 / 8, HEIGHT], abs=0.1)


def test_nothing_that_ended_is_nothing_to_draw():
    assert draw([], UTC) is None
