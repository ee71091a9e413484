"""Whether each environment works: audits, what changed since the one before, and messages about it."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    kinds={"audit": "tcb_ops.features.audit.kind:AUDIT"},
    commands={
        "run": ["tcb_ops.features.audit.command:audit"],
        "inspect": ["tcb_ops.features.audit.command:notify"],
    },
)
