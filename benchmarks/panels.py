"""Measure the panels in JupyterLab and a browser: clicks, memory after many refreshes, pages of a run of a million rows.

    python benchmarks/panels.py [--rows 1000000] [--refreshes 20000] [--openings 20]

An upload of 50,000 rows over 400 merchants runs against the simulator while the panel is used; the run of a million rows
is written to the ledger directly. Prints a table, writes it to RESULTS.md, and exits with 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import nbformat
from results import Figure, about, target_table, write

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from jupyter_lab import RUN_ALL, lab_server, launch, opened_page  # noqa: E402  they are beside the tests
from playwright.sync_api import sync_playwright  # noqa: E402

from tcb_ops.engine.list_kinds import UPLOAD  # noqa: E402
from tcb_ops.features.notebooks.parameters import NOTEBOOKS  # noqa: E402
from tcb_ops.features.notebooks.printing import find_chromium  # noqa: E402
from tcb_ops.features.simulator.faults import Fault, Faults  # noqa: E402
from tcb_ops.features.simulator.server import Simulator  # noqa: E402
from tcb_ops.ledger.ledger import Ledger  # noqa: E402
from tcb_ops.ledger.records import EnvRecord, NewRun, Usage  # noqa: E402
from tcb_ops.model import Merchant, Outcome, Owner, Reason, Row, RowEnd, RunSettings  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_lab import Opened

MERCHANTS = 400
ROWS = 50_000
CODES = (85088, -501001, 40097)
BEGUN = 1_764_036_000.0
CLICK = """async ([selector, at, changes]) => {
  const panel = document.querySelector('.op-panel');
  const state = () => changes ? String(eval(changes)) : '';
  const frame = () => new Promise(requestAnimationFrame);
  const found = [...panel.querySelectorAll(selector)].filter(one => !one.disabled);
  const target = found[at % found.length], part = target.closest('[role=tabpanel]');
  if (part?.hidden) panel.querySelector(`[data-tab=${part.className.replace('op-part-', '')}]`).click();
  const before = state(), began = performance.now();
  if (target.matches('select')) {
    target.selectedIndex = (target.selectedIndex + 1) % target.options.length;
    target.dispatchEvent(new Event('change'));
  } else target.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}));
  await frame();
  const late = () => performance.now() - began > 20000;
  while ((panel.querySelector('.op-row-status').textContent.startsWith('Loading') || (changes && state() === before)) && !late()) await frame();
  return performance.now() - began;
}"""
OPENED = "panel.querySelector('.op-new-menu').innerText"
PER_RUN = "heap per run of all cells in one page ÷ plain widgets"
CLICKS = (
    (".op-sort", ""),
    (".op-chips .op-chip", ""),
    (".op-by-merchant .op-line", ""),
    (".op-next-page", ""),
    (".op-code[data-code]", ""),
    (".op-heat g[data-code]", ""),
    (".op-part-rows select", ""),
    (".op-rows tbody .op-line", ""),
    (".op-part-rows .op-tools .op-chip", ""),
    (".op-new-menu", OPENED),
)
"""What is clicked, in turns: selector, and what must change in the panel where the kernel answers."""
LIMITS: dict[str, tuple[str, float]] = {
    "click during the run, median": ("ms", 300),
    "click during the run, worst of 50": ("ms", 1000),
    "click after the run, median": ("ms", 300),
    "click after the run, worst of 50": ("ms", 1000),
    "heap after refreshes": ("%", 5),
    "kernel after refreshes": ("%", 5),
    "heap after re-openings": ("%", 5),
    "kernel after re-openings": ("%", 5),
    "kernel after runs of all cells in one page": ("%", 5),
    PER_RUN: ("×", 1),
    "first page of the slowest filter": ("ms", 1000),
    "next page in the kernel, median": ("ms", 50),
    "next page in the browser, median": ("ms", 300),
    "kernel after pages": ("MiB", 50),
}
"""Unit and limit of each figure."""
COUNT = "from ipywidgets.widgets.widget import _instances; print(len(_instances))"
PLAIN = """
import ipywidgets
for one in globals().get("shown", []):
    one.close()
