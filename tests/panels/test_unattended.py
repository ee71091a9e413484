"""The lines of a notebook, for a person and where nobody looks, in a real kernel."""

from __future__ import annotations

import os
import re

import pytest
from jupyter_client.manager import start_new_kernel
from workspace import BOOKS, TEA

import tcb_ops as tcb
from tcb_ops import panels
from tcb_ops.features.simulator.faults import Fault

NEED = "import tcb_ops as tcb; from tcb_ops import panels"


@pytest.mark.needs("health")
def test_outside_of_a_notebook_a_line_does_the_work(open_lab, capsys):
    lab = open_lab(faults=[Fault(env=BOOKS.env, errcode=85088)])
    assert repr(panels.use("live")).startswith("SIMULATED · http://127.0.0.1:")
    run = panels.upload(panels.read_paths("list.csv", root="files"), note="weekly")
    assert run.counts == {"uploaded": 20, "refused": 10}
    assert run.record.note == "weekly"
    assert "20 of 30 rows succeeded" in capsys.readouterr().out
    assert panels.audit().counts == {"healthy": 2, "unhealthy": 1}
    assert panels.links("list.csv").counts == {"linked": 20, "refused": 10}
    assert panels.attach(run.id).id == run.id
    assert (lab.workspace.folder / "links.csv").exists()


@pytest.mark.needs("simulator")
def test_links_of_the_sample_leave_the_working_folder_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panels.use("simulator")
    run = panels.links(panels.read_paths())
    assert list(tmp_path.iterdir()) == []
    assert len(run.links()) == run.record.rows
    assert "Links, outside the working folder: links.csv" in run._repr_html_()


@pytest.mark.parametrize("line", ["upload('list.csv', root='files'", "links('list.csv'", "audit("])
def test_a_live_target_needs_yes_where_nobody_looks(open_lab, line):
    lab = open_lab()
    lab.live()
    panels.use("live")
    with pytest.raises(tcb.UsageError, match="the target is live, and this notebook runs unattended"):
        eval(f"panels.{line})")  # noqa: S307  ours
    with pytest.raises(tcb.UsageError, match="yes cannot be"):
        eval(f"panels.{line.rstrip(',')}, yes='true')".replace("(,", "("))  # noqa: S307  ours
    assert lab.sent == 0


def test_a_list_with_problems_is_refused_where_nobody_looks(open_lab):
    lab = open_lab([(TEA.env, "/a.png"), ("nowhere", "c.png")])
    panels.use("live")
    with pytest.raises(tcb.InputError) as refused:
        panels.read_paths("list.csv", root="files")
    assert len(refused.value.problems) == 2
    with pytest.raises(tcb.InputError):
        panels.upload("list.csv", root="files")
    assert lab.sent == 0


class Kernel:
    """A kernel in a folder, and who sits before it."""

    def __init__(self, folder):
        env = {name: value for name, value in os.environ.items() if not name.startswith("TCB_OPS_")}
        self.manager, self.client = start_new_kernel(cwd=str(folder), env=env)

    def __call__(self, code, *, attended=True):
        """Run a cell; return what its outputs say as text or HTML, and the error that ended it."""
        said, error = [], None
        asked = self.client.execute(code, allow_stdin=attended)
        while True:
            message = self.client.get_iopub_msg(timeout=240)
            if message["parent_header"].get("msg_id") != asked:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "display_data" | "execute_result":
                    data = content["data"]
                    said.append(
                        "panel"
                        if "application/vnd.jupyter.widget-view+json" in data
                        else data.get("text/html", data["text/plain"])
                    )
                case "stream":
                    said.append(content["text"])
                case "error":
                    error = content["ename"]
                case "status" if content["execution_state"] == "idle":
                    return [re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", text)).strip() for text in said], error


@pytest.fixture
def kernel(open_lab):
    lab = open_lab(faults=[Fault(env=BOOKS.env, errcode=85088)])
    opened = Kernel(lab.workspace.folder)
    opened.lab = lab
    yield opened
    opened.client.stop_channels()
    opened.manager.shutdown_kernel(now=True)


@pytest.mark.notebook
def test_a_person_gets_a_panel_and_the_cells_below_say_what_to_do_until_there_is_a_run(kernel):
    kernel(f'{NEED}; panels.use("live"); batch = panels.read_paths("list.csv", root="files")')
    assert kernel("run = panels.upload(batch)") == (["panel"], None)
    wait = "No run yet: press Upload above, then run the cells below again."
    for cell in ("run", "run.causes()", "run.errcodes()", 'run.failed().groupby("x").size()', "run.report()"):
        assert kernel(cell) == ([wait], None), cell
    assert kernel.lab.sent == 0
    kernel("run.panel.start.click(); run.panel.settle()")
    (card,), error = kernel("run")
    assert error is None
    assert "20 of 30 rows succeeded" in card
    assert kernel("run.failed().groupby('tcb_merchant').size().to_dict()") == (["{'城南书店': 10}"], None)
    assert kernel("isinstance(run, tcb.Run), tcb.open_run().id == run.id, 'causes' in dir(run)") == (
        ["(True, True, True)"],
        None,
    )
    sent = kernel.lab.sent
    kernel("run = panels.upload(batch)")  # "Run all" again: the run of this list is shown
    assert "20 of 30 rows succeeded" in kernel("run")[0][0]
    assert kernel.lab.sent == sent


@pytest.mark.notebook
def test_a_person_whose_list_has_problems_gets_them_and_a_panel_that_offers_what_can_be_done(kernel):
    (kernel.lab.workspace.folder / "list.csv").write_text(f"env,path\n{TEA.env},/a.png\n", encoding="utf-8")
    kernel(f'{NEED}; panels.use("live")')
    (card,), error = kernel('batch = panels.read_paths("list.csv", root="files"); batch')
    assert error is None
    assert "/a.png" in card
    assert kernel("run = panels.upload(batch)") == (["panel"], None)
    assert kernel("run.causes()") == (["No run yet: the panel above says what is missing."], None)


@pytest.mark.notebook
def test_where_nobody_looks_the_same_line_does_the_work_and_leaves_no_widget(kernel):
    kernel(f'{NEED}; panels.use("live"); batch = panels.read_paths("list.csv", root="files")', attended=False)
    (said,), error = kernel("run = panels.upload(batch)", attended=False)
    assert error is None
    assert said.startswith("Unattended: run ")
    assert kernel("'ipywidgets' in __import__('sys').modules", attended=False)[0] == ["False"]


@pytest.mark.notebook
def test_without_widgets_a_person_is_told_what_to_install_and_a_program_does_the_work(kernel):
    gone = "import sys; sys.modules['ipywidgets'] = None; "
    gone += "import importlib.util as u; spec = u.find_spec; u.find_spec = lambda name: None if name == 'ipywidgets' else spec(name)"
    kernel(f"{gone}\n{NEED}\npanels.use('live')")
    _said, error = kernel("panels.upload('list.csv', root='files')")
    assert error == "UsageError"
    assert kernel.lab.sent == 0
    assert kernel("run = panels.upload('list.csv', root='files')", attended=False)[1] is None
    assert kernel.lab.sent > 0
