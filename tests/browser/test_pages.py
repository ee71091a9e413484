"""The page that `tcb-ops notebook` leaves, in a real browser."""

import os
import subprocess
import sys

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
WORDS = ("SIMULATED 演练", "28 environments: 21 healthy", "begun 20", "Newly broken", "Who must act", "→ ")
"""What the first screen of an audit's page says: whether it was live, what of, when, what is new, and what to do."""
LOWEST = """words => Math.max(...words.map(each => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) if (walker.currentNode.data.includes(each)) {
    const range = document.createRange();
    range.selectNode(walker.currentNode);
    return range.getBoundingClientRect().top;
  }
  return Infinity;
}))"""


def test_the_first_screen_of_a_page_answers_and_axe_finds_nothing_light_dark_wide_or_narrow(
    browser, tmp_path
):
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
    words = (sys.executable, "-m", "tcb_ops", "notebook", "03", "--out", "out", "--lang", "en")
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    for scheme in ("light", "dark"):
        for width in (1200, 600, 360):
            page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
            page.goto((tmp_path / "out" / "03_errcode_audit.html").as_uri())
            assert width < 1200 or page.evaluate(LOWEST, [*WORDS]) < 1000
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = Axe().run(page).response["violations"]
            assert [(one["id"], node["html"]) for one in found for node in one["nodes"]] == []
            page.close()


def test_a_page_with_data_saves_its_files_where_it_is_alone(browser, a_run, tmp_path):
    report = a_run().export(tmp_path / "report", with_data=True)
    alone = tmp_path / "alone" / "sent.html"
    alone.parent.mkdir()
    alone.write_bytes((report / "report.html").read_bytes())
    page = browser.new_page()
    page.goto(alone.as_uri())
    for name in ("results.csv", "errcodes.csv", "manifest.json"):
        with page.expect_download() as download:
            page.locator(f'.files a[href="{name}"]').click()
        assert download.value.suggested_filename == name
        assert download.value.path().read_bytes() == (report / name).read_bytes()
    page.close()
