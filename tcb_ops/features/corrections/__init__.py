"""Corrected lists: the fix-me file, and which run such a file or failed.csv corrects."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "write_fixme": "tcb_ops.features.corrections.corrected_lists:write_fixme",
        "corrected_run": "tcb_ops.features.corrections.corrected_lists:corrected_run",
        "corrected_spec": "tcb_ops.features.corrections.corrected_lists:corrected_spec",
    },
)
