"""The panels that look at runs: of notebook 04, to export them, and the one that is attached to any run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from tcb_ops.doors import python as doors
from tcb_ops.errors import UsageError
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Text
from tcb_ops.panels.naming import REPORT
from tcb_ops.panels.panel import Panel
from tcb_ops.panels.runs import Runs
from tcb_ops.sample import FILES, PATHS

if TYPE_CHECKING:
    from tcb_ops.run import Run

__all__ = ["Attached", "Reports"]


class Attached(Panel):
    """Any run: going on here or elsewhere, cut off, or finished."""

    out_here: Text | None = None

    def __init__(self, target: str, run: str, lang: str, *, report: str = "") -> None:
        self._wanted = run
        super().__init__(target, "", lang, report=report)

    def _title(self) -> Text:
        return Text("Run report", "任务报告")

    def _parts(self) -> list[Any]:
        self.runs = Runs(self.voice, self.desk, None, self.watched.attach)
        return [self.runs, widgets.HBox([self.watched.stop]), self.voice.line, self.watched]

    def _open(self) -> None:
        self.runs.refresh()
        self.watched.attach(self._wanted)
        self.runs.choose(self.run)

    def _ended(self, run: Run) -> None:  # noqa: ARG002  the list says of each run how it stands
        self._list_runs()

    def _work(self) -> Run:
        if self.run is None:
            self._open()
        if self.run is None:
            raise UsageError(Text("There is no run to export.", "没有可导出的任务。"))
        return self.run

    def _shown_before(self) -> Run | None:
        return None  # looking at a run replaces none

    def _exit_code(self, run: Run) -> int:  # noqa: ARG002  `show` and `report` end well whatever the run's rows did
        return 0


class Reports(Attached):
    """Choose a run, see it, export every format. In practice there is one to choose."""

    out_here = REPORT

    def _open(self) -> None:
        if self.desk.practising and not self.runs.refresh():
            self.voice.say(Text("Making a run to look at …", "正在生成供查看的演练任务 ……"))
            with read_paths(PATHS, self.desk.merchants, FILES) as batch:
                doors.upload(batch, settings=self.desk.settings, pace=self.desk.pace())
        super()._open()
