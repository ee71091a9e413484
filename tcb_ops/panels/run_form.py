"""Beginning a run from a panel: the confirmation, how hard it may press, Run and Cancel."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import ipywidgets as widgets

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.model import Kind
from tcb_ops.panels.action_button import LiveConfirmation
from tcb_ops.panels.context import GENTLE_RATE
from tcb_ops.panels.html import heading
from tcb_ops.panels.merchant_check import MerchantCheck
from tcb_ops.panels.panel import Panel
from tcb_ops.panels.run_browser import RunBrowser
from tcb_ops.run import Run, RunHandle
from tcb_ops.runs.progress import Progress


class RunForm(Panel):
    """A panel whose work is a run: links, uploads, or an audit."""

    kind: Kind
    label: Text
    """What the button says."""
    title: Text

    def _title(self) -> Text:
        return self.title

    def _begin(self, **options: Any) -> RunHandle:
        """Begin the run; `options` are the library's."""
        raise NotImplementedError

    def _headless(self, **options: Any) -> RunHandle:
        """Begin it without anybody at the panel."""
        return self._begin(**options)

    def _facts(self) -> tuple[Text, int] | None:
        """What a run would reach, and how many merchants that is; None where there is nothing to run."""
        raise NotImplementedError

    def _pick(self) -> list[Any]:
        """Build the parts above the button."""
        return []

    def _beside_pace(self) -> list[Any]:
        """Build what is said about the pace."""
        return []

    def _prepare(self) -> None:
        """Make ready what the run needs. Raises TcbOpsError."""

    def _parts(self) -> list[Any]:
        lang = self.lang
        picking = self._pick()
        self.pace = widgets.Dropdown(
            options=[
                (Text("as fast as allowed", "尽可能快").of(lang), False),
                (
                    Text(
                        f"gently: {GENTLE_RATE:g} link calls/s per merchant",
                        f"缓和：每商户每秒 {GENTLE_RATE:g} 次取链接",
                    ).of(lang),
                    True,
                ),
            ],
            value=self.context.simulated,
            description=Text("Pace", "速度").of(lang),
            layout={"width": "28rem"},
            style={"description_width": "7rem"},
        )
        self.pace.add_class("op-pace")
        self.new = widgets.Checkbox(
            description=Text(
                "begin anew, even if a run of this is unfinished", "即使有未完成的任务，也重新开始"
            ).of(lang),
            indent=False,
            layout={"width": "auto"},
        )
        self.new.add_class("op-new")
        self.confirmation = LiveConfirmation(lang, "op-confirm", self._arm)
        self.start = widgets.Button(description=self.label.of(lang), button_style="primary", disabled=True)
        self.start.add_class("op-run")
        self.start.on_click(lambda _: self.worker.start(self._run))
        self.runs = RunBrowser(self.worker, self.context, self.kind, self.monitor.attach)
        self.merchant_check = MerchantCheck(self.worker, self.context)
        number = "2 · " if picking else ""
        title = widgets.HTML(heading(number + Text("The run", "任务").of(lang)))
        return [
            *picking,
            title,
            widgets.HBox([self.pace, self.new]),
            *self._beside_pace(),
            self.confirmation,
            widgets.HBox([self.start, self.monitor.stop]),
            self.runs,
            self.merchant_check,
            self.worker.line,
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

    def _arm(self) -> None:
        super()._arm()
        going = self.monitor.going
        ready = self._facts() is not None and not self.worker.busy and not going
        self.start.disabled = not ready or not self.confirmation.off

    def _changed(self) -> None:
        """Take note that something else would be run: the confirmation is asked anew."""
        facts = self._facts()
        context = self.context
        self.confirmation.ask(
            facts[0] if facts else None,
            facts[1] if facts else 0,
            context.settings.api_base,
            live=context.live,
        )
        self._arm()

    def _run(self) -> None:
        """Begin, or go on with, what is picked."""
        self.monitor.check_idle()
        self.confirmation.check()
        older: list[tuple[str, float]] = []

        def asked(run_id: str, begun: float) -> bool:
            older.append((run_id, begun))
            return False

        try:
            working = self._begin(
                **self._options(),
                limits=self.context.pace(gentle=self.pace.value),
                new_run=self.new.value,
                may_resume=asked,
            )
        except UsageError:
            if not older:
                raise
            raise self._choose(*older[0]) from None
        self.new.value = False
        self.monitor.follow(working)
        self._list_runs()
        if working.resumed:
            self._say_resumed(working.so_far())

    def _ended(self, run: Run) -> None:  # noqa: ARG002  the list says of each run how it stands
        self._list_runs()

    def _options(self) -> dict[str, Any]:
        return {"settings": self.context.settings, "note": self.note, "selection": self.context.selection}

    def _work(self) -> Run:
        if self._facts() is None:
            self._prepare()
        working = self._headless(**self._options(), limits=self.context.pace())

        def show(looks: Iterator[Progress]) -> None:
            self.monitor.follow(working)
            deque(looks, maxlen=0)

        working.follow(show)  # Ctrl-C in there cancels the run, tidily
        try:
            return working.wait()
        finally:
            self._list_runs()

    def _say_resumed(self, run: Run) -> None:
        done = sum(rows for outcome, rows in run.counts.items() if outcome != "pending")
        self.worker.say(
            Text(
                f"Going on with run {run.id}: {done:,} of {run.record.rows:,} rows are done.",
                f"继续任务 {run.id}：{run.record.rows:,} 行中已完成 {done:,} 行。",
            )
        )

    def _choose(self, run_id: str, begun: float) -> UsageError:
        when = datetime.fromtimestamp(begun, self.context.settings.zone).isoformat(" ", "minutes")
        return UsageError(
            Text(
                f"Run {run_id} of the same list, begun {when}, is unfinished and over a day old. Choose it under Earlier runs and "
                "go on with it, or tick that you want to begin anew.",
                f"同一清单的任务 {run_id}（开始于 {when}）未完成且已超过一天。请在“以往任务”中选择它并继续，或勾选重新开始。",
            )
        )
