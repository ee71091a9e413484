"""The notebooks: thin and safe by default; their headless cell and how whoever started one learns of it."""

import ast
import inspect
import json
import re
from pathlib import Path

import nbformat
import pytest
from workspace import BOOKS, TEA

import tcb_ops as tcb
from tcb_ops import panels
from tcb_ops.features.notebooks.parameters import in_language
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.i18n import Lang

FOLDER = Path(__file__).parent.parent.parent / "notebooks"
PANELS = {
    "01_generate_links": panels.generate_links,
    "02_run_uploads": panels.run_uploads,
    "03_errcode_audit": panels.audit_errcodes,
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
    assert {file.stem for file in FOLDER.glob("*.ipynb")} == {*PANELS, "04_analysis"}


def test_a_notebook_holds_no_logic(cells):
    assert len(cells) <= 8
    for cell in cells:
        assert len(cell.source.splitlines()) <= 12
        assert re.match(r"# [A-Z][^\u4e00-\u9fff]* [\u4e00-\u9fff]", cell.source), cell.source
        kinds = {type(node) for node in ast.walk(ast.parse(cell.source))}
        assert not kinds & {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.Try, ast.While}


def test_the_order_is_title_parameters_panel_headless(notebook, cells, name):
    assert notebook.cells[0].source.startswith(f"# {name[:2]} · ")
    assert cells[0].metadata.tags == ["parameters"]
    assert cells[1].source.startswith("# Panel 面板\n")
    assert cells[1].source.endswith("\npanel")
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


@pytest.mark.parametrize("lang", list(Lang))
def test_a_notebook_is_in_one_language_at_a_time(notebook, lang):
    cells = in_language(notebook, lang).cells
    assert all(cell.source for cell in cells)
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    texts += [text for cell in cells if cell.cell_type == "code" for text in re.findall("# .*", cell.source)]
    assert [bool(re.search(r"[\u4e00-\u9fff]", text)) for text in texts] == [lang is Lang.ZH] * len(texts)


def test_no_path_of_anybody_s_machine_is_in_a_notebook(name):
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert "/tmp/" not in text  # noqa: S108
    assert "/home/" not in text
    assert "127.0.0.1" not in text


@pytest.fixture
def result(monkeypatch, tmp_path):
    file = tmp_path / "headless.json"
    monkeypatch.setenv("TCB_OPS_HEADLESS_RESULT", str(file))
    return lambda: json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("wanted", "variable", "works"),
    [(False, "", False), (True, "", True), (False, "1", True), (False, "0", False)],
    ids=["nobody asks", "the parameter", "the variable", "the variable says no"],
)
def test_a_live_target_is_worked_on_only_when_that_is_asked(
    open_lab, monkeypatch, capsys, wanted, variable, works
):
    lab = open_lab()
    if variable:
        monkeypatch.setenv("TCB_OPS_RUN_NOW", variable)
    panel = lab.uploads()
    panel.run_now(wanted)
    assert ("Nothing was run" in capsys.readouterr().out) is not works
    assert (lab.sent > 0) is works
    assert (panel.run is not None) is works


@pytest.mark.parametrize("wanted", ["false", "true", 0, 1, None])
def test_only_a_truth_value_says_whether_to_run(open_lab, result, wanted):
    lab = open_lab()
    panel = lab.uploads()
    with pytest.raises(tcb.UsageError, match="write True or False"):
        panel.run_now(wanted)
    assert result()["exit_code"] == 2
    assert lab.sent == 0


@pytest.mark.integration
def test_the_report_goes_where_it_belongs(open_lab, result, monkeypatch):
    lab = open_lab(faults=[Fault(env=BOOKS.env, path="banner/1.png", errcode=40097)])
    panel = lab.uploads(report="here")
    panel.run_now(wanted=True)
    written = result()
    assert "1 refused" in written.pop("text")["en"]
    assert (written["run"], written["report"], written["exit_code"]) == (panel.run.id, "here", 1)
    assert written["title"] == "Uploads"
    assert "op-by-code" in written["page"]
    assert "城南书店" in written["page"].partition("op-result")[2], "the table by merchant"
    assert (lab.workspace.folder / "here" / "report.html").exists()
    monkeypatch.setenv("TCB_OPS_HEADLESS_OUT", str(lab.workspace.folder / "out"))
    other = lab.audits()
    other.run_now(wanted=True)
    assert (lab.workspace.folder / "out" / other.run.id / "manifest.json").exists()
    assert result()["exit_code"] == 0
    lab.audits().run_now(wanted=True)
    assert result()["title"] == "Errcode audit"
    assert "Since the previous audit" in result()["page"]
    assert "<svg" in result()["page"]
    looked = lab.reports(panel.run.id)
    looked.run_now(wanted=True)
    assert (result()["run"], result()["exit_code"]) == (panel.run.id, 0)


def test_a_list_with_problems_raises_and_says_each_of_them(open_lab, result, capsys):
    lab = open_lab([(TEA.env, "/a.png"), ("nowhere", "c.png")])
    panel = lab.uploads()
    with pytest.raises(tcb.InputError):
        panel.run_now(wanted=True)
    printed = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in printed] == ["list.csv:2", "list.csv:3"]
    assert (result()["exit_code"], result()["run"]) == (2, None)
    assert "2 problems" in result()["text"]["en"]
    assert lab.sent == 0


def test_ctrl_c_ends_the_run_tidily(open_lab, result, wait_for):
    import os
    import signal
    import threading

    from workspace import many

    # It works longer than a busy machine takes to interrupt it.
    lab = open_lab(many(TEA, rows=400), [Fault(delay=0.2)])
    panel = lab.uploads()

    def interrupt():
        wait_for(lambda: panel.monitor.running)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(tcb.InterruptedRunError):
        panel.run_now(wanted=True)
    assert result()["exit_code"] == 130
    assert result()["run"] == panel.run.id
    assert panel.run.counts["pending"] > 0


def test_the_headless_cell_shows_the_run_s_rows_and_causes(open_lab, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: shown.append(bundle["text/html"]))
    panel = open_lab(faults=[Fault(env=BOOKS.env, errcode=85088)]).uploads(lang="zh")
    panel.run_now(wanted=True)
    (page,) = shown
    assert "<h2>各商户</h2>" in page
    assert '<td>城南书店</td><td class="op-num">10</td>' in page
    assert 'data-code="85088"' in page


@pytest.mark.integration
def test_a_run_that_a_cell_waits_for_says_how_it_is_cancelled(open_lab, read):
    panel, said = open_lab().uploads(), list[str]()
    panel.worker.line.observe(lambda change: said.append(read(change["new"])), "value")
    panel.run_now(wanted=True)
    assert [text for text in said if text.endswith("to cancel the run, interrupt the kernel.")]
    assert "30 of 30 rows" in read(panel.monitor.bar)
    assert read(panel.worker.line).startswith("All 30 rows succeeded")
