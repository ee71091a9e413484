"""The part of a panel that picks and checks a list, and shows what a run of it would send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import ipywidgets as widgets

from tcb_ops.errors import InputError, UsageError
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
from tcb_ops.resources import SAMPLE
from tcb_ops.runs.url_files import SourceInspector

LIST_ENDINGS = (".csv", ".tsv", ".xlsx")
SHOWN = 200
"""Most paths that are offered."""


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
    """Draw what a run of the batch would send."""
    calls = 2 if uploads else 1
    facts = [
        merchant_count(batch.merchants_count),
        environment_count(batch.envs),
        row_count(batch.valid),
        ngettext("{n:,} call", "{n:,} calls", batch.valid * calls),
    ]
    if uploads:
        facts.append(_("{size} to upload", size=format_size(batch.total_bytes)))
    return f"<p>{esc(' · '.join(fact.of(lang) for fact in facts))}</p>"


def pickable(folder: Path, endings: tuple[str, ...], hidden: frozenset[Path] = frozenset()) -> list[str]:
    """Return the files with one of the endings in a folder and its subfolders, or without endings those subfolders.

    At most `SHOWN` of them, relative to the folder; names that begin with a dot and the files in `hidden` are left out.
    """
    folders = [folder, *_visible(folder, Path.is_dir)]
    if not endings:
        return [path.relative_to(folder).as_posix() for path in folders[1:]][:SHOWN]
    files = [
        file for each in folders for file in _visible(each, Path.is_file) if file.resolve() not in hidden
    ]
    return [f.relative_to(folder).as_posix() for f in files if f.name.lower().endswith(endings)][:SHOWN]


def _visible(folder: Path, is_wanted: Callable[[Path], bool]) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_wanted(path))
    return []


class Picker(widgets.VBox):
    """A path that is typed or chosen. `path` is what was picked; `picked` is called on a change."""

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
        self._endings, self._hidden = endings, hidden
        self.text = worker.field(widgets.Combobox, label, name, value=path, continuous_update=False)
        self.text.observe(lambda _: worker.guarded(picked, line), "value")
        super().__init__([self.text])
        self.refresh()

    @property
    def path(self) -> str:
        """The picked path as it was typed; empty for none."""
        return str(self.text.value).strip()

    def refresh(self) -> None:
        """Offer what is there now: what stands in the notebook's folder and its subfolders."""
        self.text.options = pickable(Path(), self._endings, self._hidden)


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
            paths = "data/paths.csv" if copied else str(SAMPLE / "paths.csv")
            root = ("data/files" if copied else str(SAMPLE / "files")) if root == "" else root
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
        self._pickers = [self.paths]
        if self._uploads:
            self.root = Picker(
                worker, "op-root", _("Local files"), endings=(), path=root or "", line=line, picked=check
            )
            self.root.text.placeholder = _("the list's own folder").of(self._lang)
            self._pickers.append(self.root)
        check_line = widgets.HBox([self.check, self.skip])
        super().__init__([*self._pickers, check_line, self.facts, self.problems, self.fixme, self.plan])
        self._clear()

    def read(self) -> None:
        """Read and check the list that is picked. Raises TcbOpsError when it cannot be run."""
        self._clear()
        self._changed()
        for picker in self._pickers:
            picker.refresh()
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
