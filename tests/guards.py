"""Takes guards out of a copy of the package, one at a time, and says whether its part of the suite finds it.

    python tests/guards.py [--only TEXT] [--processes 2]

Prints a line for each guard, and ends with exit code 1 if one was not found. A guard is a line or two without which a row, a file, a
limit or a secret can be lost. test_guards.py holds that each of them is still where the table says.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 1500
"""A finder takes that long at most."""


@dataclass(frozen=True)
class Guard:
    """Code that guards something, what replaces it, and where its absence is found."""

    name: str
    file: str
    """Below tcb_ops."""
    code: str
    """Occurs once in the file."""
    without: str
    finder: str
    tests: str = ""
    """Of the finder: which, as pytest's -k selects them."""
    form: str = "not soak"
    """Of these tests: their short form, or that of `make soak`."""


SIMULATION, SESSIONS, CRASHES, FAILURES = "simulation", "two sessions", "crash states", "I/O failures"
FINDERS = {
    SIMULATION: ("tests/simulated_runs.py", "--processes", "1", "--runs", "1000"),
    SESSIONS: ("tests/simulated_sessions.py", "--processes", "1", "--runs", "4000"),
    CRASHES: ("-P", "-m", "pytest", "tests/core/test_crash_states.py"),
    FAILURES: ("-P", "-m", "pytest", "tests/core/test_io_errors.py"),
}
"""Commands of Python; any other finder is a file of tests."""

