"""The settings of the embedded simulator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tcb_ops.settings import Section


@dataclass(frozen=True, init=False)
class SimulatorSettings(Section):
    """What goes wrong in a rehearsal, and what stays between commands."""

    faults: Path | None = None
    """The fault plan; None: nothing goes wrong."""
    store: Path | None = None
    """The folder that keeps the uploaded files; None: each command begins without files."""
