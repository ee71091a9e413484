"""A toy feature: whether the environments of a list are open. CONTRIBUTING.md explains it."""

from tcb_ops.hooks import Feature
from tcb_ops.i18n import verbatim
from tcb_ops.model import Outcome

OPEN = Outcome.define("open", verbatim("open"), 40, succeeded=True)
SHUT = Outcome.define("shut", verbatim("shut"), 41, retried=True)
FEATURE = Feature(
    kinds={"look": f"{__name__}.kind:LOOK"},
    commands={"run": {f"{__name__}.command:look": "Look whether the environments of a list are open."}},
    public=[f"{__name__}.command:start_look"],
)
