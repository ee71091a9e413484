"""The notebooks in JupyterLab, in a real browser.

Each as it comes: one "run all" leads to a panel that works, without credentials; its button fills the cells below. A run from a panel: watched, cancelled,
resumed, cut off, retried, exported; nothing is lost.
"""

from collections import Counter

import pytest
from jupyter_lab import RUN_ALL

from tcb_ops.features.notebooks.parameters import notebook_names
from tcb_ops.features.simulator.faults import Fault

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

ROWS = 1000  # measured by hand with 5,000: 57 ms at the median, 43 MB from beginning to end
SLOW = Fault(path="banner/[1-9]??.png", delay=6)
"""All rows but the first 100: a run lasts a minute, unless the simulator plays another plan."""
WATCHED = Fault(path="banner/[1-9]??.png", delay=12)
"""The same for a run during which much is looked at."""
ONCE = Fault(path="banner/7.png", errcode=40097, calls=((1, 1),))
MOVING = "() => { const bar = document.querySelector('.op-panel progress'); return bar && bar.value >= 100 && bar.value < bar.max; }"
FURTHER = "than => document.querySelector('.op-panel progress').value > than"
ATTACHED = """selector => {
  const found = document.querySelector(selector);
  if (!found) document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0;
  return !!found;
}"""
"""JupyterLab detaches cells that are out of view, and scrolls to the last cell that was run."""
STAYS = """() => {
  const page = document.querySelector('.jp-WindowedPanel-outer'), header = document.querySelector('.op-header');
  if (!header) return false;
  const top = element => element.getBoundingClientRect().top - page.getBoundingClientRect().top;
  page.scrollTop += top(header.closest('.op-panel')) + 150;
  return Math.abs(top(header)) < 3;
}"""
"""Again and again, because JupyterLab may still be about to scroll to the last cell that was run."""
EXPORTED = (
    "() => document.querySelector('.op-panel .op-export-status')?.innerText.includes('was exported to')"
)
HEAD = "words => document.querySelector('.op-panel .op-head')?.innerText.includes(words)"
STATUS = "words => document.querySelector('.op-panel .op-status')?.innerText.includes(words)"
SIDEWAYS = """() => [...document.querySelectorAll('.jp-OutputArea-output table')]
  .filter(table => table.offsetWidth > table.parentElement.clientWidth + 1).map(table => table.innerText)"""
