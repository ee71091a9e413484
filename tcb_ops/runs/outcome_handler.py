"""What follows from how a row's turn went: an end, a wait, a new token, a breaker that opens.

`pacing` decides; here the board and the scribe are told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from tcb_ops.errcodes import Decision, Scope
from tcb_ops.model import GOOD, Outcome, Owner, Reason, RowEnd, Secret
from tcb_ops.runs.calls import FailedAttempt
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.records import EnvRecord, RunRecord
from tcb_ops.runs.scheduler import Account, Lane, Scheduler, Task
from tcb_ops.runs.stop_errors import refused_platform
from tcb_ops.runs.writer import Closing, LedgerWriter
from tcb_ops.wechat.call_policy import NextStep, backoff_wait, next_step
from tcb_ops.wechat.tokens import Token

DEAD_TOKEN_REST = 30.0
"""Seconds in which a source that gave a dead token again is not asked about it once more."""
RENEW_BEFORE = 60.0
"""Seconds before a token's stated end in which it is asked for anew."""


class OutcomeHandler:
    """Tells the board and the scribe what follows."""

    def __init__(
        self,
        run: RunRecord,
        pace: RunLimits,
        board: Scheduler,
        scribe: LedgerWriter,
        places: Mapping[int, EnvRecord],
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        stop: Callable[[Exception], None],
    ) -> None:
        self._run, self._pace, self._board, self._scribe, self._places = run, pace, board, scribe, places
        self._clock, self._chance, self._stop = clock, chance, stop

    def set_back(self, job: Task, setback: FailedAttempt) -> None:
        """Do what `next_step` says; the step's attempts go up by one where it counts."""
        now, pace, tries = self._clock(), self._pace, job.tries
        account = job.lane.account
        slowed = account.pace if setback.scope is Scope.APPID else job.lane.env.pace
        used = (tries.link if setback.step == "link" else tries.store) + 1
        step = next_step(
            setback.decision, setback.scope, tries, used, pace, patient=slowed.patient(now, pace)
        )
        match step:
            case NextStep.STOP_RUN:
                self._stop(refused_platform(setback.end.errcode or 0, setback.end.errmsg))
            case NextStep.REFRESH:
                tries.refreshed = True
                self.refused_token(job, setback.end)
            case NextStep.SLOW:
                slowed.told(now, pace)
                self._board.again(job)
            case NextStep.RETRY | NextStep.RELINK:
                if setback.step == "link":
                    tries.link = used
                else:
                    tries.store = used
                    tries.retried_once = tries.retried_once or setback.decision is Decision.RETRY_ONCE
                if step is NextStep.RELINK:
                    job.link, tries.relinked = None, True
                self._board.wait(job, now + backoff_wait(pace, used, self._chance()))
            case NextStep.END:
                self.ended(job, setback.end, setback)

    def ended(self, job: Task, end: RowEnd, setback: FailedAttempt | None = None) -> None:
        """Take a row's end: free its place, count it for the breakers, hand it to the scribe."""
        lane = job.lane
        self._board.release(job)
        self._scribe.add(end)
        if end.outcome in GOOD:
            lane.account.pace.row_good()
            lane.env.pace.row_good()
        if lane.end_as is not None:
            return
        stops = setback is not None and (
            setback.decision in {Decision.STOP, Decision.SLOW, Decision.NEW_LINK_ONCE}
            or setback.scope is Scope.ENV
        )
        for scope, breaker, lanes in (
            (Scope.APPID, lane.account.breaker, lane.account.lanes),
            (Scope.ENV, lane.env.breaker, lane.env.lanes),
        ):
            mine = setback.code if setback is not None and stops and setback.scope is scope else ""
            out_of_patience = bool(mine) and setback is not None and setback.decision is Decision.SLOW
            if breaker.row_ended(mine) or out_of_patience:
                self.close(lanes, Reason.BREAKER, errcode=end.errcode, store_code=end.store_code)

    def close(
        self,
        lanes: list[Lane],
        reason: Reason,
        detail: str = "",
        *,
        errcode: int | None = None,
        store_code: str = "",
    ) -> None:
        """Let no further row of these environments begin; their pending rows end as not_attempted."""
        end = RowEnd(
            0,
            Outcome.NOT_ATTEMPTED,
            reason,
            detail,
            errcode=errcode or None,
            store_code=store_code,
            ended_at=time.time(),
        )
        for lane in lanes:
            if lane.end_as is None:
                its = replace(end, reason=Reason.COMPONENT) if _by_component(lane, end) else end
                self._board.close(lane, its)
                in_flight = tuple(job.row.line for job in lane.jobs)
                self._scribe.add(Closing(self._places[lane.no], its, in_flight))

    def refused_token(self, job: Task, end: RowEnd) -> None:
        """After 40001 and its like: a token that is newer than the refused one is used, else the source is asked."""
        account, refused = job.lane.account, job.token
        job.refusal = end
        if account.dead == refused and self._clock() < account.dead_until:
            self.ended(job, _of_dead_token(job.lane, end))
            return
        self._board.again(job)
        if account.token is not None and account.token.value == refused:
            account.token = None
            account.refused = refused

    def got_token(self, account: Account, token: Token, refused: Secret | None) -> None:
        """Let an account go on with its token; rows that the same token was refused for end so."""
        if token.value == refused:
            account.dead, account.dead_until = refused, self._clock() + DEAD_TOKEN_REST
        for lane in account.lanes:
            for job in [job for job in lane.back if job.refusal is not None and job.token == token.value]:
                lane.back.remove(job)
                self.ended(job, _of_dead_token(lane, job.refusal or RowEnd(0, Outcome.REFUSED)))
        account.renew_at = float("inf")
        due = token.renew_at
        if due is None and token.expires_at is not None:
            due = token.expires_at - RENEW_BEFORE
        if due is not None and (left := due - time.time()) > 0:
            account.renew_at = self._clock() + left
        self._board.got_token(account, token)


def _of_dead_token(lane: Lane, end: RowEnd) -> RowEnd:
    """How a row ends whose token was refused and given again; of the component token that is one cause for everybody."""
    dead = Reason.COMPONENT if lane.owner == Owner.PLATFORM else Reason.DEAD_TOKEN
    return replace(end, reason=dead)


def _by_component(lane: Lane, end: RowEnd) -> bool:
    """Whether what stops a lane was said of the component token."""
    return lane.owner == Owner.PLATFORM and end.reason is Reason.BREAKER and end.errcode is not None


def closed_end(job: Task, end_as: RowEnd) -> RowEnd:
    """How a row that was waiting ends when its environment is closed: a refusal of its own is the truer end.

    Unless the platform has said why there is no other token (61003, 61023 …): that is what must be mended.
    """
    if job.refusal is not None and not (end_as.reason is Reason.NO_TOKEN and end_as.errcode):
        return job.refusal
    return replace(
        end_as, line=job.row.line, attempts=job.tries.calls, started_at=job.started_at, ended_at=time.time()
    )
