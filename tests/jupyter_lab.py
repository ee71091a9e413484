"""JupyterLab as started by `tcb-ops lab`, Voila, and their notebooks in a browser, for browser tests and screenshots."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, ViewportSize

T = TypeVar("T")
SIZE: ViewportSize = {"width": 1280, "height": 1400}
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-dev-shm-usage --disable-background-networking "
    "--disable-component-update --disable-sync --js-flags=--expose-gc --enable-precise-memory-info"
)
JUPYTERLAB = (
    ("aria-allowed-attr", "jp-ToolbarButtonComponent"),  # aria-pressed on its toolbar buttons
    ("aria-input-field-name", "cm-content"),  # the editor of a cell has no name
    ("aria-required-children", "jp-WindowedPanel-viewport"),  # a feed whose cells are not articles
    ("button-name", "jp-collapseHeadingButton"),  # it folds what is below a heading
    ("image-alt", "data:image/png"),  # a cell's plot can have no text; the sentence below it says the same
    ("label-title-only", 'title="Name: '),  # the file's name in the title bar
    ("region", "jp-skiplink"),  # its links to parts of the page stand outside landmarks
    ("scrollable-region-focusable", "cm-scroller"),  # the code of a cell that is wider than the page
    ("empty-table-header", "<th></th>"),  # the corner of pandas' tables
)
"""Violations of JupyterLab itself: the rule, and what its element contains."""
READY = """async () => {
  while (!window.jupyterapp) await new Promise(r => setTimeout(r, 50));
  const app = window.jupyterapp;
  await app.restored;
  while (!app.shell.currentWidget?.context) await new Promise(r => setTimeout(r, 50));
  const context = app.shell.currentWidget.context;
  await context.ready;
  await context.sessionContext.ready;
  await context.sessionContext.session.kernel.info;
}"""
RUN_ALL = """() => {
  const ran = () => { window.ran = true; };
  window.ran = false;
  window.jupyterapp.commands.execute('notebook:run-all-cells').then(ran, ran);
}"""
CUT = """() => {
  const edge = document.querySelector('.jp-Notebook').getBoundingClientRect().right;
  return [...document.querySelectorAll('.op-panel :is(button, input, select, label, .op-grid)')].filter(control => {
    const box = control.getBoundingClientRect();
    return box.width && (box.right > edge || (control.matches('button, label, .op-grid') && control.scrollWidth > control.clientWidth + 1));
  }).map(control => control.className + ': ' + (control.innerText || control.value));
}"""
DARK = """async dark => {
  await window.jupyterapp.commands.execute('apputils:change-theme', {theme: dark ? 'JupyterLab Dark' : 'JupyterLab Light'});
  while (document.body.dataset.jpThemeLight !== String(!dark)) await new Promise(r => setTimeout(r, 50));
}"""
CLOSE = """async selector => {
  const shell = window.jupyterapp.shell;
  while (!shell.currentWidget?.node.querySelector(selector)) await new Promise(r => setTimeout(r, 50));
  shell.currentWidget.close();
}"""
"""Closes what has such an element, once it is the current one."""
CLOSE_ALL = """async () => {
  const opened = [...window.jupyterapp.shell.widgets('main')];
  for (const each of opened) {
    if (each.context) each.context.model.dirty = false;  // it would ask whether to save
    each.close();
  }
  while (opened.some(each => !each.isDisposed)) await new Promise(r => setTimeout(r, 50));
}"""
OPEN = "path => window.jupyterapp.commands.execute('docmanager:open', {path}).then(() => null)"
AT_REST = """() => {
  const panel = window.jupyterapp.shell.currentWidget;
  const cells = panel.content.widgets.filter(w => w.model.type === 'code');
  const idle = panel.sessionContext.session.kernel.status === 'idle';
  return window.ran !== false && idle && cells.every(w => w.model.executionCount);
}"""
"""Not by the counts alone: those of an earlier run stay until the cells are sent again."""


def launch(playwright: Playwright, chromium: str) -> Browser:
    """Start a browser without background network access that can report its memory."""
    return playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())


@contextmanager
def lab_server(home: Path) -> Iterator[str]:
    """Run `tcb-ops lab work` in a folder, isolated from this machine's Jupyter; yield its address."""
    port = free_port()
    words = (
        *(
            "lab",
            "work",
            "--no-browser",
            "--lang=en",
            "--",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}",
        ),
        *(
            "--ServerApp.port_retries=0",
            "--ServerApp.base_url=/ops/",
            "--IdentityProvider.token=e2e",
            "--expose-app-in-browser",
        ),
        "--LanguageServerManager.autodetect=False",
        "--JupyterNotebookApp.expose_app_in_browser=True",
    )
    base = f"http://127.0.0.1:{port}/ops"
    with _served(("tcb_ops", *words), home, home, f"{base}/api?token=e2e"):
        yield base


@contextmanager
def voila_server(notebook: Path, home: Path) -> Iterator[str]:
    """Show a notebook with Voila as the documentation says, isolated from this machine's Jupyter; yield its address."""
    port = free_port()
    words = ("voila", notebook.name, "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1")
    base = f"http://127.0.0.1:{port}/ops"
    words += ("--Voila.base_url=/ops/",)
    allowed = "--VoilaConfiguration.file_allowlist=['reports/.*']"
    with _served((*words, allowed), notebook.parent, home, f"{base}/voila/static/voila.js"):
        yield base


