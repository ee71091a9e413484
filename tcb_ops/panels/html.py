"""HTML of the panels: escaped, aligned, readable on light and dark pages.

All text, wherever it came from, goes through `esc`. Nothing is fetched from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from tcb_ops.i18n import Lang, Text

STYLE = f"<style>{(files(__package__) / 'styles.css').read_text(encoding='utf-8')}</style>"
_CLASSES = {"n": ' class="op-num"', "m": ' class="op-num"', "s": ' class="op-short"', "t": "", "h": ""}


def esc(text: object) -> str:
    """Make a text safe in HTML; control characters are shown as �."""
    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in str(text)))


def heading(text: str) -> str:
    """Head a part of a panel."""
    return f"<h2>{esc(text)}</h2>"


def message(text: str, tone: str = "") -> str:
    """Frame a message that a screen reader reads when it changes; `tone` is "", good or bad.

    A suggested command stands on a line of its own, and is shown in an element of its own.
    """
    kind = f" op-{tone}" if tone else ""
    lines = [
        f"<code>{esc(line)}</code>" if line.startswith("tcb-ops ") else esc(line) for line in text.split("\n")
    ]
    shown = "\n".join(lines)
    return f'<div role="status" aria-live="polite" class="op-message{kind}">{shown}</div>' if text else ""


def progress(done: int, total: int, label: str) -> str:
    """Draw a bar that a screen reader reads as `label`."""
    return f'<progress aria-label="{esc(label)}" value="{done}" max="{max(total, 1)}"></progress>'


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

    `kinds` has a letter per column: n number, s short text, t text; h and m are HTML that is escaped already, m a
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
