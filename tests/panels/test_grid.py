"""The grid and the looks of a run: from records to HTML, what the browser is sent, and the rows that it asks for."""

import json
import re

import pytest
from panel_lab import press
from workspace import BOOKS, TEA, TEA_TEST, many, write_csv

from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.engine.progress import Progress, ProgressMeter
from tcb_ops.features.health.audit_kind import AUDIT
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.i18n import NOTHING, Lang
from tcb_ops.ledger.records import Tally
from tcb_ops.model import Merchant, Outcome, Reason
from tcb_ops.panels.html import (
    esc,
    merchant_lines,
    render_causes,
    render_progress,
)
from tcb_ops.reports.summary import CodeGroup, retry_helps


def tally(merchant, outcome, rows, **more):
    given = {"reason": None, "errcode": None, "store_code": ""} | more
    return Tally(f"wx-{merchant}", merchant, "env-1", outcome, rows=rows, **given)


def test_merchants_with_trouble_come_first_and_the_rest_by_name():
    lines = merchant_lines(
        [
            tally("乙", Outcome.UPLOADED, 5),
            tally("甲", Outcome.PENDING, 5),
            tally("丙", Outcome.REFUSED, 1, reason=Reason.REFUSED, errcode=85088),
            tally("丁", Outcome.NOT_ATTEMPTED, 9, reason=Reason.BREAKER, errcode=85088),
            tally("丁", Outcome.REFUSED, 3, reason=Reason.REFUSED, errcode=85088),
        ]
    )
    assert [line.merchant for line in lines] == ["丁", "丙", "乙", "甲"]
    assert lines[0].codes == {"85088": 12}
    assert [line.shares.total() for line in lines] == [12, 1, 5, 5]


@pytest.mark.parametrize(
    ("codes", "again", "helps"),
    [
        (["61007"], False, True),
        (["61007"], True, False),
        (["61007", "40097"], True, False),
        (["61007", "no_answer"], True, True),
        (["40097"], False, False),
        (["no_answer"], True, True),
    ],
)
def test_a_retry_is_the_next_step_only_where_it_can_help(codes, again, helps):
    groups = [CodeGroup(code, NOTHING, NOTHING, None, (), (1,), {}, 1) for code in codes]
    assert retry_helps(groups, again=again) is helps


def test_what_came_from_outside_is_inert():
    evil = "<img src=x onerror=alert(1)>\x1b[31m"
    group = CodeGroup(evil, NOTHING, NOTHING, None, (), (1,), {Outcome.REFUSED: 1}, 1)
    drawn = render_causes([group], {}, UPLOAD, Lang.EN, asks=True, retries=True)
    assert "data-retry" in drawn
    assert "data-why" in drawn
    assert "<img" not in drawn
    assert "\x1b" not in drawn
    assert esc("\"'<>&") == "&quot;&#x27;&lt;&gt;&amp;"


def test_progress_is_a_bar_that_is_read_out_with_rate_and_time_left(read):
    look = Progress("r", 5000, {Outcome.UPLOADED: 1203}, 310.0, 12.2)
    drawn = render_progress(look, UPLOAD, Lang.EN, running=True)
    assert '<progress class="op-hidden" aria-label="Rows that have ended" value="1203" max="5000">' in drawn
    assert '<span class="good" style="flex:1203"></span><span class="todo" style="flex:3797"></span>' in drawn
    assert read(drawn) == "1,203 of 5,000 rows · 24% · 310/s · 12s left 1,203 uploaded"
    assert "每秒 310 · 剩余 12 秒" in read(render_progress(look, UPLOAD, Lang.ZH, running=True))
    slow = Progress("r", 5000, {Outcome.UPLOADED: 1203}, 0.31, 12000.0)
    assert "· 0.3/s ·" in read(render_progress(slow, UPLOAD, Lang.EN, running=True))
    still = Progress("r", 5000, {Outcome.UPLOADED: 1203}, 0.0, None)
    assert (
        read(render_progress(still, UPLOAD, Lang.EN, running=True))
        == "1,203 of 5,000 rows · 24% 1,203 uploaded"
    )
    soon = Progress("r", 240, {Outcome.UPLOADED: 111}, 439.0, 0.3)
    assert "left" not in read(render_progress(soon, UPLOAD, Lang.EN, running=True))
    ended = {Outcome.PENDING: 1, Outcome.REFUSED: 1, Outcome.UPLOADED: 3}  # as the rows ended
    mixed = read(render_progress(ProgressMeter("r", 5, ended).at(0, ended), UPLOAD, Lang.EN, running=True))
    assert "3 uploaded 1 refused" in mixed
    audit = render_progress(look, AUDIT, Lang.EN, running=True)
    assert "1,203 of 5,000 environments · 24% · 310/s" in read(audit)


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


def test_a_cause_has_what_can_be_done_about_it_where_it_stands(grid):
    by_code = {
        code: cause for cause in grid.causes.split("<li>")[1:] for code in ("85088", "40097") if code in cause
    }
    assert 'data-retry="85088">Retry 10 rows</button>' in by_code["85088"]
    assert "Copy the text for the merchant</button>" in by_code["85088"]
    assert 'data-why="85088">Ask the simulator why</button>' in by_code["85088"]
    assert "data-copy" not in by_code["40097"]  # nothing that the merchant could do


def test_the_heat_map_shows_each_codes_share_of_the_merchants_rows_and_names_it_in_full(grid):
    cells = dict(re.findall(r'data-code="(\w+)" style="--share: ([\d.]+)"', grid._charts))
    assert cells == {"85088": "1.00", "40097": "0.05"}
    assert "…" not in grid._charts


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


def test_a_rows_details_have_the_lists_own_columns(open_lab):
    lab = open_lab(many(TEA, rows=1))
    head, row = lab.workspace.list.read_text(encoding="utf-8").splitlines()
    lab.workspace.list.write_text(f"{head},负责人\n{row},小李\n", encoding="utf-8")
    panel = lab.uploads()
    press(panel)
    (shown,) = panel.monitor.grid.read({"code": None})["rows"]
    assert shown["facts"][-1] == ("负责人", "小李")
    assert not {"env", "path", "file"} & set(dict(shown["facts"]))


def test_a_merchant_has_the_own_columns_of_the_merchants_file_each_value_once(open_lab):
    lab = open_lab(many(TEA, BOOKS, rows=1))
    known = ((TEA, "华东", "小林"), (TEA_TEST, "华东", "小周"), (BOOKS, "", "<b>小周</b>"))
    lines = [(m.appid, m.name, m.env, *own) for m, *own in known]
    write_csv(lab.workspace.folder / "merchants.csv", ("appid", "name", "env", "region", "负责人"), lines)
    panel = lab.uploads()
    press(panel)
    assert {line[0]: line[-1] for line in panel.monitor.grid.lines.values()} == {
        TEA.appid: [("region", "华东"), ("负责人", "小林, 小周")],
        BOOKS.appid: [("负责人", "<b>小周</b>")],
    }


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
