"""The policy for failed platform calls: retry, refresh the token, slow down, or stop.

`next_step` is the pure decision. A run's engine applies it to many rows at once, `Caller` to single calls. The
catalogue (errcodes.csv) defines the decision and scope of each errcode.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from tcb_ops.errcodes import Decision, Scope, errcode
from tcb_ops.errors import TokenError, TransportError, TransportFault
from tcb_ops.i18n import Text, _
from tcb_ops.model import Secret
from tcb_ops.wechat.responses import ApiError, InvalidResponse
from tcb_ops.wechat.tokens import TokenSource

LONGEST_BACKOFF = 60.0
ARGUMENT_ERRORS = frozenset({"40097", "40101", "-501007", "-601002"})
"""Errcodes that say that a value is wrong, or that there are too many: a call for several is halved."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Limits on attempts and waiting times. The defaults are those of the command line."""

    attempts: int = 4
    """Calls per step of a row (link, store). Slow-down responses do not count: `patience` limits them."""
    backoff: float = 1.0
    """Seconds to wait before the first retry; doubled for each further one, with jitter."""
    slow_wait: float = 60.0
    """Seconds that a scope pauses after a slow-down response (45011: "retry next minute")."""
    patience: float = 300.0
    """Seconds without a successful response after which a slow scope or an unreachable target is given up."""


class NextStep(StrEnum):
    """The step to take after a failed call of a row, or after a failed single call."""

    END = "end"
    RETRY = "retry"
    """Repeat the call after a backoff; counts as an attempt."""
    REFRESH = "refresh"
    """Repeat the call with a new token."""
    RELINK = "relink"
    """Request a new link after a backoff, then upload again; counts as an attempt."""
    SLOW = "slow"
    """Pause the scope; no attempt is counted."""
    STOP_RUN = "stop_run"
    """End the run and leave its rows pending: the error affects every merchant."""


@dataclass(slots=True)
class AttemptCounts:
    """The attempts of one row or single call so far."""

    link: int = 0
    """Link calls that count as attempts."""
    store: int = 0
    """Store calls that count as attempts."""
    calls: int = 0
    """All calls, counted or not: `tcb_attempts`."""
    refreshed: bool = False
    relinked: bool = False
    """A refusal by the store has already led to a new link."""
    retried_once: bool = False


def next_step(
    decision: Decision, scope: Scope, counts: AttemptCounts, used: int, limits: CallLimits, *, patient: bool
) -> NextStep:
    """Return the next step after a failed call. `used` is the number of attempts of the failed step.

    =============  ==============================  ========
    decision       and                             step
    =============  ==============================  ========
    good                                           end
    stop           scope platform                  stop_run
    stop, fix                                      end
    refresh        the row has had no new token    refresh
    refresh        it has                          end
    slow           the scope has patience left     slow
    slow           it has none                     end
    retry          used < attempts                 retry
    retry_once     used < attempts, the first one  retry
    new_link       used < attempts                 relink
    new_link_once  used < attempts, the first one  relink
    otherwise                                      end
    =============  ==============================  ========
    """
    attempts_left = used < limits.attempts
    match decision:
        case Decision.STOP if scope is Scope.PLATFORM:
            return NextStep.STOP_RUN
        case Decision.REFRESH if not counts.refreshed:
            return NextStep.REFRESH
        case Decision.SLOW if patient:
            return NextStep.SLOW
        case Decision.RETRY if attempts_left:
            return NextStep.RETRY
        case Decision.RETRY_ONCE if attempts_left and not counts.retried_once:
            return NextStep.RETRY
        case Decision.NEW_LINK if attempts_left:
            return NextStep.RELINK
        case Decision.NEW_LINK_ONCE if attempts_left and not counts.relinked:
            return NextStep.RELINK
        case _:
            return NextStep.END


def backoff_wait(limits: CallLimits, used: int, chance: float) -> float:
    """Return the seconds to wait after attempt `used`: `backoff`, doubled each time, ±25 %; `chance` is in [0, 1)."""
    return min(LONGEST_BACKOFF, limits.backoff * 2.0 ** (used - 1)) * (0.75 + 0.5 * chance)


def classify(answer: ApiError | InvalidResponse | TransportError) -> tuple[Decision, Scope]:
    """Return the decision and scope of a failed call."""
    match answer:
        case ApiError():
            entry = errcode(answer.errcode)
            return entry.decision, entry.scope
        case InvalidResponse(retryable=False):
            return Decision.FIX, Scope.ROW
        case _:
            return Decision.RETRY, Scope.ROW


