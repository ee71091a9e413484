"""What happens to files below an open panel, unusual content, secrets: a clear state, nothing stuck, injected or leaked."""

import gc
import json
import shutil
import sqlite3
import weakref
from contextlib import closing
from dataclasses import replace

import ipywidgets as widgets
import pytest
from ipywidgets.widgets.widget import _instances  # ipywidgets offers no public list of its widgets
from panel_lab import press
from workspace import BOOKS, TEA

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.panels.html import RunState
from tcb_ops.run import find_handle

pytestmark = pytest.mark.integration


@pytest.fixture
def lab(open_lab):
    return open_lab(faults=[Fault(env=BOOKS.env, errcode=85088)])


@pytest.fixture
def panel(lab):
    """A panel that shows a finished run with failed rows."""
    found = lab.uploads()
    press(found)
    return found


@pytest.mark.parametrize("kind", ["uploads", "links", "audits", "attach"])
def test_a_panel_that_is_closed_keeps_no_widget_and_no_data_and_is_freed(lab, panel, kind):
    widgets = set(_instances)
    other = getattr(lab, kind)()
    parts = [weakref.ref(part) for part in other.view.children]
    if kind in {"uploads", "links"}:
        parts.append(weakref.ref(other.list_reader.batch.staging))
    freed, lab.opened[:] = weakref.ref(other), [panel]
    other.close()
    assert set(_instances) == widgets
    gc.collect()
    assert [part for part in parts if part() is not None] == [], "the notebook still holds the panel"
    assert repr(other).endswith(": None>")
    del other
    gc.collect()
    assert freed() is None


def test_a_run_that_goes_on_after_its_panel_is_closed_reports_nothing(open_lab, caplog):
    lab = open_lab(faults=[Fault(delay=0.5)])
    panel = lab.uploads()
    panel.start.click()
    panel.worker.settle()
    run, watching = panel.run.id, panel.monitor.watched
    panel.close()
    assert watching.wait(240)
    assert tcb.open_run(run).succeeded
    assert caplog.text == ""


def page_of(panel, **more):
    """What the browser gets when it asks for the first page."""
    grid, sent = panel.monitor.grid, []
    grid.send = lambda message, buffers=None: sent.append(message)
    grid._answer(grid, {"ask": "rows", "id": 7, "code": None} | more, [])
    (answer,) = sent
    return dict(answer)


def remove_ledger(lab):
    for file in lab.workspace.folder.glob("ledger.db*"):
        if file.is_file():
            file.unlink()


def assert_usable(lab, panel, read, ledger="ledger.db"):
    """Every button reports what is wrong, none sends anything, and a new run can still be started."""
    sent, shown, ended = lab.sent, panel.run.id, panel.worker.line.value
    assert page_of(panel, auto=True) == {"failed": True, "id": 7}
    assert panel.worker.line.value == ended  # the browser asked by itself
    assert page_of(panel) == {"failed": True, "id": 7}
    assert ledger in read(panel.worker.line)
    press(panel, panel.monitor.retry.action.button)
    assert ledger in read(panel.worker.line)
    assert lab.sent == sent
    assert not panel.worker.busy
    press(panel)
    assert panel.run.id != shown, read(panel.worker.line)
    assert panel.monitor.state is RunState.FINISHED
    assert len(page_of(panel)["rows"]["rows"]) == 30


def test_a_ledger_that_was_deleted_is_reported_and_a_new_run_begins_a_new_one(lab, panel, read):
    remove_ledger(lab)
    assert_usable(lab, panel, read)


def test_of_a_ledger_that_was_replaced_no_row_is_shown(lab, panel, read):
    other = lab.workspace.folder / "other"
    other.mkdir()
    header, row = (lab.workspace.folder / "list.csv").read_text(encoding="utf-8").splitlines()[:2]
    (other / "list.csv").write_text(f"{header}\n{row}\n", encoding="utf-8")
    settings = replace(panel.context.settings, ledger=str(other / "ledger.db"))
    with tcb.read_paths(other / "list.csv", panel.context.merchants, lab.workspace.folder / "files") as batch:
        tcb.upload(batch, settings=settings)
    remove_ledger(lab)
    for file in other.glob("ledger.db*"):
        shutil.move(file, lab.workspace.folder / file.name)
    assert_usable(lab, panel, read)


