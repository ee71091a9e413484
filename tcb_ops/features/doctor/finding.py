"""What a check of the doctor has found."""

from __future__ import annotations

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
    """What to do; None for the check's own, and where there is nothing to do."""
