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
from tcb_ops.bundled import SAMPLE
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.features.simulator.sample import FILES, MERCHANTS, PATHS, sample_simulator, write_practice
from tcb_ops.panels.html import RunState

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


def test_a_list_that_is_refused_by_now_is_reported_and_its_run_is_among_the_earlier_ones(open_lab, read):
    lab = open_lab()
    first = lab.uploads()
    press(first)
    (lab.workspace.folder / "list.csv").unlink()
    again = lab.uploads()
    assert "list.csv" in read(again.list_reader.line)
    assert again.run is None  # it cannot be known to be of this list
    assert first.run.id in again.runs.ids
    assert again.start.disabled


BELOW = """
import json
import tcb_ops as tcb
from tcb_ops import panels
panels.use("simulator")
run = panels.upload(panels.read_paths(root=""))
said = {"run": run.id, "opened": tcb.open_run().id, "all": [run.id for run in tcb.runs()],
        "attached": panels.attach().id, "bad": sum(line.rows for line in tcb.history().lines) > 0}
said["settings"] = [repr(tcb.load_settings()), repr(tcb.load_settings(options={"timezone": "UTC"}))]
panels.use("live")
said["settings"] += [repr(tcb.load_settings())]
try:
    tcb.open_run()
except tcb.RunNotFoundError as error:
    said["live"] = str(error)
print(json.dumps(said))
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


def test_below_a_practice_panel_the_librarys_calls_find_its_runs_and_below_a_live_one_the_live_ones(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "merchants.csv").write_text("appid,name,env\nwx1,a,a-1\n", encoding="utf-8")
    found = practised(BELOW, tmp_path)
    assert found["opened"] == found["attached"] == found["run"]
    assert found["all"] == [found["run"]]
    assert found["bad"]
    assert [line.split()[1] for line in found["settings"]] == ["SIMULATED", "SIMULATED", "LIVE"]
    assert "does not exist" in found["live"]


REHEARSE = """
import json
import tcb_ops as tcb
from tcb_ops import panels
context = panels.use("simulator")
batch = panels.read_paths(root="")
run = panels.upload(batch)
print(json.dumps({
    "list": [str(batch.source), str(batch.root)], "merchants": context.settings.merchants.name, "sample": context.sample,
    "opened": tcb.open_run().id == run.id, "runs": len(tcb.runs()), "rows": [run.record.rows, run.succeeded],
    "report": str(run.report()) == f"reports/{run.id}",
}))
"""


def test_a_rehearsals_notebooks_use_its_merchants_list_faults_store_and_ledger(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    write_practice(folder)
    first = practised(REHEARSE, tmp_path)
    assert first == {
        "list": ["paths.csv", "files"],
        "merchants": "merchants.csv",
        "sample": False,
        "opened": True,
        "runs": 1,
        "rows": [6, False],
        "report": True,
    }
    assert (folder / "tcb-ops.db").exists()
    assert any((folder / "store").iterdir())
    assert practised(REHEARSE, tmp_path) == first | {"runs": 2}


def test_a_merchant_added_to_the_copied_sample_is_practised_with(tmp_path):
    shutil.copytree(SAMPLE, tmp_path / "work" / "data", ignore=shutil.ignore_patterns("practice", "*.db"))
    found = practised(ADDED, tmp_path)
    assert str(tmp_path / "work" / "data" / "merchants.csv") in found["refused"]
    assert found["succeeded"]


ADDED = """
import json
from pathlib import Path
import tcb_ops as tcb
from tcb_ops import panels
Path("new.csv").write_text("env,path\\nnew-1,logo.png\\n", encoding="utf-8")
Path("logo.png").write_bytes(b"logo")
panels.use("simulator")
try:
    panels.read_paths("new.csv", root=".")
except tcb.InputError as error:
    refused = str(error)
with Path("data/merchants.csv").open("a", encoding="utf-8") as merchants:
    merchants.write("wx00000000000000ff,New,new-1\\n")
panels.use("simulator")
run = panels.upload("new.csv", root=".")
print(json.dumps({"refused": refused, "succeeded": run.succeeded}))
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
