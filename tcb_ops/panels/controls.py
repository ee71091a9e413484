"""What the parts of a panel share: the status line, and the thread that does its work; confirmation and buttons.

ipywidgets may call a button's callback on any thread and drops its exceptions. Every click therefore goes through a
`Worker`, which shows errors as messages and logs the stack trace of a defect.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

import ipywidgets as widgets

from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.formatting import format_size
from tcb_ops.hooks import PdfHooks, hooks
from tcb_ops.i18n import NOTHING, Lang, Text, _, as_facts, in_panel, pgettext, verbatim
from tcb_ops.model import Outcome
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.html import file_links, message, report_links
from tcb_ops.preflight import SendScope, is_confirmed, scope_of_rows
from tcb_ops.reports.explanations import MARK
from tcb_ops.run import Run

_LOG = logging.getLogger("tcb_ops.panels")
_idle_threads: deque[SimpleQueue[Callable[[], None]]] = deque()


def in_thread(job: Callable[[], None]) -> threading.Event:
    """Do a job in a daemon thread; return what is set at its end.

    A thread is used again: the memory that the allocator keeps for each new one would add up over a day's runs.
    """
    ended = threading.Event()
    try:
        jobs = _idle_threads.pop()
    except IndexError:
        jobs = SimpleQueue()
        threading.Thread(target=_serve, args=(jobs,), name="tcb-ops-panel", daemon=True).start()

    def do() -> None:
        job()
        _idle_threads.append(jobs)
        ended.set()

    jobs.put(do)
    return ended


def _serve(jobs: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        jobs.get()()


def html_area(name: str) -> widgets.HTML:
    """Make an area that shows HTML."""
    return widgets.HTML().add_class(name)


def tick_box(label: Text, name: str, lang: Lang, **layout: str) -> widgets.Checkbox:
    """Make a box to tick, with the class `name`."""
    layout["width"] = "auto"
    return widgets.Checkbox(description=label.of(lang), indent=False, layout=layout).add_class(name)


def show(widget: Any, *, shown: bool) -> None:
    """Show a widget, or hide it."""
    widget.layout.display = "" if shown else "none"


class Worker:
    """A panel's status line, and the thread that does one thing at a time."""

    def __init__(self, lang: Lang) -> None:
        self.lang = lang
        self.line = html_area("op-status")
        self.on_change: Callable[[], None] = lambda: None
        """Called when work begins or ends or something is typed, to enable and disable buttons."""
        self.menus: list[Menu] = []
        """The panel's menus."""
        self.standing = ""
        """What the status line says of the run, without what an action said."""
        self._lock = threading.Lock()
        self.busy = False
        """Whether work is in progress."""
        self._ended = threading.Event()
        """Of the newest work: set when `on_change` was called for its end."""
        self._ended.set()
        self._next: Callable[[], object] | None = None

    def say(
        self, text: Text, tone: str = "", *, line: widgets.HTML | None = None, stays: bool = False
    ) -> None:
        """Show a message in the status line, or in another `line`; `tone` is "", good or bad.

        What `stays` is what the run comes to: the next action restores it.
        """
        with self._lock:
            (line or self.line).value = value = message(in_panel(text, self.lang), tone, text.commands())
            self.standing = value if stays else self.standing

    def report(self, error: Exception, line: widgets.HTML | None = None) -> None:
        """Show an error in the status line, or in another `line`, without a fix that is a command to type."""
        if isinstance(error, TcbOpsError):
            typed = error.fix is not None and error.fix.commands()
            self.say(error.problem if typed else error.text, "bad", line=line)
            return
        _LOG.error("a defect in a panel", exc_info=error)
        text = _(
            "Internal error in tcb-ops ({what}); see the log for details. Everything in the ledger is safe."
        )
        self.say(text.format(what=type(error).__name__), "bad", line=line)

    def guarded(self, action: Callable[[], None], line: widgets.HTML | None = None) -> bool:
        """Do something at once and show its error; return whether it succeeded."""
        try:
            action()
        except Exception as error:  # noqa: BLE001  the last place where it can be shown
            self.report(error, line)
            return False
        return True

    def start(
        self, action: Callable[[], None], *, waits: bool = False, line: widgets.HTML | None = None
    ) -> None:
        """Do something in the background, one action at a time; its error is shown in `line`.

        While another action is running, this one is dropped, or done next if it `waits`. Of several that wait, only the
        last is done.
        """
        job = partial(self.guarded, action, line)
        with self._lock:
            if self.busy:
                self._next = job if waits else self._next
                return
            self.busy, self.line.value = True, self.standing
        self.guarded(self.on_change)
        self._ended = in_thread(partial(self._do, job))

    def settle(self, seconds: float = 600) -> None:
        """Wait until no work is in progress and the buttons show it."""
        self._ended.wait(seconds)

    def button(
        self,
        label: Text,
        name: str,
        action: Callable[[], None],
        *,
        background: bool = True,
        line: widgets.HTML | None = None,
        **options: Any,
    ) -> widgets.Button:
        """Make a button with the class `name`; a click does `action`, in the background or at once."""
        options = {"layout": {"width": "auto", "align_self": "flex-start"}} | options
        button = widgets.Button(description=label.of(self.lang), **options)
        button.on_click(lambda _: self.start(action, line=line) if background else self.guarded(action, line))
        return button.add_class(name)

    def field(
        self, kind: Callable[..., Any], label: Text, name: str, width: str = "44rem", **options: Any
    ) -> Any:
        """Make a field with a label, such as a Text or a Dropdown, with the class `name`."""
        style, layout = {"description_width": "7rem"}, {"width": width}
        return kind(description=label.of(self.lang), layout=layout, style=style, **options).add_class(name)

    def _do(self, action: Callable[[], object]) -> None:
        doing: Callable[[], object] | None = action
        while doing is not None:
            doing()
            with self._lock:
                doing, self._next = self._next, None
                self.busy = doing is not None
        self.guarded(self.on_change)


