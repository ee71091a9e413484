"""A history as a drawing: a bar per day, stacked by errcode. What is written around it, its users write."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from tcb_ops.i18n import Text, plural
from tcb_ops.reports.history import ErrcodeHistory

CODES = 6
"""Errcodes that have a colour of their own; the others share grey."""
_COLOURS = ("#d1495b", "#edae49", "#00798c", "#7b6ba8", "#3d85c6", "#66a182")
_GREY = "#8a8f98"


@dataclass(frozen=True, slots=True)
class Bars:
    """The drawing's parts."""

    shapes: str
    """SVG, every text escaped; each with a title that says day, errcode and rows."""
    top: int
    """Rows of the highest bar, which is as high as the drawing; 0: there is none."""
    legend: tuple[tuple[str, str, int], ...]
    """Colour, errcode, rows; most rows first."""
    title: Text
    told: str
    """The legend's numbers for those who do not see the drawing."""


def bars(history: ErrcodeHistory, width: float, height: float) -> Bars:
    """Draw a history on a canvas of this size, its origin at the upper left."""
    lang, codes = history.settings.lang, history.codes()
    shown = [(colour, str(code), rows) for colour, (code, rows) in zip(_COLOURS, codes, strict=False)]
    if left := codes[CODES:]:
        others = tuple(map(sum, zip(*(rows for _, rows in left), strict=True)))
        shown.append((_GREY, Text("others", "其他").of(lang), others))
    top = max((sum(day) for day in zip(*(rows for _, _, rows in shown), strict=True)), default=0)
    step = width / len(history.days)
    shapes = []
    for at, day in enumerate(history.days):
        below = height
        for colour, code, rows in shown:
            if rows[at]:
                high = rows[at] / top * height
                below = max(below - high, 0.0)
                count = Text(plural(rows[at], "row"), f"{rows[at]:,} 行").of(lang)
                shapes.append(
                    f'<rect x="{(at + 0.12) * step:.1f}" y="{below:.1f}" width="{step * 0.76:.1f}" height="{high:.1f}" '
                    f'fill="{colour}"><title>{day.isoformat()} · {escape(code)} · {count}</title></rect>'
                )
    first, last = history.days[0].isoformat(), history.days[-1].isoformat()
    legend = tuple((colour, code, sum(rows)) for colour, code, rows in shown)
    return Bars(
        "".join(shapes),
        top,
        legend,
        Text(f"Errcodes by day, {first} to {last}", f"每日错误码，{first} 至 {last}"),
        "; ".join(f"{code}: {rows:,}" for _, code, rows in legend) or Text("none", "无").of(lang),
    )
