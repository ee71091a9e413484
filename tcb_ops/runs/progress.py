"""The progress of a run: committed rows, rate and time left."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tcb_ops.i18n import Lang, Text
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

    def to_json(self, lang: Lang) -> dict[str, Any]:
        """Return the snapshot as `--json` with `--verbose` prints it."""
        return {
            "run": self.run,
            "rows": self.total,
            "done": self.done,
            "counts": dict(self.counts),
            "rate": round(self.rate, 1),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
            "note": "" if self.note is None else self.note.of(lang),
        }


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
