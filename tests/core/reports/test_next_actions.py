"""The summary of a run: the JSON object with counts that add up, and what to do next."""

import json
from itertools import pairwise

import pytest

from tcb_ops.catalogue import all_errcodes, all_store_codes
from tcb_ops.i18n import Bilingual
from tcb_ops.ledger.records import Tally
from tcb_ops.model import Outcome, Reason, RowEnd
from tcb_ops.reports.explanations import code_label
from tcb_ops.reports.summary import Per, RunSummary, by_code, causes_of, next_command, per
from tcb_ops.reports.summary import next_actions as order


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


def test_only_codes_that_a_corrected_list_mends_are_called_faults_of_the_list():
    codes = (40097, -501007, -601002, 41001, 43002, 40013, 76001, 85088, 987654)
    found = next_actions([tally(1, code, at=at) for at, code in enumerate(codes)])
    assert {action.group.code for action in found if action.in_list} == {"40097", "-501007", "-601002"}


LEFT = RowEnd(0, Outcome.PENDING)  # stands for the outcomes that a retry does not take
NO_PRIVILEGE = RowEnd(0, REFUSED, Reason.REFUSED, errcode=85088)
BAD_ROW = RowEnd(0, Outcome.INVALID, Reason.INVALID)
BAD_PATH = RowEnd(0, REFUSED, Reason.REFUSED, errcode=40097)
FOLLOWS = {
    "a retry": ([LEFT, NO_PRIVILEGE, NO_PRIVILEGE], "run 2 rows again", "retry", []),
    "without skipped rows": ([BAD_ROW, NO_PRIVILEGE], "run 1 row again", "retry", ["85088"]),
    "without what the list has wrong": ([BAD_PATH, NO_PRIVILEGE], "run 1 row again", "retry", ["85088"]),
    "a corrected list": ([BAD_ROW, BAD_PATH, LEFT], "Correct 2 rows ", "upload", []),
}


@pytest.mark.parametrize(("ends", "purpose", "name", "codes"), FOLLOWS.values(), ids=FOLLOWS)
def test_the_next_command_is_about_the_rows_that_it_takes(a_run, in_english, ends, purpose, name, codes):
    reported = a_run(ends)
    summary = RunSummary(reported.ledger, reported.run)
    text, words = next_command(in_english, reported.run, summary.codes)
    assert purpose in text.en
    assert words[1] == name
    assert [code for option, code in pairwise(words) if option == "--errcode"] == codes


def test_no_retry_is_offered_for_rows_that_it_does_not_take(a_run, in_english):
    reported = a_run([LEFT, RowEnd(0, Outcome.UPLOADED)])
    assert next_command(in_english, reported.run, RunSummary(reported.ledger, reported.run).codes) is None


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
