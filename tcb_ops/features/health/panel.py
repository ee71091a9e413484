"""The panel of audits."""

from __future__ import annotations

from typing import Any

from tcb_ops.engine.plan import RunSpec
from tcb_ops.features.health.audit import start_audit
from tcb_ops.features.health.audit_kind import AUDIT, audit_spec
from tcb_ops.i18n import Text, _, pgettext
from tcb_ops.kinds import environment_count, merchant_count
from tcb_ops.panels.controls import html_area
from tcb_ops.panels.html import heading
from tcb_ops.panels.notebook_panels import RunForm
from tcb_ops.reports.cards import findings_html
from tcb_ops.run import Run, RunHandle
from tcb_ops.start import StartOptions


class AuditPanel(RunForm):
    """Audits all merchants."""

    kind, action = AUDIT, pgettext("button", "Audit")

    def _parts(self) -> list[Any]:
        self.changed = html_area("op-changes").add_class("op-tab-todo")
        return [*super()._parts(), self.changed]

    def _list_runs(self) -> None:
        super()._list_runs()
        run = self.run
        ended = run is not None and run.record.finished_at is not None
        self.changed.value = self._render_changes(run) if run is not None and ended else ""

    def _render_changes(self, run: Run) -> str:
        result = run.audit()
        changes = findings_html(result, self.lang) if result.previous is not None else None
        return heading(_("Since the previous audit").of(self.lang)) + changes if changes else ""

    def _is_same_work(self, run: Run) -> bool:
        return run.record.kind is AUDIT and run.record.selection == self.context.selection

    def _prepare(self) -> None:
        facts, *_more = self._facts()
        self._changed()
        self.worker.say(_("Ready. {facts}.", facts=facts), "good", line=self.ready_line)

    def _facts(self) -> tuple[Text, int, Text, RunSpec]:
        lines = self.context.merchants
        work = audit_spec(lines, self.context.selection, {})
        merchants, environments = len({line.appid for line in lines}), environment_count(len(lines))
        facts = _("{merchants}, {environments}, one call each; no file is sent")
        facts = facts.format(merchants=merchant_count(merchants), environments=environments)
        return facts, merchants, _("Audit {environments}", environments=environments), work

    def _start_run(self, options: StartOptions) -> RunHandle:
        return start_audit(self.context.merchants, cluster=self.monitor.cluster, **options)
