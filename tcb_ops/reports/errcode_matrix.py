"""The merchant × errcode table: where the rows are that are not good, the worst first, bounded."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tcb_ops.i18n import Text
from tcb_ops.model import Outcome
from tcb_ops.reports.explanations import why
from tcb_ops.runs.records import Tally

MERCHANTS = 60
CODES = 12
WARMEST = 5


@dataclass(frozen=True, slots=True)
class HeatLine:
    """A merchant's rows that are not good, by code."""

    merchant: str
    appid: str
    cells: tuple[int, ...]
    """In the order of the table's codes."""
    others: int
    """Under codes that have no column."""
    rows: int


@dataclass(frozen=True, slots=True)
class ErrcodeMatrix:
    """The table. What has no line or no column of its own is in the sums."""

    codes: tuple[str, ...]
    """Most rows first."""
    meanings: Mapping[str, Text]
    lines: tuple[HeatLine, ...]
    """Most rows first."""
    rest: HeatLine | None
    """The merchants that have no line, together."""
    total: HeatLine
    merchants: int
    """All merchants with such rows."""
    other_codes: int
    """Codes that have no column."""
    most: int
    """The largest number in a merchant's cell."""


def heat(groups: Iterable[Tally]) -> ErrcodeMatrix | None:
    """Tabulate rows that ended, but not well. None where there is none."""
    counted: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    by_code: Counter[str] = Counter()
    meanings: dict[str, Text] = {}
    for group in groups:
        cause = why(group.outcome, group.reason, group.errcode, group.store_code)
        if cause is None or group.outcome is Outcome.PENDING:
            continue
        meanings.setdefault(cause.code, cause.meaning)
        counted[group.merchant, group.appid][cause.code] += group.rows
        by_code[cause.code] += group.rows
    if not counted:
        return None
    codes = tuple(
        code for code, _ in sorted(by_code.items(), key=lambda found: (-found[1], found[0]))[:CODES]
    )
    worst = sorted(counted.items(), key=lambda found: (-found[1].total(), found[0]))
    lines = tuple(_line(*key, rows, codes) for key, rows in worst[:MERCHANTS])
    left: Counter[str] = Counter()
    for _, rows in worst[MERCHANTS:]:
        left.update(rows)
    return ErrcodeMatrix(
        codes,
        meanings,
        lines,
        _line("", "", left, codes) if left else None,
        _line("", "", by_code, codes),
        len(worst),
        len(by_code) - len(codes),
        max(max(line.cells) for line in lines),
    )


def warmth(rows: int, most: int) -> int:
    """How warm a cell is: 0 for none, else 1 to 5 by the logarithm, so that 3 rows beside 30,000 are still seen.

    ======  ======  ======
    rows    most    warmth
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
        return WARMEST
    return 1 + round((WARMEST - 1) * math.log(rows) / math.log(most))


def _line(merchant: str, appid: str, rows: Counter[str], codes: tuple[str, ...]) -> HeatLine:
    cells = tuple(rows[code] for code in codes)
    return HeatLine(merchant, appid, cells, rows.total() - sum(cells), rows.total())