@contextmanager
def _served(words: tuple[str, ...], folder: Path, home: Path, ready: str) -> Iterator[None]:
    """Run a module of Python that serves, with its files in `home`, until its address `ready` answers."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")} | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
    }
    log = home / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=folder, env=env, stdout=output, stderr=output
        )
        try:
            _wait_for(ready, server, log)
            yield
        finally:
            server.terminate()
            server.wait(240)


@dataclass
class Opened:
    """A notebook in the browser."""

    page: Page
    address: str
    shots: Path
    """The prefix of screenshot files."""
    errors: list[str] = field(default_factory=list)

    def heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def load(self) -> None:
        self.page.goto(self.address)
        self.page.evaluate(READY)

    def close(self) -> None:
        """Close the notebook, and leave the page; its kernel goes on."""
        self.page.evaluate(CLOSE_ALL)
        self.page.set_viewport_size(SIZE)

    def open(self, path: str, shots: Path) -> None:
        """Open another notebook in the same page, as from the file browser: loading JupyterLab takes five times as long."""
        self.shots = shots
        self.errors.clear()
        self.page.evaluate(OPEN, path)
        self.page.evaluate(READY)

    def run_all(self) -> None:
        """Run all cells, and wait for the panel."""
        self.page.evaluate(RUN_ALL)
        self.page.wait_for_selector(".op-panel .op-status", state="attached")  # shown only with a message

    def at_rest(self) -> None:
        """Wait until every cell has been run."""
        self.page.wait_for_function(AT_REST)

    def restart_and_run_all(self) -> None:
        self.page.click("[data-jp-item-name='restart-and-run'] button, [data-jp-item-name='restart-and-run']")
        self.page.click(".jp-Dialog button.jp-mod-accept")

    def click(self, button: str) -> None:
        """Click a panel's button as soon as it is enabled."""
        self.page.click(f".op-panel {button}:not([disabled])")

    def text(self, selector: str) -> str:
        return self.page.inner_text(f".op-panel {selector}")

    def until(self, expression: str, argument: Any = None) -> None:
        """Wait until a JavaScript expression is true in the page."""
        self.page.wait_for_function(expression, arg=argument)

    def settled(self, read: Callable[[], T], wanted: T) -> T:
        """Read again until it is what is wanted; return that, or what it still is after a while: for an assertion.

        What follows a change of size, theme, filter or run is not there at once.
        """
        end = time.monotonic() + 30
        while (now := read()) != wanted and time.monotonic() < end:
            self.page.wait_for_timeout(100)
        return now

    def open_files(self, *, downloaded: set[str], text: str) -> list[str]:
        """Click a file link of each kind: the page runs its scripts and has this text, files of these endings are downloaded; return the names."""
        links = self.page.locator(".op-panel .op-files a")
        links.first.wait_for()
        small = {"width": 1280, "height": 600}  # a CSV is drawn in a fraction of the time
        names = links.all_inner_texts()
        self.page.set_viewport_size(small)
        links.first.evaluate("link => link.scrollIntoView()")  # long cells above may push it out
        kinds = {(name.rpartition(".")[2], name.isascii()): name for name in names}
        for (ending, _is_ascii), name in kinds.items():
            link = links.get_by_text(name, exact=True)
            if ending in downloaded:
                with self.page.expect_download() as download:
                    link.click()
                assert download.value.suggested_filename == name
                continue
            if ending == "csv" and "/doc/" in self.page.url:  # opens beside the notebook
                link.click()
                self.page.locator(".jp-CSVViewer").wait_for()
                self.page.evaluate(CLOSE, ".jp-CSVViewer")
                continue
            with self.page.expect_popup() as opened:
                link.click()
            opened.value.set_viewport_size(small)
            selector = {"csv": ".jp-CSVViewer", "html": ".find:visible"}.get(ending, "body")
            opened.value.locator(selector).wait_for(timeout=240_000)
            if name == "report.html":
                opened.value.get_by_text(text).first.wait_for()
            opened.value.close()
        return names

    def shot(self, name: str) -> None:
        """Save a screenshot."""
        self.page.screenshot(path=f"{self.shots}-{name}.png")

    def cut(self, width: int) -> list[str]:
        """Return the panel's controls that are cut off or off-screen in a window of the given width in pixels."""
        self.page.set_viewport_size({"width": width, "height": 1400})
        self.until(
            "wide => document.querySelector('.jp-Notebook').getBoundingClientRect().right <= wide", width
        )
        return self.settled(lambda: self.page.evaluate(CUT), [])

    def theme(self, *, dark: bool) -> None:
        """Change JupyterLab's theme."""
        self.page.evaluate(DARK, dark)

    def violations(self, context: Any = ".op-panel", options: Any = None) -> list[str]:
        """Return the accessibility violations that axe finds in the panel, or in another part of the page, and still finds later."""
        return self.settled(lambda: self._violations(context, options), [])

    def _violations(self, context: Any, options: Any) -> list[str]:
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page, context=context, options=options).response["violations"]
        return [
            f"{one['id']}: {node['html'][:200]}"
            for one in found
            for node in one["nodes"]
            if not any(one["id"] == rule and part in node["html"] for rule, part in JUPYTERLAB)
        ]


@contextmanager
def opened_page(
    browser: Browser, base: str, path: str, *, shots: Path, height: int = 1400, view: str = "doc/tree"
) -> Iterator[Opened]:
    """Open a notebook in a new page; errors in the page are in `errors`.

    `view`: doc/tree for JupyterLab, notebooks for Notebook 7.
    """
    page = browser.new_page(viewport={**SIZE, "height": height})
    found = Opened(page, f"{base}/{view}/{path}?token=e2e&reset", shots)
    page.on("console", found.heard)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.set_default_timeout(240_000)
    try:
        found.load()
        yield found
    finally:
        page.close()


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310  loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(
        f"The server did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}"
    )
