"""The folder that lab fills, the parameters cell, how a notebook is executed, and its page."""

import html
import os
import re
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tcb_ops.errors import UsageError
from tcb_ops.features.notebooks.execute import (
    CellRunner,
    PageFacts,
    cell_name,
    decide_exit_code,
    render_page,
)
from tcb_ops.features.notebooks.parameters import (
    NOTEBOOKS,
    Source,
    fill,
    find_notebook,
    notebook_names,
    parameters_of,
    take_parameters,
    with_values,
)
from tcb_ops.features.simulator.sample import SAMPLE
from tcb_ops.i18n import Bilingual, Lang

ONE = "02_run_uploads.ipynb"


def test_a_new_workspace_gets_the_notebooks_and_the_sample(tmp_path):
    new, different = fill(tmp_path / "work", Lang.ZH)
    assert {Path(name).stem for name in new if "/" not in name} == set(notebook_names())
    assert (tmp_path / "work" / "data" / "files" / "icon" / "cart.svg").is_file()
    for file in (tmp_path / "work").rglob("*"):
        assert not re.search(r'[<>:"\\|?*]|[. ]$', file.name)
    data = tmp_path / "work" / "data"
    for file in data.rglob("*"):
        source = SAMPLE / ("zh" if file.name == "README.md" else "") / file.relative_to(data)
        assert file.is_dir() or file.read_bytes() == source.read_bytes()
    listed = re.findall(r"`([\w.-]+)/?`(?=[^\n]*\|[^\n]*\|)", (data / "README.md").read_text("utf-8"))
    assert {*listed, "README.md"} == {file.name for file in data.iterdir()}
    assert (tmp_path / "work" / ONE).read_bytes() == (NOTEBOOKS / "zh" / ONE).read_bytes()
    for lang in Lang:  # a notebook in the other language does not differ
        new, different = fill(tmp_path / "work", lang)
        assert (new, different) == ([], [])


@pytest.mark.parametrize("name", [ONE, "data/paths.csv"])
def test_existing_files_are_not_overwritten_and_those_that_differ_are_listed(tmp_path, name):
    fill(tmp_path, Lang.EN)
    (tmp_path / name).write_bytes(b"mine")
    before = sorted(tmp_path.rglob("*"))
    new, different = fill(tmp_path, Lang.EN)
    assert (new, different) == ([], [name])
    assert (tmp_path / name).read_bytes() == b"mine"
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / name).rename(tmp_path / "mine.old")
    new, different = fill(tmp_path, Lang.EN)
    assert (new, different) == ([name], [])
    assert (tmp_path / "mine.old").read_bytes() == b"mine"


@pytest.mark.parametrize("wanted", ["02", "run_uploads", "02_run_uploads"])
def test_a_notebook_is_found_by_a_part_of_its_name(wanted):
    assert find_notebook(wanted, Lang.EN) == NOTEBOOKS / ONE
    assert find_notebook(wanted, Lang.ZH) == NOTEBOOKS / "zh" / ONE


@pytest.mark.parametrize("wanted", ["", "nope", "nope.ipynb", "../pyproject.toml"])
def test_what_is_no_notebook_is_refused_with_the_names(wanted):
    with pytest.raises(UsageError, match="02_run_uploads"):
        find_notebook(wanted, Lang.EN)


CELL = """\
# Parameters
target = "simulator"  # or "live"
名称: str = ""  # 商户 # 名称
rows = 8
share = 0.5
dry = True
many = ["a"]
late = rows + 1
"""
KNOWN = parameters_of(CELL)


