"""The public functions about what was, and whether a report is as it was written."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Unpack

from tcb_ops.arguments import checked
from tcb_ops.errors import ArgumentError, check_count
from tcb_ops.features.evidence.history import History
from tcb_ops.features.evidence.history import history as look_back
from tcb_ops.features.evidence.verify import Verification
from tcb_ops.features.evidence.verify import verify as check
from tcb_ops.i18n import _
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, existing_ledger, settings_for


@checked
def history(days: int = 30, *, until: str = "today", **options: Unpack[TargetOptions]) -> History:
    """Count errcodes by day and merchant over all runs of `target`, else the settings'.

    `until` is the last of the days, such as 2026-10-30, or today.
    """
    settings = settings_for(options)
    check_count("days", days, least=1)
    now = time.time()
    if until != "today":
        try:
            last = datetime.fromisoformat(until)
        except ValueError:
            raise ArgumentError("until", until, _("today or a date such as 2026-10-30")) from None
        now = last.replace(tzinfo=settings.zone).timestamp()
    return look_back(existing_ledger(settings), settings.run_target, settings, days=days, now=now)


@checked
def verify(folder: str | Path, *, settings: Settings | None = None) -> Verification:
    """Check a report folder against its manifest, the ledger and the list, as far as they exist.

    Nothing is written. Raises UsageError if the folder has no report.
    """
    settings = settings_for({"settings": settings})
    place = Path(folder)
    lists = (Path(), settings.merchants.parent, *place.absolute().parents[:2])
    return check(place, existing_ledger(settings), lists, str(Path(settings.ledger).absolute()))
