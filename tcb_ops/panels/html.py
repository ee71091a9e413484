"""The HTML of panels: escaped, aligned, readable on light and dark pages, with numbers where the eye looks for them.

All text, wherever it came from, goes through `esc`. Nothing is fetched from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """<style>
.op-panel { --op-good: #18794e; --op-bad: #c62a2f; --op-todo: #767676; --op-line: var(--jp-border-color2, #ddd);
  color: var(--jp-ui-font-color1, #222); max-width: 76rem; }
[data-jp-theme-light=false] .op-panel { --op-good: #4cc38a; --op-bad: #ff8589; --op-todo: #a8a8a8; }
.op-panel .widget-html-content { font-size: 13px; line-height: 1.5; }
.op-panel h2 { font-size: 15px; font-weight: 600; margin: 14px 0 2px; padding: 0; }
.op-panel p { margin: 2px 0; }
.op-panel .op-quiet { color: var(--jp-ui-font-color2, #555); opacity: 1; }
.op-panel .op-mark { display: inline-block; border: 1px solid currentColor; border-radius: 3px; padding: 0 6px; font-weight: 600; }
.op-panel .widget-hbox { flex-flow: row wrap; }
.op-panel .widget-inline-hbox { max-width: calc(100% - 4px); }
.op-panel .jupyter-button { flex: none; }
.op-panel .widget-checkbox { height: auto; }
.op-panel .widget-checkbox .widget-label-basic { white-space: normal; }
.op-say { border-left: 4px solid var(--op-todo); padding: 4px 10px; margin: 4px 0; background: var(--jp-layout-color2, #f5f5f5);
  white-space: pre-line; overflow-wrap: anywhere; }
.op-say.op-good { border-color: var(--op-good); }
.op-say.op-bad { border-color: var(--op-bad); }
.op-panel table.op-table { border-collapse: collapse; margin: 4px 0; font-variant-numeric: tabular-nums; }
.op-panel table.op-table th { text-align: left; font-weight: 600; border-bottom: 1px solid var(--op-line); white-space: nowrap; }
.op-panel table.op-table th, .op-panel table.op-table td { padding: 2px 14px 2px 0; vertical-align: top; }
.op-panel table.op-table td { border-bottom: 1px solid var(--op-line); overflow-wrap: break-word; max-width: 34rem; }
.op-panel table.op-table .op-num { text-align: right; white-space: nowrap; }
.op-panel table.op-table .op-short { white-space: nowrap; }
.op-panel .op-name { display: inline-block; width: max-content; max-width: 14rem; }
@media (max-width: 46rem) { .op-panel .op-by-merchant :is(th, td):is(:nth-child(2), :nth-child(4)) { display: none; } }
.op-panel .op-goodtext { color: var(--op-good); font-weight: 600; }
.op-panel .op-badtext { color: var(--op-bad); font-weight: 600; }
.op-panel progress { width: 100%; max-width: 44rem; height: 14px; accent-color: var(--jp-brand-color1, #1976d2); }
.op-bar { display: inline-flex; width: min(9rem, 12vw); height: 9px; background: var(--jp-layout-color3, #e0e0e0); vertical-align: middle; }
.op-bar i { display: block; height: 100%; }
.op-bar .g { background: var(--op-good); } .op-bar .b { background: var(--op-bad); }
.op-panel .op-scroll { border-top: 1px solid var(--op-line); border-bottom: 1px solid var(--op-line); }
.op-panel .op-scroll thead th { position: sticky; top: 0; background: var(--jp-layout-color1, #fff); }
.op-panel details summary { cursor: pointer; }
.op-panel a { color: var(--jp-content-link-color, #0b57a4); text-decoration: underline; }
</style>"""


def esc(text: object) -> str:
    """A text, safe in HTML; control characters are shown as �."""
    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in str(text)))


def heading(text: str) -> str:
    """Head a part of a panel."""
    return f"<h2>{esc(text)}</h2>"


def said(text: str, tone: str = "") -> str:
    """Frame a sentence that a screen reader says when it changes; `tone` is "", good or bad."""
    kind = f" op-{tone}" if tone else ""
    lines = [f"<code>{esc(line)}</code>" if is_command(line) else esc(line) for line in text.split("\n")]
    shown = "\n".join(lines)
    return f'<div role="status" aria-live="polite" class="op-say{kind}">{shown}</div>' if text else ""


def is_command(line: str) -> bool:
    """Whether a line is a suggested command: it is shown as it stands, in an element of its own."""
    return line.startswith("tcb-ops ")


def progress(done: int, total: int, label: str) -> str:
    """Draw a bar that a screen reader reads as `label`."""
    return f'<progress aria-label="{esc(label)}" value="{done}" max="{max(total, 1)}"></progress>'


def table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], kinds: str, *, label: str, classes: str = ""
) -> str:
    """Draw a table.

    `kinds` has a letter per column: n number, s short text, t text; h and m are HTML that is escaped already, m a
    number.
    """
    names = {"n": ' class="op-num"', "m": ' class="op-num"', "s": ' class="op-short"', "t": "", "h": ""}
    head = "".join(
        f'<th scope="col"{names[kind]}>{esc(name)}</th>' for name, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{names[kind]}>{cell if kind in 'hm' else _cell(cell)}</td>"
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
