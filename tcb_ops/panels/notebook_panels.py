"""The panels of the notebooks: their base, which can run unattended; links, uploads, reports. Features have more."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import InputError, TcbOpsError, UsageError
from tcb_ops.frames import settings_lang
from tcb_ops.i18n import NOTHING, Lang, Text, _, in_panel, pgettext
from tcb_ops.kinds import Kind, is_provided, provided, row_count
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.input_files import PROBLEMS_SHOWN, format_problem
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Outcome
from tcb_ops.panels.controls import (
    ActionButton,
    Menu,
    PanelContext,
    Worker,
    html_area,
    open_context,
    show,
    tick_box,
)
from tcb_ops.panels.html import STYLE, describe_result, esc, heading, render_causes, render_merchants
from tcb_ops.panels.list_reader import ListReader, render_problems
from tcb_ops.panels.run_monitor import RunBrowser, RunMonitor
from tcb_ops.preflight import facts_line
from tcb_ops.reports.summary import by_code
from tcb_ops.resources import replacing, sample_folder
from tcb_ops.run import Run, RunHandle
from tcb_ops.runs.list_kinds import LINKS, UPLOAD
from tcb_ops.runs.plan import RunSpec, list_spec
from tcb_ops.runs.progress import Progress
from tcb_ops.start import ResumeOptions, StartOptions, unfinished_run

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
            asked = wanted or os.environ.get("TCB_OPS_RUN_NOW") == "1"
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
        """Export a headless run: below TCB_OPS_HEADLESS_OUT it is under its id."""
        out, default = os.environ.get("TCB_OPS_HEADLESS_OUT"), f"reports/{run.id}"
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
        """Write the headless cell's result to TCB_OPS_HEADLESS_RESULT for `tcb-ops notebook`, atomically."""
        file = os.environ.get("TCB_OPS_HEADLESS_RESULT")
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


class RunForm(Panel):
    """A panel that starts runs of one kind."""

    kind: Kind

    def _start_run(self, options: StartOptions) -> RunHandle:
        raise NotImplementedError

    def _facts(self) -> tuple[Text, int, Text, RunSpec] | None:
        """Return what a run would reach, the number of merchants, the button's label, and the work; None without any."""
        raise NotImplementedError

    def _input_parts(self) -> list[Any]:
        return []

    def _prepare(self) -> None:
        """Prepare what the run needs. Raises TcbOpsError."""

    def _parts(self) -> list[Any]:
        lang, worker = self.lang, self.worker
        self.ready_line = html_area("op-ready")
        """The state of what a run would work on; that of the run stands in the header."""
        inputs = self._input_parts()
        self.ready, self.unfinished = False, cast("Run | None", None)
        """Whether there is something to run; the unfinished run of it."""
        self.new = tick_box(_("start a new run, even if one of this list is unfinished"), "op-new", lang)
        self.new.observe(lambda _: worker.guarded(self._changed), "value")
        self.starter = ActionButton(worker, self.context, NOTHING, "op-run", self._run)
        self.start = self.starter.button
        parts = [self.ready_line, *inputs, self.new]
        self.setup, actions = Menu(worker, _("New run"), "op-new-menu", parts), self.monitor.actions
        actions.children = (self.starter, *actions.children)
        return super()._parts()

    def _open(self) -> None:
        """Check the list, and show its unfinished run, else the newest of the panel's kind."""
        self.worker.guarded(self._prepare, self.ready_line)
        self.setup.opened = True
        runs = [run for run in self.runs.refresh() if run.record.kind is self.kind]
        self.runs.choose(None)
        if runs:
            self.setup.opened = False
            self.monitor.attach((self.unfinished or runs[0]).id)

    def _enable(self) -> None:
        monitor = self.monitor
        self.starter.enable(busy=not self.ready or self.worker.busy or monitor.running)
        is_next = self.ready and not monitor.running and (monitor.state is None or self.setup.opened)
        show(self.starter, shown=is_next)
        show(self.new, shown=self.unfinished is not None)
        monitor.enable(starts=is_next)

    def _list_runs(self) -> None:
        self._changed()
        super()._list_runs()

    def _changed(self) -> None:
        """Name what would be run, and ask for its confirmation again."""
        facts, merchants, label, work = self._facts() or (None, 0, NOTHING, None)
        self.ready, self.unfinished = work is not None, None
        self.starter.ask(facts, merchants, label)
        self._enable()
        if work is not None and (rest := unfinished_run(work, self.context.settings)) is not None:
            self.unfinished = rest
            if not self.new.value:
                self.starter.offer_rest(rest)
            self._enable()

    def _run(self) -> None:
        """Start a run of the list, or resume its unfinished one."""
        rest = self.unfinished.id if self.unfinished is not None and not self.new.value else None
        self.monitor.start(lambda options: self._start_run(self._options(options, rest)), self.starter)
        self.new.value = False
        self.setup.opened = False

    def _options(self, options: ResumeOptions, resume: str | None = None) -> StartOptions:
        more = {"note": self.given.note, "selection": self.context.selection, "new_run": self.new.value}
        return cast("StartOptions", options | more | {"resume": resume})

    def _work(self) -> Run:
        if not self.ready:
            self._prepare()
        handle = self._start_run(self._options(self.context.run_options()))
        self.setup.opened = False

        def follow(progress: Iterator[Progress]) -> None:
            self.monitor.follow(handle, in_cell=True)
            deque(progress, maxlen=0)

        handle.follow(follow)  # Ctrl-C in there cancels the run, tidily
        return handle.wait()


