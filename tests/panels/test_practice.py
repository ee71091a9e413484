"""The platform to practise on: one a process."""

import os
import subprocess
import sys

import pytest
from workspace import QUICK

import tcb_ops as tcb
from tcb_ops.features.simulator.sample import FILES, MERCHANTS, PATHS, in_jupyter_session, sample_simulator

LOOK = "from tcb_ops.features.simulator.sample import practice; s = practice('zh'); print(s.api_base, s.ledger, s.lang, s is practice() or s == practice())"


def looked(tmp, **more):
    env = os.environ | {"TMPDIR": str(tmp)} | more
    done = subprocess.run([sys.executable, "-c", LOOK], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.slow
def test_a_process_has_one_and_takes_it_along(tmp_path):
    base, ledger, lang, same = looked(tmp_path)
    assert base.startswith("http://127.0.0.1:")
    assert ledger.startswith(str(tmp_path))
    assert (lang, same) == ("zh", "True")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["JPY_SESSION_NAME", "VOILA_REQUEST_URL"])
def test_what_a_user_looks_at_is_told_from_what_a_program_runs(monkeypatch, name):
    for one in ("JPY_SESSION_NAME", "VOILA_REQUEST_URL"):
        monkeypatch.delenv(one, raising=False)
    assert not in_jupyter_session()
    monkeypatch.setenv(name, "/voila/render/02_run_uploads.ipynb")
    assert in_jupyter_session()


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """The settings of a simulator with the sample's merchants and fault plan."""
    with sample_simulator(tmp_path_factory.mktemp("practice")) as (settings, _simulator):
        yield settings


@pytest.fixture(scope="module")
def named(simulated):
    """The environments that the check of merchants and tokens names."""
    states = tcb.check_merchants(tcb.read_merchants(MERCHANTS), settings=simulated)
    return {state.merchant.env for state in states if not state.works}


@pytest.mark.slow
def test_in_an_upload_nothing_works_where_the_check_says_so_and_something_everywhere_else(simulated, named):
    with tcb.read_paths(PATHS, tcb.read_merchants(MERCHANTS), FILES) as batch:
        run = tcb.upload(batch, settings=simulated, limits=QUICK)
    rows = list(run.rows())
    assert {row.row.env for row in rows} - {row.row.env for row in rows if row.end.outcome.succeeded} == named
