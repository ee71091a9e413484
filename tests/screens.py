"""Make the screenshots of the documentation: each panel after a run with the sample data, and the demo's report.

    python tests/screens.py [--states [NAME ...]]

With `--states`: each notebook in each state, as it is in view, in docs/screens/panels/; only those whose names begin so. Both languages are written to docs/screens/. ImageMagick's `convert` reduces their size. Names of this machine are
replaced before a screenshot is taken.
"""

from __future__ import annotations

import argparse
import csv
import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import nbformat
from jupyter_lab import RUN_ALL, Opened, lab_server, launch, opened_page
from playwright.sync_api import Browser, sync_playwright

from tcb_ops.features.notebooks.parameters import NOTEBOOKS, in_language, notebook_names
from tcb_ops.features.notebooks.printing import find_chromium
from tcb_ops.features.simulator.faults import Fault, Faults
from tcb_ops.features.simulator.server import Simulator
from tcb_ops.i18n import Lang
from tcb_ops.model import Merchant

SCREENS = Path(__file__).parents[1] / "docs" / "screens"
GIVEN = {"paths": "data/paths.csv", "root": "data/files"}
"""Parameters of the notebooks, relative to the working folder."""
TIDY = """names => {
  const replaced = text => names.reduce((left, [here, there]) => left.replaceAll(here, there), text);
  const walker = document.createTreeWalker(document.querySelector('.op-panel'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) walker.currentNode.data = replaced(walker.currentNode.data);
  for (const field of document.querySelectorAll('.op-panel input')) field.value = replaced(field.value);
  for (const field of document.querySelectorAll('.op-panel option')) field.textContent = replaced(field.textContent);
}"""
UNDER_WAY = """() => {
  const bar = document.querySelector('.op-panel progress');
  return bar && bar.value > 0.3 * bar.max;
}"""
LARGEST = 150_000
"""Maximum bytes of a screenshot."""


def prepared(work: Path, name: str, lang: Lang, folder: Path, parameters: dict[str, str]) -> str:
    """Add parameters to a notebook, and put it into a folder of the workspace; return its path there."""
    content = nbformat.read(in_language(NOTEBOOKS / f"{name}.ipynb", lang), 4)
    cell = next(cell for cell in content.cells if "parameters" in cell.metadata.get("tags", ()))
    given = {"lang": str(lang)} | parameters
    for key, value in given.items():  # the comments stay, as they do for an operator
        cell.source = re.sub(rf'^{key} = "[^"]*"', f'{key} = "{value}"', cell.source, flags=re.MULTILINE)
    there = folder / f"{name}-{lang}.ipynb"
    nbformat.write(content, there)
    return str(there.relative_to(work))


PANELS = SCREENS / "panels"
"""Screenshots of each notebook in each state."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A notebook in a state: idle, running, cancelled, finished, or with errors in its list."""

    notebook: str
    state: str
    lang: Lang
    theme: str
    """light or dark."""
    width: int
    merchants: int

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.notebook[:2]}-{self.state}-{self.lang}-{self.theme}-{self.width}-{self.merchants}"


EN, ZH = Lang.EN, Lang.ZH
SHOTS = (
    Shot("01_generate_links", "idle", ZH, "dark", 700, 12),
    Shot("01_generate_links", "running", EN, "light", 1280, 400),
    Shot("01_generate_links", "errors", EN, "light", 1280, 12),
    Shot("02_run_uploads", "idle", EN, "light", 1280, 12),
    Shot("02_run_uploads", "running", ZH, "dark", 1280, 400),
    Shot("02_run_uploads", "cancelled", EN, "light", 700, 12),
    Shot("02_run_uploads", "finished", ZH, "light", 1280, 400),
    Shot("02_run_uploads", "errors", ZH, "dark", 700, 400),
    Shot("03_errcode_audit", "running", EN, "dark", 700, 400),
    Shot("03_errcode_audit", "finished", EN, "light", 1280, 12),
)
"""The states of the notebooks; each width, theme, language and number of merchants is in several."""
NAMES = (
    "云上茶铺",
    "老城面馆",
    "青禾超市",
    "城南书店",
    "海风泳馆",
    "山居民宿",
    "光影摄影",
    "星河影院",
    "小满花坊",
    "街角咖啡",
)