def test_a_parameters_cell_gives_names_and_defaults_in_order():
    assert [*KNOWN.items()] == [
        ("target", "simulator"),
        ("名称", ""),
        ("rows", 8),
        ("share", 0.5),
        ("dry", True),
        ("many", None),
        ("late", None),
    ]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("名称=007", "007"),
        ("名称=true", "true"),
        ("名称=a=b", "a=b"),
        ("名称=", ""),
        ("名称= a ", " a "),
        ("名称=云上茶铺", "云上茶铺"),
        ("target=live", "live"),
        ("rows=007", 7),
        ("rows=-3", -3),
        ("share=2", 2.0),
        ("share=.25", 0.25),
        ("dry=false", False),
        ("dry=True", True),
    ],
)
def test_a_value_is_of_its_defaults_type(word, value):
    taken = take_parameters(KNOWN, [word], "nb")[word.partition("=")[0]]
    assert (taken, type(taken)) == (value, type(value))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rows=7.0"], "-p rows must be a whole number."),
        (["rows="], "-p rows must be a whole number."),
        (["share=x"], "-p share must be a number."),
        (["dry=7"], "-p dry must be true or false."),
        (["many=b"], "neither text nor a number"),
        (["late=3"], "neither text nor a number"),
        (["target"], "NAME=VALUE"),
        (["row=1"], "has no parameter row. Its parameters: target, 名称, rows, share, dry, many, late"),
        (["access_token=abc"], "secrets"),
        (["appSecret=abc"], "secrets"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_what_does_not_fit_is_refused_in_words(words, says):
    with pytest.raises(UsageError, match=says) as refused:
        take_parameters(KNOWN, words, "nb")
    assert "abc" not in str(refused.value)


def test_values_stand_in_a_cell_after_the_parameters_and_replace_those_of_an_earlier_run():
    cell = new_code_cell(CELL, metadata={"tags": ["parameters"]})
    source = Source("nb", Path("nb.ipynb"), new_notebook(cells=[cell, new_code_cell("rows")]), KNOWN)
    once = with_values(source, {"名称": 'a "b"\n', "rows": 7})
    again = with_values(replace(source, content=once), {"dry": False})
    assert [cell.source for cell in once.cells[1:]] == [
        "# Parameters\n名称 = 'a \"b\"\\n'\nrows = 7",
        "rows",
    ]
    assert [cell.source for cell in again.cells[1:]] == ["# Parameters\ndry = False", "rows"]


@pytest.fixture
def cells():
    return [new_code_cell("# One\n1"), new_code_cell("# Two\n2")]


@pytest.fixture
def runner(cells, monkeypatch):
    """Runs cells without a kernel; `done` are those that it was given."""
    found = CellRunner(new_notebook(cells=cells))
    found.done = []
    monkeypatch.setattr(found._client, "setup_kernel", lambda **_: nullcontext())
    monkeypatch.setattr(found._client, "execute_cell", lambda cell, _index: found.done.append(cell.source))
    return found


def test_cells_are_reported_by_number_and_name(runner):
    reported = []
    runner.run({}, lambda *cell: reported.append(cell))
    assert reported == [(1, 2, "One"), (2, 2, "Two")]
    assert runner.done == ["# One\n1", "# Two\n2"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_no_kernel_gets_ends_the_notebook_before_the_next_cell(runner, number, code):
    runner.run({}, lambda *_: os.kill(os.getpid(), number))
    assert (runner.exit_code, runner.done) == (code, [])


@pytest.mark.parametrize(
    ("result", "signalled", "own", "other", "code"),
    [
        (None, 0, None, False, 0),
        (0, 0, None, False, 0),
        (1, 0, None, False, 1),
        (3, 0, None, False, 3),
        (1, 143, None, False, 1),
        (None, 143, None, False, 143),
        (None, 130, 130, False, 130),
        (130, 143, 130, False, 143),
        (0, 130, None, True, 130),
        (0, 0, None, True, 3),
        (None, 0, None, True, 3),
        (None, 0, 2, False, 2),
        (0, 0, 2, False, 2),
        (3, 0, 2, False, 3),
    ],
)
def test_the_exit_code_follows_from_the_result_the_signal_and_the_errors(result, signalled, own, other, code):
    assert decide_exit_code(result, signalled, own, other=other) == code


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("# Run\nx", "Run"),
        ("\n## 运行  \n", "运行"),
        ("x = 1\ny", "x = 1"),
        ("", ""),
        ("a " * 40, "a " * 28 + "a …"),
    ],
)
def test_a_cell_is_named_by_its_first_line(source, name):
    assert cell_name(new_code_cell(source)) == name