"""The tables of cards that are wider than their card."""
BARS = """least => [...document.querySelectorAll('.jp-RenderedHTML div')].filter(
  each => getComputedStyle(each).backgroundColor !== 'rgba(0, 0, 0, 0)' && each.offsetWidth > 1 && each.offsetHeight > 1
).length > least"""
BELOW = """words => [...document.querySelectorAll('.jp-OutputArea-output')].some(
  each => !each.querySelector('.op-panel') && each.innerText.includes(words)
)"""
RETRIES = "words => document.querySelector('.op-panel button.op-retry')?.innerText === words"
SCROLLED = "() => { document.querySelector('.op-panel .op-keys:last-child').scrollIntoView({block: 'end'}); }"
IN_VIEW = """() => {
  const box = [...document.querySelectorAll('.op-panel .op-menu')].find(each => each.offsetParent).getBoundingClientRect();
  return box.top >= document.querySelector('.op-panel .op-header').getBoundingClientRect().bottom && box.top < window.innerHeight;
}"""
SCROLLS = """() => {
  const message = document.querySelector('.op-panel .op-status .op-message');
  return message.scrollHeight > message.clientHeight + 1 && message.tabIndex === 0;
}"""
LOST = """() => {
  document.querySelector('.op-by-merchant tbody').replaceChildren();
  return window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.reconnect();
}"""
HEADS = """heads => {
  const shown = [...document.querySelectorAll('.op-panel .op-by-merchant th')].filter(each => each.offsetParent);
  return shown.map(each => each.innerText).join() === heads.join();
}"""
FITS = """() => {
  const table = document.querySelector('.op-panel .op-merchants-scroll');
  return table.scrollWidth <= table.clientWidth;
}"""
APART = """() => {
  const [above, below] = [...document.querySelectorAll('.op-menu label:has([type=radio])')].map(each => each.getBoundingClientRect());
  return above.height > 0 && above.bottom <= below.top;
}"""
CALM = """() => {
  const note = document.querySelector('.op-panel .op-note'), said = note.textContent, heights = [];
  for (const text of ['', '12 environments paused: the platform asked to slow down. '.repeat(9)]) {
    note.textContent = text;
    heights.push(document.querySelector('.op-panel .op-header').offsetHeight);
  }
  note.textContent = said;
  return heights[0] === heights[1];
}"""
"""Whether the header keeps its height while environments are paused."""
COVERS = """async ([button, box]) => {
  const top = () => document.querySelector('.op-panel .op-tabs').getBoundingClientRect().top + document.querySelector('.jp-WindowedPanel-outer').scrollTop;
  const expanded = () => document.querySelector(button).ariaExpanded;
  const before = top(), closed = expanded();
  document.querySelector(button).click();
  while (!document.querySelector(box)?.offsetParent || expanded() !== 'true') await new Promise(requestAnimationFrame);
  const pushed = top() - before;
  document.querySelector(button).click();
  while (document.querySelector(box)?.offsetParent || expanded() !== 'false') await new Promise(requestAnimationFrame);
  return [closed, Math.round(pushed), document.querySelector(button).textContent];
}"""
"""A button opens a box over the tabs and closes it: what it says of itself, how far it pushes them, its name."""
FOCUSED = "name => document.activeElement.closest('.' + name)"
NUMBERED = """() => {
  const found = [...document.querySelectorAll('.op-panel :is(button, input, select, a[href], [role=button], [tabindex="0"])')]
    .filter(one => one.checkVisibility() && !one.disabled && one.tabIndex >= 0 && getComputedStyle(one).visibility !== 'hidden');
  found.forEach((one, at) => { one.dataset.number = at; });
  return found.length;
}"""
KILLED = """# Kill
import os, pathlib, time
while not pathlib.Path('go').exists(): time.sleep(0.1)
os.kill(os.getpid(), 9)"""
BLOCK = """# Block
import pathlib, time
run.panel.start.click()
pathlib.Path('blocked').touch()
while not pathlib.Path('go').exists(): time.sleep(0.1)
pathlib.Path('free').touch()"""
ANSWERS = """async ([button, shown]) => {
  const visible = () => { const found = document.querySelector(shown); return !!found && found.offsetParent !== null; };
  const before = visible(), began = performance.now();
  document.querySelector(button).click();
  while (visible() === before && performance.now() - began < 20000) await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""
REACHED = """() => document.activeElement.dataset.number"""
IN_WINDOW = """([selector, most]) => {
  const box = document.querySelector(`.op-panel ${selector}`)?.getBoundingClientRect();
  return box && box.height > 0 && box.top > 0 && box.bottom <= most;
}"""
ENDS = "most => document.querySelector('.op-panel').getBoundingClientRect().bottom <= most"
SHOWN = "([selector, words]) => document.querySelector(`.op-panel ${selector}`)?.innerText.includes(words)"
SHADES = """() => {
  const shade = selector => getComputedStyle(document.querySelector(selector)).backgroundColor;
  return [shade('.jp-Notebook'), ...['.op-header', '.op-by-merchant thead', '.op-chip[aria-pressed=false]'].map(one => shade(`.op-panel ${one}`))];
}"""
OFFERED = "() => [...document.querySelectorAll('.op-list datalist option')].map(one => one.value)"
HEAP = "() => { gc(); gc(); return performance.memory.usedJSHeapSize; }"


def begin(notebook):
    """Run all, press Upload, and wait until the slow rows are left."""
    notebook.run_all()
    notebook.at_rest()
    notebook.click(".op-run")
    notebook.until(MOVING)


def finish(notebook):
    """Run all, do the panel's work if it shows no run yet, and wait for its end."""
    notebook.run_all()
    notebook.at_rest()
    notebook.until(
        "() => [...document.querySelectorAll('.op-panel :is(.op-run, .op-export-menu):not([disabled])')].some(one => one.offsetParent)"
    )
    start = notebook.page.locator(".op-panel .op-run")
    if start.is_visible():
        start.click()
    notebook.page.locator(".op-panel .op-export-menu").wait_for(state="visible")


