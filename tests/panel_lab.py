"""A shop with its settings file, and panels as a notebook in its folder opens them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import unescape
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import pytest
from workspace import write_settings

from tcb_ops.errors import needed
from tcb_ops.hooks import AuditHooks
from tcb_ops.panels import notebook_panels
from tcb_ops.panels.context import open_context, use_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workspace import OpenWorkspace, Workspace

    from tcb_ops.panels.notebook_panels import Panel


def text_of(html: Any) -> str:
    """What a person reads of an HTML widget."""
    value = html if isinstance(html, str) else html.value
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", value)).split())


def press(panel: Panel, button: Any = None) -> None:
    """Press a button, by default the one that starts; wait until the panel is idle."""
    (button or panel.start).click()
    panel.settle()


@dataclass
class Lab:
    """The folder in which notebooks are opened."""

    workspace: Workspace
    opened: list[Panel] = field(default_factory=list)

    def uploads(self, paths: Any = "list.csv", root: Any = "files", **more: Any) -> Panel:
        return self._settled(self.panel("UploadPanel", batch=paths, root=root, **more))

    def links(self, paths: Any = "list.csv", **more: Any) -> Panel:
        return self._settled(self.panel("LinksPanel", batch=paths, **more))

    def audits(self, **more: Any) -> Panel:
        return self._settled(self.panel("", **more))

    def attach(self, run: str = "latest", **more: Any) -> Panel:
        """Not settled: the run may be running."""
        panel = self.panel("RunPanel", run=run, **more)
        self.opened.append(panel)
        panel.worker.settle()
        return panel

    def panel(
        self, name: str, *, target: str = "live", where: str = "", lang: str = "", **given: Any
    ) -> Panel:
        """Open a panel, "" that of audits, as its line in a notebook does for a person."""
        context = use_context(open_context(target, where, lang))
        panel_class = getattr(notebook_panels, name) if name else needed(AuditHooks).panel
        opened: Panel = panel_class(context, notebook_panels.PanelOptions(**given))
        return opened

    def _settled(self, panel: Panel) -> Panel:
        self.opened.append(panel)
        panel.settle()
        return panel

    @property
    def sent(self) -> int:
        """Calls that the simulator got."""
        return self.workspace.sim.stats["link_calls"] + self.workspace.sim.stats["store_calls"]

    def live(self) -> None:
        """Point the settings at the real platform; sending anything now fails."""
        toml = self.workspace.folder / "tcb-ops.toml"
        text = toml.read_text(encoding="utf-8")
        toml.write_text(text.replace(self.workspace.sim.base, "https://api.weixin.qq.com"), encoding="utf-8")


@pytest.fixture
def open_lab(open_workspace: OpenWorkspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Lab]]:
    """Open a workspace and a lab in its folder; takes what `open_workspace` takes."""
    labs: list[Lab] = []

    def opened(*rows: Any, **options: Any) -> Lab:
        workspace = open_workspace(*rows, **options)
        write_settings(workspace.folder, workspace.sim.base)
        monkeypatch.chdir(workspace.folder)
        labs.append(Lab(workspace))
        return labs[-1]

    yield opened
    for lab in labs:
        for panel in lab.opened:
            panel.settle()
    widgets.Widget.close_all()


@pytest.fixture
def read() -> Callable[[Any], str]:
    return text_of
