"""The uploads panel, by its buttons: everything that an operator does in notebook 02."""

import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from panel_lab import press
from workspace import BOOKS, TEA, many

import tcb_ops as tcb
from tcb_ops import panels
from tcb_ops.features.simulator.faults import Etag, Fault, FaultStep
from tcb_ops.i18n import Lang
from tcb_ops.ledger.records import Usage
from tcb_ops.model import RowEnd
from tcb_ops.panels.html import RunState, render_header
from tcb_ops.run import Run, RunHandle
from tcb_ops.settings import default_lang

pytestmark = pytest.mark.slow

SLOW = [Fault(delay=0.5)]


def hidden(widget):
    return widget.layout.display == "none"


def test_a_list_is_read_and_nothing_is_sent(open_lab, read):
    lab = open_lab()
    panel = lab.uploads()
    assert read(panel.list_reader.facts).startswith("list.csv: UTF-8, comma; columns env, path, file")
    assert read(panel.ready_line).startswith("Ready. 30 of 30 rows valid: 2 merchants, 3 environments, ")
    assert not panel.start.disabled
    assert panel.monitor.stop.disabled
    assert hidden(panel.monitor)
    assert lab.sent == 0


def test_another_list_picked_while_the_panel_is_busy_is_the_one_that_is_sent(open_lab, read):
    lab = open_lab()
    first = Path("list.csv").read_text(encoding="utf-8").splitlines()[:2]
    Path("other.csv").write_text("\n".join(first), encoding="utf-8")
    panel, go = lab.uploads(), threading.Event()
    panel.worker.start(lambda: go.wait(240) and None)
    panel.list_reader.paths.value = "other.csv"
    assert panel.list_reader.batch is None
    assert panel.start.disabled
    go.set()
    panel.settle()
    assert read(panel.ready_line).startswith("Ready. 1 of 1 row valid: 1 merchant, 1 environment, ")
    assert not panel.start.disabled


def test_a_click_uploads_and_shows_every_merchant_what_went_wrong_and_what_to_do(
    open_lab, read, assert_complete
):
    lab = open_lab(faults=[Fault(env=BOOKS.env, path="banner/1.png", errcode=40097)])
    panel = lab.uploads()
    press(panel)
    assert assert_complete(panel.run, 30) == {"uploaded": 29, "refused": 1}
    assert "30 of 30 rows · 100%" in read(panel.monitor.bar)
    books, tea = panel.monitor.grid.lines[BOOKS.appid], panel.monitor.grid.lines[TEA.appid]
    assert books[1:7] == ["城南书店", 10, 9, 1, 0, [("40097", 1)]]
    assert books[7] == [("good", 9), ("bad", 1), ("failed", 0), ("skip", 0)]
    assert tea[1:7] == ["茶语小铺", 20, 20, 0, 0, []]
    assert "40097 An argument is wrong" in read(panel.monitor.grid.causes)
    assert "1 row, 1 merchant: 城南书店" in read(panel.monitor.grid.causes)
    assert "29 of 30 rows succeeded" in read(panel.worker.line)
    assert not panel.start.disabled
    assert panel.monitor.stop.disabled
    assert panel.runs.ids == [panel.run.id]
    assert "Upload of list.csv, 30 rows finished 29 uploaded · 1 refused" in read(panel.runs.table)


def test_the_result_counts_what_the_store_did_not_confirm(open_lab, read):
    panel = open_lab(faults=[Fault(env=BOOKS.env, step=FaultStep.STORE, etag=Etag.OPAQUE)]).uploads()
    press(panel)
    assert "10 rows are stored but not confirmed" in read(panel.worker.line)
    upload = panel.run.id
    press(panel, panel.stored.confirm)
    assert panel.run.counts == {"present": 30}
    panel.monitor.attach(upload)
    assert "not confirmed" not in read(panel.worker.line) + str(tcb.open_run(upload)._repr_html_())


