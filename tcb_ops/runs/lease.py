"""The time in which a session may act on a run, counted from the last confirmation of its lock or of its claim."""

from __future__ import annotations

import time
from collections.abc import Callable

from tcb_ops.errors import TcbOpsError
from tcb_ops.i18n import NOTHING

_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""The clock that goes on while the machine is suspended: CLOCK_MONOTONIC on macOS. Windows has neither name, and
time.monotonic() counts there."""


def seconds_since_boot() -> float:
    """Return monotonic seconds, in which a suspended machine counts too; `time.monotonic` stands still on a closed laptop."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class LapsedError(TcbOpsError):
    """The lease has passed: nothing was done, and the engine begins the row again once the lease is confirmed."""

    def __init__(self) -> None:
        super().__init__(NOTHING)


class Lease:
    """Whether this process may act on the run: for some seconds after each confirmation that nobody else has taken it."""

    def __init__(self, seconds: float, clock: Callable[[], float] = seconds_since_boot) -> None:
        self.now = clock
        self._seconds = seconds
        self._until = float("-inf")
        self._lost = False

    def confirm(self, asked: float) -> None:
        """Note that a question that was asked at `asked`, by `now`, was answered with yes."""
        self._until = asked + self._seconds

    def lose(self) -> None:
        """Note that another process may have the run. No later confirmation counts."""
        self._lost = True

    @property
    def holds(self) -> bool:
        """Whether rows may begin."""
        return not self._lost and self.now() < self._until

    def check(self) -> None:
        """Raise LapsedError if the lease has passed, as after a freeze. Called right before each effect of a row."""
        if not self.holds:
            raise LapsedError
