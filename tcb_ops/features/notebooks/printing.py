"""Printing of a report's page by a Chromium on this machine. Without one there is no report.pdf, which is no error."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from tcb_ops.i18n import Text, _
from tcb_ops.reports.formats.html import PDF_MARK
from tcb_ops.system_errors import system_reason

CHROMIUM = "TCB_OPS_CHROMIUM"
"""The environment variable that names the browser; empty for none."""
_BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge",
    "Google Chrome", "Microsoft Edge",
)  # fmt: skip
_BROWSER_FOLDERS = (
    r"${ProgramFiles}\Google\Chrome\Application", r"${ProgramFiles(x86)}\Microsoft\Edge\Application",
    r"${ProgramFiles}\Microsoft\Edge\Application", r"${LocalAppData}\Google\Chrome\Application",
    "/Applications/Google Chrome.app/Contents/MacOS", "/Applications/Microsoft Edge.app/Contents/MacOS",
)  # fmt: skip
"""Where Windows and macOS install browsers, which are not in PATH there."""


def add_pdf(page: Path, pdf: Path) -> Text | None:
    """Print a page to `pdf` and link to it from the page; return None, or why there is none, or why it lacks Chinese."""
    if (failed := write_pdf(page, pdf)) is not None:
        return failed
    html = page.read_text(encoding="utf-8").replace(PDF_MARK, ' · <a href="report.pdf">report.pdf</a>', 1)
    page.write_text(html, encoding="utf-8", newline="\n")
    if has_chinese_font():
        return None
    return _(
        "report.pdf has squares instead of Chinese: no font of this machine has it. Install one, such as the package "
        "fonts-noto-cjk, and export the report again."
    )


def has_chinese_font() -> bool:
    """Return whether a font has Chinese, by fontconfig; True without it, as on Windows and macOS, which bring such fonts."""
    if (program := shutil.which("fc-list")) is None:
        return True
    try:
        done = subprocess.run([program, ":lang=zh"], capture_output=True, timeout=10, check=True)  # noqa: S603  no shell
    except (OSError, subprocess.SubprocessError):
        return True
    return bool(done.stdout.strip())


def find_chromium() -> str | None:
    """Find a Chromium: the one that TCB_OPS_CHROMIUM names (empty: none), else one in PATH or its usual folder."""
    named = os.environ.get(CHROMIUM)
    names = _BROWSERS if named is None else (named,)
    folders = os.pathsep.join(
        [os.environ.get("PATH", os.defpath), *map(os.path.expandvars, _BROWSER_FOLDERS)]
    )
    return next((program for name in names if name and (program := shutil.which(name, path=folders))), None)


def write_pdf(page: Path, pdf: Path, *, timeout: float = 60) -> Text | None:
    """Print a page to `pdf`, which loads nothing from the network; return None, or why it failed. A failure leaves no file.

    `timeout` is in seconds.
    """
    program = find_chromium()
    reason = _("no Chromium was found")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
    with tempfile.TemporaryDirectory(prefix="tcb-ops-pdf-", ignore_cleanup_errors=True) as folder:
        printed = Path(folder) / "report.pdf"
        try:
            if program is not None:
                done = subprocess.run(  # noqa: S603  the operator's own browser, no shell
                    _command(program, page, printed, Path(folder)),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=timeout,
                    check=False,
                    # A home of its own, and none of our variables, which may hold secrets.
                    env=environment | {"HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder},
                )
                if printed.is_file() and printed.read_bytes().startswith(b"%PDF-"):
                    shutil.copyfile(printed, pdf)
                    return None
                text = _("{name} ended with code {returncode} without writing one")
                reason = text.format(name=Path(program).name, returncode=done.returncode)
        except subprocess.TimeoutExpired:
            reason = _("it took longer than {timeout:g} seconds", timeout=timeout)
        except OSError as error:
            reason = system_reason(error)
    with suppress(OSError):
        pdf.unlink(missing_ok=True)
    text = _("report.pdf was not written: {why}. report.html has the same, and prints from any browser.")
    return text.format(why=reason)


def _command(program: str, page: Path, printed: Path, folder: Path) -> list[str]:
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
        f"--print-to-pdf={printed}",
        page.resolve().as_uri(),
    ]
