"""What follows from the outcome of an attempt: an end, a wait, a new token, a breaker that opens.

`next_step` decides; this module has the scheduler and the writer act on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tcb_ops.catalogue import Decision, Scope
from tcb_ops.details import as_detail
from tcb_ops.engine.calls import FailedAttempt, Runtime
from tcb_ops.engine.limits import NextStep, RunLimits, backoff_wait, next_step
from tcb_ops.engine.scheduler import AppState, Lane, Scheduler, ScopeState, Task
from tcb_ops.engine.stop_errors import refused_platform
from tcb_ops.engine.writer import LedgerWriter
from tcb_ops.i18n import Text
from tcb_ops.kinds import Kind
from tcb_ops.ledger.records import Closing, EnvRecord
from tcb_ops.model import Outcome, Owner, Reason, RowEnd, Secret
from tcb_ops.wechat.tokens import Token

DEAD_TOKEN_REST = 30.0
"""Seconds for which a source that returned a refused token again is not asked to replace it."""
RENEW_BEFORE = 60.0
"""Seconds before its expiry at which a token is renewed."""


@dataclass(frozen=True, slots=True)
class OutcomeHandler:
    """Handler of row outcomes, acting through the scheduler and the writer."""

    limits: RunLimits
    scheduler: Scheduler
    writer: LedgerWriter
    clock: Callable[[], float]
    """Monotonic seconds."""
    runtime: Runtime
    stop: Callable[[Exception], None]
    kind: Kind

    def failed(self, task: Task, attempt: FailedAttempt) -> None:
        """Do what `next_step` decides after a failed attempt, and count the attempt if it is repeated."""
        now, limits, counts = self.clock(), self.limits, task.counts
        slowed = task.lane.app.slowdown if attempt.scope is Scope.APPID else task.lane.env.slowdown
        used = (counts.link if attempt.step == "link" else counts.store) + 1
        step = next_step(
            attempt.decision, attempt.scope, counts, used, limits, patient=slowed.patient(now, limits)
        )
        match step:
            case NextStep.STOP_RUN:
                self.stop(refused_platform(attempt.end.errcode or 0, attempt.end.errmsg))
            case NextStep.REFRESH:
                counts.refreshed = True
                self.token_refused(task, attempt.end)
            case NextStep.SLOW:
                slowed.slow_down(now, limits)
                self.scheduler.again(task)
            case NextStep.RETRY | NextStep.RELINK:
                if attempt.step == "link":
                    counts.link = used
                else:
                    counts.store = used
                    counts.retried_once = counts.retried_once or attempt.decision is Decision.RETRY_ONCE
                if step is NextStep.RELINK:
                    task.link, counts.relinked = None, True
                self.scheduler.wait(task, now + backoff_wait(limits, used, self.runtime.chance()))
            case NextStep.END:
                self.ended(task, attempt.end, attempt)

    def ended(self, task: Task, end: RowEnd, attempt: FailedAttempt | None = None) -> None:
        """Handle the end of a task's rows: release it, queue them for the writer, count them for the breakers."""
        self.scheduler.release(task)
        if (error := self.kind.stop_error(end, task.lane.app.appid)) is not None:
            self.stop(error)
            return
        end = self.kind.end_of(end)
        ends = [end if end.line == row.line else replace(end, line=row.line) for row in task.rows]
        self._rows_ended(task.lane, ends, attempt)

    def some_ended(self, task: Task, ends: Sequence[RowEnd]) -> None:
        """Take the ends of some of a task's rows; the others stay with it, and have all their attempts again."""
        lines = {end.line for end in ends}
        task.rows = [row for row in task.rows if row.line not in lines]
        if ends:
            task.counts.link = task.counts.store = 0
        if not task.rows:
            self.scheduler.release(task)
        self._rows_ended(task.lane, ends)

    def _rows_ended(self, lane: Lane, ends: Sequence[RowEnd], attempt: FailedAttempt | None = None) -> None:
        for end in ends:  # all before a breaker opens, which ends the rows that are still pending
            self.writer.add(end)
        for end in ends:
            self._count(lane, end, attempt)

    def _count(self, lane: Lane, end: RowEnd, attempt: FailedAttempt | None) -> None:
        if end.outcome.succeeded:
            lane.app.slowdown.row_good()
            lane.env.slowdown.row_good()
        if lane.end_as is not None:
            return
        stops = attempt is not None and (
            attempt.decision in {Decision.STOP, Decision.SLOW, Decision.NEW_LINK_ONCE}
            or attempt.scope is Scope.ENV
        )
        for scope, state in ((Scope.APPID, lane.app), (Scope.ENV, lane.env)):
            code = attempt.code if attempt is not None and stops and attempt.scope is scope else ""
            out_of_patience = bool(code) and attempt is not None and attempt.decision is Decision.SLOW
            if state.breaker.row_ended(code) or out_of_patience:
                self.close(state, Reason.BREAKER, errcode=end.errcode, store_code=end.store_code)

    def close(
        self,
        scope: ScopeState,
        reason: Reason,
        message: Text | None = None,
        *,
        errcode: int | None = None,
        store_code: str = "",
        outcome: Outcome | None = None,
    ) -> None:
        """Begin no more rows of an appid or an environment; its pending rows end as not_attempted."""
        end = RowEnd(
            0,
            outcome or Outcome.NOT_ATTEMPTED,
            reason,
            as_detail(message) if message is not None else None,
            errcode=errcode or None,
            store_code=store_code,
            ended_at=self.runtime.now(),
        )
        self.scheduler.make_now(scope)
        for lane in list(scope.lanes):  # those that are done with this leave the list
            if lane.end_as is None:
                lane_end = self._end_of(lane.environment, end)
                begun = tuple(row.line for task in lane.tasks for row in task.rows)
                self.scheduler.close(lane, lane_end)
                self.writer.add(Closing(lane.environment, lane_end, begun))

    def merchant_left(self, environment: EnvRecord) -> None:
        """End the rows of an environment whose merchant has left: no lane is made for it."""
        end = RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.MERCHANT_LEFT, ended_at=self.runtime.now())
        self.writer.add(Closing(environment, self._end_of(environment, end)))

    def _end_of(self, environment: EnvRecord, end: RowEnd) -> RowEnd:
        stopped = end.reason is Reason.BREAKER and end.errcode is not None
        by_component = stopped and environment.owner is Owner.PLATFORM
        return self.kind.end_of(replace(end, reason=Reason.COMPONENT) if by_component else end)

    def token_refused(self, task: Task, end: RowEnd) -> None:
        """Handle 40001 and similar codes: use a token newer than the refused one, or have the source asked for one."""
        # Many rows are in flight with one token, and all are refused. The first has it replaced; the others see that the app has
        # another one, or none, by now, and go again with that: the source is asked once.
        app, refused = task.lane.app, task.token
        task.refusal = end
        if app.rejected == refused and self.clock() < app.rejected_until:
            self.ended(task, _of_dead_token(task.lane, end))
            return
        self.scheduler.again(task)
        if app.token is not None and app.token.value == refused:
            app.token = None
            app.refused = refused

    def got_token(self, app: AppState, token: Token, refused: Secret | None) -> None:
        """Set an app's token; rows for which this same token was refused end with that refusal."""
        if token.value == refused:
            app.rejected, app.rejected_until = refused, self.clock() + DEAD_TOKEN_REST
        for lane in app.lanes:
            for task in [
                task for task in lane.back if task.refusal is not None and task.token == token.value
            ]:
                lane.back.remove(task)
                self.ended(task, _of_dead_token(lane, task.refusal or RowEnd(0, Outcome.REFUSED)))
        app.renew_at = float("inf")
        due = token.renew_at
        if due is None and token.expires_at is not None:
            due = token.expires_at - RENEW_BEFORE
        if due is not None and (seconds := due - self.runtime.now()) > 0:
            app.renew_at = self.clock() + seconds
        self.scheduler.got_token(app, token)


def _of_dead_token(lane: Lane, end: RowEnd) -> RowEnd:
    """Return how a row ends whose token was refused and returned again; the component token has a reason of its own."""
    reason = Reason.COMPONENT if lane.owner is Owner.PLATFORM else Reason.DEAD_TOKEN
    return replace(end, reason=reason)


def closed_end(task: Task, end_as: RowEnd, now: float) -> RowEnd:
    """Return how a waiting row ends when its environment is closed.

    Its own refusal comes first, unless the platform gave the reason why there is no other token (61003, 61023 …): that
    is what must be fixed.
    """
    if task.refusal is not None and not (end_as.reason is Reason.NO_TOKEN and end_as.errcode):
        return task.refusal
    return replace(
        end_as,
        line=task.row.line,
        attempts=task.counts.calls,
        started_at=task.started_at,
        ended_at=now,
    )
