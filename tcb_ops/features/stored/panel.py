"""The part of a panel that confirms, undoes and deletes an upload's files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import UsageError
from tcb_ops.features.stored import api as stored
from tcb_ops.i18n import _, as_lines
from tcb_ops.model import Outcome
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.controls import ActionButton, Menu, Worker, html_area, show
from tcb_ops.panels.run_monitor import RunMonitor
from tcb_ops.preflight import scope_of_rows
from tcb_ops.run import Run, RunHandle

_CHOICES = {
    "undo": _(
        "Undo the upload: delete the files that it added; put back those that it replaced, if a backup has them"
    ),
    "delete": _("Delete the upload's files: remove all of them, and put nothing back"),
}


class StoredFiles(Menu):
    """Undo and delete in one box, with a choice between them. `confirm` is a button for the header."""

    def __init__(self, worker: Worker, context: PanelContext, monitor: RunMonitor) -> None:
        self._context, self._monitor = context, monitor
        self._merchants = context.merchants if context.merchants.where else None
        self.confirm = worker.button(_("Confirm the files"), "op-confirm-files", self._confirm)
        label = _("Undo or delete")
        self.action = ActionButton(worker, context, label, "op-undo", self._act, always=True, style="danger")
        self._look_line = html_area("op-undo-status")
        choices = [(text.of(worker.lang), name) for name, text in _CHOICES.items()]
        named = {"description": label.of(worker.lang), "style": {"description_width": "0"}}
        self.choice = widgets.RadioButtons(options=choices, layout={"width": "auto"}, **named)
        self.choice.observe(lambda _: self.prepare(), "value")
        self._subject: str | None = None
        """The upload that is meant."""
        super().__init__(worker, label, "op-undo-menu", [self._look_line, self.choice, self.action])
        self.buttons.insert(0, self.confirm)
        self.show_run(None)

    def show_run(self, run: Run | None) -> None:
        """Offer what can be done about the files of an upload or its confirmation."""
        self._subject = _upload_of(run) if run is not None else None
        self.offer(shown=self._subject is not None and not self._monitor.undone)
        self.opened, self.choice.value = False, "undo"
        show(self.confirm, shown=self._subject is not None)
        self.action.ask(None, 0)

    def enable(self, *, busy: bool) -> None:
        """Enable the buttons that may be pressed."""
        self.confirm.disabled = busy
        self.action.enable(busy=busy)

    def prepare(self) -> None:
        """Count what would be undone or deleted, if the box is open."""
        if self.opened:
            self._worker.start(self._look, waits=True, line=self._look_line)

    def _look(self) -> None:
        run, only = self._opened(), self._merchants
        final = run.final()
        stored_by = final if only is None else final.of_merchants(only)
        scope = scope_of_rows(stored_by.tallies(), frozenset({Outcome.UPLOADED}))
        facts, label = _("To be deleted: {text}", text=scope.text), _("Delete the files of {run}", run=run.id)
        if self.choice.value == "undo":
            undone = stored.undo_scope(run, merchants=only, settings=self._context.settings)
            scope = undone.reach
            parts, label = (scope.text, undone.text, undone.warning), _("Undo upload {run}", run=run.id)
            facts = as_lines(filter(None, parts))
            if not scope.rows:
                self.action.ask(None, 0)
                raise UsageError(undone.text)
        self._look_line.value = ""
        self.action.ask(facts, scope.merchants, label)

    def _opened(self) -> Run:
        return api.open_run(self._subject or "", settings=self._context.settings)

    def _confirm(self) -> None:
        self._start(partial(stored.start_confirm, content=True, cluster=self._monitor.cluster))

    def _act(self) -> None:
        self._start(stored.start_undo if self.choice.value == "undo" else stored.start_delete, self.action)

    def _start(self, begin: Callable[..., RunHandle], action: ActionButton | None = None) -> None:
        begin = partial(begin, self._opened(), merchants=self._merchants)
        self._monitor.start(lambda options: begin(**options), action)


def _upload_of(run: Run) -> str | None:
    if run.record.kind.findings_of_files:
        return next(iter(run.record.settings.of), None)
    # Of a retry without a success, too.
    original, succeeded, _rows = run.with_retries() or (run.id, any(o.succeeded for o in run.outcomes), 0)
    return original if run.record.kind.sends_files and succeeded else None
