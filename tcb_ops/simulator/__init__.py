"""A look-alike of the WeChat platform and of COS, on loopback: for tests, for rehearsals, for the demo."""

from tcb_ops.simulator.accounts import Account, Component, Environment, EnvStatus
from tcb_ops.simulator.books import Call, Stored
from tcb_ops.simulator.faults import Etag, Fault, Faults, Reset, Step
from tcb_ops.simulator.implied import implied_outcomes
from tcb_ops.simulator.plan import load_faults
from tcb_ops.simulator.serve import Simulator, serve

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
    "implied_outcomes",
    "load_faults",
    "serve",
]
