"""The JSON object: the contract's keys, and counts that add up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.summary import RunSummary

if TYPE_CHECKING:
    from collections.abc import Callable


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
