"""Running a program of the operator's own for what it prints."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, TYPE_CHECKING

from tcb_ops.model import Text
from tcb_ops.resources import raise_if_exhausted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LARGEST_OUTPUT", "NoOutput", "kill", "output_of"]

LARGEST_OUTPUT = 64 * 1024
"""Bytes: as much as a token server's answer may have."""

_CANNOT_BE_RUN = {126, 127}
"""A shell's exit codes for a program that is not executable, and one that is missing."""


@dataclass(frozen=True, slots=True)
class NoOutput:
    """What a program did instead of printing and ending with 0."""

    did: Text
    """A verb phrase."""
    transient: bool = True
    """It did not run to its end, so that it has said nothing of what it was asked for."""


def output_of(
    words: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    running: set[subprocess.Popen[bytes]],
) -> bytes | NoOutput:
    """What a program printed, or what it did instead. It stands in `running` for as long as it runs.

    One that takes too long or prints without end is ended with all it has started. What it says on stderr may hold a
    secret, and is not read.
    """
    end = time.monotonic() + seconds
    try:
        program = subprocess.Popen(  # noqa: S603  the operator's own program, an argument list, no shell
            words,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=os.name == "posix",
        )
    except (OSError, ValueError) as error:
        raise_if_exhausted(error)
        why = getattr(error, "strerror", None) or "no such thing can be run"
        return NoOutput(Text(f"cannot be started ({why})", f"无法启动（{why}）"))
    running.add(program)
    try:
        return _said(program, end, seconds)
    finally:
        running.discard(program)


def _said(program: subprocess.Popen[bytes], end: float, seconds: float) -> bytes | NoOutput:
    printed: SimpleQueue[bytes] = SimpleQueue()
    assert program.stdout is not None  # noqa: S101  it was asked for
    # A thread, since a pipe cannot be waited for with a time everywhere, and a child may hold it open for ever.
    Thread(target=_read, args=(program.stdout, printed), daemon=True).start()
    try:
        text = printed.get(timeout=seconds)
        too_much = len(text) > LARGEST_OUTPUT
        code = None if too_much else program.wait(max(0.0, end - time.monotonic()))
    except (Empty, subprocess.TimeoutExpired):
        too_much, code = False, None
    if code is None:  # not waited for yet, so its number is still its own
        kill(program)
        program.wait()
        if too_much:
            return NoOutput(Text("printed more than 64 KB", "输出超过 64 KB"), transient=False)
        return NoOutput(Text(f"gave no answer in {seconds:g} s", f"在 {seconds:g} 秒内没有结果"))
    if code < 0:
        return NoOutput(Text(f"was ended by signal {-code}", f"被信号 {-code} 终止"))
    if code:
        did = Text(f"ended with exit code {code}", f"以退出码 {code} 结束")
        return NoOutput(did, transient=code in _CANNOT_BE_RUN)
    return text


def _read(pipe: IO[bytes], printed: SimpleQueue[bytes]) -> None:
    text = b""
    with pipe:
        while len(text) <= LARGEST_OUTPUT and (chunk := pipe.read(LARGEST_OUTPUT)):
            text += chunk
    printed.put(text)


def kill(program: subprocess.Popen[bytes]) -> None:
    """End a program and, on POSIX, its children, which may hold its pipes open when it has ended itself."""
    with suppress(OSError):
        if os.name == "posix":
            os.killpg(program.pid, signal.SIGKILL)
        else:
            program.kill()
