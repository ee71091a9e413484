"""The target of a command: the platform, or the embedded simulator, which is started for it."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tcb_ops.model import Merchant
from tcb_ops.settings import NOT_STARTED, Settings


@contextmanager
def opened_target(settings: Settings, merchants: Callable[[], Iterable[Merchant]]) -> Iterator[Settings]:
    """Start the embedded simulator on a free port if it is the target; yield the settings for it.

    Settings for any other target, or for a running simulator, are yielded unchanged. `merchants`: called for those that the
    embedded simulator serves.
    """
    if not settings.target or settings.api_base != NOT_STARTED:
        yield settings
        return
    # The server loads a web framework, which a live run has no use for.
    from tcb_ops.simulator.faults import Component
    from tcb_ops.simulator.server import COMPONENT_APPID, Simulator

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
        lines = ("appid,access_token", *map(",".join, tokens.items()))
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in lines)
        own = replace(settings.tokens, source="file", file=file, component_appid=component)
        yield replace(settings, api_base=simulator.base, tokens=own)
