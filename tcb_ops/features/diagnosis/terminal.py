"""How verdicts are shown in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tcb_ops.features.diagnosis.verdicts import Verdict
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, _, as_list, ngettext
from tcb_ops.kinds import row_count
from tcb_ops.reports.formats.terminal import Wrapped

if TYPE_CHECKING:
    from rich.console import RenderableType

FULL_VERDICTS = 3
"""Causes shown with all their evidence and the text for the merchant; of more, so that they fit a screen, without."""


def render_verdicts(
    verdicts: Sequence[tuple[Verdict, Sequence[str], int]], lang: Lang
) -> Iterator[RenderableType]:
    """Render causes, each with the names of its merchants and the number of its rows: who must act, what, and why."""
    full = len(verdicts) <= FULL_VERDICTS
    for verdict, names, rows in verdicts:
        count = row_count(rows) if rows else ngettext("{n:,} line", "{n:,} lines", len(names))
        listed = as_list(dict.fromkeys(map(sanitize, names)), 3)
        head = [sanitize(verdict.code), count.of(lang), listed.of(lang)]
        yield Wrapped(" · ".join(head), bold=len(head[0]))
        yield Wrapped(sanitize(verdict.meaning.of(lang)))
        who = verdict.who_acts.of(lang)
        what = _("→ {who}: {action}", who=who, action=verdict.action).of(lang)
        yield Wrapped(sanitize(what), bold=len(who) + 2)
        for line in verdict.lines(None if full else 1):
            yield Wrapped(f"  {sanitize(line.of(lang))}", style="dim")
        if verdict.message is not None and full:
            text = _("Text for the merchant: {text}", text=verdict.message)
            yield Wrapped(f"  {sanitize(text.of(lang))}", style="italic")
        yield ""
    if not full:
        more = _("Texts for merchants, and more evidence: --json, or one merchant, as in `tcb-ops why NAME`.")
        yield Wrapped(more.of(lang))
