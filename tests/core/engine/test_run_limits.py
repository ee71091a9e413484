"""Decisions of a run, each table as it stands in the docstring."""

from dataclasses import asdict
from itertools import pairwise

import pytest
from tables import table

from tcb_ops.catalogue import Decision, Scope
from tcb_ops.cli.options import LimitOptions
from tcb_ops.engine.limits import (
    BREAKER_ROWS,
    GOOD_PER_NOTCH,
    LONGEST_BACKOFF,
    AttemptCounts,
    Breaker,
    NextStep,
    Outage,
    RunLimits,
    Slowdown,
    after_canary,
    after_no_token,
    backoff_wait,
    classify,
    next_step,
)
from tcb_ops.errors import ArgumentError, TransportError, TransportFault
from tcb_ops.i18n import verbatim
from tcb_ops.ledger.records import EnvRecord
from tcb_ops.model import Owner
from tcb_ops.wechat.responses import ApiError, InvalidResponse

PACE = RunLimits(attempts=4, backoff=1.0, slow_wait=60.0, patience=300.0)
FRESH, REFRESHED = AttemptCounts(), AttemptCounts(refreshed=True)
RETRIED, RELINKED = AttemptCounts(retried_once=True), AttemptCounts(relinked=True)


@table(
    "decision, scope, tries, used, patient, step",
    {
        "good": (Decision.GOOD, Scope.ROW, FRESH, 1, True, NextStep.END),
        "stop-everybody": (Decision.STOP, Scope.PLATFORM, FRESH, 1, True, NextStep.STOP_RUN),
        "stop-merchant": (Decision.STOP, Scope.APPID, FRESH, 1, True, NextStep.END),
        "stop-row": (Decision.STOP, Scope.ROW, FRESH, 1, True, NextStep.END),
        "stop-env": (Decision.STOP, Scope.ENV, FRESH, 1, True, NextStep.END),
        "fix": (Decision.FIX, Scope.ROW, FRESH, 1, True, NextStep.END),
        "first-refusal": (Decision.REFRESH, Scope.APPID, FRESH, 1, True, NextStep.REFRESH),
        "refresh-is-no-attempt": (Decision.REFRESH, Scope.APPID, FRESH, 9, True, NextStep.REFRESH),
        "refused-again": (Decision.REFRESH, Scope.APPID, REFRESHED, 1, True, NextStep.END),
        "slow-is-no-attempt": (Decision.SLOW, Scope.APPID, FRESH, 9, True, NextStep.SLOW),
        "slow-for-too-long": (Decision.SLOW, Scope.ENV, FRESH, 1, False, NextStep.END),
        "retry": (Decision.RETRY, Scope.ROW, FRESH, 3, True, NextStep.RETRY),
        "attempts-used-up": (Decision.RETRY, Scope.ROW, FRESH, 4, True, NextStep.END),
        "more-than-are-allowed-now": (Decision.RETRY, Scope.ROW, FRESH, 5, True, NextStep.END),
        "once": (Decision.RETRY_ONCE, Scope.ROW, FRESH, 1, True, NextStep.RETRY),
        "not-twice": (Decision.RETRY_ONCE, Scope.ROW, RETRIED, 2, True, NextStep.END),
        "once-but-used-up": (Decision.RETRY_ONCE, Scope.ROW, FRESH, 4, True, NextStep.END),
        "new-link-again": (Decision.NEW_LINK, Scope.ROW, RELINKED, 3, True, NextStep.RELINK),
        "new-link-used-up": (Decision.NEW_LINK, Scope.ROW, FRESH, 4, True, NextStep.END),
        "new-link-once": (Decision.NEW_LINK_ONCE, Scope.ENV, FRESH, 1, True, NextStep.RELINK),
        "new-link-not-twice": (Decision.NEW_LINK_ONCE, Scope.ENV, RELINKED, 2, True, NextStep.END),
        "new-link-once-used-up": (Decision.NEW_LINK_ONCE, Scope.ENV, FRESH, 4, True, NextStep.END),
    },
)
def test_a_refusal_leads_to_the_step_in_the_table(decision, scope, tries, used, patient, step):
    assert next_step(decision, scope, tries, used, PACE, patient=patient) is step


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
def test_waits_double_within_a_quarter_and_end_at_a_minute(used, chance, seconds):
    assert backoff_wait(PACE, used, chance) == pytest.approx(seconds)
    assert backoff_wait(PACE, used, 1.0) <= LONGEST_BACKOFF * 1.25


@table(
    "between, opens_at",
    {
        "nothing": ([], 3),
        "another end": (["85088"] * 2 + [""], 6),
        "another code": (["85088"] * 2 + ["61007"], 6),
    },
)
def test_the_breaker_opens_at_the_third_row_in_a_row(between, opens_at):
    breaker = Breaker()
    opened = [breaker.row_ended(code) for code in (*between, *["85088"] * BREAKER_ROWS)]
    assert opened == [False] * (opens_at - 1) + [True]


def test_a_slowed_scope_is_halved_once_per_pause_and_not_by_calls_made_before_it():
    scope = Slowdown(8)
    scope.slow_down(100.0, PACE)
    scope.slow_down(101.0, PACE)
    assert (scope.limit, scope.paused_until) == (4, 161.0)
    scope.slow_down(161.0, PACE)
    assert (scope.limit, scope.paused_until) == (2, 221.0)
    for now in (221.0, 281.0):
        scope.slow_down(now, PACE)
    assert scope.limit == 1, "and keeps at least one row"


