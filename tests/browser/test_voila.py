"""A notebook as a page of Voila, in a real browser: the panel works, and its report opens."""

import pytest
from jupyter_lab import Opened, voila_server

pytestmark = [pytest.mark.browser, pytest.mark.soak, pytest.mark.xdist_group("voila")]
STATUS = "words => document.querySelector('.op-panel .op-status')?.innerText.includes(words)"


@pytest.fixture
def shown(browser, voila_shop, tmp_path):
    voila_shop.notebook("02_run_uploads")
    with voila_server(voila_shop.folder / "02_run_uploads.ipynb", tmp_path) as base:
        page = browser.new_page(viewport={"width": 1280, "height": 950})
        page.set_default_timeout(240_000)
        page.goto(f"{base}/")
        yield Opened(page, base, tmp_path)
        page.close()


def test_a_notebook_is_a_page_without_code_whose_panel_uploads_and_exports(shown, voila_shop):
    page = shown.page
    shown.click(".op-run")
    shown.until(STATUS, "29 of 30 rows")
    page.wait_for_selector(".op-panel .op-by-merchant tbody tr", state="attached")
    assert "panels.upload" not in page.inner_text("body")
    assert shown.violations() == []
    shown.click(".op-export-menu")
    shown.click(".op-export")
    shown.open_files(downloaded={"csv", "xlsx", "pdf"}, text="29 of 30 rows succeeded")
    assert page.request.get(f"{shown.address}/voila/files/tokens.csv").status in {403, 404}
    assert voila_shop.run().counts == {"uploaded": 29, "refused": 1}
