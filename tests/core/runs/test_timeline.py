"""How rows ended over time, from one question to the ledger."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tcb_ops.i18n import Bilingual
from tcb_ops.model import Outcome, Reason, Row, RowEnd
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.list_kinds import UPLOAD
from tcb_ops.runs.records import EnvRecord, NewRun, RunRecord, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLACE = EnvRecord(0, "tea", "wxtea", "茶语小铺", "merchant", left=False)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(str(tmp_path / "ledger.db"))
    yield opened
    opened.close()


def a_run(ledger: Ledger, ends: list[RowEnd], rows: int, *, created_at: float = 1000.0) -> RunRecord:
    new = NewRun("r", UPLOAD, "https://x", "l", "", 0, ("env",), "", {}, "", "", "", "", created_at)
    planned = [
        Row(
            line,
            "tea",
            f"{line}",
            "wxtea",
            PLACE.merchant,
            "",
            ("tea",),
            invalid=Bilingual("x", "x") if line == 1 else None,
        )
        for line in range(1, rows + 1)
    ]
    run = ledger.plan(new, planned, [PLACE])
    ledger.record(run, ends, Usage())
    return ledger.run("r")


def end(line: int, at: float, outcome: Outcome = Outcome.UPLOADED, **more: Any) -> RowEnd:
    return RowEnd(line, outcome, ended_at=at, **more)


def test_each_row_that_ended_is_in_one_moment(ledger: Ledger) -> None:
    ends = [
        end(2, 1001.0),
        end(3, 1001.5),
        end(4, 1009.9, Outcome.REFUSED, reason=Reason.REFUSED),
        end(5, 1010.0),
    ]
    moments = ledger.timeline(a_run(ledger, ends, rows=8), buckets=10)
    assert [moment.at for moment in moments] == pytest.approx([1000.0 + at for at in range(10)])
    assert all(a.until == pytest.approx(b.at) for a, b in pairwise(moments))
    assert [dict(moment.outcomes) for moment in moments] == [
        {},
        {Outcome.UPLOADED: 2},
        *[{}] * 7,
        {Outcome.REFUSED: 1, Outcome.UPLOADED: 1},
    ]


def test_without_an_end_there_is_no_course(ledger: Ledger) -> None:
    assert ledger.timeline(a_run(ledger, [], rows=3)) == []


def test_one_end_at_the_very_begin_has_a_course(ledger: Ledger) -> None:
    moments = ledger.timeline(a_run(ledger, [end(2, 1000.0)], rows=3), buckets=4)
    assert sum(sum(moment.outcomes.values()) for moment in moments) == 1
    assert moments[0].until > moments[0].at


def test_a_clock_that_was_set_back_loses_no_row(ledger: Ledger) -> None:
    moments = ledger.timeline(a_run(ledger, [end(2, 900.0), end(3, 950.0)], rows=3), buckets=5)
    assert sum(sum(moment.outcomes.values()) for moment in moments) == 2


def test_the_first_rows_that_are_not_good_come_in_the_order_of_the_list(ledger: Ledger) -> None:
    ends = [end(line, 1001.0, Outcome.FAILED if line % 2 else Outcome.UPLOADED) for line in range(2, 12)]
    run = a_run(ledger, ends, rows=20)
    failures = ledger.rows(run, environments=[PLACE], outcomes=frozenset({Outcome.FAILED}))
    assert [record.row.line for record in failures] == [3, 5, 7, 9, 11]
