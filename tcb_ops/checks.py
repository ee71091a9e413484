"""What `doctor` looks at. A check is a name, a probe, and what to do if it does not pass; features bring their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tcb_ops.i18n import Text


class Grade(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """Works, but needs attention."""
    BAD = "bad"
    """A run would fail."""
    SKIPPED = "skipped"
    """Not checked, or missing and not needed."""


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """What a probe has found."""

    grade: Grade
    seen: Text
    fix: Text | None = None
    """What to do; None for the check's own."""


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """One line of the doctor's table."""

    name: str
    """The check's identifier, stable for `--json`."""
    label: Text
    probe: Callable[[], DoctorFinding]
    """Looks; what does not work may also be raised. It may block, and is then abandoned."""
    fix: Text
    """What to do if it does not pass."""
    needs: tuple[str, ...] = ()
    """The checks without which there is nothing to look at."""
    seconds: float = 6.0
    """Its time limit."""
