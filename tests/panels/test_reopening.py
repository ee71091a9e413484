"""After "Run all", a restarted kernel and a re-opened notebook: the newest run is shown, nothing is begun; practice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from panel_lab import press
from workspace import BOOKS, QUICK

import tcb_ops as tcb
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.features.simulator.sample import FILES, MERCHANTS, PATHS, sample_simulator, write_practice
from tcb_ops.panels.controls import ExportMenu
from tcb_ops.panels.html import RunState
from tcb_ops.panels.notebook_panels import in_jupyter_session
from tcb_ops.resources import SAMPLE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["uploads", "links", "audits"])
@pytest.mark.parametrize("refused", [False, True], ids=["all good", "some refused"])
def test_a_finished_run_is_shown_again_with_what_can_be_done(open_lab, read, kind, refused):
    lab = open_lab(faults=[Fault(env=BOOKS.env, errcode=85088)] if refused else [])
    first = getattr(lab, kind)()
    press(first)
    sent, verdict = lab.sent, read(first.worker.line)
    again = getattr(lab, kind)()
    assert again.run.id == first.run.id
    assert again.monitor.state is RunState.FINISHED
    assert first.run.id in read(again.monitor.head)
    assert " finished " in read(again.monitor.head)
    assert read(again.worker.line) == verdict
    assert "Ready." in read(again.ready_line)
    assert not again.setup.opened
    assert again.monitor.export.button.layout.display == ""
    assert not again.monitor.export.this.disabled
    retried = refused and kind != "audits"
    assert (again.monitor.retry.button.layout.display == "") is retried
    assert again.monitor.retry.action.button.disabled is False
    assert bool(again.monitor.grid.causes) is refused
    assert not again.start.disabled
    assert lab.sent == sent


def test_files_exported_before_the_end_is_drawn_stay_listed(open_lab, tmp_path):
    lab = open_lab()
    panel = lab.uploads()
    press(panel)
    run, export = panel.run, ExportMenu(panel.worker, "", lambda: None)
    export.export(run, tmp_path / "report")
    export.show_run(run)
    assert "report.html" in export.files.value
    export.show_run(None)
    assert export.files.value == ""


def test_a_list_that_is_refused_by_now_is_reported_beside_the_run(open_lab, read):
    lab = open_lab()
    first = lab.uploads()
    press(first)
    (lab.workspace.folder / "list.csv").unlink()
    again = lab.uploads()
    assert "list.csv" in read(again.list_reader.line)
    assert read(again.worker.line).startswith("All 30 rows succeeded")
    assert again.run.id == first.run.id
    assert again.start.disabled


PRACTISE = """
import json
import tcb_ops as tcb
from tcb_ops import panels
panel = panels.run_uploads()
panel.run_now(False)
links = panel.monitor.export.files.value
print(json.dumps({"linked": f"<a href='reports/{panel.run.id}/report.html'" in links, "shown": panel.run.id, "finished": panel.run.record.finished_at is not None,
                  "runs": [run.id for run in tcb.runs()]}))
"""
BELOW = """
import json
import tcb_ops as tcb
from tcb_ops import panels
panel = panels.run_uploads()
panel.run_now(False)
attached = panels.attach()
attached.settle()
found = {"run": panel.run.id, "opened": tcb.open_run().id, "all": [run.id for run in tcb.runs()],
         "attached": attached.run.id, "bad": sum(line.rows for line in tcb.history().lines) > 0}
panels.run_uploads("live")
try:
    tcb.open_run()
except tcb.RunNotFoundError as error:
    found["live"] = str(error)