class ListPanel(RunForm):
    """A panel whose run works on a list."""

    label: Text

    def _input_parts(self) -> list[Any]:
        self.list_reader = ListReader(
            self.worker,
            self.context,
            self.given.paths,
            root=self.given.root if self.kind.sends_files else None,
            line=self.ready_line,
            changed=self._changed,
        )
        self.list_reader.paths.observe(lambda _: setattr(self.new, "value", False), "value")
        return [self.list_reader]

    def _prepare(self) -> None:
        self.list_reader.read()

    def _facts(self) -> tuple[Text, int, Text, RunSpec] | None:
        if (batch := self.list_reader.batch) is None:
            return None
        label = self.label.format(list_name=batch.source.name, rows=row_count(batch.valid))
        work = list_spec(batch, self.kind, self.context.selection)
        return facts_line(batch), batch.merchants_count, label, work

    def _run(self) -> None:
        self.list_reader.read_if_changed()
        super()._run()

    def _batch(self) -> Batch:
        if self.list_reader.batch is None:
            raise UsageError(_('There is no list: pick one, or set the parameter paths = "…".'))
        return self.list_reader.batch


class LinksPanel(ListPanel):
    """Checks a list and issues its links."""

    kind, label = LINKS, _("Issue links for {list_name} ({rows})")
    title = _("Upload links")

    def _input_parts(self) -> list[Any]:
        out = self.given.out or "links.csv"
        self.out = self.worker.field(widgets.Text, _("Links go to"), "op-out", value=out)
        return [*super()._input_parts(), self.out]

    def _start_run(self, options: StartOptions) -> RunHandle:
        return api.start_links(self._batch(), out=Path(self.out.value), **options)

    def _work(self) -> Run:
        self.out.value = str(self.context.output_path(self.given.out, "links.csv"))
        return super()._work()


class UploadPanel(ListPanel):
    """Checks a list and its files and uploads them."""

    kind, label = UPLOAD, _("Upload {list_name} ({rows})")
    title = _("Uploads")

    def _parts(self) -> list[Any]:
        parts = super()._parts()
        if is_provided("stored_files"):
            self.stored = provided("stored_files")(self.worker, self.context, self.monitor)
        return parts

    def _input_parts(self) -> list[Any]:
        none = _("none: files that it replaces cannot be put back").of(self.lang)
        self.backup = self.worker.field(widgets.Text, _("Backup folder"), "op-backup", placeholder=none)
        show(self.backup, shown=is_provided("backup_folder"))
        return [*super()._input_parts(), self.backup]

    def _changed(self) -> None:
        super()._changed()
        if self.unfinished is not None and not self.new.value:
            folder = self.unfinished.record.settings.get("backup")
            self.backup.value = str(Path(folder).parent) if folder else ""

    def _start_run(self, options: StartOptions) -> RunHandle:
        backup = self.backup.value.strip() or None
        return api.start_upload(self._batch(), cluster=self.monitor.cluster, backup=backup, **options)


class RunPanel(Panel):
    """Shows any run, running here or elsewhere, interrupted, or finished, and exports it."""

    title = _("Run report")

    def _open(self) -> None:
        """Show the run that was asked for, and the others. With the sample, make one where there is none."""
        self.runs.opened = True
        if not self.runs.refresh() and self.context.sample:
            self.worker.say(_("Preparing a simulated run to show …"))
            folder = sample_folder()
            with read_paths(folder / "paths.csv", self.context.merchants, folder / "files") as batch:
                api.upload(batch, **self.context.run_options())
            self.runs.refresh()
        self.runs.choose(None)
        self.monitor.attach(self.given.run)

    def _work(self) -> Run:
        if self.run is None:
            self._open()
        if self.run is None:
            raise UsageError(_("There is no run to export."))
        return self.run
