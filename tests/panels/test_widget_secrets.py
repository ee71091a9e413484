"""No token, link or secret in the state of any widget, nor in what a panel shows of itself."""

import json

import ipywidgets as widgets
import pytest
from panel_lab import press
from workspace import BOOKS, TEA

from tcb_ops.features.simulator import Fault

ECHO = "access_token=PLANTED-1 https://evil.example/put?q-signature=PLANTED-2 secret: PLANTED-3-LONG-ENOUGH-TO-BE-ONE"


def states():
    """Everything that a page, or a saved notebook, would hold."""
    every = widgets.Widget.get_manager_state(widgets=None)["state"]
    return json.dumps(every, default=str, ensure_ascii=False)


@pytest.mark.slow
def test_no_widget_holds_a_secret(open_lab):
    faults = [
        Fault(env=BOOKS.env, path="banner/1.png", errcode=40097, errmsg=ECHO),
        Fault(env=TEA.env, path="banner/2.png", step="store", code="SignatureDoesNotMatch", errmsg=ECHO),
    ]
    lab = open_lab(faults=faults)
    shown = []
    for panel in (lab.links(), lab.uploads(), lab.audits()):
        press(panel)
        press(panel, panel.monitor.export.button)
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
