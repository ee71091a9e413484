"""The form that starts a run: how fast, the confirmation of a live target, Run and Cancel; and the check of merchants."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.merchants.status import MerchantState, verdict
from tcb_ops.model import Kind
from tcb_ops.panels.action_button import LiveConfirmation
from tcb_ops.panels.context import GENTLE_RATE, PanelContext
from tcb_ops.panels.html import heading, message, table
from tcb_ops.panels.panel import Panel
from tcb_ops.panels.worker import Worker, html_area, show
from tcb_ops.run import Run, RunHandle
from tcb_ops.runs.progress import Progress

LINES_SHOWN = 300
"""Lines of the table of merchants."""


class RunForm(Panel):
    """A panel whose work is a run: links, uploads, or an audit."""

    kind: Kind
    label: Text
    """Of the button that starts the run."""

    def _start_run(self, **options: Any) -> RunHandle:
        """Start the run; `options` are the library's."""
        raise NotImplementedError

    def _start_headless(self, **options: Any) -> RunHandle:
        """Start it with nobody at the panel."""
        return self._start_run(**options)

    def _facts(self) -> tuple[Text, int] | None:
        """Say what a run would reach, and how many merchants that is; None where there is nothing to run."""
        raise NotImplementedError

    def _input_parts(self) -> list[Any]:
        """Build the parts above the button."""
        return []

    def _pace_notes(self) -> list[Any]:
        """Build the notes beside the limits."""
        return []

    def _prepare(self) -> None:
        """Make ready what the run needs. Raises TcbOpsError."""

    def _parts(self) -> list[Any]:
        lang, worker = self.lang, self.worker
        inputs = self._input_parts()
        fast = Text("as fast as allowed", "尽可能快").of(lang)
        gentle = Text(
            f"gently: {GENTLE_RATE:g} link calls/s per merchant", f"缓和：每商户每秒 {GENTLE_RATE:g} 次取链接"
        ).of(lang)
        options, simulated = [(fast, False), (gentle, True)], self.context.simulated
        self.pace = worker.field(
            widgets.Dropdown, Text("Pace", "速度"), "op-pace", "28rem", options=options, value=simulated
        )
        new = Text(
            "start a new run, even if one of this list is unfinished", "即使有未完成的任务，也开始新任务"
        )
        self.new = widgets.Checkbox(
            description=new.of(lang), indent=False, layout={"width": "auto"}
        ).add_class("op-new")
        self.confirmation = LiveConfirmation(worker, self.context, "op-confirm", self._enable)
        self.start = worker.button(
            self.label, "op-run", self._run, layout={}, button_style="primary", disabled=True
        )
        self.merchant_check = MerchantCheck(worker, self.context)
        number = "2 · " if inputs else ""
        title = widgets.HTML(heading(number + Text("The run", "任务").of(lang)))
        return [
            *inputs,
            title,
            widgets.HBox([self.pace, self.new]),
            *self._pace_notes(),
            self.confirmation,
            widgets.HBox([self.start, self.monitor.stop]),
            self.runs,
            self.merchant_check,
            worker.line,
            self.monitor,
        ]

    def _open(self) -> None:
        """Make ready; show the newest run, finished or not: after a restart that is what one wants to know."""
        self.worker.guarded(self._prepare)
        prepared = self.worker.line.value
        found = self.runs.refresh()
        if found:
            self.monitor.attach(found[0].id)
            if self.monitor.at_rest:  # else whoever watches it writes the line
                self.worker.line.value += prepared

    def _enable(self) -> None:
        super()._enable()
        ready = self._facts() is not None and not self.worker.busy and not self.monitor.running
        self.start.disabled = not ready or not self.confirmation.confirmed

    def _changed(self) -> None:
        """Take note that something else would be run: it is to be confirmed again."""
        facts, merchants = self._facts() or (None, 0)
        self.confirmation.ask(facts, merchants)
        self._enable()

    def _run(self) -> None:
        """Start what is picked, or resume it."""
        self.monitor.check_idle()
        self.confirmation.check()
        older: list[tuple[str, float]] = []

        def asked(run_id: str, started: float) -> bool:
            older.append((run_id, started))
            return False

        limits = self.context.limits(gentle=self.pace.value)
        try:
            handle = self._start_run(
                **self._options(), limits=limits, new_run=self.new.value, may_resume=asked
            )
        except UsageError:
            if not older:
                raise
            raise self._unfinished(*older[0]) from None
        self.new.value = False
        self.monitor.follow(handle)
        self._list_runs()
        if handle.resumed:
            self._say_resumed(handle.so_far())

    def _ended(self, run: Run) -> None:  # noqa: ARG002  the list has each run's state
        self._list_runs()

    def _options(self) -> dict[str, Any]:
        return {"settings": self.context.settings, "note": self.note, "selection": self.context.selection}

    def _work(self) -> Run:
        if self._facts() is None:
            self._prepare()
        handle = self._start_headless(**self._options(), limits=self.context.limits())

        def follow(progress: Iterator[Progress]) -> None:
            self.monitor.follow(handle)
            deque(progress, maxlen=0)

        handle.follow(follow)  # Ctrl-C in there cancels the run, tidily
        try:
            return handle.wait()
        finally:
            self._list_runs()

    def _say_resumed(self, run: Run) -> None:
        done = sum(rows for outcome, rows in run.counts.items() if outcome != "pending")
        self.worker.say(
            Text(
                f"Resuming run {run.id}: {done:,} of {plural(run.record.rows, 'row')} are done.",
                f"继续任务 {run.id}：{run.record.rows:,} 行中已完成 {done:,} 行。",
            )
        )

    def _unfinished(self, run_id: str, started: float) -> UsageError:
        when = datetime.fromtimestamp(started, self.context.settings.zone).isoformat(" ", "minutes")
        return UsageError(
            Text(
                f"Run {run_id} of the same list, started {when}, is unfinished and over a day old. Choose it under Earlier runs "
                "and resume it, or tick that you want to start a new run.",
                f"同一清单的任务 {run_id}（开始于 {when}）未完成且已超过一天。请在“以往任务”中选择它并继续，或勾选开始新任务。",
            )
        )


