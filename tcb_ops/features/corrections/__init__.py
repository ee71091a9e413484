"""Corrected lists: which run a fix-me file or failed.csv corrects, and what is left of a run after corrections and retries."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "corrected_run": "tcb_ops.features.corrections.recognition:corrected_run",
        "corrected_spec": "tcb_ops.features.corrections.recognition:corrected_spec",
        "rest_to_retry": "tcb_ops.features.corrections.rest:rest_to_retry",
    },
)
