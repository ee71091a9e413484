"""A sitting's work on a run: rows from the ledger, calls within the limits, ends to the ledger.

One event loop, no threads but the ledger's. The board says which row is next, `calls` makes its calls, `pacing`
decides what an answer leads to, the scribe commits. Nothing here is remembered that the ledger does not hold:
killed at any point, the run goes on from its pending rows.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tcb_ops.errcodes import Decision, errcode
from tcb_ops.errors import TokenError, TokenSourceError, TransportError
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.model import GOOD, Outcome, Reason, Row, RowEnd, Secret
from tcb_ops.runs.calls import Calls
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.limits import Outage, RunLimits, after_canary, after_no_token
from tcb_ops.runs.links_file import LinksFile
from tcb_ops.runs.outcome_handler import OutcomeHandler, closed_end
from tcb_ops.runs.progress import PhaseTimer, Progress, Pulse
from tcb_ops.runs.records import Earlier, EnvRecord, Meter, RunRecord
from tcb_ops.runs.scheduler import REFILL, Account, Lane, Scheduler, Task, lanes_of
from tcb_ops.runs.stop_errors import (
    NO_COMPONENT,
    canary_stop,
    interrupted,
    lock_lost,
    outage,
    token_outage,
    unreachable,
)
from tcb_ops.runs.writer import LedgerWriter
from tcb_ops.wechat.call_policy import NextStep, backoff_wait
from tcb_ops.wechat.client import PlatformClient
from tcb_ops.wechat.tokens import Token, TokenSource
from tcb_ops.wechat.transport import Transport

GRACE = 3.0
"""Seconds that calls in flight have to end when a run is interrupted."""
TELL_PHASES_EVERY = 1.0
"""Seconds between two times that the ledger is told where the time went."""
ASK_AT_LEAST = 3.0
"""Seconds that the token source has for one answer, however short patience is."""
SHOW_EVERY = 0.1
"""Seconds between two looks at the progress."""
CONFIRM_EVERY = 3.0
"""Seconds between two questions whether the run is still held, besides the one after each commit."""
CONFIRM_WITHIN = 10.0
"""Seconds for the answer. With CONFIRM_EVERY and GRACE it is less than the server takes to give a silent client up
(advisory.py), so that nobody else works on the run before this session has ended."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a sitting works with."""

    ledger: Ledger
    tokens: TokenSource
    transport: Transport
    wechat: PlatformClient
    root: Path
    pace: RunLimits
    etag: str
    lang: Lang
    links: LinksFile | None = None
    progress: Callable[[Progress], None] | None = None
    skip_unchanged: bool = False
    canary: int = 0
    """So many environments go first; 0 for all at once."""
    confirm: Callable[[], None] = lambda: None
    """Raises LedgerError where the run's lock is lost."""
    component_appid: str = ""
    """Whose token serves the platform's own environments; empty where the settings do not say."""
    chance: Callable[[], float] = random.random


