"""Notebook 04 over every ledger: no error, and each number that it shows is one that SQL counts."""

import ast
import html
import json
import re
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import nbformat
import pytest
from ledgers import TARGET, new_run
from nbclient import NotebookClient

from notebooks import fixed
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.features.notebooks.parameters import NOTEBOOKS
from tcb_ops.kinds import kind_named
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.records import EnvRecord, Usage
from tcb_ops.model import Outcome, Owner, Reason, Row, RowEnd
from tcb_ops.settings import set_default_settings

NOTEBOOK = NOTEBOOKS / "04_analysis.ipynb"
AUDIT = kind_named("audit")
NOON = datetime(2026, 10, 1, 12, tzinfo=ZoneInfo("Asia/Shanghai"))
UPLOADED, HEALTHY = RowEnd(0, Outcome.UPLOADED, errcode=0), RowEnd(0, Outcome("healthy"), errcode=0)
REFUSED = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088)
DENIED = RowEnd(0, Outcome.FAILED, Reason.STORE_REFUSED, errcode=0, store_code="AccessDenied")
UNHEALTHY = RowEnd(0, Outcome("unhealthy"), Reason.REFUSED, errcode=61007)
COLLEAGUES = ("小林", "小周")
FLEET = [
    EnvRecord(n, f"shop-{n:03}", f"wx{n // 2:03}", f"商户 {n // 2}", Owner.MERCHANT, left=False)
    for n in range(12)
]


def add(ledger, kind, day, ends, *, places=FLEET, name="", **about):
    """Add a finished run of a day, with an end for each line from 2 on; None: the line is not in it."""
    new = new_run(
        f"2026{NOON + timedelta(days=day):%m%d}-120000-{name or kind[:4]}",
        kind=kind,
        created_at=(NOON + timedelta(days=day)).timestamp(),
        headers=("env", "path", "负责人"),
        **about,
    )
    rows, done = [], []
    for line, end in enumerate(ends, 2):
        place, path = places[line % len(places)], f"{line}.png"
        cells = (place.env, path, COLLEAGUES[line % 2])
        if end is not None:
            rows.append(Row(line, place.env, path, place.appid, place.merchant, path, cells))
            done.append(replace(end, line=line))
    run = ledger.plan(new, rows, places)
    ledger.record(run, done, Usage(1.0, 1, 1))
    ledger.finish(run, new.created_at + 60)


def nothing(ledger):
    pass


def one_upload(ledger):
    add(ledger, UPLOAD, 3, [UPLOADED, REFUSED, DENIED, REFUSED, UPLOADED] * 5)


def one_audit(ledger):
    add(ledger, AUDIT, 3, [HEALTHY] * 11 + [UNHEALTHY])


def seven_audits(ledger):
    for day in range(7):
        add(ledger, AUDIT, day, [UNHEALTHY if n < day else HEALTHY for n in range(12)])


def healthy(ledger):
    for day in range(7):
        add(ledger, AUDIT, day, [HEALTHY] * 12)
    add(ledger, UPLOAD, 6, [UPLOADED] * 24)


def another_target(ledger):
    add(ledger, UPLOAD, 3, [UPLOADED, REFUSED], target="http://127.0.0.1:8765")


def a_month(ledger):
    seven_audits(ledger)
    one_upload(ledger)
    again = [None, UPLOADED, UPLOADED, REFUSED, None] * 5
    add(ledger, UPLOAD, 4, again, name="again", parent="20261004-120000-uplo")


