"""The cards of a history: bars of codes by day, and strips of a merchant's days.

They are plain HTML, in the colours and fonts of the page: of a notebook that nobody has run yet, JupyterLab shows no SVG.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

from tcb_ops.i18n import NOTHING, Lang, Text, as_list
from tcb_ops.kinds import row_count
from tcb_ops.reports.rendering import code_colour, environment

CODES = 6
"""Codes with a colour and a line of their own; the others are summed up."""
_GREY = "#8a8f98"
"""Colour of all others together."""
HEIGHT = 130
"""Of the bars, in pixels."""
_TICKS = 5
_SHADES = ("66", "b3", "ff")


class Column(NamedTuple):
    """One day of a chart, or several without a bar."""

    days: list[date]
    bars: list[tuple[str, float]]
    """Colour and height in pixels, from the top to the bottom."""
    about: Text
    """The codes and their rows."""


class Chart(NamedTuple):
    """Bars of codes by day."""

    columns: list[Column]
    days: int
    top: Text
    """The rows of the highest bar."""
    sums: list[tuple[str, int]]
    """Each code and its rows."""
    ticks: list[list[date]]
    """The days below which a date stands: that of the first, and at the end that of the last."""


def chart(days: Sequence[date], codes: Sequence[tuple[str, Mapping[date, int]]]) -> Chart:
    """Return the bars of each day, the code with most rows at the bottom."""
    shown = [(code_colour(code), code, counted) for code, counted in codes[:CODES]]
    if others := sum((Counter(counted) for _code, counted in codes[CODES:]), Counter[date]()):
        shown.append((_GREY, "…", others))
    top = max(sum(counted.get(day, 0) for _, _, counted in shown) for day in days)
    columns: list[Column] = []
    for day in days:
        parts = [(colour, code, counted[day]) for colour, code, counted in shown if counted.get(day)]
        if parts:
            bars = [(colour, round(rows / top * HEIGHT, 1)) for colour, _code, rows in reversed(parts)]
            about = as_list(f"{code} {rows:,}" for _colour, code, rows in parts)
            columns.append(Column([day], bars, about))
        elif columns and not columns[-1].bars:
            columns[-1].days.append(day)
        else:
            columns.append(Column([day], [], NOTHING))
    step = max(len(days) // _TICKS, 1)
    starts = range(0, len(days) - step + 1, step)
    ticks = [[*days[start : start + step]] for start in starts]
    ticks[-1] = [*days[starts[-1] :]]
    sums = [(code, sum(counted.values())) for _colour, code, counted in shown]
    return Chart(columns, len(days), row_count(top), sums, ticks)


def strip(shares: Sequence[float | None]) -> list[tuple[int, int, str]]:
    """Return the cells of a strip: the days without rows before it, its days, and the opacity of its red.

    ========================  ==================
    share of the day's rows   opacity, as in CSS
    ========================  ==================
    none                      ""
    up to a third             66
    up to two thirds          b3
    more                      ff
    ========================  ==================
    """
    cells, gap = list[tuple[int, int, str]](), 0
    for shade, days in groupby(shares, _shade):
        count = len([*days])
        if shade is None:
            gap = count
        else:
            cells.append((gap, count, shade))
            gap = 0
    return cells


def _shade(share: float | None) -> str | None:
    return _SHADES[min(int(share * 3 - 1e-9), 2)] if share else None if share is None else ""


@cache
def macros(lang: Lang) -> Any:
    """Return the macros of the template, in one language."""
    template = files("tcb_ops.features.evidence") / "history.html.j2"
    values = {"strip": strip, "colour_of": code_colour, "grey": _GREY, "high": HEIGHT}
    return environment(lang).from_string(template.read_text(encoding="utf-8"), globals=values).module
