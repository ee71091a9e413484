"""What changed from one run to a later one."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    commands={"inspect": ["tcb_ops.features.comparison.command:diff"]},
    provides={"Run.changes": "tcb_ops.features.comparison.diffs:compare"},
)
