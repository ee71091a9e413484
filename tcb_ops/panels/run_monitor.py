"""A run in a panel: how far it is, how every merchant stands, what went wrong; cancel, go on, retry, export.

The run's work is on the library's private event loop; a plain thread carries what was committed onto the page. So a
blocked kernel, a closed tab or a lost panel do not touch the run, and a panel can be attached to it at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.i18n import Text
from tcb_ops.model import Kind, Outcome
from tcb_ops.panels.action_button import ActionButton
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.errcodes import ErrcodeTable
from tcb_ops.panels.export import Export
from tcb_ops.panels.grid import merchant_lines, render_grid
from tcb_ops.panels.run_summary import RunState, ending, render_header, render_progress, run_state
from tcb_ops.panels.worker import Worker
from tcb_ops.run import Run, RunHandle, find_handle
from tcb_ops.runs.progress import Progress, Pulse

LOOK_EVERY = 0.2
"""Seconds between two looks at a run that goes on here."""
POLL_EVERY = 1.0
"""Seconds between two looks at a run that another process works on."""
PENDING = frozenset({Outcome.PENDING})
RETRYABLE = frozenset({Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED})


def redraw_after(cost: float, merchants: int) -> float:
    """Seconds until the grid is drawn again, from what drawing it cost and how long it is.

    A grid of 10 merchants is drawn 4 times a second, one of 300 about once; where the ledger takes long to count
    (a million rows), drawing may take a tenth of the time.
    """
    return max(0.25 + merchants / 500, 10 * cost)


class RunMonitor(widgets.VBox):
    """One run, whoever works on it. `run` is the run as the ledger had it when it was last looked at.

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
        """Of the run that is shown, where it ended here: how many of its links were too old by then."""
        self._working: RunHandle | None = None
        self._thread: threading.Thread | None = None
        self._watch = 0
        """Counts what was monitor: a thread that watches something older stops."""
        self.head, self.bar = _html("op-head"), _html("op-progress")
        self.grid = widgets.HTML(layout={"max_height": "24rem", "overflow": "auto"}, tabbable=True)
        self.grid.add_class("op-grid").add_class("op-scroll")
        self.errcodes = ErrcodeTable(worker)
        self.resume = ActionButton(
            worker, context, Text("Go on", "继续"), "op-resume", self._go_on, armed=self.arm
        )
        self.retry = ActionButton(
            worker,
            context,
            Text("Retry the rows that are not good", "重试未成功的行"),
            "op-retry",
            self._retry,
            armed=self.arm,
        )
        self.export = Export(worker, report)
        self.stop = widgets.Button(description=Text("Cancel", "取消").of(self._lang), disabled=True)
        self.stop.add_class("op-cancel")
        self.stop.on_click(lambda _: worker.guarded(self.cancel))
        super().__init__(
            [
                self.head,
                self.bar,
                self.resume,
                self.grid,
                self.errcodes,
                self.retry,
                self.export,
            ]
        )
        self.layout.display = "none"

    @property
    def going(self) -> bool:
        """Whether the run goes on in this process."""
        return self.state is RunState.HERE

    @property
    def at_rest(self) -> bool:
        """Whether a run is shown that nobody works on."""
        return self.state in {RunState.UNFINISHED, RunState.FINISHED}

    def cancel(self) -> None:
        """End the run tidily; what is in flight has a moment."""
        if self._working is not None:
            self._worker.say(
                Text("Cancelling: calls in flight have a moment …", "正在取消：等待进行中的调用 ……")
            )
            self._working.cancel()

    def follow(self, working: RunHandle) -> None:
        """Show a run that goes on in this process until it ends."""
        self._working, self.run = working, working.so_far()
        self._worker.say(Text(f"Run {working.id} is going on.", f"任务 {working.id} 正在运行。"))
        self._begin(RunState.HERE, self._follow)

    def attach(self, wanted: str) -> None:
        """Show a run as it is: going on here, worked on elsewhere, cut off, or finished. Raises RunNotFoundError."""
        settings = self._context.settings
        run = api.open_run(wanted, settings=settings)
        here = find_handle(run.id)
        if here is not None:
            self.follow(here)
            return
        finished = run.record.finished_at is not None
        holder = None if finished else api.run_holder(run.id, settings=settings)
        state = run_state(here=False, held=holder is not None, finished=finished)
        self.run, self._working = run, None
        self._watch += 1
        if holder is not None:
            self._worker.say(holder)
            self._begin(state, self._poll)
        else:
            self._settled(None)

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
                    self.state, self._working = None, None
                self._worker.trouble(error)
            self._worker.guarded(self.arm)
            self._worker.guarded(self._changed)

        self._draw_head()
        self.errcodes.show(None)
        self._offer()
        self._changed()
        self._thread = threading.Thread(target=guarded, name="tcb-ops-watch", daemon=True)
        self._thread.start()

    def _follow(self, number: int) -> None:
        """Carry what was committed onto the page until the run ends; end it, whoever watches."""
        working = self._working
        if working is None:
            return
        due = 0.0
        for look in working.watch():
            if number == self._watch:
                self.bar.value = render_progress(look, self._lang, going=True)
                if time.monotonic() >= due:
                    due = time.monotonic() + self._draw_grid(going=True)
            working.ended_within(LOOK_EVERY)
        error: TcbOpsError | None = None
        try:
            run = working.wait()
        except TcbOpsError as early:
            run, error = working.so_far(), early
        if number == self._watch:
            self.run, self._working = run, None
            self._settled(error, working.links_run_out)
        else:
            self._ended_unseen()

    def _poll(self, number: int) -> None:
        """Follow the ledger for as long as another process works on the run."""
        run, settings = self.run, self._context.settings
        if run is None:
            return
        pulse, due, pause = Pulse(run.record.rows, _counted(run)[1]), 0.0, threading.Event()
        while number == self._watch:
            counts, done = _counted(run)
            look = Progress(run.id, run.record.rows, counts, *pulse.beat(time.monotonic(), done))
            self.bar.value = render_progress(look, self._lang, going=True)
            if time.monotonic() >= due:
                due = time.monotonic() + self._draw_grid(going=True)
            pause.wait(POLL_EVERY)
            if api.run_holder(run.id, settings=settings) is None and number == self._watch:
                self.run = api.open_run(run.id, settings=settings)
                self._settled(None)
                return

    # --- what is shown ------------------------------------------------------------------------------------------

    def _settled(self, error: TcbOpsError | None, links_run_out: int = 0) -> None:
        """Show a run that nobody works on: finished or cut off."""
        run = self.run
        if run is None:
            return
        self.state = run_state(here=False, held=False, finished=run.record.finished_at is not None)
        self.links_run_out = links_run_out
        counts, _ = _counted(run)
        self.bar.value = render_progress(
            Progress(run.id, run.record.rows, counts, 0.0, None), self._lang, going=False
        )
        self._draw_grid(going=False)
        self._draw_head()
        self.errcodes.show(run)
        self._worker.say(*ending(run, error, links_run_out))
        self._ended(run)
        self._offer()
        self._changed()

    def _draw_head(self) -> None:
        self.layout.display = ""
        if self.run is not None and self.state is not None:
            simulated = self._context.settings.on_loopback
            self.head.value = render_header(self.run, self.state, self._lang, simulated=simulated)

    def _draw_grid(self, *, going: bool) -> float:
        """Draw the grid; gives the seconds until it may be drawn again."""
        run, began = self.run, time.monotonic()
        if run is None:
            return 0.0
        lines = merchant_lines(run.tallies())
        self.grid.value = render_grid(lines, self._lang, going=going)
        return redraw_after(time.monotonic() - began, len(lines))

    # --- what can be done ---------------------------------------------------------------------------------------

    def _offer(self) -> None:
        """Offer what the run as it stands allows: the rest of an unfinished one, the bad rows of a finished one."""
        run, state = self.run, self.state
        # A run without a pending row lacks but its end. An audit is not retried: the next one asks everybody.
        self.resume.offer(run if state is RunState.UNFINISHED else None, PENDING, even_without=True)
        audited = run is not None and run.record.kind == Kind.AUDIT
        self.retry.offer(run if state is RunState.FINISHED and not audited else None, RETRYABLE)
        self.export.offer(run if self.at_rest else None)
        self.arm()

    def arm(self) -> None:
        """Enable the buttons that may be pressed now."""
        busy = self._worker.busy or self.going
        self.resume.arm(busy=busy)
        self.retry.arm(busy=busy)
        self.export.button.disabled = busy
        self.stop.disabled = not self.going

    def check_idle(self) -> None:
        """Raise UsageError while a run goes on here: one at a time."""
        if self.going and self.run is not None:
            raise UsageError(
                Text(
                    f"Run {self.run.id} is still going on here: cancel it, or wait for its end.",
                    f"任务 {self.run.id} 仍在此运行：请取消它，或等待其结束。",
                )
            )

    def _go_on(self) -> None:
        self.check_idle()
        self.resume.check()
        if self.run is not None:
            self.follow(
                api.start_resume(self.run.id, settings=self._context.settings, limits=self._context.pace())
            )

    def _retry(self) -> None:
        self.check_idle()
        self.retry.check()
        if self.run is not None:
            self.follow(
                api.start_retry(
                    self.run.id,
                    self._context.merchants,
                    settings=self._context.settings,
                    limits=self._context.pace(),
                    selection=self._context.selection,
                )
            )


def _html(name: str) -> widgets.HTML:
    html = widgets.HTML()
    html.add_class(name)
    return html


def _counted(run: Run) -> tuple[dict[Outcome, int], int]:
    """(rows by outcome without the pending ones, their sum) as the ledger has them now."""
    counts = run.outcomes
    counts.pop(Outcome.PENDING, None)
    return counts, sum(counts.values())
