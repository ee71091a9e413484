"""Links, audits and reports, by their buttons."""

import os
import re
import stat
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from panel_lab import press
from workspace import BOOKS, TEA, many

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.ledger.prune import remove
from tcb_ops.panels.context import RefusedList
from tcb_ops.panels.html import RunState, describe_end

pytestmark = pytest.mark.integration
MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d[+-]\d\d:\d\d"
"""A time as every output shows it, with the offset of its zone."""


def test_links_are_issued_into_a_file_that_only_its_owner_reads(open_lab, read):
    lab = open_lab()
    panel = lab.links()
    assert "30 of 30 rows valid" in read(panel.ready_line)
    press(panel)
    assert panel.run.counts == {"linked": 30}
    links = lab.workspace.folder / "links.csv"
    assert stat.S_IMODE(links.stat().st_mode) == 0o600
    assert f"The links are in {links}, which only you can read. The last ones expire" in read(
        panel.worker.line
    )


def test_where_the_links_are_stays_known_when_a_report_is_written(open_lab, read, tmp_path, monkeypatch):
    lab = open_lab()
    panel = lab.links()
    press(panel)
    links = Path(panel.run.record.links)
    report = panel.run.report()
    again = tcb.open_run(panel.run.id)
    assert len(again.links()) == 30
    assert (again.record.links, again.record.report) == (str(links), os.path.realpath(report))
    panel.monitor.attach(again.id)
    assert f"The links are in {links}, which only you can read." in read(panel.worker.line)
    card = again._repr_html_()
    assert "Links: links.csv" in card
    assert f'Report: <a href="reports/{again.id}/report.html"' in card
    said, _tone = describe_end(again, None, again.record.finished_at + 901)
    assert "They have expired: issue them again." in said.en
    (other := tmp_path / "another folder").mkdir()
    monkeypatch.chdir(other)
    assert "Links, outside the working folder: links.csv" in again._repr_html_()


def test_links_that_have_run_out_by_the_end_are_counted(open_lab, read):
    panel = open_lab(faults=[Fault(env=BOOKS.env, lifetime=0)]).links()
    press(panel)
    assert panel.run.counts == {"linked": 30}
    assert f"10 links had expired when {panel.run.record.links} was finished" in read(panel.worker.line)
    assert "op-bad" in panel.worker.line.value


def test_links_never_look_at_local_files(open_lab):
    lab = open_lab()
    for file in (lab.workspace.folder / "files").iterdir():
        file.unlink()
    panel = lab.links()
    assert not panel.start.disabled


def test_links_of_a_run_that_was_cut_off_are_not_given_up_unless_asked_for(open_lab, read):
    lab = open_lab(many(BOOKS, rows=40), [Fault(delay=0.5)])
    panel = lab.links()
    panel.start.click()
    panel.worker.settle()
    press(panel, panel.monitor.stop)
    cut_off = panel.run.id
    (lab.workspace.folder / "other.csv").write_text(f"env,path\n{BOOKS.env},a.png\n", encoding="utf-8")
    panel.list_reader.paths.value = "other.csv"
    panel.settle()
    press(panel)
    assert f"links.csv.part belongs to another run ({cut_off})" in read(panel.worker.line)
    panel.new.value = True
    press(panel)
    assert panel.run.counts == {"linked": 1}


def test_an_audit_asks_once_per_environment_and_shows_what_changed(open_lab, read):
    lab = open_lab(faults=[Fault(env=BOOKS.env, calls=((2, 99),), errcode=85088)])
    panel = lab.audits()
    assert "Ready. 2 merchants, 3 environments, one call each" in read(panel.ready_line)
    press(panel)
    assert panel.run.counts == {"healthy": 3}
    assert "since" not in read(panel.monitor.head)
    assert lab.sent == 3
    press(panel)
    assert panel.run.counts == {"healthy": 2, "unhealthy": 1}
    assert re.search(rf"1 newly broken, 0 recovered since {MOMENT}", read(panel.monitor.head))
    assert len(re.findall(f"<time>{MOMENT}</time>", panel.runs.table.value)) == 2
    assert read(panel.monitor.grid.causes).startswith("Newly broken 85088 ")
    assert {line[1]: line[9] for line in panel.monitor.grid.lines.values()} == {
        "城南书店": True,
        "茶语小铺": False,
    }
    shown = panel.monitor.grid.read({"code": None})["rows"]
    assert {row["path"] for row in shown} == {""}
    assert "probe" not in str(shown)
    assert "data-retry" not in panel.monitor.grid.causes
    assert "1 environment, 1 merchant: 城南书店" in read(panel.monitor.grid.causes)
    assert panel.monitor.retry.button.layout.display == "none"  # the next audit asks everybody
    press(panel)
    assert "0 newly broken, 0 recovered since " in read(panel.monitor.head)
    assert read(panel.monitor.grid.causes).startswith("Still broken 85088 ")
    assert not any(line[9] for line in panel.monitor.grid.lines.values())


