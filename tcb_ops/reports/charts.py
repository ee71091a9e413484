"""What charts show: merchants by errcode, and rows over time. The report's page and a notebook draw the same."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from functools import cache
from typing import Any, NamedTuple

from tcb_ops.i18n import Lang, Text
from tcb_ops.kinds import Kind
from tcb_ops.ledger.records import TimelineBucket
from tcb_ops.model import Outcome
from tcb_ops.reports.rendering import environment
from tcb_ops.reports.summary import Cause, most_first

MATRIX_MERCHANTS, MATRIX_CODES = 60, 12
"""Lines and columns of the errcode matrix; the rest is summed up."""
SHADES = 5
WIDTH, HEIGHT = 600, 100
"""Size of the drawing over time in its own units: it is stretched to the page."""


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

    def shade(self, rows: int) -> int:
        """Return a cell's shade on a logarithmic scale, so that 3 rows beside 30,000 are still visible.

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
        if self.most <= 1:
            return SHADES
        return 1 + round((SHADES - 1) * math.log(rows) / math.log(self.most))


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
    rest = sum((rows for _merchant, rows in worst[MATRIX_MERCHANTS:]), Counter[str]())
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
    axis: str
    """The format of times: with the date if the run passed midnight."""
    peak: str
    """Most rows per second of any second; of a longer interval, if the intervals are longer."""
    mean: str


def draw(moments: Sequence[TimelineBucket], zone: tzinfo) -> Drawing | None:
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
                begin, across = number * wide + wide * 0.08, wide * 0.84
                path.append(f"M{begin:.2f} {bottom:.2f}h{across:.2f}v{-high:.2f}h{-across:.2f}z")
                bottom -= high
    good, skipped, bad = (sum(part) for part in zip(*stacks, strict=True))
    began, ended = moments[0].at, moments[-1].until
    days = {datetime.fromtimestamp(moment, zone).date() for moment in (began, ended)}
    # Of less than a second no rate is told: six rows in 0.1 s are six in a second, not 60.
    span = ended - began
    taken = math.ceil(len(moments) / span)
    peaks = [sum(map(sum, stacks[at : at + taken])) for at in range(len(stacks))]
    return Drawing(
        good="".join(paths[0]),
        skipped="".join(paths[1]),
        bad="".join(paths[2]),
        sums=(good, skipped, bad),
        began=began,
        ended=ended,
        axis="%m-%d %H:%M" if len(days) > 1 else "%H:%M:%S",
        peak=_rate(max(peaks) / max(span * min(taken / len(moments), 1), 1)),
        mean=_rate((good + skipped + bad) / max(span, 1)),
    )


def _rate(rows_a_second: float) -> str:
    return f"{rows_a_second:,.0f}" if rows_a_second >= 10 else f"{rows_a_second:.1f}"


def _stack(outcomes: Mapping[Outcome, int]) -> tuple[int, int, int]:
    good = sum(rows for outcome, rows in outcomes.items() if outcome.succeeded)
    skipped = outcomes.get(Outcome.NOT_ATTEMPTED, 0)
    return good, skipped, sum(outcomes.values()) - good - skipped


class Charts(NamedTuple):
    """The charts of a run."""

    matrix: ErrcodeMatrix | None
    drawing: Drawing | None
    zone: tzinfo

    def html(self, kind: Kind, totals: Mapping[str, int], lang: Lang) -> str:
        """Draw the charts for a panel, in one language; empty without any. `totals`: the rows of each merchant, by appid.

        Cells of the matrix are the darker, the larger their share of the merchant's rows; they are buttons with `data-appid` and
        `data-code`.
        """
        macros, drawn = _macros(lang, str(self.zone)), ""
        if self.matrix is not None:
            lines = tuple(line for line in self.matrix.lines if any(line.cells))
            drawn += macros.heat_map(replace(self.matrix, lines=lines), kind, totals)
        return f"{drawn}{macros.timeline(self.drawing) if self.drawing is not None else ''}"


def charts_of(causes: Iterable[Cause], moments: Sequence[TimelineBucket], zone: tzinfo) -> Charts:
    """Return the charts of a run, from why its rows did not succeed and how they ended over time."""
    return Charts(errcode_matrix(causes), draw(moments, zone), zone)


@cache
def _macros(lang: Lang, timezone: str) -> Any:
    return environment(lang, timezone).get_template("charts.html.j2").module