def test_undo_names_the_upload_whose_files_go(open_lab, read):
    panel = open_lab(faults=[Fault(env=BOOKS.env, errcode=40097)]).uploads()
    press(panel)
    upload = panel.run.id
    panel.monitor.retry.opened = True
    press(panel, panel.monitor.retry.action.button)
    assert panel.run.record.parent == upload
    panel.stored.opened = True
    panel.stored.prepare()
    panel.settle()
    assert panel.stored.action.button.description == f"Undo upload {upload}"
    panel.stored.choice.value = "delete"
    panel.settle()
    assert panel.stored.action.button.description == f"Delete the files of {upload}"


def test_cancel_ends_tidily_and_resume_does_the_rest_without_the_list(
    open_lab, read, wait_for, assert_complete
):
    lab = open_lab(many(TEA, rows=60), SLOW)
    panel = lab.uploads()
    panel.start.click()
    wait_for(lambda: "of 60 rows" in panel.monitor.bar.value and panel.monitor.running)
    assert panel.start.disabled
    wait_for(lambda: " running " in read(panel.runs.table))
    press(panel, panel.monitor.stop)
    assert panel.monitor.state is RunState.UNFINISHED
    assert " unfinished " in read(panel.runs.table)
    assert read(panel.worker.line).startswith("Cancelled. Unfinished:")
    assert assert_complete(panel.run, 60)["pending"] > 0
    (lab.workspace.folder / "list.csv").unlink()
    first = panel.run.id
    tones = []
    for _ in range(2):  # one blue button at a time
        press(panel, panel.setup.button)
        tones.append(
            (panel.monitor.resume.button.button_style, hidden(panel.monitor.resume), hidden(panel.setup))
        )
    assert tones == [("", True, False), ("primary", False, True)]
    lab.workspace.sim.play([])
    press(panel, panel.monitor.resume.button)
    assert panel.run.id == first
    assert assert_complete(panel.run, 60) == {"uploaded": 60}
    assert lab.workspace.sim.stats["stored"] == 60  # none twice
    assert hidden(panel.monitor.resume)


def test_run_resumes_an_unfinished_run_of_the_same_list_unless_a_new_run_is_asked_for_and_says_so(
    open_lab, read, wait_for
):
    lab = open_lab(many(TEA, rows=40), SLOW)
    panel = lab.uploads()
    for new in (False, False, True):
        before = panel.run
        assert hidden(panel.new) is (before is None)
        panel.new.value = new
        label = "Upload list.csv (40 rows)"
        if before is not None and not new:
            label = f"Resume list.csv: {before.counts['pending']} of 40 rows pending"
            assert panel.monitor.resume.button.description == label
        assert panel.start.description == label
        panel.start.click()
        panel.worker.settle()
        assert panel.monitor.running
        assert (before is not None and panel.run.id == before.id) is (before is not None and not new)
        assert ("was resumed: " in read(panel.worker.line)) is (before is not None and not new)
        press(panel, panel.monitor.stop)


def test_a_run_that_the_platform_stops_says_why_and_names_the_button_that_resumes_it(open_lab, read):
    lab = open_lab(many(TEA, rows=5), [Fault(errcode=61004)])
    panel = lab.uploads()
    press(panel)
    shown = read(panel.worker.line)
    assert shown.startswith("Errcode 61004")
    assert "Resume completes the rest" in shown
    assert "tcb-ops" not in shown, "a command"


def test_an_unfinished_run_that_is_not_shown_is_resumed_by_name_too(open_lab):
    lab = open_lab(many(TEA, rows=20), SLOW)
    first = Path("list.csv").read_text(encoding="utf-8").splitlines()[:2]
    Path("other.csv").write_text("\n".join(first), encoding="utf-8")
    panel = lab.uploads()
    panel.start.click()
    panel.worker.settle()
    press(panel, panel.monitor.stop)
    unfinished, pending = panel.run, panel.run.counts["pending"]
    panel.list_reader.paths.value = "other.csv"
    panel.settle()
    assert panel.start.description == "Upload other.csv (1 row)"
    assert hidden(panel.new)
    panel.new.value = True
    press(panel)
    panel.new.value = True  # meant for other.csv
    assert panel.run.id != unfinished.id
    assert lab.uploads().run.id == unfinished.id, "a panel opens with the unfinished run of its list"
    panel.list_reader.paths.value = "list.csv"
    panel.settle()
    assert panel.start.description == f"Resume list.csv: {pending} of 20 rows pending"
    press(panel)
    assert panel.run.id == unfinished.id
    assert hidden(panel.new)
    assert panel.start.description == "Upload list.csv (20 rows)"


