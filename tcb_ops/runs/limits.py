"""Limits of a run, and the decisions that follow from a response. Pure: time and randomness are arguments.

A row takes a chain of calls: a link call, then (for uploads) a store call. After each response, `next_step`
(wechat.call_policy) decides the row's next step; `Breaker`, `Slowdown` and `Outage` decide for a merchant, an
environment or the whole run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcb_ops.arguments import is_number
from tcb_ops.errors import check_count, check_value
from tcb_ops.i18n import _
from tcb_ops.wechat.call_policy import CallLimits, NextStep, backoff_wait

if TYPE_CHECKING:
    from tcb_ops.runs.records import EnvRecord

BREAKER_ROWS = 3
"""Consecutive rows of a scope with the same code that open its breaker."""
GOOD_PER_NOTCH = 20
"""Successful rows after which a slowed scope may have one more row in flight."""
PROBE_PAUSE = 0.05
"""Seconds between two probes of an unreachable target at least, also with a backoff of 0."""
LINK_MARGIN = 5.0
"""Seconds before its expiry from which a link that has waited is replaced; a new link is used at once."""


@dataclass(frozen=True, slots=True)
class RunLimits(CallLimits):
    """Limits of a run: concurrency, rate, attempts and waits. The defaults are those of the command line."""

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
