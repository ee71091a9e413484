"""How far a run is: what was committed, how fast, and how long it will still take."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
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
    """None while it cannot be told."""
    note: Text | None = None
    """What holds the run up, if something does."""

    @property
    def done(self) -> int:
        """Rows that have ended."""
        return sum(self.counts.values())


class Pulse:
    """The rate of a run, from what was committed when."""

    def __init__(self, total: int, done: int) -> None:
        self._total = total
        self._seen: deque[tuple[float, int]] = deque()
        self._done = done

    def beat(self, now: float, done: int) -> tuple[float, float | None]:
        """Give rows a second over the last half minute, and the seconds left (None without a rate)."""
        if not self._seen:
            self._seen.append((now, self._done))
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW:
            self._seen.popleft()
        then, before = self._seen[0]
        rate = (done - before) / (now - then) if now > then else 0.0
        return rate, (self._total - done) / rate if rate > 0 else None