def test_a_retry_of_an_audit_offers_no_other_retry(open_lab):
    lab = open_lab(faults=[Fault(env=BOOKS.env, errcode=85088)])
    audits = lab.audits()
    press(audits)
    tcb.retry(audits.run.id, settings=audits.run.settings)
    panel = lab.attach()
    assert panel.run.record.parent == audits.run.id
    assert panel.run.counts == {"unhealthy": 1}
    assert panel.monitor.retry.button.layout.display == "none"
    assert "data-retry" not in panel.monitor.grid.causes


def test_a_run_is_chosen_looked_at_and_exported(open_lab):
    lab = open_lab()
    uploads = lab.uploads()
    press(uploads)
    audits = lab.audits()
    press(audits)
    panel = lab.attach()
    assert panel.run.id == audits.run.id
    assert not panel.runs.opened
    press(panel, panel.runs.button)
    assert panel.runs.opened
    assert panel.runs.ids == [audits.run.id, uploads.run.id]
    panel.monitor.grid._answer(None, {"ask": "open", "value": uploads.run.id}, [])  # a click on it
    panel.settle()
    assert panel.run.id == uploads.run.id
    assert not panel.runs.opened
    assert panel.monitor.state is RunState.FINISHED
    press(panel, panel.monitor.export.this)
    assert (lab.workspace.folder / "reports" / uploads.run.id / "manifest.json").exists()


def test_what_another_process_does_to_the_run_is_shown_and_its_runs_are_listed(open_lab, read):
    lab = open_lab()
    panel = lab.uploads()
    press(panel)
    upload, look = panel.run, partial(panel.monitor.grid._answer, None, {"ask": "look"}, [])
    undo = tcb.undo(upload.id)
    look()
    assert f"undone by run {undo.id}" in read(panel.monitor.head)
    assert panel.runs.ids == [undo.id, upload.id]
    assert lab.uploads().run.id == upload.id  # the newest of the panel's kind
    for run in (undo, upload):
        remove(run._ledger, run.record)
    look()
    assert panel.run is None
    assert f"No run '{upload.id}'" in read(panel.worker.line)
    assert panel.monitor.export.button.layout.display == "none"


def test_a_ledger_that_is_not_there_is_reported_and_not_made_by_looking(open_lab, read):
    lab = open_lab()
    panel = lab.attach()
    assert "ledger.db does not exist: no run has used this ledger" in read(panel.worker.line)
    assert panel.runs.opened
    assert panel.run is None
    assert not (lab.workspace.folder / "ledger.db").exists()


def test_a_panel_shows_the_list_that_it_is_given_a_path_a_batch_or_a_frame(open_lab):
    lab = open_lab()
    context = lab.uploads().context
    batch = context.read_list("list.csv", "files")
    frame = pd.read_csv("list.csv")
    for given in (Path("list.csv"), batch, frame):
        panel = lab.uploads(given, None if given is batch else Path("files"))
        assert panel.start.description.endswith("(30 rows)")
        assert not panel.start.disabled


def test_a_list_with_problems_is_shown_with_what_can_be_done(open_lab, read):
    lab = open_lab([(TEA.env, "a.png"), (TEA.env, "/b.png")])
    panel = lab.uploads()
    refused = RefusedList("list.csv", "files", refusal(panel.context))
    again = lab.uploads(refused)
    assert again.start.disabled
    assert "1 problem" in read(again.list_reader.problems)
    again.list_reader.skip.value = True
    again.settle()
    assert not again.start.disabled


def refusal(context):
    with pytest.raises(tcb.InputError) as refused:
        context.read_list("list.csv", "files")
    return refused.value


def test_a_run_that_ends_while_another_is_shown_is_listed_as_it_is(open_lab, read):
    lab = open_lab(many(TEA, rows=10), [Fault(delay=1.0)])
    audits = lab.audits()
    press(audits)
    panel = lab.uploads()
    panel.start.click()
    panel.worker.settle()
    second, watched = panel.run.id, panel.monitor.watched
    panel.monitor.attach(audits.run.id)
    assert watched.wait(240)
    assert panel.run.id == audits.run.id
    assert second in panel.runs.ids
    assert "Upload of list.csv, 10 rows finished" in read(panel.runs.table)
