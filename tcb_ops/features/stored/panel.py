"""The part of a panel that confirms, undoes and deletes an upload's files."""

from __future__ import annotations

from functools import partial

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import UsageError
from tcb_ops.features.stored import api as stored
from tcb_ops.i18n import Text, _, as_sentences
from tcb_ops.model import STORED_OUTCOMES
from tcb_ops.panels.controls import ActionButton, Fold, PanelContext, Worker, html_area, show
from tcb_ops.panels.html import RunState
from tcb_ops.panels.run_monitor import RunMonitor
from tcb_ops.preflight import scope_of_stored
from tcb_ops.run import Run


class StoredFiles(Fold):
    """Undo and delete, folded, each below its confirmation. `confirm` is a button for the header."""

    def __init__(self, worker: Worker, context: PanelContext, monitor: RunMonitor) -> None:
        self._worker, self._context, self._monitor = worker, context, monitor
        self._merchants = context.merchants if context.selection else None
        self.confirm = worker.button(_("Confirm the files"), "op-confirm-files", self._confirm)
        action = partial(ActionButton, worker, context, changed=self.enable, always=True, style="danger")
        self.undo = action(_("Undo the upload"), "op-undo", self._undo)
        self.delete = action(_("Delete its files"), "op-delete", self._delete)
        self._look_line = html_area("op-undo-status")
        self._subject: str | None = None
        """The upload that is meant."""
        self._shown: object = ()
        """The run and the state that the parts were offered for."""
        parts = [self._look_line, self.undo, self.delete]
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
        self.undo.ask(undone, merchants)
        self.delete.ask(deleted, merchants)
        self.enable()

    def enable(self) -> None:
        """Enable the buttons that may be pressed."""
        busy = self._worker.busy or self._monitor.running or self._subject is None
        self.confirm.disabled = busy
        self.undo.enable(busy=busy)
        self.delete.enable(busy=busy)

    def _upload(self) -> str | None:
        run = self._monitor.run
        if run is None or self._monitor.state is not RunState.FINISHED:
            return None
        if run.record.kind.looks_at_store:
            return next(iter(run.record.settings.get("of", ())), None)
        if run.record.kind.sends_files and not STORED_OUTCOMES.isdisjoint(run.counts):
            return run.with_retries()[0]
        return None

    def _unfolded(self) -> None:
        if self.unfolded:
            self._worker.start(self._look, line=self._look_line)

    def _look(self) -> None:
        """Count what would be undone and deleted, and ask for the confirmations."""
        run = self._opened()
        scope = scope_of_stored(run, self._merchants)
        undone = stored.undo_scope(run, merchants=self._merchants, settings=self._context.settings)
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

    def _confirm(self) -> None:
        run, cluster = self._opened(), self._monitor.cluster()
        merchants, selection = self._merchants, self._context.selection
        self._monitor.start(
            lambda options: stored.start_confirm(
                run, content=True, merchants=merchants, selection=selection, cluster=cluster, **options
            )
        )

    def _undo(self) -> None:
        run, merchants, selection = self._opened(), self._merchants, self._context.selection
        self._monitor.start(
            lambda options: stored.start_undo(run, merchants=merchants, selection=selection, **options),
            self.undo,
        )

    def _delete(self) -> None:
        run, merchants, selection = self._opened(), self._merchants, self._context.selection
        self._monitor.start(
            lambda options: stored.start_delete(run, merchants=merchants, selection=selection, **options),
            self.delete,
        )
