"""The merchants file against the platform: who has authorized it, and who can be served."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    commands={"setup": ["tcb_ops.features.merchants.command:merchants"]},
    provides={"short_of_calls": "tcb_ops.features.merchants.check:warn_of_few_calls"},
    needs=["diagnosis", "single_calls"],
)
