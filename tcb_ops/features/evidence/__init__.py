"""What happened: what changed from one run to a later one, codes by day, and whether a report is as it was written."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    commands={
        "inspect": ["tcb_ops.features.evidence.command:diff", "tcb_ops.features.evidence.command:verify"]
    },
    provides={
        "Run.changes": "tcb_ops.features.evidence.diffs:compare",
        "history": "tcb_ops.features.evidence.history:history",
    },
)
