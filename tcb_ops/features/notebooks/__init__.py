"""The notebooks, interactive and headless; and the printing of a page by a Chromium on this machine, for report.pdf."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    commands={
        "notebooks": ["tcb_ops.features.notebooks.command:notebook", "tcb_ops.features.notebooks.command:lab"]
    },
    provides={
        "chromium": "tcb_ops.features.notebooks.printing:find_chromium",
        "pdf": "tcb_ops.features.notebooks.printing:add_pdf",
    },
    checks=["tcb_ops.features.notebooks.checks:browser_check"],
)
