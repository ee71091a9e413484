"""What follows from an answer: pure decisions. Time and randomness come in as arguments.

A row's way through a run is a chain of calls: a link call, then (for uploads) a store call. After each answer
`next_step` says how it goes on; `Breaker`, `Slowdown` and `Outage` say the same for a merchant, an environment or
the whole run. Which errcode means what stands in the catalogue (errcodes.csv, storecodes.csv).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

from tcb_ops.errcodes import Decision, Scope
from tcb_ops.errors import ArgumentError
from tcb_ops.i18n import Text
from tcb_ops.runs.records import EnvRecord

BREAKER_ROWS = 3
"""Rows of one scope that must end with the same code, one after the other, before the scope's breaker opens."""
GOOD_PER_NOTCH = 20
"""Good rows after which a slowed scope may have one more row in flight."""
LINK_MARGIN = 5.0
"""Seconds before its end in which a link that has waited is no longer begun with; a new one is used at once."""
LONGEST_BACKOFF = 60.0


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How hard a run may press. The defaults are the command line's."""

    concurrency: int = 64
    """Requests in flight, all together."""
    per_env: int = 8
    """Rows in flight per environment."""
    rate: float | None = None
    """Link calls a second per appid; None for no limit."""
    attempts: int = 4
    """Calls per step of a row (link, store)."""
    backoff: float = 1.0
    """Seconds, the first wait; later waits double, with jitter."""
    slow_wait: float = 60.0
    """Seconds that a scope pauses when it is told to slow down (45011: "retry next minute")."""
    patience: float = 300.0
    """Seconds that a scope may be slow, or the target away, without one good answer."""

    def __post_init__(self) -> None:
        """Raise ArgumentError for a value that no run can work with."""
        for name in ("concurrency", "per_env", "attempts"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ArgumentError(name, value, Text("a whole number from 1", "不小于 1 的整数"))
        for name in ("backoff", "slow_wait", "patience"):
            value = getattr(self, name)
            if not _is_number(value) or value < 0:
                raise ArgumentError(name, value, Text("seconds, 0 or more", "秒数，不小于 0"))
        if self.rate is not None and (not _is_number(self.rate) or self.rate <= 0):
            raise ArgumentError(
                "rate",
                self.rate,
                Text("link calls a second, more than 0, or None", "每秒调用次数，大于 0，或 None"),
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


class Step(StrEnum):
    """How a row goes on after an answer."""

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
    """Nobody can go on: the run ends with its rows pending."""


@dataclass(slots=True)
class Tries:
    """What one row has used up so far."""

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
    decision: Decision, scope: Scope, tries: Tries, used: int, pace: RunLimits, *, patient: bool
) -> Step:
    """Decide how a row goes on after a refusal. `used` is the attempts of the step that was refused.

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
    left = used < pace.attempts
    match decision:
        case Decision.STOP if scope is Scope.PLATFORM:
            return Step.STOP_RUN
        case Decision.REFRESH if not tries.refreshed:
            return Step.REFRESH
        case Decision.SLOW if patient:
            return Step.SLOW
        case Decision.RETRY if left:
            return Step.RETRY
        case Decision.RETRY_ONCE if left and not tries.retried_once:
            return Step.RETRY
        case Decision.NEW_LINK if left:
            return Step.RELINK
        case Decision.NEW_LINK_ONCE if left and not tries.relinked:
            return Step.RELINK
        case _:
            return Step.END


def backoff_wait(pace: RunLimits, used: int, chance: float) -> float:
    """Seconds to wait after the `used`-th attempt: doubling from `pace.backoff`, ±25 %; `chance` is in [0, 1)."""
    return min(LONGEST_BACKOFF, pace.backoff * 2.0 ** (used - 1)) * (0.75 + 0.5 * chance)


def after_no_token(since: float, source_answered: float, tries: int, now: float, pace: RunLimits) -> Step:
    """Decide what follows when the token source gave no usable answer for a merchant.

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
        since: when the merchant's first such question was asked.
        source_answered: when the source last gave or refused anybody a token.
        tries: such questions since then.
        now: the time, as the other two.
        pace: attempts and patience.

    """
    patient = now - since < pace.patience
    if source_answered < since:
        return Step.RETRY if patient else Step.STOP_RUN
    return Step.RETRY if patient and tries < pace.attempts else Step.END


@dataclass(slots=True)
class Breaker:
    """Counts the rows of one scope that end, one after the other, with the same stopping code."""

    code: str = ""
    rows: int = 0

    def row_ended(self, stopping_code: str) -> bool:
        """Note a row's end (`stopping_code` is empty for any other end); True when the breaker opens."""
        if not stopping_code:
            self.code, self.rows = "", 0
            return False
        self.rows = self.rows + 1 if stopping_code == self.code else 1
        self.code = stopping_code
        return self.rows >= BREAKER_ROWS


@dataclass(slots=True)
class Slowdown:
    """A scope's limit of rows in flight, and its pauses.

    Told to slow down, it pauses for `slow_wait` and works on at half its limit; each 20 good rows give one back.
    """

    full: int
    limit: int = 0
    good: int = 0
    paused_until: float = 0.0
    since: float | None = None
    """When the scope was first told, without a good row since."""

    def __post_init__(self) -> None:
        self.limit = self.full

    def patient(self, now: float, pace: RunLimits) -> bool:
        """Whether there is patience left for another pause."""
        return self.since is None or now - self.since < pace.patience

    def told(self, now: float, pace: RunLimits) -> None:
        """Note an answer that says: slower. Answers to calls made before the pause do not halve the limit again."""
        if now >= self.paused_until:
            self.limit = max(1, self.limit // 2)
        self.good = 0
        self.since = now if self.since is None else self.since
        self.paused_until = now + pace.slow_wait

    def row_good(self) -> None:
        """Note a good row."""
        self.since = None
        if self.limit < self.full:
            self.good += 1
            if self.good >= GOOD_PER_NOTCH:
                self.good = 0
                self.limit += 1


@dataclass(slots=True)
class Outage:
    """No connection succeeds anywhere: the run holds its breath, probes, and counts no attempts."""

    since: float | None = None
    probe_at: float = 0.0
    probes: int = 0

    def suspect(self, now: float, pace: RunLimits) -> None:
        """Note a connection that failed although nothing else was answered meanwhile; sets the next probe.

        Calls that were in flight when the outage began fail one after the other: they are no probes.
        """
        if self.since is None:
            self.since = now
        elif now < self.probe_at:
            return
        self.probes += 1
        self.probe_at = min(now + backoff_wait(pace, min(self.probes, 5), 0.5), self.since + pace.patience)

    def over(self, now: float, pace: RunLimits) -> bool:
        """Whether patience has run out."""
        return self.since is not None and now - self.since >= pace.patience

    def ended(self) -> None:
        """Note that somebody answered."""
        self.since, self.probes = None, 0


def after_canary(places: Iterable[EnvRecord], canary: int) -> set[str]:
    """The environments that wait for the first `canary` ones of the list.

    ======  =====================  ==========
    canary  environments           waiting
    ======  =====================  ==========
    0       any                    none
    1       a, b, c                b, c
    3       a, b, c                none
    ======  =====================  ==========

    Rows with a problem may have no environment; they wait for nothing.
    """
    envs = list(dict.fromkeys(place.env for place in places if place.env))
    return set(envs[canary:]) if canary else set()
