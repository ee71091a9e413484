"""Results in a colleague's own workbook, or in a workbook per person."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "split_workbook": "tcb_ops.features.workbooks.annotate:split_workbook",
        "write_into": "tcb_ops.features.workbooks.annotate:write_into",
    },
)