print(json.dumps(found))
"""


def practised(script, tmp, **more):
    """What a kernel in an empty folder prints."""
    (tmp / "tmp").mkdir(exist_ok=True)
    (tmp / "work").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp / "work",
        env=os.environ | {"TMPDIR": str(tmp / "tmp")} | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_in_practice_a_headless_run_links_to_its_report_below_the_notebook(tmp_path):
    result = practised(PRACTISE, tmp_path, JPY_SESSION_NAME="/a/02_run_uploads.ipynb")
    assert result == {"linked": True, "finished": True, "shown": result["shown"], "runs": [result["shown"]]}


def test_below_a_practice_panel_the_librarys_calls_find_its_runs_and_below_a_live_one_the_live_ones(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "merchants.csv").write_text("appid,name,env\nwx1,a,a-1\n", encoding="utf-8")
    found = practised(BELOW, tmp_path)
    assert found["opened"] == found["attached"] == found["run"]
    assert found["all"] == [found["run"]]
    assert found["bad"]
    assert "does not exist" in found["live"]


REHEARSE = """
import json
import tcb_ops as tcb
from tcb_ops import panels
panel = panels.run_uploads()
panel.run_now(False)
shown = panels.export_report()
shown.settle()
reader, context = panel.list_reader, panel.context
print(json.dumps({
    "list": [reader.paths.value, reader.root.value], "merchants": context.settings.merchants.name, "sample": context.sample,
    "opened": tcb.open_run().id, "shown": [panel.run.id, shown.run.id], "runs": [run.id for run in tcb.runs()],
    "rows": [panel.run.record.rows, panel.run.succeeded], "attached": panels.attach().context.sample,
}))
"""


def test_a_rehearsals_notebooks_use_its_merchants_list_faults_store_and_ledger(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    write_practice(folder)
    first = practised(REHEARSE, tmp_path)
    run = first["opened"]
    assert first == {
        "list": ["paths.csv", "files"],
        "merchants": "merchants.csv",
        "sample": False,
        "opened": run,
        "shown": [run, run],
        "runs": [run],
        "rows": [6, False],
        "attached": False,
    }
    assert (folder / "tcb-ops.db").exists()
    assert any((folder / "store").iterdir())
    assert (folder / "reports" / run / "report.html").exists()
    assert practised(REHEARSE, tmp_path) == first  # a restarted kernel shows the run, and starts none


def test_a_merchant_added_to_the_copied_sample_is_practised_with(tmp_path):
    shutil.copytree(SAMPLE, tmp_path / "work" / "data", ignore=shutil.ignore_patterns("practice", "*.db"))
    found = practised(ADDED, tmp_path)
    assert str(tmp_path / "work" / "data" / "merchants.csv") in found["refused"]
    assert found["succeeded"]


ADDED = """
import json
from pathlib import Path
from tcb_ops import panels
Path("new.csv").write_text("env,path\\nnew-1,logo.png\\n", encoding="utf-8")
panel = panels.run_uploads(paths="new.csv", root=".")
Path("logo.png").write_bytes(b"logo")
panel.settle()
refused = panel.list_reader.line.value
with Path("data/merchants.csv").open("a", encoding="utf-8") as merchants:
    merchants.write("wx00000000000000ff,New,new-1\\n")
panel = panels.run_uploads(paths="new.csv", root=".")
panel.run_now(False)
print(json.dumps({"refused": refused, "succeeded": panel.run.succeeded}))
"""


def test_a_run_on_a_live_target_is_marked_in_the_header_that_stays(open_lab, read):
    lab = open_lab()
    assert read(lab.uploads().monitor.head).startswith("SIMULATED 演练")
    lab.live()
    panel = lab.uploads()
    assert read(panel.monitor.head).startswith("LIVE")
    assert panel.start.button_style == "primary"


LOOK = "from tcb_ops.features.simulator.sample import practice; s = practice('zh'); print(s.api_base, s.ledger, s.lang, s is practice() or s == practice())"


def looked(tmp, **more):
    env = os.environ | {"TMPDIR": str(tmp)} | more
    done = subprocess.run([sys.executable, "-c", LOOK], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_process_has_one_and_takes_it_along(tmp_path):
    base, ledger, lang, same = looked(tmp_path)
    assert base.startswith("http://127.0.0.1:")
    assert ledger.startswith(str(tmp_path))
    assert (lang, same) == ("zh", "True")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["JPY_SESSION_NAME", "VOILA_REQUEST_URL"])
def test_what_a_user_looks_at_is_told_from_what_a_program_runs(monkeypatch, name):
    for one in ("JPY_SESSION_NAME", "VOILA_REQUEST_URL"):
        monkeypatch.delenv(one, raising=False)
    assert not in_jupyter_session()
    monkeypatch.setenv(name, "/voila/render/02_run_uploads.ipynb")
    assert in_jupyter_session()


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """The settings of a simulator with the sample's merchants and fault plan."""
    with sample_simulator(tmp_path_factory.mktemp("practice")) as settings:
        yield settings


@pytest.fixture(scope="module")
def named(simulated):
    """The environments that the check of merchants and tokens names."""
    states = tcb.check_merchants(tcb.read_merchants(MERCHANTS), settings=simulated)
    return {state.merchant.env for state in states if not state.works}


def test_in_an_upload_nothing_works_where_the_check_says_so_and_something_everywhere_else(simulated, named):
    with tcb.read_paths(PATHS, tcb.read_merchants(MERCHANTS), FILES) as batch:
        run = tcb.upload(batch, settings=simulated, limits=QUICK)
    rows = list(run.rows())
    assert {row.row.env for row in rows} - {row.row.env for row in rows if row.end.outcome.succeeded} == named
