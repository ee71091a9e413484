"""What the parts of a panel share: target and merchants; the status line, and the thread that does its work; confirmation and buttons.

ipywidgets may call a button's callback on any thread and drops its exceptions. Every click therefore goes through a
`Worker`, which shows errors as messages and logs the stack trace of a defect.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import normalize
from urllib.parse import quote

import ipywidgets as widgets

from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.features.simulator.sample import practice
from tcb_ops.formatting import format_size
from tcb_ops.found_settings import with_found_file
from tcb_ops.i18n import Lang, Text, _, as_facts, as_list, as_sentences, ngettext, verbatim
from tcb_ops.kinds import environment_count, merchant_count, row_count
from tcb_ops.lists.merchants import Merchants, read_merchants
from tcb_ops.model import Outcome
from tcb_ops.panels.html import esc, message
from tcb_ops.reports.explanations import MARK
from tcb_ops.run import Run
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.next_commands import quoted
from tcb_ops.settings import (
    SETTINGS_FILE,
    Settings,
    is_practising,
    load_settings,
    set_default_settings,
    system_lang,
)

TARGETS = ("simulator", "live")
GENTLE_RATE = 5.0
"""Link calls a second per merchant at the gentle pace."""


@dataclass(frozen=True, slots=True)
class PanelContext:
    """Settings, merchants, and whether the target is the embedded simulator."""

    settings: Settings
    merchants: Merchants
    simulated: bool
    selection: str
    """The selected part of the merchants, as runs record it."""

    @property
    def live(self) -> bool:
        """Whether the target is not on this machine, so that a run has to be confirmed."""
        return not self.settings.on_loopback

    def limits(self, *, gentle: bool = False) -> RunLimits:
        """Return a run's limits; waits are shorter on the simulator."""
        rate = GENTLE_RATE if gentle else None
        if self.simulated:
            return RunLimits(rate=rate, backoff=0.05, slow_wait=0.3, patience=10)
        return RunLimits(rate=rate)

    def output_path(self, given: str, default: str) -> Path:
        """Return the path of a headless run's file: `given` or `default`, on the simulator beside its ledger."""
        if given or not self.simulated:
            return Path(given or default)
        return Path(self.settings.ledger).parent / default

    def describe_target(self) -> Text:
        """Return the target of this panel's calls, in one line."""
        count = len({merchant.appid for merchant in self.merchants})
        merchants = merchant_count(count)
        if self.simulated:
            return _(
                "simulator on this machine, sample data: {merchants}. Nothing reaches WeChat.",
                merchants=merchants,
            )
        where = with_found_file(verbatim(self.settings.api_base), self.settings.origin.found, SETTINGS_FILE)
        return _("{where}: {merchants}", where=where, merchants=merchants)


def settings_lang() -> Lang:
    """Return the language of the settings; where they cannot be read, that of the system."""
    try:
        return load_settings().lang
    except TcbOpsError:
        return system_lang()


def open_context(target: str, where: str, lang: Lang) -> PanelContext:
    """Read the settings and the merchants. Raises TcbOpsError.

    Calls of the library that name no settings use this panel's from now on.

    Args:
        target: simulator, live, or "" for that of the panel that was opened last.
        where: `column=value` items of the merchants file, semicolons between them.
        lang: the language of messages.

    """
    target = target or ("simulator" if is_practising() else "live")
    if target not in TARGETS:
        text = _(
            'target = "{target}": write "simulator" to practise or "live" for the target of tcb-ops.toml.'
        )
        raise UsageError(text.format(target=target))
    simulated = target == "simulator"
    settings = practice(lang) if simulated else load_settings(options={"lang": lang})
    set_default_settings(settings if simulated else None)
    if not simulated and settings.origin.file is None and not settings.merchants.exists():
        folder = Path.cwd()
        raise UsageError(
            _(
                'target = "live": there is no {file}, which says where the merchants, the tokens and the ledger are. '
                "Put yours into the notebook's folder, or create one in a terminal, fill it in, and run the panel's cell "
                "again:\n{command}",
                file=folder / SETTINGS_FILE,
                command=quoted(("tcb-ops", "init", str(folder))),
            )
        )
    items = [item.strip() for item in where.split(";") if item.strip()]
    selection = "; ".join(f"where {item}" for item in sorted(items))
    return PanelContext(settings, read_merchants(settings.merchants, items), simulated, selection)


