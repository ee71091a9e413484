"""The merchant × errcode table: bounded, worst first, and readable in every colour."""

from __future__ import annotations

import colorsys
import re
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from tcb_ops.model import Outcome, Reason
from tcb_ops.reports.formats.charts import code_colour
from tcb_ops.reports.summary import MATRIX_CODES as CODES
from tcb_ops.reports.summary import MATRIX_MERCHANTS as MERCHANTS
from tcb_ops.reports.summary import SHADES, ErrcodeMatrix, causes_of, errcode_matrix, shade
from tcb_ops.runs.records import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def luminance(colour: Sequence[float]) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def parts(colour: str) -> tuple[float, ...]:
    """The red, green and blue of `#rrggbb` or `#rgb`."""
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    return tuple(int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))


def code_parts(code: str) -> tuple[float, float, float]:
    """The red, green and blue of a code's colour."""
    hue, saturation, light = map(int, re.findall(r"\d+", code_colour(code)))
    return colorsys.hls_to_rgb(hue / 360, light / 100, saturation / 100)


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_numbers_stand_out_in_every_cell(theme: int) -> None:
    css = files("tcb_ops.reports").joinpath("templates/report.css").read_text(encoding="utf-8")
    ink = luminance(parts(re.findall(r"--ink: (#\w+)", css)[theme]))
    paper = parts(re.findall(r"--paper: (#\w+)", css)[theme])
    shares = [int(share) for _, share in sorted(re.findall(r"\.w(\d) .*?bad-fill\)\) (\d+)%", css))]
    assert len(shares) == SHADES
    assert shares == sorted(shares), "the more, the darker"
    for code in map(str, range(40001, 40200)):
        for share in shares:
            mixed = [
                share / 100 * own + (1 - share / 100) * back
                for own, back in zip(code_parts(code), paper, strict=True)
            ]
            assert contrast(luminance(mixed), ink) >= 4.5, (code, share)
