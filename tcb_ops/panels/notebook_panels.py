"""The panels of the notebooks: their base; links, uploads, any run. Features have more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.engine.list_kinds import LINKS, UPLOAD
from tcb_ops.engine.plan import RunSpec, list_spec
from tcb_ops.errors import UsageError
from tcb_ops.frames import NoRun
from tcb_ops.hooks import BackupHooks, StoredHooks, hooks
from tcb_ops.i18n import NOTHING, Text, _, pgettext
from tcb_ops.kinds import Kind, row_count
from tcb_ops.lists.batch import Batch, facts_line
from tcb_ops.panels.context import LINKS_FILE, PanelContext, RefusedList
from tcb_ops.panels.controls import ActionButton, Menu, Worker, html_area, show, tick_box
from tcb_ops.panels.html import STYLE, render_run_below
from tcb_ops.panels.list_reader import ListReader
from tcb_ops.panels.run_monitor import RunBrowser, RunMonitor
from tcb_ops.run import FOR_USERS, Run, RunHandle
from tcb_ops.start import ResumeOptions, StartOptions, unfinished_run

if TYPE_CHECKING:
    import pandas as pd

_BY_CELL: dict[str, Panel] = {}
"""The panel that each cell of the notebook shows, by the cell's id."""


@dataclass(frozen=True, slots=True)
class PanelOptions:
    """What a panel is opened with: the arguments of the functions of `tcb_ops.panels`."""

    batch: Batch | RefusedList | pd.DataFrame | str | Path = ""
    root: str | Path | None = None
    out: str = ""
    backup: str = ""
    run: str = "latest"
    note: str = ""
    cluster: str = ""


class Panel:
    """A panel, displayed in its cell. An error while it opens is shown, not raised."""

    kind: Kind | None = None
    """The kind of the runs that it starts and lists; None: it starts none, and lists all."""

    def __init__(self, context: PanelContext, given: PanelOptions) -> None:
        self.context, self.given, self.lang = context, given, context.lang
        self.worker = Worker(self.lang)
        self.closed = False
        self.view = widgets.VBox([widgets.HTML(STYLE), self.worker.line]).add_class("op-panel")
        self.monitor = RunMonitor(
            self.worker, context, cluster=given.cluster or None, changed=self._list_runs
        )
        parts = self._parts()
        self.runs = RunBrowser(self.worker, context, self.kind)
        menus, actions = self.worker.menus, self.monitor.actions
        self.below = html_area("op-below")
        self.below.value = render_run_below(self.lang)
        buttons = (button for menu in menus for button in menu.buttons)
        actions.children = (*actions.children, *buttons, self.below)
        body = widgets.VBox([*menus, *parts]).add_class("op-body")
        self.view.children = [self.view.children[0], self.monitor.header, body]
        self.worker.on_change = self._enable
        self.worker.start(self._open)

    # --- what a panel is made of --------------------------------------------------------------------------------

    def _parts(self) -> list[Any]:
        """Build the panel's menus, and return the parts that they cover when they are open."""
        return [self.monitor]

    def _open(self) -> None:
        """Prepare the panel, in the background."""

    def _list_runs(self) -> None:
        self._enable()
        self.runs.refresh()
        self.runs.choose(self.run)

    def _enable(self) -> None:
        self.monitor.enable()
        self._offer_below()

    def _offer_below(self) -> None:
        """Offer to run the cells below, which ask about the run, where there are cells."""
        show(self.below, shown=self.monitor.at_rest and "VOILA_REQUEST_URL" not in os.environ)

    # --- what a notebook asks -----------------------------------------------------------------------------------

    @property
    def run(self) -> Run | None:
        """The run that is shown; None also for a panel that is closed."""
        return None if self.closed else self.monitor.run

    def settle_opening(self, seconds: float = 60) -> None:
        """Wait until the panel has read its list and shows the run that is there; not for a run's end."""
        if not self.closed:
            self.worker.settle(seconds)

    def no_run(self) -> Text:
        """Return why there is no run, and what to do."""
        return _("There is no such run: choose one from the earlier runs of the panel above.")

    def settle(self, seconds: float = 600) -> None:
        """Wait until the panel is idle."""
        self.worker.settle(seconds)
        if not self.closed:
            self.monitor.watched.wait(seconds)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.run!r}>"

    def close(self) -> None:
        """Close the widgets and hold no run's data; a run that works continues."""
        if not self.closed:
            self.monitor.close_run()
            self.closed = True
            del self.context, self.given
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


_OF_A_RUN = frozenset((*FOR_USERS.split(), "_repr_html_"))


class PanelRun(Run):
    """The run that a panel shows: what `panels.upload` and its like return to a person.

    As long as the panel shows none, what is asked of the run is a `NoRun`, which says so in the cell's output.
    """

    panel: Panel

    def __init__(self, panel: Panel) -> None:
        object.__setattr__(self, "panel", panel)

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__
        if name in _OF_A_RUN and (none := own(self, "_none")()) is not None:
            return none._repr_html_ if name == "_repr_html_" else none
        return own(self, name)

    def __getattr__(self, name: str) -> Any:
        """Return what only the run itself has, such as its record: whatever a Run does, it does with the run that is shown."""
        return getattr(self.panel.run, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.panel.run, name, value)

    def _none(self) -> NoRun | None:
        """Return what stands for the run while the panel shows none."""
        self.panel.settle_opening()
        return NoRun(self.panel.no_run(), self.panel.lang) if self.panel.run is None else None

    def __repr__(self) -> str:
        none = self._none()
        return super().__repr__() if none is None else repr(none)


