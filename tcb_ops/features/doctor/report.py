"""Checks of the machine, the files, the token source and the target: their results and time limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tcb_ops.errors import TcbOpsError
from tcb_ops.i18n import Lang, Text, _
from tcb_ops.resources import system_reason


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
class CheckResult:
    """One line of the doctor's table."""

    name: str
    """The check's identifier, stable for `--json`."""
    grade: Grade
    seen: Text
    fix: Text | None = None
    """None if there is nothing to do."""

    def as_dict(self, lang: Lang) -> dict[str, Any]:
        """Return the result for JSON."""
        fix = self.fix.of(lang) if self.fix is not None else None
        return {"check": self.name, "grade": str(self.grade), "seen": self.seen.of(lang), "fix": fix}


def from_error(name: str, error: TcbOpsError) -> CheckResult:
    """Return a bad result with an error's problem and its fix, or the check's own fix."""
    return CheckResult(name, Grade.BAD, error.problem, error.fix or _FIXES.get(name))


def skipped(name: str, why: Text) -> CheckResult:
    """Return the result of a check that was not made."""
    return CheckResult(name, Grade.SKIPPED, why)


def run_limited(
    names: Sequence[str], check: Callable[[], Sequence[CheckResult]], seconds: float
) -> list[CheckResult]:
    """Run a check in its own thread for at most `seconds`; return a result for each of `names` in any case.

    A thread that a name server, a disk or a program blocks is abandoned. An error becomes a result.
    """
    results: list[CheckResult] = []

    def run() -> None:
        try:
            results.extend(check())
        except Exception as error:  # noqa: BLE001  a broken check must not hide the other results
            results.append(_from_any(names[0], error))

    thread = threading.Thread(target=run, name=f"doctor-{names[0]}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        slow = _("did not finish within {seconds:.0f} s", seconds=seconds)
        results = [CheckResult(names[0], Grade.BAD, slow, _HANGS)]
    made = {result.name for result in results}
    why = _("not checked, because the check above did not pass")
    return [*results, *(skipped(name, why) for name in names if name not in made)]


def _from_any(name: str, error: Exception) -> CheckResult:
    if isinstance(error, TcbOpsError):
        return from_error(name, error)
    if isinstance(error, OSError):
        why = system_reason(error)
        seen = _("{file}: {why}", file=error.filename, why=why) if error.filename else why
        fix = _("Fix that, then run doctor again.")
        return CheckResult(name, Grade.BAD, seen, fix)
    kind = type(error).__name__
    return CheckResult(
        name,
        Grade.BAD,
        _("the check itself failed ({kind})", kind=kind),
        _("Please report it: this is a bug in tcb-ops."),
    )


_HANGS = _("A name server, a disk or a program does not answer. Fix that, then run doctor again.")
_FIXES = {
    "settings": _("Fix it; `tcb-ops init` in an empty folder writes a file with every setting."),
    "merchants": _("Fix the merchants file."),
    "ledger": _("Fix that, or choose another ledger with --ledger."),
    "target": _("Check api_base, the network, the firewall and any proxy on the way; then run doctor again."),
    "tokens": _("Fix the token source ([tokens] in the settings)."),
    "address": _("Check the network and any proxy on the way, then run doctor again."),
}
"""The fix for errors without one."""