def test_twenty_good_rows_give_one_back_and_never_more_than_there_were():
    scope = Slowdown(4)
    scope.slow_down(0.0, PACE)
    limits = []
    for _ in range(GOOD_PER_NOTCH * 3):
        scope.row_good()
        limits.append(scope.limit)
    assert limits == [2] * 19 + [3] * 20 + [4] * 21


def test_being_told_again_starts_the_count_of_succeeded_rows_again():
    scope = Slowdown(8)
    scope.slow_down(0.0, PACE)
    for _ in range(GOOD_PER_NOTCH - 1):
        scope.row_good()
    scope.slow_down(100.0, PACE)
    scope.row_good()
    assert scope.limit == 2


def test_patience_runs_from_the_first_telling_and_a_good_row_renews_it():
    scope = Slowdown(8)
    assert scope.patient(0.0, PACE)
    scope.slow_down(100.0, PACE)
    scope.slow_down(390.0, PACE)
    assert scope.patient(399.9, PACE)
    assert not scope.patient(400.0, PACE)
    scope.row_good()
    assert scope.patient(400.0, PACE)


def test_rows_that_fail_together_are_one_failed_probe():
    outage = Outage()
    for _ in range(64):
        outage.suspect(10.0, PACE)
    assert outage.probe_at == 11.0
    outage.suspect(11.0, PACE)
    assert outage.probe_at == 13.0


def test_probes_end_with_patience():
    outage = Outage()
    outage.suspect(0.0, PACE)
    while not outage.over(outage.probe_at, PACE):
        outage.suspect(outage.probe_at, PACE)
        assert outage.probe_at <= PACE.patience
    assert outage.over(PACE.patience, PACE)
    assert not outage.over(PACE.patience - 0.01, PACE)


def test_waits_between_probes_double_up_to_the_fifth():
    outage, moments = Outage(), [100.0]
    for _ in range(7):
        outage.suspect(moments[-1], PACE)
        moments.append(outage.probe_at)
    assert [later - earlier for earlier, later in pairwise(moments)] == [1, 2, 4, 8, 16, 16, 16]


def test_probes_are_apart_even_without_a_backoff():
    outage = Outage()
    outage.suspect(10.0, RunLimits(backoff=0))
    assert outage.probe_at == pytest.approx(10.05)


def test_an_outage_whose_patience_ran_out_long_ago_is_over():
    outage = Outage()
    outage.suspect(0.0, PACE)
    assert outage.over(PACE.patience + 1, PACE)


def test_an_answer_ends_the_outage():
    outage = Outage()
    outage.suspect(0.0, PACE)
    outage.ended()
    assert not outage.over(1e9, PACE)
    outage.suspect(50.0, PACE)
    assert outage.probe_at == 51.0


@table(
    "answered, tries, now, step",
    {
        "the others are answered, tries are left": (15.0, 3, 20.0, NextStep.RETRY),
        "the others are answered, no tries are left": (15.0, 4, 20.0, NextStep.END),
        "the others are answered, no patience is left": (15.0, 1, 310.0, NextStep.END),
        "the others are answered, patience ran out long ago": (15.0, 1, 999.0, NextStep.END),
        "nobody is answered, patience is left": (5.0, 99, 309.9, NextStep.RETRY),
        "nobody is answered, no patience is left": (5.0, 1, 310.0, NextStep.STOP_RUN),
        "nobody ever was": (float("-inf"), 1, 310.0, NextStep.STOP_RUN),
    },
)
def test_what_follows_when_the_token_source_gives_no_usable_answer(answered, tries, now, step):
    assert after_no_token(10.0, answered, tries, now, PACE) is step


def test_the_command_line_has_the_same_defaults():
    assert asdict(LimitOptions()) == asdict(RunLimits())


@table(
    "answer, decision, scope",
    {
        "an errcode of the catalogue": (ApiError(85088, "", "", 200), Decision.STOP, Scope.APPID),
        "an answer that no repetition makes better": (
            InvalidResponse(200, verbatim("no url"), retryable=False),
            Decision.FIX,
            Scope.ROW,
        ),
        "a gateway's page": (
            InvalidResponse(502, verbatim("no JSON"), retryable=True),
            Decision.RETRY,
            Scope.ROW,
        ),
        "no answer": (
            TransportError(TransportFault.UNREACHABLE, verbatim("connection refused")),
            Decision.RETRY,
            Scope.ROW,
        ),
    },
)
def test_a_failed_call_is_decided_by_its_answer(answer, decision, scope):
    assert classify(answer) == (decision, scope)


@table(
    "canary, waiting",
    {"none": (0, set()), "one": (1, {"b", "c"}), "two": (2, {"c"}), "all": (3, set()), "more": (4, set())},
)
def test_the_environments_after_the_canary_wait(canary, waiting):
    names = ("a", "b", "", "a", "c")
    environments = [
        EnvRecord(number, env, "wx1", "云上茶铺", Owner.MERCHANT, left=False)
        for number, env in enumerate(names)
    ]
    assert after_canary(environments, canary) == waiting


@pytest.mark.parametrize("name", ["backoff", "slow_wait", "patience"])
@pytest.mark.parametrize("value", [-1, float("nan"), "1", True])
def test_a_wait_that_is_no_number_of_seconds_is_refused(name, value):
    with pytest.raises(ArgumentError, match=name):
        RunLimits(**{name: value})
