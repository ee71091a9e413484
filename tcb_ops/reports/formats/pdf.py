"""report.pdf: the page, printed by a Chromium on this machine. Without one there is no PDF, which is not an error."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from tcb_ops.i18n import Text, _
from tcb_ops.resources import system_reason

CHROMIUM = "TCB_OPS_CHROMIUM"
"""The environment variable that names the browser; empty for none."""
_NAMES = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge",
)  # fmt: skip


def find_chromium() -> str | None:
    """Find a Chromium: the one that TCB_OPS_CHROMIUM names (empty: none), else the first in PATH."""
    named = os.environ.get(CHROMIUM)
    if named is not None:
        return shutil.which(named) if named else None
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def write_pdf(page: Path, pdf: Path, chromium: str | None = None, *, timeout: float = 60) -> Text | None:
    """Print a page to `pdf`; return None, or why it failed. A failure leaves no file.

    `chromium`: the program; None to search for it. `timeout` is in seconds. Nothing is loaded from the network.
    """
    program = chromium or find_chromium()
    if program is None:
        return not_written(_("no Chromium was found"))
    why: Text | None = None
    with tempfile.TemporaryDirectory(prefix="tcb-ops-pdf-", ignore_cleanup_errors=True) as folder:
        made = Path(folder) / "report.pdf"
        try:
            done = subprocess.run(  # noqa: S603  the operator's own browser, no shell
                _command(program, page, made, Path(folder)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=timeout,
                check=False,
                env=_environment(folder),
            )
            if not _is_pdf(made):
                text = _("{name} ended with code {returncode} without writing one")
                why = not_written(text.format(name=Path(program).name, returncode=done.returncode))
            else:
                shutil.copyfile(made, pdf)
        except subprocess.TimeoutExpired:
            why = not_written(_("it took longer than {timeout:g} seconds", timeout=timeout))
        except OSError as error:
            why = not_written(system_reason(error))
    if why is not None:
        with suppress(OSError):
            pdf.unlink(missing_ok=True)
    return why


def _command(program: str, page: Path, made: Path, folder: Path) -> list[str]:
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [
        program,
        "--headless",
        *(["--no-sandbox"] if as_root else []),  # Chromium's sandbox refuses to run as root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-extensions",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # the page loads nothing, and neither may the browser itself
        f"--user-data-dir={folder}/profile",
        "--no-pdf-header-footer",
        f"--print-to-pdf={made}",
        page.resolve().as_uri(),
    ]


def _environment(folder: str) -> dict[str, str]:
    """Return the environment for the browser: a home of its own, and no TCB_OPS_ variables, which may hold secrets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
    return kept | {"HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder}


def _is_pdf(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(5) == b"%PDF-"
    except OSError:
        return False


def not_written(why: Text) -> Text:
    """Return the warning that there is no report.pdf, and why."""
    return _(
        "report.pdf was not written: {why}. report.html has the same, and prints from any browser.", why=why
    )
