"""What an audit found, beside the one before: each environment that is not healthy in exactly one list."""

import pytest
from workspace import BOOKS, QUICK, TEA, TEA_TEST

import tcb_ops as tcb
from tcb_ops.features.audit import HEALTHY, UNHEALTHY
from tcb_ops.features.audit.kind import AUDIT
from tcb_ops.features.simulator import Fault, Reset
from tcb_ops.model import Outcome


def audited(workspace, faults=(), **options):
    workspace.sim.play(faults)
    options = {"settings": workspace.settings, "limits": QUICK} | options
    return tcb.audit(options.pop("merchants", workspace.merchants), **options).audit()


def envs(findings):
    return [(one.cause.env, one.cause.code) for one in findings]


def test_what_newly_broke_recovered_and_is_still_broken(open_workspace):
    workspace = open_workspace([])
    audited(workspace, [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA.env, errcode=85088)])
    found = audited(workspace, [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA_TEST.env, errcode=48001)])
    assert envs(found.new) == [(TEA_TEST.env, "48001")]
    assert envs(found.still) == [(BOOKS.env, "85088")]
    assert [(line.env, line.before) for line in found.recovered] == [(TEA.env, "85088")]
    quiet = audited(workspace, [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA_TEST.env, errcode=48001)])
    assert (quiet.new, quiet.recovered, quiet.changed) == ((), (), False)
    assert [quiet.exit_code(on) for on in ("any", "new", "none")] == [1, 0, 0]


def test_another_cause_is_new(open_workspace):
    workspace = open_workspace([])
    audited(workspace, [Fault(env=BOOKS.env, errcode=85088)])
    (one,) = audited(workspace, [Fault(env=BOOKS.env, errcode=48001)]).new
    assert (one.cause.code, one.before) == ("48001", "85088")


@pytest.mark.slow
@pytest.mark.parametrize("unknown_nights", [1, 3])
def test_what_was_unknown_is_compared_with_its_last_known_state(open_workspace, unknown_nights):
    workspace, outage = open_workspace([]), [Fault(reset=Reset.BEFORE)]
    failing = [Fault(env=BOOKS.env, errcode=85088), Fault(env=TEA.env, errcode=85088)]
    audited(workspace, [*failing, Fault(env=TEA_TEST.env, errcode=-1)])
    for _night in range(unknown_nights):
        night = audited(workspace, outage)
        assert (night.new, night.recovered, len(night.unknown)) == ((), (), 3)
    back = audited(workspace, [failing[0], Fault(env=TEA_TEST.env, errcode=48001)])
    assert envs(back.still) == [(BOOKS.env, "85088")]
    assert envs(back.new) == [(TEA_TEST.env, "48001")]  # never known before
    assert [(line.env, line.before) for line in back.recovered] == [(TEA.env, "85088")]
    assert back.previous is not None
    audited(workspace, outage)
    assert envs(audited(workspace, [Fault(env=TEA.env, errcode=85088)]).new) == [(TEA.env, "85088")]


@pytest.mark.parametrize("unknown_between", [False, True])
def test_a_known_failure_is_silenced_until_its_date_and_new_again_after_it(open_workspace, unknown_between):
    workspace, broken = open_workspace([]), [Fault(env=BOOKS.env, errcode=85088)]
    known = workspace.folder / "known.csv"
    known.write_text(f"env,cause,until,note\n{BOOKS.env},85088,2999-12-31,asked\n", encoding="utf-8")
    found = audited(workspace, broken, known=known)
    assert envs(found.silenced) == [(BOOKS.env, "85088")]
    assert [found.exit_code(on) for on in ("any", "new")] == [0, 0]
    assert (found.new, found.still, found.unknown) == ((), (), ())
    known.write_text(f"env,cause,until,note\n{BOOKS.env},85088,2001-12-31,asked\n", encoding="utf-8")
    if unknown_between:
        unknown = audited(workspace, [Fault(env=BOOKS.env, errcode=-1)], known=known)
        assert (unknown.new, unknown.exit_code("new")) == ((), 1)
    after = audited(workspace, broken, known=known)
    assert envs(after.new) == [(BOOKS.env, "85088")]
    assert [line.env for line in after.expired] == [BOOKS.env]


def test_a_clock_set_back_leaves_the_order_of_the_audits(open_workspace, monkeypatch):
    workspace = open_workspace([])
    first = audited(workspace, [Fault(env=BOOKS.env, errcode=85088)])
    monkeypatch.setattr("tcb_ops.api.time.time", lambda: first.run.created_at - 86_400)
    found = audited(workspace, [Fault(env=BOOKS.env, errcode=85088)])
    assert found.previous is not None
    assert found.previous.id == first.run.id
    assert not found.new


@pytest.mark.parametrize(
    ("counts", "finished", "result"),
    [
        ({HEALTHY: 1, UNHEALTHY: 2, Outcome.UNKNOWN: 1}, True, "1 of 4 environments is healthy, 2 are unhealthy, 1 is unknown."),
        ({HEALTHY: 8, UNHEALTHY: 2, Outcome.PENDING: 2}, False, "Unfinished: 10 of 12 environments were checked (8 healthy), 2 pending."),
    ],
)  # fmt: skip
def test_the_verdict_is_a_sentence(counts, finished, result):
    assert AUDIT.verdict(counts, finished=finished).en == result
