"""The check that `doctor` makes of the browser."""

from __future__ import annotations

from pathlib import Path

from tcb_ops.checks import DoctorCheck, DoctorFinding, Grade
from tcb_ops.features.notebooks.printing import CHROMIUM, find_chromium
from tcb_ops.i18n import _, verbatim
from tcb_ops.settings import Settings


def browser_check(settings: Settings) -> DoctorCheck:
    """Return the check whether a browser is found; without one a report.pdf that the settings ask for is not written."""

    def look() -> DoctorFinding:
        if (program := find_chromium()) is not None:
            return DoctorFinding(Grade.OK, _("{browser} prints it", browser=Path(program).name))
        grade = Grade.WARNING if settings.report.pdf else Grade.SKIPPED
        return DoctorFinding(grade, _("no Edge or Chrome was found"))

    fix = _("Install Edge or Chrome, or name one in {variable}.", variable=CHROMIUM)
    return DoctorCheck("pdf", verbatim("report.pdf"), look, fix)