GUARDS = (
    Guard(
        "no more calls than --concurrency",
        "engine/engine.py",
        "while len(self._tasks) < self._limits.concurrency and",
        "while len(self._tasks) <= self._limits.concurrency and",
        SIMULATION,
    ),
    Guard(
        "at most 2 × concurrency rows uncommitted",
        "engine/engine.py",
        "+ rows_per_call <= most or not lost:",
        "+ rows_per_call <= most or True:",
        SIMULATION,
    ),
    Guard(
        "no more calls in an environment than --per-env",
        "engine/scheduler.py",
        "return scope.in_flight >= scope.slowdown.limit",
        "return scope.in_flight > scope.slowdown.limit",
        SIMULATION,
    ),
    Guard(
        "no call in an environment during its pause",
        "engine/scheduler.py",
        "max(env.slowdown.paused_until, app.slowdown.paused_until, app.next_call)",
        "max(app.slowdown.paused_until, app.next_call)",
        SIMULATION,
    ),
    Guard(
        "no call of a merchant during its pause",
        "engine/scheduler.py",
        "max(env.slowdown.paused_until, app.slowdown.paused_until, app.next_call)",
        "max(env.slowdown.paused_until, app.next_call)",
        SIMULATION,
    ),
    Guard(
        "no probe of a merchant before its rate allows",
        "engine/engine.py",
        "return max(self._outage.probe_at, next_call)",
        "return self._outage.probe_at",
        SIMULATION,
    ),
    Guard(
        "no row begins after the lease has passed",
        "engine/engine.py",
        "or self._outage.since is not None or not self._lease.holds:",
        "or self._outage.since is not None:",
        SESSIONS,
    ),
    Guard(
        "no effect of a row after the lease has passed",
        "ledger/locks.py",
        "        if not self.holds:\n            raise LapsedError(NOTHING)",
        "        pass",
        SESSIONS,
    ),
    Guard(
        "the lock is checked before a commit after a freeze",
        "engine/writer.py",
        "        if not self.lease.holds:\n            self.check_lock()\n",
        "",
        SESSIONS,
    ),
    Guard(
        "the lock is checked before the run is finished",
        "engine/session.py",
        "        self._context.check_lock()  # the process may have been frozen since its last commit\n",
        "",
        SESSIONS,
    ),
    Guard(
        "--rate between two link calls of a merchant",
        "engine/engine.py",
        "app.next_call = max(now, app.next_call) + 1 / self._limits.rate",
        "pass",
        SIMULATION,
    ),
    Guard(
        "--rate after a canary",
        "engine/engine.py",
        "await asyncio.sleep(1 / self._limits.rate)",
        "pass",
        SIMULATION,
    ),
    Guard(
        "no more than --attempts",
        "engine/limits.py",
        "attempts_left = used < limits.attempts",
        "attempts_left = used <= limits.attempts",
        SIMULATION,
    ),
    Guard(
        "one new token a row",
        "engine/limits.py",
        "case Decision.REFRESH if not counts.refreshed:",
        "case Decision.REFRESH:",
        SIMULATION,
    ),
    Guard(
        "a breaker opens after three rows",
        "engine/limits.py",
        "return self.rows >= BREAKER_ROWS",
        "return False",
        SIMULATION,
    ),
    Guard(
        "a breaker ends no row that is in flight",
        "engine/outcome_handler.py",
        "begun = tuple(row.line for task in lane.tasks for row in task.rows)",
        "begun = ()",
        SIMULATION,
    ),
    Guard(
        "a resumed run renews links that have expired",
        "engine/session.py",
        "if context.resumed:",
        "if False:",
        SIMULATION,
    ),
    Guard(
        "the store's checksum is compared",
        "engine/calls.py",
        'if answer.verdict != "different":',
        "if True:",
        SIMULATION,
    ),
    Guard(
        "a call without an answer is tried again only where --attempts allow it",
        "engine/limits.py",
        "case Decision.RETRY if attempts_left:",
        "case Decision.RETRY:",
        SIMULATION,
    ),
    Guard(
        "a delete leaves files that were changed since",
        "features/stored/calls.py",
        "return detail(StoredCode.WRITTEN_SINCE, run=since) if since else None",
        "return None",
        "tests/features/stored/test_confirm.py",
        "retried_delete_leaves",
    ),
    Guard(
        "an undo leaves files that were changed since",
        "features/stored/rules.py",
        "return file.changed_since(self.runs | self.taken_back_by, self.number, certain=certain, sent=sent)",
        'return ""',
        "tests/features/stored/test_stored_files.py",
        "what_an_undo_wants",
    ),
    Guard(
        "a dry run tells what is unchanged only where that is certain",
        "engine/changes.py",
        "same = have is not None and have.is_known and is_same(row, have)",
        "same = have is not None and is_same(row, have)",
        "tests/core/engine/test_changes.py",
        "unchanged_only_where",
    ),
    Guard(
        "an undo leaves bytes that are not the upload's",
        "features/stored/rules.py",
        "if now != ours or not ours:",
        "if False:",
        "tests/features/stored/test_stored_commands.py",
        "hides_no_earlier_upload",
    ),
    Guard(
        "a saved file that may be the upload's own is not restored",
        "features/stored/backup.py",
        "return bool(self.md5) and self.md5 in {*uploaded, *self.sent}",
        "return False",
        "tests/features/stored/test_backup.py",
        "looks_again_at_what_was_sent",
    ),
    Guard(
        "a resumed upload saves what somebody changed meanwhile",
        "features/stored/calls.py",
        "if saved is not None and not await self._changed_since(task, existing, saved, md5):",
        "if saved is not None:",
        "tests/features/stored/test_checked_upload.py",
        "put_there_meanwhile",
    ),
    Guard(
        "the end of a row is written to the table of stored files",
        "ledger/database.py",
        "cursor.executemany(CHANGE_ROW, [(run.number, end.line) for end in changing(run, ends)])",
        "pass",
        "tests/features/stored/test_files.py",
        "what_is_where or made_again",
    ),
    Guard(
        "an undo gives only an upload's own bytes back to it",
        "ledger/files.py",
        "if not is_there or connection.execute(_UPLOADED, (*before, *at)).fetchone():",
        "if True:",
        "tests/features/stored/test_files.py",
        "strangers_to_nobody",
    ),
    Guard(
        "a file is nobody's where its row does not say the same",
        "ledger/files.py",
        "return self.uploaded and bool(self.md5) and self.agrees and not self.restoring",
        "return self.uploaded and bool(self.md5) and not self.restoring",
        "tests/features/stored/test_undo.py",
        "row_does_not_say_the_same",
    ),
    Guard(
        "a pending row of a run that was at work later puts a file in doubt",
        "ledger/histories.py",
        "max(run.newest_run, number)",
        "number",
        "tests/core/ledger/test_ledger.py",
        "what_a_later_one_has_stored",
    ),
    Guard(
        "rows that fail after a cut are in doubt",
        "ledger/records.py",
        "if cut_off is not None and end.ended_at is not None and end.ended_at >= cut_off:",
        "if False:",
        "tests/features/stored/test_files.py",
        "under_way_at_an_interruption",
    ),
    Guard(
        "rows that are closed after a cut are in doubt",
        "ledger/ledger.py",
        "if run.changes_store and run.cut_off is not None:",
        "if False:",
        "tests/core/ledger/test_ledger.py",
        "after_a_cut",
    ),
    Guard(
        "calls under way at a run's end are kept in mind",
        "engine/session.py",
        "now if self._left_begun else None",
        "None",
        "tests/features/stored/test_files.py",
        "under_way_at_an_interruption",
    ),
    Guard(
        "nothing is undone or deleted where the table differs from the run",
        "features/stored/specs.py",
        "ledger.check_files(run)",
        "pass",
        "tests/features/stored/test_files.py",
        "made_again",
    ),
    Guard(
        "a delete leaves files that runs did not upload",
        "features/stored/calls.py",
        "is_own = bool(kept_by(run).foreign) or (file is not None and file.is_ours)",
        "is_own = True",
        "tests/features/stored/test_confirm.py",
        "what_an_undo_has_restored",
    ),
    Guard(
        "an MD5 is noted before its bytes are sent",
        "features/stored/calls.py",
        "await asyncio.to_thread(self.backup.note_sent, row.line, md5)",
        "pass",
        "tests/features/stored/test_checked_upload.py",
        "saved_before_the_first_attempt",
    ),
    Guard(
        "a link is on the disk before its row is recorded",
        "engine/links_file.py",
        "self._file.flush()\n            os.fsync(self._file.fileno())\n        except OSError as error:\n            raise _trouble(self.part, error)",
        "self._file.flush()\n        except OSError as error:\n            raise _trouble(self.part, error)",
        CRASHES,
        "links",
    ),
    Guard(
        "the name of a file that replaces another is on the disk",
        "disk.py",
        "        _sync_names(dest.parent)\n",
        "",
        CRASHES,
        "links or tokens",
    ),
    Guard(
        "the links are kept until the run is recorded as finished",
        "engine/session.py",
        "self.expired_links = self._links.finish(self._ledger, self._run, self._context.runtime.now())\n",
        "self.expired_links = self._links.finish(self._ledger, self._run, self._context.runtime.now())\n"
        "            self._links.discard()\n",
        CRASHES,
        "links",
        "soak",
    ),
    Guard(
        "bytes are on the disk before the file that they replace is gone",
        "disk.py",
        "        sync_to_disk(part)\n",
        "",
        CRASHES,
        "links or tokens",
    ),
    Guard(
        "a saved file is on the disk, with its name, before its path is overwritten",
        "features/stored/backup.py",
        "                sync_to_disk(self.folder)\n                return True\n",
        "                return True\n",
        CRASHES,
        "backup",
    ),
    Guard(
        "a saved file's bytes are on the disk",
        "features/stored/backup.py",
        "            self._stream.flush()\n            os.fsync(self._stream.fileno())\n",
        "            self._stream.flush()\n",
        CRASHES,
        "backup",
    ),
    Guard(
        "links.csv.part does not outlive a run that could not begin",
        "engine/links_file.py",
        "self.discard()  # the run may be forgotten, and its part would be in the way of the next",
        "pass",
        FAILURES,
        "links",
    ),
    Guard(
        "a frozen process does not delete after its time",
        "features/stored/calls.py",
        "        self.lease.check()\n        answer = await self._ask_files(task, ids, self.file_client.delete)",
        "        answer = await self._ask_files(task, ids, self.file_client.delete)",
        "tests/features/cluster/test_lease.py",
    ),
    Guard(
        "a saved file is compared with its ETag",
        "features/stored/calls.py",
        "if answer.status != 200 or (MD5.fullmatch(etag) and etag != download.md5):",
        "if answer.status != 200:",
        "tests/features/stored/test_backup.py",
    ),
    Guard(
        "a link goes to an allowed host only",
        "wechat/responses.py",
        "    unsafe = _check_origin(scheme, host, port, base, store_hosts)\n",
        "    unsafe = None\n",
        "tests/core/wechat",
    ),
)


