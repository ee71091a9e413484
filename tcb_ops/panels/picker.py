"""Pick a file or a folder of the machine that the notebook runs on; small lists may be uploaded too."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.panels.html import esc
from tcb_ops.panels.worker import Worker, show

LIST_ENDINGS = (".csv", ".tsv", ".xlsx")
SHOWN = 500
"""Entries of a folder that are listed."""
LARGEST_UPLOAD = 5_000_000
"""Bytes; over some 10 MB a browser's upload comes out empty, so larger lists are put on the server."""
Entry = tuple[str, str]
"""Label and path."""


def entries(folder: Path, endings: tuple[str, ...]) -> tuple[list[Entry], int]:
    """List a folder's folders, then its files with one of the endings; and count those that are left out. Raises UsageError.

    Hidden entries are left out, and files altogether where there are no endings.
    """
    folders: list[Entry] = []
    files: list[Entry] = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append((f"{entry.name}/", entry.path))
                elif entry.name.lower().endswith(endings or ("\0",)):
                    files.append((entry.name, entry.path))
    except OSError as error:
        why = error.strerror or "?"
        raise UsageError(
            Text(
                f"{folder} cannot be opened: {why}. Choose another folder.",
                f"无法打开 {folder}：{why}。请选择其他文件夹。",
            )
        ) from None
    listed = sorted(folders) + sorted(files)
    return listed[:SHOWN], max(0, len(listed) - SHOWN)


class Picker(widgets.VBox):
    """A path that can be typed, browsed for, or uploaded. `path` is what was picked; `picked` is called on a change."""

    def __init__(
        self,
        worker: Worker,
        name: str,
        label: Text,
        *,
        endings: tuple[str, ...] = LIST_ENDINGS,
        path: str = "",
        picked: Callable[[], None] = lambda: None,
    ) -> None:
        lang, self._worker, self._endings, self._picked = worker.lang, worker, endings, picked
        self._folder = (Path(path).parent if endings else Path(path)) if path else Path()
        browse, listed = (
            (Text("Browse files…", "浏览文件…"), Text("Server files", "服务器文件"))
            if endings
            else (Text("Browse folders…", "浏览文件夹…"), Text("Folders", "文件夹"))
        )
        button = partial(worker.button, background=False, layout={"width": "auto"})
        self.text = worker.field(widgets.Text, label, name, value=path, continuous_update=False)
        self.text.observe(lambda _: worker.guarded(self._picked), "value")
        self.browse = button(browse, f"{name}-browse", self._toggle)
        self.up = button(Text("Up", "上一级"), f"{name}-up", self._go_up)
        self.enter = button(Text("Open", "打开"), f"{name}-open", self._enter)
        self.use = button(Text("Use this folder", "使用此文件夹"), f"{name}-use", self._use)
        self.where = widgets.HTML()
        self.entries = worker.field(widgets.Select, listed, f"{name}-entries", rows=10)
        last: Any = self.use
        if endings:
            upload = Text("Upload a small list", "上传小清单").of(lang)
            self.upload = widgets.FileUpload(
                accept=",".join(endings), description=upload, tooltip=upload, layout={"width": "auto"}
            ).add_class(f"{name}-upload")
            self.upload.observe(lambda change: worker.guarded(lambda: self._take(change["new"])), "value")
            last = self.upload
        self._browser = widgets.VBox([self.where, self.entries, widgets.HBox([self.up, self.enter, last])])
        show(self._browser, shown=False)
        super().__init__([widgets.HBox([self.text, self.browse]), self._browser])

    @property
    def path(self) -> str:
        """What was picked, as it was typed; empty for nothing."""
        return str(self.text.value).strip()

    def _toggle(self) -> None:
        opens = self._browser.layout.display == "none"
        if opens:
            self._list(self._folder)
        show(self._browser, shown=opens)

    def _list(self, folder: Path) -> None:
        found, more = entries(folder, self._endings)
        self._folder = folder
        self.entries.options = found
        self.entries.index = 0 if found else None
        left = Text(f" … and {more:,} more", f" ……另有 {more:,} 项").of(self._worker.lang) if more else ""
        nothing = (
            Text("nothing to pick here", "此处没有可选的内容").of(self._worker.lang) if not found else ""
        )
        self.where.value = (
            f'<p><b>{esc(folder.resolve())}</b> <span class="op-quiet">{esc(left or nothing)}</span></p>'
        )

    def _go_up(self) -> None:
        self._list(self._folder.resolve().parent)

    def _enter(self) -> None:
        chosen = self.entries.value
        if chosen is None:
            return
        if Path(chosen).is_dir():
            self._list(Path(chosen))
        else:
            self._take_path(chosen)

    def _use(self) -> None:
        self._take_path(str(self._folder))

    def _take_path(self, path: str) -> None:
        show(self._browser, shown=False)
        self.text.value = _short(path)

    def _take(self, uploaded: tuple[dict[str, Any], ...]) -> None:
        """Keep an uploaded list below the working folder, under a name of its own."""
        if not uploaded:
            return
        name, content = Path(uploaded[0]["name"]).name, bytes(uploaded[0]["content"])
        self.upload.value = ()  # the page and the widget's state need not hold it twice
        if not content:
            raise UsageError(
                Text(
                    f"{name} arrived empty: the file is empty, or too large for the browser. Check it, or put it on the server "
                    "and browse for it.",
                    f"{name} 没有任何内容：文件是空的，或大到浏览器无法上传。请检查它，或先放到服务器上，再浏览选择。",
                )
            )
        if len(content) > LARGEST_UPLOAD:
            raise UsageError(
                Text(
                    f"{name}: only lists up to 5 MB can be uploaded here. Put it on the server and browse for it.",
                    f"{name}：这里只能上传 5 MB 以内的清单。请先把它放到服务器上，再浏览选择。",
                )
            )
        self._take_path(str(_kept(Path("uploads"), name, content)))


def _kept(folder: Path, name: str, content: bytes) -> Path:
    """Write an upload; the same bytes under the same name are there already, others get a number."""
    stem, ending = Path(name).stem, Path(name).suffix
    try:
        folder.mkdir(exist_ok=True)
        for number in range(1, 10_000):
            file = folder / (name if number == 1 else f"{stem}-{number}{ending}")
            if not file.exists():
                file.write_bytes(content)
                return file
            if file.read_bytes() == content:
                return file
    except OSError as error:
        why = error.strerror or "?"
        raise UsageError(
            Text(f"{folder / name} cannot be written: {why}.", f"无法写入 {folder / name}：{why}。")
        ) from None
    raise UsageError(Text(f"{folder} is full of lists named {name}.", f"{folder} 中名为 {name} 的清单过多。"))


def _short(path: str) -> str:
    """A path relative to the working folder where it lies below."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return path
