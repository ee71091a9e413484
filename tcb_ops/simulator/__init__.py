"""A look-alike of the WeChat platform and of COS, on loopback: for tests, for rehearsals, for the demo."""

from tcb_ops.simulator.accounts import Account, Component, Environment, EnvStatus
from tcb_ops.simulator.expected import expected_outcomes
from tcb_ops.simulator.fault_plan import load_faults
from tcb_ops.simulator.faults import Etag, Fault, Faults, Reset, Step
from tcb_ops.simulator.server import Simulator, serve
from tcb_ops.simulator.state import Call, Stored

__all__ = [
    "Account",
    "Call",
    "Component",
    "EnvStatus",
    "Environment",
    "Etag",
    "Fault",
    "Faults",
    "Reset",
    "Simulator",
    "Step",
    "Stored",
    "expected_outcomes",
    "load_faults",
    "serve",
]
