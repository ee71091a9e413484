"""How a call to the platform goes on after an answer: retry, refresh the token, slow down, stop.

`next_step` decides; it is pure. A run's engine schedules what it says for thousands of rows at once; `Caller` does so
for single calls. Which errcode means what stands in the catalogue (errcodes.csv).
"""

from __future__ import annotations

import asyncio
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

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How often a call is tried, and how long is waited. The defaults are the command line's."""

    attempts: int = 4
    """Calls per step of a row (link, store). Answers that ask to slow down are not counted: `patience` bounds them."""
    backoff: float = 1.0
    """Seconds, the first wait; later waits double, with jitter."""
    slow_wait: float = 60.0
    """Seconds that a scope pauses when it is told to slow down (45011: "retry next minute")."""
    patience: float = 300.0
    """Seconds that a scope may be slow, or the target away, without one good answer."""


class NextStep(StrEnum):
    """How a row, or a single call, goes on after an answer."""

    END = "end"
    RETRY = "retry"
    """The same call again after a backoff; counted as an attempt."""
    REFRESH = "refresh"
    """The same call again with a new token."""
    RELINK = "relink"
    """A new link, then the store again, after a backoff; counted as an attempt."""
    SLOW = "slow"
    """The scope pauses; no attempt is counted."""
    STOP_RUN = "stop_run"
    """Every merchant is concerned: the run ends with its rows pending."""


@dataclass(slots=True)
class AttemptCounts:
    """What one row, or one single call, has used up so far."""

    link: int = 0
    """Link calls that count as attempts."""
    store: int = 0
    """Store calls that count as attempts."""
    calls: int = 0
    """All calls, counted or not: `tcb_attempts`."""
    refreshed: bool = False
    relinked: bool = False
    """A store refusal has already led to a new link."""
    retried_once: bool = False


def next_step(
    decision: Decision, scope: Scope, counts: AttemptCounts, used: int, limits: CallLimits, *, patient: bool
) -> NextStep:
    """Decide how a row goes on after a failed call. `used` is the attempts of the step that failed.

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
    left = used < limits.attempts
    match decision:
        case Decision.STOP if scope is Scope.PLATFORM:
            return NextStep.STOP_RUN
        case Decision.REFRESH if not counts.refreshed:
            return NextStep.REFRESH
        case Decision.SLOW if patient:
            return NextStep.SLOW
        case Decision.RETRY if left:
            return NextStep.RETRY
        case Decision.RETRY_ONCE if left and not counts.retried_once:
            return NextStep.RETRY
        case Decision.NEW_LINK if left:
            return NextStep.RELINK
        case Decision.NEW_LINK_ONCE if left and not counts.relinked:
            return NextStep.RELINK
        case _:
            return NextStep.END


def backoff_wait(limits: CallLimits, used: int, chance: float) -> float:
    """Return the seconds to wait after the `used`-th attempt: doubling from `backoff`, ±25 %; `chance` is in [0, 1)."""
    return min(LONGEST_BACKOFF, limits.backoff * 2.0 ** (used - 1)) * (0.75 + 0.5 * chance)


def classify(answer: ApiError | InvalidResponse | TransportError) -> tuple[Decision, Scope]:
    """Return what the catalogue says of an answer that is not what was asked for."""
    match answer:
        case ApiError():
            known = errcode(answer.errcode)
            return known.decision, known.scope
        case InvalidResponse(retryable=False):
            return Decision.FIX, Scope.ROW
        case _:
            return Decision.RETRY, Scope.ROW


@dataclass(frozen=True, slots=True)
class CallFailure:
    """The result of a single call that failed."""

    answer: ApiError | InvalidResponse | TransportError
    """The last one."""
    step: NextStep
    """STOP_RUN where the answer concerns every merchant, REFRESH where the source gave a refused token again, else END."""
    unreachable: bool = False
    """No connection was made, by this call or any other meanwhile."""


@dataclass(slots=True)
class Caller:
    """Make single calls with an appid's token: bounded attempts, one new token per call, pauses for 45011.

    Calls of many tasks may share one; it keeps their tokens. Decides as `next_step` does.
    """

    source: TokenSource
    limits: CallLimits = field(default_factory=CallLimits)
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    notify: Callable[[Text], None] = lambda _: None
    """Called once, when the platform asks for a pause: for a minute nothing else would move."""
    tokens: dict[str, Secret] = field(default_factory=dict)
    source_answered: bool = False
    """The token source has given or refused somebody a token: what it does not answer concerns one merchant."""
    answers: int = 0
    """Calls that somebody answered, or at least took."""
    notified: bool = False

    async def call(
        self, appid: str, request: Callable[[Secret], Awaitable[Found | ApiError | InvalidResponse]]
    ) -> Found | CallFailure:
        """Call `request` with the appid's token until it brings what it asks for, or the policy ends it.

        Raises what the token source raises; its TokenError after waiting where the platform told it to slow down.
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
        self, request: Awaitable[Found | ApiError | InvalidResponse]
    ) -> Found | ApiError | InvalidResponse | TransportError:
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
        """Wait as the platform asks; return for how long."""
        if not self.notified:
            self.notified = True
            seconds = f"{self.limits.slow_wait:g}"
            self.notify(
                _(
                    "The platform asks to slow down (45011): pausing {seconds} s at a time, then continuing.",
                    seconds=seconds,
                )
            )
        await self.sleep(self.limits.slow_wait)
        return self.limits.slow_wait

    async def _token(self, appid: str) -> Secret:
        if appid not in self.tokens:
            self.tokens[appid] = await self._from_source(appid, None)
        return self.tokens[appid]

    async def _renew(self, appid: str, refused: Secret) -> bool:
        """Return whether there is another token than the one that was refused."""
        if self.tokens.get(appid) == refused:  # otherwise another call for the appid has already asked
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
