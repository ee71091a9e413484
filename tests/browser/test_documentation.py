"""The built documentation in a real browser, opened from the folder: `make docs` builds it, CI before the tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("pages")]

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
PHONE = {"width": 390, "height": 844}
NEEDED = os.environ.get("TCB_OPS_NEED_BROWSER") == "1"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on a phone that asks nobody outside."""
    if not (SITE / "index.html").exists():
        (pytest.fail if NEEDED else pytest.skip)("the documentation is not built: make docs")
    page = browser.new_page(viewport=PHONE)
    outside: list[str] = []
    page.on(
        "request",
        lambda asked: outside.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None,
    )
    yield page
    page.close()
    assert outside == []


@pytest.mark.parametrize(
    ("lang", "query", "title"),
    [
        ("en", "refresh token", "Let tcb-ops refresh the tokens"),
        ("en", "85088", "Errcodes"),
        ("en", "老城面馆", "Analyse runs with pandas"),
        ("zh", "重试", "继续与重试"),
        ("zh", "令牌服务", "从令牌服务取得令牌"),
        ("zh", "85088", "错误码"),
    ],
)
def test_search_finds_words_errcodes_and_chinese_without_a_server(
    page: Page, lang: str, query: str, title: str
):
    page.goto(f"{(SITE / lang / 'search.html').as_uri()}?q={query}")
    page.locator("#search-results li a", has_text=title).first.wait_for(timeout=120_000)


def test_the_switch_leads_to_the_same_page_in_the_other_language(page: Page):
    page.goto((SITE / "en" / "howto" / "lists.html").as_uri())
    for lang in ("zh", "en"):
        page.click("a.other-language")
        page.wait_for_url((SITE / lang / "howto" / "lists.html").as_uri())


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_page_scrolls_sideways_on_a_phone(page: Page, lang: str):
    wide = []
    for file in sorted((SITE / lang).rglob("*.html")):
        page.goto(file.as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > PHONE["width"]:
            wide.append(str(file.relative_to(SITE)))
    assert wide == []
