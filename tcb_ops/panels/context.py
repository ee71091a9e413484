"""What the parts of a panel share: its target and merchants; its status line, and the thread that does its work.

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

import ipywidgets as widgets

from tcb_ops.errors import TcbOpsError, UsageError
from tcb_ops.i18n import Lang, Text, _, as_facts, as_list, as_sentences
from tcb_ops.lists.merchants import Merchants, read_merchants
from tcb_ops.panels.html import message
from tcb_ops.reports.explanations import merchant_count
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.next_commands import quoted
from tcb_ops.sample import practice
from tcb_ops.settings import SETTINGS_FILE, Settings, is_practising, load_settings, practise_with, system_lang

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
        return _("{where}: {merchants}", where=self.settings.api_base, merchants=merchants)


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
    practise_with(settings if simulated else None)
    if not simulated and settings.origin.file is None and not settings.merchants.exists():
        folder = Path.cwd()
        raise UsageError(
            _(
                'target = "live": there is no {file}, which says where the merchants, the tokens and the ledger are. '
                "Put yours into the notebook's folder, or create one in a terminal, fill it in, and run the panel's cell "
                "again:\n{command}",
                file=folder / SETTINGS_FILE,
                command=quoted(("tcb-ops", "init", "--dir", str(folder))),
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
    "--cluster": _("“Cluster”, or the parameter cluster"),
    "--ledger": _("the setting ledger"),
    "--new-run": _("“start a new run”"),
    "--root": _("“Local files”"),
    "--target": _("the parameter target"),
    "--where": _("the parameter where"),
}
"""The control of a panel for each option of the command line."""


def describe_options(options: Iterable[str], out: Text | None) -> Text | None:
    """Name the controls of a panel for the options of an error; `out` is the one for `--out`. None without options."""
    controls = _CONTROLS | ({"--out": out} if out is not None else {})
    wanted = sorted({option for option in options if option})
    here = [option for option in wanted if option in controls]
    absent = [option for option in wanted if option not in controls]
    found = []
    if here:
        named = as_facts(
            _("{option} is {control}", option=option, control=controls[option]) for option in here
        )
        found.append(_("In this panel, {named}.", named=named))
    if absent:
        found.append(_("A panel has no {options}: use the command line for that.", options=as_list(absent)))
    return as_sentences(found) if found else None


def html_area(name: str, height: str = "") -> widgets.HTML:
    """Make an area that shows HTML. Beyond `height` it scrolls, also by keyboard."""
    if not height:
        return widgets.HTML().add_class(name)
    area = widgets.HTML(layout={"max_height": height, "overflow": "auto"}, tabbable=True)
    return area.add_class(name).add_class("op-scroll")


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

    def say(
        self, text: Text, tone: str = "", options: Iterable[str] = (), *, line: widgets.HTML | None = None
    ) -> None:
        """Show a message in the status line, or in another `line`.

        `tone` is "", good or bad; `options` are the options of the command line that the text names.
        """
        lines = (text.of(self.lang), self.describe_options(options))
        (line or self.line).value = message("\n".join(filter(None, lines)), tone, text.commands())

    def describe_options(self, options: Iterable[str]) -> str:
        """Name this panel's controls for options of the command line; "" without any."""
        found = describe_options(options, self._out)
        return found.of(self.lang) if found is not None else ""

    def report(self, error: Exception, line: widgets.HTML | None = None) -> None:
        """Show an error in the status line, or in another `line`."""
        if isinstance(error, TcbOpsError):
            self.say(error.text, "bad", error.options, line=line)
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
