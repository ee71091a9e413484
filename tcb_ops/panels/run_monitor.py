"""A run in a panel: its header with what can be done, and its tabs; and the table of earlier runs.

The run works on the library's private event loop; a plain thread shows what was committed. A blocked kernel, a closed tab
or a lost panel therefore do not affect the run, and a panel can be attached to it at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.catalogue import COMPONENT_MARK
from tcb_ops.engine.progress import Progress, ProgressMeter
from tcb_ops.errors import RunNotFoundError, TcbOpsError, UsageError, needed
from tcb_ops.hooks import DiagnosisHooks, hooks
from tcb_ops.i18n import NOTHING, Text, _, as_lines, as_sentences
from tcb_ops.kinds import ANY_KIND, Kind, row_count
from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import Outcome
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.controls import (
    ActionButton,
    ExportMenu,
    Menu,
    Worker,
    html_area,
    in_thread,
    show,
)
from tcb_ops.panels.grid import RunGrid
from tcb_ops.panels.html import (
    RunState,
    describe_end,
    esc,
    render_header,
    render_mark,
    render_progress,
    render_runs,
    rest_state,
)
from tcb_ops.preflight import SendScope, scope_of_rows
from tcb_ops.reports.summary import by_code, causes_of, retry_helps
from tcb_ops.run import Run, RunHandle, find_handle, has_code
from tcb_ops.start import ResumeOptions

POLL_EVERY = 1.0
"""Least seconds between two updates from a run of another process, or until a ledger that could not be read is read again."""
LISTED = 50
"""Runs in the table, the newest first."""
UNDER_ROWS = "rows"
"""The choice of the rows that match the filter of the tab Rows; others are a code, or "" for all."""


class RunMonitor(widgets.VBox):
    """A run, whichever process works on it. `run` is the run as it was last read from the ledger.

    `header` stays in view: the run, its result, its progress and `actions`, the buttons. The monitor itself is what
    stands below: the tabs.
    """

    def __init__(
        self,
        worker: Worker,
        context: PanelContext,
        *,
        cluster: str | None,
        changed: Callable[[], None],
    ) -> None:
        """Show no run yet.

        `cluster` is what the panel's runs work on; None: this process. `changed` is called when a run begins or ends, shown
        or not; from any thread.
        """
        self._worker, self._context, self._lang = worker, context, worker.lang
        self.cluster = cluster
        self._changed = changed
        self.run: Run | None = None
        self.state: RunState | None = None
        self.expired_links = 0
        """Links of the run that is shown that had expired by its end, where it ended here."""
        self.undone = False
        """Whether later runs took back all files of the run that is shown, and of its retries."""
        self._resumable = False
        self._handle: RunHandle | None = None
        self.watched = threading.Event()
        """Set when the end of the run is shown that was shown last."""
        self.watched.set()
        self._drawn: tuple[float | None, Text | None] = None, None
        """When the run that is shown at rest had finished, and its mark."""
        self._watch = 0
        """The number of the newest watching thread: older ones stop."""
        self.head, self.bar = html_area("op-head"), html_area("op-progress")
        clicks: dict[str, Callable[[str], None]] = {"open": self._choose, "why": self._ask_why}
        self.grid = RunGrid(worker, self._look, clicks, sample=context.sample, merchants=context.merchants)
        self.resume = ActionButton(worker, context, _("Resume"), "op-resume", self._resume)
        self.retry = RetryMenu(worker, context, self.grid, self._retry)
        clicks["retry"] = self._retry_code
        if diagnosis := hooks(DiagnosisHooks):
            self.remedies = diagnosis.remedies(worker, context, self)
            clicks |= {"fix": self.remedies.choose, "cell": self.remedies.write_cell}
        self.export = ExportMenu(worker, partial(self.grid.send, {"tab": "files"}))
        self.stop = worker.button(_("Cancel"), "op-cancel", self.cancel, background=False, disabled=True)
        self.actions = widgets.HBox([self.stop, self.resume]).add_class("op-actions")
        self.header = widgets.VBox([self.head, worker.line, self.bar, self.actions]).add_class("op-header")
        files = widgets.VBox([self.export.line, self.export.files]).add_class("op-tab-files")
        super().__init__([self.grid, files])
        self.add_class("op-monitor")
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
            self._worker.say(_("Cancelling: waiting for calls in flight …"), stays=True)
            self._handle.cancel()

    def follow(self, handle: RunHandle, *, in_cell: bool = False) -> None:
        """Show a run of this process until it ends. `in_cell`: a cell waits for it, so that the kernel hears no button."""
        self._handle, run = handle, handle.so_far()
        begun = _("Run {id} is running.", id=handle.id)
        if handle.resumed:
            text = _("Run {id} was resumed: {done:,} of {rows} were done before.")
            begun = text.format(id=handle.id, done=handle.done_before, rows=row_count(handle.record.rows))
        if in_cell:
            text = _("No button acts before its cell has ended; to cancel the run, interrupt the kernel.")
            begun = as_sentences((begun, text))
        self._worker.say(begun, stays=True)
        self._begin(run, RunState.HERE, partial(self._follow, handle, run))

    def attach(self, run_id: str) -> None:
        """Show a run: running here or elsewhere, interrupted, or finished. Raises RunNotFoundError."""
        run = api.open_run(run_id, kind=ANY_KIND, settings=self._context.settings)
        if (here := find_handle(run.id)) is not None:
            self.follow(here)
            return
        holder = run.holder() if run.record.finished_at is None else None
        self._handle = None
        self._watch += 1
        if holder is not None:
            self._worker.say(holder, stays=True)
            self._begin(run, RunState.ELSEWHERE, partial(self._poll, run))
        else:
            self._show_end(run)

    def _choose(self, run_id: str) -> None:
        """Show a run in place of the list in which it was clicked."""
        self.attach(run_id)
        for menu in self._worker.menus:
            menu.opened = False
        self._worker.on_change()

    def _look(self) -> None:
        """Show the run again if another process has finished, undone or removed it. Raises RunNotFoundError."""
        run = self.run
        if run is None or not self.at_rest or self._worker.busy:
            return
        try:
            run.refresh()
        except RunNotFoundError:
            self.run = None
            self._show_none()
            self._changed()
            raise
        if self._drawn != (run.record.finished_at, run.mark):
            self.attach(run.id)

    def close_run(self) -> None:
        """Stop watching the run, which continues, and hold none of its data."""
        self._watch += 1
        self._changed = lambda: None
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
        self.watched = in_thread(guarded)

    def _follow(self, handle: RunHandle, run: Run, number: int) -> None:
        """Show what was committed until the run ends, then end it."""
        if number == self._watch:  # at once: a cluster takes a while to start
            self._draw_grid(run)
            with suppress(TcbOpsError):  # which the grid has reported
                self._draw_bar(run)
        for now in handle.watch():
            pause = POLL_EVERY
            if number == self._watch:  # both: the next news may come late
                self._draw_bar(run, now)
                pause = self._draw_grid(run)
            handle.ended_within(pause)
        error: TcbOpsError | None = None
        try:
            run = handle.wait()
        except TcbOpsError as early:
            run, error = handle.so_far(), early
        if number == self._watch:
            self._handle = None
            self._show_end(run, error, handle.expired_links, handle.warning)
        else:
            self._changed()

    def _poll(self, run: Run, number: int) -> None:
        """Follow the ledger for as long as another process works on the run."""
        meter = ProgressMeter(run.id, run.record.rows, run.outcomes)
        while number == self._watch:
            self._draw_bar(run, meter.at(time.monotonic(), run.outcomes))
            time.sleep(max(POLL_EVERY, self._draw_grid(run)))
            if run.holder() is None and number == self._watch:
                self._show_end(api.open_run(run.id, settings=self._context.settings))
                return

    # --- what is shown ------------------------------------------------------------------------------------------

    def _show_end(
        self, run: Run, error: TcbOpsError | None = None, expired_links: int = 0, warning: Text | None = None
    ) -> None:
        self.run, self.state, self.expired_links = run, rest_state(run), expired_links
        self._drawn = (run.record.finished_at, run.mark)
        self._draw_bar(run)
        self._draw_grid(run)
        self._draw_header(run, self.state)
        text, tone = describe_end(run, error, time.time(), expired_links)
        self._worker.say(text if warning is None else as_lines((text, warning)), tone, stays=True)
        self._offer()

    def _show_none(self) -> None:
        """Show the target, and no run: there is none, or it cannot be read."""
        self.state, self._handle = None, None
        self._worker.say(NOTHING, stays=True)
        self.head.value = (
            f'<div class="op-title">{render_mark(self._lang, live=self._context.live)}'
            f'<span class="op-quiet">{esc(self._context.describe_target().of(self._lang))}</span></div>'
        )
        self.bar.value = ""
        show(self, shown=False)
        for menu in self._worker.menus:
            menu.show_run(None)

    def _draw_header(self, run: Run, state: RunState) -> None:
        show(self, shown=True)
        summary = run.overview()
        self.undone = summary.is_undone
        found = self.grid.findings if state is RunState.FINISHED else None
        since = found.since(run.settings.zone) if found is not None else None
        self.head.value = render_header(run, summary, state, self._lang, live=self._context.live, since=since)

    def _draw_bar(self, run: Run, now: Progress | None = None) -> None:
        if now is None:
            now = ProgressMeter(run.id, run.record.rows, run.outcomes).at(time.monotonic(), run.outcomes)
        self.bar.value = render_progress(now, run.record.kind, self._lang, running=not self.at_rest)

    def _draw_grid(self, run: Run) -> float:
        """Draw the grid; return the seconds until it is drawn again.

        10 merchants are drawn 4 times a second, 400 about once; drawing takes a tenth of a processor at most. What it waits
        for the run, which works in the same process, does not count. A run that cannot be read now is still watched.
        """
        began = time.thread_time()
        try:
            merchants = self.grid.show(run, running=not self.at_rest)
        except TcbOpsError as error:
            self._worker.report(error)
            return POLL_EVERY
        return max(0.25 + min(merchants, 500) / 500, 10 * (time.thread_time() - began))

    # --- what can be done ---------------------------------------------------------------------------------------

    def _offer(self) -> None:
        """Offer the rest of an unfinished run, and what the menus can do with a run."""
        if (run := self.run) is not None and self.state is RunState.UNFINISHED:
            self._resumable = run.resumable
            self.resume.offer_rest(run)
        for menu in self._worker.menus:
            menu.show_run(run if self.at_rest else None)
        if self.undone:  # what it lacks is no longer wanted
            self.retry.tone = ""
        self._changed()

    def enable(self, *, starts: bool = False) -> None:
        """Enable the buttons that may be pressed; `starts`: another button starts or resumes a run."""
        busy = self._worker.busy or self.running
        show(self.resume, shown=self.state is RunState.UNFINISHED and self._resumable and not starts)
        self.resume.enable(busy=busy)
        # The blue button is the next thing to do: in a box that is open, it is the box's.
        self.resume.button.button_style = "" if any(m.opened for m in self._worker.menus) else "primary"
        for menu in self._worker.menus:
            menu.enable(busy=busy)
        self.stop.disabled = not self.running
        show(self.stop, shown=self.running)

    def start(self, begin: Callable[[ResumeOptions], RunHandle], action: ActionButton | None = None) -> None:
        """Start a run and show it. Raises UsageError if one is running here or the confirmation is missing."""
        if self.running and self.run is not None:
            text = _("Run {id} is still running here: cancel it, or wait for its end.", id=self.run.id)
            raise UsageError(text)
        if action is not None:
            action.check()
        # A ledger that another process has locked is waited for.
        self._worker.say(_("Starting …"))
        try:
            handle = begin(self._context.run_options())
        except TcbOpsError:
            if self.run is not None and self.state is RunState.UNFINISHED:
                self.attach(self.run.id)  # another process may work on it by now
            raise
        self.follow(handle)

    def _resume(self) -> None:
        self._continue(api.start_resume, self.resume)

    def _retry(self) -> None:
        self._continue(partial(api.start_retry, **self.retry.selected()), self.retry.action)

    def _retry_code(self, code: str) -> None:
        """Retry the rows with a code, once that is confirmed."""
        self.retry.choose(code)
        self._worker.on_change()
        if self.retry.action.confirmed:
            self._retry()

    def _continue(self, begin: Callable[..., RunHandle], action: ActionButton) -> None:
        if (run := self.run) is not None:
            cluster = self.cluster if run.record.kind.clustered else None
            self.start(lambda options: begin(run.id, cluster=cluster, **options), action)

    def _ask_why(self, code: str) -> None:
        """Ask WeChat about a row with a code, and show the verdict at the cause."""
        if (run := self.run) is None:
            return
        asking = _("Asking WeChat about {code} …")
        if run.record.simulated:
            asking = _("Asking the simulator about {code} …")
        self._worker.say(asking.format(code=code))
        needed(DiagnosisHooks).why_code(run, code, self._context.settings)
        self.show_verdicts()
        self._worker.say(*describe_end(run, None, time.time()), stays=True)

    def show_verdicts(self) -> None:
        """Show at the causes what WeChat has answered, and what merchants were asked for, as the ledger keeps it."""
        if (run := self.run) is not None:
            self.grid.read_verdicts(run)
            self._draw_grid(run)


class RetryMenu(Menu):
    """Retries rows that did not succeed: all, those of a code or a merchant, or those that the tab Rows shows."""

    def __init__(
        self, worker: Worker, context: PanelContext, grid: RunGrid, retry: Callable[[], None]
    ) -> None:
        """`retry` starts the retry of `selected`."""
        self._context, self._grid = context, grid
        grid.on_filter = lambda: self.opened and worker.guarded(self._list)
        self._run: Run | None = None
        self.choice = worker.field(widgets.Dropdown, _("Which rows"), "op-retry-rows")
        self.choice.observe(lambda _: worker.guarded(self._ask), "value")
        self.action = ActionButton(worker, context, _("Retry"), "op-retry", retry)
        super().__init__(worker, _("Retry"), "op-retry-menu", [self.choice, self.action])

    def show_run(self, run: Run | None) -> None:
        """Offer a retry of a finished run's rows, if any did not succeed."""
        # A run of all merchants is started again instead.
        done = run is not None and run.record.finished_at is not None and not run.record.kind.of_merchants
        self._run, self.choice.options = run if done else None, ()
        self.prepare()
        again = run is not None and bool(run.record.parent) and not any(o.succeeded for o in run.outcomes)
        self.tone = "primary" if self._tallies and retry_helps(self._groups, again=again) else ""

    def enable(self, *, busy: bool) -> None:
        """Enable the button; the one that opens the box is blue where a retry is the next thing to do."""
        self.button.button_style = "" if any(m.opened for m in self._worker.menus) else self.tone
        self.action.enable(busy=busy)

    def selected(self) -> dict[str, Any]:
        """Return the rows that are chosen, as arguments of `start_retry`."""
        code, appid, path = self._chosen()
        merchants = self._context.merchants
        if appid:
            lines = [line for line in merchants if line.appid == appid]
            where = (*merchants.where, f"appid={appid}")
            merchants = Merchants(lines, merchants.source, merchants.whole, where=where)
        return {
            "merchants": merchants,
            "codes": [code.removesuffix(COMPONENT_MARK)] if code else [],
            "path": path,
        }

    def choose(self, code: str) -> None:
        """Open the box with the rows of a code chosen. Raises UsageError if none is left."""
        self.prepare()
        if code not in {group.code for group in self._groups}:
            raise UsageError(_("No row with {code} is left to retry.", code=code))
        self.opened, self.choice.value = True, code

    def prepare(self) -> None:
        """Count what can be retried: another process may have retried it. Without any, no retry is offered."""
        self._tallies = self._run.tallies_to_retry() if self._run is not None else []
        self._groups = by_code(causes_of(self._tallies))
        self.offer(shown=bool(self._tallies))
        self._list()

    def _list(self) -> None:
        """List what can be retried, and what matches the filter of the tab Rows now; what was chosen stays chosen."""
        if self._run is None:
            return
        chosen, (code, appid, path) = self.choice.value, self._grid.shown
        choices = [(_("all that did not succeed"), "")]
        if code or appid or path or chosen == UNDER_ROWS:  # between two words of a search there is no filter
            matching = row_count(self._scope(self._run, code, appid, path).rows)
            label = _("all that match under Rows and did not succeed: {rows}").format(rows=matching)
            if appid in self._grid.lines and not (code or path):
                label = _("merchant {name}", name=f"{self._grid.lines[appid][1]} ({appid})")
            choices.append((label, UNDER_ROWS))
        coded = _("code {code}: {rows}")
        choices += [(coded.format(code=g.code, rows=row_count(g.rows)), g.code) for g in self._groups]
        self.choice.options = [(label.of(self._lang), value) for label, value in choices]
        self.choice.index = next((at for at, (_label, value) in enumerate(choices) if value == chosen), 0)
        self._ask()

    def _chosen(self) -> tuple[str, str, str]:
        """Return the code, the appid and the part of a path of the rows that are chosen."""
        return self._grid.shown if self.choice.value == UNDER_ROWS else (self.choice.value or "", "", "")

    def _scope(self, run: Run, code: str, appid: str, path: str) -> SendScope:
        tallies = run.tallies_to_retry(path) if path else self._tallies
        chosen = [t for t in tallies if appid in {"", t.appid} and has_code(t, code)]
        return scope_of_rows(chosen, Outcome.retriable())

    def _ask(self) -> None:
        if (run := self._run) is None or self.choice.value is None:
            return
        scope = self._scope(run, *self._chosen())
        every = scope.rows == sum(count for outcome, count in run.outcomes.items() if outcome.retried)
        size = run.planned_bytes(Outcome.retriable()) if every else None
        self.action.offer(run, scope, _("Retry {rows}", rows=row_count(scope.rows)), size)
        show(self.action, shown=scope.rows > 0)


