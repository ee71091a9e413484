"""Files that are stored already: confirm, delete, undo and its backup, sync, download links."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    kinds={
        "confirm": "tcb_ops.runs.stored_kinds:CONFIRM",
        "delete": "tcb_ops.runs.stored_kinds:DELETE",
        "undo": "tcb_ops.runs.stored_kinds:UNDO",
    },
    upload_calls="tcb_ops.runs.stored_calls:checked_upload_calls",
)
