"""JupyterLab in a real browser: one server and one browser for all tests, and one page for most.

Without a browser these tests are skipped, and a loud message says so at the end; with TCB_OPS_NEED_BROWSER=1 a missing
browser is a failure. Screenshots are kept in test-artifacts/.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from jupyter_lab import lab_server, launch, opened_page
from rigged_simulator import Simulator
from workspace import write_csv

from tcb_ops.features.notebooks.parameters import NOTEBOOKS, parameters_of
from tcb_ops.features.notebooks.printing import find_chromium
from tcb_ops.features.simulator.faults import Fault, Faults
from tcb_ops.model import Merchant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jupyter_lab import Opened
    from playwright.sync_api import Browser

    from tcb_ops.run import Run

NEEDED = os.environ.get("TCB_OPS_NEED_BROWSER") == "1"
CHROMIUM = find_chromium()
"""Looked for before the tests are cut off from their environment."""
EXPECTED = (
    "Blocked script execution in 'blob:",  # of a report that JupyterLab shows: the page is complete without
    "Comm not found for comm id",  # of a panel that an earlier page showed: the kernel goes on
)
"""How messages in the page's console begin that are no errors."""
ARTIFACTS = Path(__file__).parents[2] / "test-artifacts"


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
        yield launch(playwright, CHROMIUM)


@dataclass
class Lab:
    """A JupyterLab that was started by `tcb-ops lab`."""

    folder: Path
    base: str
    browser: Browser
    stack: ExitStack
    kept: tuple[Opened, ExitStack] | None = None
    """The page of the test before, in which the next one opens its notebook; what closes it."""

    def workspace(self, rows: int, merchants: int, faults: Iterable[Fault]) -> Workspace:
        """Open a workspace within that of the lab: notebooks whose target is a simulator of this test."""
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
        return Workspace(folder, sim, self)

    @contextmanager
    def opened(
        self, path: str, *, shots: str, view: str = "doc/tree", is_kept: bool = True
    ) -> Iterator[Opened]:
        """Open a notebook; whatever goes wrong in the page is looked at when it closes, and no other test gets that page.

        `is_kept`: the notebook is closed, not the page, whose next notebook is another test's.
        """
        ARTIFACTS.mkdir(exist_ok=True)
        with ExitStack() as page:
            if self.kept is not None and view == "doc/tree":
                found, before = self.kept
                self.kept = None
                page.enter_context(before)
                found.open(path, ARTIFACTS / shots)
            else:
                found = page.enter_context(
                    opened_page(self.browser, self.base, path, shots=ARTIFACTS / shots, view=view)
                )
            try:
                yield found
                found.shot("end")
                assert [error for error in found.errors if not error.startswith(EXPECTED)] == []
            except BaseException:
                found.shot("failed")
                raise
            if is_kept and view == "doc/tree":
                found.close()
                self.kept = found, page.pop_all()


@dataclass
class Workspace:
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
            f"\n{key} = {value!r}" for key, value in given.items() if key in parameters_of(cell.source)
        )
        content.cells += [nbformat.v4.new_code_cell(source) for source in more]
        nbformat.write(content, self.folder / f"{name}.ipynb")
        return f"{self.folder.name}/{name}.ipynb"

    def upload(self) -> Run:
        """Upload the list, as another process than the notebook's kernel does."""
        import tcb_ops as tcb

        settings = tcb.load_settings(self.folder / "tcb-ops.toml")
        return tcb.upload(self.folder / "list.csv", root=self.folder / "files", settings=settings)

    def run(self, kind: str | None = None) -> Run:
        """The latest upload with its retries, the latest run of a kind, or of `any`, as its ledger has it."""
        import tcb_ops as tcb

        options = {"api_base": self.sim.base, "ledger": str(self.folder / "ledger.db")}
        return tcb.open_run(kind=kind, settings=tcb.load_settings(options=options))


@pytest.fixture(scope="module")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("jupyter")
    with ExitStack() as stack:
        base = stack.enter_context(lab_server(home))
        lab = Lab(home / "work", base, browser, stack)
        yield lab
        if lab.kept is not None:
            lab.kept[1].close()


@pytest.fixture
def open_lab_workspace(lab: Lab) -> Callable[..., Workspace]:
    """Open a workspace of so many rows and merchants in that of the lab."""

    def opened(rows: int, faults: Iterable[Fault] = (), *, merchants: int = 3) -> Workspace:
        return lab.workspace(rows, merchants, faults)

    return opened


@pytest.fixture
def voila_shop(browser: Browser, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace of thirty rows without a JupyterLab; one row is refused."""
    if find_spec("voila") is None:
        (pytest.fail if NEEDED else pytest.skip)("voila is not installed")
    with ExitStack() as stack:
        refused = Fault(path="banner/7.png", errcode=40097)
        yield Lab(tmp_path, "", browser, stack).workspace(30, 3, [refused])
