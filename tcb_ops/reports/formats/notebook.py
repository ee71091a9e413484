"""What a notebook shows of a run, a diff, a history: a little HTML in the theme's own colours, every text escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from tcb_ops.i18n import Lang, Text
from tcb_ops.model import GOOD, Outcome, is_simulated
from tcb_ops.reports.diff import Change, DiffLine, RunDiff, change_title, diff_verdict
from tcb_ops.reports.explanations import OUTCOMES, row_count, verdict
from tcb_ops.reports.history import ErrcodeHistory
from tcb_ops.reports.summary import RunSummary

LINES = 12
"""Lines of a table; what is left out is counted."""
SHORT = 12
"""Letters of a cell that is not broken."""
# No colour of the background: JupyterLab's themes are light and dark. The border is visible on either.
_BOX = "border:1px solid rgba(127,127,127,.35);border-radius:6px;padding:12px 16px;max-width:760px;line-height:1.5"
_MARK = "background:#b45309;color:#fff;border-radius:3px;padding:1px 6px;font-size:85%"
_QUIET = "opacity:.72"
_TINT = {"good": "#2e9e5b", "bad": "#d1495b", "pending": "#8a8f98"}


def run_html(summary: RunSummary, lang: Lang) -> str:
    """Draw a card: which run, where to, how its rows ended, what went wrong most."""
    run, counts = summary.run, summary.counts
    sentence = verdict(run.kind, counts, finished=run.finished_at is not None).of(lang)
    mark = f' <span style="{_MARK}">SIMULATED 演练</span>' if is_simulated(run.target) else ""
    chips = " ".join(
        f'<span style="white-space:nowrap;margin-right:12px"><span style="color:{_TINT[_tint(outcome)]}" '
        f'aria-hidden="true">●</span> {escape(OUTCOMES[outcome].of(lang))} <b>{rows:,}</b></span>'
        for outcome, rows in counts.items()
    )
    top = [group for group in summary.codes if group.code != Outcome.PENDING]
    lines = [
        (
            escape(group.code),
            f"{group.rows:,}",
            _named([share.merchant for share in group.merchants], lang),
            f'{escape(group.meaning.of(lang))} <span style="{_QUIET}">→ {escape(group.action.of(lang))}</span>',
        )
        for group in top[:3]
    ]
    heads = (
        Text("code", "错误码"),
        Text("rows", "行数"),
        Text("merchants", "商户"),
        Text("what to do", "怎么办"),
    )
    more = _more(len(top) - 3, Text("more codes", "个错误码"), lang)
    return (
        f'<div style="{_BOX}"><div><b>{escape(run.id)}</b> · {escape(run.kind)} → {escape(run.target)}{mark}</div>'
        f'<div style="margin:6px 0">{escape(sentence)}</div><div>{chips}</div>{_table(heads, lines, lang)}{more}</div>'
    )


def diff_html(diff: RunDiff) -> str:
    """A small table per change that asks for something, or gives joy."""
    lang = diff.settings.lang
    heads = (
        Text("merchant", "商户"), Text("environment", "环境"), Text("before", "之前"), Text("now", "现在"),
        Text("rows", "行数"),
    )  # fmt: skip
    parts = [f'<div style="{_BOX}"><div>{escape(diff_verdict(diff).of(lang))}</div>']
    for change in (Change.NEWLY_BROKEN, Change.STILL_BROKEN, Change.FIXED, Change.ONLY_IN_NEWER):
        lines = [line for line in diff.of(change) if line.before or line.after]
        if lines:
            rows = sum(line.rows for line in lines)
            parts.append(
                f'<div style="margin-top:10px"><b>{escape(change_title(change).of(lang))}</b> · {row_count(rows).of(lang)}</div>'
            )
            parts.append(_table(heads, [_cells(line, diff, lang) for line in lines[:LINES]], lang))
            parts.append(_more(len(lines) - LINES, Text("more lines", "条"), lang))
    return "".join([*parts, "</div>"])


def history_html(history: ErrcodeHistory) -> str:
    """The plot, and the merchants that had errcodes on most days."""
    lang = history.settings.lang
    found = history.merchants()
    lines = [
        (
            escape(one.merchant),
            escape(one.appid),
            f"{one.days:,}",
            one.last.isoformat(),
            f"{one.rows:,}",
            _named([str(code) for code in one.codes], lang),
        )
        for one in found[:LINES]
    ]
    heads = (
        Text("merchant", "商户"), Text("appid", "appid"), Text("days", "天数"), Text("last on", "最近一天"),
        Text("rows", "行数"), Text("errcodes", "错误码"),
    )  # fmt: skip
    return (
        f'<div style="{_BOX}">{history_svg(history)}{_table(heads, lines, lang)}'
        + _more(len(found) - LINES, Text("more merchants", "家商户"), lang)
        + "</div>"
    )


_COLOURS = ("#d1495b", "#edae49", "#00798c", "#7b6ba8", "#3d85c6", "#66a182")
"""Of the most frequent errcodes."""
_GREY = "#8a8f98"
"""Of the others together."""


@dataclass(frozen=True, slots=True)
class _Bars:
    """The parts of the drawing of a history."""

    shapes: str
    """SVG, every text escaped; each with a title that says day, errcode and rows."""
    top: int
    """Rows of the highest bar, which is as high as the drawing; 0: there is none."""
    legend: tuple[tuple[str, str, int], ...]
    """Colour, errcode, rows; most rows first."""
    title: Text
    description: str
    """The legend's numbers for those who do not see the drawing."""