_LOG = logging.getLogger("tcb_ops.panels")
LINKS_GO_TO = _("“Links go to”")
REPORT = _("the parameter report")
"""What `--out` is called in the links panel, and in the panels that export reports."""
_CONTROLS = {
    "--api-base": _("the setting api_base"),
    "--cluster": _("the parameter cluster"),
    "--ledger": _("the setting ledger"),
    "--new-run": _("“start a new run”"),
    "--root": _("“Local files”"),
    "--target": _("the parameter target"),
    "--where": _("the parameter where"),
}
"""The control of a panel for each option of the command line."""


def html_area(name: str, height: str = "") -> widgets.HTML:
    """Make an area that shows HTML. Beyond `height` it scrolls, also by keyboard."""
    if not height:
        return widgets.HTML().add_class(name)
    area = widgets.HTML(layout={"max_height": height, "overflow": "auto"}, tabbable=True)
    return area.add_class(name).add_class("op-scroll")


def tick_box(label: Text, name: str, lang: Lang, **layout: str) -> widgets.Checkbox:
    """Make a box to tick, with the class `name`."""
    layout["width"] = "auto"
    return widgets.Checkbox(description=label.of(lang), indent=False, layout=layout).add_class(name)


def show(widget: Any, *, shown: bool) -> None:
    """Show a widget, or hide it."""
    widget.layout.display = "" if shown else "none"


def emphasize(button: widgets.Button, *, wanted: bool) -> None:
    """Make a button the prominent one, or one of the others."""
    button.button_style = "primary" if wanted else ""
    (button.add_class if wanted else button.remove_class)("op-next")


