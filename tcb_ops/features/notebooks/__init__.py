"""The notebooks, interactive and headless."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    commands={
        "notebooks": ["tcb_ops.features.notebooks.command:notebook", "tcb_ops.features.notebooks.command:lab"]
    },
)