def assert_accessible(notebook):
    """Axe finds nothing in the panel, in the dark either."""
    for dark in (True, False):
        notebook.theme(dark=dark)
        assert notebook.violations() == [], "dark" if dark else "light"


def assert_reached_by_keyboard(notebook):
    """Tab leads to every control of the panel that is shown and enabled."""
    wanted, reached = 0, set()
    while (now := notebook.page.evaluate(NUMBERED)) != wanted or now <= 10:  # until no more come or go
        wanted = now
        notebook.page.wait_for_timeout(1000)
    notebook.page.locator(".op-panel button:not([disabled]):visible").first.focus()
    for _ in range(wanted + 30):
        reached.add(notebook.page.evaluate(REACHED))
        notebook.page.keyboard.press("Tab")
    assert set(map(str, range(wanted))) <= reached


def assert_every_tab_is_calm_and_accessible(notebook, most):
    """Each tab has few controls, fits a screen, and axe finds nothing in it."""
    for name in ("todo", "merchants", "rows", "charts", "files"):
        notebook.click(f"[role=tab][data-tab={name}]")
        notebook.page.wait_for_selector(f".op-panel .op-part-{name}:not([hidden])", state="attached")
        notebook.until(ENDS, notebook.page.viewport_size["height"] - 25)
        lines = notebook.page.locator(".op-panel .op-line:visible").count()  # which a click opens
        assert notebook.page.evaluate(NUMBERED) + lines <= most, name
        assert notebook.violations() == [], name


def assert_whole(workspace, rows, again=0):
    """Every row is good, and was asked for once, but for what was in flight at a cut."""
    run = workspace.run()
    assert run.record.finished_at is not None
    assert run.counts == {"uploaded": rows}
    assert rows <= workspace.links <= rows + again
    assert Counter(record.end.outcome for record in run.rows()) == {"uploaded": rows}


def assert_page_accessible(notebook, name):
    """Axe finds nothing in the whole page: in the dark where no other test looks at the notebook's part of it."""
    for dark in (True, False) if name in {"02_run_uploads", "04_analysis"} else (False,):
        notebook.theme(dark=dark)
        assert notebook.violations("html") == [], "dark" if dark else "light"


@pytest.mark.parametrize("name", [name for name in notebook_names() if name != "04_analysis"])
def test_run_all_waits_for_its_button_and_run_below_fills_the_cells(lab, name):
    with lab.opened(f"{name}.ipynb", shots=name) as notebook:
        finish(notebook)
        notebook.page.locator(".op-panel").first.scroll_into_view_if_needed()
        notebook.shot("panel")
        assert notebook.cut(700) == []
        notebook.shot("narrow")
        assert_reached_by_keyboard(notebook)
        notebook.page.set_viewport_size({"width": 1280, "height": 6000})
        notebook.click(".op-below button")
        notebook.page.locator(".jp-OutputArea-output").get_by_text(
            "manifest.json"
        ).wait_for()  # of the last cell
        notebook.at_rest()
        assert notebook.page.locator(".jp-RenderedText[data-mime-type*='stderr']").count() == 0
        assert notebook.page.get_by_text("No run yet").count() == 0
        assert_page_accessible(notebook, name)
        notebook.shot("filled")


def test_the_cells_below_are_run_without_the_panels_own_and_show_the_run_that_it_shows(
    lab, open_lab_workspace
):
    workspace = open_lab_workspace(3, [Fault(path="banner/2.png", errcode=40097)])
    older, newer = (workspace.upload() for _ in range(2))
    with lab.opened(workspace.notebook("02_run_uploads"), shots="below") as notebook:
        notebook.run_all()
        notebook.at_rest()
        notebook.until(HEAD, newer.id)
        notebook.click(".op-runs-menu")
        notebook.click(f".op-run-table [data-run='{older.id}']")
        notebook.until(HEAD, older.id)
        notebook.click(".op-below button")
        notebook.until(BELOW, older.id)
        notebook.at_rest()
        notebook.until(ATTACHED, ".op-panel")
        assert older.id in notebook.text(".op-head")


