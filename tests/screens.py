"""Make the screenshots of the documentation: each panel after a run with the sample data, and the demo's report.

    python tests/screens.py

Both languages are written to docs/screens/. ImageMagick's `convert` reduces their size. Names of this machine are
replaced before a screenshot is taken.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_lab import Opened, lab_server, launch, opened_page
from playwright.sync_api import Browser, sync_playwright

from tcb_ops.i18n import Lang
from tcb_ops.notebooks.workspace import notebook_names
from tcb_ops.reports.formats.pdf import find_chromium

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
LARGEST = 150_000
"""Maximum bytes of a screenshot."""


def prepared(work: Path, name: str, lang: Lang) -> str:
    """Add parameters to a notebook in the workspace; return its name there."""
    file = work / f"{name}.ipynb"
    content = nbformat.read(file, 4)
    cell = next(cell for cell in content.cells if "parameters" in cell.metadata.get("tags", ()))
    given = {"lang": str(lang)} | GIVEN
    cell.source += "".join(
        f"\n{key} = {value!r}" for key, value in given.items() if f"\n{key} = " in cell.source
    )
    there = work / f"{name}-{lang}.ipynb"
    nbformat.write(content, there)
    return there.name


def photographed(notebook: Opened, number: str, lang: Lang, work: Path) -> Path:
    """Run everything, export, and take a screenshot of the panel."""
    notebook.run_all()
    notebook.at_rest()
    notebook.click(".op-export")  # export again, to the default folder for reports
    notebook.page.wait_for_selector(".op-panel .op-export[disabled]")
    notebook.page.wait_for_selector(".op-panel .op-export:not([disabled])")
    notebook.page.wait_for_selector(".op-panel .op-files a")
    me = f"{getpass.getuser()}@{socket.gethostname()}"
    notebook.page.evaluate(TIDY, [[me, "li@ops-01"], [f"{work}/", ""], [str(work), "work"]])
    panel = notebook.page.locator(".op-panel").first
    file = SCREENS / (f"{number}.png" if lang is Lang.EN else f"{number}-zh.png")
    panel.screenshot(path=file, animations="disabled")
    return file


def smaller(file: Path, convert: str) -> None:
    """Reduce a picture to a palette, which is enough for text and flat colours."""
    for colours in (64, 32, 16):
        subprocess.run(
            [convert, str(file), "-strip", "+dither", "-colors", str(colours), f"png8:{file}"], check=True
        )
        if file.stat().st_size < LARGEST:
            return
    message = f"{file} is still {file.stat().st_size:,} bytes"
    raise SystemExit(message)


def take(browser: Browser, base: str, work: Path, convert: str) -> None:
    """Take all screenshots of panels."""
    for name in notebook_names()[:4]:
        for lang in Lang:
            path = prepared(work, name, lang)
            with opened_page(browser, base, path, shots=work / name, height=2600) as notebook:
                file = photographed(notebook, name[:2], lang, work)
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
    SCREENS.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        lab_server(Path(home)) as base,
        sync_playwright() as playwright,
    ):
        browser = launch(playwright, chromium)
        take(browser, base, Path(home).resolve() / "work", convert)
        for lang in Lang:
            (folder := Path(home).resolve() / str(lang)).mkdir()
            take_report(browser, folder, lang, convert)


if __name__ == "__main__":
    main()
