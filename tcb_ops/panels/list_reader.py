"""The part of a panel that picks and checks a list, and shows what a run of it would send."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from tcb_ops.errors import InputError, UsageError
from tcb_ops.features.simulator.sample import FILES, PATHS
from tcb_ops.formatting import format_size
from tcb_ops.i18n import Lang, Text, _, as_sentences, ngettext
from tcb_ops.kinds import environment_count, merchant_count, row_count
from tcb_ops.lists.batch import Batch, fixme_beside, write_fixme
from tcb_ops.lists.input_files import PROBLEMS_SHOWN
from tcb_ops.lists.paths import read_paths
from tcb_ops.model import Problem
from tcb_ops.panels.controls import PanelContext, Worker, html_area, show, tick_box
from tcb_ops.panels.html import esc, heading, table
from tcb_ops.preflight import facts_line, replaced
from tcb_ops.resources import system_reason
from tcb_ops.runs.url_files import SourceInspector

MERCHANTS_SHOWN = 300
"""Most lines of the plan by merchant."""
LIST_ENDINGS = (".csv", ".tsv", ".xlsx")
SHOWN = 500
"""Most entries of a folder that are listed."""
LARGEST_UPLOAD = 5_000_000
"""Bytes. Above 10 MB the browser's upload arrives empty; larger lists have to be put on the server."""
Entry = tuple[str, str]
"""Label and path."""


def render_problems(problems: Sequence[Problem], lang: Lang) -> str:
    """Draw the first problems as a table, and count the others."""
    if not problems:
        return ""
    heads = (_("Line"), _("Column"), _("What is wrong"), _("How to fix it"), _("Value"))
    rows = [
        (p.line or "", p.column, p.message.of(lang), p.fix.of(lang), p.value)
        for p in islice(problems, PROBLEMS_SHOWN)
    ]
    title = ngettext("{n:,} problem in the list", "{n:,} problems in the list", len(problems)).of(lang)
    if len(problems) > PROBLEMS_SHOWN:
        title = _("{title}, the first {shown}", title=title, shown=PROBLEMS_SHOWN).of(lang)
    return heading(title) + table(heads, rows, "nsttt", lang, label=title)


def render_plan(batch: Batch, lang: Lang, *, uploads: bool) -> str:
    """Draw what a run of the batch would send, in total and by merchant."""
    calls = 2 if uploads else 1
    facts = [
        merchant_count(batch.merchants_count),
        environment_count(batch.envs),
        row_count(batch.valid),
        ngettext("{n:,} call", "{n:,} calls", batch.valid * calls),
    ]
    if uploads:
        facts.append(_("{size} to upload", size=format_size(batch.total_bytes)))
    shares = batch.by_merchant()
    heads = (_("Merchant"), _("Environments"), _("Rows"), _("Calls"), _("Size"))
    rows = [
        (name, envs, count, count * calls, format_size(size) if uploads else "–")
        for _appid, name, envs, count, size in shares[:MERCHANTS_SHOWN]
    ]
    by = _("By merchant").of(lang)
    more = len(shares) - MERCHANTS_SHOWN
    rest = _("… and {more:,} more", more=more).of(lang) if more > 0 else ""
    return (
        f"<p>{esc(' · '.join(fact.of(lang) for fact in facts))}</p><details><summary>{esc(by)}</summary>"
        f"{table(heads, rows, 'snnnn', lang, label=by)}<p>{esc(rest)}</p></details>"
    )


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
        self.up = button(_("Up"), f"{name}-up", lambda: self._list(self._folder.resolve().parent))
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
            last = self.use = button(
                _("Use this folder"), f"{name}-use", lambda: self._take_path(str(self._folder))
            )
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

    def _enter(self) -> None:
        chosen = self.entries.value
        if chosen is not None and Path(chosen).is_dir():
            self._list(Path(chosen))
        elif chosen is not None:
            self._take_path(chosen)

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
            empty = _(
                "{name} arrived empty: the file is empty, or too large for the browser. Check it, or "
                "put it on the server and browse for it.",
                name=name,
            )
            raise UsageError(empty)
        if len(content) > LARGEST_UPLOAD:
            large = _(
                "{name}: only lists up to 5 MB can be uploaded here. Put it on the server and browse for it.",
                name=name,
            )
            raise UsageError(large)
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


