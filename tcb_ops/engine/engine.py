"""The engine of a session: read pending rows from the ledger, make their calls within the limits, record how they end.

One event loop; the ledger's and files' I/O runs in threads. The scheduler picks the next task, `calls` makes its calls,
`outcome_handler` acts on the result, the writer commits. All state to keep is in the ledger: a run killed at any point
is resumed with its pending rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import fields

from tcb_ops.catalogue import Decision, errcode
from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.engine.calls import CallContext, Calls, RunContext, SomeEnds
from tcb_ops.engine.limits import (
    ARGUMENT_ERRORS,
    PROBE_PAUSE,
    NextStep,
    Outage,
    after_canary,
    after_no_token,
    backoff_wait,
)
from tcb_ops.engine.links_file import LinksFile
from tcb_ops.engine.outcome_handler import OutcomeHandler, closed_end
from tcb_ops.engine.progress import Progress, ProgressMeter
from tcb_ops.engine.scheduler import AppState, Lane, LaneRegistry, Scheduler, Task
from tcb_ops.engine.stop_errors import (
    NO_COMPONENT,
    interrupted,
    no_tokens,
    not_listening,
    refused_here,
    stopped,
    unreachable,
)
from tcb_ops.engine.writer import LedgerWriter
from tcb_ops.errors import CanaryError, LedgerError, OutageError, TokenError, TokenSourceError, TransportError
from tcb_ops.formatting import format_duration
from tcb_ops.i18n import NOTHING, Text, _, verbatim
from tcb_ops.kinds import environment_count
from tcb_ops.ledger.files import StoredFile
from tcb_ops.ledger.locks import LapsedError, Lease
from tcb_ops.ledger.records import EnvRecord, Usage
from tcb_ops.model import Listener, Outcome, Reason, Row, RowEnd, Secret
from tcb_ops.wechat.tokens import Token
from tcb_ops.wechat.transport import Transport

GRACE = 1.5
"""Seconds that calls in flight have to end when a run is interrupted or stopped."""
ASK_AT_LEAST = 3.0
"""Seconds that the token source has to respond, even if patience is shorter."""
LOCK_CHECK_EVERY = 3.0
"""Seconds between two checks of the run's lock, in addition to the one after each commit."""
LOCK_CHECK_WITHIN = 10.0
"""Timeout of a check. With LOCK_CHECK_EVERY and GRACE it is less than the server takes to drop a silent client
(locks.py), so that this session ends before another process can work on the run."""


