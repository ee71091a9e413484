"""JupyterLab in a real browser: one server and one browser for all tests, a page for each.

Without a browser these tests are skipped, and that is said loudly at the end; with TCB_OPS_NEED_BROWSER=1 a missing
browser is a failure. Screenshots are kept in test-artifacts/.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from shop import write_csv

from tcb_ops.model import Merchant
from tcb_ops.reports.pdf import find_chromium
from tcb_ops.simulator import Faults, Simulator
from tcb_ops.workspace import NOTEBOOKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Page

    from tcb_ops.run import Run
    from tcb_ops.simulator import Fault

NEEDED = os.environ.get("TCB_OPS_NEED_BROWSER") == "1"
CHROMIUM = find_chromium()
"""Looked for before the tests are cut off from their environment."""
ARTIFACTS = Path(__file__).parents[2] / "test-artifacts"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-dev-shm-usage --disable-background-networking "
    "--disable-component-update --disable-sync --js-flags=--expose-gc --enable-precise-memory-info"
)
NEWS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
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
RUN_ALL = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
AT_REST = """() => {
  const panel = window.jupyterapp.shell.currentWidget;
  const cells = panel.content.widgets.filter(w => w.model.type === 'code');
  return cells.every(w => w.model.executionCount) && panel.sessionContext.session.kernel.status === 'idle';
}"""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = [one for one in terminalreporter.stats.get("skipped", ()) if "tests/browser/" in one.nodeid]
    if skipped:
        terminalreporter.section("NOT TESTED IN A BROWSER", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"{len(skipped)} tests of the notebooks in JupyterLab were skipped: no chromium was found on this machine."
        )
        terminalreporter.line(
            "Install chromium and fonts-noto-cjk, and run the tests again; .ci/run does both."
        )


@pytest.fixture(scope="module")  # playwright's loop runs in this thread: it must end before other tests begin
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        (pytest.fail if NEEDED else pytest.skip)("no chromium was found on this machine")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())


@dataclass
class Lab:
    """A JupyterLab that was started by `tcb-ops lab`."""

    folder: Path
    base: str
    browser: Browser
    log: Path
    stack: ExitStack

    def shop(self, rows: int, merchants: int, faults: Iterable[Fault]) -> Shop:
        """Open a shop within the workspace: notebooks whose target is a simulator of this test."""
        name = f"shop-{len(list(self.folder.glob('shop-*'))) + 1}"
        folder = self.folder / name
        (folder / "files").mkdir(parents=True)
        known = [
            Merchant(f"wx{n:04}", f"第{n:03}号店 & <b>Co</b>", f"shop-{n:04}-1a2b") for n in range(merchants)
        ]
        tokens = {one.appid: f"token-of-{one.appid}" for one in known}
        sim = self.stack.enter_context(Simulator(known, tokens, faults=Faults(tuple(faults)), record=True))
        write_csv(
            folder / "merchants.csv", ("appid", "name", "env"), ((m.appid, m.name, m.env) for m in known)
        )
        write_csv(folder / "tokens.csv", ("appid", "access_token"), tokens.items())
        (folder / "files" / "a.txt").write_text("a", encoding="utf-8")
        listed = ((known[n % merchants].env, f"banner/{n}.png", "a.txt") for n in range(rows))
        write_csv(folder / "list.csv", ("env", "path", "file"), listed)
        lines = (
            f'api_base = "{sim.base}"',
            'merchants = "merchants.csv"',
            'ledger = "ledger.db"',
            "[tokens]",
            'file = "tokens.csv"',
        )
        (folder / "tcb-ops.toml").write_text("\n".join(lines), encoding="utf-8")
        return Shop(folder, sim, self)

    @contextmanager
    def opened(self, path: str, *, shots: str) -> Iterator[Opened]:
        """Open a notebook in a page of its own; whatever goes wrong in the page is looked at when it closes."""
        page = self.browser.new_page(viewport={"width": 1280, "height": 1400})
        found = Opened(page, f"{self.base}/doc/tree/{path}?token=e2e&reset", shots)
        page.on("console", found.heard)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.set_default_timeout(40_000)
        try:
            found.load()
            yield found
            found.shot("end")
            assert found.errors == []
        except BaseException:
            found.shot("failed")
            raise
        finally:
            page.close()


@dataclass
class Shop:
    folder: Path
    sim: Simulator
    lab: Lab

    @property
    def links(self) -> int:
        """Links asked for so far."""
        return int(self.sim.stats["link_calls"])

    def notebook(self, name: str, *more: str, **parameters: str) -> str:
        """Put one of our notebooks here, live, with these parameters and cells behind the last; gives its path."""
        content = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
        cell = next(cell for cell in content.cells if "parameters" in cell.metadata.get("tags", ()))
        given = {"target": "live", "root": "files", "paths": "list.csv"} | parameters
        cell.source += "".join(
            f"\n{key} = {value!r}" for key, value in given.items() if f"\n{key} = " in cell.source
        )
        content.cells += [nbformat.v4.new_code_cell(source) for source in more]
        nbformat.write(content, self.folder / f"{name}.ipynb")
        return f"{self.folder.name}/{name}.ipynb"

    def run(self) -> Run:
        """The latest run, as its ledger has it."""
        import tcb_ops as tcb

        options = {"api_base": self.sim.base, "ledger": str(self.folder / "ledger.db")}
        return tcb.open_run(settings=tcb.load_settings(options=options))


@dataclass
class Opened:
    """A notebook in the browser."""

    page: Page
    address: str
    shots: str
    errors: list[str] = field(default_factory=list)

    def heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def load(self) -> None:
        self.page.goto(self.address)
        self.page.evaluate(READY)

    def run_all(self) -> None:
        """Run all cells, and wait for the panel."""
        self.page.evaluate(RUN_ALL)
        self.page.wait_for_selector(".op-panel .op-status")

    def at_rest(self) -> None:
        """Wait until every cell has been run."""
        self.page.wait_for_function(AT_REST)

    def restart_and_run_all(self) -> None:
        self.page.click("[data-jp-item-name='restart-and-run'] button, [data-jp-item-name='restart-and-run']")
        self.page.click(".jp-Dialog button.jp-mod-accept")

    def click(self, button: str) -> None:
        """Click a panel's button as soon as it may be pressed."""
        self.page.click(f".op-panel {button}:not([disabled])")

    def text(self, selector: str) -> str:
        return self.page.inner_text(f".op-panel {selector}")

    def until(self, expression: str, argument: Any = None) -> None:
        """Wait for something in the page: a JavaScript expression."""
        self.page.wait_for_function(expression, arg=argument)

    def shot(self, name: str) -> None:
        """Keep a screenshot: of the whole panel, where there is one."""
        ARTIFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{self.shots}-{name}.png")

    def violations(self) -> list[str]:
        """What axe finds in the panel and the results."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page, context=".op-panel").response["violations"]
        return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


@pytest.fixture(scope="module")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("jupyter")
    settings = home / "settings" / f"{NEWS}"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = (
        *(
            "lab",
            "work",
            "--no-browser",
            "--",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}",
        ),
        *("--ServerApp.port_retries=0", "--IdentityProvider.token=e2e", "--expose-app-in-browser"),
        "--LanguageServerManager.autodetect=False",
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")} | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
    }
    log = home / "lab.log"
    with ExitStack() as stack:
        said = stack.enter_context(log.open("wb"))
        server = subprocess.Popen(
            [sys.executable, "-m", "tcb_ops", *words], cwd=home, env=env, stdout=said, stderr=said
        )
        try:
            base = f"http://127.0.0.1:{port}"
            _wait_for(f"{base}/api?token=e2e", server, log)
            yield Lab(home / "work", base, browser, log, stack)
        finally:
            server.terminate()
            server.wait(20)


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310  loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")


@pytest.fixture
def open_lab_shop(lab: Lab) -> Callable[..., Shop]:
    """Open a shop of so many rows and merchants in the lab's workspace."""

    def opened(rows: int, faults: Iterable[Fault] = (), *, merchants: int = 3) -> Shop:
        return lab.shop(rows, merchants, faults)

    return opened