shown = [ipywidgets.HTML("text") for _ in range({number})]
shown.append(ipywidgets.VBox(shown))
shown[-1]
"""
"""Widgets that are closed when the cell is run again. JupyterLab keeps each closed one until the page is reloaded."""
HEAP = "() => { for (let n = 0; n < 4; n++) gc(); return performance.memory.usedJSHeapSize; }"
EXECUTE = """async code => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  let printed = '';
  const future = kernel.requestExecute({code, store_history: false});
  future.onIOPub = message => { if (message.header.msg_type === 'stream') printed += message.content.text; };
  const reply = await future.done;
  if (reply.content.status !== 'ok') throw new Error(reply.content.ename + ': ' + reply.content.evalue);
  return printed;
}"""
REFRESH = """
import random, time
from dataclasses import replace
from types import SimpleNamespace
_chance, _run, _grid = random.Random(0), run.panel.run, run.panel.monitor.grid
_tallies, _buckets = list(_run.tallies()), _run.timeline_buckets()
_shown = SimpleNamespace(id=_run.id, record=_run.record, settings=_run.settings, page=_run.page, tallies=lambda: _tallies, timeline_buckets=lambda: _buckets)
def _refresh(times):
    for number in range(times):
        for _ in range(5):
            at = _chance.randrange(len(_tallies))
            _tallies[at] = replace(_tallies[at], rows=_chance.randrange(1, 200))
        _grid.show(_shown, running=True)
        run.panel.monitor.bar.value = f'<progress value="{number}" max="{times}"></progress>'
        if number % 50 == 49:
            time.sleep(0.3)
"""
"""Each refresh changes five tallies. Pauses: the browser should draw all of them, and Jupyter drops none."""
PAGES = """
import statistics, time
_run, _grid, _first, _next = run.panel.run, run.panel.monitor.grid, {}, []
_filters = {
    "all rows": {"code": None}, "not succeeded": {"code": ""}, "a code": {"code": "85088"},
    "a merchant": {"code": None, "appid": "wx0399"}, "a code of a merchant": {"code": "40097", "appid": "wx0002"},
    "a path": {"code": None, "path": "/banner-9999"}, "a path that no row has": {"code": None, "path": "no such path"},
    "a path of those not succeeded": {"code": "", "path": "99"},
}
for _name, _wanted in _filters.items():
    _began = time.perf_counter()
    _page = _grid.read(_wanted)
    _first[_name] = time.perf_counter() - _began
    for _ in range(25):
        if not _page["more"]:
            break
        _began = time.perf_counter()
        _page = _grid.read(_wanted | {"after": _page["rows"][-1]["line"]})
        _next.append(time.perf_counter() - _began)
import json
print(json.dumps([_first, _next]))
"""


def merchants() -> list[Merchant]:
    """Return the merchants, each with an environment."""
    return [Merchant(f"wx{n:04}", f"第{n:03}号店", f"shop-{n:04}-1a2b") for n in range(MERCHANTS)]


def build(ledger: Ledger, target: str, count: int) -> None:
    """Write a finished run of so many rows, of which 1 in 20 failed."""
    known = merchants()
    envs = [
        EnvRecord(n, one.env, one.appid, one.name, Owner.MERCHANT, left=False) for n, one in enumerate(known)
    ]

    def rows() -> Iterator[Row]:
        for n in range(count):
            one, path = known[n % MERCHANTS], f"campaign/{n // MERCHANTS:05}/banner-{n}.png"
            yield Row(n + 2, one.env, path, one.appid, one.name, path, (one.env, path), 4_096, 1)

    def ends() -> Iterator[RowEnd]:
        for n in range(count):
            at = BEGUN + n / 700
            if n % MERCHANTS < MERCHANTS // 20:
                yield RowEnd(
                    n + 2, Outcome.REFUSED, Reason.REFUSED, None, CODES[n % 3], "errmsg", "rid", 200, "", 1,
                    None, "", "", at, at + 0.25,
                )  # fmt: skip
            else:
                yield RowEnd(
                    n + 2, Outcome.UPLOADED, None, None, 0, "ok", "", 204, "", 2, 4_096, f"{n:032x}",
                    f"cloud://{n}", at, at + 0.25,
                )  # fmt: skip

    new = NewRun(
        "big", UPLOAD, target, "big.csv", "ab" * 32, 90 * count, ("env", "path"), "/srv/files",
        RunSettings(concurrency=64), "", "ops", "ops-1", "", BEGUN,
    )  # fmt: skip
    run, stream = ledger.plan(new, rows(), envs), ends()
    while batch := list(islice(stream, 5_000)):
        ledger.record(run, batch, Usage(len(batch) / 700, len(batch), len(batch)))
    ledger.finish(run, BEGUN + count / 700)


def prepare(folder: Path, base: str, rows: int) -> None:
    """Write settings, merchants, tokens, a list of 50,000 rows, the ledger, and two notebooks."""

    def write(name: str, header: tuple[str, ...], lines: Iterator[tuple[str, ...]]) -> None:
        with (folder / name).open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows([header, *lines])

    known = merchants()
    write("merchants.csv", ("appid", "name", "env"), ((m.appid, m.name, m.env) for m in known))
    write("tokens.csv", ("appid", "access_token"), ((m.appid, f"token-of-{m.appid}") for m in known))
    listed = ((known[n % MERCHANTS].env, f"banner/{n}.png", "a.txt") for n in range(ROWS))
    write("list.csv", ("env", "path", "file"), listed)
    (folder / "files").mkdir()
    (folder / "files" / "a.txt").write_text("a", encoding="utf-8")
    settings = (f'api_base = "{base}"', 'merchants = "merchants.csv"', 'ledger = "ledger.db"', "[tokens]")
    (folder / "tcb-ops.toml").write_text(
        "\n".join((*settings, 'source = "file"', 'file = "tokens.csv"')), encoding="utf-8"
    )
    ledger = Ledger(str(folder / "ledger.db"))
    build(ledger, base, rows)
    ledger.close()
    content = nbformat.read(NOTEBOOKS / "02_run_uploads.ipynb", 4)
    cell = next(one for one in content.cells if "parameters" in one.metadata.get("tags", ()))
    cell.source += '\ntarget = "live"\npaths = "list.csv"\nroot = "files"'
    nbformat.write(content, folder / "02_run_uploads.ipynb")
    shown = nbformat.v4.new_code_cell(
        'from tcb_ops import panels\n\npanels.use("live")\nrun = panels.attach("big")\npanel = run.panel'
    )
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[shown], metadata=python), folder / "big.ipynb")


def execute(notebook: Opened, code: str) -> str:
    """Execute code in the notebook's kernel; return what it prints."""
    printed: str = notebook.page.evaluate(EXECUTE, code)
    return printed