class Engine:
    """Engine of one run, until it is finished, interrupted or stopped. Created and used inside one event loop."""

    def __init__(
        self,
        context: RunContext,
        transport: Transport,
        links: LinksFile | None,
        show: Callable[[Progress], None],
    ) -> None:
        self._context, self._run, self._limits = context, context.run, context.limits
        self._show_progress = show
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._writer_thread = context.runtime.executor("writer")
        self._reader_thread = context.runtime.executor("reader")
        self._lock_thread = context.runtime.executor("lock")
        self._kind = self._run.kind
        self._lease = Lease(
            LOCK_CHECK_EVERY + LOCK_CHECK_WITHIN if context.lease_seconds is None else context.lease_seconds,
            context.runtime.since_boot,
        )
        values = {field.name: getattr(context, field.name) for field in fields(RunContext)}
        self._calls: Calls = self._kind.calls(CallContext(**values, transport=transport, lease=self._lease))
        self._rows_in_flight = 0
        self._writer = LedgerWriter(
            context.ledger,
            self._run,
            links,
            self._writer_thread,
            self._usage,
            self._committed,
            context.check_lock,
            self._lease,
            max(1, self._limits.concurrency // 2),
        )
        self._after_canary: list[EnvRecord] = []
        """The environments that wait for the canary."""
        component = context.settings.tokens.component_appid
        self._registry = LaneRegistry(self._limits, component, self._kind.rows_per_call, self._calls.forget)
        self._scheduler = Scheduler(self._registry)
        self._outcomes = OutcomeHandler(
            self._limits,
            self._scheduler,
            self._writer,
            self._clock,
            context.runtime,
            self._stop,
            kind=self._kind,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[None]] = set()
        """Refills and token requests in progress."""
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._outage = Outage()
        self._outage_met = NOTHING
        """The error of the last attempt that reached no host."""
        self._source_answered = float("-inf")
        """When the token source last issued or refused a token."""
        self._source_error: Text | None = None
        """The token source's last error, until it responds again."""
        self._source_unreachable = False
        """Whether the outage affects the token source too."""
        self._held_tasks: list[Task] = []
        """Rows that wait for the end of the outage; they count as in flight."""
        self._error: Exception | None = None
        self._recorded = (self._clock(), 0, 0)
        self._meter = ProgressMeter(self._run.id, self._run.rows, {})

    async def work(self) -> None:
        """Work on the run's pending rows. Raises StoppedError (exit 3) or InterruptedRunError; other rows stay pending."""
        writing: asyncio.Task[None] | None = None
        watching = self._loop.create_task(self._watch_lock())
        watching.add_done_callback(self._task_done)
        counting = self._loop.create_task(self._show_each_second())
        try:
            await self._set_up()
            writing = self._loop.create_task(self._writer.write())
            writing.add_done_callback(self._task_done)
            await self._dispatch()
            if self._after_canary and self._error is None:
                await self._check_canary()
                await self._dispatch()
            if self._tasks:  # after an error; rows that do not end in time stay pending
                await asyncio.wait(self._tasks, timeout=GRACE)
            self._writer.close()
            await writing
        except asyncio.CancelledError:
            self._error = self._error or interrupted()
            raise
        finally:
            watching.cancel()
            counting.cancel()
            await self._shut_down(writing)
        if self._error is not None:
            raise self._error
        # Rows that a damaged ledger holds, but no longer finds by environment, were never worked on.
        self._context.ledger.check_rows(self._run, sum(self._writer.counts.values()))

    @property
    def has_begun_rows(self) -> bool:
        """Whether rows have begun, and how they ended is not recorded."""
        return bool(self._writer.uncommitted) or self._registry.has_begun_rows

    def interrupt(self) -> None:
        """End the session: calls in flight have GRACE seconds to end, all other rows stay pending."""
        self._stop(interrupted())

    # --- setting up and shutting down -------------------------------------------------------------------------

    async def _set_up(self) -> None:
        ledger = self._context.ledger
        environments, counts = await self._loop.run_in_executor(self._reader_thread, ledger.state, self._run)
        self._writer.counts.update(
            {outcome: rows for outcome, rows in counts.items() if outcome is not Outcome.PENDING}
        )
        self._meter = ProgressMeter(self._run.id, self._run.rows, self._writer.counts)
        waiting = after_canary(environments, self._context.canary)
        self._after_canary = [environment for environment in environments if environment.env in waiting]
        self._schedule([environment for environment in environments if environment.env not in waiting])

    async def _check_canary(self) -> None:
        tallies = await self._loop.run_in_executor(
            self._reader_thread, self._context.ledger.tallies, self._run
        )
        waiting = {environment.env for environment in self._after_canary}
        succeeded = Outcome.successes() | {Outcome.INVALID}  # skipped on purpose, with --on-bad skip
        rows = sum(t.rows for t in tallies if t.env not in waiting and t.outcome not in succeeded)
        if rows:
            self._stop(stopped(CanaryError, DetailCode.CANARY, rows=rows))
        else:
            if self._limits.rate:  # nobody remembers when each merchant's last call began
                await asyncio.sleep(1 / self._limits.rate)
            self._schedule(self._after_canary)

    def _schedule(self, environments: Iterable[EnvRecord]) -> None:
        pending = [record for record in environments if record.pending]
        self._scheduler.come([record for record in pending if not record.left])
        for environment in pending:
            if environment.left:
                self._outcomes.merchant_left(environment)

    async def _shut_down(self, writing: asyncio.Task[None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks, *self._background]
        for task in tasks:
            task.cancel()
        self._writer.close()
        await asyncio.gather(*tasks, *([writing] if writing else ()), return_exceptions=True)
        self._writer_thread.shutdown()
        self._reader_thread.shutdown()
        self._lock_thread.shutdown(wait=False)

    async def _watch_lock(self) -> None:
        """Check the run's lock periodically. Raises LedgerError if it is lost, or the check times out."""
        lease = self._context.lease_seconds
        while True:
            asked = self._lease.now()
            answer = self._loop.run_in_executor(self._lock_thread, self._context.check_lock)
            try:
                await asyncio.wait_for(answer, LOCK_CHECK_WITHIN)
            except TimeoutError:
                raise stopped(LedgerError, DetailCode.LOCK_LOST) from None
            self._lease.confirm(asked)
            self._wake.set()
            await asyncio.sleep(LOCK_CHECK_EVERY if lease is None else lease / 4)

    async def _show_each_second(self) -> None:
        while True:  # also without a commit: the rate falls
            await asyncio.sleep(1)
            self._show(self._clock())

    def _stop(self, error: Exception) -> None:
        if isinstance(error, LedgerError):  # what rows in flight would do could not be recorded
            self._lease.lose()
        self._error = self._error or error
        self._wake.set()

    # --- dispatching --------------------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        while self._error is None:
            # Cleared before anything is looked at: what happens from here on wakes the wait below at once.
            self._wake.clear()
            now = self._clock()
            if self._lease.holds:
                if self._outage.since is not None:
                    self._probe(now)
                while len(self._tasks) < self._limits.concurrency and (task := self._next(now)) is not None:
                    self._start(self._work(task), self._tasks)
                self._start_background()
            is_busy = self._tasks or self._background or self._held_tasks or self._writer.busy
            if not is_busy and self._scheduler.is_done:
                return
            if not self._tasks:  # nothing else will end: what waits for company is committed now
                self._writer.flush()
            self._set_timer(now)
            await self._wake.wait()

    def _next(self, now: float) -> Task | None:
        """Begin the next row, if one may begin: a kill would lose at most 2 × concurrency rows, or those of one call."""
        if self._error is not None or self._outage.since is not None or not self._lease.holds:
            return None
        most, rows_per_call = 2 * self._limits.concurrency, self._kind.rows_per_call
        # The server has acted on these rows, or may have, and the ledger does not know. A call of more rows than `most` begins
        # when there are no others, or it never would.
        while (lost := self._rows_in_flight + self._writer.uncommitted) + rows_per_call <= most or not lost:
            task = self._scheduler.take(now)
            if task is None:
                return None
            if task.lane.end_as is None:
                self._begin(task, now)
                return task
            self._outcomes.ended(task, closed_end(task, task.lane.end_as, self._context.runtime.now()))
        return None

    def _begin(self, task: Task, now: float) -> None:
        app = task.lane.app
        task.refusal = None  # it referred to the previous token
        if app.token is not None:  # taken now: another row's refusal may remove it before the task starts
            task.token = app.token.value
        if self._limits.rate and (task.link is None or now >= task.link_until):
            app.next_call = max(now, app.next_call) + 1 / self._limits.rate
        self._rows_in_flight += len(task.rows)

    def _start(self, work: Coroutine[None, None, None], among: set[asyncio.Task[None]]) -> None:
        started = self._loop.create_task(work)
        among.add(started)

        def done(ended: asyncio.Task[None]) -> None:
            among.discard(ended)
            self._task_done(ended)

        started.add_done_callback(done)

    def _task_done(self, ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and (error := ended.exception()) is not None:
            self._stop(error if isinstance(error, Exception) else RuntimeError(type(error).__name__))
        self._wake.set()

    def _set_timer(self, now: float) -> None:
        """Wake the dispatcher at the next timer. For a timer already due, a row's end or a commit wakes it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_at = self._scheduler.next_timer()
        if self._outage.since is not None:
            gives_up_at = self._outage.since + self._limits.patience
            wake_at = gives_up_at if self._tasks else min(self._probe_at(), gives_up_at)
        if wake_at is not None and wake_at > now:
            self._timer = self._loop.call_at(wake_at, self._wake.set)

    def _start_background(self) -> None:
        needs_refill, self._scheduler.needs_refill = self._scheduler.needs_refill, []
        if needs_refill:
            self._start(self._refill(needs_refill), self._background)
        tokenless, self._scheduler.tokenless = self._scheduler.tokenless, {}
        for app in tokenless:
            if not app.token_requested:
                app.token_requested = True
                self._start(self._ask_token(app), self._background)

    # --- one row ------------------------------------------------------------------------------------------------

    async def _work(self, first: Task) -> None:
        """Work on rows, one after the other, while there is one to begin: an asyncio task for each costs more."""
        task: Task | None = first
        while task is not None:
            await self._work_on(task)
            # The dispatcher sleeps. It is woken only for what this task does not do itself: begin others, set the timer, refill,
            # ask for tokens.
            task, scheduler = self._next(self._clock()), self._scheduler
            others_may_begin = len(self._tasks) < self._limits.concurrency
            has_timer = scheduler.next_timer() is not None
            if others_may_begin or has_timer or scheduler.needs_refill or scheduler.tokenless:
                self._wake.set()

    async def _work_on(self, task: Task) -> None:
        began, rows = self._clock(), len(task.rows)
        if task.started_at is None:
            task.started_at = self._context.runtime.now()
        try:
            result = await self._calls.advance(task)
        except LapsedError:
            task.link = None  # it may have expired meanwhile
            self._scheduler.again(task)
            return
        finally:
            self._rows_in_flight -= rows
        # `last_answer` is that of any row: an answer since this one began says that the network is there, so that a host which
        # cannot be reached is a problem of this row; without one, it is an outage, and the row's attempt does not count.
        if self._outage.since is not None and self._calls.last_answer >= began:
            self._outage_ended()
        if isinstance(result, SomeEnds):
            self._outcomes.some_ended(task, result.ends)
            if result.rest is None:
                return
            result = result.rest
        if isinstance(result, RowEnd):
            self._outcomes.ended(task, result)
        elif len(task.rows) > 1 and result.code in ARGUMENT_ERRORS:
            self._scheduler.split(task)  # one row's value may be what is refused
        elif result.unreachable and self._calls.last_answer < began:
            self._hold(task, result.end.detail or NOTHING)
        else:
            self._outcomes.failed(task, result)

    # --- tokens -------------------------------------------------------------------------------------------------

    async def _ask_token(self, app: AppState) -> None:
        """Request an app's token until there is one, its rows end without it, or the run stops."""
        refused, app.refused = app.refused, None
        since, tries = self._clock(), 0  # of consecutive requests without a usable response
        while True:
            try:
                token = await self._token_of(app, refused, since)
            except (TokenError, TokenSourceError, TransportError) as error:
                if not isinstance(error, TransportError) and error.transient:
                    tries += 1
                    wait = self._no_token(app, error, since, tries)
                else:
                    wait = self._token_refused(app, error)
                    since, tries = self._clock() + (wait or 0.0), 0
                if wait is None:
                    break
                await asyncio.sleep(wait)
            else:
                if self._source_unreachable:
                    self._source_unreachable = False
                    self._outage_ended()
                self._source_answered, self._source_error = self._clock(), None
                self._outcomes.got_token(app, token, refused)
                break
        app.token_requested = False

    def _no_token(
        self, app: AppState, error: TokenError | TokenSourceError, since: float, tries: int
    ) -> float | None:
        """Handle a request without a usable response: return the seconds until the next; None for none."""
        now, limits = self._clock(), self._limits
        step = after_no_token(since, self._source_answered, tries, now, limits)
        if step is NextStep.RETRY:
            self._source_error = error.text
            self._show(now)
            wait = backoff_wait(limits, min(tries, 5), self._context.runtime.chance())
            return max(0.0, min(wait, since + limits.patience - now))
        if step is NextStep.STOP_RUN:
            seconds, last = limits.patience, as_detail(error.text)
            self._stop(stopped(TokenSourceError, DetailCode.TOKEN_SOURCE, seconds=seconds, last=last))
        else:
            self._outcomes.close(app, Reason.NO_TOKEN, error.text, outcome=self._kind.unanswered)
        return None

    def _token_refused(
        self, app: AppState, error: TokenError | TokenSourceError | TransportError
    ) -> float | None:
        """Handle a refused request: return the seconds until the next; None for none.

        A source that cannot reach the platform is asked again like a row in an outage; if the platform asks it to slow down
        (45011), the app pauses. An error that affects all merchants stops the run; after others, the merchant's rows end.
        """
        now = self._clock()
        if isinstance(error, TransportError):
            self._source_unreachable = True
            self._note_unreachable(error.text)
            return max(PROBE_PAUSE, self._outage.probe_at - now)
        if isinstance(error, TokenSourceError):
            self._stop(no_tokens(error, pending=self._kind.end_when_stopped(error) is None))
            return None
        if app.appid:
            self._source_answered, self._source_error = now, None
        if errcode(error.errcode).decision is Decision.SLOW and app.slowdown.patient(now, self._limits):
            app.slowdown.slow_down(now, self._limits)
            return self._limits.slow_wait
        self._outcomes.close(app, Reason.NO_TOKEN, error.text, errcode=error.errcode or None)
        return None

    async def _token_of(self, app: AppState, refused: Secret | None, since: float) -> Token:
        """Request a token from the source. Raises a transient TokenError if patience runs out first."""
        if not app.appid:
            raise TokenError(NO_COMPONENT)
        seconds = max(ASK_AT_LEAST, since + self._limits.patience - self._clock())
        try:
            async with asyncio.timeout(seconds):
                return await self._context.tokens.token(app.appid, refused)
        except TimeoutError:
            silent = detail(DetailCode.SOURCE_SILENT, seconds=seconds)
        raise TokenError.of(app.appid, silent, transient=True)

    # --- the ledger and the target ------------------------------------------------------------------------------

    async def _refill(self, lanes: list[Lane]) -> None:
        starts = [(lane.environment, lane.last_line) for lane in lanes]
        ledger, limit, skips = self._context.ledger, self._scheduler.refill, self._context.skip_unchanged

        def read() -> list[tuple[list[Row], dict[str, StoredFile]]]:
            pages = ledger.pending(self._run, starts, limit)
            return [(rows, ledger.certain_files(self._run, rows) if skips else {}) for rows in pages]

        pages = await self._loop.run_in_executor(self._reader_thread, read)
        for lane, (rows, known) in zip(lanes, pages, strict=True):
            lane.known_files.update(known)
            self._scheduler.refilled(lane, rows)

    def _hold(self, task: Task, met: Text) -> None:
        """Hold a row that reached no host while no other call got a response. No attempt is counted."""
        task.link = None  # so that the probe calls the platform too, not only the store
        self._held_tasks.append(task)
        self._note_unreachable(met)

    def _note_unreachable(self, met: Text) -> None:
        now = self._clock()
        listener = self._context.settings.listener
        has_answered = self._calls.last_answer > float("-inf") or listener not in {None, Listener.NOTHING}
        if not has_answered and refused_here(met):  # nobody is about to start what never ran
            self._stop(not_listening(self._context.settings.api_base))
            return
        self._outage_met = met
        self._outage.suspect(now, self._limits)
        self._show(now)
        self._stop_after_outage(now)

    def _stop_after_outage(self, now: float) -> None:
        if self._outage.over(now, self._limits):
            seconds, last = self._limits.patience, as_detail(self._outage_met)
            self._stop(stopped(OutageError, DetailCode.OUTAGE, seconds=seconds, last=last))

    def _probe(self, now: float) -> None:
        """Try one held row at a time during an outage; stop the run when patience runs out."""
        self._stop_after_outage(now)
        if self._error is None and now >= self._probe_at() and self._held_tasks and not self._tasks:
            held = self._held_tasks.pop(0)
            self._begin(held, now)
            self._start(self._work(held), self._tasks)

    def _probe_at(self) -> float:
        """Return when the next probe may begin: the platform may have received the calls whose answers were lost."""
        next_call = self._held_tasks[0].lane.app.next_call if self._held_tasks else 0.0
        return max(self._outage.probe_at, next_call)

    def _outage_ended(self) -> None:
        self._outage.ended()
        held, self._held_tasks = self._held_tasks, []
        for task in held:
            self._scheduler.again(task)
        self._show(self._clock())

    def _usage(self) -> Usage:
        calls = self._calls
        then, links, uploads = self._recorded
        self._recorded = (self._clock(), calls.link_calls, calls.upload_calls)
        return Usage(self._recorded[0] - then, calls.link_calls - links, calls.upload_calls - uploads)

    def _committed(self) -> None:
        self._wake.set()
        self._show(self._clock())

    def _show(self, now: float) -> None:
        away = self._outage.since is not None or self._source_error is not None
        self._show_progress(self._meter.at(now, self._writer.counts, *self._delay(now), away=away))

    def _delay(self, now: float) -> tuple[Text | None, Text | None]:
        """Return what delays the run, and how long it does at most; None for nothing and for unknown."""
        if self._outage.since is not None:
            left = self._outage.since + self._limits.patience - now
            gives_up = _("gives up in {time}", time=format_duration(left))
            return unreachable(self._run, self._limits.patience), gives_up
        if self._source_error is not None:
            seconds, error = f"{self._limits.patience:g}", self._source_error
            return _("{source_error} Trying again for {seconds} s", source_error=error, seconds=seconds), None
        paused, first, until = self._registry.pauses(now)
        if not paused:
            return None, None
        environments = environment_count(paused)
        who = verbatim(first) if paused == 1 else environments
        countdown = _("{environments} paused, {time}", environments=who, time=format_duration(until - now))
        return _("{environments} paused: the platform asked to slow down", environments=who), countdown
