"""Exporting a run from a panel: the report folder, and links that JupyterLab opens."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import ipywidgets as widgets

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Lang, Text
from tcb_ops.panels.context import size_of
from tcb_ops.panels.html import esc
from tcb_ops.panels.worker import Worker
from tcb_ops.run import Run

FILES: dict[str, Text] = {
    "report.html": Text("the report, to read, print or send on", "报告，可阅读、打印或转发"),
    "report.pdf": Text("the report as PDF", "PDF 报告"),
    "report.xlsx": Text("the report as a workbook", "Excel 报告"),
    "results.csv": Text("every row and how it ended", "所有行及其结果"),
    "failed.csv": Text("the rows that are not good: a list again", "未成功的行：可作为清单再次使用"),
    "errcodes.csv": Text("errcodes by merchant and environment", "按商户和环境统计的错误码"),
    "SIMULATED-演练.txt": Text("says that this was a rehearsal", "标明这是一次演练"),
    "manifest.json": Text("checksums, settings, versions: the proof", "校验和、设置、版本：存证"),
}
"""What a report folder holds, in the order in which people want it."""


def file_links(folder: Path, lang: Lang) -> str:
    """A list of a report folder's files. Links are relative to the notebook, where the folder lies below it."""
    try:
        base = folder.resolve().relative_to(Path.cwd())
    except ValueError:
        base = None
    there = {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
    items = []
    for name in [*(n for n in FILES if n in there), *(n for n in there if n not in FILES)]:
        about = FILES.get(name, Text("", "")).of(lang)
        label = (
            f"<a href='{quote((base / name).as_posix())}' target='_blank'>{esc(name)}</a>"
            if base
            else esc(name)
        )
        items.append(
            f"<li>{label} <span class='op-quiet'>{esc(size_of(there[name]))} {esc(about)}</span></li>"
        )
    return f"<p>{esc(folder.resolve())}</p><ul>{''.join(items)}</ul>"


class Export(widgets.VBox):
    """The export button, and what it wrote."""

    def __init__(self, worker: Worker, report: str = "") -> None:
        self._worker, self._report = worker, report
        self._run: Run | None = None
        self.button = widgets.Button(
            description=Text("Export every format", "导出全部格式").of(worker.lang),
            layout={"width": "auto", "align_self": "flex-start"},
        )
        self.button.add_class("op-export")
        self.button.on_click(lambda _: worker.start(self._export))
        self.files = widgets.Output()
        self.files.add_class("op-files")
        super().__init__([self.button, self.files])
        self.offer(None)

    def offer(self, run: Run | None) -> None:
        """Offer the export of a run; None takes it back."""
        if run is None or self._run is None or run.id != self._run.id:
            self.files.outputs = ()
        self._run = run
        self.layout.display = "" if run is not None else "none"

    def put(self, run: Run, folder: Path) -> Path:
        """Export to a folder, and list what is there."""
        folder = run.export(folder)
        self.files.outputs = (
            {
                "output_type": "display_data",
                "data": {
                    "text/plain": str(folder),
                    "text/html": file_links(folder, self._worker.lang),
                },
                "metadata": {},
            },
        )
        return folder

    def _export(self) -> None:
        run = self._run
        if run is None:
            raise UsageError(Text("There is no run to export yet.", "还没有可导出的任务。"))
        self._worker.say(Text(f"Exporting run {run.id} …", f"正在导出任务 {run.id} ……"))
        folder = self.put(run, Path(self._report) if self._report else Path("reports") / run.id)
        self._worker.say(
            Text(f"Run {run.id} is exported to {folder}.", f"任务 {run.id} 已导出到 {folder}。"), "good"
        )