def _bars(history: ErrcodeHistory, width: float, height: float) -> _Bars:
    """Draw a history on a canvas of this size, its origin at the upper left."""
    lang, codes = history.settings.lang, history.codes()
    shown = [(colour, str(code), rows) for colour, (code, rows) in zip(_COLOURS, codes, strict=False)]
    if left := codes[len(_COLOURS) :]:
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
                count = row_count(rows[at]).of(lang)
                shapes.append(
                    f'<rect x="{(at + 0.12) * step:.1f}" y="{below:.1f}" width="{step * 0.76:.1f}" height="{high:.1f}" '
                    f'fill="{colour}"><title>{day.isoformat()} · {escape(code)} · {count}</title></rect>'
                )
    first, last = history.days[0].isoformat(), history.days[-1].isoformat()
    legend = tuple((colour, code, sum(rows)) for colour, code, rows in shown)
    return _Bars(
        "".join(shapes),
        top,
        legend,
        Text(f"Errcodes by day, {first} to {last}", f"每日错误码，{first} 至 {last}"),
        "; ".join(f"{code}: {rows:,}" for _, code, rows in legend) or Text("none", "无").of(lang),
    )


WIDTH, HEIGHT, LEFT, TOP, BASE = 720, 190, 48, 20, 150


def history_svg(history: ErrcodeHistory) -> str:
    """A bar per day, stacked by errcode: the most frequent ones in colours of their own."""
    lang = history.settings.lang
    drawn = _bars(history, WIDTH - LEFT - 8, BASE - TOP)
    legend, x = [], LEFT
    for colour, code, _ in drawn.legend:
        legend.append(
            f'<rect x="{x}" y="174" width="10" height="10" fill="{colour}"/>{_label(x + 14, 183, code)}'
        )
        x += 34 + 7 * len(code)
    none = _label(WIDTH // 2, 90, Text("no errcodes in these days", "这些天没有错误码").of(lang), "middle")
    first, last = history.days[0].isoformat(), history.days[-1].isoformat()
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" style="max-width:{WIDTH}px" role="img" '
        'font-size="11" fill="currentColor" font-family="system-ui,sans-serif">'
        f"<title>{escape(drawn.title.of(lang))}</title><desc>{escape(drawn.description)}</desc>"
        f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{BASE}" y2="{BASE}" stroke="currentColor" opacity=".4"/>'
        + (
            _label(LEFT - 6, 24, f"{drawn.top:,}", "end") + _label(LEFT - 6, BASE, "0", "end")
            if drawn.top
            else none
        )
        + _label(LEFT, BASE + 14, first)
        + (_label(WIDTH - 8, BASE + 14, last, "end") if len(history.days) > 1 else "")
        + f'<g transform="translate({LEFT} {TOP})">{drawn.shapes}</g>'
        + "".join(legend)
        + "</svg>"
    )


def _label(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _cells(line: DiffLine, diff: RunDiff, lang: Lang) -> tuple[str, ...]:
    return (
        escape(line.merchant),
        escape(line.env),
        _code(line.before, diff, lang),
        _code(line.after, diff, lang),
        f"{line.rows:,}",
    )


def _code(code: str, diff: RunDiff, lang: Lang) -> str:
    """A code, with its meaning where the pointer rests."""
    if not code:
        return f'<span style="{_QUIET}">–</span>'
    return f'<span title="{escape(diff.meanings[code].of(lang))}">{escape(code)}</span>'


def _table(heads: Iterable[Text], lines: Sequence[Sequence[str]], lang: Lang) -> str:
    """A table of cells that are HTML already; none at all without lines."""
    if not lines:
        return ""
    cell = "text-align:left;vertical-align:top;padding:3px 14px 3px 0"
    head = "".join(
        f'<th scope="col" style="{cell};white-space:nowrap;{_QUIET}">{escape(text.of(lang))}</th>'
        for text in heads
    )
    body = "".join(f"<tr>{''.join(_cell(text, cell) for text in line)}</tr>" for line in lines)
    return (
        # A table in an output takes neither colour nor size from around it by itself.
        '<table style="margin-top:8px;border-collapse:collapse;color:inherit;font:inherit">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cell(html: str, style: str) -> str:
    """A cell; what is short (a code, a number) stays on one line, what is long may break anywhere."""
    wraps = "white-space:nowrap" if len(re.sub("<[^>]*>", "", html)) <= SHORT else "overflow-wrap:anywhere"
    return f'<td style="{style};{wraps}">{html}</td>'


def _more(count: int, what: Text, lang: Lang) -> str:
    if count <= 0:
        return ""
    text = Text(f"… and {count:,} {what.en}", f"……另有 {count:,} {what.zh}").of(lang)
    return f'<div style="{_QUIET}">{escape(text)}</div>'


def _named(names: Sequence[str], lang: Lang) -> str:
    shown = escape("、".join(names[:3]) if lang is Lang.ZH else ", ".join(names[:3]))
    return shown + (f" +{len(names) - 3}" if len(names) > 3 else "")


def _tint(outcome: Outcome) -> str:
    return "good" if outcome in GOOD else "pending" if outcome is Outcome.PENDING else "bad"