def test_the_analysis_shows_its_charts_before_and_after_it_is_run(lab):
    with lab.opened("04_analysis.ipynb", shots="04_analysis") as notebook:
        notebook.page.set_viewport_size({"width": 1280, "height": 6000})
        notebook.until(BARS, 100)  # JupyterLab trusts no output that it has not made
        notebook.shot("kept")
        notebook.page.evaluate(RUN_ALL)
        notebook.at_rest()
        notebook.until(BARS, 100)
        assert notebook.page.locator(".jp-RenderedText[data-mime-type*='stderr']").count() == 0
        assert_page_accessible(notebook, "04_analysis")
        notebook.page.set_viewport_size({"width": 600, "height": 6000})
        notebook.until("() => document.querySelector('.jp-Notebook').getBoundingClientRect().right <= 600")
        assert notebook.settled(lambda: notebook.page.evaluate(SIDEWAYS), []) == []


@pytest.mark.parametrize("name", [name for name in notebook_names() if name != "04_analysis"])
def test_an_idle_panel_and_one_in_chinese_are_accessible(lab, open_lab_workspace, name):
    workspace = open_lab_workspace(30, [Fault(path="banner/7.png", errcode=40097)])
    with lab.opened(workspace.notebook(name, lang="zh"), shots=f"zh-{name}") as notebook:
        notebook.run_all()
        notebook.at_rest()
        notebook.page.wait_for_selector(".op-panel .op-simulated")
        assert notebook.page.get_by_text("还没有任务：").count() > 0
        assert_accessible(notebook)  # idle
        notebook.click(".op-run")
        notebook.until(
            "() => /\\d\\s(秒|分钟)前完成，用时 /.test(' ' + document.querySelector('.op-panel .op-head').innerText)"
        )
        notebook.page.wait_for_selector(".op-panel .op-by-merchant tbody tr", state="attached")
        assert_accessible(notebook)


def test_every_control_is_reached_and_pressed_by_keyboard_alone(lab, open_lab_workspace):
    refused, late = Fault(path="banner/7.png", errcode=40097), Fault(path="banner/1??.png", delay=60)
    workspace = open_lab_workspace(120, [refused, late])
    with lab.opened(workspace.notebook("02_run_uploads"), shots="keyboard") as notebook:
        press = notebook.page.keyboard.press
        notebook.run_all()
        notebook.at_rest()
        notebook.page.locator(".op-panel .op-run:not([disabled])").focus()
        press("Enter")
        notebook.until(FOCUSED, "op-cancel")  # the focus of the pressed button goes to the next one
        press("Enter")
        notebook.until(FOCUSED, "op-resume")
        workspace.sim.play([refused])
        press("Enter")
        notebook.until(STATUS, "119 of 120 rows succeeded")
        notebook.page.locator(".op-panel .op-code:text('40097')").first.focus()
        press("Enter")
        notebook.until("() => document.activeElement.innerText === 'Rows'")
        notebook.until("() => document.querySelectorAll('.op-rows tbody tr').length === 1")
        press("ArrowLeft")
        notebook.until("() => document.activeElement.innerText === 'Merchants'")
        for key in ("Tab", "Tab", "Tab", "Tab", "ArrowDown", "ArrowDown"):
            press(key)
        chosen = notebook.page.evaluate("() => document.activeElement.querySelector('.op-name').innerText")
        press("Enter")
        notebook.until(
            "name => document.querySelector('.op-row-tools .op-chip').innerText.includes(name)", chosen
        )
        cells = notebook.page.locator(".jp-Cell").count()
        for part in (".op-figures", ".op-new-menu"):  # text, which takes no focus by itself, and a button
            notebook.click(part)
            for key in "dd":  # JupyterLab's shortcut that deletes the cell
                press(key)
            assert notebook.page.locator(".jp-Cell").count() == cells, part
        listed = notebook.page.locator(".op-panel .op-list input")
        for state in ("visible", "hidden"):
            listed.wait_for(state=state)
            press("Enter")
        listed.wait_for()
        assert_reached_by_keyboard(notebook)


