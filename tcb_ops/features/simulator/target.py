"""The embedded simulator as the target of a run."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tcb_ops.features.simulator.faults import Component, Faults, load_faults
from tcb_ops.features.simulator.server import COMPONENT_APPID, Simulator
from tcb_ops.model import Merchant
from tcb_ops.settings import Settings


@contextmanager
def embedded(settings: Settings, merchants: Callable[[], Iterable[Merchant]]) -> Iterator[Settings]:
    """Start the simulator on a free port; yield the settings for it. `merchants`: called for those that it serves."""
    served, rehearsal = list(merchants()), settings.section("simulator")
    faults = load_faults(rehearsal.faults) if rehearsal.faults is not None else Faults()
    component = settings.tokens.component_appid or COMPONENT_APPID
    appids = dict.fromkeys([*(merchant.appid for merchant in served), component])
    tokens = {appid: secrets.token_hex(24) for appid in appids}
    platform = Component(component, secret=secrets.token_hex(16), ticket=secrets.token_hex(16))
    faults = replace(faults, component=platform)
    with (
        tempfile.TemporaryDirectory(prefix="tcb-ops-simulator-") as folder,
        Simulator(served, tokens, faults=faults, store=rehearsal.store) as simulator,
    ):
        file = Path(folder) / "tokens.csv"
        file.touch(mode=0o600)
        lines = ("appid,access_token", *map(",".join, tokens.items()))
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        own = replace(settings.tokens, source="file", file=file, component_appid=component)
        yield replace(settings, api_base=simulator.base, tokens=own)
