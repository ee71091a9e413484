"""A run merged with its retries: the last state of each original row, in every file and table."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import openpyxl
import pytest
from tables import table

import tcb_ops as tcb
from tcb_ops.details import as_detail, detail
from tcb_ops.features.health import UNAVAILABLE, UNHEALTHY, AuditCode
from tcb_ops.i18n import Bilingual
from tcb_ops.ledger.records import NewRun, RowRecord, Usage
from tcb_ops.ledger.run_view import last_state, merged_run
from tcb_ops.model import Merchant, Outcome, Reason, Row, RowEnd
from tcb_ops.reports.export import export
from tcb_ops.run import Run

NOW = 1_764_036_000.0
UPLOADED = RowEnd(0, Outcome.UPLOADED, errcode=0, http_status=204, attempts=2)
REFUSED = RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088, errmsg="no qbase privilege")
FAILED = RowEnd(0, Outcome.FAILED, Reason.NO_ANSWER)
STOPPED = RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=85088)
INVALID = RowEnd(0, Outcome.INVALID, Reason.INVALID, as_detail(Bilingual("path starts with /", "以 / 开头")))
PENDING = RowEnd(0, Outcome.PENDING)


def retry(reported, of, ends, run_id, *, finished=True):
    """A retry of a run, over these lines."""
    ledger = reported.ledger
    about = {name: getattr(of, name) for name in NewRun.__dataclass_fields__}
    new = NewRun(**about | {"id": run_id, "parent": of.id, "created_at": of.created_at + 60})
    rows = [record.row for record in ledger.rows(of) if record.row.line in ends]
    run = ledger.plan(new, rows, ledger.environments(of))
    done = [replace(end, line=line) for line, end in ends.items() if end.outcome is not Outcome.PENDING]
    ledger.record(run, done, Usage(10.0, 3, 2))
    if finished:
        ledger.finish(run, 1_764_035_900.0)
    return ledger.run(run_id)


def outcomes(run):
    return [str(record.end.outcome) for record in run.rows()]


@table(
    "states, last",
    {
        "good": ([UPLOADED], 0),
        "still bad": ([FAILED, REFUSED], 1),
        "fixed": ([FAILED, UPLOADED], 1),
        "retry unfinished": ([FAILED, PENDING], 0),
        "good stays": ([FAILED, UPLOADED, REFUSED], 1),
        "second unfinished": ([FAILED, REFUSED, PENDING], 1),
        "pending": ([PENDING], 0),
        "invalid": ([INVALID], 0),
    },
)
def test_the_last_state_of_a_row(states, last):
    row = Row(2, "env", "a.png", "wx", "m", "a.png", ())
    records = [RowRecord(row, end) for end in states]
    assert last_state(records) is records[last]


def test_a_run_and_its_retries_are_one(a_run, in_english, tmp_path):
    reported = a_run([UPLOADED, REFUSED, FAILED, STOPPED, INVALID, FAILED])
    first = retry(reported, reported.run, {3: UPLOADED, 4: FAILED, 5: STOPPED, 7: REFUSED}, "retry-1")
    second = retry(reported, first, {4: UPLOADED, 5: REFUSED}, "retry-2")
    third = retry(reported, reported.run, {7: PENDING}, "retry-3", finished=False)
    for asked in (reported.run, first, second, third):
        run = Run(reported.ledger, asked, in_english).final()
        assert run.id == reported.run.id
        assert run.record.retries == ("retry-1", "retry-2", "retry-3")
        assert outcomes(run) == ["uploaded", "uploaded", "uploaded", "refused", "invalid", "refused"]
        assert run.counts == {"uploaded": 3, "refused": 2, "invalid": 1}
        assert run.summary()["counts"] == run.counts
        assert (run.record.link_calls, run.record.seconds) == (7 + 9, pytest.approx(12.3456 + 30))
        assert [record.row.line for record in run.rows(line=4)] == [4]
        assert run.results()["tcb_outcome"].tolist() == outcomes(run)


@pytest.mark.needs("workbooks")
def test_the_report_folder_holds_the_final_state_and_says_of_what_it_is_made(a_run, in_english, tmp_path):
    reported = a_run([UPLOADED, REFUSED, FAILED])
    retry(reported, reported.run, {3: UPLOADED, 4: REFUSED}, "20251125-100000-abcd")
    view = merged_run(reported.ledger, reported.run)
    out = export(reported.ledger, view.record, tmp_path / "out", in_english, now=NOW, reader=view)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["run"] == reported.run.id
    assert manifest["retries"] == ["20251125-100000-abcd"]
    assert manifest["counts"] == {"uploaded": 2, "refused": 1}
    assert sum(manifest["counts"].values()) == manifest["rows"] == 3
    with (out / "results.csv").open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["tcb_line"], row["tcb_outcome"]) for row in rows] == [
        ("2", "uploaded"),
        ("3", "uploaded"),
        ("4", "refused"),
    ]
    with (out / "failed.csv").open(encoding="utf-8-sig", newline="") as lines:
        assert [row["tcb_line"] for row in csv.DictReader(lines)] == ["4"]
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "20251125-100000-abcd" in html
    assert "2 of 3 rows succeeded" in html
    book = openpyxl.load_workbook(out / "report.xlsx")
    result = {row[0]: row[1] for row in book["summary"].iter_rows(values_only=True)}
    assert result["merged with its retries"] == "20251125-100000-abcd"
    assert [row[2] for row in book["did not succeed"].iter_rows(min_row=2, values_only=True)] == [4]


def test_the_original_itself_is_not_changed(a_run, in_english):
    reported = a_run([REFUSED])
    retry(reported, reported.run, {2: UPLOADED}, "retry-1")
    Run(reported.ledger, reported.run, in_english).final()
    assert reported.ledger.counts(reported.run) == {Outcome.REFUSED: 1}
    assert reported.ledger.run(reported.run.id).retries == ()


def test_a_retry_whose_original_is_gone_is_the_oldest_there_is(a_run, in_english):
    reported = a_run([REFUSED], parent="20250101-000000-gone")
    assert Run(reported.ledger, reported.run, in_english).final().id == reported.run.id


def by_hand(reported, *, merged, merchant):
    """What a view has: the run's rows, each as it ended last, filtered by merchant."""
    family = [reported.run, *reported.ledger.retries(reported.run)] if merged else [reported.run]
    last: dict[int, RowRecord] = {}
    for run in family:
        for record in reported.ledger.rows(run):
            before = last.get(record.row.line)
            if before is None or not before.end.outcome.succeeded:
                last[record.row.line] = record
    return [last[line] for line in sorted(last) if merchant in {"", last[line].row.merchant}]


