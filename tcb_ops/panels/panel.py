"""The base of the notebooks' panels: context, worker, the run that is shown, and running unattended."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from tcb_ops.errors import InputError, TcbOpsError, UsageError
from tcb_ops.frames import settings_lang
from tcb_ops.i18n import Lang, Text, _, in_panel, pgettext
from tcb_ops.kinds import Kind
from tcb_ops.lists.input_files import PROBLEMS_SHOWN, format_problem
from tcb_ops.model import Outcome
from tcb_ops.panels.controls import PanelContext, Worker, open_context
from tcb_ops.panels.html import STYLE, describe_result, esc, heading, render_causes, render_merchants
from tcb_ops.panels.list_reader import render_problems
from tcb_ops.panels.run_monitor import RunBrowser, RunMonitor
from tcb_ops.reports.summary import by_code
from tcb_ops.resources import replacing
from tcb_ops.run import Run

RUN_NOW = "TCB_OPS_RUN_NOW"
HEADLESS_OUT = "TCB_OPS_HEADLESS_OUT"
"""The folder of the reports of headless runs; each is under its run's id."""
HEADLESS_RESULT = "TCB_OPS_HEADLESS_RESULT"
"""The file that the headless cell writes its result to, for `tcb-ops notebook`."""
_BY_CELL: dict[str, Panel] = {}
"""The panel that each cell of the notebook shows, by the cell's id."""


@dataclass(frozen=True, slots=True)
class PanelOptions:
    """What a panel is opened with: the parameters of the functions of `tcb_ops.panels`."""

    target: str = "simulator"
    paths: str = ""
    root: str = ""
    where: str = ""
    out: str = ""
    run: str = "latest"
    note: str = ""
    report: str = ""
    lang: str = ""
    cluster: str = ""


