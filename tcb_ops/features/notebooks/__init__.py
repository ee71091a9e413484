"""The notebooks, interactive and headless; and the printing of a page by a Chromium on this machine, for report.pdf."""

from typing import TYPE_CHECKING

from tcb_ops.hooks import Feature, PdfHooks, lazily
from tcb_ops.i18n import N_

if TYPE_CHECKING:
    from tcb_ops.features.notebooks import checks as _checks
    from tcb_ops.features.notebooks import printing as _printing
else:
    _checks, _printing = lazily(__name__, "checks", "printing")

FEATURE = Feature(
    commands={
        "notebooks": {
            "tcb_ops.features.notebooks.command:notebook": N_(
                "Run a notebook from top to bottom, unattended."
            ),
            "tcb_ops.features.notebooks.command:lab": N_(
                "Copy the notebooks into DIR and open JupyterLab there."
            ),
        },
    },
    hooks=[PdfHooks(add=_printing.add_pdf, find_chromium=_printing.find_chromium)],
    checks=[_checks.browser_check],
)
