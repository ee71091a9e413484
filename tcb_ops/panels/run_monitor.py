"""A run in a panel: header, progress, merchants, causes; cancel, resume, retry, export; and the list of earlier runs.

The run works on the library's private event loop; a plain thread shows what was committed. A blocked kernel, a closed tab
or a lost panel therefore do not affect the run, and a panel can be attached to it at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.i18n import Joined, Text, _, as_lines, verbatim
from tcb_ops.kinds import ANY_KIND, Kind, row_count
from tcb_ops.model import Outcome
from tcb_ops.panels.controls import (
    ActionButton,
    ExportButton,
    PanelContext,
    Worker,
    html_area,
    show,
)
from tcb_ops.panels.grid import RunGrid
from tcb_ops.panels.html import (
    STATES,
    RunState,
    describe_end,
    esc,
    render_header,
    render_mark,
    render_progress,
    run_state,
)
from tcb_ops.run import Run, RunHandle, find_handle
from tcb_ops.runs.progress import Progress, ProgressMeter
from tcb_ops.start import ResumeOptions

WATCH_EVERY = 0.2
"""Seconds between two updates from a run of this process."""
POLL_EVERY = 1.0
"""Seconds between two updates from a run of another process."""
READ_AGAIN = 2.0
"""Seconds until a ledger that could not be read is read again."""
LISTED = 50
"""Runs that can be chosen from, the newest first."""
STARTING = _("Starting …")
"""Shown until the run is planned: a ledger that another process has locked is waited for."""
PENDING = frozenset({Outcome.PENDING})
RETRYABLE = frozenset({Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED, Outcome.UNKNOWN})


def redraw_after(cost: float, merchants: int) -> float:
    """Return the seconds until the merchants are drawn again, from what it cost and their number.

    10 merchants are drawn 4 times a second, 300 about once. Where the ledger takes long to count (a million rows), drawing
    takes a tenth of the time at most.
    """
    return max(0.25 + merchants / 500, 10 * cost)


class RunMonitor(widgets.VBox):
    """A run, whichever process works on it. `run` is the run as it was last read from the ledger.

    `header` stays in view: the run, its result, its progress and `actions`, the buttons. The monitor itself is what
    stands below.
    """

    def __init__(
        self,
        worker: Worker,
        context: PanelContext,
        *,
        report: str = "",
        cluster: Callable[[], str | None],
        changed: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        """Show no run yet.

        `cluster` returns what the panel's next run works on. `changed` is called when a run begins or ends, `ended` when one
        ends, shown or not; from any thread.
        """
        self._worker, self._context, self._lang = worker, context, worker.lang
        self.cluster = cluster
        self._changed, self._ended = changed, ended
        self.run: Run | None = None
        self.state: RunState | None = None
        self.expired_links = 0
        """Links of the run that is shown that had expired by its end, where it ended here."""
        self._handle: RunHandle | None = None
        self._thread: threading.Thread | None = None
        self._watch = 0
        """The number of the newest watching thread: older ones stop."""
        self.head, self.bar = html_area("op-head"), html_area("op-progress")
        self.grid = RunGrid(worker)
        self.resume = ActionButton(
            worker, context, _("Resume"), "op-resume", self._resume, changed=self._changed
        )
        retry = _("Retry the rows that did not succeed")
        self.retry = ActionButton(worker, context, retry, "op-retry", self._retry, changed=self._changed)
        self.export = ExportButton(worker, report)
        self.stop = worker.button(_("Cancel"), "op-cancel", self.cancel, background=False, disabled=True)
        self.actions = widgets.HBox([self.stop, self.resume, self.retry, self.export]).add_class("op-actions")
        self.header = widgets.VBox([self.head, worker.line, self.bar, self.actions]).add_class("op-header")
        super().__init__([self.export.line, self.export.files, self.grid])
        self._show_none()

    @property
    def running(self) -> bool:
        """Whether the run is running in this process."""
        return self.state is RunState.HERE

    @property
    def at_rest(self) -> bool:
        """Whether a run is shown that no process works on."""
        return self.state in {RunState.UNFINISHED, RunState.FINISHED}

    def cancel(self) -> None:
        """End the run tidily; calls in flight have a moment."""
        if self._handle is not None:
            self._worker.say(_("Cancelling: waiting for calls in flight …"))
            self._handle.cancel()

    def follow(self, handle: RunHandle) -> None:
        """Show a run of this process until it ends."""
        self._handle, run = handle, handle.so_far()
        begun = _("Run {id} is running.", id=handle.id)
        if handle.resumed:
            text = _("Resuming run {id}: {done:,} of {rows} are done.")
            begun = text.format(id=handle.id, done=handle.done_before, rows=row_count(handle.record.rows))
        self._worker.say(begun)
        self._begin(run, RunState.HERE, partial(self._follow, handle, run))

    def attach(self, run_id: str) -> None:
        """Show a run: running here or elsewhere, interrupted, or finished. Raises RunNotFoundError."""
        settings = self._context.settings
        run = api.open_run(run_id, kind=ANY_KIND, settings=settings)
        here = find_handle(run.id)
        if here is not None:
            self.follow(here)
            return
        finished = run.record.finished_at is not None
        holder = None if finished else run.holder()
        self._handle = None
        self._watch += 1
        if holder is not None:
            self._worker.say(holder)
            self._begin(run, run_state(here=False, held=True, finished=finished), partial(self._poll, run))
        else:
            self._show_end(run)

    def settle(self, seconds: float = 600) -> None:
        """Wait until the run that is shown has ended and its end is shown."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def close_run(self) -> None:
        """Stop watching the run, which continues, and hold none of its data."""
        self._watch += 1
        self.run, self.state, self._handle = None, None, None
        self.grid.forget()

    # --- threads ------------------------------------------------------------------------------------------------

    def _begin(self, run: Run, state: RunState, watching: Callable[[int], None]) -> None:
        self._watch += 1
        number, self.run, self.state = self._watch, run, state

        def guarded() -> None:
            try:
                watching(number)
            except Exception as error:  # noqa: BLE001  an exception of a thread is lost
                if number == self._watch:
                    self._show_none()
                self._worker.report(error)
            self._worker.guarded(self._changed)

        self._draw_header(run, state)
        self._offer()
        self._thread = threading.Thread(target=guarded, name="tcb-ops-watch", daemon=True)
        self._thread.start()

    def _follow(self, handle: RunHandle, run: Run, number: int) -> None:
        """Show what was committed until the run ends, then end it."""
        due = 0.0
        if number == self._watch:  # at once: a cluster takes a while to start
            due = time.monotonic() + self._try_grid(run)
            with suppress(TcbOpsError):  # which the grid has reported
                self._draw_bar(run, _progress(run))
        for now in handle.watch():
            if number == self._watch:
                self._draw_bar(run, now)
                if time.monotonic() >= due:
                    due = time.monotonic() + self._try_grid(run)
            handle.ended_within(WATCH_EVERY)
        error: TcbOpsError | None = None
        try:
            run = handle.wait()
        except TcbOpsError as early:
            run, error = handle.so_far(), early
        if number == self._watch:
            self._handle = None
            self._show_end(run, error, handle.expired_links, handle.warning)
        else:
            self._ended()

    def _poll(self, run: Run, number: int) -> None:
        """Follow the ledger for as long as another process works on the run."""
        settings, due, pause = self._context.settings, 0.0, threading.Event()
        meter = _meter(run)
        while number == self._watch:
            self._draw_bar(run, meter.at(time.monotonic(), run.outcomes))
            if time.monotonic() >= due:
                due = time.monotonic() + self._draw_grid(run)
            pause.wait(POLL_EVERY)
            if run.holder() is None and number == self._watch:
                self._show_end(api.open_run(run.id, settings=settings))
                return

    # --- what is shown ------------------------------------------------------------------------------------------

    def _show_end(
        self, run: Run, error: TcbOpsError | None = None, expired_links: int = 0, warning: Text | None = None
    ) -> None:
        self.run, self.expired_links = run, expired_links
        self.state = run_state(here=False, held=False, finished=run.record.finished_at is not None)
        self._draw_bar(run, _progress(run))
        self._draw_grid(run)
        self._draw_header(run, self.state)
        text, tone = describe_end(run, error, expired_links)
        self._worker.say(text if warning is None else as_lines((text, warning)), tone)
        self._ended()
        self._offer()

    def _show_none(self) -> None:
        """Show the target, and no run: there is none, or it cannot be read."""
        self.state, self._handle = None, None
        self.head.value = (
            f'<div class="op-title">{render_mark(self._lang, live=self._context.live)}'
            f'<span class="op-quiet">{esc(self._context.describe_target().of(self._lang))}</span></div>'
        )
        self.bar.value = ""
        show(self, shown=False)
        for action in (self.stop, self.resume, self.retry, self.export):
            show(action, shown=False)

    def _draw_header(self, run: Run, state: RunState) -> None:
        show(self, shown=True)
        live = self._context.live
        self.head.value = render_header(run, state, self._lang, live=live)

    def _draw_bar(self, run: Run, now: Progress) -> None:
        running = not self.at_rest
        self.bar.value = render_progress(now, run.record.kind, self._lang, running=running)

    def _draw_grid(self, run: Run) -> float:
        """Draw the grid, and return the seconds until it may be drawn again."""
        began = time.monotonic()
        merchants = self.grid.show(run, running=not self.at_rest)
        return redraw_after(time.monotonic() - began, merchants)

    def _try_grid(self, run: Run) -> float:
        """Draw the grid of a run that is running here; one that cannot be read now is still watched, to its end."""
        try:
            return self._draw_grid(run)
        except TcbOpsError as error:
            self._worker.report(error)
            return READ_AGAIN

    # --- what can be done ---------------------------------------------------------------------------------------

    def _offer(self) -> None:
        """Offer the rest of an unfinished run, or the rows of a finished one that did not succeed."""
        run, state = self.run, self.state
        # A run without a pending row lacks only its end. What is compared with the next run is not retried: that has all rows.
        self.resume.offer(run if state is RunState.UNFINISHED else None, PENDING, even_without=True)
        compared = run is not None and run.record.has_findings
        self.retry.offer(run if state is RunState.FINISHED and not compared else None, RETRYABLE)
        self.export.offer(run if self.at_rest else None)
        show(self.stop, shown=self.running)
        self._changed()

    def enable(self) -> None:
        """Enable the buttons that may be pressed."""
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

    def start(self, begin: Callable[[ResumeOptions], RunHandle], action: ActionButton | None = None) -> None:
        """Start a run and show it, unless one is running here or its confirmation is missing."""
        self.check_idle()
        if action is not None:
            action.check()
        self._worker.say(STARTING)
        context = self._context
        self.follow(begin({"settings": context.settings, "limits": context.limits()}))

    def _cluster_of(self, run: Run) -> str | None:
        """Return the cluster that works on the rest of a run; None for a kind that only this process can work on."""
        return self.cluster() if run.record.kind.clustered else None

    def _resume(self) -> None:
        if (run := self.run) is not None:
            cluster = self._cluster_of(run)
            self.start(lambda options: api.start_resume(run.id, cluster=cluster, **options), self.resume)

    def _retry(self) -> None:
        if (run := self.run) is not None:
            context, cluster = self._context, self._cluster_of(run)
            self.start(
                lambda options: api.start_retry(
                    run.id, context.merchants, selection=context.selection, cluster=cluster, **options
                ),
                self.retry,
            )


