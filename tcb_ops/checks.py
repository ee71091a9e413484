"""What a check of `doctor` is: a probe, what it has found, and what to do. Features bring their own (`Feature.checks`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tcb_ops.i18n import Text, _

_AGAIN = _("Fix that, then run doctor again.")


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


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """One line of the doctor's table."""

    name: str
    """The check's identifier, stable for `--json`."""
    label: Text
    probe: Callable[[], DoctorFinding]
    """Looks; what does not work may also be raised. It may block, and is then abandoned."""
    fix: Text = _AGAIN
    """What to do if it does not pass."""
    needs: tuple[str, ...] = ()
    """The checks without which there is nothing to look at."""