def large(ledger):
    """400 merchants and 60 runs, 761,484 rows: two runs, copied."""
    places = [
        replace(FLEET[0], number=n, env=f"e{n:03}", appid=f"wx{n:03}", merchant=f"商户 {n:03}")
        for n in range(400)
    ]
    bad = [UPLOADED if n % 400 > 36 or n % 3 else (REFUSED if n % 2 else DENIED) for n in range(12_691)]
    add(ledger, UPLOAD, 0, bad, places=places)
    with closing(sqlite3.connect(ledger.file)) as copied, copied:
        for number in range(2, 61):
            begun = NOON + timedelta(days=(number - 1) // 2)
            for table, key in (("runs", "number"), ("envs", "run"), ("rows", "run"), ("sums", "run")):
                columns = [f'"{about[1]}"' for about in copied.execute(f"PRAGMA table_info({table})")]
                changed = {
                    f'"{key}"': str(number),
                    '"id"': f"'{begun:%Y%m%d}-120000-{number:04}'",
                    '"created_at"': str(begun.timestamp()),
                }
                values = ", ".join(changed.get(column, column) for column in columns)
                copied.execute(f"INSERT INTO {table} SELECT {values} FROM {table} WHERE {key} = 1")


LEDGERS = (nothing, one_upload, one_audit, seven_audits, healthy, another_target, a_month)


def cells_of(folder, place, **given):
    """Execute the notebook's cells with parameters; return what each shows, as HTML or as its repr, by the cell's id."""
    shown, names = {}, {}
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type != "code":
            continue
        tree = ast.parse(cell.source)
        last = tree.body[-1]
        if not isinstance(last, ast.Expr):
            exec(cell.source, names)  # noqa: S102  our own
            assert not given.keys() - names.keys()
            names |= {"ledger": place, "lang": "en", **given}
            continue
        exec(compile(ast.Module(tree.body[:-1], []), cell.id, "exec"), names)  # noqa: S102
        value = eval(compile(ast.Expression(last.value), cell.id, "eval"), names)  # noqa: S307
        shown[cell.id] = getattr(value, "_repr_html_", value.__repr__)()
    set_default_settings(None)
    return shown


def tables(shown):
    """Return the lines of each table of a card, as texts."""
    return [
        [
            [
                html.unescape(re.sub("<[^>]+>", "", cell)).strip()
                for cell in re.findall("<td.*?</td>", line, re.DOTALL)
            ]
            for line in re.findall("<tr><td.*?</tr>", table, re.DOTALL)
        ]
        for table in re.findall("<tbody>(.*?)</tbody>", shown, re.DOTALL)
    ]


def numbers(*values):
    return [f"{value:,}" if isinstance(value, int) else value or "" for value in values]


def share(good, bad):
    return f"{100 * good // (good + bad)}%"


MERCHANT = (
    "merchant, COUNT(DISTINCT CASE WHEN code IS NOT NULL THEN run_started_at END), COUNT(code), COUNT(*)"
)
AGAIN = """SELECT before.code, COUNT(*), COUNT(*) - COUNT(again.code) FROM v_rows AS again
    JOIN v_rows AS before ON before.run = again.parent AND before.line = again.line
    WHERE again.kind = '{kind}' GROUP BY before.code ORDER BY 2 DESC, 1"""


def check(shown, fetch, column, value, top=10):
    """Compare the numbers of the cards with those of the view."""
    of_target = f"FROM v_rows WHERE target = '{TARGET}'"
    ran = fetch(
        f"SELECT kind, parent <> '', COUNT(DISTINCT run), COUNT(*), COUNT(*) - COUNT(code), COUNT(code) {of_target} GROUP BY 1, 2"
    )
    kinds = [
        kind
        for kind in ("upload", "audit")
        if (kind, False) in {(name, bool(retry)) for name, retry, *_ in ran}
    ]
    in_order = sorted(ran, key=lambda line: (["upload", "audit"].index(line[0]), line[1]))
    listed = [
        [kind + ", retries" * bool(retry), *numbers(*counts), share(*counts[2:])]
        for kind, retry, *counts in in_order
    ]
    assert tables(shown["history"]) == ([listed] if ran else [])
    expected = {"codes": [], "merchants": [], "by": [], "retries": []}
    for kind in kinds:
        rows = f"{of_target} AND kind = '{kind}' AND parent = ''"
        codes = fetch(
            f"SELECT code, COUNT(*), COUNT(DISTINCT run_started_at), COUNT(DISTINCT appid) {rows} AND code IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        if codes:
            expected["codes"].append([[f"■ {code}", *numbers(*counts)] for code, *counts in codes])
            merchants = fetch(
                f"SELECT {MERCHANT} {rows} GROUP BY appid, merchant HAVING COUNT(code) > 0 ORDER BY 2 DESC, 3 DESC, 1"
            )
            expected["merchants"].append([[name, "", *numbers(*counts)] for name, *counts in merchants[:top]])
            assert f"{len(merchants)} of " in shown["merchants"]
            if len(merchants) > top:
                such = sum(line[2] for line in merchants)
                assert f"of {such:,} such rows" in shown["merchants"]
        values = fetch(
            f"SELECT {value}, COUNT(DISTINCT appid), COUNT(*), COUNT(code) {rows} GROUP BY 1 ORDER BY 4 DESC, 3 DESC, 1"
        )
        if kind == "upload" or column == "region":
            expected["by"].append(
                [
                    [of or "–", *numbers(merchants, rows, bad), share(rows - bad, bad)]
                    for of, merchants, rows, bad in values[:top]
                ]
            )
        if any(name == kind and retry for name, retry, *_ in ran):
            expected["retries"].append(
                [
                    [code, *numbers(rows, good), share(good, rows - good)]
                    for code, rows, good in fetch(AGAIN.format(kind=kind))
                ]
            )
    assert [[line[:4] for line in table] for table in tables(shown["codes"])] == expected["codes"]
    assert [[line[:5] for line in table] for table in tables(shown["merchants"])] == expected["merchants"]
    assert tables(shown["by"]) == expected["by"]
    assert tables(shown["retries"]) == expected["retries"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TCB_OPS_TIMEZONE", "Asia/Shanghai")
    lines = (
        f"{one.appid},{one.merchant},{one.env},{'north' if one.number < 4 else 'south'}" for one in FLEET
    )
    Path("merchants.csv").write_text("\n".join(("appid,name,env,region", *lines)), encoding="utf-8")
    return tmp_path


REGION = "CASE WHEN env < 'shop-004' THEN 'north' ELSE 'south' END"


@pytest.mark.parametrize("fill", LEDGERS, ids=[fill.__name__ for fill in LEDGERS])
@pytest.mark.parametrize("column", ["region", "负责人"])
@pytest.mark.slow
def test_each_cell_has_an_answer_whose_numbers_are_those_of_the_view(folder, place, fill, column):
    with closing(Ledger(place)) as ledger:
        fill(ledger)
        shown = cells_of(folder, place, column=column)
        colleague = "CASE line - line / 2 * 2 WHEN 0 THEN '小林' ELSE '小周' END"
        check(shown, ledger.fetch, column, REGION if column == "region" else colleague)
    assert all("<" in shown[cell] for cell in ("history", "codes", "merchants", "by", "retries", "run"))
    if fill in {nothing, another_target}:
        reason = "has no run yet." if fill is nothing else "It has 1 run to http://127.0.0.1:8765"
        assert all(reason in shown[cell] for cell in shown if cell != "use")
    else:
        assert list((folder / "reports").glob("*/report.html"))
    if fill is healthy:
        assert "7 runs: all 84 rows succeeded." in shown["codes"]
    if fill in {one_audit, seven_audits, healthy}:
        assert "No retry in these days." in shown["retries"]


@pytest.mark.slow
def test_400_merchants_and_60_runs_take_a_few_seconds_and_little_memory(folder):
    place = str(folder / "ledger.db")
    with closing(Ledger(place)) as ledger:
        large(ledger)
        shown = cells_of(folder, place, column="负责人", top=12)
        colleague = "CASE line - line / 2 * 2 WHEN 0 THEN '小林' ELSE '小周' END"
        check(shown, ledger.fetch, "负责人", colleague, top=12)
    assert "60 runs" in shown["history"]
    assert "761,460" in shown["history"]


@pytest.mark.notebook
def test_two_executions_show_the_same_without_widgets_and_paths_of_the_machine(tmp_path):
    executed = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        notebook = nbformat.read(NOTEBOOK, 4)
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
        assert "widgets" not in notebook.metadata
        executed.append([cell.get("outputs") for cell in notebook.cells])
        written = nbformat.writes(notebook)
        assert len(written.encode()) < 65_000
        assert "widget-view" not in written
        assert str(tmp_path) not in written
        assert tempfile.gettempdir() not in written
    one, two = (fixed(json.dumps(outputs), ["link", "size"]) for outputs in executed)
    assert one == two
    outputs = [outputs for outputs in executed[0] if outputs]
    assert len(outputs) == 7
    assert all(output.output_type == "execute_result" for shown in outputs for output in shown)
