"""The panels of the notebooks: links, uploads, reports; features have more."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import UsageError
from tcb_ops.i18n import NOTHING, Text, _
from tcb_ops.kinds import Kind, is_provided, provided, row_count
from tcb_ops.lists.batch import Batch
from tcb_ops.lists.paths import read_paths
from tcb_ops.panels.controls import ActionButton, Menu, html_area, show, tick_box
from tcb_ops.panels.list_reader import ListReader
from tcb_ops.panels.panel import Panel
from tcb_ops.preflight import facts_line
from tcb_ops.resources import sample_folder
from tcb_ops.run import Run, RunHandle
from tcb_ops.runs.list_kinds import LINKS, UPLOAD
from tcb_ops.runs.plan import RunSpec, list_spec
from tcb_ops.runs.progress import Progress
from tcb_ops.start import ResumeOptions, StartOptions, unfinished_run


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
