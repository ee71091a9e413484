"""Entry point of `tcb-ops` and `python -m tcb_ops`; handles signals before anything heavy is imported."""

import gc
import os

from tcb_ops.signals import NOTHING_STARTED, end_at_once


def main() -> None:
    """Run a command line and exit."""
    gc.set_threshold(10_000, 20, 50)  # looking for cycles took 7 % of the CPU of a short command
    completes = "_TCB_OPS_COMPLETE" in os.environ  # a message would appear in the line being typed
    end_at_once(message=b"" if completes else NOTHING_STARTED)
    from tcb_ops.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
