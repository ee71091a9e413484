"""What merchants and the platform have done since the simulator's plan: consents, new environments, cleared quotas.

A simulator with a store keeps them there: the next command of a rehearsal finds them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

CHANGES = ".merchants"
"""The file of the store's folder, in JSON."""


class Consent(StrEnum):
    """What only a merchant's administrator can give."""

    CLOUD = "cloud"
    """To open 云开发: the message of createclouduser."""
    AUTHORIZATION = "authorization"
    """The authorization of the platform, with permission set 49."""


@dataclass(slots=True)
class SimulatedChanges:
    """What has become of one merchant. Times are Unix seconds."""

    asked: dict[Consent, float] = field(default_factory=dict)
    """When its administrator was last asked."""
    given: set[Consent] = field(default_factory=set)
    opened: bool = False
    """Whether createclouduser has opened 云开发; then only the environments created since exist."""
    envs: dict[str, float] = field(default_factory=dict)
    """The environments created, and the time from which each is NORMAL."""
    cleared: list[float] = field(default_factory=list)
    """When clear_quota took effect."""


class AllChanges(defaultdict[str, SimulatedChanges]):
    """The changes by appid, kept in a folder if there is one."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__(SimulatedChanges)
        self._file = folder / CHANGES if folder else None
        if self._file is not None:
            with suppress(FileNotFoundError):
                self.update(msgspec.json.decode(self._file.read_bytes(), type=dict[str, SimulatedChanges]))

    def save(self) -> None:
        """Write the changes to the folder."""
        if self._file is not None:
            fresh = self._file.with_name(f"{CHANGES}-{os.getpid()}")
            fresh.touch(mode=0o600)
            fresh.write_bytes(msgspec.json.encode(dict(self)))
            fresh.replace(self._file)