def test_a_new_run_does_not_show_the_rows_of_the_one_before(open_lab, read, wait_for, monkeypatch):
    lab = open_lab()
    panel = lab.uploads()
    press(panel)
    assert "30 of 30 rows · 100%" in read(panel.monitor.bar)
    lab.workspace.sim.play([Fault(delay=1.0)])
    news, watch = threading.Event(), RunHandle.watch

    def late(handle):
        assert news.wait(240)
        yield from watch(handle)

    monkeypatch.setattr(RunHandle, "watch", late)
    panel.new.value = True
    panel.start.click()
    wait_for(lambda: "0 of 30 rows · 0%" in read(panel.monitor.bar))
    wait_for(lambda: panel.monitor.grid.lines[TEA.appid][2:5] == [20, 0, 0])
    panel.monitor.stop.click()
    news.set()
    panel.settle()


def test_the_merchants_are_as_new_as_the_header_also_while_the_run_waits(open_lab, wait_for):
    lab = open_lab(many(TEA, rows=200), [Fault(path="banner/99.png", delay=60)])
    panel = lab.uploads()
    panel.start.click()
    wait_for(lambda: "199 of 200 rows" in panel.monitor.bar.value)
    wait_for(lambda: panel.monitor.grid.lines[TEA.appid][2:5] == [200, 199, 0])
    press(panel, panel.monitor.stop)


def test_waiting_for_the_run_does_not_count_as_drawing(open_lab):
    panel = open_lab().uploads()
    press(panel)
    panel.monitor.grid.send = lambda _message: threading.Event().wait(0.5)
    assert panel.monitor._draw_grid(panel.run) < 2


def test_the_bad_rows_are_retried_as_a_run_of_their_own(open_lab, read, assert_complete):
    lab = open_lab(faults=[Fault(env=TEA.env, path="banner/2.png", calls=((1, 1),), errcode=40097)])
    panel = lab.uploads()
    press(panel)
    parent = panel.run
    assert not hidden(panel.monitor.retry.button)
    press(panel, panel.monitor.retry.action.button)
    assert panel.run.record.parent == parent.id
    assert "Retry of the upload of list.csv, " in read(panel.monitor.head)
    assert assert_complete(panel.run, 1) == {"uploaded": 1}
    assert hidden(panel.monitor.retry.button)  # nothing is left
    panel.monitor.attach(parent.id)
    assert "With its retries, 30 of 30 rows have succeeded." in read(panel.monitor.head)
    assert hidden(panel.monitor.retry.button)
    assert panel.monitor.grid.causes == ""  # what was fixed is nothing to do


def test_a_cause_is_retried_where_it_stands_and_on_a_live_target_once_that_is_confirmed(
    open_lab, assert_complete
):
    faults = [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA.env, path="*/[12].png", errcode=40097)]
    lab = open_lab(faults=faults)
    panel = lab.uploads()
    press(panel)
    upload, retry = panel.run.id, panel.monitor.retry
    lab.workspace.sim.play([])
    retry.action._asks = True  # as on a live target
    click = partial(panel.monitor.grid._answer, None, {"ask": "retry", "value": "40097"}, [])
    click()
    panel.settle()
    assert panel.run.id == upload
    assert retry.opened
    assert retry.action.button.description == "Retry 2 rows"
    retry.action._asks = False
    click()
    panel.settle()
    assert panel.run.record.parent == upload
    assert assert_complete(panel.run, 2) == {"uploaded": 2}
    assert not retry.opened
    panel.monitor.attach(upload)
    assert "85088" in panel.monitor.grid.causes
    assert "40097" not in panel.monitor.grid.causes


