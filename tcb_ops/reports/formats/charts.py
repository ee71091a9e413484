"""What charts show, and the colours of outcomes and errcodes, for reports, panels and notebooks."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from zlib import crc32

from tcb_ops.i18n import Text
from tcb_ops.model import Outcome
from tcb_ops.reports.summary import Cause, most_first
from tcb_ops.runs.records import TimelineBucket

MATRIX_MERCHANTS, MATRIX_CODES = 60, 12
"""Lines and columns of the errcode matrix; the rest is summed up."""
SHADES = 5
_CLASSES = {
    Outcome.PENDING: "pending",
    Outcome.NOT_ATTEMPTED: "skip",
    Outcome.UNKNOWN: "skip",
    Outcome.FAILED: "failed",
}
WIDTH, HEIGHT = 600, 100
"""Size of the drawing over time in its own units: it is stretched to the page."""
_SALT = 226
"""Chosen so that the 18 most frequent codes have different colours."""


def outcome_class(outcome: Outcome) -> str:
    """Return the CSS class of an outcome's colour: good, bad, failed, skip or pending."""
    return "good" if outcome.succeeded else _CLASSES.get(outcome, "bad")


def code_colour(code: str) -> str:
    """Return the colour of a code, the same in every chart: one of 36 from blue to violet: no outcome has such a colour."""
    number = crc32(f"{_SALT}{code}".encode())
    return f"hsl({number % 9 * 15 + 180} 60% {(36, 44, 52, 60)[number // 9 % 4]}%)"


@dataclass(frozen=True, slots=True)
class MatrixLine:
    """A merchant's rows that did not succeed, by code."""

    merchant: str
    appid: str
    cells: tuple[int, ...]
    """In the order of the matrix's codes."""
    others: int
    """Rows with codes that have no column."""
    rows: int


@dataclass(frozen=True, slots=True)
class ErrcodeMatrix:
    """Merchants by errcode, limited in size. The sums include what has no line or column of its own."""

    codes: tuple[str, ...]
    """Most rows first."""
    meanings: Mapping[str, Text]
    lines: tuple[MatrixLine, ...]
    """Most rows first."""
    rest: MatrixLine | None
    """The sum of the merchants without a line."""
    total: MatrixLine
    merchants: int
    """Number of all merchants with such rows."""
    other_codes: int
    """Number of codes without a column."""
    most: int
    """The largest number in a merchant's cell."""


def errcode_matrix(causes: Iterable[Cause]) -> ErrcodeMatrix | None:
    """Tabulate merchants by code, most rows first; None if no row ended without success."""
    counted: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    codes: Counter[str] = Counter()
    meanings: dict[str, Text] = {}
    for cause in causes:
        if cause.code != Outcome.PENDING:
            meanings.setdefault(cause.code, cause.meaning)
            counted[cause.merchant, cause.appid][cause.code] += cause.rows
            codes[cause.code] += cause.rows
    if not counted:
        return None
    shown = tuple(code for code, _rows in most_first(codes)[:MATRIX_CODES])

    def line(merchant: str, appid: str, rows: Counter[str]) -> MatrixLine:
        cells = tuple(rows[code] for code in shown)
        return MatrixLine(merchant, appid, cells, rows.total() - sum(cells), rows.total())

    worst = sorted(counted.items(), key=lambda item: (-item[1].total(), item[0]))
    lines = tuple(line(*key, rows) for key, rows in worst[:MATRIX_MERCHANTS])
    rest: Counter[str] = Counter()
    for _merchant, rows in worst[MATRIX_MERCHANTS:]:
        rest.update(rows)
    return ErrcodeMatrix(
        shown,
        meanings,
        lines,
        line("", "", rest) if rest else None,
        line("", "", codes),
        len(worst),
        len(codes) - len(shown),
        max(max(merchant_line.cells) for merchant_line in lines),
    )


def shade(rows: int, most: int) -> int:
    """Return a matrix cell's shade on a logarithmic scale, so that 3 rows beside 30,000 are still visible.

    ======  ======  ======
    rows    most    shade
    ======  ======  ======
    0       any     0
    1       1       5
    1       100     1
    10      100     3
    100     100     5
    ======  ======  ======
    """
    if not rows:
        return 0
    if most <= 1:
        return SHADES
    return 1 + round((SHADES - 1) * math.log(rows) / math.log(most))


def axis_format(drawing: Drawing, zone: tzinfo) -> str:
    """Return the format of times in a drawing: with the date if the run passed midnight."""
    days = {datetime.fromtimestamp(moment, zone).date() for moment in (drawing.began, drawing.ended)}
    return "%m-%d %H:%M" if len(days) > 1 else "%H:%M:%S"


def format_rate(rows_a_second: float) -> str:
    """Return a rate with one decimal below 10."""
    return f"{rows_a_second:,.0f}" if rows_a_second >= 10 else f"{rows_a_second:.1f}"


@dataclass(frozen=True, slots=True)
class Drawing:
    """Rows over time as SVG paths: a stack of good, not attempted and bad rows per interval."""

    good: str
    skipped: str
    bad: str
    sums: tuple[int, int, int]
    """Good, not attempted, bad."""
    began: float
    ended: float
    """Unix seconds."""
    peak: float
    """Most rows per second of any interval."""
    mean: float


def draw(moments: Sequence[TimelineBucket]) -> Drawing | None:
    """Draw the timeline; None if no row has ended."""
    if not moments:
        return None
    stacks = [_stack(moment.outcomes) for moment in moments]
    most = max(sum(stack) for stack in stacks)
    wide, step = WIDTH / len(moments), HEIGHT / most
    paths: tuple[list[str], list[str], list[str]] = ([], [], [])
    for number, stack in enumerate(stacks):
        bottom = float(HEIGHT)
        for path, rows in zip(paths, stack, strict=True):
            if rows:
                high = rows * step
                path.append(
                    f"M{number * wide + wide * 0.08:.2f} {bottom:.2f}h{wide * 0.84:.2f}v{-high:.2f}h{-wide * 0.84:.2f}z"
                )
                bottom -= high
    good, skipped, bad = (sum(part) for part in zip(*stacks, strict=True))
    span = moments[-1].until - moments[0].at
    return Drawing(
        good="".join(paths[0]),
        skipped="".join(paths[1]),
        bad="".join(paths[2]),
        sums=(good, skipped, bad),
        began=moments[0].at,
        ended=moments[-1].until,
        peak=most / (moments[0].until - moments[0].at),
        mean=(good + skipped + bad) / span,
    )


def _stack(outcomes: Mapping[Outcome, int]) -> tuple[int, int, int]:
    good = sum(rows for outcome, rows in outcomes.items() if outcome.succeeded)
    skipped = outcomes.get(Outcome.NOT_ATTEMPTED, 0)
    return good, skipped, sum(outcomes.values()) - good - skipped
