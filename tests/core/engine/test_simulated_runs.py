"""Runs in simulated time: seeds decide latencies, faults, outages, kills; nothing that must hold is violated."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_runs import SOME

TESTS = Path(__file__).parents[2]


def played(runs, seed, *options, play="simulated_runs.py", **variables):
    command = [sys.executable, str(TESTS / play), "--runs", str(runs), "--seed", str(seed), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_no_run_violates_what_must_hold():
    text = played(SOME, 0, "--processes", "1")
    assert f"runs {SOME}" in text
    for end in ("finished", "killed", "interrupted", "stopped", "without disk space"):
        assert int(re.search(rf"session {end} (\d+)", text)[1]) > 10, text


@pytest.mark.slow
def test_two_sessions_do_nothing_to_each_other():
    text = played(SOME, 0, "--processes", "1", play="simulated_sessions.py")
    assert f"runs {SOME}" in text
    for end in ("session not needed", "session without its lock", "taken over"):
        assert int(re.search(rf"{end} (\d+)", text)[1]) > 10, text


@pytest.mark.slow
def test_a_seed_replays_exactly():
    salts = ("1", "2")  # the order of sets differs
    traces = {re.search(r"trace (\w+)", played(25, 3000, PYTHONHASHSEED=salt))[1] for salt in salts}
    assert len(traces) == 1


@pytest.mark.soak
def test_a_night_of_runs_violates_nothing():
    seconds = os.environ.get("SOAK_SECONDS", "600")
    played(10_000_000, 100_000, "--seconds", seconds)
    played(10_000_000, 100_000, "--seconds", seconds, play="simulated_sessions.py")
