"""report.pdf: a report's page, printed by a Chromium on this machine."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={
        "chromium": "tcb_ops.features.pdf.printing:find_chromium",
        "pdf": "tcb_ops.features.pdf.printing:add_pdf",
    },
    checks=["tcb_ops.features.pdf.checks:browser_check"],
)