def test_a_list_is_picked_from_what_is_offered_and_its_errors_are_accessible(lab, open_lab_workspace):
    workspace = open_lab_workspace(3)
    (workspace.folder / "lists").mkdir()
    (workspace.folder / "lists" / "bad.csv").write_text(
        "env,path,file\n,a,a.txt\n,b,a.txt\n", encoding="utf-8"
    )
    with lab.opened(workspace.notebook("02_run_uploads"), shots="picker") as notebook:
        notebook.run_all()
        notebook.at_rest()
        path = notebook.page.locator(".op-panel .op-list input")
        # No tokens, merchants, ledger or lock.
        offered = ["list.csv", "lists/bad.csv"]
        assert notebook.settled(lambda: notebook.page.evaluate(OFFERED), offered) == offered
        path.fill("lists/bad.csv")
        path.press("Enter")
        notebook.page.wait_for_selector(".op-panel .op-problems table")
        assert_accessible(notebook)
        path.fill("list.csv")
        path.press("Enter")
        notebook.page.wait_for_selector(".op-panel .op-run:not([disabled])")


FILES = [
    "actions.py",
    "actions.sh",
    "errcodes.csv",
    "failed.csv",
    "manifest.json",
    "report.html",
    "report.pdf",
    "report.xlsx",
    "results.csv",
]


@pytest.mark.parametrize("view", ["doc/tree", "notebooks"], ids=["Lab", "7"])
def test_the_panel_has_the_shade_of_its_page_and_each_kind_of_file_opens_from_its_link_also_after_run_all(
    lab, view
):
    with lab.opened("02_run_uploads.ipynb", shots=view[:3], view=view) as notebook:
        finish(notebook)
        notebook.page.wait_for_selector(".op-panel .op-by-merchant tbody tr", state="attached")
        for dark in (False, True):
            notebook.theme(dark=dark)
            shades = notebook.settled(lambda: len(set(notebook.page.evaluate(SHADES))), 1)
            assert shades == 1, "dark" if dark else "light"
        # Of an earlier test's run, the panel lists no files until it is exported; of its own, at once, and again at the end.
        notebook.click(".op-export-menu")
        notebook.click(".op-export")
        notebook.until(EXPORTED)
        notebook.until(ATTACHED, ".op-panel .op-files a")
        names = notebook.open_files(downloaded={"xlsx", "pdf", "py", "sh"}, text="476 rows succeeded")
        assert [name for name in names if name.isascii()] == FILES
        notebook.run_all()
        notebook.at_rest()
        notebook.until(ATTACHED, ".op-panel .op-files a")
        links = notebook.page.locator(".op-panel .op-files a")
        assert notebook.settled(links.all_inner_texts, names) == names
        if view == "notebooks":  # Notebook 7 complains of plugins of its own that it does not load
            notebook.errors.clear()


def test_the_first_view_leads_from_the_result_to_a_code_its_rows_and_their_details(lab):
    with lab.opened("02_run_uploads.ipynb", shots="first-view") as notebook:
        notebook.page.set_viewport_size({"width": 1280, "height": 950})
        finish(notebook)
        notebook.page.wait_for_selector(".op-panel .op-by-merchant tbody tr", state="attached")
        for part in (".op-status", ".op-export-menu", ".op-codes li:nth-child(3)"):
            notebook.until(IN_WINDOW, [part, 925])  # above JupyterLab's status bar
        notebook.until(STAYS)
        notebook.page.locator(".op-panel .op-code:text('40097')").first.press("Enter")
        notebook.until("() => document.querySelectorAll('.op-rows tbody tr').length === 1")
        notebook.until(SHOWN, [".op-rows tbody", "青禾超市"])
        notebook.page.locator(".op-panel .op-rows .op-line").press("Enter")
        assert "invalid" in notebook.text(".op-details")
        names = notebook.page.locator(".op-panel .op-details dt").all()
        assert len(names) > 5
        assert max(name.bounding_box()["height"] for name in names) < 30  # one line each
        notebook.click("[data-tab=merchants]")
        notebook.page.locator(".op-panel .op-part-merchants .op-search").fill("云上")
        notebook.until("() => document.querySelectorAll('.op-by-merchant tbody tr').length === 1")
        notebook.page.set_viewport_size({"width": 1280, "height": 900})
        assert_every_tab_is_calm_and_accessible(notebook, 60)
        notebook.page.evaluate(
            LOST
        )  # as after an hour of sleep: a connection that is back, and lines that were lost
        notebook.until("() => document.querySelectorAll('.op-by-merchant tbody tr').length === 1")
        notebook.page.set_viewport_size({"width": 1280, "height": 500})
        notebook.click("[role=tab][data-tab=merchants]")
        notebook.until(
            "() => document.querySelector('.op-by-merchant tbody').getBoundingClientRect().top < 470"
        )


