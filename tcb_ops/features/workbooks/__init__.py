"""Workbooks: lists in them, report.xlsx, results or problems in a colleague's own one, results in one per person."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "read_workbook": "tcb_ops.features.workbooks.sheets:read_workbook",
        "mark_workbook": "tcb_ops.features.workbooks.annotate:mark_workbook",
        "report.xlsx": "tcb_ops.features.workbooks.report:write_workbook",
        "split_workbook": "tcb_ops.features.workbooks.annotate:split_workbook",
        "write_into": "tcb_ops.features.workbooks.annotate:write_into",
    },
)
