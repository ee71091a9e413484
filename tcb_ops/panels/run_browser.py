"""The runs of the ledger in a panel: choose one and look at it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text, plural
from tcb_ops.model import Kind
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.run_summary import KINDS, STATES, run_state
from tcb_ops.panels.worker import Worker
from tcb_ops.run import Run, find_handle

LISTED = 50
"""RunBrowser that can be chosen from, the newest first."""


class RunBrowser(widgets.HBox):
    """The newest runs of the target, of one kind or of all; `show` is called with the id of the one that is chosen."""

    def __init__(
        self, worker: Worker, context: PanelContext, kind: Kind | None, show: Callable[[str], None]
    ) -> None:
        self._context, self._lang, self._kind = context, worker.lang, kind
        self._one_at_a_time = threading.Lock()
        self.choice = widgets.Dropdown(
            description=Text("Earlier runs", "以往任务").of(self._lang),
            layout={"width": "44rem"},
            style={"description_width": "7rem"},
        )
        self.choice.add_class("op-runs")
        self.button = widgets.Button(
            description=Text("Show", "查看").of(self._lang), layout={"width": "auto"}
        )
        self.button.add_class("op-attach")
        self.button.on_click(lambda _: worker.start(lambda: show(self._chosen())))
        super().__init__([self.choice, self.button])

    def refresh(self) -> list[Run]:
        """List the runs anew; gives them, the newest first."""
        with self._one_at_a_time:  # or what was read before a run's end is shown after it
            return self._refresh()

    def _refresh(self) -> list[Run]:
        settings = self._context.settings
        found = [
            run
            for run in api.all_runs(settings=settings)
            if run.record.target == settings.run_target and self._kind in {None, Kind(run.record.kind)}
        ][:LISTED]
        kept = self.choice.value
        ids = [run.id for run in found]
        self.choice.options = [(self._named(run), run.id) for run in found]
        if found:
            self.choice.value = kept if kept in ids else ids[0]
        self.button.disabled = not found
        return found

    def choose(self, run: Run | None) -> None:
        """Let the choice be a run, if it is listed."""
        if run is not None and run.id in {one for _, one in self.choice.options}:
            self.choice.value = run.id

    def _chosen(self) -> str:
        if self.choice.value is None:
            raise UsageError(Text("There are no runs of this target yet.", "该目标还没有任务。"))
        return str(self.choice.value)

    def _named(self, run: Run) -> str:
        record = run.record
        begun = datetime.fromtimestamp(record.created_at, self._context.settings.zone).isoformat(
            " ", "minutes"
        )
        state = STATES[
            run_state(
                here=find_handle(run.id) is not None, held=False, finished=record.finished_at is not None
            )
        ]
        parts = Text(
            f"{begun[:16]} · {KINDS[Kind(record.kind)].en} · {state.en} · {plural(record.rows, 'row')} · {record.list_name} · {record.id}",
            f"{begun[:16]} · {KINDS[Kind(record.kind)].zh} · {state.zh} · {record.rows:,} 行 · {record.list_name} · {record.id}",
        )
        return parts.of(self._lang)
