"""A run in a panel: its progress, its merchants, what went wrong; cancel, resume, retry, export; and the earlier runs.

The run's work is on the library's private event loop; a plain thread carries what was committed onto the page. So a
blocked kernel, a closed tab or a lost panel do not touch the run, and a panel can be attached to it at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.i18n import _, ngettext
from tcb_ops.model import Kind, Outcome
from tcb_ops.panels.action_button import ActionButton, ExportButton
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.errcodes import ErrcodeTable
from tcb_ops.panels.run_summary import (
    KINDS,
    STATES,
    RunState,
    describe_end,
    merchant_lines,
    render_grid,
    render_header,
    render_progress,
    run_state,
)
from tcb_ops.panels.worker import Worker, html_area, show
from tcb_ops.run import Run, RunHandle, find_handle
from tcb_ops.runs.progress import Progress, RateEstimator

WATCH_EVERY = 0.2
"""Seconds between two updates from a run of this process."""
POLL_EVERY = 1.0
"""Seconds between two updates from a run of another process."""
LISTED = 50
"""Runs that can be chosen from, the newest first."""
PENDING = frozenset({Outcome.PENDING})
RETRYABLE = frozenset({Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED})


def redraw_after(cost: float, merchants: int) -> float:
    """Return the seconds until the grid is drawn again, from what drawing it cost and how long it is.

    A grid of 10 merchants is drawn 4 times a second, one of 300 about once; where the ledger takes long to count
    (a million rows), drawing may take a tenth of the time.
    """
    return max(0.25 + merchants / 500, 10 * cost)


class RunMonitor(widgets.VBox):
    """One run, whoever works on it. `run` is the run as the ledger had it when it was last read.

    `stop` is the button that cancels it; the panel puts it where its other buttons are.
    """

    def __init__(
        self,
        worker: Worker,
        context: PanelContext,
        *,
        report: str = "",
        changed: Callable[[], None],
        ended: Callable[[Run], None],
        ended_unseen: Callable[[], None],
    ) -> None:
        """Show nothing yet.

        `changed` is called when a run begins or ends, `ended` with one that nobody works on, `ended_unseen` when one ends
        while another is shown; from whatever thread.
        """
        self._worker, self._context, self._lang = worker, context, worker.lang
        self._changed, self._ended, self._ended_unseen = changed, ended, ended_unseen
        self.run: Run | None = None
        self.state: RunState | None = None
        self.links_run_out = 0
        """Of the run that is shown, where it ended here: how many of its links had run out by then."""
        self._handle: RunHandle | None = None
        self._thread: threading.Thread | None = None
        self._watch = 0
        """Counts what was watched: a thread that watches something older stops."""
        self.head, self.bar = html_area("op-head"), html_area("op-progress")
        self.grid = html_area("op-grid", "24rem")
        self.errcodes = ErrcodeTable(worker)
        self.resume = ActionButton(
            worker, context, _("Resume"), "op-resume", self._resume, changed=self.enable
        )
        retry = _("Retry the rows that did not succeed")
        self.retry = ActionButton(worker, context, retry, "op-retry", self._retry, changed=self.enable)
        self.export = ExportButton(worker, report)
        self.stop = worker.button(
            _("Cancel"), "op-cancel", self.cancel, background=False, layout={}, disabled=True
        )
        super().__init__(
            [self.head, self.bar, self.resume, self.grid, self.errcodes, self.retry, self.export]
        )
        show(self, shown=False)

    @property
    def running(self) -> bool:
        """Whether the run is running in this process."""
        return self.state is RunState.HERE

    @property
    def at_rest(self) -> bool:
        """Whether a run is shown that nobody works on."""
        return self.state in {RunState.UNFINISHED, RunState.FINISHED}

    def cancel(self) -> None:
        """End the run tidily; calls in flight have a moment."""
        if self._handle is not None:
            self._worker.say(_("Cancelling: waiting for calls in flight …"))
            self._handle.cancel()

    def follow(self, handle: RunHandle) -> None:
        """Show a run of this process until it ends."""
        self._handle, self.run = handle, handle.so_far()
        self._worker.say(_("Run {id} is running.", id=handle.id))
        self._begin(RunState.HERE, self._follow)

    def attach(self, wanted: str) -> None:
        """Show a run as it is: running here or elsewhere, cut off, or finished. Raises RunNotFoundError."""
        settings = self._context.settings
        run = api.open_run(wanted, settings=settings)
        here = find_handle(run.id)
        if here is not None:
            self.follow(here)
            return
        finished = run.record.finished_at is not None
        holder = None if finished else api.run_holder(run.id, settings=settings)
        self.run, self._handle = run, None
        self._watch += 1
        if holder is not None:
            self._worker.say(holder)
            self._begin(run_state(here=False, held=True, finished=finished), self._poll)
        else:
            self._show_end(None)

    def settle(self, seconds: float = 600) -> None:
        """Wait until the run that is shown has ended, and is shown so."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    # --- threads ------------------------------------------------------------------------------------------------

    def _begin(self, state: RunState, watching: Callable[[int], None]) -> None:
        self._watch += 1
        number, self.state = self._watch, state

        def guarded() -> None:
            try:
                watching(number)
            except Exception as error:  # noqa: BLE001  a thread's exception is seen by nobody
                if number == self._watch:
                    self.state, self._handle = None, None
                self._worker.report(error)
            self._worker.guarded(self.enable)
            self._worker.guarded(self._changed)

        self._draw_header()
        self.errcodes.show(None)
        self._offer()
        self._changed()
        self._thread = threading.Thread(target=guarded, name="tcb-ops-watch", daemon=True)
        self._thread.start()

    def _follow(self, number: int) -> None:
        """Carry what was committed onto the page until the run ends; end it, whoever watches."""
        handle = self._handle
        if handle is None:
            return
        due = 0.0
        for now in handle.watch():
            if number == self._watch:
                self.bar.value = render_progress(now, self._lang, running=True)
                if time.monotonic() >= due:
                    due = time.monotonic() + self._draw_grid(running=True)
            handle.ended_within(WATCH_EVERY)
        error: TcbOpsError | None = None
        try:
            run = handle.wait()
        except TcbOpsError as early:
            run, error = handle.so_far(), early
        if number == self._watch:
            self.run, self._handle = run, None
            self._show_end(error, handle.links_run_out)
        else:
            self._ended_unseen()

    def _poll(self, number: int) -> None:
        """Follow the ledger for as long as another process works on the run."""
        run, settings = self.run, self._context.settings
        if run is None:
            return
        pulse, due, pause = RateEstimator(run.record.rows, _counted(run)[1]), 0.0, threading.Event()
        while number == self._watch:
            counts, done = _counted(run)
            now = Progress(run.id, run.record.rows, counts, *pulse.update(time.monotonic(), done))
            self.bar.value = render_progress(now, self._lang, running=True)
            if time.monotonic() >= due:
                due = time.monotonic() + self._draw_grid(running=True)
            pause.wait(POLL_EVERY)
            if api.run_holder(run.id, settings=settings) is None and number == self._watch:
                self.run = api.open_run(run.id, settings=settings)
                self._show_end(None)
                return

    # --- what is shown ------------------------------------------------------------------------------------------

    def _show_end(self, error: TcbOpsError | None, links_run_out: int = 0) -> None:
        """Show a run that nobody works on: finished or cut off."""
        run = self.run
        if run is None:
            return
        self.state = run_state(here=False, held=False, finished=run.record.finished_at is not None)
        self.links_run_out = links_run_out
        now = Progress(run.id, run.record.rows, _counted(run)[0], 0.0, None)
        self.bar.value = render_progress(now, self._lang, running=False)
        self._draw_grid(running=False)
        self._draw_header()
        self.errcodes.show(run)
        text, tone = describe_end(run, error, links_run_out)
        self._worker.say(text, tone, error.options if error is not None else ())
        self._ended(run)
        self._offer()
        self._changed()

    def _draw_header(self) -> None:
        show(self, shown=True)
        if self.run is not None and self.state is not None:
            simulated = self._context.settings.on_loopback
            self.head.value = render_header(self.run, self.state, self._lang, simulated=simulated)

    def _draw_grid(self, *, running: bool) -> float:
        """Draw the grid, and return the seconds until it may be drawn again."""
        run, began = self.run, time.monotonic()
        if run is None:
            return 0.0
        lines = merchant_lines(run.tallies())
        self.grid.value = render_grid(lines, self._lang, running=running)
        return redraw_after(time.monotonic() - began, len(lines))

    # --- what can be done ---------------------------------------------------------------------------------------

    def _offer(self) -> None:
        """Offer what can be done: the rest of an unfinished run, the rows of a finished one that did not succeed."""
        run, state = self.run, self.state
        # A run without a pending row lacks only its end. An audit is not retried: the next one asks all merchants.
        self.resume.offer(run if state is RunState.UNFINISHED else None, PENDING, even_without=True)
        audited = run is not None and run.record.kind == Kind.AUDIT
        self.retry.offer(run if state is RunState.FINISHED and not audited else None, RETRYABLE)
        self.export.offer(run if self.at_rest else None)
        self.enable()

    def enable(self) -> None:
        """Enable the buttons that may be pressed now."""
        busy = self._worker.busy or self.running
        self.resume.enable(busy=busy)
        self.retry.enable(busy=busy)
        self.export.button.disabled = busy
        self.stop.disabled = not self.running

    def check_idle(self) -> None:
        """Raise UsageError while a run is running here: one at a time."""
        if self.running and self.run is not None:
            raise UsageError(
                _("Run {id} is still running here: cancel it, or wait for its end.", id=self.run.id)
            )

    def _resume(self) -> None:
        self.check_idle()
        self.resume.confirmation.check()
        context = self._context
        if self.run is not None:
            self.follow(api.start_resume(self.run.id, settings=context.settings, limits=context.limits()))

    def _retry(self) -> None:
        self.check_idle()
        self.retry.confirmation.check()
        context = self._context
        if self.run is not None:
            self.follow(
                api.start_retry(
                    self.run.id,
                    context.merchants,
                    settings=context.settings,
                    limits=context.limits(),
                    selection=context.selection,
                )
            )