def _meter(run: Run) -> ProgressMeter:
    return ProgressMeter(run.id, run.record.rows, run.outcomes)


def _progress(run: Run) -> Progress:
    return _meter(run).at(time.monotonic(), run.outcomes)


class RunBrowser(widgets.HBox):
    """The newest runs of the target, of one kind or of all; `chosen` is called with the id of the chosen one."""

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
        """Read the runs again; return them, the newest first."""
        settings = self._context.settings
        with self._one_at_a_time:  # otherwise an older state of the runs could replace a newer one
            runs = [
                run
                for run in api.runs(settings=settings, damaged=[])
                if run.record.target == settings.run_target and self._kind in {None, run.record.kind}
            ][:LISTED]
            chosen, ids = self.choice.value, [run.id for run in runs]
            self.choice.options = [(self._label(run), run.id) for run in runs]
            if runs:
                self.choice.value = chosen if chosen in ids else ids[0]
            self.button.disabled = not runs
        return runs

    def choose(self, run: Run | None) -> None:
        """Choose a run, if it is listed."""
        if run is not None and run.id in {run_id for _, run_id in self.choice.options}:
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
        kind = record.kind.label
        return _(
            "{started} · {kind} · {state} · {rows} · {list_name} · {id}",
            started=started,
            kind=kind,
            state=state if run.mark is None else Joined((state, run.mark), verbatim(", ")),
            rows=record.kind.unit_count(record.rows),
            list_name=record.list_name,
            id=record.id,
        ).of(self._lang)
