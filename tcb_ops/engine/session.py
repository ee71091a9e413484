"""One process's work on a run, controlled from outside the event loop: start, watch, cancel, wait."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tcb_ops.engine.calls import RunContext, Runner
from tcb_ops.engine.engine import Engine
from tcb_ops.engine.links_file import LinksFile
from tcb_ops.engine.loop import WAIT_STEP, result_of
from tcb_ops.engine.next_commands import of_run, quoted, resume
from tcb_ops.engine.progress import Progress
from tcb_ops.engine.stop_errors import interrupted, interrupted_late, stop_reason
from tcb_ops.errors import CanaryError, InterruptedRunError, LedgerError, TcbOpsError
from tcb_ops.i18n import _, as_lines
from tcb_ops.ledger.records import RunRecord
from tcb_ops.model import Outcome, RowEnd
from tcb_ops.settings import Settings
from tcb_ops.system_errors import exhausted

MANY = 10_000
"""Rows from which on freeing what a session kept is worth a full pass of the garbage collector."""


class RunSession:
    """A session in progress. `wait` returns the finished run or raises; `cancel` ends the session early."""

    def __init__(self, context: RunContext) -> None:
        """Start working. The caller holds the run's lock, and may release it when `wait` has returned."""
        self._ledger = context.ledger
        self._run = (
            self._ledger.resume(context.run, context.runtime.now()) if context.resumed else context.run
        )
        self._context = replace(context, run=self._run)
        self._links: LinksFile | None = None
        self._news = threading.Condition()
        self._newest: Progress | None = None
        self._ended = False
        self._cancelled = False
        self._exit_code = 130
        self._engine: Runner | None = None
        self._left_begun = True
        """Whether rows began without a recorded end; until the engine has ended, they may."""
        self.expired_links = 0
        """Number of links that had expired when links.csv was written."""
        if self._run.kind.writes_links:
            planned = Path(self._run.out)
            self._links = LinksFile(
                context.out or planned, self._run.id, context.settings.zone, planned, context.runtime.now
            )
            self._links.open(context.may_discard)
            if context.resumed:  # links that are missing from the part, or have expired, are requested again
                records = self._ledger.records(self._run, frozenset({Outcome.LINKED}))
                linked = (record[1] for batch in records for record in batch)
                self._ledger.reopen(self._run, self._links.lost(linked, self._context.runtime.now()))
        done = self._ledger.counts(self._run) if context.resumed else {}
        self.done_before = sum(rows for outcome, rows in done.items() if outcome is not Outcome.PENDING)
        """Number of rows that earlier sessions had done."""
        self._future = self._context.runtime.submit(self._work())

    def cancel(self) -> None:
        """End the session: calls in flight have a few seconds to end, all other rows stay pending."""
        self._cancelled = True
        self._context.runtime.submit(self._interrupt())

    def watch(self) -> Iterator[Progress]:
        """Yield the newest progress each time there is one, until the session ends."""
        shown: Progress | None = None
        while True:
            with self._news:
                while self._newest is shown and not self._ended:
                    self._news.wait(WAIT_STEP)
                newest, ended = self._newest, self._ended
            if newest is not None and newest is not shown:
                yield newest
            if ended:
                return
            shown = newest

    def ended_within(self, seconds: float) -> bool:
        """Wait at most `seconds` for the session's end; return whether it has ended."""
        with self._news:
            return self._news.wait_for(lambda: self._ended, seconds)

    def interrupted(self, interrupt: KeyboardInterrupt) -> None:
        """Cancel after a Ctrl-C, SIGTERM or SIGHUP that the caller received while watching; `wait` raises the error."""
        self._exit_code = getattr(interrupt, "exit_code", 130)
        self.cancel()

    def wait(self) -> RunRecord:
        """Wait for the end; return the finished run. Raises StoppedError, or InterruptedRunError if cancelled.

        A second Ctrl-C does not wait for calls in flight. A run whose kind has an `end_when_stopped` for what stops it
        finishes all the same: its other rows end so, and the record has the reason.
        """
        rest: RowEnd | None = None
        while True:
            try:
                result_of(self._future)
                break
            except KeyboardInterrupt as interrupt:
                if self._cancelled:
                    self._future.cancel()
                else:
                    self.interrupted(interrupt)
            except CancelledError:
                raise self._early_end(interrupted()) from None
            except TcbOpsError as error:
                if (rest := self._run.kind.end_when_stopped(error)) is None:
                    raise self._early_end(error) from None
                break
            except OSError as error:
                if (shortage := exhausted(error)) is None:
                    raise
                raise self._early_end(shortage) from None
        try:
            self._finish(rest)
        except TcbOpsError as error:
            raise self._early_end(error) from None
        return self._ledger.run(self._run.id)

    def raise_if_cancelled(self) -> None:
        """Raise InterruptedRunError if the session was to end early, although its run has finished.

        Callers must not take the end of such a wait for permission to go on.
        """
        if not self._cancelled:
            return
        error = interrupted_late(self._run.id)
        error.exit_code = self._exit_code
        shows = quoted(of_run(self._context.settings, self._run, "show"))
        raise _with_lines(error, _("To see how:"), shows)

    def _finish(self, rest: RowEnd | None) -> None:
        self._context.check_lock()  # the process may have been frozen since its last commit
        dest = None
        if self._links is not None:
            self.expired_links = self._links.finish(self._ledger, self._run, self._context.runtime.now())
            dest = self._links.dest
        self._ledger.finish(self._run, self._context.runtime.now(), rest, dest)
        if self._links is not None:
            self._links.discard()

    def _early_end(self, error: TcbOpsError) -> TcbOpsError:
        if isinstance(error, InterruptedRunError):
            error.exit_code = self._exit_code
        with suppress(LedgerError, KeyboardInterrupt):  # a second Ctrl-C: how to resume is told all the same
            now = self._context.runtime.now()
            self._ledger.stop(self._run, stop_reason(error), now if self._left_begun else None)
        return _with_next(error, self._run, self._context.settings)

    async def _interrupt(self) -> None:
        if self._engine is not None:
            self._engine.interrupt()

    async def _work(self) -> None:
        context = self._context
        try:
            async with context.runtime.transport(context.limits.concurrency) as transport:
                if context.runner is None:
                    self._engine = Engine(context, transport, self._links, self._show)
                else:
                    self._engine = context.runner(context, self._show)
                if self._cancelled:
                    self._engine.interrupt()
                try:
                    await self._engine.work()
                finally:
                    self._left_begun = self._engine.has_begun_rows
        finally:
            await context.tokens.aclose()
            if self._links is not None:
                self._links.close()
            self._engine = None
            # Its parts refer to one another: this frees them, and their connections, before a report is written.
            gc.collect(2 if self._run.rows >= MANY else 1)
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _show(self, progress: Progress) -> None:
        with self._news:
            self._newest = progress
            self._news.notify_all()
        if self._context.progress is not None:
            self._context.progress(progress)


def _with_next(error: TcbOpsError, run: RunRecord, settings: Settings) -> TcbOpsError:
    lines: list[object] = []
    purpose = _("To resume run {id} ({target}):")
    if is_canary := isinstance(error, CanaryError):
        lines += [_("To see why:"), quoted(of_run(settings, run, "errcodes"))]
        purpose = _("To resume the other environments of run {id} ({target}) anyway, without {--canary}:")
    purpose = purpose.format(id=run.id, target=settings.target_label)
    return _with_lines(error, *lines, purpose, quoted(resume(settings, run, canary=not is_canary)))


def _with_lines(error: TcbOpsError, *lines: object) -> TcbOpsError:
    error.text = as_lines([error.text, *lines])
    error.args = (error.text.en,)
    return error