class Menu(widgets.VBox):
    """A box over the run's tabs that its button opens and closes; of several in one panel, one is open at a time.

    The button's classes are `op-opens` and, while the box is open, `op-opened`: the browser sets `aria-expanded` by them.
    """

    def __init__(self, worker: Worker, title: Text, name: str, parts: list[Any]) -> None:
        """`name` is the class of the button."""
        self._worker, self._lang = worker, worker.lang
        self.button = worker.button(title, name, self._toggle, background=False).add_class("op-opens")
        self.buttons = [self.button]
        """What stands in the header."""
        super().__init__(parts)
        self.add_class("op-menu")
        worker.menus.append(self)
        self.opened = False

    @property
    def opened(self) -> bool:
        """Whether the parts are shown."""
        return bool(self.layout.display != "none")

    @opened.setter
    def opened(self, wanted: bool) -> None:
        if wanted:
            for menu in self._worker.menus:
                menu.opened = False
        show(self, shown=wanted)
        change = self.button.add_class if wanted else self.button.remove_class
        change("op-opened")

    def offer(self, *, shown: bool) -> None:
        """Show the button, or hide it with the parts."""
        self.opened = self.opened and shown
        show(self.button, shown=shown)

    def prepare(self) -> None:
        """Bring the parts up to date; called when somebody opens them."""

    def show_run(self, run: Run | None) -> None:
        """Offer what can be done with a run that no process works on; None: no such run is shown."""

    def enable(self, *, busy: bool) -> None:
        """Enable the buttons that may be pressed."""

    def _toggle(self) -> None:
        self.opened = not self.opened
        self._worker.line.value = self._worker.standing
        if self.opened:
            self.prepare()
        self._worker.on_change()


