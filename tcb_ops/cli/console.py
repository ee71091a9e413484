"""Console output: data on stdout, messages and progress on stderr; how a run ended."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tcb_ops.formatting import escape_controls, format_duration, lines, sanitize, wrap
from tcb_ops.i18n import Lang, Text, _, as_sentences, ngettext, terminal_lang
from tcb_ops.model import Problem

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType

    from tcb_ops.engine.progress import Progress
    from tcb_ops.reports.summary import RunSummary
    from tcb_ops.run import Run

LINE_EVERY = 5.0
"""Seconds between two lines of progress if stderr is not a terminal."""


def _pipe(**options: Any) -> RichConsole:
    """Return a rich console that escapes what it prints, and survives a closed pipe.

    So `tcb-ops upload … | head` keeps the run's exit code.
    """
    from rich.console import Console as RichConsole
    from rich.console import ConsoleOptions
    from rich.segment import Segment

    class Pipe(RichConsole):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else escape_controls(text), style, control)

        def on_broken_pipe(self) -> None:
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())

    return Pipe(highlight=False, markup=False, emoji=False, **options)


class Console:
    """The output of one command."""

    has_printed_json: ClassVar[bool] = False
    """Whether the command has printed its object: an error after it is told on stderr alone."""

    def __init__(self, lang: Lang, *, quiet: bool = False, progress_as_json: bool = False) -> None:
        self.lang, self.quiet = terminal_lang(lang), quiet
        self.progress_as_json = progress_as_json
        self.fix_me: tuple[Text, Text, Sequence[str]] | None = None
        """Where the list's skipped rows are, what to do with them, and the command to run then."""
        self.json_extra: dict[str, object] = {}
        """Keys that `json` adds to its object."""
        self._held: list[Text] | None = None
        self._head: Text | None = None
        self.out = _pipe(soft_wrap=not sys.stdout.isatty())
        self.err = _pipe(stderr=True, soft_wrap=True)

    def print(self, what: Text | RenderableType) -> None:
        """Print data on stdout: a Text wrapped to a terminal's width, a string unchanged, or a rich renderable."""
        if isinstance(what, Text):
            self.out.print(wrapped(lines(what.of(self.lang)), self.out), soft_wrap=True)
        elif isinstance(what, str):
            self.out.print(lines(what), soft_wrap=True)
        elif self.out.is_terminal:
            self.out.print(what)
        else:
            with self.out.capture() as printed:
                self.out.print(what)
            # rich pads the cells of a table to its width.
            text = "\n".join(line.rstrip() for line in printed.get().splitlines())
            self.out.print(text, soft_wrap=True)

    def json(self, what: Mapping[str, Any]) -> None:
        """Print one JSON object on stdout."""
        Console.has_printed_json = True
        content = {**what, **self.json_extra}
        is_utf_8 = (sys.stdout.encoding or "").lower() in {"utf-8", "utf8"}
        text = escape_controls(json.dumps(content, ensure_ascii=not is_utf_8, indent=2))
        try:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            self.out.on_broken_pipe()

    def info(self, text: Text) -> None:
        """Print a message on stderr, except with --quiet."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: Text) -> None:
        """Print a warning on stderr, even with --quiet."""
        if self._held is not None:
            self._held.append(text)
        else:
            self.err.print(wrapped(lines(text.of(self.lang)), self.err))

    def link(self, text: Text, page: Path) -> None:
        """Print a message, except with --quiet; on a terminal a click on the page's path opens it."""
        if self.quiet or not self.err.is_terminal:
            self.info(text)
            return
        from rich.text import Text as RichText

        message = RichText(wrapped(lines(text.of(self.lang)), self.err))
        message.highlight_words([str(page)], style=f"link {page.as_uri()}")
        self.err.print(message)

    def suggest(self, text: Text, command: Sequence[str]) -> None:
        """Print a message, and on a line of its own the command to run next."""
        from tcb_ops.engine.next_commands import quoted

        self.info(_("{text}\n{line}", text=text, line=quoted(command)))

    def suggest_one(self, chosen: tuple[Text, Sequence[str]] | None = None) -> None:
        """Suggest this command, and that for the list's skipped rows if there are any."""
        if self.fix_me is not None:
            where, purpose, words = self.fix_me
            self.suggest(as_sentences((where, purpose)), words)
        if chosen is not None:
            self.suggest(*chosen)

    @contextmanager
    def held(self, head: Text | None = None) -> Iterator[None]:
        """Hold back messages until `release` or the end of the block, because a run's first line depends on its start.

        `head` begins the first line; after an error before the release it is omitted, because nothing was sent.
        """
        self._held, self._head = [], head
        try:
            yield
        except BaseException:
            self._head = None
            raise
        finally:
            self.release()

    def lead(self, text: Text) -> None:
        """Add what the command is about to the first line, which `held` holds back."""
        if self._head is not None:
            self._head = _("{head} · {first}", head=self._head, first=text)
        elif not self.quiet:
            self._head = text

    def release(self, first: Text | None = None) -> None:
        """Print the head with `first` on the same line, then the messages held back."""
        held, self._held = self._held or [], None
        head, self._head = self._head, None
        if head is not None and first is not None:
            first = _("{head} · {first}", head=head, first=first)
        for text in (first or head, *held):
            if text is not None:
                self.warn(text)

    def confirm(self, question: Text) -> bool:
        """Ask for yes or no on the terminal; Enter alone is no. What does not print in the question is escaped."""
        import click

        asked = _("{question} [y/N]:", question=question).of(self.lang)
        return click.confirm(sanitize(asked), err=True, show_default=False, prompt_suffix=" ")

    def waiting(self, text: Text) -> AbstractContextManager[object]:
        """Show a spinner on a terminal while work is under way."""
        is_shown = self.err.is_terminal and not self.quiet
        return self.err.status(f"{text.of(self.lang)}…") if is_shown else nullcontext()

    def follow(self, progress: Iterator[Progress], total: int) -> None:
        """Show a run's progress until it ends: a bar on a terminal, otherwise a line every few seconds if it has changed."""
        if self.progress_as_json:
            for now in progress:
                self.err.print(json.dumps({"progress": now.to_json(self.lang)}))
        elif self.quiet:
            for _now in progress:
                pass
        elif self.err.is_terminal:
            self._bar(progress, total)
        else:
            self._lines(progress)

    def _bar(self, progress: Iterator[Progress], total: int) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        bar = Bar(
            BarColumn(bar_width=12, finished_style="bar.complete"),  # not green: rows may have failed
            TextColumn(
                "{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"), markup=False
            ),
            console=self.err,
            transient=True,
        )
        with bar:
            task = bar.add_task("", total=total)
            for now in progress:
                bar.update(task, completed=now.done, description=progress_line(now, self.lang, moves=True))

    def _lines(self, progress: Iterator[Progress]) -> None:
        last, printed, away = time.monotonic(), (0, ""), False
        for now in progress:
            state = (now.done, now.note.of(self.lang) if now.note is not None else "")
            # A new note is printed immediately: it names what slows the run down. So is the end of an outage.
            at_once = (state[1] and not printed[1]) or (away and not now.away)
            if at_once or (state != printed and time.monotonic() - last >= LINE_EVERY):
                last, printed, away = time.monotonic(), state, now.away
                self.err.print(progress_line(now, self.lang))


