"""The policy for failed platform calls: retry, refresh the token, slow down, or stop.

`next_step` is the pure decision. A run's engine applies it to many rows at once, `features/single_calls` to single calls.
The catalogue (errcodes.csv) defines the decision and scope of each errcode.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tcb_ops.errcodes import Decision, Scope, errcode
from tcb_ops.errors import TransportError
from tcb_ops.wechat.responses import ApiError, InvalidResponse

LONGEST_BACKOFF = 60.0
ARGUMENT_ERRORS = frozenset({"40097", "40101", "-501007", "-601002"})
"""Errcodes that say that a value is wrong, or that there are too many: a call for several is halved."""


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
