"""Limits of calls and runs, and the decisions that follow from a response. Pure: time and randomness are arguments.

A row takes a chain of calls: a link call, then (for uploads) a store call. After each response, `next_step` decides the row's
next step: retry, refresh the token, slow down, or stop; the catalogue (errcodes.csv) defines the decision and scope of each
errcode. A run's engine applies it to many rows at once, `single_calls.py` to single calls. `Breaker`, `Slowdown` and
`Outage` decide for a merchant, an environment or the whole run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tcb_ops.arguments import is_number
from tcb_ops.catalogue import Decision, Scope, errcode
from tcb_ops.errors import TransportError, check_count, check_value
from tcb_ops.i18n import _
from tcb_ops.ledger.records import EnvRecord
from tcb_ops.wechat.responses import ApiError, InvalidResponse

LONGEST_BACKOFF = 60.0
ARGUMENT_ERRORS = frozenset({"40097", "40101", "-501007", "-601002"})
"""Errcodes that say that a value is wrong, or that there are too many: a call for several is halved."""
BREAKER_ROWS = 3
"""Consecutive rows of a scope with the same code that open its breaker."""
GOOD_PER_NOTCH = 20
"""Successful rows after which a slowed scope may have one more row in flight."""
PROBE_PAUSE = 0.05
"""Seconds between two probes of an unreachable target at least, also with a backoff of 0."""
LINK_MARGIN = 5.0
"""Seconds before its expiry from which a link that has waited is replaced; a new link is used at once."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Limits of a run: concurrency, rate, attempts and waits. The defaults are those of the command line.

    `rate`: link calls per second and appid, so that all merchants together make more; None for no limit.
    `concurrency`: requests in flight, in total; `per_env`: rows in flight per environment.

    Single calls are limited by attempts and waits alone.
    """

    attempts: int = 4
    """Calls per step of a row (link, store). Slow-down responses do not count: `patience` limits them."""
    backoff: float = 1.0
    """Seconds to wait before the first retry; doubled for each further one, with jitter."""
    slow_wait: float = 60.0
    """Seconds that a scope pauses after a slow-down response (45011: "retry next minute")."""
    patience: float = 300.0
    """Seconds without a successful response after which a slow scope or an unreachable target is given up."""
    concurrency: int = 64
    """Requests in flight, in total."""
    per_env: int = 8
    """Rows in flight per environment."""
    rate: float | None = None
    """Link calls per second and appid; None for no limit."""

    def __post_init__(self) -> None:
        """Raise ArgumentError for an invalid value."""
        for name in ("concurrency", "per_env", "attempts"):
            check_count(name, getattr(self, name), least=1)
        for name in ("backoff", "slow_wait", "patience"):
            value = getattr(self, name)
            check_value(name, value, is_number(value) and value >= 0, _("seconds, 0 or more"))
        usable = self.rate is None or (is_number(self.rate) and self.rate > 0)
        check_value("rate", self.rate, usable, _("link calls a second, more than 0, or None"))


# --- a call ---------------------------------------------------------------------------------------------------------


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
    decision: Decision, scope: Scope, counts: AttemptCounts, used: int, limits: RunLimits, *, patient: bool
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


def backoff_wait(limits: RunLimits, used: int, chance: float) -> float:
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


# --- tokens, breakers, outages ---------------------------------------------------------------------------------------


def after_no_token(
    since: float, source_answered: float, tries: int, now: float, limits: RunLimits
) -> NextStep:
    """Decide the next step when the token source gave no usable response for a merchant.

    ==================  ===============  ==========  ========
    others were         tries of         patience    step
    answered meanwhile  the merchant     left
    ==================  ===============  ==========  ========
    yes                 < attempts       yes         retry
    yes                 any other                    end
    no                  any              yes         retry
    no                  any              no          stop_run
    ==================  ===============  ==========  ========

    Args:
        since: time of the merchant's first request without a usable response.
        source_answered: time at which the source last issued or refused a token for any merchant.
        tries: such requests since then.
        now: current time, on the same clock.
        limits: attempts and patience.

    """
    # A source that answers nobody is down, which stops the run; one that answers others has a problem with this merchant alone.
    patient = now - since < limits.patience
    if source_answered < since:
        return NextStep.RETRY if patient else NextStep.STOP_RUN
    return NextStep.RETRY if patient and tries < limits.attempts else NextStep.END


@dataclass(slots=True)
class Breaker:
    """Counter of a scope's consecutive rows that end with the same stopping code."""

    code: str = ""
    rows: int = 0

    def row_ended(self, stopping_code: str) -> bool:
        """Count a row's end and return whether the breaker opens; an empty `stopping_code` resets the count."""
        if not stopping_code:
            self.code, self.rows = "", 0
            return False
        self.rows = self.rows + 1 if stopping_code == self.code else 1
        self.code = stopping_code
        return self.rows >= BREAKER_ROWS


@dataclass(slots=True)
class Slowdown:
    """A scope's limit of rows in flight, and its pauses.

    When asked to slow down, it pauses for `slow_wait`, then works at half its limit, plus one per 20 successful rows.
    """

    full: int
    limit: int = 0
    good: int = 0
    paused_until: float = 0.0
    since: float | None = None
    """Time of the first request to slow down since a row last succeeded; None if there is none."""

    def __post_init__(self) -> None:
        self.limit = self.full

    def patient(self, now: float, limits: RunLimits) -> bool:
        """Return whether `patience` allows another pause."""
        return self.since is None or now - self.since < limits.patience

    def slow_down(self, now: float, limits: RunLimits) -> None:
        """Record a request to slow down. Requests that arrive during the pause do not halve the limit again."""
        if now >= self.paused_until:
            self.limit = max(1, self.limit // 2)
        self.good = 0
        self.since = now if self.since is None else self.since
        self.paused_until = now + limits.slow_wait

    def row_good(self) -> None:
        """Count a successful row."""
        self.since = None
        if self.limit < self.full:
            self.good += 1
            if self.good >= GOOD_PER_NOTCH:
                self.good = 0
                self.limit += 1


@dataclass(slots=True)
class Outage:
    """State of an outage, when no host can be reached: the run waits, probes the target, and counts no attempts."""

    since: float | None = None
    probe_at: float = 0.0
    probes: int = 0

    def suspect(self, now: float, limits: RunLimits) -> None:
        """Record a connection that failed while no other call got a response, and set the time of the next probe.

        Failures before that time do not count as probes: they are calls that were in flight when the outage began.
        """
        if self.since is None:
            self.since = now
        elif now < self.probe_at:
            return
        self.probes += 1
        wait = max(PROBE_PAUSE, backoff_wait(limits, min(self.probes, 5), 0.5))
        self.probe_at = min(now + wait, self.since + limits.patience)

    def over(self, now: float, limits: RunLimits) -> bool:
        """Return whether patience has run out."""
        return self.since is not None and now - self.since >= limits.patience

    def ended(self) -> None:
        """Record that a host has responded."""
        self.since, self.probes = None, 0


def after_canary(environments: Iterable[EnvRecord], canary: int) -> set[str]:
    """Return the environments that start after the first `canary` ones of the list.

    ======  =====================  ==========
    canary  environments           waiting
    ======  =====================  ==========
    0       any                    none
    1       a, b, c                b, c
    3       a, b, c                none
    ======  =====================  ==========

    Invalid rows may have no environment; they do not wait.
    """
    envs = list(dict.fromkeys(environment.env for environment in environments if environment.env))
    return set(envs[canary:]) if canary else set()
