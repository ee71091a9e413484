"""A signal at any moment: no trace, the signal's exit code."""

import os
import pty
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from workspace import BOOKS, TEA, many

from tcb_ops.features.simulator.faults import Fault

pytestmark = pytest.mark.kill

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
MOMENTS = (0, 20, 60, 120, 200, 300, 420, 550)
"""Of the start: milliseconds of computing, which say how far it is on a busy machine as well."""
FEW = {(signal.SIGHUP, 0), (signal.SIGTERM, 120), (signal.SIGINT, 420)}
STARTS = [
    pytest.param(number, moment, marks=() if (number, moment) in FEW else pytest.mark.soak)
    for number in CODES
    for moment in MOMENTS
]
"""A few, and all of them in `make soak`."""


def wait_for(process, holds):
    """Poll until it holds; gives whether it did before the process ended."""
    end = time.monotonic() + 240
    while process.poll() is None:
        assert time.monotonic() < end
        try:
            if holds(Path(f"/proc/{process.pid}")):
                return True
        except OSError:
            return False
        time.sleep(0.001)
    return False


def is_ready(proc):
    """Whether a signal is the command's own: what comes before is the interpreter's beginning."""
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", (proc / "status").read_text(), re.MULTILINE)
    return bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def computed(proc):
    return int((proc / "schedstat").read_text().split()[0]) / 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize(("number", "moment"), STARTS)
def test_a_signal_while_the_command_starts_leaves_no_trace(open_cli, number, moment):
    cli = open_cli(many(TEA, rows=5), [Fault(delay=0.5)])
    with cli.process("upload", "list.csv", "--root", "files") as process:
        assert wait_for(process, is_ready)
        begun = computed(Path(f"/proc/{process.pid}"))
        assert wait_for(
            process,
            lambda proc: computed(proc) >= begun + moment or cli.workspace.sim.stats["link_calls"] > 0,
        )
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
    assert process.returncode == CODES[number], err
    assert [word for word in ("Traceback", "Exception ignored", "defect", "Error") if word in err] == [], err
    assert err.count("nterrupted") == 1
    assert out == ""


LOSES_A_SIGNAL = """
import signal, sys, weakref
from contextlib import suppress
from tcb_ops.__main__ import main

class Thing: pass

class Finder:
    def find_spec(self, name, *_):
        if name == "tcb_ops.engine.plan":
            sys.meta_path.remove(self)
            receive()

def signalled(_=None):
    signal.raise_signal({number})

def receive():
    {receive}

sys.meta_path.insert(0, Finder())
main()
"""
LOST = {
    "by a weak reference's callback": "thing = Thing(); reference = weakref.ref(thing, signalled); del thing",
    "by who catches everything": "with suppress(BaseException): signalled()",
}


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("receive", LOST.values(), ids=LOST)
def test_a_signal_that_is_lost_during_an_import_ends_the_command_before_anything_is_sent(
    open_cli, receive, number
):
    cli = open_cli(many(TEA, rows=5))
    script = LOSES_A_SIGNAL.format(receive=receive, number=int(number))
    with cli.spawn([sys.executable, "-c", script, "upload", "list.csv", "--root", "files"]) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == CODES[number], err
    assert [word for word in ("Traceback", "Exception ignored") if word in err] == [], err
    assert (out, cli.calls) == ("", 0)
    assert not cli.folder.joinpath("ledger.db").exists() or cli("runs", "--json").json["runs"] == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_who_began_the_command_has_ignored_stays_so(open_cli, number):
    cli = open_cli(many(TEA, rows=5), [Fault(delay=0.3)])
    ignoring = (
        f"import os, signal, sys; signal.signal({int(number)}, signal.SIG_IGN); "
        "os.execv(sys.executable, [sys.executable, '-m', 'tcb_ops', *sys.argv[1:]])"
    )
    words = ("upload", "list.csv", "--root", "files", "--json")
    with cli.spawn([sys.executable, "-c", ignoring, *words]) as process:
        while not cli.workspace.sim.stats["link_calls"]:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=240)
    assert process.returncode == 0


def test_a_terminal_that_is_closed_ends_the_run_tidily(open_cli, wait_for):
    cli = open_cli(many(TEA, BOOKS, rows=60), [Fault(delay=0.05)])
    ours, theirs = pty.openpty()
    begun = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from tcb_ops.__main__ import main; main()"
    words = ("upload", "list.csv", "--root", "files", "--concurrency", "4", "--new-run")
    options = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
    with cli.spawn([sys.executable, "-c", begun, *words], **options) as process:
        os.close(theirs)
        wait_for(lambda: cli.workspace.sim.stats["stored"] >= 10)
        os.close(ours)
        assert process.wait(timeout=240) == 143
    run = cli.latest()
    assert 0 < run.counts["pending"] < 120
    stored = cli.workspace.sim.stats["stored"]
    assert run.counts["uploaded"] == stored, "what was stored is known"
    result = cli("upload", "list.csv", "--root", "files", "--json")
    assert (result.code, result.json["run"], result.json["counts"]) == (0, run.id, {"uploaded": 120})
