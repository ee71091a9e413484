"""Why rows did not succeed: ask WeChat about a sample of each cause, and say who must act."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    commands={"inspect": ["tcb_ops.features.why.command:why"]},
    provides={"Run.why": "tcb_ops.features.why.api:why"},
)