WHALE = "Blue Whale"
BAD = frozenset(Outcome.all()) - Outcome.successes()
METHODS: dict[str, tuple[Callable[[Run], Any], Callable[[list[RowRecord]], Any]]] = {
    "rows": (lambda run: list(run.rows()), lambda rows: rows),
    "rows of outcomes": (
        lambda run: list(run.rows(outcomes=BAD)),
        lambda rows: [one for one in rows if one.end.outcome in BAD],
    ),
    "rows of a merchant": (
        lambda run: list(run.rows(merchant="wxbbbb")),
        lambda rows: [one for one in rows if one.row.appid == "wxbbbb"],
    ),
    "rows of a path": (
        lambda run: list(run.rows(path="3.png")),
        lambda rows: [one for one in rows if "3.png" in one.row.path],
    ),
    "row of a line": (
        lambda run: list(run.rows(line=3)),
        lambda rows: [one for one in rows if one.row.line == 3],
    ),
    "page": (lambda run: run.page(), lambda rows: (rows, len(rows))),
    "page of what failed": (
        lambda run: run.page(code="", limit=2),
        lambda rows: (
            [one for one in rows if one.end.outcome in BAD][:2],
            sum(one.end.outcome in BAD for one in rows),
        ),
    ),
    "page of a code": (
        lambda run: run.page(code="85088")[0],
        lambda rows: [one for one in rows if one.end.errcode == 85088],
    ),
    "page of an appid": (
        lambda run: run.page(appid="wxaaaa", path="png"),
        lambda rows: (
            [one for one in rows if one.row.appid == "wxaaaa"],
            sum(one.row.appid == "wxaaaa" for one in rows),
        ),
    ),
    "counts": (
        lambda run: run.counts,
        lambda rows: {
            str(one): n for one in Outcome.all() if (n := sum(row.end.outcome is one for row in rows))
        },
    ),
    "planned bytes": (
        lambda run: run.planned_bytes(BAD),
        lambda rows: sum(one.row.size or 0 for one in rows if one.end.outcome in BAD),
    ),
    "tallies": (
        lambda run: Counter({(t.env, t.outcome, t.errcode, t.detail): t.rows for t in run.tallies()}),
        lambda rows: Counter(
            (
                one.row.env,
                one.end.outcome,
                one.end.errcode,
                one.end.detail if one.end.reason is UNAVAILABLE else None,
            )
            for one in rows
        ),
    ),
    "merchants to retry": (
        lambda run: {tally.merchant for tally in run.tallies_to_retry()},
        lambda rows: {one.row.merchant for one in rows if one.end.outcome in BAD},
    ),
    "causes": (
        lambda run: sum(cause.rows for cause in run.overview().causes),
        lambda rows: sum(one.end.outcome in BAD for one in rows),
    ),
    "errcodes": (
        lambda run: {env: int(n) for (_, _, env), n in run.errcodes().sum(axis=1).items()},
        lambda rows: dict(Counter(one.row.env for one in rows if one.end.outcome in BAD)),
    ),
    "by merchant": (
        lambda run: dict(
            zip(*(run.by_merchant()[name].tolist() for name in ("merchant", "rows")), strict=True)
        ),
        lambda rows: dict(Counter(one.row.merchant for one in rows)),
    ),
    "results": (
        lambda run: [int(line) for line in run.results()["tcb_line"]],
        lambda rows: [one.row.line for one in rows],
    ),
    "merchants like": (
        lambda run: set(run.merchants_like("")),
        lambda rows: {one.row.merchant for one in rows},
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("view", ["merchants", "final", "merchants of final", "final of merchants"])
def test_every_method_of_a_view_returns_what_a_filter_of_the_results_does(a_run, in_english, view, method):
    stopped = RowEnd(0, UNHEALTHY, UNAVAILABLE, detail(AuditCode.ENV_STATUS, status="ISOLATE"))
    reported = a_run([UPLOADED, REFUSED, FAILED, REFUSED, stopped, INVALID, REFUSED, UPLOADED])
    retry(reported, reported.run, {3: UPLOADED, 4: REFUSED, 6: stopped, 7: stopped, 8: UPLOADED}, "retry-1")
    run = Run(reported.ledger, reported.run, in_english)
    whale = [Merchant("wxbbbb", WHALE, "shop-5e6f")]
    shown = {
        "merchants": lambda: run.of_merchants(whale),
        "final": run.final,
        "merchants of final": lambda: run.final().of_merchants(whale),
        "final of merchants": lambda: run.of_merchants(whale).final(),
    }[view]()
    ask, expected = METHODS[method]
    merchant = WHALE if "merchants" in view else ""
    assert ask(shown) == expected(by_hand(reported, merged="final" in view, merchant=merchant))


@pytest.mark.needs("stored")
@pytest.mark.parametrize("act", ["confirm", "delete", "undo", "retry"])
def test_a_call_for_whole_runs_takes_no_run_of_some_merchants(a_run, in_english, act):
    reported = a_run([UPLOADED, REFUSED, UPLOADED, REFUSED])
    narrowed = Run(reported.ledger, reported.run, in_english).of_merchants(
        [Merchant("wxbbbb", WHALE, "shop-5e6f")]
    )
    with pytest.raises(tcb.UsageError, match="name the merchants with merchants="):
        getattr(tcb, act)(narrowed, settings=in_english)
