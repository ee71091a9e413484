"""What a trial of one real file saw: its steps, its answers, and what is secret of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tcb_ops.i18n import Text
from tcb_ops.model import Link, Owner
from tcb_ops.wechat.cos import StoredObject, StoreRefusal
from tcb_ops.wechat.transport import Exchange

REFRESHES = "/cgi-bin/component/api_authorizer_token"
"""The interface whose limit is asked for beside the upload link's."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step and how it went."""

    name: str
    """link, upload, signature, confirm, content_type, delete."""
    good: bool
    seen: Text
    mend: Text | None = None


@dataclass(slots=True)
class Trial:
    """Everything that was seen. Holds secrets in `exchanges`, `link` and `secrets`."""

    env: str
    owner: Owner
    path: str
    content: bytes
    began_at: float
    steps: list[Step] = field(default_factory=list)
    link: Link | None = field(default=None, repr=False)
    stored: StoredObject | None = None
    refused: StoreRefusal | None = None
    """What the store said to a signature with its last digit changed, or to the upload itself."""
    quotas: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """By interface: what openapi/quota/get answered."""
    exchanges: list[Exchange] = field(default_factory=list, repr=False)
    secrets: set[str] = field(default_factory=set, repr=False)
    left: str = ""
    """The file_id of an object that could not be deleted."""

    @property
    def good(self) -> bool:
        """Whether every step went well, and nothing is left behind."""
        return all(step.good for step in self.steps) and not self.left
