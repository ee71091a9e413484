"""The embedded simulator that notebooks practise on."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

from tcb_ops.errors import UsageError
from tcb_ops.i18n import Lang
from tcb_ops.sample import rehearsal
from tcb_ops.settings import Settings

_lock = threading.Lock()
_practice: Settings | None = None


def practice(lang: str | None = None) -> Settings:
    """Start the embedded simulator with the sample's merchants, for as long as this process lives; one a process.

    Returns the settings that lead to it. Its ledger goes with the process; in JupyterLab it stays as long as the server,
    and the simulator comes back on the same port, so that a run that a restarted kernel cut off can be resumed.
    """
    global _practice  # noqa: PLW0603  one simulator a process
    with _lock:
        if _practice is None:
            folder = _kept_folder()
            stack = ExitStack()
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tcb-ops-practice-")))
            _practice = _start(stack, folder, lang)
            atexit.register(stack.close)
    return _practice.model_copy(update={"lang": Lang(lang)}) if lang else _practice


def in_jupyter_session() -> bool:
    """Whether somebody sits before the notebook: its kernel was started by a Jupyter server, not by a program."""
    return bool(os.environ.get("JPY_SESSION_NAME"))


def _start(stack: ExitStack, folder: Path, lang: str | None) -> Settings:
    kept = folder / "port"
    port = int(kept.read_text(encoding="ascii")) if kept.exists() else 0
    try:
        settings, simulator, _ = stack.enter_context(rehearsal(folder, lang=lang, port=port))
    except UsageError:  # somebody else has the port by now
        settings, simulator, _ = stack.enter_context(rehearsal(folder, lang=lang))
    kept.write_text(str(simulator.port), encoding="ascii")
    return settings


def _kept_folder() -> Path | None:
    """The folder that outlives this kernel: of this notebook, while its JupyterLab runs. None elsewhere."""
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
        return True  # not ours to clear away
    with suppress(PermissionError):
        try:
            os.kill(int(server), 0)
        except ProcessLookupError:
            return False
    return True
