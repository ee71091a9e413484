"""What a check of `doctor` is: a probe, what it has found, and what to do. Features bring their own (`Feature.checks`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from tcb_ops.i18n import CommandText, Text, _, as_lines, as_list
from tcb_ops.resources import others_may_read, restricting
from tcb_ops.settings import Settings

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


def secrets_check(paths: Sequence[Path], settings: Settings) -> DoctorCheck:
    """Return the check that only their owner can read the files and folders in which a token source keeps secrets."""
    return DoctorCheck("secrets", _("secrets"), partial(_check_secrets, paths, settings))


def _check_secrets(paths: Sequence[Path], settings: Settings) -> DoctorFinding:
    paths = [path for path in paths if path.exists()]
    if not paths:
        return DoctorFinding(Grade.SKIPPED, _("no files with secrets here"))
    readable = [path for path in paths if any(map(others_may_read, (path, *path.glob("*"))))]
    if not readable:
        return DoctorFinding(Grade.OK, _("{named}: readable only by you", named=as_list(paths)))
    observation = _("others on this machine may read {named}", named=as_list(readable, most=3))
    commands = (CommandText(restricting(path.absolute())) for path in readable)
    fix = as_lines((_("Restrict them to yourself:"), *commands))
    # The simulator's tokens give access to nothing.
    return DoctorFinding(Grade.WARNING if settings.on_loopback else Grade.BAD, observation, fix)