def open_workspace(folder: Path, shot: Shot, stack: ExitStack) -> Simulator:
    """Write the merchants, tokens, list and settings of a shot, and start its simulator."""
    known = [
        Merchant(
            f"wx{n:016x}", NAMES[n % 10] + (f" {n // 10 + 1} 店" if n >= 10 else ""), f"shop-{n:03}-7c1d2e"
        )
        for n in range(shot.merchants)
    ]
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "a.svg").write_text("<svg/>", encoding="utf-8")
    rows = max(240, 2 * shot.merchants)
    listed = [
        (known[n % len(known)].env, f"promo/{'late-' if n >= 100 else ''}{n:04}.svg", "a.svg")
        for n in range(rows)
    ]
    if shot.state == "errors":
        listed[3:6] = [
            ("no-such-env", "a.svg", "a.svg"),
            (known[0].env, "../a.svg", "a.svg"),
            (known[0].env, "", "gone.svg"),
        ]
    tokens = {one.appid: f"token-of-{one.appid}" for one in known}
    for name, lines in (
        ("merchants.csv", [("appid", "name", "env"), *((m.appid, m.name, m.env) for m in known)]),
        ("tokens.csv", [("appid", "access_token"), *tokens.items()]),
        ("list.csv", [("env", "path", "file"), *listed]),
    ):
        with (folder / name).open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows(lines)
    faults = [
        Fault(env="shop-002-*", errcode=85088),
        Fault(env="shop-007-*", errcode=61007),
        Fault(path="*3.svg", env="shop-?0?-*", errcode=40097),
    ]
    if shot.state in {"running", "cancelled"}:
        # What comes later does not end while the screenshot is taken. An audit has no paths, and twelve merchants of it are
        # asked at once.
        slow = [Fault(env="shop-01*", delay=60)] if shot.notebook == "03_errcode_audit" else []
        faults = [*slow, Fault(path="promo/late-*", delay=2), *faults]
    simulator = stack.enter_context(Simulator(known, tokens, faults=Faults(tuple(faults))))
    settings = (f'api_base = "{simulator.base}"', 'merchants = "merchants.csv"', 'ledger = "ledger.db"')
    (folder / "tcb-ops.toml").write_text(
        "\n".join((*settings, "[tokens]", 'source = "file"', 'file = "tokens.csv"')), encoding="utf-8"
    )
    return simulator


def take_state(browser: Browser, base: str, work: Path, shot: Shot, convert: str) -> None:
    """Bring a notebook into a state, and take a screenshot of what is in view."""
    with ExitStack() as stack:
        folder = work / shot.name
        open_workspace(folder, shot, stack)
        given = {"target": "live", "paths": "list.csv", "root": "files"}
        path = prepared(work, shot.notebook, shot.lang, folder, given)
        notebook = stack.enter_context(opened_page(browser, base, path, shots=work / shot.name, height=950))
        notebook.page.set_viewport_size({"width": shot.width, "height": 950})
        notebook.theme(dark=shot.theme == "dark")
        notebook.run_all()
        notebook.at_rest()
        if shot.state in {"running", "cancelled", "finished"}:
            notebook.click(".op-run")
            notebook.until(UNDER_WAY)
            if shot.state == "cancelled":
                notebook.click(".op-cancel")
            if shot.state != "running":
                notebook.page.wait_for_selector(".op-panel .op-actions .op-export-menu", timeout=100_000)
        notebook.page.wait_for_timeout(1500)  # the panel is scrolled into view, and drawn
        me = f"{getpass.getuser()}@{socket.gethostname()}"
        notebook.page.evaluate(TIDY, [[me, "li@ops-01"], [f"{folder}/", ""], [str(folder), "work"]])
        file = PANELS / f"{shot.name}.png"
        notebook.page.screenshot(path=file, animations="disabled")
        notebook.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    smaller(file, convert)


