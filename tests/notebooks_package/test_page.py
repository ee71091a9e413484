"""The page of an executed notebook: what it shows, and what it never holds."""

import html
import re
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.notebooks.page import PageFacts, render_page

ENGLISH, CHINESE = (PageFacts(lang, ZoneInfo("Asia/Shanghai")) for lang in (Lang.EN, Lang.ZH))
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def notebook():
    error = new_output("error", ename="InputError", evalue="en", traceback=["two problems", "两处问题"])
    strange = new_output("error", ename="KeyError", evalue="'x'", traceback=["line 1", "line 2", "line 3"])
    cells = [
        new_markdown_cell("# 夜间 <巡检>\n\nwords"),
        new_code_cell("hidden = 1"),
        new_code_cell("hidden = 2", outputs=[new_output("stream", name="stdout", text=EVIL)]),
        new_code_cell("hidden = 3", outputs=[new_output("stream", name="stderr", text="a warning")]),
        new_code_cell("hidden = 4", outputs=[error]),
        new_code_cell("hidden = 5", outputs=[strange]),
        new_code_cell(
            "hidden = 6", outputs=[new_output("display_data", {"text/html": "<table><td>1</td></table>"})]
        ),
    ]
    papermill = {"start_time": "2026-11-24T18:30:05.123+00:00", "parameters": {"note": EVIL, "lang": "en"}}
    return new_notebook(cells=cells, metadata={"papermill": papermill})


def test_it_shows_results_without_code_traces_or_warnings(notebook):
    page = render_page(notebook, "own", ENGLISH)
    assert "<table><td>1</td></table>" in page
    assert "This cell failed: two problems" in page
    assert "This cell failed: KeyError: 'x'" in html.unescape(page)
    for gone in ("hidden", "line 2", "a warning", "两处问题"):
        assert gone not in page


def test_papermills_own_marks_are_left_out_and_control_characters_are_shown_as_such(notebook):
    mark = {"tags": ["papermill-error-cell-tag"]}
    notebook.cells.insert(0, new_markdown_cell("An Exception was encountered", metadata=mark))
    notebook.metadata.papermill["parameters"]["note"] = "a\x1b[2Jb"
    page = render_page(notebook, "own", CHINESE)
    assert "Exception" not in page
    assert "note = a�[2Jb" in page
    assert "\x1b" not in page


def test_it_says_which_run_it_was_how_it_ended_and_that_it_was_a_rehearsal(notebook):
    page = render_page(
        notebook,
        "own",
        replace(CHINESE, run="r-1", verdict=Bilingual("en", "有一行未成功。"), bad=True, simulated=True),
    )
    assert "SIMULATED 演练" in page
    assert '<p class="verdict bad">有一行未成功。</p>' in page
    assert "r-1 · 2026-11-25 02:30" in page
    assert "此单元格出错: 两处问题" in page
    assert 'lang="zh-CN"' in page
    assert "SIMULATED" not in render_page(notebook, "own", CHINESE)


def test_nothing_in_it_can_run_or_call_out(notebook):
    page = render_page(notebook, "own", replace(ENGLISH, run=EVIL, verdict=Bilingual(EVIL, EVIL)))
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert re.findall(r"https?:|@import|url\(", page) == []
    assert "<title>夜间 &lt;巡检&gt;</title>" in page