def test_a_run_is_watched_cancelled_gone_on_with_retried_and_exported(lab, open_lab_workspace):
    workspace = open_lab_workspace(300, [ONCE, WATCHED])
    with lab.opened(workspace.notebook("02_run_uploads"), shots="live-02") as notebook:
        begin(notebook)
        assert workspace.links < 300
        at = notebook.page.evaluate("() => document.querySelector('.op-panel progress').value")
        notebook.until(FURTHER, at)
        assert "Working or paused" in notebook.text(".op-chips")
        notebook.shot("running")
        assert_accessible(notebook)
        assert notebook.page.evaluate(CALM)
        notebook.until(
            "() => /begun \\d+ (second|minute)s? ago/.test(document.querySelector('.op-panel .op-head').innerText)"
        )
        covers = notebook.page.evaluate(COVERS, [".op-panel .op-new-menu", ".op-panel .op-list"])
        assert covers == ["false", 0, "New run"]

        notebook.click(".op-part-merchants .op-search")
        notebook.click(".op-cancel")
        notebook.until(HEAD, "unfinished")
        run = workspace.run()
        assert 0 < run.counts["pending"] < 300
        notebook.until(STATUS, "Cancelled.")  # whoever works in a tab stays there
        counts = "All 3 Did not succeed 1 Pending 2 Not begun 0 Succeeded 0"  # each merchant once
        assert notebook.settled(lambda: " ".join(notebook.text(".op-chips").split()), counts) == counts
        notebook.shot("cancelled")
        assert_accessible(notebook)
        notebook.page.set_viewport_size({"width": 500, "height": 900})
        notebook.until(HEADS, ["Merchant", "Succeeded", "Did not succeed", "Pending"])
        notebook.until(FITS)
        notebook.shot("narrow")
        notebook.page.set_viewport_size({"width": 340, "height": 900})
        notebook.until(SCROLLS)  # by keyboard, too
        assert notebook.violations() == []
        notebook.page.set_viewport_size({"width": 1280, "height": 1400})
        workspace.sim.play([])

        notebook.click(".op-resume")
        notebook.until(HEAD, "finished")
        notebook.until(STATUS, "299 of 300 rows succeeded")
        assert workspace.run().id == run.id
        assert workspace.run().counts == {"uploaded": 299, "refused": 1}

        notebook.click("[data-tab=merchants]")
        notebook.page.fill(".op-panel .op-part-merchants .op-search", "第000")
        counts = "All 1 Did not succeed 0 Pending 0 Not begun 0 Succeeded 1"
        assert notebook.settled(lambda: " ".join(notebook.text(".op-chips").split()), counts) == counts
        notebook.click("[data-tab=rows]")
        notebook.click(".op-retry-menu")
        search = notebook.page.locator(".op-panel .op-part-rows .op-search")
        search.fill("/8.")  # as typed, without Enter
        notebook.until("() => document.querySelectorAll('.op-retry-rows option').length === 3")
        notebook.page.select_option(".op-panel .op-retry-rows select", index=1)
        notebook.until(RETRIES, "Retry 0 rows")
        search.fill("/7.")
        notebook.page.locator(".op-panel button.op-retry").dispatch_event(
            "click"
        )  # of rows that are not shown yet
        notebook.until(RETRIES, "Retry 1 row")
        assert "299 of 300 rows succeeded" in notebook.text(".op-status")
        notebook.click("button.op-retry")
        notebook.until(STATUS, "The only row succeeded")
        assert notebook.settled(search.input_value, "") == ""
        notebook.click("[data-tab=merchants]")
        of_merchants = notebook.page.locator(".op-panel .op-part-merchants .op-search")
        assert notebook.settled(of_merchants.input_value, "") == ""
        retried = workspace.run("any")
        assert retried.record.parent == run.id
        assert retried.counts == {"uploaded": 1}

        notebook.click(".op-export-menu")
        notebook.click(".op-export")
        notebook.until(EXPORTED)
        notebook.page.wait_for_selector(".op-panel .op-files a")
        notebook.until(FOCUSED, "op-export")  # which was disabled meanwhile
        assert notebook.violations() == []
        assert (workspace.folder / "reports" / retried.id / "manifest.json").is_file()
        with notebook.page.expect_download() as download:
            notebook.click(".op-files a:text('report.xlsx')")
        assert download.value.suggested_filename == "report.xlsx"


