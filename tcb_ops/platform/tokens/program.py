"""Running a program of the operator's own for what it prints."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["kill", "output_of"]


def output_of(
    words: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    running: set[subprocess.Popen[bytes]],
) -> tuple[int, bytes]:
    """A program's exit code and what it printed; it stands in `running` for as long as it runs.

    One that takes too long is ended with all it has started. Raises OSError, subprocess.TimeoutExpired.
    """
    with subprocess.Popen(  # noqa: S603  the operator's own program, an argument list, no shell
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=os.name == "posix",
    ) as program:
        running.add(program)
        try:
            printed, _ = program.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill(program)
            raise
        finally:
            running.discard(program)
    return program.returncode, printed


def kill(program: subprocess.Popen[bytes]) -> None:
    """End a program and, on POSIX, its children, which may hold its pipes open when it has ended itself."""
    with suppress(OSError):
        if os.name == "posix":
            os.killpg(program.pid, signal.SIGKILL)
        else:
            program.kill()
