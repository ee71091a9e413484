"""A list in a panel: picked, read, checked, with every problem; and what a run of it would send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import ipywidgets as widgets

from tcb_ops import api
from tcb_ops.errors import InputError, UsageError
from tcb_ops.formatting import format_size
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.lists.paths import Batch, read_paths
from tcb_ops.lists.problems import PROBLEMS_SHOWN, fixme_beside, write_fixme
from tcb_ops.model import Problem
from tcb_ops.panels.context import PanelContext
from tcb_ops.panels.html import esc, heading, table
from tcb_ops.panels.picker import Picker
from tcb_ops.panels.worker import Worker, html_area, show
from tcb_ops.preflight import done_before, facts_line
from tcb_ops.sample import FILES, PATHS

MERCHANTS_SHOWN = 300
"""Lines of the plan by merchant."""


def render_problems(problems: Sequence[Problem], lang: Lang) -> str:
    """Draw the first problems as a table, and count the others."""
    if not problems:
        return ""
    heads = (
        Text("Line", "行号"),
        Text("Column", "列"),
        Text("What is wrong", "问题"),
        Text("How to fix it", "如何修正"),
        Text("Value", "值"),
    )
    rows = [
        (p.line or "", p.column, p.message.of(lang), p.fix.of(lang), p.value)
        for p in islice(problems, PROBLEMS_SHOWN)
    ]
    count = len(problems)
    title = Text(
        f"{plural(count, 'problem')} in the list"
        + f", the first {PROBLEMS_SHOWN}" * (count > PROBLEMS_SHOWN),
        f"清单有 {count:,} 处问题" + f"，以下是前 {PROBLEMS_SHOWN} 处" * (count > PROBLEMS_SHOWN),
    ).of(lang)
    return heading(title) + table(heads, rows, "nsttt", lang, label=title)


def render_plan(batch: Batch, lang: Lang, *, uploads: bool) -> str:
    """Draw what a run of the batch would send, in sum and by merchant."""
    calls = 2 if uploads else 1
    facts = [
        _fact(batch.merchants_count, "merchant", "个商户", lang),
        _fact(batch.envs, "environment", "个环境", lang),
        _fact(batch.valid, "row", "行", lang),
        _fact(batch.valid * calls, "call", "次调用", lang),
    ]
    if uploads:
        size = Text("to upload", "待上传").of(lang)
        facts.append(f"<b>{esc(format_size(batch.total_bytes))}</b> {esc(size)}")
    shares = batch.by_merchant()
    heads = (
        Text("Merchant", "商户"),
        Text("Environments", "环境"),
        Text("Rows", "行数"),
        Text("Calls", "调用"),
        Text("Size", "大小"),
    )
    rows = [
        (name, envs, count, count * calls, format_size(size) if uploads else "–")
        for _, name, envs, count, size in shares[:MERCHANTS_SHOWN]
    ]
    by = Text("By merchant", "按商户").of(lang)
    more = len(shares) - MERCHANTS_SHOWN
    rest = Text(f"… and {more:,} more", f"……另有 {more:,} 家").of(lang) if more > 0 else ""
    return (
        f"<p>{' · '.join(facts)}</p><details><summary>{esc(by)}</summary>"
        f"{table(heads, rows, 'snnnn', lang, label=by)}<p>{esc(rest)}</p></details>"
    )


def _fact(count: int, noun: str, zh: str, lang: Lang) -> str:
    name = Text(f"{noun}{'s' * (count != 1)}", zh).of(lang)
    return f"<b>{count:,}</b> {esc(name)}"


class ListReader(widgets.VBox):
    """The part of a panel that picks a list (and a root, for uploads) and checks it. `batch` is what can be run."""

    def __init__(
        self,
        worker: Worker,
        context: PanelContext,
        paths: str,
        *,
        root: str | None,
        changed: Callable[[], None],
    ) -> None:
        """`root` None: local files are not looked at. `changed` is called when there is another batch, or none."""
        self._worker, self._context, self._lang, self._changed = worker, context, worker.lang, changed
        self._uploads = root is not None
        if not paths and context.simulated:
            paths, root = str(PATHS), str(FILES) if root == "" else root
        self.batch: Batch | None = None
        self._problems: Sequence[Problem] = ()
        lang = self._lang

        def check() -> None:
            self._clear()  # at once: what was read is not what is picked now
            self._changed()
            worker.start(self.read, waits=True)

        self.paths = Picker(worker, "op-list", Text("Path list", "路径清单"), path=paths, picked=check)
        self.root = Picker(
            worker, "op-root", Text("Local files", "本地文件夹"), endings=(), path=root or "", picked=check
        )
        self.root.text.placeholder = Text("the list's own folder", "清单所在文件夹").of(lang)
        self.check = worker.button(Text("Check", "检查"), "op-check", check, background=False)
        skip = Text("continue without the rows that have problems", "跳过有问题的行，继续其余的行")
        self.skip = widgets.Checkbox(
            description=skip.of(lang), indent=False, layout={"width": "auto", "align_self": "flex-start"}
        ).add_class("op-skip")
        self.skip.observe(lambda _: worker.guarded(check), "value")
        self.facts = html_area("op-read")
        self.problems = html_area("op-problems", "20rem")
        self.fixme = worker.button(
            Text("Write a fix-me CSV", "生成待修正 CSV"), "op-fixme", self._write_fixme
        )
        self.plan = html_area("op-plan")
        title = widgets.HTML(heading(Text("1 · The list", "1 · 清单").of(lang)))
        pickers = [self.paths, self.root] if self._uploads else [self.paths]
        check_line = widgets.HBox([self.check, self.skip])
        super().__init__([title, *pickers, check_line, self.facts, self.problems, self.fixme, self.plan])
        self._clear()

    def read(self) -> None:
        """Read and check the list that is picked. Raises TcbOpsError when it cannot be run."""
        self._clear()
        self._changed()
        source = self.paths.path
        if not source:
            self._worker.say(
                Text("Pick a path list: CSV, TSV or XLSX.", "请选择路径清单：CSV、TSV 或 XLSX。")
            )
            return
        self._worker.say(Text(f"Checking {source} …", f"正在检查 {source} ……"))
        root = (self.root.path or str(Path(source).parent)) if self._uploads else None
        try:
            batch = read_paths(
                source, self._context.merchants, root, on_bad="skip" if self.skip.value else "refuse"
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
        facts = facts_line(batch)
        ready = Text(f"Ready. {facts.en}.", f"已就绪。{facts.zh}。")
        settings = self._context.settings
        runs = (run.record for run in api.all_runs(settings=settings)) if self._uploads else ()
        before = done_before(batch, settings, self._context.selection, runs)
        if before is not None:
            ready = Text(f"{ready.en} {before.en}", f"{ready.zh}{before.zh}")
        self._worker.say(ready)
        self._changed()

    def _clear(self) -> None:
        self.batch = None
        self._show(())
        self.facts.value = self.plan.value = ""

    def _show(self, problems: Sequence[Problem]) -> None:
        self._problems = problems
        options = self._worker.describe_options(p.option for p in islice(problems, PROBLEMS_SHOWN))
        note = f"<p>{esc(options)}</p>" if options else ""
        self.problems.value = render_problems(problems, self._lang) + note
        for part in (self.problems, self.fixme):
            show(part, shown=bool(problems))

    def _write_fixme(self) -> None:
        dest = fixme_beside(Path(self.paths.path))
        written = write_fixme(self._problems, dest, self._lang)
        if not written:
            raise UsageError(
                Text(
                    "These problems concern the file as a whole; there is no row to fix.",
                    "这些是整个文件的问题，没有可修正的行。",
                )
            )
        self._worker.say(
            Text(
                f"{plural(written, 'row')} are in {dest}: fix them there, then pick that file.",
                f"{written:,} 行已写入 {dest}：请在其中修正，然后选择该文件。",
            ),
            "good",
        )


def _refused(source: str, problems: Sequence[Problem]) -> InputError:
    count = len(problems)
    return InputError(
        Text(
            f"{source} is refused: it has {plural(count, 'problem')}. Nothing was sent.",
            f"{source} 未被接受：共 {count:,} 处问题。未发送任何内容。",
        ),
        source,
        problems,
    )
