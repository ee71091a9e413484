"""Whether merchants and their rows can succeed, and who must act: audits, why rows failed, the merchants file, doctor."""

from enum import unique

from tcb_ops.details import DetailCodes
from tcb_ops.i18n import _
from tcb_ops.kinds import Feature
from tcb_ops.model import Outcome, Reason

_ROOM = "tcb_ops.features.health"
FEATURE = Feature(
    kinds={"audit": f"{_ROOM}.audit_kind:AUDIT"},
    settings={
        "audit": f"{_ROOM}.settings:AuditSettings",
        "notify": f"{_ROOM}.settings:NotifySettings",
    },
    commands={
        "health": [
            f"{_ROOM}.audit_command:audit",
            f"{_ROOM}.audit_command:notify",
            f"{_ROOM}.why_command:why",
            f"{_ROOM}.why_command:explain",
            f"{_ROOM}.call_command:call",
        ],
        "setup": [f"{_ROOM}.doctor_command:doctor", f"{_ROOM}.merchants_command:merchants"],
    },
    provides={
        "Run.audit": f"{_ROOM}.audit:audited",
        "Run.why": f"{_ROOM}.why:why",
        "kept_verdicts": f"{_ROOM}.verdicts:kept_verdicts",
        "panels.audit": f"{_ROOM}.panel:AuditPanel",
        "presumed_verdict": f"{_ROOM}.verdicts:presumed_verdict",
        "runs --stale": f"{_ROOM}.audit_command:watch_audits",
        "short_of_calls": f"{_ROOM}.merchants:warn_of_few_calls",
        "why_code": f"{_ROOM}.why:why_code",
    },
    reasons="features/health/reasons.csv",
    checks=[f"{_ROOM}.notifications:receivers_check"],
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