class Panel:
    """A panel, displayed as the value of its cell. An error while it opens is shown, not raised."""

    title: Text
    """The title of the panel and of its headless page."""
    kind: Kind | None = None
    """The kind of the runs that it starts and lists; None: it starts none, and lists all."""
    context: PanelContext
    """The panel's target and settings."""
    monitor: RunMonitor
    """The part that shows a run."""

    def __init__(self, given: PanelOptions) -> None:
        languages = {str(lang) for lang in Lang}
        self.given = given
        self.lang = Lang(given.lang) if given.lang in languages else settings_lang()
        self.worker = Worker(self.lang)
        self.error: TcbOpsError | None = None
        """The error that kept the panel from opening."""
        self.view = widgets.VBox([widgets.HTML(STYLE), self.worker.line]).add_class("op-panel")
        try:
            if given.lang not in {"", *languages}:
                raise UsageError(_('lang = "{lang}": write "en" or "zh".', lang=given.lang))
            self.context = open_context(given.target, given.where, self.lang)
            self.monitor = RunMonitor(
                self.worker,
                self.context,
                report=given.report,
                cluster=given.cluster or None,
                changed=self._list_runs,
            )
            parts = self._parts()
            self.runs = RunBrowser(self.worker, self.context, self.kind)
        except TcbOpsError as error:
            self.error = error
            self.worker.report(error)
            return
        menus, actions = self.worker.menus, self.monitor.actions
        actions.children = (*actions.children, *(button for menu in menus for button in menu.buttons))
        self.view.children = [self.view.children[0], self.monitor.header, *menus, *parts]
        self.worker.on_change = self._enable
        self.worker.start(self._open)

    # --- what a panel is made of --------------------------------------------------------------------------------

    def _parts(self) -> list[Any]:
        """Build the panel's menus, and return the parts below them, from top to bottom."""
        return [self.monitor]

    def _open(self) -> None:
        """Prepare the panel, in the background."""

    def _list_runs(self) -> None:
        self._enable()
        self.runs.refresh()
        self.runs.choose(self.run)

    def _enable(self) -> None:
        self.monitor.enable()

    def _work(self) -> Run:
        raise NotImplementedError

    # --- what a notebook asks -----------------------------------------------------------------------------------

    @property
    def run(self) -> Run | None:
        """The run that is shown; None also for a panel that could not be opened, or is closed."""
        return self.monitor.run if self.error is None else None

    def settle(self, seconds: float = 600) -> None:
        """Wait until the panel is idle."""
        self.worker.settle(seconds)
        if self.error is None:
            self.monitor.watched.wait(seconds)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.run!r}>"

    def close(self) -> None:
        """Close the widgets and hold no run's data; a run that works continues."""
        if self.error is None:
            self.monitor.close_run()
            self.error = UsageError(_("The panel is not open."))
            del self.context
        for widget in [*_below(self.view)]:
            widget.close()
        # The notebook's Out holds every panel that was displayed: not its merchants, its list, its tables and their texts.
        self.view.children = ()
        self.worker.menus.clear()
        self.worker.on_change = lambda: None
        for name, part in [*vars(self).items()]:
            if isinstance(part, widgets.Widget) and part is not self.view:
                setattr(self, name, None)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        cell = _current_cell()
        before = _BY_CELL.get(cell)
        if cell:
            _BY_CELL[cell] = self
        if before is not None and before is not self:
            before.close()  # ipywidgets holds all widgets that are not closed, and their data
        return self.view._repr_mimebundle_(**options) | {"text/plain": repr(self)}

    # --- headless -----------------------------------------------------------------------------------------------

    def run_now(self, wanted: bool = False) -> None:
        """Do the panel's work headlessly, and show its result: on the simulator always, live only when `wanted` or TCB_OPS_RUN_NOW=1.

        Where the panel shows a run already, finished or not, nothing is started unless `wanted`. Raises TcbOpsError.
        Ctrl-C ends a run tidily.
        """
        from IPython.display import display

        try:
            if not isinstance(wanted, bool):  # the text "false" is truthy, and this flag starts live runs
                raise UsageError(
                    _("RUN_NOW = {wanted!r}: write True or False. Nothing was run.", wanted=wanted)
                )
            if self.error is not None:
                raise self.error
            self.worker.settle()
            shown = self.run if self.kind is not None else None
            asked = wanted or os.environ.get(RUN_NOW) == "1"
            if not asked and (not self.context.simulated or shown is not None):
                text = _("Nothing was run: the target is live, and RUN_NOW is false.")
                if shown is not None:
                    text = _("Nothing was run: the panel shows run {id}, and RUN_NOW is false.", id=shown.id)
                print(in_panel(text, self.lang))  # noqa: T201  the cell's output
                self._write_result(None, 0, text)
                return
            run = self._work()
            folder = self._export(run)
            self.monitor.watched.wait()
        except TcbOpsError as error:
            problems = ""
            if isinstance(error, InputError):
                for problem in islice(error.problems, PROBLEMS_SHOWN) if len(error.problems) > 1 else ():
                    sys.stderr.write(f"{format_problem(error.source, problem).of(self.lang)}\n")
                problems = render_problems(error.problems, self.lang)
            self._write_result(self.run, error.exit_code, error.text, page=problems)
            raise
        cell = page = self._page(run)
        if in_jupyter_session():  # the panel shows the same
            title = _("Result of the unattended run").of(self.lang)
            cell = f"<details><summary>{esc(title)}</summary>{page}</details>"
        display({"text/plain": repr(run), "text/html": cell}, raw=True)  # type: ignore[no-untyped-call]  # IPython's
        exit_code, expired = int(self.kind is not None and not run.succeeded), self.monitor.expired_links
        self._write_result(run, exit_code, describe_result(run, expired), folder, page=page)

    def _export(self, run: Run) -> Path:
        out, default = os.environ.get(HEADLESS_OUT), f"reports/{run.id}"
        # In a Jupyter session it goes below the notebook: the server opens links to no other files.
        given = self.given.report or (default if in_jupyter_session() else "")
        folder = self.context.output_path(given, default)
        if out and not self.given.report:
            folder = Path(out) / run.id
        return self.monitor.export.export(run, folder)

    def _page(self, run: Run) -> str:
        """Return what a page shows of a headless run (HTML): the causes, what to do, every merchant."""
        causes = [cause for cause in run.overview().causes if cause.code != Outcome.PENDING]
        kind, codes = run.record.kind, ""
        if causes:
            codes = heading(_("What to do").of(self.lang))
            codes += render_causes(by_code(causes), {}, kind, self.lang, asks=False)
        title = pgettext("heading", "Merchants").of(self.lang)
        drawn = render_merchants(run.tallies(), kind, self.lang, title)
        return f'<div class="op-result">{STYLE}{codes}{heading(title)}{drawn}</div>'

    def _write_result(
        self, run: Run | None, exit_code: int, text: Text, report: Path | None = None, *, page: str = ""
    ) -> None:
        """Write the headless cell's result for `tcb-ops notebook`, atomically."""
        file = os.environ.get(HEADLESS_RESULT)
        if not file:
            return
        result = {
            "run": run.id if run is not None else None,
            "report": str(report) if report is not None else None,
            "exit_code": exit_code,
            "text": {"en": text.en, "zh": text.zh},
            "title": self.title.of(self.lang),
            "page": page,
        }
        with replacing(Path(file)) as part:
            part.write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")


def _current_cell() -> str:
    """Return the id of the cell that is being executed; "" where the front end names none."""
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    parent = shell.get_parent() if shell is not None and hasattr(shell, "get_parent") else {}
    return str(parent.get("metadata", {}).get("cellId") or "")


def _below(widget: Any) -> Iterator[Any]:
    """Yield a widget and all that are in it, the innermost first."""
    for child in getattr(widget, "children", ()):
        yield from _below(child)
    yield from (getattr(widget, part) for part in ("layout", "style") if hasattr(widget, part))
    yield widget


def in_jupyter_session() -> bool:
    """Return whether a Jupyter server or Voila, not a program, started this kernel: a user sees the notebook."""
    return any(os.environ.get(name) for name in ("JPY_SESSION_NAME", "VOILA_REQUEST_URL"))
