"""Ctrl-C, SIGTERM and SIGHUP end a command with a message and an exit code, without a stack trace.

Imports nothing heavy: it is the first module that a command line loads. SIGHUP, sent when the terminal is closed, ends a
command like SIGTERM; on Windows, SIGBREAK is sent for it.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import CodeType, FrameType
from typing import NoReturn

NOTHING_STARTED = "tcb-ops: Interrupted; nothing was started. 已中断；尚未开始。\n".encode()
"""Written by a command that a signal ends while it starts."""
_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_CODES |= {getattr(signal, name): 143 for name in ("SIGHUP", "SIGBREAK") if hasattr(signal, name)}

_asked = 0
_terminals: list[int] = []


class Ended(KeyboardInterrupt):
    """A signal as an exception: ends a run like Ctrl-C, with its own exit code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.exit_code = number, exit_code(number)


def end_signals() -> list[signal.Signals]:
    """Return the signals that end a command, except ignored ones (nohup, a shell's background job)."""
    return [number for number in _CODES if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Use a handler for these signals within the block."""
    before = {number: signal.signal(number, handler) for number in end_signals()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in a block that blocks an event loop: the loop's own handler cannot act there.

    A Ctrl-C that is ignored stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not (main and callable(before) and _in_event_loop()):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def exit_code(number: int) -> int:
    """Return the exit code of a command that a signal ends."""
    return _CODES[signal.Signals(number)]


def asked() -> int:
    """Return the exit code of the signal received; 0 without one."""
    return _asked


def raise_if_asked() -> None:
    """Raise KeyboardInterrupt if a signal was received: whoever caught its exception may not have ended the command."""
    if _asked:
        raise KeyboardInterrupt


def end_at_once(code: int = 0, message: bytes = b"") -> None:
    """Let a signal end the process immediately, for when nothing is under way.

    `code`: the exit code; 0 for the signal's own. `message`: written to stderr.
    """

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        _drop_closed_terminals()
        if message:
            with suppress(OSError):
                os.write(2, message)
        os._exit(code or exit_code(number))

    _handle(end)


def end_tidily() -> None:
    """Let a signal raise `Ended` in the main thread."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        global _asked  # noqa: PLW0603  signals are per process
        _asked = exit_code(number)
        _drop_closed_terminals()
        raise Ended(number)

    _handle(end)
    sys.unraisablehook = _send_again


def _send_again(lost: sys.UnraisableHookArgs) -> None:
    """Send a signal again whose exception was lost, raised where Python only reports exceptions, as in a weak reference's callback."""
    if isinstance(lost.exc_value, Ended):
        # By another thread: an exception raised before this function has returned would be lost, too.
        threading.Thread(target=_send_later, args=(lost.exc_value.number,), daemon=True).start()
    else:
        sys.__unraisablehook__(lost)


def _send_later(number: int) -> None:
    main = threading.main_thread().ident
    assert main is not None  # noqa: S101  it runs
    while _is_running(_send_again.__code__, sys._current_frames()[main]):  # noqa: SLF001  documented, nothing else tells
        time.sleep(0.001)
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:
        signal.pthread_kill(main, number)  # also wakes it from a wait


def _is_running(code: CodeType, frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _handle(end: Callable[[int, FrameType | None], NoReturn]) -> None:
    if not _terminals:
        _terminals.extend(fd for fd in (1, 2) if os.isatty(fd))
    for number in end_signals():
        signal.signal(number, end)


def _drop_closed_terminals() -> None:
    """Redirect closed terminals to the null device: each write to them would fail."""
    for fd in _terminals:
        if not os.isatty(fd):
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
