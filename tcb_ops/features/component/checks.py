"""The check that `doctor` makes of the component's secrets."""

from __future__ import annotations

from pathlib import Path

from tcb_ops.features.diagnosis.checks import DoctorCheck, secrets_check
from tcb_ops.settings import Settings


def check_of_secrets(settings: Settings) -> DoctorCheck | None:
    """Return the check of who may read the files of secret and ticket, and the store."""
    tokens = settings.tokens
    if tokens.source != "component":
        return None
    files = [place.partition(":")[2] for place in (tokens.secret, tokens.ticket) if place.startswith("file:")]
    return secrets_check([*(Path(file.strip()) for file in files), tokens.store], settings)
