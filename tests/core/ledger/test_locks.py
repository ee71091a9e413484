"""One session at a time works on a run; a kill frees it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, closing

import pytest
from workspace import TEA, many

import tcb_ops as tcb
from tcb_ops.errors import UsageError
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.locks import hold, host_name, operator_name, planning, process_identity, working
from tcb_ops.lists.paths import read_paths

HOLD = """
import sys
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.locks import hold
with hold(Ledger(sys.argv[1]), "run-1"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(place, ledger):
    """Another process that holds run-1."""
    argv = [sys.executable, "-c", HOLD, place]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.integration
def test_a_second_process_is_told_who_holds_the_run_another_run_is_free_and_a_kill_frees_its_own(
    ledger, holder, wait_for
):
    with pytest.raises(UsageError) as caught, hold(ledger, "run-1"):
        pass
    assert caught.value.exit_code == 2
    for named in ("run-1", f"{operator_name()}@{host_name()}, PID {holder.pid}"):
        assert named in caught.value.text.en
    assert working(ledger, "run-1") == caught.value.text
    with hold(ledger, "run-2"):
        pass
    holder.kill()
    assert holder.wait() == -signal.SIGKILL
    wait_for(lambda: working(ledger, "run-1") is None)  # PostgreSQL hears of it a moment later
    with hold(ledger, "run-1"):
        pass


def test_a_run_can_be_held_again_and_again_and_is_exclusive_within_a_process(ledger):
    for _ in range(2):
        with hold(ledger, "run-1"), pytest.raises(UsageError), hold(ledger, "run-1"):
            pass


@pytest.mark.posix("inodes")
def test_letting_go_leaves_the_lock_file_that_others_may_have_open(sqlite_ledger):
    lock = sqlite_ledger.file.with_name("ledger.db-locks") / "run-1.lock"
    with hold(sqlite_ledger, "run-1"):
        inode = lock.stat().st_ino
    with hold(sqlite_ledger, "run-1"):
        assert lock.stat().st_ino == inode


@pytest.mark.integration
def test_a_run_that_differs_only_in_its_root_is_refused_while_the_other_is_worked_on(open_workspace, place):
    workspace = open_workspace(many(TEA, rows=30), [Fault(delay=1.5)])
    settings = workspace.with_options(ledger=place)
    shutil.copytree(workspace.folder / "files", workspace.folder / "files2")
    elsewhere = read_paths(workspace.list, workspace.merchants, workspace.folder / "files2")
    working = workspace.start_upload(settings=settings)
    with pytest.raises(UsageError) as caught:
        tcb.start_upload(elsewhere, settings=settings)
    assert caught.value.exit_code == 2
    for named in (working.id, process_identity(), str(workspace.folder / "files"), "--new-run"):
        assert named in caught.value.text.en
    part = tcb.start_upload(elsewhere.limited(30), settings=settings)
    again = tcb.start_upload(elsewhere, settings=settings, new_run=True)
    workspace.sim.play([])
    for handle in (part, again, working):
        assert handle.wait().counts == {"uploaded": 30}


# --- the folder of an SQLite ledger's locks -----------------------------------------------------------------------


@pytest.mark.posix("links")
def test_what_another_made_where_the_locks_belong_is_refused_and_not_followed(sqlite_ledger, tmp_path):
    locks, elsewhere = tmp_path / "ledger.db-locks", tmp_path / "elsewhere"
    elsewhere.mkdir()
    locks.symlink_to(elsewhere)
    for take in (lambda: hold(sqlite_ledger, "run-1"), lambda: planning(sqlite_ledger)):
        with pytest.raises(UsageError, match=r"ledger\.db-locks is not your folder") as caught, take():
            pass
        assert caught.value.exit_code == 2
    assert list(elsewhere.iterdir()) == []
    locks.unlink()
    locks.write_text("a file")
    with pytest.raises(UsageError, match="is not your folder"), hold(sqlite_ledger, "run-1"):
        pass


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_users_folder_of_locks_is_refused(sqlite_ledger, tmp_path):
    locks = tmp_path / "ledger.db-locks"
    locks.mkdir()
    os.chown(locks, 65534, 65534)
    with pytest.raises(UsageError, match="belongs to another user"), hold(sqlite_ledger, "run-1"):
        pass
    os.chown(tmp_path / "ledger.db", 65534, 65534)  # root helps the ledger's owner
    with hold(sqlite_ledger, "run-1"):
        pass


@pytest.mark.posix("links")
def test_a_link_in_place_of_the_holders_name_is_not_written_through(sqlite_ledger, tmp_path):
    victim, locks = tmp_path / "victim", tmp_path / "ledger.db-locks"
    victim.write_text("mine")
    locks.mkdir()
    (locks / "run-1.holder").symlink_to(victim)
    with hold(sqlite_ledger, "run-1"):
        assert (locks / "run-1.holder").read_text(encoding="utf-8").startswith(operator_name())
    (locks / "run-2.lock").symlink_to(tmp_path / "made")
    with pytest.raises(UsageError), hold(sqlite_ledger, "run-2"):
        pass
    assert victim.read_text() == "mine"
    assert not (tmp_path / "made").exists()


@pytest.mark.posix("links")
def test_two_names_of_one_ledger_share_its_locks(sqlite_ledger, tmp_path):
    (tmp_path / "other.db").symlink_to(tmp_path / "ledger.db")
    with (
        closing(Ledger(str(tmp_path / "other.db"))) as other,
        hold(sqlite_ledger, "run-1"),
        pytest.raises(UsageError, match="being worked on"),
        hold(other, "run-1"),
    ):
        pass


def test_a_run_may_be_let_go_of_by_another_thread(sqlite_ledger):
    held = ExitStack()
    held.enter_context(hold(sqlite_ledger, "run-1"))
    other = threading.Thread(target=held.close)
    other.start()
    other.join()
    with hold(sqlite_ledger, "run-1"):
        pass
