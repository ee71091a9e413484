"""Results or problems in a colleague's own workbook, or results in a workbook per person."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "mark_workbook": "tcb_ops.features.workbooks.annotate:mark_workbook",
        "split_workbook": "tcb_ops.features.workbooks.annotate:split_workbook",
        "write_into": "tcb_ops.features.workbooks.annotate:write_into",
    },
)