class Engine:
    """Works on one run until it is finished, interrupted or stopped. Made and used inside one event loop."""

    def __init__(self, run: RunRecord, means: RunContext) -> None:
        self._run, self._means, self._pace = run, means, means.pace
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tcb-ops-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="tcb-ops-reader")
        self._meter = PhaseTimer(self._pace.concurrency, self._clock)
        self._calls = Calls(
            run.kind,
            means.wechat,
            means.transport,
            means.root,
            means.etag,
            means.lang,
            self._clock,
            self._meter,
        )
        self._watch = ThreadPoolExecutor(1, thread_name_prefix="tcb-ops-lock")
        self._scribe = LedgerWriter(
            means.ledger, run, means.links, self._writer, self._spent, self._committed, means.confirm
        )
        self._places: dict[int, EnvRecord] = {}
        self._rest: list[EnvRecord] = []
        """With a canary: the environments that wait for it."""
        self._set_out([])
        self._tasks: set[asyncio.Task[None]] = set()
        self._errands: set[asyncio.Task[None]] = set()
        """Refills and token look-ups under way."""
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._outage = Outage()
        self._last_outage = ""
        self._source_answered = float("-inf")
        """When the token source last gave or refused anybody a token."""
        self._source_trouble: Text | None = None
        """What the token source did when last asked, instead of answering."""
        self._tokens_away = False
        """Whether the token source met the outage too."""
        self._held: list[Task] = []
        """Rows that met the outage, with the places they hold."""
        self._trouble: Exception | None = None
        self._metered = (self._clock(), 0, 0)
        self._told_phases = self._clock()
        """When the ledger was last told where the time went."""
        self._shown = 0.0
        self._pulse = Pulse(run.rows, 0)

    async def work(self) -> None:
        """Do the run's pending rows. Raises StoppedError (exit 3) or InterruptedRunError; rows not ended stay pending."""
        writing: asyncio.Task[None] | None = None
        holding = self._loop.create_task(self._keep_hold())
        holding.add_done_callback(self._heed)
        try:
            await self._set_up()
            writing = self._loop.create_task(self._scribe.write())
            writing.add_done_callback(self._heed)
            await self._dispatch()
            if self._rest and self._trouble is None:
                await self._after_canary()
                await self._dispatch()
            await self._settle()
            self._scribe.close()
            await writing
        except asyncio.CancelledError:
            self._trouble = self._trouble or interrupted()
            raise
        finally:
            holding.cancel()
            await self._clear_away(writing)
        if self._trouble is not None:
            raise self._trouble
        # Rows that the ledger holds, but no longer finds by environment, were never taken up.
        self._means.ledger.check_rows(self._run, sum(self._scribe.counts.values()))

    def interrupt(self) -> None:
        """End the sitting tidily: calls in flight have a moment to end, the other rows stay pending."""
        self._stop(interrupted())

    # --- setting up and clearing away -------------------------------------------------------------------------

    async def _set_up(self) -> None:
        places = await self._loop.run_in_executor(self._reader, self._means.ledger.environments, self._run)
        counts = await self._loop.run_in_executor(self._reader, self._means.ledger.counts, self._run)
        for outcome, rows in counts.items():
            if outcome is not Outcome.PENDING:
                self._scribe.counts[outcome] = rows
        self._pulse = Pulse(self._run.rows, sum(self._scribe.counts.values()))
        self._places = {place.no: place for place in places}
        rest = after_canary(places, self._means.canary)
        self._rest = [place for place in places if place.env in rest]
        self._set_out([place for place in places if place.env not in rest])

    async def _after_canary(self) -> None:
        """Go on with the other environments, or stop where a canary's row is not good."""
        tallies = await self._loop.run_in_executor(self._reader, self._means.ledger.tallies, self._run)
        others = {place.env for place in self._rest}
        fine = GOOD | {Outcome.INVALID}  # left out on purpose, with --on-bad skip
        bad = sum(t.rows for t in tallies if t.env not in others and t.outcome not in fine)
        if bad:
            self._stop(canary_stop(bad))
        else:
            self._set_out(self._rest)

    def _set_out(self, places: list[EnvRecord]) -> None:
        """Put environments on the board."""
        self._board = Scheduler(
            lanes_of([p for p in places if p.pending], self._pace, self._means.component_appid), self._meter
        )
        self._then = OutcomeHandler(
            self._run,
            self._pace,
            self._board,
            self._scribe,
            self._places,
            clock=self._clock,
            chance=self._means.chance,
            stop=self._stop,
        )
        for lane in self._board.lanes:
            if self._places[lane.no].left:
                self._then.close([lane], Reason.MERCHANT_LEFT)

    async def _settle(self) -> None:
        """After trouble: give calls in flight a moment, then end them; their rows stay pending."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE)
        self._told_phases = float("-inf")  # what is left of it goes with the last commit

    async def _clear_away(self, writing: asyncio.Task[None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = [*self._tasks, *self._errands]
        for task in left:
            task.cancel()
        self._scribe.close()
        await asyncio.gather(*left, *([writing] if writing else ()), return_exceptions=True)
        self._writer.shutdown()
        self._reader.shutdown()
        self._watch.shutdown(wait=False)

    async def _keep_hold(self) -> None:
        """Ask again and again whether the run is still held; without an answer it is not."""
        while True:
            await asyncio.sleep(CONFIRM_EVERY)
            answer = self._loop.run_in_executor(self._watch, self._means.confirm)
            try:
                await asyncio.wait_for(answer, CONFIRM_WITHIN)
            except TimeoutError:
                raise lock_lost() from None

    def _stop(self, trouble: Exception) -> None:
        self._trouble = self._trouble or trouble
        self._wake.set()

    # --- dispatching --------------------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        while self._trouble is None:
            self._wake.clear()
            now = self._clock()
            if self._outage.since is None:
                self._begin_ready(now)
            else:
                self._probe(now)
            self._run_errands()
            if self._idle() and all(lane.spent for lane in self._board.lanes):
                return
            self._set_timer(now)
            await self._wake.wait()

    def _idle(self) -> bool:
        return not (self._tasks or self._errands or self._held or self._scribe.busy)

    def _begin_ready(self, now: float) -> None:
        """Begin rows while there is room: in flight, and in what a kill could lose (2 × concurrency)."""
        most = self._pace.concurrency
        while len(self._tasks) < most and len(self._tasks) + self._scribe.uncommitted < 2 * most:
            job = self._board.take(now)
            if job is None:
                self._meter.room(there=True)
                return
            if job.lane.end_as is not None:
                self._then.ended(job, closed_end(job, job.lane.end_as))
                continue
            self._begin(job, now)
        self._meter.room(there=False)

    def _begin(self, job: Task, now: float) -> None:
        account = job.lane.account
        job.refusal = None  # of its last token: from here on the row has another
        if (
            account.token is not None
        ):  # taken now: before the turn begins, another row's refusal may take it away
            job.token = account.token.value
        if self._pace.rate and job.link is None:
            account.next_call = max(now, account.next_call) + 1 / self._pace.rate
        self._start(self._turn(job), self._tasks)

    def _start(self, work: Coroutine[None, None, None], among: set[asyncio.Task[None]]) -> None:
        task = self._loop.create_task(work)
        among.add(task)

        def done(task: asyncio.Task[None]) -> None:
            among.discard(task)
            self._heed(task)

        task.add_done_callback(done)

    def _heed(self, task: asyncio.Task[None]) -> None:
        """An error of a task is the sitting's trouble; any end may make room."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop(error if isinstance(error, Exception) else RuntimeError(type(error).__name__))
        self._wake.set()

    def _set_timer(self, now: float) -> None:
        """Wake up when a time comes. One that has come already waits for room: a row's end or a commit wakes for that."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._board.next_timer()
        if self._outage.since is not None:
            at = self._outage.since + self._pace.patience if self._tasks else self._outage.probe_at
        if at is not None and at > now:
            self._timer = self._loop.call_at(at, self._wake.set)

    def _run_errands(self) -> None:
        needs_refill, self._board.needs_refill = self._board.needs_refill, []
        if needs_refill:
            self._start(self._refill(needs_refill), self._errands)
        for account in list(self._board.tokenless):
            self._board.tokenless.discard(account)
            if not account.asking:
                account.asking = True
                self._start(self._ask_token(account), self._errands)

    # --- one row ------------------------------------------------------------------------------------------------

    async def _turn(self, job: Task) -> None:
        """Make a row's calls until it ends or has to wait."""
        began = self._clock()
        result = await self._calls.go_on(job)
        if self._outage.since is not None and self._calls.last_answer >= began:
            self._outage_ended()
        if isinstance(result, RowEnd):
            self._then.ended(job, result)
        elif result.unreachable and self._calls.last_answer < began:
            self._met_outage(job, result.end.detail)
        else:
            self._then.set_back(job, result)

    # --- tokens -------------------------------------------------------------------------------------------------

    async def _ask_token(self, account: Account) -> None:
        """Get an account's token; without one its rows end as not_attempted.

        A source that nobody gets a token of ends the run; one that gives no usable answer is asked again first, as
        `after_no_token` says. One that asks the platform waits with the rows while that is away, and the account pauses
        where the platform tells it to slow down (45011).
        """
        lang = self._means.lang
        refused, account.refused = account.refused, None
        asked = self._clock()
        try:
            token = await self._token_of(account, refused)
        except (TokenError, TokenSourceError) as error:
            now = self._clock()
            if error.transient:
                account.refused = refused
                await self._no_token(account, asked, error)
                return
            if isinstance(error, TokenSourceError):
                self._stop(error)
                return
            if account.appid:
                self._answered(account, now)
            if errcode(error.errcode).decision is Decision.SLOW and account.pace.patient(now, self._pace):
                account.refused = refused
                account.pace.told(now, self._pace)
                await asyncio.sleep(self._pace.slow_wait)
                self._board.tokenless.add(account)
            else:
                self._then.close(
                    account.lanes, Reason.NO_TOKEN, error.text.of(lang), errcode=error.errcode or None
                )
        except TransportError as error:
            account.refused, self._tokens_away = refused, True
            self._nobody_there(error.text.of(lang))
            await asyncio.sleep(max(SHOW_EVERY, self._outage.probe_at - self._clock()))
            self._board.tokenless.add(account)
        else:
            if self._tokens_away:
                self._tokens_away = False
                self._outage_ended()
            self._answered(account, self._clock())
            self._then.got_token(account, token, refused)
        finally:
            account.asking = False

    async def _token_of(self, account: Account, refused: Secret | None) -> Token:
        """Ask the source, for no longer than patience lasts."""
        if not account.appid:
            raise TokenError(NO_COMPONENT)
        since = self._clock() if account.no_token_since is None else account.no_token_since
        seconds = max(ASK_AT_LEAST, since + self._pace.patience - self._clock())
        try:
            async with asyncio.timeout(seconds):
                return await self._means.tokens.token(account.appid, refused)
        except TimeoutError:
            error = TokenError.of(
                account.appid,
                lambda appid: Text(
                    f"the token source gave no answer for {appid} in {seconds:.0f} s.",
                    f"令牌来源在 {seconds:.0f} 秒内没有给出 {appid} 的应答。",
                ),
                transient=True,
            )
        raise error

    def _answered(self, account: Account, now: float) -> None:
        """Note that the token source is there: it gave or refused a token."""
        self._source_answered, self._source_trouble = now, None
        account.no_token_since, account.no_token_tries = None, 0

    async def _no_token(self, account: Account, asked: float, error: TokenError | TokenSourceError) -> None:
        """After no usable answer of the token source: ask again, end the merchant's rows, or stop the run."""
        now, pace = self._clock(), self._pace
        since = account.no_token_since = asked if account.no_token_since is None else account.no_token_since
        account.no_token_tries += 1
        match after_no_token(since, self._source_answered, account.no_token_tries, now, pace):
            case NextStep.RETRY:
                self._source_trouble = error.text
                self._show(now)
                wait = backoff_wait(pace, min(account.no_token_tries, 5), self._means.chance())
                await asyncio.sleep(max(0.0, min(wait, since + pace.patience - now)))
                self._board.tokenless.add(account)
            case NextStep.STOP_RUN:
                self._stop(token_outage(error.text, pace.patience))
            case _:
                self._then.close(account.lanes, Reason.NO_TOKEN, error.text.of(self._means.lang))

    # --- the ledger and the target ------------------------------------------------------------------------------

    async def _refill(self, lanes: list[Lane]) -> None:
        """Read the next rows of some environments."""
        wanted = [(lane, self._places[lane.no], lane.last_line) for lane in lanes]

        def read() -> list[tuple[list[Row], dict[str, Earlier]]]:
            ledger, found = self._means.ledger, []
            for _, place, last in wanted:
                rows = ledger.pending(self._run, place, last, REFILL)
                known = self._means.skip_unchanged and bool(rows)
                paths = [row.path for row in rows]
                found.append((rows, ledger.earlier(self._run, place, paths) if known else {}))
            return found

        for (lane, _, _), (rows, known) in zip(
            wanted, await self._loop.run_in_executor(self._reader, read), strict=True
        ):
            lane.known.update(known)
            self._board.refilled(lane, rows)

    def _met_outage(self, job: Task, detail: str) -> None:
        """Hold a row that found nobody there while nobody else was answered either. No attempt is counted."""
        job.link = None  # so that the probe asks the platform too, not the store alone
        self._held.append(job)
        self._nobody_there(detail)

    def _nobody_there(self, detail: str) -> None:
        now, begins = self._clock(), self._outage.since is None
        self._last_outage = detail.rstrip(".。")
        self._outage.suspect(now, self._pace)
        if begins:
            self._meter.enter("outage")
        if begins or now - self._shown >= SHOW_EVERY:
            self._show(now)
        if self._outage.over(now, self._pace):
            self._stop(outage(self._pace.patience, self._last_outage))

    def _probe(self, now: float) -> None:
        """While the target is away: one held row at a time tries again."""
        if self._outage.over(now, self._pace):
            self._stop(outage(self._pace.patience, self._last_outage))
        elif now >= self._outage.probe_at and self._held and not self._tasks:
            self._begin(self._held.pop(0), now)

    def _outage_ended(self) -> None:
        self._outage.ended()
        self._meter.leave("outage")
        held, self._held = self._held, []
        for job in held:
            self._board.again(job)
        self._show(self._clock())

    def _spent(self) -> Meter:
        """What was spent since the last commit."""
        calls = self._calls
        then, links, uploads = self._metered
        self._metered = (self._clock(), calls.link_calls, calls.upload_calls)
        phases: dict[str, float] = {}
        if self._metered[0] - self._told_phases >= TELL_PHASES_EVERY:
            self._told_phases, phases = self._metered[0], self._meter.take()
        return Meter(self._metered[0] - then, calls.link_calls - links, calls.upload_calls - uploads, phases)

    def _committed(self) -> None:
        """After a commit: there is room for more rows, and something to show."""
        self._wake.set()
        now = self._clock()
        if now - self._shown >= SHOW_EVERY or sum(self._scribe.counts.values()) == self._run.rows:
            self._show(now)

    def _show(self, now: float) -> None:
        if self._means.progress is None:
            return
        self._shown = now
        done = sum(self._scribe.counts.values())
        rate, left = self._pulse.beat(now, done)
        counts = {outcome: rows for outcome, rows in self._scribe.counts.items() if rows}
        self._means.progress(
            Progress(self._run.id, self._run.rows, counts, rate, left, self._holding_up(now))
        )

    def _holding_up(self, now: float) -> Text | None:
        """What to say besides the numbers, if something holds the run up."""
        if self._outage.since is not None:
            return unreachable(self._run.target, self._pace.patience)
        if self._source_trouble is not None:
            seconds = f"{self._pace.patience:g}"
            return Text(
                f"{self._source_trouble.en} Trying again for {seconds} s",
                f"{self._source_trouble.zh}{seconds} 秒内持续重试",
            )
        paused = sum(
            1
            for lane in self._board.lanes
            if max(lane.env.pace.paused_until, lane.account.pace.paused_until) > now
        )
        return (
            Text(
                f"{plural(paused, 'environment')} paused: told to slow down",
                f"{paused} 个环境按要求放慢，暂停中",
            )
            if paused
            else None
        )
