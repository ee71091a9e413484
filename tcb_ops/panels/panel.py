"""What the notebooks' panels have in common: a context, a worker, a run that is shown, and the tables of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from tcb_ops.errors import InputError, TcbOpsError, UsageError
from tcb_ops.i18n import Lang, Text
from tcb_ops.lists.problems import PROBLEMS_SHOWN, format_problem
from tcb_ops.model import Kind
from tcb_ops.notebooks.practice import in_jupyter_session
from tcb_ops.panels.context import PanelContext, open_context
from tcb_ops.panels.headless_output import page_html, result_file, tell, terminal_output
from tcb_ops.panels.html import STYLE, esc, said
from tcb_ops.panels.list_reader import render_problems
from tcb_ops.panels.naming import REPORT
from tcb_ops.panels.run_browser import RunBrowser
from tcb_ops.panels.run_monitor import RunMonitor
from tcb_ops.panels.worker import Worker
from tcb_ops.preflight import ran_out
from tcb_ops.reports.explanations import verdict
from tcb_ops.run import Run

RUN_NOW = "TCB_OPS_RUN_NOW"
HEADLESS_OUT = "TCB_OPS_HEADLESS_OUT"
"""A folder that gets the report of a headless run, under the run's id."""


_NO_RUN = Text(
    "No run yet: press the panel's button, then run this cell again.",
    "还没有任务：请先点击面板中的按钮，再运行此单元格。",
)
_NOT_ASKED = Text(
    "Nothing was run: the target is live, and RUN_NOW is false.",
    "未运行任何内容：目标为线上，而 RUN_NOW 为 false。",
)


def _left_alone(run: Run) -> Text:
    return Text(
        f"Nothing was run: the panel shows run {run.id}, and RUN_NOW is false.",
        f"未运行任何内容：面板显示任务 {run.id}，而 RUN_NOW 为 false。",
    )


class Placeholder:
    """A sentence, where there is nothing to tabulate yet."""

    def __init__(self, text: Text, lang: Lang) -> None:
        self._said = text.of(lang)

    def __repr__(self) -> str:
        return self._said

    def _repr_html_(self) -> str:
        return said(self._said)


