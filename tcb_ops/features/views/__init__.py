"""Some rows of a run, and a run merged with its retries, in every report and table."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "merged_run": "tcb_ops.features.views.run_view:merged_run",
        "run_view": "tcb_ops.features.views.run_view:RunView",
    },
)
