"""Decisions of a run, each table as it stands in the docstring."""

from __future__ import annotations

import pytest

from tcb_ops.errcodes import Decision, Scope
from tcb_ops.runs.limits import (
    BREAKER_ROWS,
    GOOD_PER_NOTCH,
    Breaker,
    Outage,
    RunLimits,
    Slowdown,
    after_no_token,
)
from tcb_ops.wechat.call_policy import LONGEST_BACKOFF, AttemptCounts, NextStep, backoff_wait, next_step

PACE = RunLimits(attempts=4, backoff=1.0, slow_wait=60.0, patience=300.0)


@pytest.mark.parametrize(
    ("decision", "scope", "tries", "used", "patient", "step"),
    [
        pytest.param(Decision.GOOD, Scope.ROW, AttemptCounts(), 1, True, NextStep.END, id="good"),
        pytest.param(
            Decision.STOP, Scope.PLATFORM, AttemptCounts(), 1, True, NextStep.STOP_RUN, id="stop-everybody"
        ),
        pytest.param(Decision.STOP, Scope.APPID, AttemptCounts(), 1, True, NextStep.END, id="stop-merchant"),
        pytest.param(Decision.STOP, Scope.ENV, AttemptCounts(), 1, True, NextStep.END, id="stop-env"),
        pytest.param(Decision.FIX, Scope.ROW, AttemptCounts(), 1, True, NextStep.END, id="fix"),
        pytest.param(
            Decision.REFRESH, Scope.APPID, AttemptCounts(), 1, True, NextStep.REFRESH, id="first-refusal"
        ),
        pytest.param(
            Decision.REFRESH,
            Scope.APPID,
            AttemptCounts(),
            9,
            True,
            NextStep.REFRESH,
            id="refresh-is-no-attempt",
        ),
        pytest.param(
            Decision.REFRESH,
            Scope.APPID,
            AttemptCounts(refreshed=True),
            1,
            True,
            NextStep.END,
            id="refused-again",
        ),
        pytest.param(
            Decision.SLOW, Scope.APPID, AttemptCounts(), 9, True, NextStep.SLOW, id="slow-is-no-attempt"
        ),
        pytest.param(
            Decision.SLOW, Scope.ENV, AttemptCounts(), 1, False, NextStep.END, id="slow-for-too-long"
        ),
        pytest.param(Decision.RETRY, Scope.ROW, AttemptCounts(), 3, True, NextStep.RETRY, id="retry"),
        pytest.param(
            Decision.RETRY, Scope.ROW, AttemptCounts(), 4, True, NextStep.END, id="attempts-used-up"
        ),
        pytest.param(Decision.RETRY_ONCE, Scope.ROW, AttemptCounts(), 1, True, NextStep.RETRY, id="once"),
        pytest.param(
            Decision.RETRY_ONCE,
            Scope.ROW,
            AttemptCounts(retried_once=True),
            2,
            True,
            NextStep.END,
            id="not-twice",
        ),
        pytest.param(
            Decision.RETRY_ONCE, Scope.ROW, AttemptCounts(), 4, True, NextStep.END, id="once-but-used-up"
        ),
        pytest.param(
            Decision.NEW_LINK,
            Scope.ROW,
            AttemptCounts(relinked=True),
            3,
            True,
            NextStep.RELINK,
            id="new-link-again",
        ),
        pytest.param(
            Decision.NEW_LINK, Scope.ROW, AttemptCounts(), 4, True, NextStep.END, id="new-link-used-up"
        ),
        pytest.param(
            Decision.NEW_LINK_ONCE, Scope.ENV, AttemptCounts(), 1, True, NextStep.RELINK, id="new-link-once"
        ),
        pytest.param(
            Decision.NEW_LINK_ONCE,
            Scope.ENV,
            AttemptCounts(relinked=True),
            2,
            True,
            NextStep.END,
            id="new-link-not-twice",
        ),
        pytest.param(
            Decision.NEW_LINK_ONCE,
            Scope.ENV,
            AttemptCounts(),
            4,
            True,
            NextStep.END,
            id="new-link-once-used-up",
        ),
    ],
)
def test_a_refusal_leads_to_the_step_in_the_table(
    decision: Decision, scope: Scope, tries: AttemptCounts, used: int, patient: bool, step: NextStep
) -> None:
    assert next_step(decision, scope, tries, used, PACE, patient=patient) is step


def test_every_decision_has_a_step() -> None:
    for decision in Decision:
        for scope in Scope:
            assert next_step(decision, scope, AttemptCounts(), 1, PACE, patient=True) in NextStep


