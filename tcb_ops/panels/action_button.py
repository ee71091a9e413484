"""Buttons that act on a run: resume, retry, export; before a live target the number of merchants is typed in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize
from urllib.parse import quote

import ipywidgets as widgets

from tcb_ops.errors import UsageError
from tcb_ops.formatting import format_size
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.model import Kind, Outcome
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.html import esc, message
from tcb_ops.panels.worker import Worker, html_area, show
from tcb_ops.run import Run

FILES: dict[str, Text] = {
    "report.html": Text("the report, to read, print or send on", "报告，可阅读、打印或转发"),
    "report.pdf": Text("the report as PDF", "PDF 报告"),
    "report.xlsx": Text("the report as a workbook", "Excel 报告"),
    "results.csv": Text("every row and how it ended", "所有行及其结果"),
    "failed.csv": Text("the rows that did not succeed, as a list again", "未成功的行：可作为清单再次使用"),
    "errcodes.csv": Text("errcodes by merchant and environment", "按商户和环境统计的错误码"),
    "SIMULATED-演练.txt": Text("says that the target was a simulator", "标明这是一次演练"),
    "manifest.json": Text("checksums, settings, versions: the proof", "校验和、设置、版本：存证"),
}
"""The files of a report folder, in the order in which people want them."""


def is_confirmed(typed: str, merchants: int, *, live: bool) -> bool:
    """Decide whether a run may start.

    ==================  ==============================  ==========
    target              typed                           may start
    ==================  ==============================  ==========
    on this machine     anything                        yes
    live                the number, full width or not   yes
    live                anything else                   no
    ==================  ==============================  ==========
    """
    return not live or normalize("NFKC", typed).strip().replace(",", "") == str(merchants)


class LiveConfirmation(widgets.VBox):
    """Shows what is about to be sent where, and asks for the number of merchants. Hidden unless the target is live."""

    def __init__(self, worker: Worker, context: PanelContext, name: str, changed: Callable[[], None]) -> None:
        """`changed` is called when something else is typed."""
        self._lang, self._context, self._merchants = worker.lang, context, 0
        self.facts = html_area(name)
        self.count = worker.field(
            widgets.Text, Text("Merchants", "商户数"), f"{name}-count", "16rem", continuous_update=True
        )
        self.count.observe(lambda _: changed(), "value")
        super().__init__([self.facts, self.count])
        show(self, shown=False)

    @property
    def confirmed(self) -> bool:
        """Whether the run may start."""
        return is_confirmed(str(self.count.value), self._merchants, live=self._context.live)

    def check(self) -> None:
        """Raise UsageError where the run may not start: a click may have been on its way when the number was reset."""
        if not self.confirmed:
            raise UsageError(
                Text(
                    f"Type the number of merchants ({self._merchants}) first. Nothing was sent.",
                    f"请先输入商户数（{self._merchants}）。未发送任何内容。",
                )
            )

    def ask(self, facts: Text | None, merchants: int) -> None:
        """Ask again, for other facts; None when there is nothing to start."""
        self._merchants = merchants
        self.count.value = ""
        show(self, shown=self._context.live and facts is not None)
        if facts is not None:
            target = self._context.settings.api_base
            asked = Text(
                f"LIVE: {target}\n{facts.en}\nType the number of merchants ({merchants}) to enable the button.",
                f"线上目标：{target}\n{facts.zh}\n请输入商户数（{merchants}）以启用按钮。",
            )
            self.facts.value = message(asked.of(self._lang), "bad")


def count_rows(run: Run, outcomes: frozenset[Outcome]) -> tuple[int, int, int]:
    """Count (rows, merchants, environments) of a run's rows with these outcomes."""
    found = [tally for tally in run.tallies() if tally.outcome in outcomes]
    return (
        sum(tally.rows for tally in found),
        len({tally.appid for tally in found}),
        len({(tally.appid, tally.env) for tally in found}),
    )


class ActionButton(widgets.VBox):
    """A button that is shown while a run has rows for it, with a confirmation of its own."""

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
        """`name` is the button's class; `changed` is called when something else is typed into the confirmation."""
        self._context = context
        self.confirmation = LiveConfirmation(worker, context, f"{name}-confirm", changed)
        self.button = worker.button(label, name, action)
        super().__init__([self.confirmation, self.button])
        show(self, shown=False)

    def offer(self, run: Run | None, outcomes: frozenset[Outcome], *, even_without: bool = False) -> None:
        """Offer it for a run's rows with these outcomes, `even_without` any; None takes it back."""
        rows, merchants, envs = count_rows(run, outcomes) if run is not None else (0, 0, 0)
        offered = run is not None and (rows > 0 or even_without)
        uploads = run is not None and offered and self._context.live and run.record.kind == Kind.UPLOAD
        size = f", {format_size(run.planned_bytes(outcomes))}" if run is not None and uploads else ""
        what = Text("file", "个文件") if uploads else Text("row", "行")
        facts = Text(
            f"{plural(rows, what.en)}, {plural(merchants, 'merchant')}, {plural(envs, 'environment')}{size}",
            f"{rows:,} {what.zh}，{merchants:,} 个商户，{envs:,} 个环境{size.replace(', ', '，')}",
        )
        self.confirmation.ask(facts if offered else None, merchants)
        show(self, shown=offered)

    def enable(self, *, busy: bool) -> None:
        """Enable the button where it may be pressed."""
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
        items.append(f"<li>{label} <span class='op-quiet'>{esc(size)} {esc(about)}</span></li>")
    return f"<p>{esc(folder.resolve())}</p><ul>{''.join(items)}</ul>"


class ExportButton(widgets.VBox):
    """The button that exports a run, and the files that it wrote."""

    def __init__(self, worker: Worker, report: str = "") -> None:
        self._worker, self._report = worker, report
        self._run: Run | None = None
        self.button = worker.button(Text("Export every format", "导出全部格式"), "op-export", self._export)
        self.files = widgets.Output().add_class("op-files")
        super().__init__([self.button, self.files])
        self.offer(None)

    def offer(self, run: Run | None) -> None:
        """Offer the export of a run; None takes it back."""
        if run is None or self._run is None or run.id != self._run.id:
            self.files.outputs = ()
        self._run = run
        show(self, shown=run is not None)

    def export(self, run: Run, folder: Path) -> Path:
        """Export to a folder, and list its files."""
        folder = run.export(folder)
        data = {"text/plain": str(folder), "text/html": file_links(folder, self._worker.lang)}
        self.files.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)
        return folder

    def _export(self) -> None:
        run = self._run
        if run is None:
            raise UsageError(Text("There is no run to export yet.", "还没有可导出的任务。"))
        self._worker.say(Text(f"Exporting run {run.id} …", f"正在导出任务 {run.id} ……"))
        folder = self.export(run, Path(self._report) if self._report else Path("reports") / run.id)
        self._worker.say(
            Text(f"Run {run.id} was exported to {folder}.", f"任务 {run.id} 已导出到 {folder}。"), "good"
        )