def wrapped(text: str, console: RichConsole) -> str:
    """Wrap a message's first line to a terminal's width. Further lines are for copying and stay unchanged."""
    if not console.is_terminal:
        return text
    sentence, end, command = text.partition("\n")
    return f"{wrap(sentence, console.width)}{end}{command}"


def progress_line(now: Progress, lang: Lang, *, moves: bool = False) -> str:
    """Return a line of progress: `40/100 · 4 refused · 36 uploaded · 10 rows/s · 6s left`. What matters least is last.

    `moves`: the line is drawn again as it changes, so that it may begin with a countdown.
    """
    from tcb_ops.reports.explanations import counts_line

    countdown = now.countdown.of(lang) if moves and now.countdown is not None else ""
    note = now.note.of(lang) if now.note is not None and (now.away or not countdown) else ""
    parts = [countdown, f"{now.done:,}/{now.total:,}", note]
    worst_first = sorted(now.counts.items(), key=lambda count: count[0].succeeded)
    parts += [counts_line({outcome: rows}).of(lang) for outcome, rows in worst_first if rows]
    if now.done < now.total:  # the last line shows only the result
        parts.append(_("{rate:,.0f} rows/s", rate=now.rate).of(lang))
        if now.seconds_left is not None and now.seconds_left >= 1:  # below, rows may be waiting for a retry
            parts.append(_("{time} left", time=format_duration(now.seconds_left)).of(lang))
    return " · ".join(filter(None, parts))


