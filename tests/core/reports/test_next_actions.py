"""The summary of a run: the JSON object with counts that add up, workers, and what to do next."""

import json
import re
from contextlib import closing
from html import unescape

import openpyxl
import pytest

from tcb_ops.errcodes import all_errcodes, all_store_codes
from tcb_ops.features.cluster.coordinator import CoordinatorLedger
from tcb_ops.features.cluster.task import PartitionLedger
from tcb_ops.features.cluster.workers import RELEASED, Partition, WorkerShare, worker_lines, worker_shares
from tcb_ops.i18n import Bilingual, Lang
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.explanations import code_label
from tcb_ops.reports.formats.notebook import run_html
from tcb_ops.reports.run_views import RunView, merged_run
from tcb_ops.reports.summary import Per, RunSummary, by_code, causes_of, per
from tcb_ops.reports.summary import next_actions as order
from tcb_ops.runs.records import Tally, Usage
from tcb_ops.settings import Settings


def test_the_object_is_the_contract_s(a_run):
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


LINES = [
    "Rows by worker: ops-2/<b>22</b> (3), ops-1/11 (1).",
    "Worker ops-1/11 lost; its merchants continued on ops-2/<b>22</b>.",
]


def partition(*workers, **rows):
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
def test_partitions_are_summed_up_by_worker(partitions, shares):
    found = worker_shares(partitions)
    assert [(one.worker, one.rows, one.continued_by) for one in found] == shares


def test_workers_without_rows_are_left_out_but_lost_ones_are_named():
    assert worker_lines([]) == []
    shares = [WorkerShare("a", 3), WorkerShare("b", 0), WorkerShare("c", 0, ("a",))]
    assert [line.en for line in worker_lines(shares)] == [
        "Rows by worker: a (3).",
        "Worker c lost; its merchants continued on a.",
    ]


@pytest.fixture
def of_cluster(a_run):
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


def test_every_format_names_the_workers(of_cluster, tmp_path):
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


def test_the_json_object_has_every_worker(of_cluster):
    assert RunSummary(of_cluster.ledger, of_cluster.run).to_json()["workers"] == [
        {"worker": "ops-2/<b>22</b>", "rows": 3, "lost": False},
        {"worker": "ops-1/11", "rows": 1, "lost": True},
    ]


def test_a_part_of_a_run_has_no_workers(of_cluster):
    ledger, run = of_cluster.ledger, of_cluster.run
    part = RunView(ledger, run, only=frozenset({("wxaaaa", "prod-1a2b")}))
    assert RunSummary(part, part.run(run.id)).workers == []
    assert [one.rows for one in RunSummary(merged_run(ledger, run), run).workers] == [3, 1]


REFUSED, FAILED, SKIPPED = Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED

# code, whose token it is about -> how often
ACTS = {
    "merchant left: nobody": ("merchant_left", None, Per.NOBODY),
    "no token: per merchant": ("no_token", None, Per.MERCHANT),
    "dead token: per merchant": ("40001", Reason.DEAD_TOKEN, Per.MERCHANT),
    "other bytes stored: per environment": ("ETagMismatch", None, Per.ENV),
    "the platform is not published: once": ("61028", None, Per.ONCE),
    "this machine's clock: once": ("RequestTimeTooSkewed", None, Per.ONCE),
    "slow down: once": ("45011", None, Per.ONCE),
    "scope appid, the component token's: once": ("45009", Reason.COMPONENT, Per.ONCE),
    "the same, told apart by its texts: once": ("61007 (component)", Reason.COMPONENT, Per.ONCE),
    "scope appid: per merchant": ("85088", None, Per.MERCHANT),
    "scope env: per environment": ("-601012", None, Per.ENV),
    "scope env of the store: per environment": ("NoSuchBucket", None, Per.ENV),
    "scope row: once": ("40097", None, Per.ONCE),
    "scope platform: once": ("61004", None, Per.ONCE),
    "unknown: once": ("987654", None, Per.ONCE),
    "what a server wrote where a code should be: once": ("9" * 5000, None, Per.ONCE),
    "no answer: once": ("no_answer", None, Per.ONCE),
    "bad input: once": ("invalid", None, Per.ONCE),
    "pending: once": ("pending", None, Per.ONCE),
}


