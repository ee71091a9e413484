"""Why rows did not succeed: ask WeChat about a sample of each cause, say who must act, and what a code means."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    commands={"health": ["tcb_ops.features.why.command:why", "tcb_ops.features.why.command:explain"]},
    provides={"Run.why": "tcb_ops.features.why.api:why", "why_code": "tcb_ops.features.why.api:why_code"},
    needs=["diagnosis"],
)