def show_problems(console: Console, source: str, problems: Sequence[Problem]) -> None:
    """Print the first problems, one per line, and the number of those not shown."""
    from tcb_ops.lists.input_files import PROBLEMS_SHOWN, format_problem

    for problem in problems[:PROBLEMS_SHOWN]:
        console.warn(format_problem(source, problem))
    if (rest := len(problems) - PROBLEMS_SHOWN) > 0:
        more = ngettext("{n:,} more problem", "{n:,} more problems", rest)
        console.warn(_("and {more_problems}", more_problems=more))


def show_run(
    console: Console,
    run: Run,
    *,
    as_json: bool,
    fail_on: str = "any",
    notifications: Sequence[Mapping[str, Any]] = (),
) -> tuple[int, RunSummary]:
    """Print how a run ended; return the exit code and the run's summary. `fail_on`: of findings, which failures count."""
    from tcb_ops.reports.explanations import change_lines, confirmation_text
    from tcb_ops.reports.formats.terminal import Wrapped, render_findings

    kind, finished = run.record.kind, run.record.finished_at is not None
    findings = run.findings() if run.record.has_findings else None
    overview = run.overview()  # after the findings, which take as much memory meanwhile
    if as_json:
        summary = overview.to_json()
        if findings is not None:
            summary |= {kind: findings.to_json(console.lang), "notifications": notifications}
        console.json(summary)
    else:
        if findings is None:
            show_causes(console, run, overview)
        elif findings.stopped is not None:
            console.print(Wrapped(findings.stopped.of(console.lang)))
        else:
            for part in render_findings(findings, console.lang):
                console.print(part)
        console.print(overview.verdict)
        confirmed = [confirmation_text(*overview.confirmed)] if overview.confirmed is not None else []
        for line in (*change_lines(overview.changed_by, run.settings.zone), *confirmed):
            console.print(line)
    if findings is not None and (code := findings.exit_code(fail_on)) is not None:
        return code, overview
    if finished and run.record.stopped is not None:
        return 3, overview
    confirmed_counts = overview.confirmed[1] if overview.confirmed is not None else {}
    succeeded = all(outcome.succeeded for outcome in (*overview.counts, *confirmed_counts))
    return 0 if succeeded else 1, overview


def show_causes(console: Console, run: Run, summary: RunSummary, *, texts: bool = False) -> None:
    """Print what did not succeed, by errcode, merchant and environment; `texts`: with those for merchants."""
    from tcb_ops.reports.formats.terminal import render_errcodes
    from tcb_ops.reports.summary import by_code

    if causes := summary.causes:
        in_full = f"tcb-ops report {run.id}" if run.record.kind.writes_links else "errcodes.csv"
        console.print(render_errcodes(by_code(causes), console.lang, in_full, texts=texts))
