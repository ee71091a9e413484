"""The panel of notebook 03: one probe per environment over all merchants, and what changed since the last time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from tcb_ops.doors import python as doors
from tcb_ops.model import Kind, Text, plural
from tcb_ops.panels.launching import LaunchPanel
from tcb_ops.panels.markup import heading
from tcb_ops.panels.panel import NotYet
from tcb_ops.reports.diff_table import render_diff

if TYPE_CHECKING:
    from tcb_ops.doors.going import Working
    from tcb_ops.run import Run

__all__ = ["Audits"]


class Audits(LaunchPanel):
    """Audit all merchants."""

    kind, label = Kind.AUDIT, Text("Audit", "巡检")
    title = Text("Errcode audit", "错误码巡检")

    def changes(self) -> Any:
        """What changed since the audit before: newly broken, mended, still broken."""
        first = Text(
            "This is the first audit of this target: there is none to compare with.",
            "这是该目标的第一次巡检：没有可对比的结果。",
        )
        return self._of_run(lambda run: run.changes() or NotYet(first, self.lang))

    def history(self) -> Any:
        """Errcodes by day and merchant over the ledger's runs of this target: a plot and a table."""
        return doors.history(settings=self.desk.settings)

    def _parts(self) -> list[Any]:
        self.changed = widgets.HTML()
        self.changed.add_class("op-changes")
        return [*super()._parts(), self.changed]

    def _ended(self, run: Run) -> None:
        super()._ended(run)
        self.changed.value = self._changes_of(run) if run.record.finished_at is not None else ""

    def _changes_of(self, run: Run) -> str:
        changes = run.changes()
        title = heading(Text("Since the audit before", "与上次巡检相比").of(self.lang))
        return title + changes._repr_html_() if changes is not None else ""

    def _screen(self, run: Run) -> list[Any]:
        changes = run.changes()
        return super()._screen(run) + ([render_diff(changes, self.lang)] if changes is not None else [])

    def _page(self, run: Run) -> str:
        days = heading(Text("Errcodes by day", "每日错误码").of(self.lang))
        return f"{self._changes_of(run)}{super()._page(run)}{days}{self.history()._repr_html_()}"

    def _prepare(self) -> None:
        facts, _ = self._facts()
        self._changed()
        self.voice.say(Text(f"Ready. {facts.en}.", f"已就绪。{facts.zh}。"))

    def _facts(self) -> tuple[Text, int]:
        lines = self.desk.merchants
        merchants = len({merchant.appid for merchant in lines})
        facts = Text(
            f"{plural(merchants, 'merchant')}, {plural(len(lines), 'environment')}, a call each; no file is sent",
            f"{merchants:,} 个商户，{len(lines):,} 个环境，各调用一次；不发送任何文件",
        )
        return facts, merchants

    def _begin(self, **options: Any) -> Working:
        return doors.start_audit(self.desk.merchants, **options)
