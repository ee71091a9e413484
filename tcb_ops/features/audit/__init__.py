"""Whether each environment works: audits, what changed since the one before, and messages about it."""

from tcb_ops.kinds import Feature

FEATURE = Feature(kinds={"audit": "tcb_ops.runs.audit_kind:AUDIT"})
