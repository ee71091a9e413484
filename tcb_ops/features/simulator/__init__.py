"""A simulator of the WeChat platform and of COS on loopback, for tests, practice and the demo.

The module of a name loads when the name is first used: whoever works on a live target loads no server.
"""

# isort: skip_file
# One import per module, which isort would split by name.
from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.kinds import Feature
from tcb_ops.model import Merchant
from tcb_ops.settings import NOT_STARTED, Settings

if TYPE_CHECKING:
    from tcb_ops.features.simulator.faults import (
        Component as Component,
        EnvStatus as EnvStatus,
        Etag as Etag,
        Fault as Fault,
        Faults as Faults,
        FaultStep as FaultStep,
        Reset as Reset,
        SimulatedAccount as SimulatedAccount,
        SimulatedEnvironment as SimulatedEnvironment,
        load_faults as load_faults,
    )
    from tcb_ops.features.simulator.server import Simulator as Simulator, serve as serve
    from tcb_ops.features.simulator.state import Call as Call, SimulatedObject as SimulatedObject

FEATURE = Feature(
    commands={
        "notebooks": [
            "tcb_ops.features.simulator.command:simulate",
            "tcb_ops.features.simulator.command:demo",
        ]
    },
)
_PUBLIC = {
    "faults": (
        "Component EnvStatus Etag Fault Faults FaultStep Reset SimulatedAccount SimulatedEnvironment load_faults"
    ),
    "server": "Simulator serve",
    "state": "Call SimulatedObject",
}
"""The public names that load when they are first used, by their module."""
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names.split()}
__all__ = sorted([*_MODULE_OF, "opened_target", "write_tokens"])  # noqa: PLE0605  made of the one list


def __getattr__(name: str) -> object:
    """Load a public name."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value


@contextmanager
def opened_target(settings: Settings, merchants: Callable[[], Iterable[Merchant]]) -> Iterator[Settings]:
    """Start the embedded simulator on a free port if it is the target; yield the settings for it.

    Settings for any other target, or for a running simulator, are yielded unchanged. `merchants`: called for those that the
    embedded simulator serves.
    """
    if not settings.target or settings.api_base != NOT_STARTED:
        yield settings
        return
    from tcb_ops.features.simulator.faults import Component
    from tcb_ops.features.simulator.server import COMPONENT_APPID, Simulator

    served = list(merchants())
    component = settings.tokens.component_appid or COMPONENT_APPID
    appids = dict.fromkeys([*(merchant.appid for merchant in served), component])
    tokens = {appid: secrets.token_hex(24) for appid in appids}
    platform = Component(component, secret=secrets.token_hex(16), ticket=secrets.token_hex(16))
    with (
        tempfile.TemporaryDirectory(prefix="tcb-ops-simulator-") as folder,
        Simulator(served, tokens, component=platform) as simulator,
    ):
        file = Path(folder) / "tokens.csv"
        write_tokens(file, tokens)
        own = replace(settings.tokens, source="file", file=file, component_appid=component)
        yield replace(settings, api_base=simulator.base, tokens=own)


def write_tokens(file: Path, tokens: Mapping[str, str]) -> None:
    """Write a token file, appid → token, that only its owner may read."""
    file.touch(mode=0o600)
    lines = ("appid,access_token", *map(",".join, tokens.items()))
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
