"""One process's work on a run, from outside the event loop: start, watch, cancel, wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path

from tcb_ops.errors import CanaryError, InterruptedRunError, LedgerError, TcbOpsError
from tcb_ops.i18n import Lang, Text
from tcb_ops.model import Kind, Outcome, target_label
from tcb_ops.resources import exhausted
from tcb_ops.runs.engine import Engine, RunContext
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.links_file import LinksFile
from tcb_ops.runs.loop import hand_over
from tcb_ops.runs.next_commands import of_run, quoted, resume
from tcb_ops.runs.progress import Progress
from tcb_ops.runs.records import RunRecord
from tcb_ops.runs.stop_errors import interrupted, stop_reason
from tcb_ops.settings import Settings
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.tokens import TokenSource
from tcb_ops.wechat.transport import Transport


class RunSession:
    """A run being worked on. `wait` gives the finished run's record or raises; `cancel` ends it tidily."""

    def __init__(
        self,
        ledger: Ledger,
        run: RunRecord,
        settings: Settings,
        pace: RunLimits,
        *,
        root: Path,
        out: Path | None,
        tokens: TokenSource,
        progress: Callable[[Progress], None] | None = None,
        skip_unchanged: bool = False,
        canary: int = 0,
        may_discard: Callable[[str], bool] = lambda _run: False,
        confirm: Callable[[], None] = lambda: None,
    ) -> None:
        """Start working. The caller holds the run's lock; it may let go when `wait` has returned.

        `confirm` raises LedgerError where that lock is lost: the session ends, its rows stay pending.

        `may_discard` says of another run's id whether its links, left where this run's are to go, are of no use.
        """
        self._ledger, self._run, self._settings, self._pace = ledger, run, settings, pace
        self._root, self._progress, self._confirm = root, progress, confirm
        self._links = (
            LinksFile(out or Path(run.out), run.id, Path(run.out)) if run.kind is Kind.LINKS else None
        )
        self._tokens = tokens
        self._skip_unchanged, self._canary = skip_unchanged, canary
        self._news = threading.Condition()
        self._look: Progress | None = None
        self._ended = False
        self._cancelled = False
        self._exit_code = 130
        self._engine: Engine | None = None
        self.links_run_out = 0
        """Of a links run: how many links had run out when links.csv was finished."""
        if self._links is not None:
            self._links.open(may_discard)
            self._reopen_lost(self._links)
        self._future = hand_over(self._work())

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.id

    def cancel(self) -> None:
        """End tidily: calls in flight have a moment, all other rows stay pending."""
        self._cancelled = True
        hand_over(self._interrupt())

    def watch(self) -> Iterator[Progress]:
        """Give the newest progress each time there is one, until the sitting ends. Everything in it is committed."""
        seen: Progress | None = None
        while True:
            with self._news:
                while self._look is seen and not self._ended:
                    self._news.wait()
                look, ended = self._look, self._ended
            if look is not None and look is not seen:
                yield look
            if ended:
                return
            seen = look

    def ended_within(self, seconds: float) -> bool:
        """Wait so long at most for the sitting's end; gives whether it has ended."""
        with self._news:
            return self._news.wait_for(lambda: self._ended, seconds)

    def interrupted(self, interrupt: KeyboardInterrupt) -> None:
        """Note a Ctrl-C, SIGTERM or SIGHUP that reached the caller while it watched; `wait` raises what follows from it."""
        self._exit_code = getattr(interrupt, "exit_code", 130)
        self.cancel()

    def wait(self) -> RunRecord:
        """Wait for the end. Raises StoppedError, or InterruptedRunError after `cancel` or Ctrl-C.

        A second Ctrl-C does not wait for calls in flight.
        """
        while True:
            try:
                self._future.result()
                break
            except KeyboardInterrupt as interrupt:
                if self._cancelled:
                    self._future.cancel()
                else:
                    self.interrupted(interrupt)
            except CancelledError:
                raise self._early_end(interrupted()) from None
            except TcbOpsError as error:
                raise self._early_end(error) from None
            except OSError as error:
                shortage = exhausted(error)
                if shortage is None:
                    raise
                raise self._early_end(shortage) from None
        try:
            self._finish()
        except TcbOpsError as error:
            raise self._early_end(error) from None
        return self._ledger.run(self._run.id)

    def _finish(self) -> None:
        if self._links is not None:
            self.links_run_out = self._links.finish(self._ledger, self._run, self._settings.zone, time.time())
            self._ledger.note_report(self._run, str(self._links.dest))
        self._ledger.finish(self._run, time.time())
        if self._links is not None:
            self._links.discard()

    def _early_end(self, error: TcbOpsError) -> TcbOpsError:
        """Note in the ledger why the sitting ended, as far as the ledger still takes it."""
        if isinstance(error, InterruptedRunError):
            error.exit_code = self._exit_code
        with suppress(LedgerError):
            self._ledger.stop(self._run, stop_reason(error))
        return _with_next(error, self._run, self._settings)

    async def _interrupt(self) -> None:
        if self._engine is not None:
            self._engine.interrupt()

    async def _work(self) -> None:
        settings = self._settings
        try:
            async with Transport(connections=self._pace.concurrency) as transport:
                means = RunContext(
                    self._ledger,
                    self._tokens,
                    transport,
                    PlatformClient(transport, settings.api_base, store_hosts=settings.store_hosts),
                    self._root,
                    self._pace,
                    settings.etag,
                    Lang(settings.lang),
                    self._links,
                    self._show,
                    self._skip_unchanged,
                    self._canary,
                    self._confirm,
                    settings.tokens.component_appid,
                )
                self._engine = Engine(self._run, means)
                if self._cancelled:
                    self._engine.interrupt()
                await self._engine.work()
        finally:
            await self._tokens.aclose()
            if self._links is not None:
                self._links.close()
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _show(self, progress: Progress) -> None:
        with self._news:
            self._look = progress
            self._news.notify_all()
        if self._progress is not None:
            self._progress(progress)

    def _reopen_lost(self, links: LinksFile) -> None:
        """On going on: linked rows whose link is missing from the part file, or has run out, are pending again."""
        linked = (r.row.line for r in self._ledger.rows(self._run, outcomes=frozenset({Outcome.LINKED})))
        self._ledger.reopen(self._run, links.lost(linked, time.time()))


def _with_next(error: TcbOpsError, run: RunRecord, settings: Settings) -> TcbOpsError:
    """Add to an error that stopped a run its id, its target, and the command that resumes it."""
    target = target_label(run.target, settings.api_base)
    ways = [
        (
            Text(f"To resume run {run.id} ({target}):", f"继续任务 {run.id}（{target}）："),
            resume(settings, run),
        )
    ]
    if isinstance(error, CanaryError):
        ways = [
            (Text("To see why:", "查看原因："), of_run(settings, run, "errcodes")),
            (
                Text(
                    f"To resume the other environments of run {run.id} ({target}) all the same, without --canary:",
                    f"仍要继续任务 {run.id}（{target}）的其余环境（不带 --canary）：",
                ),
                resume(settings, run, canary=False),
            ),
        ]
    en, zh = [error.text.en], [error.text.zh]
    for label, words in ways:
        en += [label.en, quoted(words)]
        zh += [label.zh, quoted(words)]
    error.text = Text("\n".join(en), "\n".join(zh))
    error.args = (error.text.en,)
    return error
