"""Results as HTML for notebooks, which the engine escapes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from tcb_ops.frames import Lines
from tcb_ops.i18n import Lang, Text
from tcb_ops.model import Outcome
from tcb_ops.reports.explanations import change_lines
from tcb_ops.reports.formats.html import environment
from tcb_ops.reports.summary import RunSummary
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from tcb_ops.reports.findings import Findings, FindingSection

_SHOWN = 12
"""Lines shown per table; the others are counted."""


def run_html(summary: RunSummary, settings: Settings) -> str:
    """Render a card: the run, its target, how its rows ended, the most frequent causes."""
    run, counts = summary.run, summary.counts
    groups = [group for group in summary.codes if group.code != Outcome.PENDING]
    changed_by = change_lines(summary.changed_by, settings.zone)
    card = _macros(settings.lang).run_card
    return str(card(run, run.kind.label, summary.verdict, counts, groups, run.simulated, changed_by))


def sections_html(
    verdict: Text, sections: Sequence[FindingSection], lang: Lang, notes: Sequence[Text] = ()
) -> str:
    """Render what was found or has changed, a small table per section."""
    return str(_macros(lang).sections_card(verdict, sections, notes, _SHOWN))


def findings_html(findings: Findings, lang: Lang) -> str:
    """Render what a run found."""
    if findings.stopped is not None:
        return sections_html(findings.stopped, (), lang)
    return sections_html(findings.summary(), findings.sections(), lang, list(findings.notes()))


def table_html(table: Lines, lang: Lang) -> str:
    """Render the first lines of a table."""
    lines = [
        [cell.of(lang) if isinstance(cell, Text) else "" if cell is None else cell for cell in line]
        for line in islice(table.lines, _SHOWN)
    ]
    heads = (*table.headers, *table.names)
    return str(_macros(lang).lines_card(table.caption, heads, lines, table.total - _SHOWN))


def _macros(lang: Lang) -> Any:
    return environment(lang).get_template("notebook.html.j2").module
