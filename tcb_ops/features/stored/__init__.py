"""Files that are stored already: confirm, delete, undo and its backup, sync, download links."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    kinds={
        "confirm": "tcb_ops.features.stored.kinds:CONFIRM",
        "delete": "tcb_ops.features.stored.kinds:DELETE",
        "undo": "tcb_ops.features.stored.kinds:UNDO",
    },
    commands={
        "stored": [
            f"tcb_ops.features.stored.command:{name}" for name in ("sync", "confirm", "undo", "delete")
        ]
    },
    upload_calls="tcb_ops.features.stored.checked_upload:checked_upload_calls",
)
