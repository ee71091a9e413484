"""The cards of a history: bars of codes by day, and strips of a merchant's days, as SVG in the page's colours and fonts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from tcb_ops.i18n import Lang, as_list
from tcb_ops.reports.rendering import code_colour, environment

CODES = 6
"""Codes with a colour and a line of their own; the others are summed up."""
_GREY = "#8a8f98"
"""Colour of all others together."""
_LEFT, _TOP, _WIDTH, _HEIGHT = 62, 20, 650, 130
"""Position and size of the bars in the drawing."""
_SHADES = 3


def chart(days: Sequence[date], codes: Sequence[tuple[str, Mapping[date, int]]]) -> dict[str, Any]:
    """Return the bars of each day: a path per code, and a text for each day that has one."""
    shown = [(code_colour(code), code, counted) for code, counted in codes[:CODES]]
    if others := sum((Counter(counted) for _code, counted in codes[CODES:]), Counter[date]()):
        shown.append((_GREY, "…", others))
    top = max(sum(counted.get(day, 0) for _, _, counted in shown) for day in days)
    step, paths, texts = _WIDTH / len(days), defaultdict[str, str](str), []
    for index, day in enumerate(days):
        y, x = float(_TOP + _HEIGHT), _LEFT + (index + 0.12) * step
        parts = [(colour, code, counted[day]) for colour, code, counted in shown if counted.get(day)]
        for colour, _code, rows in parts:
            height = rows / top * _HEIGHT
            paths[colour] += f"M{x:.1f} {y:.1f}v{-height:.1f}h{step * 0.76:.1f}v{height:.1f}z"
            y -= height
        if parts:
            about = as_list(f"{code} {rows:,}" for _colour, code, rows in parts)
            texts.append((round(_LEFT + index * step, 1), day, about))
    ticks = sorted({0, len(days) - 1, *range(0, len(days) - 1, max(len(days) // 5, 1))})
    return {
        "paths": paths,
        "texts": texts,
        "step": round(step, 1),
        "top": top,
        "ticks": [(round(_LEFT + (index + 0.5) * step), days[index]) for index in ticks],
        "sums": [(code, sum(counted.values())) for _colour, code, counted in shown],
    }


def strip(shares: Sequence[float | None]) -> list[tuple[float, str]]:
    """Return the paths of a strip with a cell for each day: (opacity, path), the days without failures first.

    ========================  =======
    share of the day's rows   opacity
    ========================  =======
    none                      0
    up to a third             0.4
    up to two thirds          0.7
    more                      1
    ========================  =======
    """
    paths: defaultdict[float, str] = defaultdict(str)
    for index, share in enumerate(shares):
        if share is not None:
            shade = 0.0 if not share else round(0.1 + 0.3 * min(int(share * _SHADES - 1e-9) + 1, _SHADES), 1)
            paths[shade] += f"M{index} 0h.9v1h-.9z"
    return sorted(paths.items())


@cache
def macros(lang: Lang) -> Any:
    """Return the macros of the template, in one language."""
    template = files("tcb_ops.features.evidence") / "history.html.j2"
    values = {"strip": strip, "colour_of": code_colour, "grey": _GREY}
    return environment(lang).from_string(template.read_text(encoding="utf-8"), globals=values).module