class RunBrowser(Menu):
    """The newest runs of the target, of one kind or of all, as a table; a click on one shows it."""

    def __init__(self, worker: Worker, context: PanelContext, kind: Kind | None) -> None:
        self._context, self._kind = context, kind
        self._one_at_a_time = threading.Lock()
        self._drawn = ""
        self.ids: list[str] = []
        """The ids of the runs that are listed, the newest first."""
        self.table = html_area("op-runs")
        super().__init__(worker, _("Earlier runs"), "op-runs-menu", [self.table])

    def refresh(self) -> list[Run]:
        """Read the runs again; return them, the newest first."""
        settings = self._context.settings
        of_uploads = self._kind is not None and self._kind.sends_files  # with what confirmed or undid them
        with self._one_at_a_time:  # otherwise an older state of the runs could replace a newer one
            runs = [
                run
                for run in api.runs(settings=settings, damaged=[])
                if run.record.target == settings.run_target
                and (self._kind in {None, run.record.kind} or (of_uploads and run.record.settings.of))
            ][:LISTED]
            self.ids = [run.id for run in runs]
            here = {run.id for run in runs if find_handle(run.id) is not None}
            self._drawn = render_runs(runs, here, self._lang, _("Earlier runs"))
        return runs

    def choose(self, run: Run | None) -> None:
        """Show the runs as they were read, and mark the one that the panel shows."""
        link = f'data-run="{esc(run.id)}"' if run is not None else ""
        none = esc(_("There are no runs of this target yet.").of(self._lang))
        drawn = self._drawn.replace(link, f'{link} aria-current="true"') if link else self._drawn
        self.table.value = drawn if self.ids else f'<p class="op-quiet">{none}</p>'
