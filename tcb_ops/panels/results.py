"""Result cells of a notebook: tables of the panel's run that are drawn again when the run changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from tcb_ops.i18n import Lang, Text, _, pgettext
from tcb_ops.panels.html import esc

TITLES: dict[str, Text] = {
    "card": _("The run"),
    "by_merchant": _("Rows by merchant"),
    "errcodes": _("Rows that did not succeed, by merchant and errcode"),
    "causes": _("What went wrong, and what to do"),
    "changes": _("Since the previous audit"),
    "history": _("Errcodes by day"),
}
"""The titles of result cells, by the name of the panel's method."""
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
_STYLE = (
    "<style>.op-result table{border-collapse:collapse;margin:4px 0;font-variant-numeric:tabular-nums}"
    ".op-result :is(th,td){padding:3px 14px 3px 0;text-align:left!important;vertical-align:top!important;border-bottom:1px solid #8884}"
    ".op-result th{white-space:nowrap;font-weight:600}.op-result td.n{text-align:right!important}.op-result td.s{white-space:nowrap}.op-result td{max-width:34rem}"
    ".op-result h2{font-size:15px;margin:8px 0 2px}</style>"
)
SHORT = 24
"""Most characters of a text that is not broken."""
LINES = 500
"""Most lines of a table in a notebook; the rest is counted."""


class ResultCell:
    """The output of a cell: what a method of a panel returns."""

    def __init__(self, view: Callable[[], Any], lang: Lang) -> None:
        self._view, self._lang, self._id = view, lang, uuid4().hex

    def draw(self, *, again: bool = False) -> None:
        """Display what the method returns, the first time or `again` in the same output."""
        from IPython.display import display, update_display

        found = self._view()
        title = TITLES[self._view.__name__].of(self._lang)
        shown = found.to_string() if hasattr(found, "to_string") else repr(found)
        drawn = frame_html(found, self._lang) if hasattr(found, "itertuples") else found._repr_html_()
        bundle = {
            "text/plain": f"{title}\n{shown}",
            "text/html": f'<div class="op-result">{_STYLE}<h2>{esc(title)}</h2>{drawn}</div>',
        }
        publish: Callable[..., Any] = update_display if again else display
        publish(bundle, raw=True, display_id=self._id)


def frame_html(frame: Any, lang: Lang) -> str:
    """Draw a DataFrame with left-aligned text and heads in the panel's language."""
    index = [name for name in frame.index.names if name is not None]
    columns = [*index, *frame.columns]
    numbers = [False] * len(index) + [kind.kind in "iuf" for kind in frame.dtypes]
    heads = "".join(
        f'<th scope="col">{esc(_HEADS[name].of(lang) if name in _HEADS else name)}</th>' for name in columns
    )
    lines = []
    for label, *cells in frame.head(LINES).itertuples(index=bool(index)) if index else _unlabelled(frame):
        labels = label if isinstance(label, tuple) else (label,) if index else ()
        lines.append(
            "".join(
                f'<td class="n">{cell:,}</td>' if number else _text(cell)
                for number, cell in zip(numbers, (*labels, *cells), strict=True)
            )
        )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    more = len(frame) - LINES
    rest = f"<p>{esc(_('… and {more:,} more', more=more).of(lang))}</p>" if more > 0 else ""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{rest}"


def _text(cell: Any) -> str:
    """Draw a cell; a name or an id stays on one line, beside the long texts of other columns."""
    kind = ' class="s"' if len(str(cell)) <= SHORT else ""
    return f"<td{kind}>{esc(cell)}</td>"


def _unlabelled(frame: Any) -> Any:
    return ((None, *cells) for cells in frame.head(LINES).itertuples(index=False))
