"""The settings of audits, who is told what they found, and what an audit keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tcb_ops.i18n import Text, _
from tcb_ops.model import RunSettings
from tcb_ops.setting_rules import PathName
from tcb_ops.settings import Section

if TYPE_CHECKING:
    from tcb_ops.ledger.records import RunRecord


@dataclass(frozen=True, init=False)
class AuditSettings(Section):
    """The settings of audits."""

    known: PathName = Path("known.csv")
    """Failures that are reported without an alarm until a date; the file may be missing."""
    metrics: Path | None = None
    """The file for monitoring that an audit of all merchants replaces."""


@dataclass(frozen=True, init=False)
class NotifySettings(Section):
    """A receiver of audit results. Addresses and keys are in variables or files, never in the settings."""

    REPEATED = True

    kind: Literal["wecom", "feishu", "dingtalk", "webhook", "command"]
    url_env: str = ""
    url_file: Path | None = None
    secret_env: str = ""
    secret_file: Path | None = None
    on: Literal["change", "always", "failure"] = "change"
    command: tuple[str, ...] = field(default=(), repr=False)
    """Kind `command`: a program and its arguments. It reads JSON on stdin."""

    def lacks(self) -> dict[str, Text]:
        """Return what is missing for its kind."""
        if self.kind == "command":
            return {} if self.command else {"kind": _('"command" needs command, a program and its arguments')}
        text = _('"{kind}" needs url_env (the name of a variable) or url_file, one of them')
        return {} if bool(self.url_env) != bool(self.url_file) else {"kind": text.format(kind=self.kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRunSettings(RunSettings):
    """What an audit keeps."""

    known: tuple[dict[str, str], ...] = ()
    """The known failures, as `KnownFailure` has them."""
    known_file: str | None = None
    """Their file, where it is not that of the settings."""


def kept_by_audit(audit: RunRecord) -> AuditRunSettings:
    """Return what an audit keeps."""
    return audit.settings if isinstance(audit.settings, AuditRunSettings) else AuditRunSettings()