class Worker:
    """A panel's status line, and the thread that does one thing at a time."""

    def __init__(self, lang: Lang, out: Text | None = None) -> None:
        """`out`: the panel's control for the command line's `--out`, if it has one."""
        self.lang, self._out = lang, out
        self.line = html_area("op-status")
        self.on_change: Callable[[], None] = lambda: None
        """Called when work begins or ends, to enable and disable buttons."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._newest: threading.Thread | None = None
        """The same thread, kept until `on_change` was called for its end."""
        self._next: Callable[[], object] | None = None
        self._covered: dict[widgets.HTML, tuple[str, str]] = {}
        """What stood in a line before a click was declined, and what stands there since."""

    @property
    def busy(self) -> bool:
        """Whether work is in progress."""
        return self._thread is not None

    def say(self, text: Text, tone: str = "", *, line: widgets.HTML | None = None) -> None:
        """Show a message in the status line, or in another `line`; `tone` is "", good or bad."""
        lines = (text.of(self.lang), self.describe_options([text]))
        (line or self.line).value = message("\n".join(filter(None, lines)), tone, text.commands())

    def describe_options(self, texts: Iterable[Text]) -> str:
        """Name this panel's controls for the options of the command line in texts; "" without any."""
        controls = _CONTROLS | ({"--out": self._out} if self._out is not None else {})
        options = set[str]().union(*(text.options() for text in texts))
        named = [
            _("{option} is {control}", option=option, control=controls[option])
            for option in sorted(options & controls.keys())
        ]
        sentences = [_("In this panel, {named}.", named=as_facts(named))] if named else []
        if absent := sorted(options - controls.keys()):
            sentences.append(
                _("A panel has no {options}: use the command line for that.", options=as_list(absent))
            )
        return as_sentences(sentences).of(self.lang)

    def report(self, error: Exception, line: widgets.HTML | None = None) -> None:
        """Show an error in the status line, or in another `line`."""
        if isinstance(error, TcbOpsError):
            self.say(error.text, "bad", line=line)
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

        While another action is running, this one is declined, or done next if it `waits`. Of several that wait, only the
        last is done.
        """
        job = partial(self.guarded, action, line)
        with self._lock:
            if self._thread is not None:
                if waits:
                    self._next = job
                else:
                    self._decline(line or self.line)
                return
            self._thread = threading.Thread(target=partial(self._do, job), name="tcb-ops-panel", daemon=True)
            thread = self._newest = self._thread
        self.guarded(self.on_change)
        thread.start()

    def settle(self, seconds: float = 600) -> None:
        """Wait until no work is in progress and the buttons show it."""
        thread = self._newest
        if thread is not None:
            thread.join(seconds)

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

    def _decline(self, line: widgets.HTML) -> None:
        """Say in a line, until the step ends, that another one is in progress."""
        before, _shown = self._covered.get(line, (line.value, ""))
        self.say(_("Still busy with the last step; wait a moment."), line=line)
        self._covered[line] = before, line.value

    def _uncover(self) -> None:
        """Show again what stood in the lines, where the step that ended has shown nothing else."""
        for line, (before, shown) in self._covered.items():
            if line.value == shown:
                line.value = before
        self._covered.clear()

    def _do(self, action: Callable[[], object]) -> None:
        doing: Callable[[], object] | None = action
        while doing is not None:
            doing()
            with self._lock:
                doing, self._next = self._next, None
                if doing is None:
                    self._thread = None
                    self._uncover()
        self.guarded(self.on_change)


class Fold(widgets.VBox):
    """Parts below a button that folds them; `line` is beside the button, folded or not."""

    def __init__(
        self, worker: Worker, title: Text, line: widgets.HTML, parts: list[Any], changed: Callable[[], None]
    ) -> None:
        """`changed` is called when the parts are folded or unfolded."""
        self._title, self._changed = title.of(worker.lang), changed
        self.button = worker.button(title, "op-fold", self._toggle, background=False)
        self._parts = widgets.VBox(parts)
        super().__init__([widgets.HBox([self.button, line]).add_class("op-fold-line"), self._parts])
        self.add_class("op-setup")
        self.unfolded = True

    @property
    def unfolded(self) -> bool:
        """Whether the parts are shown."""
        return bool(self._parts.layout.display != "none")

    @unfolded.setter
    def unfolded(self, wanted: bool) -> None:
        show(self._parts, shown=wanted)
        self.button.description = f"{'▾' if wanted else '▸'} {self._title}"
        (self.remove_class if wanted else self.add_class)("op-folded")

    def _toggle(self) -> None:
        self.unfolded = not self.unfolded
        self._changed()


FIRST_FILES = ("report.html", "report.pdf", "report.xlsx", "results.csv", "failed.csv", "errcodes.csv")
"""The files of a report folder that are listed before the others."""


def is_confirmed(typed: str, merchants: int, *, asked: bool) -> bool:
    """Decide whether a run may start.

    ==================  ==============================  ==========
    confirmation        typed                           may start
    ==================  ==============================  ==========
    not asked for       anything                        yes
    asked for           the number, full width or not   yes
    asked for           anything else                   no
    ==================  ==============================  ==========
    """
    return not asked or normalize("NFKC", typed).strip().replace(",", "") == str(merchants)


class Confirmation(widgets.VBox):
    """What a run would change where, and a field for the number of merchants."""

    def __init__(
        self,
        worker: Worker,
        context: PanelContext,
        name: str,
        changed: Callable[[], None],
        *,
        always: bool = False,
    ) -> None:
        """`changed` is called when the typed number changes. Unless `always`, only a live target is confirmed."""
        self._lang, self._context, self._merchants = worker.lang, context, 0
        self._always = always
        self.facts = html_area(name)
        self.count = worker.field(
            widgets.Text, _("Merchants"), f"{name}-count", "16rem", continuous_update=True
        )
        self.count.observe(lambda _: changed(), "value")
        super().__init__([self.facts, self.count])
        show(self, shown=False)

    @property
    def _asks(self) -> bool:
        return self._always or self._context.live

    @property
    def confirmed(self) -> bool:
        """Whether the run may start."""
        return is_confirmed(str(self.count.value), self._merchants, asked=self._asks)

    def check(self) -> None:
        """Raise UsageError where the run may not start: the number may be reset while a click is on its way."""
        if not self.confirmed:
            text = _("Type the number of merchants ({merchants}) first. Nothing was sent.")
            raise UsageError(text.format(merchants=self._merchants))

    def ask(self, facts: Text | None, merchants: int) -> None:
        """Ask for a confirmation of these facts; None: there is nothing to start."""
        self._merchants = merchants
        self.count.value = ""
        show(self, shown=self._asks and facts is not None)
        if facts is not None:
            asked = _(
                "{mark}: {target}\n{facts}\nType the number of merchants ({merchants}) to enable the button.",
                mark=_("LIVE") if self._context.live else verbatim(MARK),
                target=self._context.settings.run_target,
                facts=facts,
                merchants=merchants,
            )
            self.facts.value = message(asked.of(self._lang), "bad")


class ActionButton(widgets.VBox):
    """A button that is shown while a run has rows for it, below its confirmation."""

    def __init__(
        self,
        worker: Worker,
        context: PanelContext,
        label: Text,
        name: str,
        action: Callable[[], None],
        *,
        changed: Callable[[], None],
        always: bool = False,
        **options: Any,
    ) -> None:
        """`name` is the button's class; `changed` is called when the typed number changes. `always`: see Confirmation."""
        self._context = context
        self.confirmation = Confirmation(worker, context, f"{name}-confirm", changed, always=always)
        self.button = worker.button(label, name, action, **options)
        super().__init__([self.confirmation, self.button])
        show(self, shown=False)

    @property
    def offered(self) -> bool:
        """Whether the button is shown."""
        return bool(self.layout.display != "none")

    def offer(self, run: Run | None, outcomes: frozenset[Outcome], *, even_without: bool = False) -> None:
        """Show the button for a run with rows of these outcomes, or `even_without` any; None hides it."""
        found = [one for one in run.tallies() if one.outcome in outcomes] if run is not None else []
        rows = sum(one.rows for one in found)
        merchants, envs = len({one.appid for one in found}), len({(one.appid, one.env) for one in found})
        offered = run is not None and (rows > 0 or even_without)
        uploads = run is not None and offered and self._context.live and run.record.kind.sends_files
        parts: list[object] = [
            ngettext("{n:,} file", "{n:,} files", rows) if uploads else row_count(rows),
            merchant_count(merchants),
            environment_count(envs),
        ]
        if run is not None and uploads:
            parts.append(format_size(run.planned_bytes(outcomes)))
        self.ask(as_facts(parts) if offered else None, merchants)

    def ask(self, facts: Text | None, merchants: int) -> None:
        """Show the button and ask for a confirmation of these facts; None hides it."""
        self.confirmation.ask(facts, merchants)
        show(self, shown=facts is not None)

    def enable(self, *, busy: bool) -> None:
        """Enable the button unless the panel is busy or the confirmation is missing."""
        self.button.disabled = busy or not self.confirmation.confirmed


