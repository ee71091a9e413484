"""Where a run's time goes: to calls, or to what kept further rows from beginning. Arithmetic, no I/O.

Each stretch of time is shared out over what the run was waiting for in it, so that the phases add up to the run's
own seconds, but for what tcb-ops itself needed:

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

from __future__ import annotations

from collections.abc import Callable

PHASES = ("link", "store", "limit", "slow", "backoff", "token", "outage")
"""Link calls, store calls; rows held by a limit or a rate, by a pause that was asked for, by the wait before another
attempt, for a token; the target being away."""
_CALLS = ("link", "store")
_HOLDS = ("limit", "slow", "backoff", "token")


class PhaseTimer:
    """Counts what is under way and what is held, and shares the time out."""

    def __init__(self, slots: int, clock: Callable[[], float]) -> None:
        """`slots`: rows that may be under way at once. `clock`: monotonic seconds."""
        self._slots, self._clock, self._then = slots, clock, clock()
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
        passed, self._then = at - self._then, at
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
