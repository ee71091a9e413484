"""The progress of a run: committed rows, rate and time left."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tcb_ops.i18n import Lang, Text, _, as_list, pgettext
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
    countdown: Text | None = None
    """How long the delay lasts at most, in a few words: "tea-prod paused, 43 s"."""
    away: bool = False
    """Whether the target or the token source does not respond; `note` is then a warning."""

    @property
    def done(self) -> int:
        """Rows that have ended."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        each = pgettext("repr", "{outcome} {rows:,}")
        counts = as_list(
            each.format(outcome=outcome.label, rows=rows) for outcome, rows in self.counts.items()
        )
        text = _("{done:,} of {total:,}: {counts}", done=self.done, total=self.total, counts=counts)
        return str(text if self.note is None else _("{progress}. {note}", progress=text, note=self.note))

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


class ProgressMeter:
    """Makes a run's progress from its counts, with the rate and the time left."""

    def __init__(self, run: str, total: int, counts: Mapping[Outcome, int]) -> None:
        """`counts`: the rows by outcome at the start."""
        self._run, self._total = run, total
        self._start = _ended(counts)
        self._seen: deque[tuple[float, int]] = deque()

    def at(
        self,
        now: float,
        counts: Mapping[Outcome, int],
        note: Text | None = None,
        countdown: Text | None = None,
        *,
        away: bool = False,
    ) -> Progress:
        """Return the progress at a time, from the rows by outcome, pending ones included or not."""
        ended = _ended(counts)
        done = sum(ended.values())
        if not self._seen:
            self._seen.append((now, sum(self._start.values())))
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (done - before) / (now - since) if now > since else 0.0
        seconds_left = (self._total - done) / rate if rate > 0 else None
        return Progress(self._run, self._total, ended, rate, seconds_left, note, countdown, away)


def _ended(counts: Mapping[Outcome, int]) -> dict[Outcome, int]:
    ordered = Outcome.in_order(counts).items()
    return {outcome: rows for outcome, rows in ordered if outcome is not Outcome.PENDING}
