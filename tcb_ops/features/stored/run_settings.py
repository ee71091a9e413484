"""What a run about stored files keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tcb_ops.model import RunSettings

if TYPE_CHECKING:
    from tcb_ops.ledger.records import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRunSettings(RunSettings):
    """What a run about stored files keeps."""

    content: bool | None = None
    """Of a confirmation: whether checksums are compared."""
    root: str | None = None
    """Of a confirmation: the folder of the upload's local files."""
    foreign: bool | None = None
    """Of a delete: whether it deletes files, too, that no run of this ledger uploaded."""
    of_list: str | None = None
    """Of a delete: the name of the lists whose uploads' files it deletes; None for any."""


def kept_by(run: RunRecord) -> StoredRunSettings:
    """Return what a run about stored files keeps; of another run, what one without options keeps."""
    return run.settings if isinstance(run.settings, StoredRunSettings) else StoredRunSettings()