@pytest.mark.parametrize(
    ("used", "chance", "seconds"),
    [
        (1, 0.5, 1.0),
        (2, 0.5, 2.0),
        (3, 0.5, 4.0),
        (1, 0.0, 0.75),
        (1, 1.0, 1.25),
        (3, 0.0, 3.0),
        (50, 0.5, 60.0),
    ],
)
def test_waits_double_within_a_quarter_and_end_at_a_minute(used: int, chance: float, seconds: float) -> None:
    assert backoff_wait(PACE, used, chance) == pytest.approx(seconds)
    assert backoff_wait(PACE, used, 1.0) <= LONGEST_BACKOFF * 1.25


def test_the_breaker_opens_at_the_third_row_in_a_row() -> None:
    breaker = Breaker()
    assert [breaker.row_ended("85088") for _ in range(BREAKER_ROWS)] == [False, False, True]


@pytest.mark.parametrize("other", ["", "61007"], ids=["another-end", "another-code"])
def test_another_end_between_keeps_the_breaker_closed(other: str) -> None:
    breaker = Breaker()
    ends = ["85088", "85088", other, "85088", "85088"]
    assert not any(breaker.row_ended(code) for code in ends)
    assert breaker.row_ended("85088")


def test_a_slowed_scope_is_halved_once_per_pause_and_not_by_calls_made_before_it() -> None:
    scope = Slowdown(8)
    scope.slow_down(100.0, PACE)
    scope.slow_down(101.0, PACE)
    assert (scope.limit, scope.paused_until) == (4, 161.0)
    scope.slow_down(161.0, PACE)
    assert (scope.limit, scope.paused_until) == (2, 221.0)


def test_a_slowed_scope_keeps_at_least_one_row() -> None:
    scope = Slowdown(1)
    scope.slow_down(0.0, PACE)
    assert scope.limit == 1


def test_twenty_good_rows_give_one_back_and_never_more_than_there_were() -> None:
    scope = Slowdown(4)
    scope.slow_down(0.0, PACE)
    limits = []
    for _ in range(GOOD_PER_NOTCH * 3):
        scope.row_good()
        limits.append(scope.limit)
    assert limits == [2] * 19 + [3] * 20 + [4] * 21


def test_being_told_again_starts_the_count_of_succeeded_rows_again() -> None:
    scope = Slowdown(8)
    scope.slow_down(0.0, PACE)
    for _ in range(GOOD_PER_NOTCH - 1):
        scope.row_good()
    scope.slow_down(100.0, PACE)
    scope.row_good()
    assert scope.limit == 2


def test_patience_runs_from_the_first_telling_and_a_good_row_renews_it() -> None:
    scope = Slowdown(8)
    assert scope.patient(0.0, PACE)
    scope.slow_down(0.0, PACE)
    scope.slow_down(290.0, PACE)
    assert scope.patient(299.9, PACE)
    assert not scope.patient(300.0, PACE)
    scope.row_good()
    assert scope.patient(300.0, PACE)


def test_rows_that_fail_together_are_one_failed_probe() -> None:
    outage = Outage()
    for _ in range(64):
        outage.suspect(10.0, PACE)
    assert outage.probe_at == 11.0
    outage.suspect(11.0, PACE)
    assert outage.probe_at == 13.0


def test_probes_end_with_patience() -> None:
    outage = Outage()
    outage.suspect(0.0, PACE)
    while not outage.over(outage.probe_at, PACE):
        outage.suspect(outage.probe_at, PACE)
        assert outage.probe_at <= PACE.patience
    assert outage.over(PACE.patience, PACE)
    assert not outage.over(PACE.patience - 0.01, PACE)


def test_an_answer_ends_the_outage() -> None:
    outage = Outage()
    outage.suspect(0.0, PACE)
    outage.ended()
    assert not outage.over(1e9, PACE)
    outage.suspect(50.0, PACE)
    assert outage.probe_at == 51.0


@pytest.mark.parametrize(
    ("answered", "tries", "now", "step"),
    [
        pytest.param(15.0, 3, 20.0, NextStep.RETRY, id="the others are answered, tries are left"),
        pytest.param(15.0, 4, 20.0, NextStep.END, id="the others are answered, no tries are left"),
        pytest.param(15.0, 1, 310.0, NextStep.END, id="the others are answered, no patience is left"),
        pytest.param(5.0, 99, 309.9, NextStep.RETRY, id="nobody is answered, patience is left"),
        pytest.param(5.0, 1, 310.0, NextStep.STOP_RUN, id="nobody is answered, no patience is left"),
        pytest.param(float("-inf"), 1, 310.0, NextStep.STOP_RUN, id="nobody ever was"),
    ],
)
def test_what_follows_when_the_token_source_gives_no_usable_answer(
    answered: float, tries: int, now: float, step: NextStep
) -> None:
    assert after_no_token(10.0, answered, tries, now, PACE) is step
