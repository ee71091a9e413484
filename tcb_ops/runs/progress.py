"""The progress of a run: committed rows, rate, time left, and time by phase."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tcb_ops.i18n import Text
from tcb_ops.model import Outcome

WINDOW = 30.0
"""Seconds over which the rate is averaged."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot of a run's progress. Counts only committed rows."""

    run: str
    total: int
    """Rows of the run."""
    counts: Mapping[Outcome, int]
    """Rows by outcome, without pending ones."""
    rate: float
    """Rows per second over the last 30 seconds."""
    seconds_left: float | None
    """None while unknown."""
    note: Text | None = None
    """What delays the run, if anything."""
    away: bool = False
    """Whether the target or the token source does not respond; `note` is then a warning."""

    messages: tuple[Text, ...] = ()
    """Messages of the session so far, each of which is shown once: such as workers that were lost."""

    @property
    def done(self) -> int:
        """Rows that have ended."""
        return sum(self.counts.values())


class RateEstimator:
    """Estimator of a run's rate and time left, from its commits."""

    def __init__(self, total: int, done: int) -> None:
        self._total = total
        self._seen: deque[tuple[float, int]] = deque()
        self._done = done

    def update(self, now: float, done: int) -> tuple[float, float | None]:
        """Return the rows per second over `WINDOW`, and the seconds left (None without a rate)."""
        if not self._seen:
            self._seen.append((now, self._done))
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (done - before) / (now - since) if now > since else 0.0
        return rate, (self._total - done) / rate if rate > 0 else None


_CALLS = ("link", "store")
_HOLDS = ("limit", "slow", "backoff", "token")
PHASES = (*_CALLS, *_HOLDS, "outage")
"""Link calls, store calls; rows held by a limit or rate, a requested pause, the wait before another attempt, a missing
token; outages of the target."""


class PhaseTimer:
    """Timer that divides a run's time among phases, from the calls in flight and the rows held.

    Each interval is assigned to what the run waited for:

    ==============================  ===================================================================
    state in the interval           assigned to
    ==============================  ===================================================================
    the target cannot be reached    outage
    no free slots                   the calls, link and store, in proportion to their number
    free slots, and rows held       the calls, for the slots in use; for the rest, what holds the rows
    free slots, and no rows held    the calls
    no calls, and no rows held      nothing: the time of the ledger and this machine
    ==============================  ===================================================================
    """

    def __init__(self, slots: int, clock: Callable[[], float]) -> None:
        """`slots`: rows that may be in flight at once. `clock`: monotonic seconds."""
        self._slots, self._clock, self._since = slots, clock, clock()
        self._now = dict.fromkeys(PHASES, 0)
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._room = False

    def enter(self, phase: str) -> None:
        """Count one more call in flight, or one more row or environment that is held."""
        self._tick()
        self._now[phase] += 1

    def leave(self, phase: str) -> None:
        """Count one less."""
        self._tick()
        self._now[phase] -= 1

    def room(self, *, there: bool) -> None:
        """Record whether there are free slots for more rows."""
        if there is not self._room:
            self._tick()
            self._room = there

    def take(self) -> dict[str, float]:
        """Return and reset the seconds by phase, without zeros."""
        self._tick()
        taken = {phase: seconds for phase, seconds in self._seconds.items() if seconds}
        self._seconds = dict.fromkeys(PHASES, 0.0)
        return taken

    def _tick(self) -> None:
        at = self._clock()
        passed, self._since = at - self._since, at
        if passed <= 0:
            return
        now, seconds = self._now, self._seconds
        if now["outage"]:
            seconds["outage"] += passed
            return
        calls = sum(now[phase] for phase in _CALLS)
        holds = sum(now[phase] for phase in _HOLDS) if self._room else 0
        if holds:
            held = passed * (1 - min(1.0, calls / self._slots))
            passed -= held
            for phase in _HOLDS:
                seconds[phase] += held * now[phase] / holds
        if calls:
            for phase in _CALLS:
                seconds[phase] += passed * now[phase] / calls