@dataclass(frozen=True, slots=True)
class CallFailure:
    """The result of a single call that failed."""

    answer: ApiError | InvalidResponse | TransportError
    """The last response or error."""
    step: NextStep
    """STOP_RUN if the error affects every merchant, REFRESH if the source returns the refused token again, else END."""
    unreachable: bool = False
    """No connection was made, by this call or any concurrent one."""


async def _sleep(seconds: float) -> None:
    import asyncio  # not for those who only need a limit's default

    await asyncio.sleep(seconds)


@dataclass(slots=True)
class Caller:
    """Makes single calls with an appid's token: limits attempts, renews the token once, pauses on 45011.

    Many tasks may share a Caller; it caches their tokens.
    """

    source: TokenSource
    limits: CallLimits = field(default_factory=CallLimits)
    sleep: Callable[[float], Awaitable[object]] = _sleep
    notify: Callable[[Text], None] = lambda _: None
    """Called at the first slow-down response, to explain the pause."""
    tokens: dict[str, Secret] = field(default_factory=dict)
    source_answered: bool = False
    """The token source has responded for some appid, so a later failure affects one merchant only."""
    answers: int = 0
    """Calls that received a response, or at least connected."""
    notified: bool = False

    async def call(
        self, appid: str, request: Callable[[Secret], Awaitable[Answer | ApiError | InvalidResponse]]
    ) -> Answer | CallFailure:
        """Call `request` with the appid's token until it succeeds or the policy ends the call.

        Raises the errors of the token source, after pauses if it asks to slow down.
        """
        counts, waited, answers = AttemptCounts(), 0.0, self.answers
        while True:
            token = await self._token(appid)
            counts.link += 1
            answer = await self._answer(request(token))
            if not isinstance(answer, ApiError | InvalidResponse | TransportError):
                return answer
            decision, scope = classify(answer)
            step = next_step(decision, scope, counts, counts.link, self.limits, patient=self._patient(waited))
            match step:
                case NextStep.REFRESH:
                    counts.refreshed = True
                    if not await self._renew(appid, token):
                        return CallFailure(answer, step)
                    counts.link -= 1
                case NextStep.RETRY:
                    counts.retried_once |= decision is Decision.RETRY_ONCE
                    await self.sleep(backoff_wait(self.limits, counts.link, random.random()))  # noqa: S311  no secret
                case NextStep.SLOW:
                    counts.link -= 1
                    waited += await self._pause()
                case NextStep.STOP_RUN:
                    return CallFailure(answer, step)
                case _:
                    nobody = isinstance(answer, TransportError) and self.answers == answers
                    return CallFailure(answer, NextStep.END, unreachable=nobody)

    async def _answer(
        self, request: Awaitable[Answer | ApiError | InvalidResponse]
    ) -> Answer | ApiError | InvalidResponse | TransportError:
        try:
            answer = await request
        except TransportError as error:
            self.answers += error.fault is not TransportFault.UNREACHABLE
            return error
        self.answers += 1
        return answer

    def _patient(self, waited: float) -> bool:
        return waited < self.limits.patience and self.limits.attempts > 1

    async def _pause(self) -> float:
        """Sleep for `slow_wait` and return its seconds; the first time, notify the user."""
        if not self.notified:
            self.notified = True
            self.notify(
                _(
                    "The platform asks to slow down (45011): pausing {seconds} s at a time, then continuing.",
                    seconds=f"{self.limits.slow_wait:g}",
                )
            )
        await self.sleep(self.limits.slow_wait)
        return self.limits.slow_wait

    async def _token(self, appid: str) -> Secret:
        if appid not in self.tokens:
            self.tokens[appid] = await self._from_source(appid, None)
        return self.tokens[appid]

    async def _renew(self, appid: str, refused: Secret) -> bool:
        if self.tokens.get(appid) == refused:  # otherwise another call has already renewed the appid's token
            self.tokens[appid] = await self._from_source(appid, refused)
        return self.tokens[appid] != refused

    async def _from_source(self, appid: str, refused: Secret | None) -> Secret:
        waited = 0.0
        while True:
            try:
                token = (await self.source.token(appid, refused)).value
            except TokenError as error:
                self.source_answered |= not error.transient
                if errcode(error.errcode).decision is not Decision.SLOW or not self._patient(waited):
                    raise
            else:
                self.source_answered = True
                return token
            waited += await self._pause()
