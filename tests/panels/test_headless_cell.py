"""The headless cell: what `panel.run_now(RUN_NOW)` does, and how whoever started the notebook learns of it."""

import json

import pytest
from workspace import BOOKS, TEA

import tcb_ops as tcb
from tcb_ops.features.simulator import Fault


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
def test_a_live_target_is_worked_on_only_when_that_is_asked(open_lab, monkeypatch, wanted, variable, works):
    lab = open_lab()
    if variable:
        monkeypatch.setenv("TCB_OPS_RUN_NOW", variable)
    panel = lab.uploads()
    panel.run_now(wanted)
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


@pytest.mark.slow
def test_the_report_goes_where_it_belongs(open_lab, result, monkeypatch):
    lab = open_lab(faults=[Fault(env=BOOKS.env, path="banner/1.png", errcode=40097)])
    panel = lab.uploads(report="here")
    panel.run_now(wanted=True)
    written = result()
    assert "1 refused" in written.pop("text")["en"]
    assert (written["run"], written["report"], written["exit_code"]) == (panel.run.id, "here", 1)
    assert written["title"] == "Uploads"
    assert "40097 · 1 row" in written["screen"]
    assert "城南书店   books-" in written["screen"]
    assert "op-by-code" in written["page"]
    assert "op-by-merchant" in written["page"]
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
    assert result()["screen"] != ""
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


def test_while_there_is_no_run_tables_say_so(open_lab):
    panel = open_lab().uploads()
    for table in (panel.by_merchant(), panel.errcodes(), panel.causes()):
        assert repr(table).startswith("No run yet")


def test_the_tables_are_the_run_s(open_lab):
    panel = open_lab(faults=[Fault(env=BOOKS.env, errcode=85088)]).uploads()
    panel.run_now(wanted=True)
    frame = panel.by_merchant()
    assert frame.columns.tolist() == ["merchant", "appid", "rows", "good", "not_good", "pending"]
    assert frame[["rows", "good", "not_good", "pending"]].to_numpy().tolist() == [
        [10, 0, 10, 0],
        [20, 20, 0, 0],
    ]
    assert panel.causes()["code"].tolist() == ["85088"]
