"""What happened: what changed from one run to a later one, codes by day, and whether a report is as it was written."""

from typing import TYPE_CHECKING

from tcb_ops.hooks import ComparisonHooks, Feature, SignatureHooks, lazily
from tcb_ops.i18n import N_

if TYPE_CHECKING:
    from tcb_ops.features.evidence import diffs as _diffs
    from tcb_ops.features.evidence import signature as _signature
else:
    _diffs, _signature = lazily(__name__, "diffs", "signature")

FEATURE = Feature(
    commands={
        "inspect": {
            "tcb_ops.features.evidence.command:diff": N_(
                "Compare two runs: newly broken, fixed, still broken."
            ),
            "tcb_ops.features.evidence.command:verify": N_(
                "Check that a report folder is what was exported."
            ),
        },
    },
    public=[
        "tcb_ops.features.evidence.diffs:Diff",
        "tcb_ops.features.evidence.diffs:diff",
        "tcb_ops.features.evidence.history:History",
        "tcb_ops.features.evidence.history:history",
        "tcb_ops.features.evidence.saved_run:SavedRun",
        "tcb_ops.features.evidence.saved_run:open_report",
        "tcb_ops.features.evidence.verify:verify",
    ],
    hooks=[
        ComparisonHooks(compare=_diffs.compare),
        SignatureHooks(sign=_signature.sign, signed_with=_signature.signed_with),
    ],
)