class ActionButton(widgets.VBox):
    """A button in a block with its confirmation: what a run would change where, and a field for the number of merchants."""

    def __init__(
        self,
        worker: Worker,
        context: PanelContext,
        label: Text,
        name: str,
        action: Callable[[], None],
        *,
        always: bool = False,
        style: str = "primary",
    ) -> None:
        """`name` is the button's class. Unless `always`, only a live target is confirmed."""
        self._lang, self._context, self._merchants = worker.lang, context, 0
        self._asks = always or context.live
        self.facts = html_area(f"{name}-confirm")
        hint = _("number of merchants").of(worker.lang)
        self.count = worker.field(widgets.Text, NOTHING, f"{name}-confirm-count", "auto", placeholder=hint)
        self.count.style.description_width = "auto"
        self.count.observe(lambda _: worker.on_change(), "value")
        self.button = worker.button(label, name, action, button_style=style)
        super().__init__([self.facts, widgets.HBox([self.count, self.button])])
        self.add_class("op-action")
        self.ask(None, 0, label)

    @property
    def confirmed(self) -> bool:
        """Whether the run may start."""
        return is_confirmed(str(self.count.value), self._merchants, asked=self._asks)

    def check(self) -> None:
        """Raise UsageError where the run may not start: the number may be reset while a click is on its way."""
        if not self.confirmed:
            text = _("Type the number of merchants ({merchants}) first. Nothing was sent.")
            raise UsageError(text.format(merchants=self._merchants))

    def offer_rest(self, run: Run) -> None:
        """Show the button for the pending rows of an unfinished run; one without any lacks only its end."""
        pending = frozenset({Outcome.PENDING})
        scope, rows = scope_of_rows(run.tallies(), pending), run.record.kind.unit_count(run.record.rows)
        label = _("Resume {list_name}: {pending:,} of {rows} pending")
        label = label.format(list_name=run.record.list_name, pending=scope.rows, rows=rows)
        self.offer(run, scope, label, run.planned_bytes(pending))

    def offer(self, run: Run, scope: SendScope, label: Text, size: int | None = None) -> None:
        """Show the button for these rows of a run; `size`: the bytes of their files."""
        sized = [format_size(size)] if run.record.kind.sends_files and size is not None else []
        self.ask(as_facts((scope.text, *sized)), scope.merchants, label)

    def ask(self, facts: Text | None, merchants: int, label: Text = NOTHING) -> None:
        """Show the button and ask for a confirmation of these facts; None hides it."""
        self._merchants, self.count.value, self.button.description = merchants, "", label.of(self._lang)
        self.count.description = _("Type {merchants}", merchants=merchants).of(self._lang)
        show(self, shown=facts is not None)
        for part in (self.facts, self.count):
            show(part, shown=self._asks)
        if facts is not None and self._asks:
            mark, target = (
                _("LIVE") if self._context.live else verbatim(MARK),
                self._context.settings.run_target,
            )
            asked = _("{mark}: {target}\n{facts}", mark=mark, target=target, facts=facts)
            self.facts.value = message(in_panel(asked, self._lang), "bad")

    def enable(self, *, busy: bool) -> None:
        """Enable the button unless the panel is busy or the confirmation is missing."""
        self.button.disabled = busy or not self.confirmed


class ExportMenu(Menu):
    """Exports a run, or its last state after its retries. `files` lists what was written."""

    def __init__(self, worker: Worker, exported: Callable[[], None]) -> None:
        """`exported` is called when the files are there."""
        self._exported = exported
        self._run: Run | None = None
        self.line = html_area("op-export-status")
        """The status of the export; the run's own stays."""
        self.this = worker.button(pgettext("export", "This run"), "op-export", self._export, line=self.line)
        final, label = partial(self._export, final=True), pgettext("export", "With its retries")
        self.final = worker.button(label, "op-export-final", final, line=self.line)
        self.files = html_area("op-files")
        super().__init__(worker, _("Export"), "op-export-menu", [widgets.HBox([self.this, self.final])])
        self.show_run(None)

    def show_run(self, run: Run | None) -> None:
        """Offer the export of a run, and list the files of its report."""
        if run is None or self._run is None or run.id != self._run.id:
            self.files.value, self.line.value = report_links(run, self._lang) if run is not None else "", ""
        self._run = run
        self.offer(shown=run is not None)
        show(self.final, shown=run is not None and run.has_retries)

    def enable(self, *, busy: bool) -> None:
        """Enable the buttons that may be pressed."""
        self.this.disabled = self.final.disabled = busy

    def _export(self, *, final: bool = False) -> None:
        if (run := self._run) is None:
            raise UsageError(_("There is no run to export yet."))
        self._worker.say(_("Exporting run {id} …", id=run.id), line=self.line)
        self._exported()
        chosen = run.final() if final else run
        folder = chosen.settings.reports / f"{chosen.id}{'-final' * final}"
        printing = hooks(PdfHooks)
        chosen.export(folder, pdf=printing is not None and printing.find_chromium() is not None)
        self.files.value = file_links(folder)
        done = _("Run {id} was exported to {folder}.", id=chosen.id, folder=folder)
        self._worker.say(done, "good", line=self.line)
