"""Whether merchants and their rows can succeed, and who must act: audits, why rows failed, the merchants file, doctor."""

from __future__ import annotations

from enum import unique
from typing import TYPE_CHECKING, Any

from tcb_ops.details import DetailCodes
from tcb_ops.hooks import AuditHooks, DiagnosisHooks, Feature, lazily
from tcb_ops.i18n import N_, _
from tcb_ops.model import Outcome, Reason

_ROOM = "tcb_ops.features.health"
if TYPE_CHECKING:
    from tcb_ops.features.health import actions as _actions
    from tcb_ops.features.health import audit as _audit
    from tcb_ops.features.health import audit_command as _audit_command
    from tcb_ops.features.health import merchants as _merchants
    from tcb_ops.features.health import notifications as _notifications
    from tcb_ops.features.health import panel as _panel
    from tcb_ops.features.health import verdicts as _verdicts
    from tcb_ops.features.health import why as _why
    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.run import Run, RunHandle
else:
    _actions, _audit, _audit_command, _merchants, _notifications, _panel, _verdicts, _why = lazily(
        __name__,
        *("actions", "audit", "audit_command", "merchants", "notifications", "panel", "verdicts", "why"),
    )


def _start_audit(merchants: Merchants, **options: Any) -> RunHandle:
    return _audit.start_audit(merchants, **options)


def _ask_why(run: Run, every: bool) -> Any:
    return _why.why(run, every=every)


FEATURE = Feature(
    kinds={"audit": f"{_ROOM}.audit_kind:AUDIT"},
    settings={
        "audit": f"{_ROOM}.settings:AuditSettings",
        "notify": f"{_ROOM}.settings:NotifySettings",
    },
    commands={
        "health": {
            "tcb_ops.features.health.next_command:next_": N_("Say what to do now, the most urgent first."),
            "tcb_ops.features.health.audit_command:audit": N_(
                "Check whether each environment is healthy, and if not, why."
            ),
            "tcb_ops.features.health.audit_command:notify": N_(
                "Send an audit's message to every [[notify]] of the settings."
            ),
            "tcb_ops.features.health.why_command:why": N_(
                "Ask WeChat why rows did not succeed, and say who must act."
            ),
            "tcb_ops.features.health.fix_command:fix": N_(
                "Do what can be done about the causes of a run, and run its rows again."
            ),
            "tcb_ops.features.health.why_command:explain": N_("Explain what a code means and what to do."),
            "tcb_ops.features.health.call_command:call": N_(
                "Call an interface of the platform with a merchant's token."
            ),
        },
        "setup": {
            "tcb_ops.features.health.doctor_command:doctor": N_(
                "Check machine, files, tokens and target; suggest fixes."
            ),
            "tcb_ops.features.health.merchants_command:merchants": N_(
                "Keep the merchants file; check which merchants are ready."
            ),
        },
    },
    public=[
        "tcb_ops.features.health.audit:audit",
        "tcb_ops.features.health.audit:start_audit",
        "tcb_ops.features.health.codes:explain",
        "tcb_ops.features.health.merchants:check_merchants",
        "tcb_ops.features.health.next_steps:next_steps",
        "tcb_ops.features.health.notifications:notify",
    ],
    reasons="features/health/reasons.csv",
    hooks=[
        AuditHooks(
            announce=_audit_command.announce,
            panel=_panel.AuditPanel,
            result=_audit.audited,
            start=_start_audit,
            watch=_audit_command.watch_audits,
        ),
        DiagnosisHooks(
            kept=_verdicts.kept_verdicts,
            presumed=_verdicts.presumed_verdict,
            remedies=_panel.RemedyMenu,
            remedy=_actions.remedy_text,
            warn_of_few_calls=_merchants.warn_of_few_calls,
            why=_ask_why,
            why_code=_why.why_code,
            write_actions=_actions.write_actions,
        ),
    ],
    checks=[_notifications.receivers_check],
)

HEALTHY = Outcome.define("healthy", _("healthy"), 3, succeeded=True)
UNHEALTHY = Outcome.define("unhealthy", _("unhealthy"), 23, retried=True)

NOT_ASKED = Reason.define("not_asked", explained=True)
"""A problem that affects every merchant stopped the audit first; it is in the row's detail."""
HALTED = Reason.define("halted", of_environment=True)
"""The environment's status in getenvinfo."""
UNAVAILABLE = Reason.define("unavailable", explained=True, of_environment=True)
"""Any other status than NORMAL; in the row's detail."""
NO_ENV = Reason.define("no_env", of_environment=True)
"""Its account has opened CloudBase and has no environment."""

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