def kernel_memory(notebook: Opened) -> float:
    """Return the kernel's resident memory, MiB, after a collection."""
    pid = execute(notebook, "import gc, os; gc.collect(); print(os.getpid())").strip()
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def heap(notebook: Opened) -> float:
    """Return the page's heap, MiB, after collections."""
    notebook.page.wait_for_timeout(1000)
    devtools = notebook.page.context.new_cdp_session(notebook.page)
    devtools.send("HeapProfiler.collectGarbage")  # earlier documents of the tab, too
    devtools.detach()
    return float(notebook.page.evaluate(HEAP)) / 2**20


def clicks(notebook: Opened, count: int = 50) -> list[float]:
    """Click on everything in turn; return the milliseconds until each click was answered."""
    found = []
    for number in range(count):
        selector, changes = CLICKS[number % len(CLICKS)]
        if not notebook.page.evaluate(
            "one => [...document.querySelectorAll('.op-panel ' + one)].some(it => !it.disabled)",
            selector,
        ):
            selector, changes = CLICKS[0]
        took = float(notebook.page.evaluate(CLICK, [selector, number // len(CLICKS), changes]))
        found.append(took)
        print(f"  {selector}: {took:.0f} ms", file=sys.stderr)
    return found


def used(notebook: Opened, refreshes: int, openings: int) -> dict[str, float]:
    """Measure the panel of 50,000 rows: clicks during the run and after it, and memory."""
    notebook.page.set_default_timeout(400_000)
    notebook.run_all()
    notebook.at_rest()
    notebook.click(".op-new-menu")  # a run of a million rows is shown
    notebook.click(".op-run")
    notebook.until("() => document.querySelector('.op-panel .op-cancel').offsetParent")
    notebook.until("() => document.querySelector('.op-panel progress').value > 2000")
    during = clicks(notebook)
    still = notebook.page.locator(".op-panel .op-cancel").is_visible()
    print(f"running at the end of the clicks: {still}", file=sys.stderr)
    if still:
        notebook.click(".op-cancel")
    notebook.until("() => !document.querySelector('.op-panel .op-cancel').offsetParent")
    after = clicks(notebook)
    found = {
        "click during the run, median": median(during),
        "click during the run, worst of 50": max(during),
        "click after the run, median": median(after),
        "click after the run, worst of 50": max(after),
    }
    execute(notebook, REFRESH)
    execute(notebook, "_refresh(200)")
    heap_before, kernel_before, began = heap(notebook), kernel_memory(notebook), time.perf_counter()
    for _ in range(refreshes // 500):
        execute(notebook, "_refresh(500)")
    took = time.perf_counter() - began
    print(f"{refreshes} refreshes took {took:.0f} s", file=sys.stderr)
    found["heap after refreshes"] = 100 * (heap(notebook) / heap_before - 1)
    found["kernel after refreshes"] = 100 * (kernel_memory(notebook) / kernel_before - 1)
    print(found, heap_before, kernel_before, file=sys.stderr)
    for reload in (False, True):
        heaps, kernels = [], []
        for number in range(openings + 2):
            if reload:
                # Otherwise the browser keeps some earlier pages for its Back button.
                notebook.page.goto("about:blank")
                notebook.load()
            notebook.run_all()
            notebook.page.wait_for_timeout(500)
            notebook.at_rest()
            notebook.page.wait_for_selector(".op-panel .op-by-merchant tbody tr", state="attached")
            heaps.append(heap(notebook))
            kernels.append(kernel_memory(notebook))
            print(f"  opening {number}: {heaps[-1]:.1f} {kernels[-1]:.1f} MiB", file=sys.stderr)
        # The first two load modules, and fill caches.
        grown = 100 * (kernels[-1] / kernels[1] - 1)
        if reload:
            found["heap after re-openings"] = 100 * (heaps[-1] / heaps[1] - 1)
            found["kernel after re-openings"] = grown
        else:
            found["kernel after runs of all cells in one page"] = grown
            found[PER_RUN] = (heaps[-1] - heaps[1]) / openings
    return found


def plain_widgets(notebook: Opened, runs: int = 8) -> float:
    """Return the MiB by which the heap grows with each run of a cell with as many widgets as a panel has."""
    heaps = []
    for _ in range(runs + 2):
        notebook.page.evaluate(RUN_ALL)
        notebook.page.wait_for_timeout(2000)
        notebook.at_rest()
        heaps.append(heap(notebook))
    print(f"  plain widgets: {[round(one, 1) for one in heaps]} MiB", file=sys.stderr)
    return (heaps[-1] - heaps[1]) / runs


def pages(notebook: Opened) -> dict[str, float]:
    """Measure the pages of the large run."""
    import json

    notebook.run_all()
    notebook.at_rest()
    before = kernel_memory(notebook)
    first, following = json.loads(execute(notebook, PAGES))
    print({name: round(seconds, 3) for name, seconds in first.items()}, file=sys.stderr)
    print(sorted(round(1000 * one) for one in following)[-10:], file=sys.stderr)
    following_clicks = [float(notebook.page.evaluate(CLICK, [".op-next-page", 0, ""])) for _ in range(20)]
    return {
        "first page of the slowest filter": 1000 * max(first.values()),
        "next page in the kernel, median": 1000 * median(following),
        "next page in the browser, median": median(following_clicks),
        "kernel after pages": kernel_memory(notebook) - before,
    }


def main() -> int:
    """Measure, and write the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--refreshes", type=int, default=20_000)
    options.add_argument("--openings", type=int, default=20)
    options.add_argument("--only", choices=["used", "pages"])
    given = options.parse_args()
    if (chromium := find_chromium()) is None:
        sys.exit("This needs chromium.")
    known = merchants()
    faults = (
        Fault(env="shop-00*", path="*/?.png", errcode=85088),
        Fault(env="shop-001*", path="*7.png", errcode=40097),
        Fault(delay=0.05),
    )
    found: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="tcb-ops-panels-") as home,
        Simulator(known, {m.appid: f"token-of-{m.appid}" for m in known}, faults=Faults(faults)) as simulator,
        lab_server(Path(home)) as base,
        sync_playwright() as playwright,
    ):
        work = Path(home).resolve() / "work" / "bench"
        work.mkdir()
        prepare(work, simulator.base, given.rows)
        browser = launch(playwright, chromium)
        if given.only != "used":
            with opened_page(browser, base, "bench/big.ipynb", shots=work / "pages") as notebook:
                found |= pages(notebook)
                print(found, file=sys.stderr)
        if given.only != "pages":
            with opened_page(browser, base, "bench/02_run_uploads.ipynb", shots=work / "used") as notebook:
                found |= used(notebook, given.refreshes, given.openings)
                number = int(execute(notebook, COUNT))
            # Each has a layout and a style, which are widgets, too.
            cell = nbformat.v4.new_code_cell(PLAIN.format(number=number // 3))
            python = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
            nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=python), work / "plain.ipynb")
            with opened_page(browser, base, "bench/plain.ipynb", shots=work / "plain") as notebook:
                found[PER_RUN] /= plain_widgets(notebook)
    figures = [
        Figure(f"panels: {name}, {unit}", found.get(name), "≤", limit)
        for name, (unit, limit) in LIMITS.items()
    ]
    table = "\n\n".join([target_table(figures), about(1)])
    print(table)
    write(f"## Panels\n\n{table}")
    return int(any(one.judged() == "missed" for one in figures))


if __name__ == "__main__":
    sys.exit(main())