def found(guard: Guard) -> tuple[bool, float, str]:
    """Take a guard out of a copy of the package; return whether its finder fails, the seconds, and the finder's output."""
    with tempfile.TemporaryDirectory(prefix="tcb-ops-guard-") as made:
        copy = Path(made)
        shutil.copytree(ROOT / "tcb_ops", copy / "tcb_ops", ignore=shutil.ignore_patterns("__pycache__"))
        for folder in ("data", "notebooks"):
            (copy / folder).symlink_to(ROOT / folder)
        file = copy / "tcb_ops" / guard.file
        file.write_text(file.read_text(encoding="utf-8").replace(guard.code, guard.without), encoding="utf-8")
        command = FINDERS.get(guard.finder, ("-P", "-m", "pytest", guard.finder))
        if command[1:3] == ("-m", "pytest"):
            quietly = ("-x", "-q", "-p", "no:cacheprovider", "-m", guard.form, "--basetemp", made + "/tests")
            command = (*command, *quietly, *(("-k", guard.tests) if guard.tests else ()))
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": made},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        return done.returncode == 1, time.monotonic() - began, done.stdout + done.stderr


def main() -> int:
    """Take out the guards; return the exit code."""
    parser = argparse.ArgumentParser(description="Takes guards out, one at a time.")
    parser.add_argument("--only", default="", help="guards whose name has this text")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    guards = [guard for guard in GUARDS if chosen.only in guard.name]
    missed = 0
    with ThreadPoolExecutor(chosen.processes) as pool:
        for guard, (is_found, seconds, output) in zip(guards, pool.map(found, guards), strict=True):
            print(
                f"{'found' if is_found else 'MISSED':6} {seconds:4.0f} s  {guard.name}  ({guard.finder})",
                flush=True,
            )
            if not is_found:
                missed += 1
                print(output[-1500:])
    print(f"{len(guards) - missed} of {len(guards)} found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
