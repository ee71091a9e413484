"""The causes of a run by code, with what to do, as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from tcb_ops.i18n import Lang, _, pgettext
from tcb_ops.panels.html import esc, heading, table
from tcb_ops.reports.formats.charts import code_colour
from tcb_ops.reports.summary import CodeGroup

NAMED = 4
"""Merchants named beside a code."""
_OPTIONS = _(
    "Names that begin with -- are options of the command line: --rate is “Pace” here, --api-base the "
    "setting api_base."
)


def render_codes(groups: Sequence[CodeGroup], lang: Lang) -> str:
    """Draw the codes, with their rows and merchants, what they mean and what to do."""
    heads = (
        _("Code"),
        _("Rows"),
        pgettext("column", "Merchants"),
        _("What it means"),
        _("What to do"),
    )
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