ENGLISH, CHINESE = (PageFacts(lang) for lang in (Lang.EN, Lang.ZH))
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def notebook():
    said = {"exit_code": 2, "text": {"en": "two problems", "zh": "两处问题"}}
    card = new_output("display_data", {"text/html": "<p>two problems</p>"}, metadata={"tcb_ops": said})
    error = new_output("error", ename="InputError", evalue="en", traceback=["once more"])
    strange = new_output("error", ename="KeyError", evalue="'x'", traceback=["line 1", "line 2", "line 3"])
    cells = [
        new_markdown_cell("# 夜间 <巡检>\n\nwords"),
        new_code_cell("hidden = 1"),
        new_code_cell("hidden = 2", outputs=[new_output("stream", name="stdout", text=EVIL)]),
        new_code_cell("hidden = 3", outputs=[new_output("stream", name="stderr", text="a warning")]),
        new_code_cell("hidden = 4", outputs=[card, error]),
        new_code_cell("hidden = 5", outputs=[strange]),
        new_code_cell(
            "hidden = 6", outputs=[new_output("display_data", {"text/html": "<table><td>1</td></table>"})]
        ),
    ]
    about = {"started": "2026-11-25T02:30:05+08:00", "parameters": {"note": EVIL, "lang": "en"}}
    return new_notebook(cells=cells, metadata={"tcb_ops": about})


@pytest.mark.slow
def test_it_ends_where_a_cell_failed(notebook):
    notebook.cells += [new_markdown_cell("What happened."), new_code_cell("run")]
    assert "What happened." not in render_page(notebook, "own", ENGLISH)
    notebook.cells = [each for each in notebook.cells if each.source not in {"hidden = 4", "hidden = 5"}]
    assert "What happened." in render_page(notebook, "own", ENGLISH)


@pytest.mark.slow
def test_it_shows_results_without_code_traces_or_warnings(notebook):
    page = render_page(notebook, "own", ENGLISH)
    assert "<table><td>1</td></table>" in page
    assert page.count("two problems") == 1
    assert "This cell failed: KeyError: 'x'" in html.unescape(page)
    for gone in ("hidden", "line 2", "a warning", "两处问题", "once more"):
        assert gone not in page


@pytest.mark.slow
def test_control_characters_are_shown_as_such(notebook):
    notebook.metadata.tcb_ops["parameters"]["note"] = "a\x1b[2Jb"
    page = render_page(notebook, "own", CHINESE)
    assert "note = a␛[2Jb" in page
    assert "\x1b" not in page


def test_it_says_which_run_it_was_how_it_ended_and_that_it_was_a_rehearsal(notebook):
    page = render_page(
        notebook,
        "own",
        replace(
            CHINESE,
            run="r-1",
            verdict=Bilingual("en", "有一行未成功。"),
            bad=True,
            simulated=True,
            next=Bilingual("en", "重新运行 1 行："),
            command="tcb-ops retry r-1",
        ),
    )
    assert "SIMULATED 演练" in page
    assert '<p class="verdict bad">有一行未成功。</p>' in page
    assert "r-1 · 2026-11-25 02:30+08:00" in page
    assert '<p class="next">重新运行 1 行：<code>tcb-ops retry r-1</code></p>' in page
    assert "此单元格出错：KeyError" in page
    assert 'lang="zh-CN"' in page
    assert "SIMULATED" not in render_page(notebook, "own", CHINESE)


@pytest.mark.slow
def test_nothing_in_it_can_run_or_call_out(notebook):
    page = render_page(notebook, "own", replace(ENGLISH, run=EVIL, verdict=Bilingual(EVIL, EVIL)))
    assert "<script" not in page
    assert (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
        in page
    )
    assert re.findall(r"https?:|@import|url\(", page) == []
    assert "<title>夜间 &lt;巡检&gt;</title>" in page
