"""The notebooks: one form, open cells, no logic; in two languages, with the outputs of the sample."""

import ast
import itertools
import re
from pathlib import Path

import nbformat
import pytest
from messages import translated

from notebooks import in_chinese
from tcb_ops import panels
from tcb_ops.features.notebooks.parameters import NOTEBOOKS, in_language, notebook_names
from tcb_ops.i18n import Lang

NAMES = ("01_generate_links", "02_run_uploads", "03_errcode_audit", "04_analysis")
SAMPLE = {"01_generate_links", "02_run_uploads", "03_errcode_audit"}
"""Those that make a run."""
LOGIC = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.Try, ast.Lambda)


@pytest.fixture(params=[(name, lang) for name in NAMES for lang in Lang], ids="-".join)
def file(request) -> Path:
    name, lang = request.param
    return in_language(NOTEBOOKS / f"{name}.ipynb", lang)


@pytest.fixture
def notebook(file):
    return nbformat.read(file, as_version=4)


@pytest.fixture
def cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_these_are_all():
    assert tuple(notebook_names()) == NAMES


def test_a_notebook_has_six_to_nine_open_cells_of_a_few_lines_below_its_parameters(cells):
    parameters, *others = cells
    assert parameters.metadata.tags == ["parameters"]
    assert 6 <= len(others) + 1 <= 9
    assert not [cell for cell in cells if cell.metadata.get("jupyter", {}).get("source_hidden")]
    for cell in others:
        lines = [
            line for line in cell.source.splitlines() if line and not line.startswith(("import", "from"))
        ]
        assert len(lines) <= 3, cell.source


def test_a_sentence_stands_before_each_cell(notebook):
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown"
    for before, kind in itertools.pairwise(kinds):
        assert (before, kind) != ("code", "code")


def test_a_notebook_holds_no_logic_and_passes_arguments_by_name(cells):
    for cell in cells:
        nodes = [*ast.walk(ast.parse(cell.source))]
        assert not [node for node in nodes if isinstance(node, LOGIC)], cell.source
        assert all(len(node.args) <= 1 for node in nodes if isinstance(node, ast.Call)), cell.source


def test_every_cell_below_the_parameters_keeps_the_result_of_the_sample(cells):
    assert not cells[0].outputs
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert all(cell.outputs for cell in cells[1:])
    assert "error" not in {output.output_type for cell in cells for output in cell.outputs}


def test_no_state_of_widgets_and_no_path_of_a_machine_is_kept(file):
    text = file.read_text(encoding="utf-8")
    assert "widget" not in text
    for own in ("/tmp/", "/home/", f"{Path.home()}/", "127.0.0.1", str(NOTEBOOKS.parent)):  # noqa: S108  looked for
        assert own not in text
    assert len(text.encode()) <= 60_000 or "04_" in file.name


def test_a_reader_who_trusts_nothing_sees_what_is_kept_and_no_link_that_leads_nowhere(cells):
    html = "".join(o["data"].get("text/html", "") for cell in cells for o in cell.outputs if "data" in o)
    assert not re.findall("<(?:svg|a|script|style)[ >]", html.replace("<style scoped>", ""))
    assert not re.findall("hsl\\(", html)


def test_what_04_shows_of_a_run_of_the_sample_is_of_its_days():
    cells = nbformat.read(NOTEBOOKS / "04_analysis.ipynb", 4).cells
    html = {cell.source.splitlines()[-1]: str(cell.get("outputs")) for cell in cells}
    (first, last), begun = (
        re.search(r"from (\S+) to (\d{4}-\d\d-\d\d)", html["history"]).groups(),
        re.search(r"begun (\d{4}-\d\d-\d\d)", html["run"])[1],
    )
    assert first <= begun <= last
    assert f"reports/{begun.replace('-', '')}-" in html["run.report()"]


@pytest.mark.parametrize("name", NAMES)
def test_the_chinese_notebook_is_the_english_one_in_the_words_of_the_catalogue(name):
    english, chinese = (nbformat.read(in_language(NOTEBOOKS / f"{name}.ipynb", lang), 4) for lang in Lang)
    made = in_chinese(english, translated())
    assert [cell.source for cell in chinese.cells] == [cell.source for cell in made.cells]
    assert all(cell.source for cell in chinese.cells)


def test_what_the_parameters_say_is_what_the_calls_take(cells):
    given = {node.targets[0].id for node in ast.parse(cells[0].source).body}
    used = {
        node.id
        for cell in cells[1:]
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    assert given <= used


@pytest.mark.needs("health")
@pytest.mark.parametrize("name", sorted(SAMPLE))
def test_the_script_below_the_cells_is_python_that_names_the_functions_of_the_library(name):
    import tcb_ops as tcb

    last = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells[-1].source
    script = re.search("```python\n(.*?)```", last, re.DOTALL)[1]
    assert len(script.splitlines()) <= 12
    for call in re.findall(r"tcb\.(\w+)\(", script):
        assert hasattr(tcb, call)
        assert hasattr(panels, call) or call in {"read_merchants", "open_run"}
