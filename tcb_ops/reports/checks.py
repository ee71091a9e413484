"""What `verify` found, check by check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcb_ops.model import Text

__all__ = ["Check", "State"]


class State(StrEnum):
    """How a check ended."""

    SAME = "same"
    DIFFERS = "differs"
    NOT_CHECKED = "not_checked"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: a file by its name, `input` (the list), or `rows` (against the ledger)."""

    what: str
    state: State
    text: Text
