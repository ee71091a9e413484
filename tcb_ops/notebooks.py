"""What notebooks need of their own: a platform to practise on."""

from __future__ import annotations

import atexit
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.sample import rehearsal

if TYPE_CHECKING:
    from tcb_ops.settings import Settings

__all__ = ["practice"]


def practice(lang: str | None = None) -> Settings:
    """Start the embedded simulator with the sample's merchants, for as long as this process lives.

    Gives the settings that lead to it; its ledger goes with the process.
    """
    stack = ExitStack()
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tcb-ops-practice-"))
    settings, _, _ = stack.enter_context(rehearsal(Path(folder), lang=lang))
    atexit.register(stack.close)
    return settings
