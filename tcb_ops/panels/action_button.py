"""Buttons that act on a run: resume, retry, export; and the confirmation before a run changes something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize
from urllib.parse import quote

import ipywidgets as widgets

from tcb_ops.errors import UsageError
from tcb_ops.formatting import format_size
from tcb_ops.i18n import Lang, Text, _, as_facts, ngettext, verbatim
from tcb_ops.model import Kind, Outcome
from tcb_ops.panels.context import PanelContext, Worker, html_area, show
from tcb_ops.panels.html import esc, message
from tcb_ops.reports.explanations import MARK, environment_count, merchant_count, row_count
from tcb_ops.run import Run

FILES: dict[str, Text] = {
    "report.html": _("the report, to read, print or send on"),
    "report.pdf": _("the report as PDF"),
    "report.xlsx": _("the report as a workbook"),
    "results.csv": _("every row and how it ended"),
    "failed.csv": _("the rows that did not succeed, as a list again"),
    "errcodes.csv": _("errcodes by merchant and environment"),
    "SIMULATED-演练.txt": _("says that the target was a simulator"),
    "manifest.json": _("checksums, settings, versions: the proof"),
}
"""The files of a report folder, in the order in which they are listed."""


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
    ) -> None:
        """`name` is the button's class; `changed` is called when the typed number changes."""
        self._context = context
        self.confirmation = Confirmation(worker, context, f"{name}-confirm", changed)
        self.button = worker.button(label, name, action)
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
        uploads = run is not None and offered and self._context.live and run.record.kind == Kind.UPLOAD
        parts: list[object] = [
            ngettext("{n:,} file", "{n:,} files", rows) if uploads else row_count(rows),
            merchant_count(merchants),
            environment_count(envs),
        ]
        if run is not None and uploads:
            parts.append(format_size(run.planned_bytes(outcomes)))
        self.confirmation.ask(as_facts(parts) if offered else None, merchants)
        show(self, shown=offered)

    def enable(self, *, busy: bool) -> None:
        """Enable the button unless the panel is busy or the confirmation is missing."""
        self.button.disabled = busy or not self.confirmation.confirmed


def file_links(folder: Path, lang: Lang) -> str:
    """List a report folder's files. Links are relative to the notebook, where the folder lies below it."""
    try:
        base = folder.resolve().relative_to(Path.cwd())
    except ValueError:
        base = None
    there = {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
    items = []
    for name in [*(n for n in FILES if n in there), *(n for n in there if n not in FILES)]:
        label = esc(name)
        if base:
            label = f"<a href='{quote((base / name).as_posix())}' target='_blank'>{label}</a>"
        about = FILES[name].of(lang) if name in FILES else ""
        size = format_size(there[name].stat().st_size)
        items.append(f"<li title='{esc(about)}'>{label} <span class='op-quiet'>{esc(size)}</span></li>")
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

    def export(self, run: Run, folder: Path) -> Path:
        """Export to a folder, and list its files."""
        folder = run.export(folder)
        # "Run all" exports a run that the thread that watches it may offer only after this.
        self._run = run
        data = {"text/plain": str(folder), "text/html": file_links(folder, self._worker.lang)}
        self.files.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)
        return folder

    def _export(self) -> None:
        run = self._run
        if run is None:
            raise UsageError(_("There is no run to export yet."))
        self._worker.say(_("Exporting run {id} …", id=run.id), line=self.line)
        folder = self.export(run, Path(self._report) if self._report else Path("reports") / run.id)
        done = _("Run {id} was exported to {folder}.", id=run.id, folder=folder)
        self._worker.say(done, "good", line=self.line)