@pytest.mark.parametrize(("code", "token", "often"), ACTS.values(), ids=ACTS)
def test_how_often_somebody_has_to_act(code, token, often):
    assert per(code, token) is often


def next_actions(groups):
    return order(by_code(causes_of(groups)))


def tally(rows, errcode=None, *, at=0, env="", **more):
    found = {"outcome": REFUSED, "reason": Reason.REFUSED, "store_code": ""} | more
    return Tally(f"wx{at}", f"商户{at}", env or f"env-{at}", errcode=errcode, rows=rows, **found)


def test_what_fixes_most_rows_per_action_comes_first():
    found = next_actions(
        [
            *(tally(30, 85088, at=at) for at in range(10)),  # 300 rows, but ten merchants
            tally(40, 40097),  # one list
            tally(35, -601012, at=1),  # one environment
            tally(9_000, at=3, outcome=SKIPPED, reason=Reason.MERCHANT_LEFT),
            tally(5, at=4, outcome=Outcome.UPLOADED, reason=None),
        ]
    )
    assert [(action.group.code, action.group.rows, action.actions) for action in found] == [
        ("40097", 40, 1),
        ("-601012", 35, 1),
        ("85088", 300, 10),
        ("merchant_left", 9_000, 0),
    ]


def test_a_cause_is_one_line_over_merchants_environments_and_outcomes():
    (action,) = next_actions(
        [
            tally(3, 61007, at=1),
            tally(800, 61007, at=1, env="other", outcome=SKIPPED, reason=Reason.BREAKER),
            tally(401, 61007, at=2),
        ]
    )
    assert (action.group.rows, action.actions, len(action.group.envs)) == (1_204, 2, 3)
    assert action.group.outcomes == {REFUSED: 404, SKIPPED: 800}
    assert [(share.merchant, share.rows, share.envs) for share in action.group.merchants] == [
        ("商户1", 803, ("other", "env-1")),
        ("商户2", 401, ("env-2",)),
    ]


REFUSING = [*(entry.code for entry in all_errcodes() if entry.code), 987654]
STOPPED = [
    *((Reason.REFUSED, Reason.BREAKER, code, "") for code in REFUSING),
    *((Reason.COMPONENT, Reason.COMPONENT, code, "") for code in REFUSING),
    *((Reason.STORE_REFUSED, Reason.BREAKER, None, entry.code) for entry in all_store_codes()),
    (Reason.STORE_REFUSED, Reason.BREAKER, None, "NotInTheCatalogue"),
    (Reason.ETAG_MISMATCH, Reason.BREAKER, 0, "ETagMismatch"),
]


@pytest.mark.parametrize(("tripped", "stopped", "errcode", "store"), STOPPED)
def test_rows_that_a_breaker_stopped_are_one_cause_with_the_rows_that_tripped_it(
    tripped, stopped, errcode, store
):
    found = next_actions(
        [
            tally(3, errcode, reason=tripped, store_code=store, outcome=FAILED if store else REFUSED),
            tally(37, errcode, reason=stopped, store_code=store, outcome=SKIPPED),
        ]
    )
    assert [action.group.rows for action in found] == [40]


def test_a_dead_token_has_another_remedy_than_its_errcode():
    found = next_actions([tally(1, 40001), tally(2, 40001, at=1, reason=Reason.DEAD_TOKEN)])
    assert len({action.group.action for action in found}) == len(found) == 2


def test_every_reason_and_errcode_has_a_short_name_in_both_languages():
    for code in [*Reason.all(), *(str(entry.code) for entry in all_errcodes())]:
        name = code_label(code)
        assert 0 < len(name.en) <= 40, code
        assert 0 < len(name.zh) <= 20, code
    assert code_label("SlowDown") == Bilingual("", "对存储服务的请求过快"), (
        "in English such a code says it itself"
    )
    assert code_label("ETagMismatch").en == "checksum mismatch"
    assert code_label("NotInTheCatalogue") == Bilingual("", "")
    assert code_label(Outcome.PENDING) == Bilingual("pending", "待处理")
