"""What follows from an answer: pure decisions. Time and randomness come in as arguments.

A row's way through a run is a chain of calls: a link call, then (for uploads) a store call. After each answer
`next_step` (wechat.call_policy) decides the next step; `Breaker`, `Slowdown` and `Outage` say the same for a merchant, an
environment or the whole run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from tcb_ops.errors import ArgumentError
from tcb_ops.i18n import _
from tcb_ops.runs.records import EnvRecord
from tcb_ops.wechat.call_policy import CallLimits, NextStep, backoff_wait

BREAKER_ROWS = 3
"""Rows of one scope that must end with the same code, one after the other, before the scope's breaker opens."""
GOOD_PER_NOTCH = 20
"""Good rows after which a slowed scope may have one more row in flight."""
LINK_MARGIN = 5.0
"""Seconds before its end in which a link that has waited is not used any more; a new one is used at once."""


@dataclass(frozen=True, slots=True)
class RunLimits(CallLimits):
    """How hard a run may press. The defaults are the command line's."""

    concurrency: int = 64
    """Requests in flight, all together."""
    per_env: int = 8
    """Rows in flight per environment."""
    rate: float | None = None
    """Link calls a second per appid; None for no limit."""

    def __post_init__(self) -> None:
        """Raise ArgumentError for a value that no run can work with."""
        for name in ("concurrency", "per_env", "attempts"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ArgumentError(name, value, _("a whole number from 1"))
        for name in ("backoff", "slow_wait", "patience"):
            value = getattr(self, name)
            if not _is_number(value) or value < 0:
                raise ArgumentError(name, value, _("seconds, 0 or more"))
        if self.rate is not None and (not _is_number(self.rate) or self.rate <= 0):
            raise ArgumentError("rate", self.rate, _("link calls a second, more than 0, or None"))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def after_no_token(
    since: float, source_answered: float, tries: int, now: float, limits: RunLimits
) -> NextStep:
    """Decide what follows when the token source gave no usable response for a merchant.

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
        limits: attempts and patience.

    """
    patient = now - since < limits.patience
    if source_answered < since:
        return NextStep.RETRY if patient else NextStep.STOP_RUN
    return NextStep.RETRY if patient and tries < limits.attempts else NextStep.END


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

    Asked to slow down, it pauses for `slow_wait` and works on at half its limit; each 20 good rows give one back.
    """

    full: int
    limit: int = 0
    good: int = 0
    paused_until: float = 0.0
    since: float | None = None
    """When the scope was first asked to slow down, without a row that succeeded since."""

    def __post_init__(self) -> None:
        self.limit = self.full

    def patient(self, now: float, limits: RunLimits) -> bool:
        """Return whether there is patience left for another pause."""
        return self.since is None or now - self.since < limits.patience

    def slow_down(self, now: float, limits: RunLimits) -> None:
        """Note an answer that says: slower. Answers to calls made before the pause do not halve the limit again."""
        if now >= self.paused_until:
            self.limit = max(1, self.limit // 2)
        self.good = 0
        self.since = now if self.since is None else self.since
        self.paused_until = now + limits.slow_wait

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
    """No connection succeeds anywhere: the run waits, probes the target, and counts no attempts."""

    since: float | None = None
    probe_at: float = 0.0
    probes: int = 0

    def suspect(self, now: float, limits: RunLimits) -> None:
        """Note a connection that failed although nothing else was answered meanwhile; sets the next probe.

        Calls that were in flight when the outage began fail one after the other: they are no probes.
        """
        if self.since is None:
            self.since = now
        elif now < self.probe_at:
            return
        self.probes += 1
        self.probe_at = min(
            now + backoff_wait(limits, min(self.probes, 5), 0.5), self.since + limits.patience
        )

    def over(self, now: float, limits: RunLimits) -> bool:
        """Return whether patience has run out."""
        return self.since is not None and now - self.since >= limits.patience

    def ended(self) -> None:
        """Note that somebody answered."""
        self.since, self.probes = None, 0


def after_canary(environments: Iterable[EnvRecord], canary: int) -> set[str]:
    """Return the environments that wait for the first `canary` ones of the list.

    ======  =====================  ==========
    canary  environments           waiting
    ======  =====================  ==========
    0       any                    none
    1       a, b, c                b, c
    3       a, b, c                none
    ======  =====================  ==========

    Rows with a problem may have no environment; they wait for nothing.
    """
    envs = list(dict.fromkeys(environment.env for environment in environments if environment.env))
    return set(envs[canary:]) if canary else set()
