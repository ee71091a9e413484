"""HTML of the panels, for light and dark pages. All text goes through `esc`; nothing is fetched from the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from tcb_ops.i18n import Lang, Text

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
