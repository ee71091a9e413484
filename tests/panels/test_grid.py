"""The grid: what the browser is sent, and the rows that it asks for."""

import json

import pytest
from panel_lab import press
from workspace import BOOKS, TEA, many

from tcb_ops.features.simulator import Fault
from tcb_ops.model import Merchant

FAULTS = [
    Fault(env=BOOKS.env, errcode=85088),
    Fault(env=TEA.env, path="*/7.png", errcode=40097),
]


@pytest.fixture
def grid(open_lab):
    """The grid of an upload in which one merchant failed and another failed once; `sent` is what its browser gets."""
    panel = open_lab(faults=FAULTS).uploads()
    found = panel.monitor.grid
    found.sent = []
    found.send = lambda message, buffers=None: found.sent.append(message)
    press(panel)
    return found


def lines_of(page):
    return [row["line"] for row in page["rows"]]


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        ({"code": None}, 30),
        ({"code": ""}, 11),
        ({"code": "40097"}, 1),
        ({"code": "85088"}, 10),
        ({"code": "85088", "appid": TEA.appid}, 0),
        ({"code": "", "appid": TEA.appid}, 1),
        ({"code": None, "appid": TEA.appid}, 20),
        ({"code": "no such code"}, 0),
        ({"code": None, "outcome": "uploaded"}, 19),
    ],
)
def test_a_filter_gives_its_rows_and_their_number(grid, wanted, rows):
    page = grid.read(wanted)
    assert (len(page["rows"]), page["total"], page["more"]) == (rows, rows, False)


def test_a_path_is_searched_and_its_signs_are_only_text(grid):
    found = grid.read({"code": None, "path": "/7."})
    assert {row["path"] for row in found["rows"]} == {"banner/7.png"}
    assert found["total"] is None
    assert grid.read({"code": None, "path": "%"})["rows"] == []


def test_a_row_has_its_details(grid):
    (row,) = grid.read({"code": "40097"})["rows"]
    assert (row["merchant"], row["outcome"]) == ("茶语小铺", "refused")
    facts = dict(row["facts"])
    assert facts["Attempts"] == "1"
    assert "What to do" in facts


def test_pages_follow_one_another_by_line_and_none_is_lost(open_lab, monkeypatch):
    monkeypatch.setattr("tcb_ops.panels.grid.PAGE", 4)
    panel = open_lab(many(TEA, rows=50)).links()
    press(panel)
    seen, after, more = [], -1, True
    while more:
        page = panel.monitor.grid.read({"code": None, "after": after})
        assert len(page["rows"]) <= 4
        seen += lines_of(page)
        after, more = page["rows"][-1]["line"] if page["rows"] else after, page["more"]
    assert seen == list(range(2, 52))
    assert lines_of(panel.monitor.grid.read({"code": None, "after": -1})) == seen[:4]  # back again


def test_a_browser_that_comes_later_gets_everything_and_then_only_what_changed(grid, open_lab):
    grid.sent.clear()
    grid._answer(grid, {"ask": "all"}, [])
    (everything,) = grid.sent
    assert everything["full"]
    assert {line[0] for line in everything["lines"]} == {TEA.appid, BOOKS.appid}
    grid.sent.clear()
    grid.show(grid._run, running=False)
    assert (grid.sent[0]["full"], grid.sent[0]["lines"]) == (False, [])
    json.dumps(everything)


def test_markup_in_a_name_is_sent_as_text_and_drawn_escaped(open_lab):
    evil = Merchant("wxevil", "<img src=x onerror=alert(1)>", "evil-1a2b3c")
    panel = open_lab(many(evil, rows=1), [Fault(errcode=40097)], merchants=[evil]).uploads()
    press(panel)
    grid = panel.monitor.grid
    assert grid.lines["wxevil"][1] == evil.name
    assert "<img" not in grid.causes
    assert "<img" not in grid._charts
