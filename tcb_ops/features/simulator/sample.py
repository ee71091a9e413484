"""The sample (merchants, lists, files, a fault plan) and its simulator, for the demo, notebooks and practice."""

from __future__ import annotations

import atexit
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import tcb_ops
from tcb_ops.errors import UsageError
from tcb_ops.features.simulator import Simulator, load_faults, write_tokens
from tcb_ops.i18n import Lang
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import SIMULATOR
from tcb_ops.settings import LEDGER_FILE, Settings, load_settings


def bundled(inside: str, beside: str) -> Path:
    """Return a folder of bundled files: in the installed package, or beside it in a checkout."""
    package = Path(tcb_ops.__file__).parent
    return package / inside if (package / inside).is_dir() else package.parent / beside


SAMPLE = bundled("data", "data")
MERCHANTS = SAMPLE / "merchants.csv"
PATHS = SAMPLE / "paths.csv"
FILES = SAMPLE / "files"
FAULTS = SAMPLE / "faults.toml"
ANALYSIS = SAMPLE / "analysis.db"
"""The ledger of 30 days, made by tests/analysis_ledger.py."""


@contextmanager
def sample_simulator(
    folder: Path, *, lang: str | None = None, port: int = 0
) -> Iterator[tuple[Settings, Simulator]]:
    """Run the simulator with the sample's merchants and faults; the ledger and generated tokens are in `folder`.

    Yields its settings and the simulator. Raises UsageError if `port` is in use.
    """
    merchants, faults = read_merchants(MERCHANTS), load_faults(FAULTS)
    tokens = {merchant.appid: secrets.token_hex(24) for merchant in merchants}
    file = folder / "tokens.csv"
    write_tokens(file, tokens)
    with Simulator(list(merchants), tokens, faults=faults, port=port) as simulator:
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

    Its ledger is deleted when the process ends. In JupyterLab it is kept while the server runs, and the simulator restarts
    on the same port, so that a run can be resumed after a restart of the kernel.
    """
    global _practice  # noqa: PLW0603  one simulator per process
    with _lock:
        if _practice is None:
            folder = _kept_folder()
            stack = ExitStack()
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tcb-ops-practice-")))
            _practice = _start(stack, folder, lang)
            atexit.register(stack.close)
    return replace(_practice, lang=Lang(lang)) if lang else _practice


def in_jupyter_session() -> bool:
    """Return whether a Jupyter server or Voila, not a program, started this kernel: a user sees the notebook."""
    return any(os.environ.get(name) for name in ("JPY_SESSION_NAME", "VOILA_REQUEST_URL"))


def _start(stack: ExitStack, folder: Path, lang: str | None) -> Settings:
    kept = folder / "port"
    port = int(kept.read_text(encoding="ascii")) if kept.exists() else 0
    try:
        settings, simulator = stack.enter_context(sample_simulator(folder, lang=lang, port=port))
    except UsageError:  # another program has taken the port
        settings, simulator = stack.enter_context(sample_simulator(folder, lang=lang))
    kept.write_text(str(simulator.port), encoding="ascii")
    return settings


def _kept_folder() -> Path | None:
    """Return a folder for this notebook that is kept while its JupyterLab runs; None outside JupyterLab."""
    server, notebook = os.environ.get("JPY_PARENT_PID", ""), os.environ.get("JPY_SESSION_NAME", "")
    if not notebook or not server.isdecimal() or os.name != "posix":
        return None
    top = Path(tempfile.gettempdir()) / f"tcb-ops-practice-{os.getuid()}"
    try:
        top.mkdir(mode=0o700, exist_ok=True)
        if top.stat().st_uid != os.getuid() or top.is_symlink():
            return None
        for old in top.iterdir():
            if not _alive(old.name.partition("-")[0]):
                shutil.rmtree(old, ignore_errors=True)
        folder = top / f"{server}-{hashlib.sha256(notebook.encode()).hexdigest()[:12]}"
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder


def _alive(server: str) -> bool:
    if not server.isdecimal():
        return True  # not created by tcb-ops: leave it
    with suppress(PermissionError):
        try:
            os.kill(int(server), 0)
        except ProcessLookupError:
            return False
    return True


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
