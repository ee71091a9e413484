"""What a notebook shows of a run, a diff, a history: a little HTML, escaped by the template engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tcb_ops.i18n import Lang, Text
from tcb_ops.model import Outcome, is_simulated
from tcb_ops.reports.diff import Change, RunDiff, change_title, diff_verdict
from tcb_ops.reports.explanations import row_count, verdict
from tcb_ops.reports.formats.html import Localizer, environment
from tcb_ops.reports.history import ErrcodeHistory
from tcb_ops.reports.summary import RunSummary

LINES = 12
"""Lines of a table; what is left out is counted."""
_COLOURS = ("#d1495b", "#edae49", "#00798c", "#7b6ba8", "#3d85c6", "#66a182")
"""Of the most frequent errcodes."""
_GREY = "#8a8f98"
"""Of the others together."""
_LEFT, _TOP, _WIDTH, _HEIGHT = 48, 20, 664, 130
"""Where the bars are in the drawing."""


def run_html(summary: RunSummary, lang: Lang) -> str:
    """Draw a card: which run, where to, how its rows ended, what went wrong most."""
    run, counts = summary.run, summary.counts
    sentence = verdict(run.kind, counts, finished=run.finished_at is not None)
    groups = [group for group in summary.codes if group.code != Outcome.PENDING]
    return str(_macros(lang).run_card(run, sentence, counts, groups, is_simulated(run.target)))


def diff_html(diff: RunDiff) -> str:
    """Draw a small table per change that the operator has to know of."""
    kinds = [
        (change_title(change), row_count(sum(line.rows for line in lines)), lines)
        for change in (Change.NEWLY_BROKEN, Change.STILL_BROKEN, Change.FIXED, Change.ONLY_IN_NEWER)
        if (lines := [line for line in diff.of(change) if line.before or line.after])
    ]
    return str(_macros(diff.settings.lang).diff_card(diff_verdict(diff), kinds, diff.meanings, LINES))


def history_html(history: ErrcodeHistory) -> str:
    """Draw the errcodes by day, and list the merchants that had errcodes on most days."""
    macros = _macros(history.settings.lang)
    return str(macros.history_card(_chart(history), history.merchants(), LINES))


def history_svg(history: ErrcodeHistory) -> str:
    """Draw a bar per day, stacked by errcode: the most frequent ones in colours of their own."""
    return str(_chart(history)).strip()


@dataclass(frozen=True, slots=True)
class _Bar:
    x: float
    y: float
    width: float
    height: float
    colour: str
    day: str
    code: str
    rows: Text


def _chart(history: ErrcodeHistory) -> Any:
    codes = history.codes()
    shown = [(colour, str(code), rows) for colour, (code, rows) in zip(_COLOURS, codes, strict=False)]
    if left := codes[len(_COLOURS) :]:
        others = tuple(map(sum, zip(*(rows for _, rows in left), strict=True)))
        shown.append((_GREY, Text("others", "其他").of(history.settings.lang), others))
    top = max((sum(day) for day in zip(*(rows for _, _, rows in shown), strict=True)), default=0)
    step = _WIDTH / len(history.days)
    bars = []
    for at, day in enumerate(history.days):
        y = float(_TOP + _HEIGHT)
        for colour, code, rows in shown:
            if rows[at]:
                height = rows[at] / top * _HEIGHT
                y = max(y - height, float(_TOP))
                x, count = _LEFT + (at + 0.12) * step, row_count(rows[at])
                size = (round(x, 1), round(y, 1), round(step * 0.76, 1), round(height, 1))
                bars.append(_Bar(*size, colour, day.isoformat(), code, count))
    legend = [(colour, code, sum(rows)) for colour, code, rows in shown]
    days = [day.isoformat() for day in history.days]
    return _macros(history.settings.lang).chart(days, bars, top, legend)


def _macros(lang: Lang) -> Any:
    return environment(Localizer(lang, "UTC")).get_template("notebook.html.j2").module
