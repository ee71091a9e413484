"""Whether each environment works: audits, what changed since the one before, and messages about it."""

from enum import unique

from tcb_ops.details import DetailCodes
from tcb_ops.i18n import _
from tcb_ops.kinds import Feature
from tcb_ops.model import Outcome, Reason

FEATURE = Feature(
    kinds={"audit": "tcb_ops.features.audit.kind:AUDIT"},
    settings={
        "audit": "tcb_ops.features.audit.settings:AuditSettings",
        "notify": "tcb_ops.features.audit.settings:NotifySettings",
    },
    commands={
        "health": ["tcb_ops.features.audit.command:audit", "tcb_ops.features.audit.command:notify"],
    },
    provides={
        "Run.audit": "tcb_ops.features.audit.api:audited",
        "panels.audit": "tcb_ops.features.audit.panel:AuditPanel",
        "runs --stale": "tcb_ops.features.audit.command:watch_audits",
    },
    reasons="features/audit/reasons.csv",
    checks=["tcb_ops.features.audit.notifications:receivers_check"],
    needs=["diagnosis", "programs", "single_calls"],
)

HEALTHY = Outcome.define("healthy", _("healthy"), 3, succeeded=True)
UNHEALTHY = Outcome.define("unhealthy", _("unhealthy"), 23, retried=True)

NOT_ASKED = Reason.define("not_asked", explained=True)
"""A problem that affects every merchant stopped the audit first; it is in the row's detail."""
HALTED = Reason.define("halted", of_environment=True)
"""The environment's status in getenvinfo."""
UNAVAILABLE = Reason.define("unavailable", explained=True, of_environment=True)
"""Any other status than NORMAL; in the row's detail."""

REFUSED_TOKENS = frozenset({40001, 40014, 42001})
"""Errcodes for a refused token. For the component token, they affect every merchant."""


@unique
class AuditCode(DetailCodes):
    """The codes of audits."""

    COMPONENT_TOKEN = _(
        "The component token of {appid} was refused with errcode {errcode} ({errmsg}), which affects every merchant."
    )
    ENV_STATUS = _("Its status is {status}.")
    NOT_CHECKED = _("Not checked: {checks}.")
    LINK_CALLS = _("Link calls today: {used} of {limit}.")
