"""Files that are sent from https URLs."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "source_check": "tcb_ops.features.sources.inspector:SourceInspector",
        "source_client": "tcb_ops.features.sources.inspector:source_client",
    },
)
