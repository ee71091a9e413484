"""The sample (merchants, lists, files, a fault plan) and its simulator, for the demo, notebooks and practice."""

from __future__ import annotations

import atexit
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tcb_ops.features.simulator import Simulator, load_faults
from tcb_ops.features.simulator.target import write_tokens
from tcb_ops.i18n import Lang
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import SIMULATOR
from tcb_ops.resources import SAMPLE
from tcb_ops.settings import LEDGER_FILE, Settings, load_settings

MERCHANTS = SAMPLE / "merchants.csv"
PATHS = SAMPLE / "paths.csv"
FILES = SAMPLE / "files"
FAULTS = SAMPLE / "faults.toml"
ANALYSIS = SAMPLE / "analysis.db"
"""The ledger of 30 days, made by tests/analysis_ledger.py."""


@contextmanager
def sample_simulator(folder: Path, *, lang: str | None = None) -> Iterator[tuple[Settings, Simulator]]:
    """Run the simulator with the sample's merchants and faults; yield its settings and itself.

    The ledger and the generated tokens are in `folder`.
    """
    merchants, faults = read_merchants(MERCHANTS), load_faults(FAULTS)
    tokens = {merchant.appid: secrets.token_hex(24) for merchant in merchants}
    file = folder / "tokens.csv"
    write_tokens(file, tokens)
    with Simulator(list(merchants), tokens, faults=faults) as simulator:
        options = {
            "api_base": simulator.base,
            "merchants": MERCHANTS,
            "ledger": str(folder / LEDGER_FILE),
            "lang": lang,
            "tokens": {"source": "file", "file": file},
        }
        # Runs refer to the embedded simulator, because its port changes.
        yield replace(load_settings(options=options), target=SIMULATOR), simulator


_lock = threading.Lock()
_practice: Settings | None = None


def practice(lang: str | None = None) -> Settings:
    """Start the embedded simulator with the sample's merchants, once per process; return its settings.

    Its ledger is deleted when the process ends.
    """
    global _practice
    with _lock:
        if _practice is None:
            stack = ExitStack()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tcb-ops-practice-")))
            _practice, _simulator = stack.enter_context(sample_simulator(folder, lang=lang))
            atexit.register(stack.close)
    return replace(_practice, lang=Lang(lang)) if lang else _practice


def analysis_settings(ledger: str = "", lang: str | None = None) -> Settings:
    """Return settings that read a ledger, a file or a URL; "" is a copy of the sample's ledger of 30 days.

    The copy lasts as long as this process.
    """
    options: dict[str, object] = {"lang": lang or None}
    if ledger:
        return load_settings(options=options | {"ledger": ledger})
    folder = tempfile.TemporaryDirectory(prefix="tcb-ops-analysis-")
    atexit.register(folder.cleanup)
    copied = shutil.copy(ANALYSIS, folder.name)
    options |= {"ledger": str(copied), "merchants": MERCHANTS, "timezone": "Asia/Shanghai"}
    return load_settings(options=options | {"target": SIMULATOR})
