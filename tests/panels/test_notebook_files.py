"""The notebooks: thin, safe by default, with outputs only in the analysis, whose tables are compared."""

import ast
import inspect
import re
from pathlib import Path

import nbformat
import pytest

from tcb_ops import panels

FOLDER = Path(__file__).parent.parent.parent / "notebooks"
PANELS = {
    "01_generate_links": panels.generate_links,
    "02_run_uploads": panels.run_uploads,
    "03_errcode_audit": panels.audit_errcodes,
    "04_export_report": panels.export_report,
}


@pytest.fixture(params=list(PANELS))
def name(request):
    return str(request.param)


@pytest.fixture
def notebook(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


@pytest.fixture
def cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_these_are_all():
    assert {file.stem for file in FOLDER.glob("*.ipynb")} == {*PANELS, "05_analysis"}


def test_the_analysis_keeps_the_tables_that_nbval_compares_and_no_other_output():
    analysis = nbformat.read(FOLDER / "05_analysis.ipynb", as_version=4)
    code = [cell for cell in analysis.cells if cell.cell_type == "code"]
    tables = [cell for cell in code if cell.outputs]
    assert len(tables) == 8
    assert all("text/html" in cell.outputs[0].data and cell.execution_count for cell in tables)
    assert all(cell.execution_count is None for cell in code if not cell.outputs)


def test_a_notebook_holds_no_logic(cells):
    assert len(cells) <= 8
    for cell in cells:
        assert len(cell.source.splitlines()) <= 12
        assert re.match(r"# [A-Z][^\u4e00-\u9fff]* [\u4e00-\u9fff]", cell.source), cell.source
        kinds = {type(node) for node in ast.walk(ast.parse(cell.source))}
        assert not kinds & {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.Try, ast.While}


def test_the_order_is_title_parameters_panel_headless_results(notebook, cells, name):
    assert notebook.cells[0].source.startswith(f"# {name[:2]} · ")
    assert cells[0].metadata.tags == ["parameters"]
    assert cells[1].source.startswith("# Panel 面板\n")
    assert cells[1].source.endswith("\npanel")
    assert cells[2].source.endswith("panel.show(panel.card)")
    assert cells[-1].source.startswith("# Headless")
    assert "panel.run_now(RUN_NOW)" in cells[-1].source


def test_parameters_are_those_of_the_panel_with_its_defaults(cells, name):
    given = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cells[0].source).body}
    assert given.pop("RUN_NOW") is False
    known = inspect.signature(PANELS[name]).parameters
    assert given == {parameter.name: parameter.default for parameter in known.values()}
    assert f"panels.{PANELS[name].__name__}({', '.join(known)})" in cells[1].source
    assert given["target"] == "simulator"


def test_no_output_is_kept(notebook, cells):
    assert all(cell.execution_count is None and not cell.outputs for cell in cells)
    assert "widgets" not in notebook.metadata


def test_every_word_beside_the_cells_is_there_in_chinese_too(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            title, *lines = filter(None, cell.source.splitlines())
            assert re.search(r"[a-z] .*[\u4e00-\u9fff]", title)
            assert [bool(re.match(r"[\u4e00-\u9fff]", line)) for line in lines] == [False, True]


def test_no_path_of_anybody_s_machine_is_in_a_notebook(name):
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert "/tmp/" not in text  # noqa: S108
    assert "/home/" not in text
    assert "127.0.0.1" not in text
