"""The embedded simulator: the target `simulator`, in this process, with the merchants at hand and tokens of its own."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tcb_ops.model import Merchant
from tcb_ops.settings import NOT_STARTED, Settings
from tcb_ops.simulator.accounts import Component
from tcb_ops.simulator.server import Simulator

COMPONENT_APPID = "wxsimulatedplatform"
"""The platform's own appid, where the settings name none."""


@contextmanager
def opened_target(settings: Settings, merchants: Iterable[Merchant]) -> Iterator[Settings]:
    """Start the embedded simulator on a free port where it is the target; give the settings that lead to it.

    Settings of any other target, or of a simulator that is running already, are given as they are.
    """
    if not settings.target or settings.api_base != NOT_STARTED:
        yield settings
        return
    served = list(merchants)
    component = settings.tokens.component_appid or COMPONENT_APPID
    appids = dict.fromkeys([*(merchant.appid for merchant in served), component])
    tokens = {appid: secrets.token_hex(24) for appid in appids}
    platform = Component(component, secret=secrets.token_hex(16), ticket=secrets.token_hex(16))
    with (
        tempfile.TemporaryDirectory(prefix="tcb-ops-simulator-") as folder,
        Simulator(served, tokens, component=platform) as simulator,
    ):
        file = Path(folder) / "tokens.csv"
        lines = ("appid,access_token", *map(",".join, tokens.items()))
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in lines)
        own = settings.tokens.model_copy(
            update={"source": "file", "file": file, "component_appid": component}
        )
        yield settings.model_copy(update={"api_base": simulator.base, "tokens": own})