def test_an_upload_offers_the_rows_that_its_retries_have_not_done(open_lab, read):
    once = Fault(env=TEA.env, path="*/[12].png", calls=((1, 1),), errcode=40097)
    lab = open_lab(faults=[Fault(env=BOOKS.env, errcode=85088), once])
    panel, other = lab.uploads(), lab.uploads()
    press(panel)
    parent, retry = panel.run, panel.monitor.retry
    other.monitor.attach(parent.id)
    press(panel, retry.action.button)
    panel.monitor.attach(parent.id)
    rows = sum(tally.rows for tally in parent.tallies_to_retry())
    press(panel, retry.button)
    assert retry.action.button.description == f"Retry {rows} rows"
    assert [value for _label, value in retry.choice.options] == ["", "85088"]
    assert f"With its retries, {30 - rows} of 30 rows have succeeded." in read(panel.monitor.head)
    assert rows == 10


def test_an_error_goes_when_the_next_action_begins_and_names_no_command(open_lab, read):
    once = Fault(env=TEA.env, path="banner/2.png", calls=((1, 1),), errcode=40097)
    lab = open_lab(faults=[once])
    panel, stale = lab.uploads(), lab.uploads()
    press(panel)
    stale.monitor.attach(panel.run.id)
    result = read(stale.worker.line)
    press(panel, panel.monitor.retry.action.button)
    press(stale, stale.monitor.retry.action.button)
    assert "has nothing to retry" in read(stale.worker.line)
    assert "tcb-ops" not in read(stale.worker.line)
    press(stale, stale.monitor.export.button)
    assert read(stale.worker.line) == result


@pytest.mark.parametrize(
    ("choice", "rows"),
    [
        ("code 85088: 10 rows", 10),
        ("code 40097: 2 rows", 2),
        ("merchant 茶语小铺 (wxtea)", 2),
        ("all that match under Rows and did not succeed: 1 row", 1),
    ],
)
def test_what_is_retried_can_be_chosen(open_lab, assert_complete, choice, rows):
    faults = [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA.env, path="*/[12].png", errcode=40097)]
    lab = open_lab(faults=faults)
    panel = lab.uploads()
    press(panel)
    failed = sum(panel.run.counts.values()) - panel.run.counts["uploaded"]
    panel.monitor.grid.read({"code": "", "appid": TEA.appid, "path": "/1." * ("match" in choice)})
    press(panel, panel.monitor.retry.button)
    retry = panel.monitor.retry
    assert retry.action.button.description == f"Retry {failed} rows"
    (retry.choice.label,) = (label for label, _value in retry.choice.options if label.startswith(choice))
    assert retry.action.button.description in {f"Retry {rows} rows", "Retry 1 row"}
    lab.workspace.sim.play([])
    press(panel, retry.action.button)
    assert assert_complete(panel.run, rows) == {"uploaded": rows}
    assert not hidden(panel.monitor.export.final)
    press(panel, panel.monitor.export.final)
    final = lab.workspace.folder / "reports" / f"{panel.run.record.parent}-final"
    assert (final / "manifest.json").is_file()


def test_what_can_be_retried_is_counted_when_the_box_is_opened(open_lab, read):
    lab = open_lab(faults=[Fault(env=BOOKS.env, path="*/[12].png", errcode=40097, calls=((1, 1),))])
    panel, settings = lab.uploads(), lab.workspace.settings
    press(panel)
    retry, run = panel.monitor.retry, panel.run
    assert retry.action.button.description == "Retry 2 rows"
    lab.workspace.sim.play([Fault(env=BOOKS.env, path="*/2.png", errcode=40097)])
    tcb.retry(run.id, lab.workspace.merchants, settings=settings)  # as another process would
    press(panel, retry.button)
    assert retry.action.button.description == "Retry 1 row"
    press(panel, retry.button)
    lab.workspace.sim.play([])
    tcb.retry(run.id, lab.workspace.merchants, settings=settings)
    press(panel, retry.button)
    assert hidden(retry)
    assert hidden(retry.button)


