"""A simulator of the WeChat platform and of COS on loopback, for tests, practice and the demo.

The module of a name loads when the name is first used: whoever works on a live target loads no server.
"""

# isort: skip_file
# Type checkers read these imports; `_PUBLIC` says the same to Python.
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tcb_ops.kinds import Feature

if TYPE_CHECKING:
    from tcb_ops.features.simulator.faults import Component as Component, EnvStatus as EnvStatus, Etag as Etag
    from tcb_ops.features.simulator.faults import Fault as Fault, Faults as Faults, FaultStep as FaultStep
    from tcb_ops.features.simulator.faults import Reset as Reset, SimulatedAccount as SimulatedAccount
    from tcb_ops.features.simulator.faults import SimulatedEnvironment as SimulatedEnvironment
    from tcb_ops.features.simulator.faults import load_faults as load_faults
    from tcb_ops.features.simulator.server import Simulator as Simulator, serve as serve
    from tcb_ops.features.simulator.state import Call as Call, Request as Request, Response as Response
    from tcb_ops.features.simulator.state import SimulatedObject as SimulatedObject

FEATURE = Feature(
    settings={"simulator": "tcb_ops.features.simulator.settings:SimulatorSettings"},
    commands={
        "notebooks": [
            "tcb_ops.features.simulator.command:simulate",
            "tcb_ops.features.simulator.command:demo",
        ]
    },
    provides={
        "analysis": "tcb_ops.features.simulator.sample:analysis_settings",
        "practice": "tcb_ops.features.simulator.sample:practice",
        "init --practice": "tcb_ops.features.simulator.sample:write_practice",
        "simulator": "tcb_ops.features.simulator.target:embedded",
    },
)
_PUBLIC = {
    "faults": (
        "Component EnvStatus Etag Fault Faults FaultStep Reset SimulatedAccount SimulatedEnvironment load_faults"
    ),
    "server": "Simulator serve",
    "state": "Call Request Response SimulatedObject",
}
"""The public names that load when they are first used, by their module."""
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  made of the one list


def __getattr__(name: str) -> object:
    """Load a public name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value