@pytest.mark.parametrize("content", [None, b"no database at all" * 100], ids=["deleted", "replaced"])
def test_of_a_run_that_loses_its_ledger_nothing_is_left_hanging(open_lab, read, wait_for, content):
    lab = open_lab(faults=[Fault(delay=1.0)])
    panel = lab.uploads()
    panel.start.click()
    wait_for(lambda: "30 rows" in read(panel.monitor.bar))
    remove_ledger(lab)
    if content is not None:
        (lab.workspace.folder / "ledger.db").write_bytes(content)
    panel.settle()
    assert "ledger.db" in read(panel.worker.line)
    if content is None:
        assert "Resume completes the rest" in read(panel.worker.line)
    assert "running" not in read(panel.monitor.head)
    assert panel.monitor.stop.layout.display == "none"
    assert find_handle(panel.run.id) is None  # and its lock is free
    if content is not None:
        assert panel.monitor.bar.value == ""
        remove_ledger(lab)
    panel.setup.opened = True
    press(panel)
    assert panel.monitor.state is RunState.FINISHED
    assert "30 of 30 rows" in read(panel.monitor.bar)


def test_a_run_that_was_deleted_by_retention_is_reported(lab, panel, read):
    with closing(sqlite3.connect(lab.workspace.folder / "ledger.db")) as connection:
        connection.execute("UPDATE runs SET finished_at = 1")
        connection.commit()
    assert [run.id for run in tcb.prune(30, settings=panel.context.settings)] == [panel.run.id]
    assert_usable(lab, panel, read, panel.run.id)


def test_two_panels_on_one_run_agree_and_one_of_them_may_cancel(open_lab, wait_for):
    lab = open_lab(faults=[Fault(delay=3.0)])
    first = lab.uploads()
    first.start.click()
    wait_for(lambda: first.monitor.running)
    second = lab.attach()
    assert second.run.id == first.run.id
    assert second.monitor.running
    second.monitor.stop.click()
    for panel in (first, second):
        panel.settle()
        assert panel.monitor.state in {RunState.UNFINISHED, RunState.FINISHED}
    assert first.monitor.state is second.monitor.state
    assert first.run.outcomes == second.run.outcomes
    assert page_of(first) == page_of(second)


def test_a_list_that_was_edited_while_it_is_shown_is_checked_again_and_not_sent(lab, panel, read):
    sent, shown, file = lab.sent, panel.run.id, lab.workspace.folder / "list.csv"
    kept = file.read_text(encoding="utf-8").splitlines()[:-3]
    file.write_text("\n".join(kept), encoding="utf-8")
    press(panel)
    assert "list.csv was changed after it was checked" in read(panel.worker.line)
    assert "27 of 27 rows" in read(panel.ready_line)
    assert (lab.sent, panel.run.id) == (sent, shown)
    press(panel)
    assert panel.run.record.rows == 27


ECHO = "access_token=PLANTED-1 https://evil.example/put?q-signature=PLANTED-2 secret: PLANTED-3-LONG-ENOUGH-TO-BE-ONE"


def states():
    """Everything that a page, or a saved notebook, would hold."""
    every = widgets.Widget.get_manager_state(widgets=None)["state"]
    return json.dumps(every, default=str, ensure_ascii=False)


def test_no_widget_holds_a_secret(open_lab, read):
    faults = [
        Fault(env=BOOKS.env, path="banner/1.png", errcode=40097, errmsg=ECHO),
        Fault(env=TEA.env, path="banner/2.png", step="store", code="SignatureDoesNotMatch", errmsg=ECHO),
    ]
    lab = open_lab(faults=faults)
    shown = []
    for panel in (lab.links(), lab.uploads(), lab.audits()):
        press(panel)
        assert panel.run is not None, (read(panel.worker.line), read(panel.ready_line))
        press(panel, panel.monitor.export.this)
        shown.append(json.dumps(panel._repr_mimebundle_(), default=str))
        grid = panel.monitor.grid
        shown.append(json.dumps([grid.lines, grid.causes, grid.read({"code": None})], ensure_ascii=False))
    shown.append(states())
    links = (lab.workspace.folder / "links.csv").read_text(encoding="utf-8")
    assert "q-signature" in links
    for text in shown:
        for secret in (
            "token-of-",
            "q-signature=",
            "PLANTED",
            "x-cos-security-token=",
            lab.workspace.sim.base + "/7",
        ):
            assert secret not in text
    assert "wxbooks" in shown[3]  # the grid was there to look at
    assert "Run " in shown[-1]  # and the states
