"""Files to begin with, and completion in the shell."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    commands={"setup": ["tcb_ops.features.setup.init:init", "tcb_ops.features.setup.completion:completion"]},
    provides={"completion": "tcb_ops.features.setup.completion:answer"},
)