def test_an_upload_is_confirmed_and_undone_once_the_number_of_merchants_is_typed(lab, open_lab_workspace):
    workspace = open_lab_workspace(300, [])
    with lab.opened(workspace.notebook("02_run_uploads"), shots="live-undo") as notebook:
        notebook.run_all()
        notebook.at_rest()
        notebook.click(".op-run")
        notebook.until(STATUS, "All 300 rows succeeded")
        notebook.click(".op-confirm-files")
        notebook.until(STATUS, "All 300 rows succeeded: present.")
        notebook.page.set_viewport_size({"width": 500, "height": 500})
        notebook.page.evaluate(SCROLLED)
        notebook.click(".op-undo-menu")
        notebook.page.wait_for_selector(".op-undo-confirm-count input", state="visible")
        notebook.until(IN_VIEW)
        notebook.shot("asked")
        notebook.until(APART)
        notebook.page.keyboard.press("Escape")
        notebook.page.wait_for_selector(".op-undo-confirm-count input", state="hidden")
        notebook.click(".op-undo-menu")
        notebook.page.wait_for_selector(".op-undo-confirm-count input", state="visible")
        assert_accessible(notebook)
        notebook.page.wait_for_selector(
            ".op-panel .op-confirm-files:not([disabled])"
        )  # what is undone is counted
        assert notebook.page.locator("button.op-undo").is_disabled()
        notebook.page.locator(".op-undo-confirm-count input").fill(str(len(workspace.run().by_merchant())))
        notebook.page.wait_for_selector("button.op-undo:not([disabled])")
        notebook.click("button.op-undo")
        notebook.until(STATUS, "All 300 rows succeeded: deleted.")
        notebook.shot("undone")
        assert workspace.run("undo").counts == {"deleted": 300}
        notebook.click(".op-runs-menu")
        notebook.until(SHOWN, [".op-run-table", "undone by"])
        notebook.click(f".op-head [data-run='{workspace.run('upload').id}']")
        notebook.until(HEAD, f"undone by run {workspace.run('undo').id}")
        notebook.shot("undone-upload")
        assert_accessible(notebook)


def test_a_kernel_restarted_in_mid_run_loses_nothing_and_the_panel_shows_what_is_so(lab, open_lab_workspace):
    workspace = open_lab_workspace(300, [SLOW])
    with lab.opened(workspace.notebook("02_run_uploads"), shots="live-restart") as notebook:
        begin(notebook)
        run = workspace.run()
        notebook.restart_and_run_all()
        notebook.until(STATUS, "It ended unexpectedly.")
        assert run.id in notebook.text(".op-head")
        assert "unfinished" in notebook.text(".op-head")
        notebook.at_rest()
        notebook.shot("cut-off")
        assert 0 < workspace.run().counts["pending"] < 300
        workspace.sim.play([])
        notebook.click(".op-resume")
        notebook.until(STATUS, "All 300 rows succeeded")
    assert workspace.run().id == run.id
    assert_whole(workspace, 300, again=128)


