"""The panels that start runs: list and settings that fold, the confirmation of a live target, the check of merchants."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import ArgumentError, UsageError
from tcb_ops.i18n import Lang, Text, _, ngettext, verbatim
from tcb_ops.merchants.status import MerchantState, verdict
from tcb_ops.model import Kind
from tcb_ops.panels.action_button import Confirmation
from tcb_ops.panels.context import GENTLE_RATE, Fold, PanelContext, Worker, emphasize, html_area, show
from tcb_ops.panels.html import Step, message, table
from tcb_ops.panels.panel import Panel
from tcb_ops.panels.run_monitor import CLUSTERED, STARTING
from tcb_ops.reports.explanations import row_count
from tcb_ops.run import Run, RunHandle
from tcb_ops.runs.progress import Progress

if TYPE_CHECKING:
    from tcb_ops.runs.cluster import Cluster

LINES_SHOWN = 300
"""Most lines of the table of merchants."""


class RunForm(Panel):
    """A panel that starts runs of one kind: links, uploads or audits."""

    kind: Kind
    label: Text
    """The label of the button that starts the run."""
    settings_title = _("Settings")
    """The title of the part that folds."""

    def _start_run(self, **options: Any) -> RunHandle:
        """Start the run; `options` are those of the public function."""
        raise NotImplementedError

    def _start_headless(self, **options: Any) -> RunHandle:
        """Start the run headlessly."""
        return self._start_run(**options)

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
        new = _("start a new run, even if one of this list is unfinished")
        self.new = widgets.Checkbox(
            description=new.of(lang), indent=False, layout={"width": "auto"}
        ).add_class("op-new")
        self.confirmation = Confirmation(worker, self.context, "op-confirm", self._enable)
        self.start = worker.button(self.label, "op-run", self._run, disabled=True)
        self.starter = widgets.VBox([self.confirmation, self.start])
        self.monitor.actions.children = (self.starter, *self.monitor.actions.children)
        self.merchant_check = MerchantCheck(worker, self.context)
        self.workers = self._cluster_field() if self.kind in CLUSTERED else None
        self.setup = Fold(
            worker,
            self.settings_title,
            self.ready_line,
            [
                *inputs,
                widgets.HBox([self.pace, self.new]),
                *self._pace_notes(),
                *([self.workers] if self.workers is not None else []),
                self.merchant_check,
                self.runs,
            ],
            self._enable,
        )
        return [self.setup, self.monitor]

    def _cluster_field(self) -> Any:
        """Build the field for the cluster. A client of Dask that was given is shown by its address."""
        given = self._cluster
        return self.worker.field(
            widgets.Text,
            _("Cluster"),
            "op-cluster",
            value=given if isinstance(given, str) else str(getattr(given.scheduler, "address", "")),
            placeholder=_("none: this process does the work; local:2 starts two workers").of(self.lang),
            disabled=not isinstance(given, str),
        )

    def cluster(self) -> Cluster | None:
        """Return the cluster that the next run works on; None for this process. Raises UsageError if it is mistyped."""
        if not isinstance(self._cluster, str):
            return self._cluster
        typed = str(self.workers.value).strip() if self.workers is not None else ""
        if not typed:
            return None
        from tcb_ops.runs.cluster import check_cluster

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
                **self._options(), limits=limits, new_run=self.new.value, may_resume=asked
            )
        except UsageError:
            if not older:
                raise
            raise self._unfinished(*older[0]) from None
        self.new.value = False
        self.setup.unfolded = False
        self.monitor.follow(handle)
        self._list_runs()
        if handle.resumed:
            rows = row_count(handle.record.rows)
            text = _("Resuming run {id}: {done:,} of {rows} are done.")
            self.worker.say(text.format(id=handle.id, done=handle.done_before, rows=rows))

    def _ended(self, run: Run) -> None:  # noqa: ARG002  the list has each run's state
        self._list_runs()

    def _options(self) -> dict[str, Any]:
        return {"settings": self.context.settings, "note": self.note, "selection": self.context.selection}

    def _work(self) -> Run:
        if self._facts() is None:
            self._prepare()
        handle = self._start_headless(**self._options(), limits=self.context.limits())

        self.setup.unfolded = False

        def follow(progress: Iterator[Progress]) -> None:
            self.monitor.follow(handle)
            deque(progress, maxlen=0)

        handle.follow(follow)  # Ctrl-C in there cancels the run, tidily
        try:
            return handle.wait()
        finally:
            self._list_runs()

    def _unfinished(self, run_id: str, started: float) -> UsageError:
        when = datetime.fromtimestamp(started, self.context.settings.zone).isoformat(" ", "minutes")
        return UsageError(
            _(
                "Run {run_id} of the same list, started {when}, is unfinished and over a day old. Choose it under "
                "Earlier runs and resume it, or tick “start a new run”.",
                run_id=run_id,
                when=when,
            )
        )


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

    def _say(self, text: Text, tone: str = "") -> None:
        self._worker.say(text, tone, line=self.line)

    def _check(self) -> None:
        self._say(_("Checking the merchants …"))

        def progress(done: int, total: int) -> None:
            self._say(_("Checked {done:,} of {total:,} …", done=done, total=total))

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
        self._say(_("{summary}\n{lines}", summary=summary, lines=lines), "good" if good else "bad")


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