def photographed(notebook: Opened, number: str, lang: Lang, work: Path) -> Path:
    """Run everything, export, and take a screenshot of the panel."""
    notebook.run_all()
    notebook.at_rest()
    notebook.click(".op-run")
    notebook.page.wait_for_selector(".op-panel .op-actions .op-export-menu", timeout=100_000)
    notebook.click(".op-export-menu")
    notebook.click(".op-export")  # export again, to the default folder for reports
    notebook.page.wait_for_selector(".op-panel .op-export[disabled]")
    notebook.page.wait_for_selector(".op-panel .op-export:not([disabled])")
    notebook.page.wait_for_selector(".op-panel .op-files a")
    notebook.click(".op-export-menu")
    notebook.click("[data-tab=todo]")
    me = f"{getpass.getuser()}@{socket.gethostname()}"
    notebook.page.evaluate(TIDY, [[me, "li@ops-01"], [f"{work}/", ""], [str(work), "work"]])
    panel = notebook.page.locator(".op-panel").first
    file = SCREENS / (f"{number}.png" if lang is Lang.EN else f"{number}-zh.png")
    panel.screenshot(path=file, animations="disabled")
    return file


def analysed(notebook: Opened, lang: Lang) -> Path:
    """Run notebook 04, and take a screenshot of the codes and merchants by day."""
    notebook.page.set_viewport_size({"width": 1100, "height": 1300})
    notebook.page.evaluate(RUN_ALL)
    notebook.at_rest()
    notebook.page.locator(".jp-OutputArea [role=img]").nth(1).wait_for(state="attached")
    file = SCREENS / ("04.png" if lang is Lang.EN else "04-zh.png")
    notebook.page.locator(".jp-Cell:has(.jp-OutputArea [role=img])").first.screenshot(
        path=file, animations="disabled"
    )
    return file


def smaller(file: Path, convert: str) -> None:
    """Reduce a picture to a palette, which is enough for text and flat colours."""
    for colours in (256, 128, 64, 32):
        subprocess.run(
            [convert, str(file), "-strip", "+dither", "-colors", str(colours), f"png8:{file}"], check=True
        )
        if file.stat().st_size < LARGEST:
            return
    message = f"{file} is still {file.stat().st_size:,} bytes"
    raise SystemExit(message)


def take(browser: Browser, base: str, work: Path, convert: str) -> None:
    """Take all screenshots of panels."""
    for name in notebook_names():
        for lang in Lang:
            path = prepared(work, name, lang, work, GIVEN)
            with opened_page(browser, base, path, shots=work / name, height=2600) as notebook:
                number = name[:2]
                file = (
                    analysed(notebook, lang) if number == "04" else photographed(notebook, number, lang, work)
                )
            smaller(file, convert)


def take_report(browser: Browser, folder: Path, lang: Lang, convert: str) -> None:
    """Run the demo and take a screenshot of the upper part of its report."""
    environment = os.environ | {"TCB_OPS_LANG": str(lang), "TCB_OPS_CHROMIUM": ""}
    subprocess.run([sys.executable, "-m", "tcb_ops", "demo"], cwd=folder, env=environment, check=True)
    page = browser.new_page(viewport={"width": 1000, "height": 1250})
    page.goto((folder / "demo-report" / "report.html").as_uri())
    me = f"{getpass.getuser()}@{socket.gethostname()}"
    page.evaluate(TIDY.replace(".op-panel", "body"), [[me, "li@ops-01"], [f"{folder}/", ""]])
    file = SCREENS / ("report.png" if lang is Lang.EN else "report-zh.png")
    page.screenshot(path=file, animations="disabled")
    page.close()
    smaller(file, convert)


def main() -> None:
    """Start JupyterLab and a browser, and take the screenshots."""
    chromium, convert = find_chromium(), shutil.which("convert")
    if chromium is None or convert is None:
        message = "This needs chromium and ImageMagick's convert."
        raise SystemExit(message)
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--states", nargs="*")
    states = options.parse_args().states
    PANELS.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        lab_server(Path(home)) as base,
        sync_playwright() as playwright,
    ):
        browser = launch(playwright, chromium)
        if states is not None:
            for shot in SHOTS:
                if not states or shot.name.startswith(tuple(states)):
                    take_state(browser, base, Path(home).resolve() / "work", shot, convert)
                    sys.stderr.write(f"{shot.name}\n")
            return
        take(browser, base, Path(home).resolve() / "work", convert)
        for lang in Lang:
            (folder := Path(home).resolve() / str(lang)).mkdir()
            take_report(browser, folder, lang, convert)


if __name__ == "__main__":
    main()
