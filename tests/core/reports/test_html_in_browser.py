"""report.html and report.pdf in a real Chromium: nothing loaded, nothing run, nothing broken, for everybody to read."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest
from workspace import store_says

from tcb_ops.engine.stop_errors import stop_reason
from tcb_ops.errors import StoppedError
from tcb_ops.features.notebooks.printing import CHROMIUM, find_chromium, write_pdf
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.ledger.records import EnvRecord
from tcb_ops.model import Outcome, Owner, Reason, RowEnd, RunSettings
from tcb_ops.reports.formats.html import page as page_of
from tcb_ops.reports.summary import RunSummary
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("pages")]
WIDTHS = {"laptop": 1280, "phone": 390}
LONG = "商户名称很长而且没有空格" * 12 + "AnEndWithoutAnySpace" * 3
EVIL = '<img src="http://203.0.113.9/x.png" onerror="ran=1"><script>ran=1</script>"\'>&lt;'
CODES = (
    61007, 85088, 45009, -601012, 40097, -501017, 61003, 40001, 48001, -1,
    50002, -501000, 61023, 40164, 45011, -501005, 61016, 42001, 41001, 987654,
)  # fmt: skip


def no_browser(why):
    """Skip, loudly; fail where a browser is a must."""
    if NEEDED:
        pytest.fail(f"NO BROWSER: {why}")
    pytest.skip(f"NO BROWSER: {why}")


# Asked before the suite's own fixtures clear the environment.
FOUND, NEEDED = find_chromium(), os.environ.get("TCB_OPS_NEED_BROWSER") == "1"


@pytest.fixture(scope="module")
def chromium():
    if FOUND is None:
        no_browser("no chromium in PATH")
    return FOUND


@pytest.fixture(scope="module")
def browser(chromium):
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        no_browser("playwright is not installed")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def look(browser):
    """Open a file in the browser: `look(file, width)`; the page notes the addresses that it asks for."""
    pages: list[Any] = []

    def opened(file, width):
        page = browser.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(file.as_uri())
        return page

    yield opened
    for page in pages:
        page.close()


def written(reported, folder, lang=Lang.EN):
    """The page alone: the other files of a report take longer, and look like nothing."""
    file = folder / "report.html"
    summary = RunSummary(reported.ledger, reported.run)
    shown = page_of(reported.ledger, summary, settings(lang), {"tcb-ops": "0.1.0"}, now=1_764_036_000.0)
    file.write_text(shown, encoding="utf-8")
    return file


def settings(lang):
    return Settings(lang=lang, timezone="Asia/Shanghai")


def violations(page):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found]


def many(merchants, names):
    return [
        EnvRecord(at, f"prod-{at:04x}", f"wx{at:016x}", names(at), Owner.MERCHANT, left=False)
        for at in range(merchants)
    ]


def ends_of(rows, codes=CODES):
    chance = random.Random(7)
    return [
        RowEnd(
            0,
            Outcome.REFUSED,
            Reason.REFUSED,
            errcode=chance.choice(codes),
            errmsg="no",
            rid="65f-1",
            ended_at=at,
        )
        if chance.random() < 0.4
        else RowEnd(0, Outcome.UPLOADED, errcode=0, ended_at=at)
        for at in (1_764_034_001 + number * 0.01 for number in range(rows))
    ]


# The looks that a page may have; each gives a run.
SHOWN: dict[str, Callable[..., Any]] = {
    "3 merchants, rehearsed": lambda a_run: a_run(
        ends_of(60), places=many(3, "商户{}".format), target="simulator"
    ),
    "300 merchants, 20 codes": lambda a_run: a_run(ends_of(4_000), places=many(300, "商户{}".format)),
    "names of 200 characters": lambda a_run: a_run(
        ends_of(400), places=many(20, (LONG + "{}").format), path="a" * 400 + "{line}"
    ),
    "every outcome": lambda a_run: a_run(),
    "all good": lambda a_run: a_run([RowEnd(0, Outcome.UPLOADED, ended_at=1_764_034_009.0)] * 30),
    "unfinished": lambda a_run: a_run(
        [*ends_of(30), RowEnd(0, Outcome.PENDING)], places=many(3, "商户{}".format), finished=False
    ),
    "no rows": lambda a_run: a_run([]),
}


@pytest.mark.parametrize(("shown", "lang"), [*zip(SHOWN, cycle(Lang), strict=False)])
def test_the_page_fits_is_accessible_and_asks_for_nothing(a_run, look, tmp_path, shown, lang):
    file = written(SHOWN[shown](a_run), tmp_path, lang)
    for width in WIDTHS.values():
        page = look(file, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "an opened detail is too wide"
        page.evaluate(
            "for (const one of [...document.querySelectorAll('details')].slice(5)) one.open = false"
        )
        if width == WIDTHS["laptop" if lang is Lang.EN else "phone"]:
            assert violations(page) == []
        assert page.asked == [file.as_uri()]


def test_what_is_broken_whose_and_what_next_stand_on_the_first_screen(a_run, look, tmp_path):
    reported = a_run(ends_of(4_000, CODES[:6]), places=many(300, "商户{}".format))
    page = look(written(reported, tmp_path), WIDTHS["laptop"])
    for seen in (".verdict", ".next tbody tr:nth-child(4)"):
        box = page.locator(seen).bounding_box()
        assert box["y"] + box["height"] < 900, seen
    page.emulate_media(media="print")
    assert page.locator("footer").is_hidden(), "it would begin an empty page"


def test_a_search_counts_causes_and_merchants_and_hides_what_has_neither(a_run, look, tmp_path):
    page = look(written(a_run(ends_of(4_000), places=many(600, "商户{}".format)), tmp_path), WIDTHS["laptop"])
    merchants = page.locator("[data-codes]")
    name = merchants.nth(300).get_attribute("data-name")
    codes = set(merchants.nth(300).get_attribute("data-codes").split("|"))
    for query, causes, found in (
        (name, len(codes), 1),  # its causes are found although they name other merchants
        ("45009", 1, page.locator("[data-codes*='45009']").count()),
        ("nobody", 0, 0),
    ):
        page.fill("#find", query)
        counts = f"Causes: {causes} · Merchants: {found} · 100 merchants are not on this page"
        assert page.locator(".find output").inner_text() == counts
        assert page.locator("tr[data-code]:visible").count() == causes
        for section in page.locator("section[data-search]:visible").all():
            assert section.locator("tr:not(thead *):visible, details:visible").count()
    assert page.locator("h2:visible").all_inner_texts() == ["The run over time", "About this run"]
    page.fill("#find", "")
    assert page.locator("[hidden]").count() == 0
    assert page.locator("tr[data-code]").count() == len(CODES)


def test_planted_html_and_script_are_only_text(a_run, look, tmp_path):
    ends = [
        RowEnd(0, Outcome.FAILED, Reason.STORE_REFUSED, store_says(EVIL), 0, EVIL, EVIL, 400, EVIL),
        RowEnd(0, Outcome.FAILED, Reason.NO_ANSWER, store_says(EVIL)),
        RowEnd(0, Outcome.PENDING),
    ]
    reported = a_run(
        ends,
        finished=False,
        places=(EnvRecord(0, EVIL, EVIL, EVIL, Owner.MERCHANT, left=False),),
        path=f"{EVIL}{{line}}",
        note=EVIL, operator=EVIL, host=EVIL, list_name=EVIL, root=EVIL, parent=EVIL, settings=RunSettings(cluster=EVIL, backup=EVIL),
    )  # fmt: skip
    reported.ledger.stop(reported.run, stop_reason(StoppedError(Bilingual(EVIL, EVIL))))
    file = reported.export(tmp_path / "out") / "report.html"
    page = look(file, WIDTHS["laptop"])
    assert page.evaluate("typeof ran") == "undefined"
    assert page.locator("img, script:not(body > script:last-child), [onerror]").count() == 0
    assert page.asked == [file.as_uri()]
    assert EVIL in page.locator("dl").inner_text(), "it reads back as it was"
    assert EVIL in page.locator("summary .name").inner_text()


def test_the_keyboard_reaches_the_table_and_opens_the_details(a_run, look, tmp_path):
    page = look(written(a_run(ends_of(60)), tmp_path), WIDTHS["phone"])
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = false")
    for wanted in (
        "document.activeElement.className == 'scroll'",
        "document.activeElement.tagName == 'SUMMARY'",
    ):
        presses = 0
        while not page.evaluate(wanted):
            page.keyboard.press("Tab")
            presses += 1
            assert presses < 60, wanted
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1


@pytest.mark.parametrize("lang", list(Lang))
def test_the_pdf_is_a4_with_its_text_in_both_scripts(a_run, chromium, tmp_path, monkeypatch, lang):
    monkeypatch.setenv(CHROMIUM, chromium)
    reader = shutil.which("pdftotext")
    settings = RunSettings(backup="/srv/saved")
    reported = a_run(
        ends_of(600), places=many(12, "茶语小铺{}".format), target="simulator", settings=settings
    )
    made = tmp_path / "report.pdf"
    assert write_pdf(written(reported, tmp_path, lang), made) is None
    assert made.read_bytes().startswith(b"%PDF-")
    assert b"/MediaBox [0 0 594" in made.read_bytes() or b"/MediaBox [0 0 595" in made.read_bytes()
    if reader is None:
        return
    text = subprocess.run([reader, "-layout", made, "-"], capture_output=True, check=True).stdout.decode()
    text = re.sub(r"[ \n]+", "", text)
    for told in ("SIMULATED演练", "茶语小铺1", {Lang.EN: "Whattodonext", Lang.ZH: "下一步做什么"}[lang]):
        assert told in text
    pages = [page for page in text.split("\f") if page]
    for number, page in enumerate(pages, 1):
        assert page.startswith("SIMULATED演练·"), "each is headed"
        assert f"20251125-093000-k7q2{number}/{len(pages)}" in page
    assert all(code in text for code in map(str, CODES)), "folded causes are printed, too"
    assert not re.search("/srv|tcb-opsretry|--ledger", text), "no paths of the machine"
