"""A simulator of the WeChat platform and of COS on loopback, for tests, practice and the demo."""

from tcb_ops.simulator.expected import expected_outcomes
from tcb_ops.simulator.faults import (
    Component,
    EnvStatus,
    Etag,
    Fault,
    Faults,
    FaultStep,
    Reset,
    SimulatedAccount,
    SimulatedEnvironment,
    load_faults,
)
from tcb_ops.simulator.server import Simulator, opened_target, serve
from tcb_ops.simulator.state import Call, SimulatedObject

__all__ = [
    "Call",
    "Component",
    "EnvStatus",
    "Etag",
    "Fault",
    "FaultStep",
    "Faults",
    "Reset",
    "SimulatedAccount",
    "SimulatedEnvironment",
    "SimulatedObject",
    "Simulator",
    "expected_outcomes",
    "load_faults",
    "opened_target",
    "serve",
]
