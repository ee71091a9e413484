"""The results of checks. No check can block or end the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tcb_ops.checks import DoctorCheck, DoctorFinding, Grade
from tcb_ops.errors import TcbOpsError
from tcb_ops.i18n import Lang, Text, _
from tcb_ops.resources import system_reason

TOTAL_SECONDS = 27.0
"""Time limit for all checks together."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the doctor's table, with what was found."""

    name: str
    label: Text
    grade: Grade
    seen: Text
    fix: Text | None = None
    """None if there is nothing to do."""

    def as_dict(self, lang: Lang) -> dict[str, Any]:
        """Return the result for JSON."""
        fix = self.fix.of(lang) if self.fix is not None else None
        return {"check": self.name, "grade": str(self.grade), "seen": self.seen.of(lang), "fix": fix}


def run_checks(checks: Iterable[DoctorCheck]) -> Iterator[CheckResult]:
    """Yield the results in order. Blocks for at most about 27 seconds; raises nothing."""
    end = time.monotonic() + TOTAL_SECONDS
    usable: set[str] = set()
    for check in checks:
        if usable.issuperset(check.needs):
            finding = probe_limited(check, max(0.5, min(check.seconds, end - time.monotonic())))
        else:
            finding = DoctorFinding(Grade.SKIPPED, _("not checked, because a check above did not pass"))
        to_fix = finding.grade in {Grade.WARNING, Grade.BAD}
        if finding.grade in {Grade.OK, Grade.WARNING}:
            usable.add(check.name)
        fix = (finding.fix or check.fix) if to_fix else None
        yield CheckResult(check.name, check.label, finding.grade, finding.seen, fix)


def probe_limited(check: DoctorCheck, seconds: float) -> DoctorFinding:
    """Probe in a thread for at most `seconds`. A thread that a name server, a disk or a program blocks is abandoned."""
    findings: list[DoctorFinding] = []

    def probe() -> None:
        try:
            findings.append(check.probe())
        except Exception as error:  # noqa: BLE001  a broken check must not hide the other results
            findings.append(_from_error(error))

    thread = threading.Thread(target=probe, name=f"doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if findings:
        return findings[0]
    return DoctorFinding(
        Grade.BAD,
        _("did not finish within {seconds:.0f} s", seconds=seconds),
        _("A name server, a disk or a program does not answer. Fix that, then run doctor again."),
    )


def _from_error(error: Exception) -> DoctorFinding:
    if isinstance(error, TcbOpsError):
        return DoctorFinding(Grade.BAD, error.problem, error.fix)
    if isinstance(error, OSError):
        why = system_reason(error)
        return DoctorFinding(
            Grade.BAD, _("{file}: {why}", file=error.filename, why=why) if error.filename else why
        )
    return DoctorFinding(
        Grade.BAD,
        _("the check itself failed ({kind})", kind=type(error).__name__),
        _("Please report it: this is a bug in tcb-ops."),
    )
