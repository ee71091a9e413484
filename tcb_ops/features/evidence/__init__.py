"""Whether a report is as it was written."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    commands={"inspect": ["tcb_ops.features.evidence.command:verify"]},
    provides={"history": "tcb_ops.features.evidence.history:history"},
)