def test_what_is_retried_follows_the_filter_of_the_rows_while_the_box_is_open(open_lab, assert_complete):
    faults = [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA.env, path="*/[12].png", errcode=40097)]
    lab = open_lab(faults=faults)
    panel = lab.uploads()
    press(panel)
    grid, retry = panel.monitor.grid, panel.monitor.retry
    press(panel, retry.button)

    def filtered(**wanted):
        grid._answer(grid, {"ask": "rows", **wanted}, [])
        return retry.choice.label, retry.action.button.description

    label = "all that match under Rows and did not succeed: "
    assert filtered(path="/1.") == ("all that did not succeed", "Retry 12 rows")
    retry.choice.index = 1
    assert retry.choice.label == f"{label}2 rows"
    assert filtered(path="/2.", code="40097") == (f"{label}1 row", "Retry 1 row")
    assert filtered(path="no such path") == (f"{label}0 rows", "Retry 0 rows")
    assert retry.action.layout.display == "none", "there is nothing to retry"
    assert filtered(code="40097") == (f"{label}2 rows", "Retry 2 rows")
    assert filtered() == (f"{label}12 rows", "Retry 12 rows"), "the next word is still to be typed"
    retry.choice.value = "85088"
    assert filtered(path="/2.") == ("code 85088: 10 rows", "Retry 10 rows")
    retry.choice.index = 1
    assert filtered(path="/1.", appid=TEA.appid) == (f"{label}1 row", "Retry 1 row")
    lab.workspace.sim.play([])
    press(panel, retry.action.button)
    assert assert_complete(panel.run, 1) == {"uploaded": 1}
    assert [record.row.path for record in panel.run.rows()] == ["banner/1.png"]


def test_a_retry_is_shown_under_the_filter_of_a_merchant_that_it_has_not(open_lab):
    faults = [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA.env, path="*/1.png", errcode=40097)]
    panel = open_lab(faults=faults).uploads()
    press(panel)
    parent, retry = panel.run, panel.monitor.retry
    panel.monitor.grid.read({"code": "", "appid": TEA.appid, "path": ""})
    press(panel, retry.button)
    (retry.choice.label,) = (
        label for label, _value in retry.choice.options if label.startswith("code 85088")
    )
    press(panel, retry.action.button)
    assert panel.run.record.parent == parent.id
    assert "refused" in panel.run.counts
    assert panel.monitor.run is panel.run
    assert [value for _label, value in retry.choice.options] == ["", "85088"], "no filter outlives its run"


def test_wechat_is_asked_about_a_cause(open_lab, read):
    closed = [Fault(env=BOOKS.env, errcode=85088), Fault(errcode=85088, step=FaultStep.ENV_INFO)]
    panel = open_lab(faults=closed).uploads()
    press(panel)
    grid = panel.monitor.grid
    assert "Ask the simulator why" in grid.causes
    assert "Text for the merchant" not in grid.causes
    grid._answer(grid, {"ask": "why", "value": "85088"}, [])
    panel.settle()
    assert "Who must act: " in read(grid.causes)
    assert "20 of 30 rows succeeded" in read(panel.worker.line)
    shown = read(grid.causes)
    (verdict,) = grid.verdicts.values()
    assert "Who must act: the merchant" in shown
    assert "The simulator was asked at" in shown
    assert shown.index(verdict.evidence[-1].en) < shown.index(f"Text for the merchant: {verdict.message}")


def test_a_panel_exports_into_the_reports_folder_of_the_settings(open_lab):
    lab = open_lab()
    settings = lab.workspace.folder / "tcb-ops.toml"
    settings.write_text(f'reports = "audited"\n{settings.read_text(encoding="utf-8")}', encoding="utf-8")
    panel = lab.uploads()
    press(panel)
    press(panel, panel.monitor.export.this)
    assert (lab.workspace.folder / "audited" / panel.run.id / "manifest.json").exists()
    assert not (lab.workspace.folder / "reports").exists()


