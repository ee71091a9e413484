"""What is said about how rows ended: a sentence for every end, in both languages."""

import re
from dataclasses import replace

import pytest
from tables import table
from workspace import store_says

from tcb_ops.catalogue import errcode, store_code
from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.i18n import Bilingual
from tcb_ops.kinds import all_kinds
from tcb_ops.model import Outcome, Owner, Reason, RowEnd
from tcb_ops.reports.explanations import action_text, counts_line, reason_text, why
from tcb_ops.reports.summary import verdict

CJK = re.compile(r"[一-鿿]")


def test_every_end_that_is_not_plainly_good_says_why_and_what_to_do(every_end):
    outcomes = [RowEnd(0, outcome) for outcome in Outcome.all()]
    reasons = [RowEnd(0, Outcome.FAILED, reason) for reason in Reason.all()]
    for end in [*every_end, *outcomes, *reasons]:
        result = (reason_text(end), action_text(end))
        if end.outcome.succeeded and end.reason is None:
            assert not result[1].en
            continue
        for text in result:
            assert text.en.strip(), end
            assert CJK.search(text.zh), end
            assert not CJK.search(text.en.replace("云开发", "")), end


@table(
    "end, code",
    {
        "good": (RowEnd(2, Outcome.UPLOADED, errcode=0), None),
        "good-unverified": (RowEnd(2, Outcome.UPLOADED, Reason.UNVERIFIED), None),
        "pending": (RowEnd(2, Outcome.PENDING), "pending"),
        "errcode": (RowEnd(2, Outcome.REFUSED, Reason.REFUSED, errcode=-1), "-1"),
        "dead-token": (RowEnd(2, Outcome.REFUSED, Reason.DEAD_TOKEN, errcode=40001), "40001"),
        "breaker": (RowEnd(2, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=85088), "85088"),
        "component-token": (RowEnd(2, Outcome.REFUSED, Reason.COMPONENT, errcode=61007), "61007 (component)"),
        "own-environment": (RowEnd(2, Outcome.NOT_ATTEMPTED, Reason.COMPONENT, errcode=-501005), "-501005"),
        "store": (RowEnd(2, Outcome.FAILED, Reason.STORE_REFUSED, store_code="SlowDown"), "SlowDown"),
        "store-no-code": (RowEnd(2, Outcome.FAILED, Reason.STORE_REFUSED, http_status=502), "store_refused"),
        "other-bytes-stored": (
            RowEnd(2, Outcome.FAILED, Reason.ETAG_MISMATCH, errcode=0, store_code="ETagMismatch"),
            "ETagMismatch",
        ),
        "no-answer": (RowEnd(2, Outcome.FAILED, Reason.NO_ANSWER, errcode=0), "no_answer"),
        "no-reason-noted": (RowEnd(2, Outcome.INVALID), "invalid"),
    },
)
def test_the_code_an_end_is_tabulated_under(end, code):
    found = why(end.outcome, end.reason, end.errcode, end.store_code, http_status=end.http_status)
    assert (found.code if found else None) == code


@table(
    "end, reason",
    {
        "errcode": (
            RowEnd(2, Outcome.REFUSED, Reason.REFUSED, errcode=85088),
            f"85088: {errcode(85088).meaning.en}",
        ),
        "breaker-of-the-component-token": (
            RowEnd(2, Outcome.NOT_ATTEMPTED, Reason.COMPONENT, errcode=61007),
            (
                "Not attempted: three rows in succession ended with 61007 (component). "
                f"{errcode(61007, Owner.PLATFORM).meaning.en}"
            ),
        ),
        "out-of-patience": (
            RowEnd(2, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=45011),
            f"Not attempted: 45011 persisted for longer than --patience. {errcode(45011).meaning.en}",
        ),
        "the-store's-message-sharpens-its-code": (
            RowEnd(
                2,
                Outcome.FAILED,
                Reason.STORE_REFUSED,
                store_says("Request has expired"),
                store_code="AccessDenied",
                http_status=403,
            ),
            f"AccessDenied: {store_code('RequestExpired').meaning.en} The store's message: “Request has expired”",
        ),
        "dead-token": (
            RowEnd(2, Outcome.REFUSED, Reason.DEAD_TOKEN, errcode=40001),
            "40001: The platform refused the token, and the token source gave the same one again.",
        ),
        "invalid": (
            RowEnd(
                2,
                Outcome.INVALID,
                Reason.INVALID,
                as_detail(Bilingual("path starts with /", "路径以 / 开头")),
            ),
            "Skipped as bad input. path starts with /",
        ),
        "unchanged": (
            RowEnd(2, Outcome.UNCHANGED, detail=detail(DetailCode.UNCHANGED_SINCE, run="run-1")),
            "Unchanged since run run-1, not re-checked.",
        ),
        "good": (RowEnd(2, Outcome.UPLOADED), ""),
    },
)
def test_the_reason_of_an_end(end, reason):
    assert reason_text(end).en == reason


