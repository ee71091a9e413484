"""Entry point of `tcb-ops` and `python -m tcb_ops`; handles signals before anything else is imported."""

import _signal  # type: ignore[import-not-found]  # what `signal` is made of: that takes 3 ms, where a Ctrl-C would leave a trace
import gc
import os
import sys


def main() -> None:
    """Run a command line and exit."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # not where it is ignored
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    _open_closed_streams()
    gc.set_threshold(10_000, 20, 50)  # looking for cycles took 7 % of the CPU of a short command
    from tcb_ops.signals import NOTHING_STARTED, end_at_once

    completes = "_TCB_OPS_COMPLETE" in os.environ  # a message would appear in the line being typed
    end_at_once(message=b"" if completes else NOTHING_STARTED)
    from tcb_ops.cli.main import main as run

    try:
        run()
    finally:
        gc.freeze()  # the interpreter looks for cycles as it ends: up to a tenth of the CPU of a short command


def _open_closed_streams() -> None:
    """Open the null device as each standard stream that is closed: files opened later would take its place."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, so this one
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


if __name__ == "__main__":
    main()