class ListReader(widgets.VBox):
    """Picks a list (and, for uploads, a root) and checks it. `batch` is what can be run; `line` shows the list's state."""

    def __init__(
        self,
        worker: Worker,
        context: PanelContext,
        paths: str,
        *,
        root: str | None,
        line: widgets.HTML,
        changed: Callable[[], None],
    ) -> None:
        """`root` None: local files are not read. `changed` is called when there is another batch, or none."""
        self.line = line
        self._worker, self._context, self._lang, self._changed = worker, context, worker.lang, changed
        self._uploads = root is not None
        if not paths and context.simulated:
            # The copies beside the notebook, which an operator may have changed, come before the packaged sample.
            copied = Path("data/paths.csv").is_file() and Path("data/files").is_dir()
            paths = "data/paths.csv" if copied else str(PATHS)
            root = ("data/files" if copied else str(FILES)) if root == "" else root
        secrets = (context.settings.merchants, context.settings.tokens.file)
        hidden = frozenset(Path(one).resolve() for one in secrets if one)
        self.batch: Batch | None = None
        self._read_from: tuple[Path, int, int] | None = None
        """The file that was read: its path, its time of change, and its size."""
        self._problems: Sequence[Problem] = ()

        def check() -> None:
            self._clear()  # immediately: the list that was read is no longer the selected one
            self._changed()
            worker.start(self.read, waits=True, line=line)

        self.paths = Picker(
            worker, "op-list", _("Path list"), path=paths, line=line, hidden=hidden, picked=check
        )
        self.check = worker.button(_("Check"), "op-check", check, background=False, line=line)
        skip = _("continue without the rows that have problems")
        self.skip = tick_box(skip, "op-skip", self._lang, align_self="flex-start")
        self.skip.observe(lambda _: worker.guarded(check, line), "value")
        self.facts = html_area("op-read")
        self.problems = html_area("op-problems", "20rem")
        self.fixme = worker.button(_("Write a fix-me CSV"), "op-fixme", self._write_fixme, line=line)
        self.plan = html_area("op-plan")
        pickers = [self.paths]
        if self._uploads:
            self.root = Picker(
                worker, "op-root", _("Local files"), endings=(), path=root or "", line=line, picked=check
            )
            self.root.text.placeholder = _("the list's own folder").of(self._lang)
            pickers.append(self.root)
        check_line = widgets.HBox([self.check, self.skip])
        super().__init__([*pickers, check_line, self.facts, self.problems, self.fixme, self.plan])
        self._clear()

    def read(self) -> None:
        """Read and check the list that is picked. Raises TcbOpsError when it cannot be run."""
        self._clear()
        self._changed()
        source = self.paths.path
        if not source:
            self._say(_("Pick a path list: CSV, TSV or XLSX."))
            return
        self._say(_("Checking {source} …", source=source))
        root = (self.root.path or str(Path(source).parent)) if self._uploads else None
        self._read_from = _stamp(Path(source))
        try:
            batch = read_paths(
                source,
                self._context.merchants,
                root,
                on_bad="skip" if self.skip.value else "refuse",
                sources=SourceInspector(lambda: self._context.settings),
            )
        except InputError as error:
            self._show(error.problems)
            if len(error.problems) > 1:
                raise _refused(source, error.problems) from error
            raise
        self.batch = batch
        self._show(batch.problems)
        self.facts.value = "".join(
            f"<p>{esc(text.of(self._lang))}</p>" for text in (batch.decided, *batch.warnings)
        )
        self.plan.value = render_plan(batch, self._lang, uploads=self._uploads)
        ready = _("Ready. {facts}.", facts=facts_line(batch))
        stored = replaced(batch, self._context.settings) if self._uploads else None
        if stored is not None:
            ready = as_sentences((ready, stored))
        self._say(ready, "good")
        self._changed()

    def read_if_changed(self) -> None:
        """Check the list again if its file was changed since. Raises UsageError then: what is shown is to be looked at first."""
        if self._read_from is None or self._read_from == _stamp(self._read_from[0]):
            return
        name = self._read_from[0]
        self._worker.guarded(self.read, self.line)
        raise UsageError(
            _("{name} was changed after it was checked. It was checked again; nothing was sent.", name=name)
        )

    def _say(self, text: Text, tone: str = "") -> None:
        self._worker.say(text, tone, line=self.line)

    def _clear(self) -> None:
        self.batch = None
        self._show(())
        self.facts.value = self.plan.value = ""

    def _show(self, problems: Sequence[Problem]) -> None:
        self._problems = problems
        options = self._worker.describe_options(p.fix for p in islice(problems, PROBLEMS_SHOWN))
        note = f"<p>{esc(options)}</p>" if options else ""
        self.problems.value = render_problems(problems, self._lang) + note
        for part in (self.problems, self.fixme):
            show(part, shown=bool(problems))

    def _write_fixme(self) -> None:
        dest = fixme_beside(Path(self.paths.path))
        written = write_fixme(self._problems, dest, self._lang)
        if not written:
            raise UsageError(_("These problems concern the file as a whole; there is no row to fix."))
        self._say(
            _(
                "{rows} are in {dest}: fix them there, then pick that file.",
                rows=row_count(written),
                dest=dest,
            ),
            "good",
        )


def _stamp(file: Path) -> tuple[Path, int, int]:
    try:
        stat = file.stat()
    except OSError:
        return file, 0, 0
    return file, stat.st_mtime_ns, stat.st_size


def _refused(source: str, problems: Sequence[Problem]) -> InputError:
    count = len(problems)
    return InputError(
        _(
            "{source} is refused: it has {problems}. Nothing was sent.",
            source=source,
            problems=ngettext("{n:,} problem", "{n:,} problems", count),
        ),
        source,
        problems,
    )