def test_export_writes_the_folder_and_links_lead_to_its_files(open_lab, read):
    lab = open_lab()
    panel = lab.uploads()
    assert hidden(panel.monitor.export.button)
    press(panel)
    assert hidden(panel.monitor.export.final), "it has no retries"
    press(panel, panel.monitor.export.this)
    folder = lab.workspace.folder / "reports" / panel.run.id
    assert {"results.csv", "report.html", "manifest.json"} <= {file.name for file in folder.iterdir()}
    html = panel.monitor.export.files.value
    assert f"<code>{folder}</code>" in html
    for file in folder.iterdir():
        if file.name.isascii():
            assert f"href='reports/{panel.run.id}/{file.name}'" in html
    assert f"Run {panel.run.id} was exported to" in read(panel.monitor.export.line)
    assert "All 30 rows succeeded" in read(panel.worker.line)
    (folder / ".ipynb_checkpoints").mkdir()  # JupyterLab's, once a link has been followed
    (folder / ".ipynb_checkpoints" / "report-checkpoint.html").touch()
    press(panel, panel.monitor.export.this)
    assert f"Run {panel.run.id} was exported to" in read(panel.monitor.export.line)
    assert "All 30 rows succeeded" in read(panel.worker.line)


def test_a_list_with_problems_is_refused_with_all_of_them_and_a_fixme(open_lab, read):
    lab = open_lab([(TEA.env, "/a.png"), (TEA.env, "b.png"), ("nowhere", "c.png")])
    panel = lab.uploads()
    assert "list.csv is refused: it has 2 problems" in read(panel.list_reader.line)
    assert panel.worker.line.value == ""
    shown = read(panel.list_reader.problems)
    assert shown.startswith("2 problems in the list")
    assert "2 path" in shown
    assert "4 env" in shown
    assert panel.start.disabled
    press(panel, panel.list_reader.fixme)
    fixme = (lab.workspace.folder / "list.fix-me.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(fixme) == 3
    panel.list_reader.skip.value = True
    panel.settle()
    assert not panel.start.disabled
    assert panel.start.description == "Upload list.csv (1 row)"
    press(panel)
    assert panel.run.counts == {"uploaded": 1, "invalid": 2}
    causes = panel.monitor.grid.causes
    assert "Ask WeChat why" not in causes
    assert f"2 rows, 2 merchants: (no merchant), {TEA.name}" in read(causes)
    (lab.workspace.folder / "list.csv").rename(lab.workspace.folder / "second.csv")
    panel.list_reader.paths.value = "second.csv"
    panel.settle()
    assert panel.start.disabled, "another list is not continued without its bad rows unless that is said"


def test_a_wrong_folder_offers_the_one_with_the_files_and_its_problems_are_one_line(open_lab, read):
    lab = open_lab(many(TEA, rows=300))
    (lab.workspace.folder / "other").mkdir()
    panel = lab.uploads(root="other")
    listed = panel.list_reader
    assert hidden(listed.fixme), "no row of the list is wrong"
    assert "300 problems in the list" in read(listed.problems)
    assert "there is no file 0.bin in the folder of local files" in read(listed.problems)
    assert "Unicode form matter) and “Local files”" in read(listed.problems)
    assert listed.problems.value.count("<tr>") == 2
    assert "and 299 more like this" in read(listed.problems)
    assert listed.fit.description == "Use the folder files"
    press(panel, listed.fit)
    assert read(panel.ready_line).startswith("Ready. 300 of 300 rows valid")
    for missing in ("file", "nope"):
        listed.root.value = missing
        panel.settle()
        assert f"there is no folder {missing} (“Local files”)" in read(panel.ready_line)
        assert "root" not in read(panel.ready_line)
        assert hidden(listed.problems), "it stands above"
        assert hidden(listed.fixme)
        assert listed.fit.description == "Use the folder files"
        assert not hidden(listed.fit)


@pytest.mark.parametrize("root", ["", "other", "file"])
def test_a_folder_beside_the_list_is_offered_too(open_lab, root):
    lab = open_lab(many(TEA, rows=3))
    (lab.workspace.folder / "other").mkdir()
    (data := lab.workspace.folder / "data").mkdir()
    for name in ("files", "list.csv"):
        (lab.workspace.folder / name).rename(data / name)
    panel = lab.uploads("data/list.csv", root)
    fitting = str(Path("data", "files"))
    assert fitting in panel.list_reader.root.options
    assert panel.list_reader.fit.description == f"Use the folder {fitting}"
    press(panel, panel.list_reader.fit)
    assert not panel.start.disabled


def test_a_workbook_with_hidden_rows_asks_whether_they_are_read(open_lab, read):
    import openpyxl

    lab = open_lab()
    book = openpyxl.Workbook()
    for row in (("env", "path", "file"), (TEA.env, "a.png", "1.bin"), (TEA.env, "b.png", "2.bin")):
        book.active.append(row)
    book.active.row_dimensions[3].hidden = True
    book.save("list.xlsx")
    for name in ("1.bin", "2.bin"):
        (lab.workspace.folder / "files" / name).touch()
    panel = lab.uploads("list.xlsx")
    assert "Choose whether they are read." in read(panel.ready_line)
    for choice, rows in (("visible", 1), ("all", 2)):
        panel.list_reader.hidden.value = choice
        panel.settle()
        assert read(panel.ready_line).startswith(f"Ready. {rows} of {rows} row")
        assert ("1 row, 1 hidden row left out" in read(panel.list_reader.facts)) == (choice == "visible")


@pytest.mark.parametrize(
    ("paths", "root", "shown"),
    [
        ("missing.csv", "files", "missing.csv"),
        ("list.csv", "nowhere", "nowhere"),
        ("", "", "Pick a path list"),
    ],
    ids=["no list", "no root", "nothing picked"],
)
def test_what_is_not_there_is_reported(open_lab, read, paths, root, shown):
    lab = open_lab()
    panel = lab.uploads(paths, root)
    assert shown in read(panel.list_reader.line)
    assert panel.start.disabled
    assert lab.sent == 0


def test_trouble_with_the_settings_is_an_error_of_the_line_that_uses_them(open_lab):
    lab = open_lab()
    (lab.workspace.folder / "tcb-ops.toml").write_text("api_base = 7\n", encoding="utf-8")
    with pytest.raises(tcb.SettingsError, match="api_base"):
        panels.use("live")


def test_without_settings_a_live_target_says_what_is_missing_and_what_to_do(open_lab):
    lab = open_lab()
    for name in ("tcb-ops.toml", "merchants.csv"):
        (lab.workspace.folder / name).unlink()
    with pytest.raises(tcb.UsageError) as refused:
        panels.use("live")
    said = refused.value.problem.en
    assert f"there is no {lab.workspace.folder / 'tcb-ops.toml'}" in said
    assert said.endswith("Put yours into the notebook's folder, then run the cell again.")
    assert refused.value.text.commands() == [f"tcb-ops init {lab.workspace.folder}"]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"target": "test"}, 'target = "test"'),
        ({"where": "region=east"}, "no column 'region'"),
        ({"where": ["region=east"]}, "no column 'region'"),
        ({"lang": "fr"}, 'lang = "fr"'),
    ],
    ids=["target", "where", "a list", "lang"],
)
def test_a_wrong_parameter_is_an_error_that_names_it(open_lab, options, shown):
    open_lab()
    with pytest.raises(tcb.UsageError, match=re.escape(shown)):
        panels.use(**{"target": "live"} | options)


