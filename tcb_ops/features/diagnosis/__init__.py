"""What keeps a merchant or its rows from succeeding: questions to WeChat, the verdict on its answers, and who must act.

And what a check of `doctor` is, for the features that bring one.
"""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "presumed_verdict": "tcb_ops.features.diagnosis.verdicts:presumed_verdict",
        "kept_verdicts": "tcb_ops.features.diagnosis.verdicts:kept_verdicts",
    },
    needs=["single_calls"],
)
