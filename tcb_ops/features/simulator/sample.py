"""The sample (merchants, lists, files, a fault plan) and its simulator, for the demo, notebooks and practice."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tcb_ops.bundled import SAMPLE, sample_folder
from tcb_ops.errors import UsageError
from tcb_ops.features.simulator.server import embedded
from tcb_ops.features.simulator.settings import SimulatorSettings
from tcb_ops.i18n import Lang, _, as_list
from tcb_ops.lists.merchants import read_merchants
from tcb_ops.model import SIMULATOR
from tcb_ops.settings import LEDGER_FILE, Settings, read_settings

MERCHANTS = SAMPLE / "merchants.csv"
PATHS = SAMPLE / "paths.csv"
FILES = SAMPLE / "files"
FAULTS = SAMPLE / "faults.toml"
PRACTICE = SAMPLE / "practice"
"""What `init --practice` writes: three of the merchants."""
ANALYSIS = SAMPLE / "analysis.db"
"""The ledger of 30 days, made by tests/analysis_ledger.py."""


@contextmanager
def sample_simulator(
    folder: Path, *, lang: str | None = None, merchants_file: Path = MERCHANTS
) -> Iterator[Settings]:
    """Run the simulator with the sample's merchants and faults; yield its settings, whose ledger is in `folder`."""
    ledger = str(folder / LEDGER_FILE)
    options = {"target": SIMULATOR, "merchants": merchants_file, "ledger": ledger, "lang": lang}
    settings = read_settings(options=options)
    sections = {**settings.sections, "simulator": SimulatorSettings(faults=FAULTS)}
    with embedded(replace(settings, sections=sections), lambda: read_merchants(merchants_file)) as simulated:
        yield simulated


_lock = threading.Lock()
_practices: dict[tuple[Path, bytes], Settings] = {}
"""By the merchants file that the simulator serves, and its content."""


def practice(lang: str | None = None) -> Settings:
    """Start the embedded simulator with the sample's merchants, once per process; return its settings.

    The sample's copy in the working folder is used if there is one; after a change of its merchants, another simulator is
    started. Its ledger is deleted when the process ends.
    """
    file = sample_folder().absolute() / MERCHANTS.name
    served = file, file.read_bytes()
    with _lock:
        if served not in _practices:
            stack = ExitStack()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tcb-ops-practice-")))
            sample = sample_simulator(folder, lang=lang, merchants_file=file)
            _practices[served] = stack.enter_context(sample)
            atexit.register(stack.close)
    settings = _practices[served]
    return replace(settings, lang=Lang(lang)) if lang else settings


def is_practice(settings: Settings) -> bool:
    """Return whether the ledger is that of `practice`, which ends with this process."""
    return any(settings.ledger == each.ledger for each in _practices.values())


def is_sample(settings: Settings) -> bool:
    """Return whether the ledger is a file of the sample, which ends with this process: of `practice`, or of 30 days."""
    return is_practice(settings) or settings.ledger in _copies


def write_practice(folder: Path) -> list[Path]:
    """Make a folder a rehearsal: merchants, a list, its files, tokens, a fault plan, settings; return the new files.

    Raises UsageError if one of them, or the simulator's store, exists already.
    """
    sources = sorted(file for file in PRACTICE.rglob("*") if file.is_file())
    contents = {folder / file.relative_to(PRACTICE): file.read_bytes() for file in sources}
    if existing := [file for file in (*contents, folder / "store") if file.exists()]:
        text = _("{files}: already there, and not overwritten. Nothing was written. Choose an empty folder.")
        raise UsageError(text.format(files=as_list(map(str, existing))))
    for file, content in contents.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)  # tokens are among them
        file.write_bytes(content)
    return list(contents)


_copies = set[str]()
"""The copies of the sample's ledger of 30 days."""


def analysis_settings(ledger: str = "", lang: str | None = None) -> Settings:
    """Return settings that read a ledger, a file or a URL; "" is a copy of the sample's ledger of 30 days.

    The copy lasts as long as this process.
    """
    options: dict[str, object] = {"lang": lang or None}
    if ledger:
        return read_settings(options=options | {"ledger": ledger})
    folder = tempfile.TemporaryDirectory(prefix="tcb-ops-analysis-")
    atexit.register(folder.cleanup)
    copied = shutil.copy(ANALYSIS, folder.name)
    _copies.add(str(copied))
    options |= {"ledger": str(copied), "merchants": MERCHANTS, "timezone": "Asia/Shanghai"}
    return read_settings(options=options | {"target": SIMULATOR})
