"""The token source that refreshes merchants' tokens by itself."""

from tcb_ops.kinds import Feature

FEATURE = Feature(
    provides={"component": "tcb_ops.features.component.source:component_tokens"},
    checks=["tcb_ops.features.component.source:check_of_secrets"],
)
