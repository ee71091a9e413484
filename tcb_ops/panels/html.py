"""HTML of the panels, for light and dark pages. All text goes through `esc`; nothing is fetched from the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from tcb_ops.i18n import Lang, Text, _, pgettext
from tcb_ops.reports.formats.charts import code_colour
from tcb_ops.reports.summary import CodeGroup

NAMED = 4
"""Merchants named beside a code."""
LINES = 500
"""Most lines of a DataFrame in a notebook; the rest is counted."""
STYLE = f"<style>{(files(__package__) / 'styles.css').read_text(encoding='utf-8')}</style>"
_CLASSES = {"n": ' class="op-num"', "m": ' class="op-num"', "s": ' class="op-short"', "t": "", "h": ""}


def esc(text: object) -> str:
    """Escape a text for HTML; control characters become �."""
    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in str(text)))


def heading(text: str) -> str:
    """Return a heading."""
    return f"<h2>{esc(text)}</h2>"


def message(text: str, tone: str = "", commands: Sequence[str] = ()) -> str:
    """Frame a message that a screen reader reads when it changes; `tone` is "", good or bad.

    Lines that are one of the `commands` are shown in an element of their own.
    """
    kind = f" op-{tone}" if tone else ""
    lines = [f"<code>{esc(line)}</code>" if line in commands else esc(line) for line in text.split("\n")]
    shown = "\n".join(lines)
    return f'<div role="status" aria-live="polite" class="op-message{kind}">{shown}</div>' if text else ""


def table(
    heads: Sequence[Text],
    rows: Iterable[Sequence[object]],
    kinds: str,
    lang: Lang,
    *,
    label: str,
    classes: str = "",
) -> str:
    """Draw a table.

    `kinds` has a letter per column: n number, s short text, t text, h HTML that is escaped already, m such HTML of a
    number.
    """
    head = "".join(
        f'<th scope="col"{_CLASSES[kind]}>{esc(name.of(lang))}</th>'
        for name, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_CLASSES[kind]}>{cell if kind in 'hm' else _cell(cell)}</td>"
            for cell, kind in zip(row, kinds, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<table class="op-table {classes}" aria-label="{esc(label)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _cell(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else esc(cell)


_OPTIONS = _(
    "Names that begin with -- are options of the command line: --rate is “Pace” here, --api-base the "
    "setting api_base."
)


def render_codes(groups: Sequence[CodeGroup], lang: Lang) -> str:
    """Draw the codes, with their rows and merchants, what they mean and what to do."""
    heads = (_("Code"), _("Rows"), pgettext("column", "Merchants"), _("What it means"), _("What to do"))
    title = _("What went wrong, and what to do").of(lang)
    rows = [
        (_code(g.code), g.rows, _merchants(g, lang), g.meaning.of(lang), g.action.of(lang)) for g in groups
    ]
    note = f'<p class="op-quiet">{esc(_OPTIONS.of(lang))}</p>'
    drawn = table(heads, rows, "hnttt", lang, label=title, classes="op-by-code")
    return f"{heading(title)}{drawn}{note}"


def _code(code: str) -> str:
    """Draw a code with its colour; the grid makes it a button."""
    return f'<span class="op-code" data-code="{esc(code)}"><i style="background:{code_colour(code)}"></i>{esc(code)}</span>'


def _merchants(group: CodeGroup, lang: Lang) -> str:
    names = ", ".join(share.merchant for share in group.merchants[:NAMED])
    more = len(group.merchants) - NAMED
    return names + _(" and {more:,} more", more=more).of(lang) * (more > 0)


_HEADS: dict[object, Text] = {
    "merchant": _("Merchant"),
    "appid": _("appid"),
    "env": _("Environment"),
    "rows": _("Rows"),
    "good": _("Succeeded"),
    "not_good": _("Did not succeed"),
    "pending": pgettext("column", "Pending"),
    "code": _("Code"),
    "meaning": _("What it means"),
    "action": _("What to do"),
}


def frame_html(frame: Any, lang: Lang) -> str:
    """Draw a DataFrame with left-aligned text and heads in the panel's language."""
    index = [name for name in frame.index.names if name is not None]
    columns = [*index, *frame.columns]
    numbers = [False] * len(index) + [kind.kind in "iuf" for kind in frame.dtypes]
    heads = "".join(
        f'<th scope="col">{esc(_HEADS[name].of(lang) if name in _HEADS else name)}</th>' for name in columns
    )
    lines = []
    for line in frame.head(LINES).itertuples(index=bool(index)):
        label, cells = (line[0], line[1:]) if index else ((), line)
        labels = label if isinstance(label, tuple) else (label,)
        lines.append(
            "".join(
                f'<td class="n">{cell:,}</td>' if number else f"<td{_short(cell)}>{esc(cell)}</td>"
                for number, cell in zip(numbers, (*labels, *cells), strict=True)
            )
        )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    more = len(frame) - LINES
    rest = f"<p>{esc(_('… and {more:,} more', more=more).of(lang))}</p>" if more > 0 else ""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{rest}"


def _short(cell: object) -> str:
    """Keep a name or an id on one line, beside the long texts of other columns."""
    return ' class="s"' if len(str(cell)) <= 24 else ""
