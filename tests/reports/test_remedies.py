"""What to do next: how often somebody has to act, and what comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tcb_ops.errcodes import all_errcodes
from tcb_ops.model import Outcome, Reason
from tcb_ops.reports.remedies import REASON_NAMES, Per, per, remedies, short_name
from tcb_ops.runs.records import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED, FAILED, SKIPPED = Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED

# outcome, reason, errcode, store code -> how often
ACTS = {
    "merchant left: nobody": (SKIPPED, Reason.MERCHANT_LEFT, None, "", Per.NOBODY),
    "no token: per merchant": (SKIPPED, Reason.NO_TOKEN, None, "", Per.MERCHANT),
    "dead token: per merchant": (REFUSED, Reason.DEAD_TOKEN, 40001, "", Per.MERCHANT),
    "other bytes stored: per environment": (FAILED, Reason.ETAG_MISMATCH, 0, "ETagMismatch", Per.ENV),
    "the platform is not published: once": (REFUSED, Reason.REFUSED, 61028, "", Per.ONCE),
    "this machine's clock: once": (FAILED, Reason.STORE_REFUSED, None, "RequestTimeTooSkewed", Per.ONCE),
    "slow down: once": (SKIPPED, Reason.BREAKER, 45011, "", Per.ONCE),
    "scope appid: per merchant": (REFUSED, Reason.REFUSED, 85088, "", Per.MERCHANT),
    "scope env: per environment": (REFUSED, Reason.REFUSED, -601012, "", Per.ENV),
    "scope env of the store: per environment": (FAILED, Reason.STORE_REFUSED, None, "NoSuchBucket", Per.ENV),
    "scope row: once": (REFUSED, Reason.REFUSED, 40097, "", Per.ONCE),
    "scope platform: once": (REFUSED, Reason.REFUSED, 61004, "", Per.ONCE),
    "unknown: once": (REFUSED, Reason.REFUSED, 987654, "", Per.ONCE),
    "no answer: once": (FAILED, Reason.NO_ANSWER, None, "", Per.ONCE),
    "bad input: once": (Outcome.INVALID, Reason.INVALID, None, "", Per.ONCE),
    "pending: once": (Outcome.PENDING, None, None, "", Per.ONCE),
}


@pytest.mark.parametrize(("outcome", "reason", "errcode", "store", "often"), ACTS.values(), ids=ACTS)
def test_how_often_somebody_has_to_act(
    outcome: Outcome, reason: Reason | None, errcode: int | None, store: str, often: Per
) -> None:
    assert per(outcome, reason, errcode, store) is often


def tally(rows: int, errcode: int | None = None, *, at: int = 0, env: str = "", **more: Any) -> Tally:
    found = {"outcome": REFUSED, "reason": Reason.REFUSED, "store_code": ""} | more
    return Tally(f"wx{at}", f"商户{at}", env or f"env-{at}", errcode=errcode, rows=rows, **found)


def test_what_mends_most_rows_per_action_comes_first() -> None:
    found = remedies(
        [
            *(tally(30, 85088, at=at) for at in range(10)),  # 300 rows, but ten merchants
            tally(40, 40097),  # one list
            tally(35, -601012, at=1),  # one environment
            tally(9_000, at=3, outcome=SKIPPED, reason=Reason.MERCHANT_LEFT),
            tally(5, at=4, outcome=Outcome.UPLOADED, reason=None),
        ]
    )
    assert [(remedy.code, remedy.rows, remedy.actions) for remedy in found] == [
        ("40097", 40, 1),
        ("-601012", 35, 1),
        ("85088", 300, 10),
        ("merchant_left", 9_000, 0),
    ]


def test_a_cause_is_one_line_over_merchants_environments_and_outcomes() -> None:
    (remedy,) = remedies(
        [
            tally(3, 61007, at=1),
            tally(800, 61007, at=1, env="other", outcome=SKIPPED, reason=Reason.BREAKER),
            tally(401, 61007, at=2),
        ]
    )
    assert (remedy.rows, remedy.actions, remedy.envs) == (1_204, 2, 3)
    assert remedy.outcomes == {REFUSED: 404, SKIPPED: 800}
    assert [(share.merchant, share.rows, share.envs) for share in remedy.merchants] == [
        ("商户1", 803, ("other", "env-1")),
        ("商户2", 401, ("env-2",)),
    ]


def test_a_dead_token_has_another_remedy_than_its_errcode() -> None:
    found = remedies([tally(1, 40001), tally(2, 40001, at=1, reason=Reason.DEAD_TOKEN)])
    assert len({remedy.action for remedy in found}) == len(found) == 2


def test_each_row_that_is_not_good_is_in_exactly_one_remedy(a_run: Callable[..., Any]) -> None:
    reported = a_run(finished=False)
    groups = reported.ledger.tallies(reported.run)
    bad = {group.outcome: 0 for group in groups}
    for group in groups:
        bad[group.outcome] += group.rows
    found = remedies(groups)
    assert sum(remedy.rows for remedy in found) == sum(
        rows for outcome, rows in bad.items() if outcome not in {"linked", "uploaded", "unchanged"}
    )
    assert all(sum(remedy.outcomes.values()) == remedy.rows for remedy in found)


def test_every_reason_and_errcode_has_a_short_name_in_both_languages() -> None:
    for code in [*Reason, *(str(entry.code) for entry in all_errcodes())]:
        if code != Reason.UNVERIFIED:
            name = short_name(code)
            assert 0 < len(name.en) <= 40, code
            assert 0 < len(name.zh) <= 40, code
    assert short_name("SlowDown").en == "", "a code of the store says it itself"
    assert Outcome.PENDING in REASON_NAMES
