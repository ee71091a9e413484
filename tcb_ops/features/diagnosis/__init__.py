"""What keeps a merchant or its rows from succeeding: questions to WeChat, the verdict on its answers, and who must act.

And what a check of `doctor` is, for the features that bring one.
"""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "merchant_text": "tcb_ops.features.diagnosis.verdicts:merchant_text",
        "kept_verdicts": "tcb_ops.features.diagnosis.verdicts:kept_verdicts",
    },
)
