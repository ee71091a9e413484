"""Files to begin with, and completion in the shell."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    commands={"setup": ["tcb_ops.features.setup.command:init", "tcb_ops.features.setup.command:completion"]},
    provides={"completion": "tcb_ops.features.setup.command:answer"},
)
