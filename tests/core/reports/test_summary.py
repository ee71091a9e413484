"""The JSON object: the contract's keys, and counts that add up."""

from __future__ import annotations

import json
import re
from contextlib import closing
from html import unescape
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest

from tcb_ops.features.cluster.coordinator import CoordinatorLedger
from tcb_ops.features.cluster.task import PartitionLedger
from tcb_ops.features.cluster.workers import WorkerShare, worker_lines, worker_shares
from tcb_ops.i18n import Lang
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.formats.notebook import run_html
from tcb_ops.reports.run_views import RunView, merged_run
from tcb_ops.reports.summary import RunSummary
from tcb_ops.runs.records import RELEASED, Partition, Usage
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_object_is_the_contract_s(a_run: Callable[..., Any]) -> None:
    reported = a_run(
        [
            *[RowEnd(0, Outcome.REFUSED, Reason.REFUSED, errcode=85088)] * 3,
            *[RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=85088)] * 3,
            RowEnd(0, Outcome.UPLOADED, errcode=0, errmsg="ok"),
            RowEnd(0, Outcome.UPLOADED, errcode=0, errmsg="ok"),
            RowEnd(0, Outcome.FAILED, Reason.STORE_REFUSED, store_code="SlowDown", http_status=503),
            RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.NO_TOKEN),
        ]
    )
    place = {"appid": "wxaaaa", "merchant": "晨光文具", "env": "prod-1a2b"}
    other = {"appid": "wxbbbb", "merchant": "Blue Whale", "env": "shop-5e6f"}
    found = RunSummary(reported.ledger, reported.run).to_json()
    assert json.loads(json.dumps(found)) == {
        "run": "20251125-093000-k7q2",
        "kind": "upload",
        "target": "https://api.weixin.qq.com",
        "rows": 10,
        "counts": {"uploaded": 2, "refused": 3, "failed": 1, "not_attempted": 4},
        "errcodes": [
            {**place, "errcode": 85088, "rows": 2},
            {**place, "env": "test-3c4d", "errcode": 85088, "rows": 2},
            {**other, "errcode": 85088, "rows": 2},
        ],
        "store_codes": [{**other, "code": "SlowDown", "rows": 1}],
        "calls": {"link": 7, "upload": 5},
        "seconds": 12.346,
        "report": None,
    }


def test_an_unfinished_run_counts_its_pending_rows_and_all_rows_add_up(
    a_run: Callable[..., Any], every_end: tuple[RowEnd, ...]
) -> None:
    reported = a_run(every_end, finished=False)
    found = RunSummary(reported.ledger, reported.run).to_json()
    assert found["counts"]["pending"] == 1
    assert sum(found["counts"].values()) == found["rows"] == len(every_end)


def test_where_the_report_stands_is_told(a_run: Callable[..., Any]) -> None:
    reported = a_run()
    reported.ledger.note_report(reported.run, "reports/today")
    run = reported.ledger.run(reported.run.id)
    assert RunSummary(reported.ledger, run).to_json()["report"] == "reports/today"


LINES = [
    "Rows by worker: ops-2/<b>22</b> (3), ops-1/11 (1).",
    "Worker ops-1/11 lost; its merchants continued on ops-2/<b>22</b>.",
]


def partition(*workers: str, **rows: int) -> Partition:
    return Partition(0, workers, {name: {Outcome.UPLOADED: count} for name, count in rows.items()})


@pytest.mark.parametrize(
    ("partitions", "shares"),
    [
        ([], []),
        ([partition("a", a=3)], [("a", 3, ())]),
        ([partition("a", "b", a=1, b=2)], [("b", 2, ()), ("a", 1, ("b",))]),
        ([partition("a", "b", b=3)], [("b", 3, ()), ("a", 0, ("b",))]),
        (
            [partition("a", a=5), partition("c", c=2), partition("a", "c", c=1)],
            [("a", 5, ("c",)), ("c", 3, ())],
        ),
        ([partition("a", RELEASED, "b", a=1, b=2)], [("b", 2, ()), ("a", 1, ())]),
    ],
    ids=["none", "one", "lost", "lost at once", "lost one of two", "ended its work"],
)
def test_partitions_are_summed_up_by_worker(partitions: list[Partition], shares: list[Any]) -> None:
    found = worker_shares(partitions)
    assert [(one.worker, one.rows, one.continued_by) for one in found] == shares


def test_workers_without_rows_are_left_out_but_lost_ones_are_named() -> None:
    assert worker_lines([]) == []
    shares = [WorkerShare("a", 3), WorkerShare("b", 0), WorkerShare("c", 0, ("a",))]
    assert [line.en for line in worker_lines(shares)] == [
        "Rows by worker: a (3).",
        "Worker c lost; its merchants continued on a.",
    ]


@pytest.fixture
def of_cluster(a_run: Callable[..., Any]) -> Any:
    """A finished run of four rows, on which two workers worked: the first was lost."""
    reported = a_run([RowEnd(0, Outcome.PENDING)] * 4, finished=False)
    place, run = str(reported.ledger.file), reported.run
    with closing(CoordinatorLedger(place)) as coordinator:
        session = coordinator.begin(run)
        coordinator.add_partitions(run, session, [coordinator.environments(run)], 0)
    for name, lines in (("ops-1/11", [2]), ("ops-2/<b>22</b>", [3, 4, 5])):
        with closing(PartitionLedger(place, run.id, session, 0, name)) as worker:
            worker.claim()
            ends = [RowEnd(line, Outcome.UPLOADED, attempts=2, bytes=1, ended_at=2.0) for line in lines]
            worker.record(worker.partition_run(), ends, Usage())
    reported.ledger.finish(run, 1_764_035_000.5)
    return reported


def test_every_format_names_the_workers(of_cluster: Any, tmp_path: Path) -> None:
    folder = of_cluster.export(tmp_path / "report")
    page = (folder / "report.html").read_text(encoding="utf-8")
    paragraphs = re.findall("<p>(.*?)</p>", page)
    assert [line for line in map(unescape, paragraphs) if "ops-2" in line] == LINES
    assert "<b>22</b>" not in page
    sheet = openpyxl.load_workbook(folder / "report.xlsx").worksheets[0]
    cells = [str(cell.value) for (cell,) in sheet.iter_rows(min_col=2, max_col=2)]
    assert [cell for cell in cells if "ops-2" in cell] == LINES
    card = unescape(run_html(RunSummary(of_cluster.ledger, of_cluster.run), Settings(lang=Lang.EN)))
    assert all(line in card for line in LINES)


def test_the_json_object_has_every_worker(of_cluster: Any) -> None:
    assert RunSummary(of_cluster.ledger, of_cluster.run).to_json()["workers"] == [
        {"worker": "ops-2/<b>22</b>", "rows": 3, "lost": False},
        {"worker": "ops-1/11", "rows": 1, "lost": True},
    ]


def test_a_part_of_a_run_has_no_workers(of_cluster: Any) -> None:
    ledger, run = of_cluster.ledger, of_cluster.run
    part = RunView(ledger, run, only=frozenset({("wxaaaa", "prod-1a2b")}))
    assert RunSummary(part, part.run(run.id)).workers == []
    assert [one.rows for one in RunSummary(merged_run(ledger, run), run).workers] == [3, 1]
