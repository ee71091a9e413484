"""The progress of a run: what was committed, the rate, the time left, and where the time goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tcb_ops.i18n import Text
from tcb_ops.model import Outcome

WINDOW = 30.0
"""Seconds over which the rate is taken."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at a run. Everything in it is committed."""

    run: str
    total: int
    """Rows in."""
    counts: Mapping[Outcome, int]
    """Rows by outcome, pending ones not included."""
    rate: float
    """Rows a second, lately."""
    seconds_left: float | None
    """None while it is not known."""
    note: Text | None = None
    """What holds the run up, if something does."""
    away: bool = False
    """Whether nothing can go on: the target or the token source does not answer; the note is a warning."""

    @property
    def done(self) -> int:
        """Rows that have ended."""
        return sum(self.counts.values())


class RateEstimator:
    """The rate of a run, from what was committed when."""

    def __init__(self, total: int, done: int) -> None:
        self._total = total
        self._seen: deque[tuple[float, int]] = deque()
        self._done = done

    def update(self, now: float, done: int) -> tuple[float, float | None]:
        """Give rows a second over the last half minute, and the seconds left (None without a rate)."""
        if not self._seen:
            self._seen.append((now, self._done))
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (done - before) / (now - since) if now > since else 0.0
        return rate, (self._total - done) / rate if rate > 0 else None


PHASES = ("link", "store", "limit", "slow", "backoff", "token", "outage")
"""Link calls, store calls; rows held by a limit or a rate, by a pause that was asked for, by the wait before another
attempt, for a token; the target being away."""
_CALLS = ("link", "store")
_HOLDS = ("limit", "slow", "backoff", "token")


class PhaseTimer:
    """Counts the calls under way and the rows that are held, and shares the time out.

    Each stretch of time goes to what the run waited for in it:

    ==========================================  =====================================================
    in a stretch of time                        it goes to
    ==========================================  =====================================================
    the target cannot be reached                outage
    as many rows under way as may be            the calls: link and store, by how many are under way
    room, and rows that something holds back    the calls, as far as the room is used; the rest to what holds them
    room, and nothing left to begin             the calls
    no call under way, nothing held back        nothing: the ledger and this machine
    ==========================================  =====================================================
    """

    def __init__(self, slots: int, clock: Callable[[], float]) -> None:
        """`slots`: rows that may be under way at once. `clock`: monotonic seconds."""
        self._slots, self._clock, self._since = slots, clock, clock()
        self._now = dict.fromkeys(PHASES, 0)
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._room = False

    def enter(self, phase: str) -> None:
        """Note one more call under way, or one more row or environment that is held."""
        self._tick()
        self._now[phase] += 1

    def leave(self, phase: str) -> None:
        """Note that it is over."""
        self._tick()
        self._now[phase] -= 1

    def room(self, *, there: bool) -> None:
        """Note whether more rows could be under way, were they not held."""
        if there is not self._room:
            self._tick()
            self._room = there

    def take(self) -> dict[str, float]:
        """Give the seconds by phase since the last time, without zeros."""
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
        calls = now["link"] + now["store"]
        holds = now["limit"] + now["slow"] + now["backoff"] + now["token"] if self._room else 0
        if holds:
            held = passed * (1 - min(1.0, calls / self._slots))
            passed -= held
            for phase in _HOLDS:
                if now[phase]:
                    seconds[phase] += held * now[phase] / holds
        if calls:
            for phase in _CALLS:
                if now[phase]:
                    seconds[phase] += passed * now[phase] / calls
