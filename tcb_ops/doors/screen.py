"""What a command says: data on stdout, talk on stderr, progress where somebody watches."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text as Styled

from tcb_ops.model import GOOD, Lang, Text, legible
from tcb_ops.reports.wording import counts_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType
    from rich.progress import Task

    from tcb_ops.runs.progress import Progress

__all__ = ["Screen", "amount", "lines", "span"]

LINE_EVERY = 5.0
"""Seconds between two lines of progress where nobody watches."""


class _Pipe(Console):
    """A console whose reader may go away: `tcb-ops upload … | head` still ends the run with its own exit code."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class Screen:
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
        legible = (sys.stdout.encoding or "").lower() in {"utf-8", "utf8"}
        try:
            sys.stdout.write(json.dumps(what, ensure_ascii=not legible, indent=2) + "\n")
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
    left = span(look.seconds_left)
    return f"{rate} · " + Text(f"{left} left", f"剩余 {left}").of(lang)


def lines(text: str) -> str:
    """What is said, which may quote a name from outside: line by line what a terminal can take."""
    return "\n".join(map(legible, text.split("\n")))


def span(seconds: float) -> str:
    """A time span as people read it: 7s, 3m20s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def amount(size: float) -> str:
    """Bytes as people read them: 17 B, 4.1 KB, 3 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{size:.3g} TB"
