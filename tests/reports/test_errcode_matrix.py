"""The merchant × errcode table: bounded, worst first, and readable in every colour."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from tcb_ops.model import Outcome, Reason
from tcb_ops.reports.summary import MATRIX_CODES as CODES
from tcb_ops.reports.summary import MATRIX_MERCHANTS as MERCHANTS
from tcb_ops.reports.summary import SHADES, ErrcodeMatrix, causes_of, errcode_matrix, shade
from tcb_ops.runs.records import Tally


def tally(at: int, code: int, rows: int, outcome: Outcome = Outcome.REFUSED) -> Tally:
    return Tally(f"wx{at}", f"商户{at}", f"env{at}", outcome, Reason.REFUSED, code, "", rows)


def matrix(groups: list[Tally]) -> ErrcodeMatrix | None:
    return errcode_matrix(causes_of(groups))


@pytest.mark.parametrize(
    ("rows", "most", "dark"), [(0, 9, 0), (1, 1, 5), (1, 100, 1), (10, 100, 3), (100, 100, 5), (3, 30_000, 1)]
)
def test_shades_follow_the_logarithm(rows: int, most: int, dark: int) -> None:
    assert shade(rows, most) == dark


def test_the_worst_come_first_and_the_rest_is_summed_up() -> None:
    groups = [tally(at, 1000 + at % 20, at + 1) for at in range(100)]
    table = matrix(groups)
    assert table is not None
    assert len(table.lines) == MERCHANTS
    assert len(table.codes) == CODES
    assert (table.merchants, table.other_codes) == (100, 20 - CODES)
    assert [line.rows for line in table.lines] == sorted((line.rows for line in table.lines), reverse=True)
    assert table.rest is not None
    every = [*table.lines, table.rest]
    assert sum(line.rows for line in every) == table.total.rows == sum(range(1, 101))
    for line in [*every, table.total]:
        assert sum(line.cells) + line.others == line.rows
    for column in range(CODES):
        assert sum(line.cells[column] for line in every) == table.total.cells[column]


def test_good_and_pending_rows_are_not_in_it() -> None:
    assert matrix([tally(0, 0, 5, Outcome.UPLOADED), tally(0, 0, 5, Outcome.PENDING)]) is None


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_numbers_stand_out_in_every_cell() -> None:
    css = files("tcb_ops.reports").joinpath("templates/report.css").read_text(encoding="utf-8")
    (ink,) = re.findall(r"--ink: (#\w{6})", css)
    warm = dict(re.findall(r"\.(w\d) \{ background: (#\w{6})", css))
    assert sorted(warm) == [f"w{number}" for number in range(1, SHADES + 1)]
    shades = [luminance(warm[name]) for name in sorted(warm)]
    assert shades == sorted(shades, reverse=True), "the more, the darker"
    assert min((shade + 0.05) / (luminance(ink) + 0.05) for shade in shades) >= 4.5