def file_links(folder: Path) -> str:
    """List a report folder's files. Links are relative to the notebook, where the folder lies below it."""
    try:
        base = folder.resolve().relative_to(Path.cwd())
    except ValueError:
        base = None
    files = {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
    items = []
    for name in sorted(
        files, key=lambda name: FIRST_FILES.index(name) if name in FIRST_FILES else len(FIRST_FILES)
    ):
        label = esc(name)
        if base:
            label = f"<a href='{quote((base / name).as_posix())}' target='_blank'>{label}</a>"
        items.append(
            f"<li>{label} <span class='op-quiet'>{esc(format_size(files[name].stat().st_size))}</span></li>"
        )
    return f"<ul class='op-file-list'>{''.join(items)}</ul>"


class ExportButton(widgets.VBox):
    """The button that exports a run. `files` lists what it wrote."""

    def __init__(self, worker: Worker, report: str = "") -> None:
        self._worker, self._report = worker, report
        self._run: Run | None = None
        self.line = html_area("op-export-status")
        """The status of the export; the run's own stays."""
        self.button = worker.button(_("Export every format"), "op-export", self._export, line=self.line)
        self.files = widgets.Output().add_class("op-files")
        super().__init__([self.button])
        self.offer(None)

    @property
    def exported(self) -> bool:
        """Whether the run that is shown was exported here."""
        return bool(self.files.outputs)

    def offer(self, run: Run | None) -> None:
        """Show the button for a run; None hides it."""
        if run is None or self._run is None or run.id != self._run.id:
            self.files.outputs, self.line.value = (), ""
        self._run = run
        show(self, shown=run is not None)

    def export(self, run: Run, folder: Path, *, pdf: bool = False) -> Path:
        """Export to a folder, and list its files."""
        folder = run.export(folder, pdf=pdf)
        # "Run all" exports a run that the thread that watches it may offer only after this.
        self._run = run
        data = {"text/plain": str(folder), "text/html": file_links(folder)}
        self.files.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)
        return folder

    def _export(self) -> None:
        from tcb_ops.reports.formats.html import find_chromium

        run = self._run
        if run is None:
            raise UsageError(_("There is no run to export yet."))
        self._worker.say(_("Exporting run {id} …", id=run.id), line=self.line)
        folder = Path(self._report) if self._report else Path("reports") / run.id
        self.export(run, folder, pdf=find_chromium() is not None)
        done = _("Run {id} was exported to {folder}.", id=run.id, folder=folder)
        self._worker.say(done, "good", line=self.line)
