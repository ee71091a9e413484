"""A simulator of the WeChat platform and of COS on loopback, for tests, practice and the demo.

The module of a name loads when the name is first used: whoever works on a live target loads no server.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcb_ops.simulator.expected import expected_outcomes as expected_outcomes
    from tcb_ops.simulator.faults import (
        Component as Component,
    )
    from tcb_ops.simulator.faults import (
        EnvStatus as EnvStatus,
    )
    from tcb_ops.simulator.faults import (
        Etag as Etag,
    )
    from tcb_ops.simulator.faults import (
        Fault as Fault,
    )
    from tcb_ops.simulator.faults import (
        Faults as Faults,
    )
    from tcb_ops.simulator.faults import (
        FaultStep as FaultStep,
    )
    from tcb_ops.simulator.faults import (
        Reset as Reset,
    )
    from tcb_ops.simulator.faults import (
        SimulatedAccount as SimulatedAccount,
    )
    from tcb_ops.simulator.faults import (
        SimulatedEnvironment as SimulatedEnvironment,
    )
    from tcb_ops.simulator.faults import (
        load_faults as load_faults,
    )
    from tcb_ops.simulator.server import Simulator as Simulator
    from tcb_ops.simulator.server import serve as serve
    from tcb_ops.simulator.state import Call as Call
    from tcb_ops.simulator.state import SimulatedObject as SimulatedObject
    from tcb_ops.simulator.target import opened_target as opened_target

_PUBLIC = {
    "expected": "expected_outcomes",
    "faults": (
        "Component EnvStatus Etag Fault Faults FaultStep Reset SimulatedAccount SimulatedEnvironment load_faults"
    ),
    "server": "Simulator serve",
    "state": "Call SimulatedObject",
    "target": "opened_target",
}
"""The public names, by the module that has them."""
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  made of the one list


def __getattr__(name: str) -> object:
    """Load a public name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value
