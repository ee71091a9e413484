"""Corrected lists: which run a fix-me file or failed.csv corrects."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "corrected_run": "tcb_ops.features.corrections.recognition:corrected_run",
        "corrected_spec": "tcb_ops.features.corrections.recognition:corrected_spec",
    },
)