class Panel:
    """A notebook's panel: shows itself as a cell's value. Trouble while it opens is shown, not raised."""

    runs: RunBrowser
    """The earlier runs; among the panel's parts."""
    out_here: Text | None = REPORT
    """What the panel calls the command line's `--out`."""

    def __init__(self, target: str, where: str, lang: str, *, note: str = "", report: str = "") -> None:
        known = {str(one) for one in Lang}
        self.lang = Lang(lang) if lang in known else Lang.EN
        self.note, self.report = note, report
        self.worker = Worker(self.lang, self.out_here)
        self.error: TcbOpsError | None = None
        """Why nothing can be done here, where that is so."""
        self._context: PanelContext | None = None
        self._monitor: RunMonitor | None = None
        self.view = widgets.VBox([widgets.HTML(STYLE), self.worker.line])
        self.view.add_class("op-panel")
        try:
            if lang not in known:
                raise UsageError(
                    Text(f'lang = "{lang}": write "en" or "zh".', f'lang = "{lang}"：请写 "en" 或 "zh"。')
                )
            self._context = open_context(target, where, self.lang)
            self._monitor = RunMonitor(
                self.worker,
                self._context,
                report=report,
                changed=self._arm,
                ended=self._ended,
                ended_unseen=self._list_runs,
            )
            parts = self._parts()
        except TcbOpsError as error:
            self.error = error
            self.worker.trouble(error)
            return
        leads = widgets.HTML(f'<p class="op-quiet">{esc(self._context.where_to().of(self.lang))}</p>')
        leads.add_class("op-target")
        self.view.children = [self.view.children[0], leads, *parts]
        self.worker.tells = self._arm
        self.worker.start(self._open)

    # --- what a panel is made of --------------------------------------------------------------------------------

    def _parts(self) -> list[Any]:
        """Build the parts, from top to bottom; `worker.line` and `monitor` are among them."""
        raise NotImplementedError

    def _open(self) -> None:
        """Do what is to be done when the panel opens, in the background."""

    def _ended(self, run: Run) -> None:
        """Take note that a run is shown that nobody works on: it has just ended, or had before."""

    def _list_runs(self) -> None:
        """List the earlier runs anew: of one of them something has changed."""
        self.runs.refresh()
        self.runs.choose(self.run)

    def _arm(self) -> None:
        """Enable the buttons that may be pressed now."""
        self.monitor.arm()

    def _work(self) -> Run:
        """Do headlessly what the panel is for."""
        raise NotImplementedError

    @property
    def context(self) -> PanelContext:
        """Where the panel works. Raises what kept it from opening."""
        if self._context is None:
            raise self.error or UsageError(Text("The panel is not open.", "面板未打开。"))
        return self._context

    @property
    def monitor(self) -> RunMonitor:
        """The part that shows a run."""
        if self._monitor is None:
            raise self.error or UsageError(Text("The panel is not open.", "面板未打开。"))
        return self._monitor

    # --- what a notebook asks -----------------------------------------------------------------------------------

    @property
    def run(self) -> Run | None:
        """The run that is shown."""
        return self._monitor.run if self._monitor is not None else None

    def run_now(self, wanted: bool = False) -> None:
        """Do headlessly what the panel is for: in practice always, live only when `wanted` or TCB_OPS_RUN_NOW=1.

        Where the panel shows a run already, finished or not, nothing is begun unless `wanted`. Raises TcbOpsError, with all there is to
        say; Ctrl-C ends a run tidily.
        """
        file = result_file()
        try:
            if not isinstance(wanted, bool):  # "false" is true to Python, and this is what sends live
                raise UsageError(
                    Text(
                        f"RUN_NOW = {wanted!r}: write True or False. Nothing was run.",
                        f"RUN_NOW = {wanted!r}：请写 True 或 False。未运行任何内容。",
                    )
                )
            wanted = wanted or os.environ.get(RUN_NOW) == "1"
            context = self.context
            self.worker.settle()
            shown = self._shown_before()
            if not wanted and (not context.simulated or shown is not None):
                if file is not None:
                    tell(
                        file,
                        run=None,
                        report=None,
                        code=0,
                        text=_left_alone(shown) if context.simulated and shown is not None else _NOT_ASKED,
                        title=self._title().of(self.lang),
                    )
                return
            run = self._work()
            folder = self._export(run)
            self.monitor.settle()
        except TcbOpsError as error:
            if isinstance(error, InputError):
                _print_problems(error, self.lang)
            if file is not None:
                problems = render_problems(error.problems, self.lang) if isinstance(error, InputError) else ""
                tell(
                    file,
                    run=self.run,
                    report=None,
                    code=error.exit_code,
                    text=error.text,
                    title=self._title().of(self.lang),
                    page=problems,
                )
            raise
        if file is not None:
            tell(
                file,
                run=run,
                report=folder,
                code=self._exit_code(run),
                text=self._verdict(run),
                title=self._title().of(self.lang),
                screen=self._screen(run),
                page=self._page(run),
            )

    def by_merchant(self) -> Any:
        """Rows by merchant: how many, how many good (DataFrame)."""
        return self._of_run(lambda run: run.by_merchant())

    def errcodes(self) -> Any:
        """Rows by merchant and environment × errcode (DataFrame)."""
        return self._of_run(lambda run: run.errcodes())

    def causes(self) -> Any:
        """What is wrong, by code, merchant and environment, with what to do (DataFrame)."""
        return self._of_run(lambda run: run.causes())

    def settle(self, seconds: float = 600) -> None:
        """Wait until the panel is at rest."""
        self.worker.settle(seconds)
        if self._monitor is not None:
            self._monitor.settle(seconds)

    def _of_run(self, table: Callable[[Run], Any]) -> Any:
        return table(self.run) if self.run is not None else Placeholder(_NO_RUN, self.lang)

    def _exit_code(self, run: Run) -> int:
        return 0 if run.good else 1

    def _shown_before(self) -> Run | None:
        """The run that is shown and would be replaced by the headless one."""
        return self.run

    def _verdict(self, run: Run) -> Text:
        said = verdict(Kind(run.record.kind), run.outcomes, finished=run.record.finished_at is not None)
        late = ran_out(self.monitor.links_run_out, run.record.report)
        return Text(f"{said.en}\n{late.en}", f"{said.zh}\n{late.zh}") if late is not None else said

    def _export(self, run: Run) -> Path:
        out = os.environ.get(HEADLESS_OUT)
        if out and not self.report:
            folder = Path(out) / run.id
        else:
            usual = f"reports/{run.id}"
            # In front of somebody it goes below the notebook: a server opens links to no other files.
            folder = self.context.place(self.report or (usual if in_jupyter_session() else ""), usual)
        return self.monitor.export.put(run, folder)

    def _title(self) -> Text:
        """What a page about the panel's run is called."""
        raise NotImplementedError

    def _screen(self, run: Run) -> list[Any]:
        """What a terminal shows of a headless run, beside its verdict."""
        return terminal_output(run, self.lang)

    def _page(self, run: Run) -> str:
        """What a page shows of it (HTML)."""
        return page_html(run, self.lang)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.run!r}>"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self.view._repr_mimebundle_(**options)
        return bundle | {"text/plain": repr(self)}


def _print_problems(error: InputError, lang: Lang) -> None:
    """Say a list's problems where a terminal or a log shows them; a single one is what the error says."""
    if len(error.problems) == 1:
        return
    for problem in islice(error.problems, PROBLEMS_SHOWN):
        sys.stderr.write(f"{format_problem(error.source, problem, lang)}\n")
