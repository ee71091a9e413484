"""The part of a panel that picks and checks a list, and shows what a run of it would send."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets

from tcb_ops.errors import InputError, UsageError
from tcb_ops.i18n import NOTHING, Lang, _, as_sentences, in_panel, ngettext
from tcb_ops.kinds import row_count
from tcb_ops.lists.batch import Batch, facts_line
from tcb_ops.lists.fix_me import write_fixme
from tcb_ops.lists.input_files import PROBLEMS_SHOWN
from tcb_ops.lists.paths import read_paths
from tcb_ops.lists.row_files import source_check
from tcb_ops.model import OnBad, Problem
from tcb_ops.panels.context import PanelContext, RefusedList
from tcb_ops.panels.controls import Worker, html_area, show, tick_box
from tcb_ops.panels.html import esc, heading, table
from tcb_ops.preflight import replaced

if TYPE_CHECKING:
    import pandas as pd

LIST_ENDINGS = (".csv", ".tsv", ".xlsx")
SHOWN = 200
"""Most paths that are offered."""
READ, FEW = 2_000, 5
"""Most problems that are looked at; up to so many that are fixed in the same way, each has a line."""


def render_problems(problems: Sequence[Problem], lang: Lang) -> str:
    """Draw the first problems as a table, and count the others. Many that are fixed in the same way are one line with a fold."""
    if not problems:
        return ""
    heads = (_("Line"), _("Column"), _("What is wrong"), _("How to fix it"), _("Value"))
    groups: defaultdict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in islice(problems, READ):
        groups[problem.column, in_panel(problem.fix, lang)].append(problem)
    rows = []
    for (column, fix), alike in groups.items():
        size = len(alike) if len(alike) > FEW else 1
        for first in alike[:: size or 1]:
            more = "".join(f"<li>{p.line or ''} {esc(p.value)}</li>" for p in alike[1:size][:PROBLEMS_SHOWN])
            count = esc(_("and {more:,} more like this", more=size - 1).of(lang))
            folded = f"<details><summary>{count}</summary><ul>{more}</ul></details>" if more else ""
            message = esc(in_panel(first.message, lang))
            rows.append((first.line or "", column, message + folded, fix, first.value))
    title = ngettext("{n:,} problem in the list", "{n:,} problems in the list", len(problems)).of(lang)
    if len(rows) > PROBLEMS_SHOWN:
        title = _("{title}, the first {shown}", title=title, shown=PROBLEMS_SHOWN).of(lang)
    return heading(title) + table(heads, rows[:PROBLEMS_SHOWN], "nshtt", lang, label=title)


def pickable(folder: Path, endings: tuple[str, ...], hidden: frozenset[Path] = frozenset()) -> list[str]:
    """Return the files with one of the endings in a folder and its subfolders, or without endings those subfolders.

    At most `SHOWN` of them, relative to the folder; names that begin with a dot and the files in `hidden` are left out.
    """
    paths = sorted(folder.glob("[!.]*"))
    if endings:
        paths += sorted(folder.glob("[!.]*/[!.]*"))
        files = [path for path in paths if path.name.lower().endswith(endings) and path.is_file()]
        paths = [file for file in files if file.resolve() not in hidden]
    else:
        paths = [path for path in paths if path.is_dir()]
    return [path.relative_to(folder).as_posix() for path in paths[:SHOWN]]


class ListReader(widgets.VBox):
    """Picks a list (and, for uploads, a root) and checks it. `batch` is what can be run; `line` shows the list's state."""

    def __init__(
        self,
        worker: Worker,
        context: PanelContext,
        given: Batch | RefusedList | pd.DataFrame | str | Path,
        *,
        root: str | Path | None,
        uploads: bool,
        line: widgets.HTML,
        changed: Callable[[], None],
    ) -> None:
        """`given`: the list to begin with. `changed` is called when there is another batch, or none."""
        self.line = line
        self._worker, self._context, self._lang, self._changed = worker, context, worker.lang, changed
        self._uploads, self._given, self._given_root = uploads, given, root
        if isinstance(given, Batch | RefusedList):
            source, folder = str(given.source), given.root
        elif isinstance(given, str | Path):
            source, folder = context.list_to_read(str(given), "" if root is None else str(root))
        else:
            source, folder = "", root
        secrets = (context.settings.merchants, context.settings.tokens.file)
        self._hidden = frozenset(Path(file).resolve() for file in secrets if file)
        self.batch: Batch | None = None
        self._read_from: tuple[Path, int, int] | None = None
        """The file that was read: its path, its time of change, and its size."""
        self._problems: Sequence[Problem] = ()
        lang, beside = worker.lang, _("the list's own folder").of(worker.lang)
        button = partial(worker.button, line=line)
        picker = partial(worker.field, widgets.Combobox, continuous_update=False)
        self.paths = picker(_("Path list"), "op-list", value=source)
        self.root = picker(_("Local files"), "op-root", value=str(folder or ""), placeholder=beside)
        show(self.root, shown=self._uploads)
        self.check = button(_("Check"), "op-check", self._check, background=False)
        skip = _("continue without the rows that have problems")
        self.skip = tick_box(skip, "op-skip", lang, align_self="flex-start")
        self.facts = html_area("op-read")
        self.problems = html_area("op-problems")
        self.fixme = button(_("Write these rows to a fix-me CSV"), "op-fixme", self._write_fixme)
        choices = [("—", None), (_("include").of(lang), "all"), (_("leave out").of(lang), "visible")]
        label = _("Hidden rows")
        self.hidden = worker.field(widgets.Dropdown, label, "op-hidden-rows", "16rem", options=choices)
        self.fit = button(NOTHING, "op-use-folder", self._use_folder, background=False)
        # It was said of another list.
        self.paths.observe(lambda _: setattr(self.skip, "value", False), "value")
        for field in (self.paths, self.root, self.skip, self.hidden):
            field.observe(lambda _: worker.guarded(self._check, line), "value")
        check_line = widgets.HBox([self.check, self.fit, self.skip])
        parts = [self.paths, self.root, self.hidden, check_line, self.facts, self.problems, self.fixme]
        super().__init__(parts)
        self._show(())

    def read(self) -> None:
        """Read and check the list that is picked. Raises TcbOpsError when it cannot be run."""
        self._clear()
        source = self.paths.value.strip()
        beside = Path(source).parent
        self._offer_files(source)
        if not source:
            self._worker.say(_("Pick a path list: CSV, TSV or XLSX."), line=self.line)
            return
        self._worker.say(_("Checking {source} …", source=source), line=self.line)
        root = (self.root.value.strip() or str(beside)) if self._uploads else None
        self._read_from = _stamp(Path(source))
        read = partial(read_paths, source, self._context.merchants, rows=self.hidden.value)
        on_bad: OnBad = "skip" if self.skip.value else "refuse"
        try:
            batch = read(root, on_bad=on_bad, sources=source_check(lambda: self._context.settings))
        except InputError as error:
            self._show(error.problems, in_list=not error.all_missing)
            if error.problems[0].answer == "rows":
                message = error.problems[0].message
                text = _("{source}: {message}. Choose whether they are read.", source=source, message=message)
                raise InputError(text, source, error.problems) from error
            if root is not None and (error.all_missing or not Path(root).is_dir()):
                names = [problem.value for problem in islice(error.problems, FEW)]
                if not error.all_missing:  # there is no such folder
                    with read(on_bad="skip") as rows:
                        names = [row.file for row in islice(rows.rows(), FEW)]
                places = [str(beside), *self.root.options]
                has_all = (place for place in places if all(Path(place, name).is_file() for name in names))
                fitting = self.fit.tooltip = next(has_all, "")
                self.fit.description = _("Use the folder {name}", name=fitting).of(self._lang)
                show(self.fit, shown=bool(fitting))
            if (count := len(error.problems)) == 1:
                raise
            problems = ngettext("{n:,} problem", "{n:,} problems", count)
            text = _("{source} is refused: it has {problems}. Nothing was sent.")
            text = text.format(source=source, problems=problems)
            raise InputError(text, source, error.problems) from error
        self._take(batch)

    def read_given(self) -> None:
        """Show the list that was given: a batch as it is, anything else read now. Raises TcbOpsError when it cannot be run."""
        if isinstance(self._given, RefusedList | str | Path):
            self.read()
            return
        self._offer_files(self.paths.value)
        batch = self._context.batch_of(self._given, self._given_root)
        if self._uploads and batch.root is None:
            batch = batch.check_files(self._given_root or batch.source.parent)
        self._take(batch)

    def _take(self, batch: Batch) -> None:
        """Offer a batch to be run."""
        self.batch = batch
        self._show(batch.problems)
        self.facts.value = "".join(
            f"<p>{esc(in_panel(text, self._lang))}</p>" for text in (batch.decided, *batch.warnings)
        )
        ready = self._context.ready(facts_line(batch))
        stored = replaced(batch, self._context.settings) if self._uploads else None
        if stored is not None:
            ready = as_sentences((ready, stored))
        self._worker.say(ready, "good", line=self.line)
        self._changed()

    def _offer_files(self, source: str) -> None:
        """Offer the lists and folders nearby."""
        beside = Path(source).parent
        self.paths.options = pickable(Path(), LIST_ENDINGS, self._hidden)
        folders = [*pickable(Path(), ()), *(str(beside / name) for name in pickable(beside, ()))]
        self.root.options = [*dict.fromkeys(folders)]

    def read_if_changed(self) -> None:
        """Check the list again if its file was changed since. Raises UsageError then: what is shown is to be looked at first."""
        if self._read_from is None or self._read_from == _stamp(self._read_from[0]):
            return
        name = self._read_from[0]
        self._worker.guarded(self.read, self.line)
        text = _("{name} was changed after it was checked. It was checked again; nothing was sent.")
        raise UsageError(text.format(name=name))

    def _clear(self) -> None:
        self.batch = None
        self._show(())
        self.facts.value = ""
        self._changed()

    def _check(self) -> None:
        self._clear()  # immediately: the list that was read is no longer the selected one
        self._worker.start(self.read, waits=True, line=self.line)

    def _use_folder(self) -> None:
        self.root.value = self.fit.tooltip  # which checks the list

    def _show(self, problems: Sequence[Problem], *, in_list: bool = True) -> None:
        """Show problems; `in_list`: whether rows of the list are to be fixed, rather than the folder of the files."""
        self._problems = problems
        self.problems.value = render_problems(problems, self._lang)
        asks_rows = any(problem.answer == "rows" for problem in islice(problems, FEW))
        skippable = any(problem.skippable for problem in islice(problems, READ))
        in_rows = any(problem.line for problem in islice(problems, FEW))  # others the state of the list tells
        show(self.problems, shown=in_rows and not asks_rows)
        show(self.fixme, shown=skippable and in_list)
        show(self.hidden, shown=asks_rows or self.hidden.value is not None)
        show(self.skip, shown=skippable or self.skip.value)
        show(self.fit, shown=False)

    def _write_fixme(self) -> None:
        dest, rows = write_fixme(self._problems, Path(self.paths.value.strip()), self._lang)
        text = _(
            "{rows} are in {dest}: fix them there, then pick that file.", rows=row_count(rows), dest=dest
        )
        self._worker.say(text, "good", line=self.line)


def _stamp(file: Path) -> tuple[Path, int, int]:
    stat = file.stat() if file.is_file() else None
    return (file, stat.st_mtime_ns, stat.st_size) if stat is not None else (file, 0, 0)