def test_an_echoed_secret_is_not_in_the_reason(every_end):
    for end in every_end:
        echoed = replace(end, detail=detail(DetailCode.STORE_MESSAGE, message="bad access_token=PLANTED"))
        assert "PLANTED" not in reason_text(echoed).en + reason_text(echoed).zh


def test_counts_stand_on_one_line_without_zeros():
    counts = {Outcome.UPLOADED: 1412, Outcome.FAILED: 0, Outcome.REFUSED: 12}
    assert counts_line(counts).en == "1,412 uploaded · 12 refused"
    assert counts_line(counts).zh == "已上传 1,412 · 被拒绝 12"


@table(
    "counts, finished, result",
    {
        "none": ({}, True, "The run has no rows."),
        "all-good": ({Outcome.UPLOADED: 1200}, True, "All 1,200 rows succeeded: uploaded."),
        "some-unchanged": (
            {Outcome.UPLOADED: 3, Outcome.UNCHANGED: 11},
            True,
            "All 14 rows succeeded: 3 uploaded, 11 unchanged and not sent again.",
        ),
        "all-unchanged": (
            {Outcome.UNCHANGED: 14},
            True,
            "All 14 rows succeeded: unchanged, nothing sent again.",
        ),
        "some-not": (
            {Outcome.UPLOADED: 5, Outcome.REFUSED: 2, Outcome.NOT_ATTEMPTED: 1},
            True,
            "5 of 8 rows succeeded, 3 did not: 2 refused, 1 not attempted.",
        ),
        "unfinished": (
            {Outcome.UPLOADED: 5, Outcome.REFUSED: 2, Outcome.PENDING: 3},
            False,
            "Unfinished: 7 of 10 rows have ended (5 succeeded), 3 pending.",
        ),
    },
)
def test_the_verdict(counts, finished, result):
    assert UPLOAD.verdict(counts, finished=finished).en == result


UNCONFIRMED = RowEnd(0, Outcome.UPLOADED, Reason.UNVERIFIED, errcode=0)
DOUBT = "stored but not confirmed (unverified in results.csv)."


@table(
    "ends, finished, result",
    {
        "confirmed": ([RowEnd(0, Outcome.UPLOADED)] * 2, True, "All 2 rows succeeded: uploaded."),
        "one": (
            [RowEnd(0, Outcome.UPLOADED), UNCONFIRMED],
            True,
            f"All 2 rows succeeded: uploaded. 1 row is {DOUBT}",
        ),
        "all": ([UNCONFIRMED] * 3, True, f"All 3 rows succeeded: uploaded. 3 rows are {DOUBT}"),
        "beside a failure": (
            [UNCONFIRMED, RowEnd(0, Outcome.FAILED, Reason.NO_CONFIRMATION)],
            True,
            f"1 of 2 rows succeeded, 1 did not: 1 failed. 1 row is {DOUBT}",
        ),
        "unfinished": (
            [UNCONFIRMED, RowEnd(0, Outcome.PENDING)],
            False,
            f"Unfinished: 1 of 2 rows have ended (1 succeeded), 1 pending. 1 row is {DOUBT}",
        ),
    },
)
def test_the_verdict_counts_what_the_store_did_not_confirm(a_run, ends, finished, result):
    reported = a_run(ends, finished=finished)
    assert verdict(reported.run, reported.ledger.tallies(reported.run)).en == result


@pytest.mark.parametrize("kind", all_kinds())
def test_every_kind_of_run_has_a_verdict(kind):
    all_good = "7 environments: 7 linked." if kind == "audit" else "All 7 rows succeeded: "
    assert all_good in kind.verdict({Outcome.LINKED: 7}, finished=True).en
