"""Ctrl-C, SIGTERM and SIGHUP end a command tidily, with a message and an exit code, without a stack trace.

Imports nothing heavy: it is the first module that a command line loads. SIGHUP, which comes when the terminal is
closed, ends a command as SIGTERM does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
if hasattr(signal, "SIGHUP"):
    _CODES[signal.SIGHUP] = 143

_asked = 0
_terminals: list[int] = []


class Ended(KeyboardInterrupt):
    """One of the signals: ends a run as Ctrl-C does, with its own exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


def end_signals() -> list[signal.Signals]:
    """Return the signals that end a command; nohup, or a shell's background job, may have one ignored."""
    return [number for number in _CODES if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Have a handler take these signals while the block runs."""
    before = {number: signal.signal(number, handler) for number in end_signals()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def exit_code(number: int) -> int:
    """Return the exit code of a command that such a signal ends."""
    return _CODES[signal.Signals(number)]


def asked() -> int:
    """Return the exit code of the signal that has come; 0 where none has."""
    return _asked


def end_at_once(code: int = 0, message: bytes = b"") -> None:
    """Have a signal end the process at once: for when nothing is under way.

    `code`: the exit code; 0 for the signal's own. `message`: written to stderr.
    """

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        _drop_closed_terminals()
        if message:
            os.write(2, message)
        os._exit(code or exit_code(number))

    _handle(end)


def end_tidily() -> None:
    """Have a signal raise `Ended` in the main thread."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        global _asked  # noqa: PLW0603  signals are the process's
        _asked = exit_code(number)
        _drop_closed_terminals()
        raise Ended(_asked)

    _handle(end)


def _handle(end: Callable[[int, FrameType | None], NoReturn]) -> None:
    if not _terminals:
        _terminals.extend(fd for fd in (1, 2) if os.isatty(fd))
    for number in end_signals():
        signal.signal(number, end)


def _drop_closed_terminals() -> None:
    """Discard what is written to a closed terminal: each write would be an error."""
    for fd in _terminals:
        if not os.isatty(fd):
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