class MerchantCheck(widgets.VBox):
    """The button that checks merchants and tokens, and what was found. It asks the platform, and sends no file."""

    def __init__(self, worker: Worker, context: PanelContext) -> None:
        self._worker, self._context = worker, context
        self.button = worker.button(
            Text("Check merchants and tokens", "检查商户与令牌"), "op-merchants", self._check
        )
        self.line = html_area("op-merchants-status")
        """Its own status: the run's stays as it is."""
        self.states = html_area("op-states", "24rem")
        show(self.states, shown=False)
        super().__init__([self.button, self.line, self.states])

    def _say(self, text: Text, tone: str = "") -> None:
        self.line.value = message(text.of(self._worker.lang), tone)

    def _check(self) -> None:
        self._say(Text("Checking the merchants …", "正在查询各商户 ……"))

        def progress(done: int, total: int) -> None:
            self._say(Text(f"Checked {done:,} of {total:,} …", f"已查询 {done:,} / {total:,} ……"))

        settings = self._context.settings
        try:
            states = api.check_merchants(self._context.merchants, settings=settings, progress=progress)
        except TcbOpsError as error:
            self._worker.report(error, self.line)
            return
        self.states.value = render_states(states, self._worker.lang)
        show(self.states, shown=True)
        summary, shown = verdict(states), min(len(states), LINES_SHOWN)
        lines = Text(
            f"The table has {plural(shown, 'line')}, those that are not ready first; scroll in it to see all.",
            f"下表共 {shown:,} 行，不能工作的在前；可在表内滚动查看全部。",
        )
        good = all(state.works or state.merchant.left for state in states)
        self._say(Text(f"{summary.en}\n{lines.en}", f"{summary.zh}\n{lines.zh}"), "good" if good else "bad")


def render_states(states: Sequence[MerchantState], lang: Lang) -> str:
    """Draw the merchants, those that are not ready first; a merchant's environments together, advice for it once."""
    heads = (
        Text("Merchant", "商户"),
        Text("Environment", "环境"),
        Text("Ready", "可工作"),
        Text("Token", "令牌"),
        Text("Permission", "权限"),
        Text("Cloud", "云开发"),
        Text("Status", "环境状态"),
        Text("Calls left", "剩余调用"),
        Text("What to do", "怎么办"),
    )
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
            above = Text("as above", "同上")
            advice.append(f"{issue.code}: {(above if one in given else issue.action).of(lang)}")
            given.add(one)
        left = state.quota.left if state.quota else None
        rows.append(
            (
                state.merchant.name,
                state.merchant.env,
                (Text("has left", "已离开") if state.merchant.left else _word(state.works)).of(lang),
                _word(state.token).of(lang),
                _word(state.permission).of(lang),
                _word(state.cloud).of(lang),
                state.env_status or "–",
                f"{left:,}" if left is not None else "–",
                "\n".join(advice),
            )
        )
    label = Text("Merchants and what they can do today", "各商户今日状态").of(lang)
    more = len(states) - LINES_SHOWN
    rest = Text(f"… and {plural(more, 'more line')} that can work or have left", f"……另有 {more:,} 行").of(
        lang
    )
    return table(heads, rows, "sssssssnt", lang, label=label) + (message(rest) if more > 0 else "")


def _word(known: bool | None) -> Text:
    if known is None:
        return Text("–", "–")
    return Text("yes", "是") if known else Text("no", "否")
