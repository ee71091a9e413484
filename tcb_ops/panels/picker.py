"""Picks a file or a folder of the server; small lists can be uploaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text, _
from tcb_ops.panels.html import esc
from tcb_ops.panels.worker import Worker, show
from tcb_ops.resources import system_reason

LIST_ENDINGS = (".csv", ".tsv", ".xlsx")
SHOWN = 500
"""Most entries of a folder that are listed."""
LARGEST_UPLOAD = 5_000_000
"""Bytes. Above 10 MB the browser's upload arrives empty; larger lists have to be put on the server."""
Entry = tuple[str, str]
"""Label and path."""


def entries(
    folder: Path, endings: tuple[str, ...], hidden: frozenset[Path] = frozenset()
) -> tuple[list[Entry], int]:
    """List a folder's folders, then its files with one of the endings; return them and the number of those beyond `SHOWN`.

    Entries that begin with a dot and the files in `hidden` are left out, and without endings all files. Raises UsageError.
    """
    folders: list[Entry] = []
    files: list[Entry] = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.startswith(".") or Path(entry.path).resolve() in hidden:
                    continue
                if entry.is_dir():
                    folders.append((f"{entry.name}/", entry.path))
                elif entry.name.lower().endswith(endings or ("\0",)):
                    files.append((entry.name, entry.path))
    except OSError as error:
        why = system_reason(error)
        raise UsageError(
            _("{folder} cannot be opened: {why}. Choose another folder.", folder=folder, why=why)
        ) from None
    listed = sorted(folders) + sorted(files)
    return listed[:SHOWN], max(0, len(listed) - SHOWN)


class Picker(widgets.VBox):
    """A path that is typed, browsed for or uploaded. `path` is what was picked; `picked` is called on a change."""

    def __init__(
        self,
        worker: Worker,
        name: str,
        label: Text,
        *,
        endings: tuple[str, ...] = LIST_ENDINGS,
        path: str = "",
        line: widgets.HTML | None = None,
        hidden: frozenset[Path] = frozenset(),
        picked: Callable[[], None] = lambda: None,
    ) -> None:
        lang, self._worker, self._endings, self._picked = worker.lang, worker, endings, picked
        self._hidden = hidden
        self._folder = (Path(path).parent if endings else Path(path)) if path else Path()
        browse, listed = (
            (_("Browse files…"), _("Server files")) if endings else (_("Browse folders…"), _("Folders"))
        )
        button = partial(worker.button, background=False, line=line, layout={"width": "auto"})
        self.text = worker.field(widgets.Text, label, name, value=path, continuous_update=False)
        self.text.observe(lambda _: worker.guarded(self._picked, line), "value")
        self.browse = button(browse, f"{name}-browse", self._toggle)
        self.up = button(_("Up"), f"{name}-up", self._go_up)
        self.enter = button(_("Open"), f"{name}-open", self._enter).add_class("op-open")
        self.where = widgets.HTML()
        self.entries = worker.field(widgets.Select, listed, f"{name}-entries", rows=10).add_class(
            "op-entries"
        )
        close = button(_("Close"), f"{name}-close", self._toggle)
        last: Any
        if endings:
            upload = _("Upload a small list").of(lang)
            self.upload = widgets.FileUpload(
                accept=",".join(endings), description=upload, tooltip=upload, layout={"width": "auto"}
            ).add_class(f"{name}-upload")
            self.upload.observe(
                lambda change: worker.guarded(lambda: self._take(change["new"]), line), "value"
            )
            last = self.upload
        else:
            last = self.use = button(_("Use this folder"), f"{name}-use", self._use)
        self._browser = widgets.VBox(
            [self.where, self.entries, widgets.HBox([self.up, self.enter, last, close])]
        )
        show(self._browser, shown=False)
        super().__init__([widgets.HBox([self.text, self.browse]), self._browser])

    @property
    def path(self) -> str:
        """The picked path as it was typed; empty for none."""
        return str(self.text.value).strip()

    def _toggle(self) -> None:
        opens = self._browser.layout.display == "none"
        if opens:
            chosen = Path(self.path) if self.path else None
            if chosen is not None and (beside := chosen.parent if self._endings else chosen).is_dir():
                self._folder = beside
            self._list(self._folder)
        show(self._browser, shown=opens)

    def _list(self, folder: Path) -> None:
        found, more = entries(folder, self._endings, self._hidden)
        self._folder = folder
        with self.entries.hold_sync():  # the mark must not arrive after a quick choice
            self.entries.options = found
            self.entries.index = self._marked(found)
        left = _(" … and {more:,} more", more=more).of(self._worker.lang) if more else ""
        nothing = _("nothing to pick here").of(self._worker.lang) if not found else ""
        self.where.value = (
            f'<p><b>{esc(folder.resolve())}</b> <span class="op-quiet">{esc(left or nothing)}</span></p>'
        )

    def _marked(self, found: list[Entry]) -> int | None:
        """Return the entry to mark: what is chosen, else the first file, else the first folder."""
        chosen = Path(self.path).resolve()
        for wanted in (lambda path: path.resolve() == chosen, lambda path: not path.is_dir()):
            for number, (_label, path) in enumerate(found):
                if wanted(Path(path)):
                    return number
        return 0 if found else None

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
        """Save an uploaded list below the working folder, under a new name."""
        if not uploaded:
            return
        name, content = Path(uploaded[0]["name"]).name, bytes(uploaded[0]["content"])
        self.upload.value = ()  # the page and the widget's state need not hold it twice
        if not content:
            raise UsageError(
                _(
                    "{name} arrived empty: the file is empty, or too large for the browser. Check it, or "
                    "put it on the server and browse for it.",
                    name=name,
                )
            )
        if len(content) > LARGEST_UPLOAD:
            raise UsageError(
                _(
                    "{name}: only lists up to 5 MB can be uploaded here. Put it on the server and browse "
                    "for it.",
                    name=name,
                )
            )
        self._take_path(str(_kept(Path("uploads"), name, content)))


def _kept(folder: Path, name: str, content: bytes) -> Path:
    """Write an upload. An existing file with the same bytes is used; otherwise the name gets a number."""
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
        why = system_reason(error)
        raise UsageError(_("{folder} cannot be written: {why}.", folder=folder / name, why=why)) from None
    raise UsageError(_("{folder} contains too many lists named {name}.", folder=folder, name=name))


def _short(path: str) -> str:
    """Return a path relative to the working folder where it lies below."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return path
