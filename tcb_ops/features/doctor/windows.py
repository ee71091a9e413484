"""What the doctor says about Windows: the code page, long paths, what is under the ledger, and the browser for the PDF."""

from __future__ import annotations

import locale
import os
import sys
from pathlib import Path

from tcb_ops.features.doctor.checks import DoctorFinding, Grade
from tcb_ops.i18n import Text, _, as_clauses
from tcb_ops.reports.formats.html import find_chromium
from tcb_ops.runs.database import on_network
from tcb_ops.settings import Settings

LONG_PATHS = r"SYSTEM\CurrentControlSet\Control\FileSystem"
"""The registry key of `LongPathsEnabled`."""


def check_windows(settings: Settings) -> DoctorFinding:
    """Look at this laptop. Raises OSError."""
    ledger = None if "://" in settings.ledger else Path(settings.ledger).resolve().parent
    return windows_finding(
        locale.getencoding(),
        ledger,
        long_paths=_long_paths(),
        remote=ledger is not None and on_network(ledger),
        synced=[folder for name, folder in os.environ.items() if name.upper().startswith("ONEDRIVE")],
        browser=find_chromium(),
    )


def windows_finding(
    code_page: str,
    ledger: Path | None,
    *,
    long_paths: bool,
    remote: bool,
    synced: list[str],
    browser: str | None,
) -> DoctorFinding:
    """Judge what was seen: a ledger on a network drive is refused by every run, one in OneDrive and short paths are a warning.

    `ledger`: its folder, None for PostgreSQL. `synced`: OneDrive's folders. `browser`: the program that prints report.pdf.
    """
    is_synced = ledger is not None and any(ledger.is_relative_to(folder) for folder in synced if folder)
    observations = [_("code page {code_page}", code_page=code_page)]
    observations.append(_("long paths allowed") if long_paths else _("paths of at most 260 characters"))
    observations.append(
        _("{browser} prints report.pdf", browser=Path(browser).name)
        if browser
        else _("no Edge or Chrome was found")
    )
    fixes: list[Text] = []
    if is_synced or remote:
        place = _("OneDrive") if is_synced else _("a network drive")
        observations.append(_("the ledger is on {place}", place=place))
        fixes.append(
            _(
                "Keep the ledger in a local folder that is not synchronised: ledger = … in the settings, or --ledger."
            )
        )
    if not long_paths:
        fixes.append(
            _(
                "For longer paths set LongPathsEnabled to 1 in HKLM\\{key}, as an administrator.",
                key=LONG_PATHS,
            )
        )
    grade = Grade.BAD if remote else Grade.WARNING if fixes else Grade.OK
    return DoctorFinding(grade, as_clauses(observations), as_clauses(fixes) if fixes else None)


def _long_paths() -> bool:
    if sys.platform != "win32":
        return True
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, LONG_PATHS) as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    except FileNotFoundError:
        return False