def test_a_panel_whose_kernel_was_killed_says_so_and_offers_nothing(lab, open_lab_workspace):
    workspace = open_lab_workspace(3)
    with lab.opened(
        workspace.notebook("02_run_uploads", KILLED), shots="live-killed", is_kept=False
    ) as notebook:
        notebook.run_all()
        notebook.page.wait_for_selector(".op-panel .op-run:not([disabled])")
        (workspace.folder / "go").touch()
        notebook.page.wait_for_selector(".op-panel.op-dead")
        assert "The kernel was restarted. Run all cells again: nothing is lost." in notebook.text(
            ".op-header"
        )
        notebook.until(
            "() => !document.querySelector('.op-panel :is(button, input, select):not([disabled])')"
        )
        assert "Loading" not in notebook.text(".op-grid")
        assert notebook.violations() == []


def test_a_closed_tab_does_not_touch_the_run_and_a_new_one_shows_it(lab, open_lab_workspace, wait_for):
    workspace = open_lab_workspace(300, [SLOW])
    path = workspace.notebook("02_run_uploads")
    with lab.opened(path, shots="live-tab-1", is_kept=False) as notebook:
        begin(notebook)
        run = workspace.run()
    at = workspace.links
    with lab.opened(path, shots="live-tab-2") as notebook:
        wait_for(lambda: workspace.links > at)
        notebook.run_all()
        notebook.until(HEAD, run.id)
        workspace.sim.play([])
        notebook.until(STATUS, "All 300 rows succeeded")
    assert_whole(workspace, 300)


def test_a_run_continues_and_is_shown_while_a_cell_blocks_the_kernel_and_no_click_is_lost(
    lab, open_lab_workspace, wait_for
):
    workspace = open_lab_workspace(60, [Fault(delay=0.1)])
    with lab.opened(workspace.notebook("02_run_uploads", BLOCK), shots="live-blocked") as notebook:
        notebook.run_all()
        wait_for((workspace.folder / "blocked").exists)
        notebook.until(STATUS, "All 60 rows succeeded")
        notebook.click(".op-new-menu")
        assert not (workspace.folder / "free").exists()
        (workspace.folder / "go").touch()
        notebook.page.wait_for_selector(".op-panel .op-list input")
    assert_whole(workspace, 60)


def test_with_300_merchants_buttons_answer_while_a_run_works_and_the_pages_memory_stays_flat(
    lab, open_lab_workspace
):
    workspace = open_lab_workspace(ROWS, [WATCHED], merchants=300)
    with lab.opened(workspace.notebook("02_run_uploads"), shots="live-300") as notebook:
        begin(notebook)
        answers, heap = [], []
        notebook.click(".op-new-menu")
        notebook.page.wait_for_selector(".op-panel .op-list")
        for at in range(6):
            answers.append(notebook.page.evaluate(ANSWERS, [".op-panel .op-new-menu", ".op-list"]))
            heap.append(notebook.page.evaluate(HEAP) / 1e6)
            if at == 3:
                notebook.shot("running")
            notebook.page.wait_for_timeout(500)
        assert "running" in notebook.text(".op-head")
        workspace.sim.play([])
        # In milliseconds, with room for a busy machine: a kernel that the run blocks answers only when it ends.
        assert sorted(answers)[len(answers) // 2] < 3000
        assert heap[-1] < heap[0] + 8
        notebook.until(STATUS, f"All {ROWS:,} rows succeeded")
        notebook.click(".op-new-menu")
        notebook.page.wait_for_selector(".op-panel .op-list", state="hidden")  # it covered the tabs
        notebook.click("[role=tab][data-tab=merchants]")
        notebook.until(SHOWN, [".op-by-merchant tbody", "& <b>Co</b>"])  # markup in a name is text
        assert_every_tab_is_calm_and_accessible(notebook, 90)
    assert_whole(workspace, ROWS)
