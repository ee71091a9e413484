"""What a plan says of accounts and environments is what real runs meet, row by row, as `expected_outcomes` has it."""

import pytest
from expected import expected_outcomes
from workspace import BOOKS, QUICK, TEA, TEA_TEST

import tcb_ops as tcb
from tcb_ops.features.simulator import Component, EnvStatus, Faults, SimulatedAccount, SimulatedEnvironment

PLANS = {
    "in order": (Faults(accounts=(SimulatedAccount(TEA.appid),)), {"uploaded": 30}),
    "revoked": (Faults(accounts=(SimulatedAccount(TEA.appid, revoked=True),)), {61003: 20}),
    "no permission set": (Faults(accounts=(SimulatedAccount(TEA.appid, permissions=(18,)),)), {61007: 20}),
    "no cloud": (Faults(accounts=(SimulatedAccount(TEA.appid, cloud=False),)), {85088: 20}),
    "halted": (Faults(environments=(SimulatedEnvironment(TEA_TEST.env, EnvStatus.HALTED),)), {-501005: 10}),
    "unavailable": (
        Faults(environments=(SimulatedEnvironment(TEA.env, EnvStatus.UNAVAILABLE),)),
        {-501018: 10},
    ),
    "somebody else's": (Faults(environments=(SimulatedEnvironment(TEA.env, foreign=True),)), {-601012: 10}),
    "quota used up": (Faults(accounts=(SimulatedAccount(BOOKS.appid, daily_limit=3, used=3),)), {45009: 10}),
    "quota used up on the way": (Faults(accounts=(SimulatedAccount(TEA.appid, daily_limit=8),)), {45009: 12}),
}


@pytest.mark.parametrize("name", PLANS)
def test_rows_end_as_expected(open_workspace, assert_complete, name):
    plan, bad = PLANS[name]
    workspace = open_workspace(accounts=plan.accounts, environments=plan.environments)
    run = tcb.upload(workspace.read(), settings=workspace.settings, limits=QUICK)
    assert_complete(run, 30)
    for record in run.rows():
        row = record.row
        siblings = [
            each.env for each in workspace.merchants if each.appid == row.appid and each.env != row.env
        ]
        expected = expected_outcomes(plan, row.env, row.appid, row.path, kind="upload", siblings=siblings)
        assert record.end.outcome in expected, row
    codes = [record.end.errcode for record in run.rows()]
    assert {code: codes.count(code) for code in set(codes) - {0}} == {
        code: rows for code, rows in bad.items() if code != "uploaded"
    }


def test_a_refused_ip_stops_the_run_before_anything(open_workspace):
    workspace = open_workspace(component=Component("wxc", ip_refused=True))
    with pytest.raises(tcb.StoppedError) as caught:
        tcb.upload(workspace.read(), settings=workspace.settings, limits=QUICK)
    assert "61004" in str(caught.value)
    assert workspace.sim.stats["stored"] == 0
