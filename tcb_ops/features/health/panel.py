"""The panel of audits."""

from __future__ import annotations

from tcb_ops.engine.plan import RunSpec
from tcb_ops.features.health.audit import start_audit
from tcb_ops.features.health.audit_kind import AUDIT, audit_spec
from tcb_ops.i18n import Text, _, pgettext
from tcb_ops.kinds import environment_count, merchant_count
from tcb_ops.panels.notebook_panels import RunForm
from tcb_ops.run import Run, RunHandle
from tcb_ops.start import StartOptions


class AuditPanel(RunForm):
    """Audits all merchants."""

    kind, action = AUDIT, pgettext("button", "Audit")

    def _is_same_work(self, run: Run) -> bool:
        return run.record.kind is AUDIT and run.record.selection == self.context.merchants.selection

    def _prepare(self) -> None:
        facts, *_more = self._facts()
        self._changed()
        self.worker.say(self.context.ready(facts), "good", line=self.ready_line)

    def _facts(self) -> tuple[Text, int, Text, RunSpec]:
        lines = self.context.merchants
        work = audit_spec(lines)
        merchants, environments = len({line.appid for line in lines}), environment_count(len(lines))
        facts = _("{merchants}, {environments}, one call each; no file is sent")
        facts = facts.format(merchants=merchant_count(merchants), environments=environments)
        return facts, merchants, _("Audit {environments}", environments=environments), work

    def _start_run(self, options: StartOptions) -> RunHandle:
        return start_audit(self.context.merchants, cluster=self.monitor.cluster, **options)
