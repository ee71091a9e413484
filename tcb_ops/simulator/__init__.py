"""A look-alike of the WeChat platform and of COS, on loopback: for tests, for rehearsals, for the demo."""

from tcb_ops.simulator.accounts import Component, EnvStatus, SimulatedAccount, SimulatedEnvironment
from tcb_ops.simulator.expected import expected_outcomes
from tcb_ops.simulator.fault_plan import load_faults
from tcb_ops.simulator.faults import Etag, Fault, Faults, FaultStep, Reset
from tcb_ops.simulator.server import Simulator, opened_target, serve
from tcb_ops.simulator.state import Call, StoredObject

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
    "Simulator",
    "StoredObject",
    "expected_outcomes",
    "load_faults",
    "opened_target",
    "serve",
]