class RunForm(Panel):
    """A panel that starts runs of one kind."""

    kind: Kind

    action: Text
    """What the button that starts a run is called."""

    def no_run(self) -> Text:
        """Return why there is no run, and what to do."""
        if self.closed:
            return _("The panel was closed: run its cell again.")
        if not self.ready:
            return _("No run yet: the panel above says what is missing.")
        return _("No run yet: press {button} above, then run the cells below again.", button=self.action)

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
        parts = [self.ready_line, *inputs, self.new, self.starter]
        self.setup = Menu(worker, _("New run"), "op-new-menu", parts)
        return super()._parts()

    def _open(self) -> None:
        """Check the list, and show its unfinished run, else its newest."""
        self.worker.guarded(self._prepare, self.ready_line)
        self.setup.opened = True
        runs = self.runs.refresh()
        self.runs.choose(None)
        shown = self.unfinished or next(filter(self._is_same_work, runs), None)
        if shown is not None:
            self.setup.opened = False
            self.monitor.attach(shown.id)

    def _is_same_work(self, run: Run) -> bool:
        """Return whether a run, or the one that it retries, did what this panel would do: a run of another list is not shown."""
        record, facts = run.record, self._facts()
        if facts is None or record.kind is not self.kind:
            return False
        work = facts[-1]
        return (record.list_sha256, record.root) == (work.list_sha256, work.root_name)

    def _enable(self) -> None:
        monitor = self.monitor
        self.starter.enable(busy=not self.ready or self.worker.busy or monitor.running)
        show(self.new, shown=self.unfinished is not None)
        monitor.enable(starts=self.ready and self.setup.opened)
        self._offer_below()

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
        more = {"note": self.given.note, "new_run": self.new.value}
        return cast("StartOptions", options | more | {"resume": resume})


class ListPanel(RunForm):
    """A panel whose run works on a list."""

    label: Text

    def _input_parts(self) -> list[Any]:
        self.list_reader = ListReader(
            self.worker,
            self.context,
            self.given.batch,
            root=self.given.root,
            uploads=self.kind.sends_files,
            line=self.ready_line,
            changed=self._changed,
        )
        self.list_reader.paths.observe(lambda _: setattr(self.new, "value", False), "value")
        return [self.list_reader]

    def _prepare(self) -> None:
        self.list_reader.read_given()

    def _facts(self) -> tuple[Text, int, Text, RunSpec] | None:
        if (batch := self.list_reader.batch) is None:
            return None
        label = self.label.format(list_name=batch.source.name, rows=row_count(batch.valid))
        work = list_spec(batch, self.kind)
        return facts_line(batch), batch.merchants_count, label, work

    def _run(self) -> None:
        self.list_reader.read_if_changed()
        super()._run()

    def _batch(self) -> Batch:
        if self.list_reader.batch is None:
            raise UsageError(_("There is no list: pick one."))
        return self.list_reader.batch


class LinksPanel(ListPanel):
    """Checks a list and issues its links."""

    kind, label, action = LINKS, _("Issue links for {list_name} ({rows})"), _("Issue links")

    def _input_parts(self) -> list[Any]:
        out = self.given.out or LINKS_FILE
        self.out = self.worker.field(widgets.Text, _("Links go to"), "op-out", value=out)
        return [*super()._input_parts(), self.out]

    def _start_run(self, options: StartOptions) -> RunHandle:
        return api.start_links(self._batch(), out=Path(self.out.value), **options)


class UploadPanel(ListPanel):
    """Checks a list and its files and uploads them."""

    kind, label, action = UPLOAD, _("Upload {list_name} ({rows})"), pgettext("button", "Upload")

    def _parts(self) -> list[Any]:
        parts = super()._parts()
        if stored := hooks(StoredHooks):
            self.stored = stored.panel(self.worker, self.context, self.monitor)
        return parts

    def _input_parts(self) -> list[Any]:
        none = _("none: files that it replaces cannot be put back").of(self.lang)
        label, given = _("Backup folder"), self.given.backup
        self.backup = self.worker.field(widgets.Text, label, "op-backup", placeholder=none, value=given)
        show(self.backup, shown=hooks(BackupHooks) is not None)
        return [*super()._input_parts(), self.backup]

    def _changed(self) -> None:
        super()._changed()
        if self.unfinished is not None and not self.new.value:
            folder = self.unfinished.record.settings.backup
            self.backup.value = str(Path(folder).parent) if folder else ""

    def _start_run(self, options: StartOptions) -> RunHandle:
        backup = self.backup.value.strip() or None
        return api.start_upload(self._batch(), cluster=self.monitor.cluster, backup=backup, **options)


class RunPanel(Panel):
    """Shows any run, running here or elsewhere, interrupted, or finished."""

    def _open(self) -> None:
        """Show the run that was asked for, and the others."""
        self.runs.refresh()
        self.runs.choose(None)
        self.runs.opened = True
        self.monitor.attach(self.given.run)
        self.runs.opened = False
