"""What is done about an upload's files: confirm that they are there, undo the upload, delete the files."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text, _, as_sentences
from tcb_ops.model import Kind, Outcome
from tcb_ops.panels.action_button import Confirmation
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.run_monitor import STARTING, RunMonitor
from tcb_ops.panels.run_summary import RunState
from tcb_ops.panels.worker import Fold, Worker, html_area, show
from tcb_ops.preflight import scope_of_stored
from tcb_ops.run import Run

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
        self._monitor.follow(
            api.start_confirm(
                self._opened(), content=True, cluster=self._monitor.cluster(), **self._options()
            )
        )

    def _undo(self) -> None:
        self._monitor.check_idle()
        self.undoing.check()
        self._monitor.follow(api.start_undo(self._opened(), **self._options()))

    def _delete(self) -> None:
        self._monitor.check_idle()
        self.deleting.check()
        self._monitor.follow(api.start_delete(self._opened(), **self._options()))
