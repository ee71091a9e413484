"""The panels of the notebooks: links, uploads, reports; features have more."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import ArgumentError, UsageError
from tcb_ops.features.merchants.check import MerchantState, verdict
from tcb_ops.features.simulator.sample import FILES, PATHS
from tcb_ops.i18n import Lang, Text, _, ngettext, verbatim
from tcb_ops.kinds import Kind, is_provided, provided, row_count
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.paths import read_paths
from tcb_ops.panels.controls import (
    GENTLE_RATE,
    LINKS_GO_TO,
    Confirmation,
    Fold,
    PanelContext,
    Worker,
    emphasize,
    html_area,
    show,
    tick_box,
)
from tcb_ops.panels.html import Step, message, table
from tcb_ops.panels.list_reader import ListReader
from tcb_ops.panels.panel import Panel
from tcb_ops.panels.run_monitor import STARTING
from tcb_ops.preflight import facts_line, short_life
from tcb_ops.run import Run, RunHandle
from tcb_ops.runs.list_kinds import LINKS, UPLOAD
from tcb_ops.runs.progress import Progress
from tcb_ops.start import StartOptions

if TYPE_CHECKING:
    from tcb_ops.features.cluster.client import Cluster


LINES_SHOWN = 300
"""Most lines of the table of merchants."""


class RunForm(Panel):
    """A panel that starts runs of one kind."""

    kind: Kind
    label: Text
    """The label of the button that starts the run."""
    settings_title = _("Settings")
    """The title of the part that folds."""

    def _start_run(self, options: StartOptions) -> RunHandle:
        """Start the run."""
        raise NotImplementedError

    def _start_headless(self, options: StartOptions) -> RunHandle:
        """Start the run headlessly."""
        return self._start_run(options)

    def _facts(self) -> tuple[Text, int] | None:
        """Return what a run would reach, and the number of merchants; None where there is nothing to run."""
        raise NotImplementedError

    def _input_parts(self) -> list[Any]:
        """Build the parts above the settings."""
        return []

    def _pace_notes(self) -> list[Any]:
        """Build the notes below the pace."""
        return []

    def _prepare(self) -> None:
        """Prepare what the run needs. Raises TcbOpsError."""

    def _parts(self) -> list[Any]:
        lang, worker = self.lang, self.worker
        self.ready_line = html_area("op-ready")
        """The state of what a run would work on; that of the run stands in the header."""
        inputs = self._input_parts()
        fast = _("as fast as allowed").of(lang)
        gentle = _("gently: {gentle_rate:g} link calls/s per merchant", gentle_rate=GENTLE_RATE).of(lang)
        options, simulated = [(fast, False), (gentle, True)], self.context.simulated
        self.pace = worker.field(
            widgets.Dropdown, _("Pace"), "op-pace", "28rem", options=options, value=simulated
        )
        self.new = tick_box(_("start a new run, even if one of this list is unfinished"), "op-new", lang)
        self.confirmation = Confirmation(worker, self.context, "op-confirm", self._enable)
        self.start = worker.button(self.label, "op-run", self._run, disabled=True)
        self.starter = widgets.VBox([self.confirmation, self.start])
        self.monitor.actions.children = (self.starter, *self.monitor.actions.children)
        self.merchant_check = MerchantCheck(worker, self.context)
        parts = [*inputs, widgets.HBox([self.pace, self.new]), *self._pace_notes()]
        cluster, self.workers = self.given.cluster, None
        if self.kind.clustered:
            self.workers = worker.field(
                widgets.Text,
                _("Cluster"),
                "op-cluster",
                # A client of Dask is shown by its address.
                value=cluster if isinstance(cluster, str) else str(getattr(cluster.scheduler, "address", "")),
                placeholder=_("none: this process does the work; local:2 starts two workers").of(lang),
                disabled=not isinstance(cluster, str),
            )
            parts.append(self.workers)
        parts += [self.merchant_check, self.runs]
        self.setup = Fold(worker, self.settings_title, self.ready_line, parts, self._enable)
        return [self.setup, self.monitor]

    def cluster(self) -> Cluster | None:
        """Return the cluster that the next run works on; None for this process. Raises UsageError if it is mistyped."""
        if not isinstance(self.given.cluster, str):
            return self.given.cluster
        typed = str(self.workers.value).strip() if self.workers is not None else ""
        if not typed:
            return None
        from tcb_ops.features.cluster.client import check_cluster

        try:
            check_cluster(typed)
        except ArgumentError:
            raise UsageError(
                _(
                    "Cluster {typed}: write local:2 for two processes on this machine, or the URL of a Dask scheduler, "
                    "tls://HOST:PORT.",
                    typed=typed,
                )
            ) from None
        return typed

    def _open(self) -> None:
        """Check the list, and show the newest run, finished or not."""
        self.worker.guarded(self._prepare, self.ready_line)
        found = self.runs.refresh()
        if found:
            self.setup.unfolded = False
            self.monitor.attach(found[0].id)

    def _enable(self) -> None:
        monitor, unfolded = self.monitor, self.setup.unfolded
        ready = self._facts() is not None and not self.worker.busy and not monitor.running
        self.start.disabled = not ready or not self.confirmation.confirmed
        show(self.starter, shown=not monitor.running and (monitor.state is None or unfolded))
        step = self._next_step(ready=self._facts() is not None, editing=unfolded)
        monitor.enable(step)
        emphasize(self.start, wanted=step is Step.START)

    def _changed(self) -> None:
        """Ask for confirmation again: another list would be run."""
        facts, merchants = self._facts() or (None, 0)
        self.confirmation.ask(facts, merchants)
        self._enable()

    def _run(self) -> None:
        """Start a run of the list, or resume its unfinished one."""
        self.monitor.check_idle()
        self.confirmation.check()
        older: list[tuple[str, float]] = []

        def asked(run_id: str, started: float) -> bool:
            older.append((run_id, started))
            return False

        limits = self.context.limits(gentle=self.pace.value)
        self.worker.say(STARTING)
        try:
            handle = self._start_run(
                self._options() | {"limits": limits, "new_run": self.new.value, "may_resume": asked}
            )
        except UsageError:
            if not older:
                raise
            [(run_id, started)] = older
            when = datetime.fromtimestamp(started, self.context.settings.zone).isoformat(" ", "minutes")
            raise UsageError(
                _(
                    "Run {run_id} of the same list, started {when}, is unfinished and over a day old. Choose it under "
                    "Earlier runs and resume it, or tick “start a new run”.",
                    run_id=run_id,
                    when=when,
                )
            ) from None
        self.new.value = False
        self.setup.unfolded = False
        self.monitor.follow(handle)
        self._list_runs()
        if handle.resumed:
            rows = row_count(handle.record.rows)
            text = _("Resuming run {id}: {done:,} of {rows} are done.")
            self.worker.say(text.format(id=handle.id, done=handle.done_before, rows=rows))

    def _options(self) -> StartOptions:
        context = self.context
        return {"settings": context.settings, "note": self.given.note, "selection": context.selection}

    def _work(self) -> Run:
        if self._facts() is None:
            self._prepare()
        handle = self._start_headless(self._options() | {"limits": self.context.limits()})
        self.setup.unfolded = False

        def follow(progress: Iterator[Progress]) -> None:
            self.monitor.follow(handle)
            deque(progress, maxlen=0)

        handle.follow(follow)  # Ctrl-C in there cancels the run, tidily
        try:
            return handle.wait()
        finally:
            self._list_runs()


class MerchantCheck(widgets.VBox):
    """The button that checks merchants and tokens, and the result. It sends no file."""

    def __init__(self, worker: Worker, context: PanelContext) -> None:
        self._worker, self._context = worker, context
        self.line = html_area("op-merchants-status")
        """The status of the check; that of the run stays."""
        self.button = worker.button(
            _("Check merchants and tokens"), "op-merchants", self._check, line=self.line
        )
        self.states = html_area("op-states", "24rem")
        show(self.states, shown=False)
        super().__init__([self.button, self.line, self.states])

    def _check(self) -> None:
        def say(text: Text, tone: str = "") -> None:
            self._worker.say(text, tone, line=self.line)

        def progress(done: int, total: int) -> None:
            say(_("Checked {done:,} of {total:,} …", done=done, total=total))

        say(_("Checking the merchants …"))
        settings = self._context.settings
        states = api.check_merchants(self._context.merchants, settings=settings, progress=progress)
        self.states.value = render_states(states, self._worker.lang)
        show(self.states, shown=True)
        summary, shown = verdict(states), min(len(states), LINES_SHOWN)
        lines = _(
            "The table has {lines}, those that are not ready first; scroll to see all.",
            lines=ngettext("{n:,} line", "{n:,} lines", shown),
        )
        good = all(state.works or state.merchant.left for state in states)
        say(_("{summary}\n{lines}", summary=summary, lines=lines), "good" if good else "bad")


def render_states(states: Sequence[MerchantState], lang: Lang) -> str:
    """Draw the merchants: those that are not ready first, environments of a merchant together, its advice once."""
    heads = (
        _("Merchant"), _("Environment"), _("Ready"), _("Token"), _("Permission"), _("Cloud"), _("Status"),
        _("Calls left"), _("What to do"),
    )  # fmt: skip
    ill = {state.merchant.appid for state in states if not state.works and not state.merchant.left}
    first = {state.merchant.appid: number for number, state in reversed(list(enumerate(states)))}

    def order(state: MerchantState) -> tuple[bool, bool, int, bool]:
        merchant = state.merchant
        return merchant.appid not in ill, merchant.left, first[merchant.appid], state.works

    given: set[tuple[str, str, Text]] = set()
    rows = []
    for state in sorted(states, key=order)[:LINES_SHOWN]:
        advice = []
        for issue in state.issues:
            one = (state.merchant.appid, issue.code, issue.action)
            above = _("as above")
            advice.append(f"{issue.code}: {(above if one in given else issue.action).of(lang)}")
            given.add(one)
        left = state.quota.left if state.quota else None
        rows.append(
            (
                state.merchant.name,
                state.merchant.env,
                (_("has left") if state.merchant.left else _word(state.works)).of(lang),
                _word(state.token).of(lang),
                _word(state.permission).of(lang),
                _word(state.cloud).of(lang),
                state.env_status or "–",
                f"{left:,}" if left is not None else "–",
                "\n".join(advice),
            )
        )
    label = _("Merchants and their status today").of(lang)
    more = len(states) - LINES_SHOWN
    rest = _(
        "… and {more_lines} that are ready or have left",
        more_lines=ngettext("{n:,} more line", "{n:,} more lines", more),
    ).of(lang)
    return table(heads, rows, "sssssssnt", lang, label=label) + (message(rest) if more > 0 else "")


def _word(known: bool | None) -> Text:
    if known is None:
        return verbatim("–")
    return _("yes") if known else _("no")


class ListPanel(RunForm):
    """A panel whose run works on a list."""

    settings_title = _("List and settings")

    def _input_parts(self) -> list[Any]:
        self.list_reader = ListReader(
            self.worker,
            self.context,
            self.given.paths,
            root=self.given.root if self.kind.sends_files else None,
            line=self.ready_line,
            changed=self._changed,
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

    kind, label = LINKS, _("Issue links")
    title = _("Upload links")
    out_control = LINKS_GO_TO

    def _input_parts(self) -> list[Any]:
        out = self.given.out or "links.csv"
        self.out = self.worker.field(widgets.Text, _("Links go to"), "op-out", value=out)
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

    def _start_run(self, options: StartOptions) -> RunHandle:
        return api.start_links(self._batch(), out=Path(self.out.value), **options)

    def _start_headless(self, options: StartOptions) -> RunHandle:
        out = self.context.output_path(self.given.out, "links.csv")
        return api.start_links(self._batch(), out=out, **options)


class UploadPanel(ListPanel):
    """Checks a list and its files and uploads them."""

    kind, label = UPLOAD, _("Upload")
    title = _("Uploads")

    def _parts(self) -> list[Any]:
        parts, actions = super()._parts(), self.monitor.actions
        self.stored: Any = None
        if not is_provided("stored_files"):
            return parts
        self.stored = provided("stored_files")(self.worker, self.context, self.monitor)
        actions.children = (*actions.children, self.stored.confirm)
        return [*parts, self.stored]

    def _run_changed(self) -> None:
        if self.stored is not None:
            self.stored.offer()
        super()._run_changed()

    def _enable(self) -> None:
        super()._enable()
        if self.stored is not None:
            self.stored.enable()

    def _start_run(self, options: StartOptions) -> RunHandle:
        return api.start_upload(self._batch(), cluster=self.cluster(), **options)


class RunPanel(Panel):
    """Shows any run: running here or elsewhere, interrupted, or finished."""

    title = _("Run report")
    none_yet = _("No run is shown. Start one with another notebook, then run the panel's cell again.")
    starts_runs = False
    out_control: Text | None = None

    def _parts(self) -> list[Any]:
        return [self.runs, self.monitor]

    def _open(self) -> None:
        self.runs.refresh()
        self.monitor.attach(self.given.run)
        self.runs.choose(self.run)

    def _work(self) -> Run:
        if self.run is None:
            self._open()
        if self.run is None:
            raise UsageError(_("There is no run to export."))
        return self.run


class ReportPanel(RunPanel):
    """Shows a chosen run and exports it. On the simulator it makes one where there is none."""

    out_control = Panel.out_control

    def _open(self) -> None:
        if self.context.simulated and not self.runs.refresh():
            self.worker.say(_("Preparing a simulated run to show …"))
            with read_paths(PATHS, self.context.merchants, FILES) as batch:
                api.upload(batch, settings=self.context.settings, limits=self.context.limits())
        super()._open()
