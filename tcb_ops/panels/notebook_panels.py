"""The panels of the four notebooks: links, uploads, audits, reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Lang, Text, _, as_sentences
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Kind, Outcome
from tcb_ops.panels.action_button import Confirmation
from tcb_ops.panels.context import LINKS_GO_TO, Fold, PanelContext, Worker, html_area, show
from tcb_ops.panels.html import RunState, heading, message
from tcb_ops.panels.list_reader import ListReader
from tcb_ops.panels.panel import Panel, Placeholder
from tcb_ops.panels.run_form import RunForm
from tcb_ops.panels.run_monitor import STARTING, RunMonitor
from tcb_ops.preflight import facts_line, scope_of_stored, short_life
from tcb_ops.reports.audit import AuditResult
from tcb_ops.reports.explanations import environment_count, merchant_count
from tcb_ops.reports.formats.notebook import audit_html
from tcb_ops.run import Diff, Run, RunHandle
from tcb_ops.sample import FILES, PATHS

if TYPE_CHECKING:
    from tcb_ops.runs.cluster import Cluster


class ListPanel(RunForm):
    """A panel whose run works on a list."""

    settings_title = _("List and settings")

    def __init__(
        self,
        target: str,
        paths: str,
        root: str | None,
        where: str,
        lang: str,
        *,
        note: str,
        report: str = "",
        cluster: Cluster = "",
    ) -> None:
        self._paths, self._root = paths, root
        super().__init__(target, where, lang, note=note, report=report, cluster=cluster)

    def _input_parts(self) -> list[Any]:
        line, changed = self.ready_line, self._changed
        self.list_reader = ListReader(
            self.worker, self.context, self._paths, root=self._root, line=line, changed=changed
        )
        return [self.list_reader]

    def _prepare(self) -> None:
        self.list_reader.read()

    def _facts(self) -> tuple[Text, int] | None:
        batch = self.list_reader.batch
        return (facts_line(batch), batch.merchants_count) if batch is not None else None

    def _run(self) -> None:
        self.list_reader.read_if_changed()
        super()._run()

    def _batch(self) -> Batch:
        if self.list_reader.batch is None:
            raise UsageError(_('There is no list: pick one, or set the parameter paths = "…".'))
        return self.list_reader.batch


class LinksPanel(ListPanel):
    """Checks a list and issues its links."""

    kind, label = Kind.LINKS, _("Issue links")
    title = _("Upload links")
    out_control = LINKS_GO_TO

    def __init__(self, target: str, paths: str, where: str, out: str, note: str, lang: str) -> None:
        self._out = out
        super().__init__(target, paths, None, where, lang, note=note)

    def _input_parts(self) -> list[Any]:
        label = _("Links go to")
        self.out = self.worker.field(widgets.Text, label, "op-out", value=self._out or "links.csv")
        self.life = html_area("op-life")
        return [*super()._input_parts(), self.out]

    def _parts(self) -> list[Any]:
        parts = super()._parts()
        self.pace.observe(lambda _: self.worker.guarded(self._warn_of_life), "value")
        return parts

    def _pace_notes(self) -> list[Any]:
        return [self.life]

    def _changed(self) -> None:
        super()._changed()
        self._warn_of_life()

    def _warn_of_life(self) -> None:
        """Warn below the pace where the first links expire before the last is issued."""
        batch = self.list_reader.batch
        limits = self.context.limits(gentle=self.pace.value)
        short = short_life(batch, limits) if batch is not None else None
        self.life.value = message(short.of(self.lang), "bad") if short is not None else ""

    def _start_run(self, **options: Any) -> RunHandle:
        return api.start_links(self._batch(), out=Path(self.out.value), **options)

    def _start_headless(self, **options: Any) -> RunHandle:
        out = self.context.output_path(self._out, "links.csv")
        return api.start_links(self._batch(), out=out, **options)


STORED = frozenset({Outcome.UPLOADED, Outcome.UNCHANGED})


class StoredFiles(Fold):
    """Undo and delete, folded, each below its confirmation. `confirm` is a button for the header."""

    def __init__(self, worker: Worker, context: PanelContext, monitor: RunMonitor) -> None:
        self._worker, self._context, self._monitor = worker, context, monitor
        self.confirm = worker.button(_("Confirm the files"), "op-confirm-files", self._confirm)
        self.undoing = Confirmation(worker, context, "op-undo-confirm", self.enable, always=True)
        self.undo = worker.button(_("Undo the upload"), "op-undo", self._undo, button_style="danger")
        self.deleting = Confirmation(worker, context, "op-delete-confirm", self.enable, always=True)
        self.delete = worker.button(_("Delete its files"), "op-delete", self._delete, button_style="danger")
        self._look_line = html_area("op-undo-status")
        self._subject: str | None = None
        """The upload that is meant."""
        self._shown: object = ()
        """The run and the state that the parts were offered for."""
        parts: list[Any] = [
            self._look_line,
            widgets.VBox([self.undoing, self.undo]),
            widgets.VBox([self.deleting, self.delete]),
        ]
        super().__init__(worker, _("Undo or delete"), widgets.HTML(), parts, self._unfolded)
        self.offer()

    def offer(self) -> None:
        """Offer what can be done about the files of the run that is shown, an upload or its confirmation."""
        run = self._monitor.run
        shown = (run.id if run is not None else "", self._monitor.state)
        if shown == self._shown:
            return
        self._shown, self._subject = shown, self._upload()
        self.unfolded = False
        show(self, shown=self._subject is not None)
        show(self.confirm, shown=self._subject is not None)
        self._ask(None, None, 0)

    def _ask(self, undone: Text | None, deleted: Text | None, merchants: int) -> None:
        self.undoing.ask(undone, merchants)
        self.deleting.ask(deleted, merchants)
        show(self.undo, shown=undone is not None)
        show(self.delete, shown=deleted is not None)
        self.enable()

    def enable(self) -> None:
        """Enable the buttons that may be pressed."""
        busy = self._worker.busy or self._monitor.running or self._subject is None
        self.confirm.disabled = busy
        self.undo.disabled = busy or not self.undoing.confirmed
        self.delete.disabled = busy or not self.deleting.confirmed

    def _upload(self) -> str | None:
        run = self._monitor.run
        if run is None or self._monitor.state is not RunState.FINISHED:
            return None
        if run.record.kind is Kind.CONFIRM:
            return next(iter(run.record.settings.get("of", ())), None)
        if run.record.kind is Kind.UPLOAD and not STORED.isdisjoint(run.counts):
            return run.with_retries()[0]
        return None

    def _unfolded(self) -> None:
        if self.unfolded:
            self._worker.start(self._look, line=self._look_line)

    def _look(self) -> None:
        """Count what would be undone and deleted, and ask for the confirmations."""
        run, context = self._opened(), self._context
        only = context.merchants if context.selection else None
        scope = scope_of_stored(run, only)
        undone = api.undo_scope(run, merchants=only, settings=context.settings)
        self._look_line.value = ""
        self._ask(
            as_sentences((undone.text, _("{text}.", text=scope.text))),
            _("To be deleted: {text}", text=scope.text),
            scope.merchants,
        )

    def _opened(self) -> Run:
        if self._subject is None:
            raise UsageError(_("There is no upload to undo, delete or confirm."))
        return api.open_run(self._subject, settings=self._context.settings)

    def _options(self) -> dict[str, Any]:
        context = self._context
        return {
            "merchants": context.merchants if context.selection else None,
            "selection": context.selection,
            "settings": context.settings,
            "limits": context.limits(),
        }

    def _confirm(self) -> None:
        self._monitor.check_idle()
        self._worker.say(STARTING)
        handle = api.start_confirm(
            self._opened(), content=True, cluster=self._monitor.cluster(), **self._options()
        )
        self._monitor.follow(handle)

    def _undo(self) -> None:
        self._monitor.check_idle()
        self.undoing.check()
        self._monitor.follow(api.start_undo(self._opened(), **self._options()))

    def _delete(self) -> None:
        self._monitor.check_idle()
        self.deleting.check()
        self._monitor.follow(api.start_delete(self._opened(), **self._options()))


class UploadPanel(ListPanel):
    """Checks a list and its files and uploads them."""

    kind, label = Kind.UPLOAD, _("Upload")
    title = _("Uploads")

    def _parts(self) -> list[Any]:
        parts, actions = super()._parts(), self.monitor.actions
        self.stored = StoredFiles(self.worker, self.context, self.monitor)
        actions.children = (*actions.children, self.stored.confirm)
        return [*parts, self.stored]

    def _run_changed(self) -> None:
        self.stored.offer()
        super()._run_changed()

    def _enable(self) -> None:
        super()._enable()
        self.stored.enable()

    def _start_run(self, **options: Any) -> RunHandle:
        return api.start_upload(self._batch(), cluster=self.cluster(), **options)


@dataclass(frozen=True, slots=True)
class AuditView:
    """What changed since the previous audit, as a notebook shows it and as a DataFrame."""

    result: AuditResult
    changes: Diff
    lang: Lang

    def frame(self) -> Any:
        """Return the changed environments: change, merchant, appid, env, before, after, rows."""
        return self.changes.frame()

    def _repr_html_(self) -> str:
        return audit_html(self.result, self.lang)


class AuditPanel(RunForm):
    """Audits all merchants."""

    kind, label = Kind.AUDIT, _("Audit")
    title = _("Errcode audit")

    def changes(self) -> Any:
        """Return the changes since the previous audit: newly broken, recovered, still broken, silenced, unknown."""
        first = _("This is the first audit of this target: there is no earlier one to compare with.")

        def view(run: Run) -> Any:
            changes = run.changes()
            if changes is None:
                return Placeholder(first, self.lang)
            return AuditView(run.audit(), changes, self.lang)

        return self._of_run(view)

    def history(self) -> Any:
        """Return the errcodes by day and merchant over all runs of this target: a plot and a table."""
        if self.error is not None:
            return self.card()
        return api.history(settings=self.context.settings)

    def _parts(self) -> list[Any]:
        self.changed = html_area("op-changes")
        return [*super()._parts(), self.changed]

    def _ended(self, run: Run) -> None:
        super()._ended(run)
        self.changed.value = self._render_changes(run) if run.record.finished_at is not None else ""

    def _render_changes(self, run: Run) -> str:
        result = run.audit()
        if result.previous is None:
            return ""
        return heading(_("Since the previous audit").of(self.lang)) + audit_html(result, self.lang)

    def _terminal_output(self, run: Run) -> list[Any]:
        from tcb_ops.reports.formats.terminal import render_audit

        if run.record.finished_at is None:
            return super()._terminal_output(run)
        return list(render_audit(run.audit(), self.lang))

    def _page(self, run: Run) -> str:
        days = heading(_("Errcodes by day").of(self.lang))
        return f"{self._render_changes(run)}{super()._page(run)}{days}{self.history()._repr_html_()}"

    def _prepare(self) -> None:
        facts, _other = self._facts()
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

    def _start_run(self, **options: Any) -> RunHandle:
        return api.start_audit(self.context.merchants, cluster=self.cluster(), **options)


class RunPanel(Panel):
    """Shows any run: running here or elsewhere, interrupted, or finished."""

    title = _("Run report")
    none_yet = _("No run is shown. Start one with another notebook, then run the panel's cell again.")
    out_control: Text | None = None

    def __init__(self, target: str, run: str, lang: str, *, report: str = "", cluster: Cluster = "") -> None:
        self._wanted = run
        super().__init__(target, "", lang, report=report, cluster=cluster)

    def _parts(self) -> list[Any]:
        return [self.runs, self.monitor]

    def _open(self) -> None:
        self.runs.refresh()
        self.monitor.attach(self._wanted)
        self.runs.choose(self.run)

    def _ended(self, run: Run) -> None:  # noqa: ARG002  the list has each run's state
        self._list_runs()

    def _work(self) -> Run:
        if self.run is None:
            self._open()
        if self.run is None:
            raise UsageError(_("There is no run to export."))
        return self.run

    def _run_to_keep(self) -> Run | None:
        return None  # viewing a run does not replace another

    def _exit_code(self, run: Run) -> int:  # noqa: ARG002  `show` and `report` end well whatever the run's rows did
        return 0


class ReportPanel(RunPanel):
    """Shows a chosen run and exports it. On the simulator it makes one where there is none."""

    out_control = Panel.out_control

    def _open(self) -> None:
        if self.context.simulated and not self.runs.refresh():
            self.worker.say(_("Preparing a simulated run to show …"))
            with read_paths(PATHS, self.context.merchants, FILES) as batch:
                api.upload(batch, settings=self.context.settings, limits=self.context.limits())
        super()._open()
