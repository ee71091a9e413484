"""The panel of audits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tcb_ops.features.audit.api import start_audit
from tcb_ops.features.audit.kind import AUDIT
from tcb_ops.features.audit.result import AuditResult
from tcb_ops.i18n import Lang, Text, _
from tcb_ops.kinds import environment_count, is_provided, merchant_count, provided
from tcb_ops.panels.controls import html_area
from tcb_ops.panels.html import heading
from tcb_ops.panels.notebook_panels import RunForm
from tcb_ops.panels.panel import Placeholder
from tcb_ops.reports.formats.notebook import findings_html
from tcb_ops.run import Run, RunHandle
from tcb_ops.start import StartOptions


@dataclass(frozen=True, slots=True)
class AuditView:
    """What changed since the previous audit, as a notebook shows it."""

    result: AuditResult
    lang: Lang

    def _repr_html_(self) -> str:
        return findings_html(self.result, self.lang)


class AuditPanel(RunForm):
    """Audits all merchants."""

    kind, label = AUDIT, _("Audit")
    title = _("Errcode audit")

    def changes(self) -> Any:
        """Return the changes since the previous audit: newly broken, recovered, still broken, silenced, unknown."""
        first = _("This is the first audit of this target: there is no earlier one to compare with.")

        def view(run: Run) -> Any:
            result = run.audit()
            return Placeholder(first, self.lang) if result.previous is None else AuditView(result, self.lang)

        return self._of_run(view)

    def history(self) -> Any:
        """Return the errcodes by day and merchant over all runs of this target: a plot and a table."""
        if self.error is not None:
            return self.card()
        return provided("history")(settings=self.context.settings)

    def _parts(self) -> list[Any]:
        self.changed = html_area("op-changes")
        return [*super()._parts(), self.changed]

    def _list_runs(self) -> None:
        super()._list_runs()
        run = self.run
        ended = run is not None and run.record.finished_at is not None
        self.changed.value = self._render_changes(run) if run is not None and ended else ""

    def _render_changes(self, run: Run) -> str:
        result = run.audit()
        if result.previous is None:
            return ""
        return heading(_("Since the previous audit").of(self.lang)) + findings_html(result, self.lang)

    def _page(self, run: Run) -> str:
        days = heading(_("Errcodes by day").of(self.lang))
        return f"{self._render_changes(run)}{super()._page(run)}{days}{self.history()._repr_html_() if is_provided('history') else ''}"

    def _prepare(self) -> None:
        facts, _merchants = self._facts()
        self._changed()
        self.worker.say(_("Ready. {facts}.", facts=facts), "good", line=self.ready_line)

    def _facts(self) -> tuple[Text, int]:
        lines = self.context.merchants
        merchants = len({merchant.appid for merchant in lines})
        facts = _(
            "{merchants}, {environments}, one call each; no file is sent",
            merchants=merchant_count(merchants),
            environments=environment_count(len(lines)),
        )
        return facts, merchants

    def _start_run(self, options: StartOptions) -> RunHandle:
        return start_audit(self.context.merchants, cluster=self.cluster(), **options)