def _counted(run: Run) -> tuple[dict[Outcome, int], int]:
    """Return (rows by outcome without the pending ones, their sum) as the ledger has them now."""
    counts = run.outcomes
    counts.pop(Outcome.PENDING, None)
    return counts, sum(counts.values())


class RunBrowser(widgets.HBox):
    """The newest runs of the target, of one kind or of all; `chosen` is called with the id of the one that is chosen."""

    def __init__(
        self, worker: Worker, context: PanelContext, kind: Kind | None, chosen: Callable[[str], None]
    ) -> None:
        self._context, self._lang, self._kind = context, worker.lang, kind
        self._one_at_a_time = threading.Lock()
        self.choice = worker.field(widgets.Dropdown, _("Earlier runs"), "op-runs")
        self.button = worker.button(
            _("Show"), "op-attach", lambda: chosen(self._chosen()), layout={"width": "auto"}
        )
        super().__init__([self.choice, self.button])

    def refresh(self) -> list[Run]:
        """List the runs again; return them, the newest first."""
        settings = self._context.settings
        with self._one_at_a_time:  # otherwise data read before the end of the run would be shown after it
            found = [
                run
                for run in api.all_runs(settings=settings, damaged=[])
                if run.record.target == settings.run_target and self._kind in {None, Kind(run.record.kind)}
            ][:LISTED]
            kept, ids = self.choice.value, [run.id for run in found]
            self.choice.options = [(self._label(run), run.id) for run in found]
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
            raise UsageError(_("There are no runs of this target yet."))
        return str(self.choice.value)

    def _label(self, run: Run) -> str:
        record, here = run.record, find_handle(run.id) is not None
        zone = self._context.settings.zone
        started = datetime.fromtimestamp(record.created_at, zone).isoformat(" ", "minutes")[:16]
        state = STATES[run_state(here=here, held=False, finished=record.finished_at is not None)]
        kind = KINDS[Kind(record.kind)]
        return _(
            "{started} · {kind} · {state} · {rows} · {list_name} · {id}",
            started=started,
            kind=kind,
            state=state,
            rows=ngettext("{n:,} row", "{n:,} rows", record.rows),
            list_name=record.list_name,
            id=record.id,
        ).of(self._lang)
