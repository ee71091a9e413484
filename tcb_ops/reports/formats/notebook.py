"""Runs as HTML for notebooks, which the engine escapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from tcb_ops.frames import LINES
from tcb_ops.i18n import Lang, Text
from tcb_ops.model import Outcome
from tcb_ops.reports.explanations import change_lines
from tcb_ops.reports.formats.charts import Drawing, ErrcodeMatrix, axis_format
from tcb_ops.reports.formats.templates import environment
from tcb_ops.reports.summary import RunSummary
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from tcb_ops.reports.findings import Findings, FindingSection


def run_html(summary: RunSummary, settings: Settings) -> str:
    """Render a card: the run, its target, how its rows ended, the most frequent causes."""
    run, counts = summary.run, summary.counts
    sentence = run.kind.verdict(counts, finished=run.finished_at is not None)
    groups = [group for group in summary.codes if group.code != Outcome.PENDING]
    simulated = run.simulated
    changed_by = change_lines(summary.changed_by, settings.zone)
    card = _macros(settings.lang).run_card
    return str(card(run, run.kind.label, sentence, counts, groups, simulated, changed_by))


def sections_html(
    verdict: Text, sections: Sequence[FindingSection], lang: Lang, notes: Sequence[Text] = ()
) -> str:
    """Render what was found or has changed, a small table per section."""
    return str(_macros(lang).sections_card(verdict, sections, notes, LINES))


def findings_html(findings: Findings, lang: Lang) -> str:
    """Render what a run found."""
    if findings.stopped is not None:
        return sections_html(findings.stopped, (), lang)
    return sections_html(findings.summary(), findings.sections(), lang, list(findings.notes()))


def heat_map(matrix: ErrcodeMatrix, lang: Lang) -> str:
    """Draw the rows that did not succeed by merchant and code; darker cells have more.

    Cells have `data-appid` and `data-code`, and are buttons for keyboards and screen readers.
    """
    shown = replace(matrix, lines=tuple(line for line in matrix.lines if any(line.cells)))
    return str(_macros(lang).heat_map(shown))


def timeline_svg(drawing: Drawing, lang: Lang, zone: tzinfo) -> str:
    """Draw how rows ended over time, with times and the highest rate."""
    return str(_macros(lang, str(zone)).timeline(drawing, axis_format(drawing, zone)))


def _macros(lang: Lang, timezone: str = "UTC") -> Any:
    return environment(lang, timezone).get_template("notebook.html.j2").module