@pytest.mark.parametrize("spoken", ["en", "zh"])
def test_a_panel_that_names_no_language_has_that_of_the_settings(open_lab, monkeypatch, spoken):
    lab = open_lab()
    monkeypatch.setenv("TCB_OPS_LANG", spoken)
    panel = lab.uploads()
    assert (
        panel.start.description == {"en": "Upload list.csv (30 rows)", "zh": "上传 list.csv（30 行）"}[spoken]
    )
    assert lab.uploads(lang="en").start.description == "Upload list.csv (30 rows)"


def test_an_error_of_use_is_in_the_language_that_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tcb-ops.toml").write_text("", encoding="utf-8")
    monkeypatch.setenv("TCB_OPS_MERCHANTS", "missing.csv")
    with pytest.raises(tcb.InputError):
        panels.use("live", lang="zh")
    assert default_lang() is Lang.ZH


@pytest.mark.kill
def test_a_run_of_another_process_is_followed_its_holder_named_and_its_end_seen(open_lab, read, wait_for):
    lab = open_lab(many(TEA, rows=60), SLOW)
    words = [sys.executable, "-m", "tcb_ops", "upload", "list.csv", "--root", "files", "--concurrency", "4"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as other:
        try:
            wait_for(lambda: lab.workspace.sim.stats["stored"] > 2)
            panel = lab.attach()
            assert f"Run {panel.run.id} is being worked on by" in read(panel.worker.line)
            assert panel.monitor.state is RunState.ELSEWHERE
            assert panel.monitor.stop.disabled
            assert hidden(panel.monitor.resume)
            other.send_signal(signal.SIGINT)
            assert other.wait(240) == 130
        finally:
            other.kill()
    panel.settle()
    assert panel.run.holder() is None
    assert panel.monitor.state is RunState.UNFINISHED
    stored = lab.workspace.sim.stats["stored"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as other:
        try:
            wait_for(lambda: lab.workspace.sim.stats["stored"] > stored)
            panel.monitor.resume.button.click()
            panel.worker.settle()
            assert "is being worked on by" in read(panel.worker.line)
            assert panel.monitor.state is RunState.ELSEWHERE, "what refused the resume is followed"
            other.send_signal(signal.SIGINT)
            assert other.wait(240) == 130
        finally:
            other.kill()
    panel.settle()
    assert panel.monitor.state is RunState.UNFINISHED
    lab.workspace.sim.play([])
    press(panel, panel.monitor.resume.button)
    assert panel.run.counts == {"uploaded": 60}


def test_a_run_that_only_a_script_began_is_finished_by_the_panel_that_watches_it(open_lab):
    lab = open_lab(many(TEA, rows=20), SLOW)
    handle = tcb.start_upload(tcb.read_paths("list.csv", lab.workspace.merchants, "files"))
    panel = lab.attach(handle.id)
    panel.settle()
    assert tcb.open_run(handle.id).record.finished_at is not None
    assert handle.wait().id == handle.id


def test_buttons_answer_from_any_thread(open_lab):
    panel = open_lab().uploads()
    clicker = threading.Thread(target=panel.start.click)
    clicker.start()
    clicker.join()
    panel.settle()
    assert panel.run.counts == {"uploaded": 30}


def test_a_second_click_while_a_run_is_running_begins_nothing(open_lab, read):
    lab = open_lab(many(TEA, rows=40), SLOW)
    panel = lab.uploads()
    panel.start.click()
    panel.worker.settle()
    first = panel.run.id
    panel.start.click()
    panel.worker.settle()
    assert f"Run {first} is still running here" in read(panel.worker.line)
    lab.workspace.sim.play([])
    panel.settle()
    assert [run.id for run in tcb.runs()] == [first]


def test_a_run_that_was_not_retried_speaks_of_no_retry(a_run, in_english):
    uploaded = RowEnd(2, tcb.Outcome.UPLOADED)
    reported = a_run([uploaded, RowEnd(0, tcb.Outcome.PENDING)], finished=False)
    run = Run(reported.ledger, reported.run, in_english)
    summary = run.overview()
    reported.ledger.record(run.record, [replace(uploaded, line=3)], Usage())  # it works on meanwhile
    assert "retries" not in render_header(run, summary, RunState.HERE, Lang.EN, live=False)
