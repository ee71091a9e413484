"""One sitting at a time works on a run; a kill frees it."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from shop import TEA, OpenShop, many

import tcb_ops as tcb
from tcb_ops.errors import UsageError
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.locks import hold, host_name, operator_name, working
from tcb_ops.simulator import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLD = """
import sys
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.locks import hold
with hold(Ledger(sys.argv[1]), "run-1"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(str(tmp_path / "ledger.db"))) as opened:
        yield opened


@pytest.fixture
def holder(ledger: Ledger) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds run-1."""
    argv = [sys.executable, "-c", HOLD, str(ledger.file)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_holds_the_run(
    ledger: Ledger, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(UsageError) as caught, hold(ledger, "run-1"):
        pass
    assert caught.value.exit_code == 2
    for said in (caught.value.text.en, caught.value.text.zh):
        assert "run-1" in said
        assert f"{operator_name()}@{host_name()}, process {holder.pid}" in said


def test_another_run_of_the_same_ledger_is_free(ledger: Ledger, holder: subprocess.Popen[str]) -> None:
    assert holder.poll() is None
    with hold(ledger, "run-2"):
        pass


def test_a_killed_holder_frees_its_run(ledger: Ledger, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    assert holder.wait() == -signal.SIGKILL
    with hold(ledger, "run-1"):
        pass


def test_a_run_can_be_held_again_and_again_and_is_exclusive_within_a_process(ledger: Ledger) -> None:
    for _ in range(2):
        with hold(ledger, "run-1"), pytest.raises(UsageError, match="being worked on"), hold(ledger, "run-1"):
            pass


def test_letting_go_leaves_the_lock_file_that_others_may_have_open(ledger: Ledger) -> None:
    assert ledger.file is not None
    lock = ledger.file.with_name("ledger.db-locks") / "run-1.lock"
    with hold(ledger, "run-1"):
        inode = lock.stat().st_ino
    with hold(ledger, "run-1"):
        assert lock.stat().st_ino == inode


def test_a_run_that_is_worked_on_is_refused_whole(open_shop: OpenShop) -> None:
    shop = open_shop(many(TEA, rows=30), [Fault(delay=0.02)])
    working = tcb.start_upload(shop.read(), settings=shop.settings)
    with pytest.raises(UsageError, match=working.id):
        tcb.start_upload(shop.read(), settings=shop.settings)
    assert working.wait().counts == {"uploaded": 30}
    assert shop.sim.stats["stored"] == 30


def test_who_else_works_on_a_run_can_be_asked(ledger: Ledger, holder: subprocess.Popen[str]) -> None:
    assert working(ledger, "run-1") == f"{operator_name()}@{host_name()}, process {holder.pid}"
    assert working(ledger, "run-2") == ""
    with hold(ledger, "run-2"):
        assert working(ledger, "run-2") == "", "that is we"
    holder.kill()
    holder.wait()
    assert working(ledger, "run-1") == ""
    with hold(ledger, "run-1"):
        pass
