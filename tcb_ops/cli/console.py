"""What a command says: data on stdout, talk on stderr, progress where somebody watches."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column, Table
from rich.text import Text as Styled

from tcb_ops.formatting import format_duration, lines, sanitize
from tcb_ops.i18n import Lang, Text
from tcb_ops.model import GOOD, Kind, Outcome, Reason
from tcb_ops.reports.explanations import counts_line
from tcb_ops.run import Run
from tcb_ops.runs.progress import Progress
from tcb_ops.runs.records import RowRecord
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Task

LINE_EVERY = 5.0
"""Seconds between two lines of progress where nobody watches."""


class _Pipe(RichConsole):
    """A console whose reader may go away: `tcb-ops upload … | head` still ends the run with its own exit code."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class Console:
    """Where one command talks."""

    def __init__(self, lang: Lang, *, quiet: bool = False, verbose: bool = False) -> None:
        self.lang, self.quiet, self.verbose = lang, quiet, verbose
        self._held: list[Text] | None = None
        self._head: Text | None = None
        self.out = _Pipe(soft_wrap=not sys.stdout.isatty(), highlight=False, markup=False, emoji=False)
        self.err = _Pipe(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def data(self, what: RenderableType) -> None:
        """Print data, a table or lines, on stdout."""
        self.out.print(lines(what) if isinstance(what, str) else what)

    def json(self, what: Mapping[str, Any]) -> None:
        """Print one JSON object on stdout."""
        sanitize = (sys.stdout.encoding or "").lower() in {"utf-8", "utf8"}
        try:
            sys.stdout.write(json.dumps(what, ensure_ascii=not sanitize, indent=2) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            self.out.on_broken_pipe()

    def say(self, text: Text) -> None:
        """Talk, unless told to be quiet."""
        if not self.quiet:
            self._talk(text)

    def warn(self, text: Text) -> None:
        """Talk even when told to be quiet: something is not as it should be."""
        self._talk(text)

    @contextmanager
    def held(self, head: Text | None = None) -> Iterator[None]:
        """Hold talk back until `release`, or the end of the block: what a run says first is known only when it begins.

        `head` begins the first line; an error before the release, so that nothing was sent, is told without it.
        """
        self._held, self._head = [], head
        try:
            yield
        except BaseException:
            self._head = None
            raise
        finally:
            self.release()

    def release(self, first: Text | None = None) -> None:
        """Say the head, and `first` on the same line; then what was held back."""
        held, self._held = self._held or [], None
        head, self._head = self._head, None
        if head is not None and first is not None:
            first = Text(f"{head.en} · {first.en}", f"{head.zh} · {first.zh}")
        for text in (first or head, *held):
            if text is not None:
                self._talk(text)

    def _talk(self, text: Text) -> None:
        if self._held is not None:
            self._held.append(text)
        else:
            self.err.print(lines(text.of(self.lang)))

    def follow(self, looks: Iterator[Progress], total: int) -> None:
        """Show a run's progress until it ends: a bar on a terminal, a line every few seconds otherwise."""
        if self.quiet:
            return
        if self.err.is_terminal:
            self._bar(looks, total)
        else:
            self._lines(looks)

    def _bar(self, looks: Iterator[Progress], total: int) -> None:
        bar = Bar(
            BarColumn(bar_width=12, table_column=_whole()),
            TextColumn("{task.fields[done]}", table_column=_whole()),
            _Rate(table_column=_whole()),
            _Outcomes(),
            console=self.err,
            transient=True,
        )
        with bar:
            task = bar.add_task("", total=total, done="", outcomes="", look=None, lang=self.lang)
            for look in looks:
                # What holds the run up and what is not good come first: a narrow line cuts the rest.
                worst_first = dict(sorted(look.counts.items(), key=lambda count: count[0] in GOOD))
                note = f"{look.note.of(self.lang)} · " if look.note else ""
                bar.update(
                    task,
                    completed=look.done,
                    done=f"{look.done:,}/{look.total:,}",
                    outcomes=note + counts_line(worst_first, self.lang),
                    look=look,
                )

    def _lines(self, looks: Iterator[Progress]) -> None:
        last, told = time.monotonic(), False
        for look in looks:
            # What begins to hold a run up is said at once.
            if time.monotonic() - last >= LINE_EVERY or (look.note is not None and not told):
                last, told = time.monotonic(), look.note is not None
                note = f" · {look.note.of(self.lang)}" if look.note else ""
                self.err.print(
                    f"{look.done:,}/{look.total:,} · {_pace(look, self.lang)} · {counts_line(look.counts, self.lang)}{note}"
                )


def _whole() -> Column:
    """A column that is not what a narrow line cuts."""
    return Column(no_wrap=True)


class _Outcomes(ProgressColumn):
    """What the rows ended as: cut where the line is narrow, so that progress keeps to one line."""

    def render(self, task: Task) -> Styled:
        return Styled(task.fields["outcomes"], no_wrap=True, overflow="ellipsis")


class _Rate(ProgressColumn):
    """Rows a second, and the time left."""

    def render(self, task: Task) -> Styled:
        look = task.fields["look"]
        return Styled(_pace(look, task.fields["lang"]) if look is not None else "")


def _pace(look: Progress, lang: Lang) -> str:
    rate = Text(f"{look.rate:,.0f} rows/s", f"{look.rate:,.0f} 行/秒").of(lang)
    if look.seconds_left is None or look.seconds_left < 1:  # the last rows may be waiting to be tried again
        return rate
    left = format_duration(look.seconds_left)
    return f"{rate} · " + Text(f"{left} left", f"剩余 {left}").of(lang)


def runs_table(found: Sequence[Run], settings: Settings) -> Table:
    """A line per run. Targets only where there is another than today's, so that 80 columns do."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    heads = {
        "run": Text("run", "任务"),  # its id says when it began
        "kind": Text("kind", "类型"),
        "rows": Text("rows", "行数"),
        "bad": Text("not good", "未成功"),
        "pending": Text("pending", "待处理"),
        "list": Text("list", "清单"),
        "target": Text("target", "目标"),
        "note": Text("note", "备注"),
    }
    if all(run.record.target == settings.run_target for run in found):
        del heads["target"]
    if not any(run.record.note for run in found):
        del heads["note"]
    if all(run.record.finished_at for run in found):
        del heads["pending"]
    for name, head in heads.items():
        number = name in {"rows", "bad", "pending"}
        table.add_column(
            head.of(settings.lang),
            overflow="fold",
            justify="right" if number else "left",
            no_wrap=number or name in {"run", "kind"},
        )
    for run in found:
        record, outcomes = run.record, run.outcomes
        pending = outcomes.get(Outcome.PENDING, 0)
        bad = sum(rows for outcome, rows in outcomes.items() if outcome not in GOOD) - pending
        cells = {
            "run": record.id,
            "kind": record.kind + Text(" (retry)", "（重试）").of(settings.lang) * bool(record.parent),
            "rows": f"{record.rows:,}",
            "bad": f"{bad:,}" if bad else "–",
            "pending": f"{pending:,}" if pending else "–",
            "list": sanitize(record.list_name),
            "target": record.target.partition("://")[2],
            "note": sanitize(record.note),
        }
        table.add_row(*(cells[name] for name in heads))
    return table


def rows_table(shown: Sequence[RowRecord], lang: Lang) -> Iterator[RenderableType]:
    """Draw a line per row; then, once for each cause, what it means and what to do."""
    from tcb_ops.reports.explanations import OUTCOMES, reason_text, why
    from tcb_ops.reports.formats.terminal import Wrapped

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(Text("line", "行号").of(lang), justify="right", no_wrap=True)
    table.add_column(Text("merchant", "商户").of(lang), overflow="fold")
    table.add_column(Text("environment", "环境").of(lang), overflow="fold")
    table.add_column(Text("path", "路径").of(lang), overflow="fold")
    table.add_column(Text("outcome", "结果").of(lang), no_wrap=True)
    table.add_column(Text("code", "错误码").of(lang), no_wrap=True)
    causes: dict[tuple[str, str, str], None] = {}
    for record in shown:
        row, end = record.row, record.end
        cause = why(end.outcome, end.reason, end.errcode, end.store_code)
        code = sanitize(cause.code) if cause is not None else ""
        if cause is not None:
            # Which rule a row broke is its own.
            meaning = reason_text(end) if end.reason is Reason.INVALID else cause.meaning
            causes[code, sanitize(meaning.of(lang)), sanitize(cause.action.of(lang))] = None
        table.add_row(
            f"{row.line}",
            sanitize(row.merchant),
            sanitize(row.env),
            sanitize(row.path),
            OUTCOMES[end.outcome].of(lang),
            code,
        )
    yield table
    for named, means, todo in causes:
        yield ""
        yield Wrapped(f"{named} · {means}", bold=len(named))
        yield Wrapped(f"→ {todo}")


def rest_of(run: Run) -> str:
    """Where a run's causes stand in full: in its report, or in the one that can be made."""
    return f"tcb-ops report {run.id}" if run.record.kind is Kind.LINKS else "errcodes.csv"
