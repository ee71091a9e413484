"""Watch a notebook being executed: report its cells, and pass Ctrl-C, SIGTERM and SIGHUP on to its kernel."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from nbclient import NotebookClient

from tcb_ops.signals import end_signals, exit_code

if TYPE_CHECKING:
    from nbformat import NotebookNode

REMIND_AFTER, KILL_AFTER = 10.0, 30.0
"""Seconds after an interrupt: the kernel may have missed the first (it was between two cells), or hang."""


class Interrupted(Exception):  # noqa: N818  not an error
    """Asked to end while no cell was running."""


class ExecutionMonitor:
    """Reports the cells, and passes Ctrl-C, SIGTERM and SIGHUP on to the kernel, so that its run ends tidily."""

    def __init__(self, progress: Callable[[int, int, str], None]) -> None:
        self._progress = progress
        self._client: NotebookClient | None = None
        self._running = False
        self.content: NotebookNode | None = None
        self.exit_code = 0
        """130 or 143, once asked to end."""

    @contextmanager
    def over(self, client: NotebookClient) -> Iterator[None]:
        """Take the signals while this client works."""
        self._client, self.content = client, client.nb
        if threading.current_thread() is not threading.main_thread():  # signals are for the main thread alone
            yield
            return
        before = {number: signal.signal(number, self._signalled) for number in end_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def cell_begins(self, cell: NotebookNode, cell_index: int) -> None:
        """Report which cell comes; end here if a signal came while no cell was running."""
        if self.exit_code:
            raise Interrupted
        cells = [] if self.content is None else self.content.cells
        code = [index for index, other in enumerate(cells) if is_shown(other)]
        if cell_index in code:
            number = code.index(cell_index) + 1
            self._progress(number, len(code), cell_name(cell, number))

    def cell_runs(self, **_cell: Any) -> None:
        """Hand interrupts to the kernel from here on; one that has come since `cell_begins` ends the notebook here."""
        self._running = True
        if self.exit_code:
            raise Interrupted

    def cell_is_done(self, **_cell: Any) -> None:
        """Take note that the kernel is idle again."""
        self._running = False

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        again, self.exit_code = bool(self.exit_code), exit_code(number)
        if again:
            self._kernel("kill")
        elif self._running:
            self._kernel("interrupt")
            for seconds, act in ((REMIND_AFTER, "interrupt"), (KILL_AFTER, "kill")):
                timer = threading.Timer(seconds, self._kernel, (act,))
                timer.daemon = True
                timer.start()

    def _kernel(self, act: str) -> None:
        process = getattr(getattr(getattr(self._client, "km", None), "provisioner", None), "process", None)
        if process is None or process.poll() is not None:
            return
        if act == "kill":
            process.kill()
        elif self._running:
            process.send_signal(signal.SIGINT)


def is_shown(cell: NotebookNode) -> bool:
    """Whether it is one of the notebook's own code cells."""
    return cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", ())


def cell_name(cell: NotebookNode, number: int) -> str:
    """Return a cell's name: its first line, where that is a comment; else its number among the code cells."""
    first = cell.source.lstrip().partition("\n")[0]
    return first.lstrip("# ").rstrip() if first.startswith("#") else f"[{number}]"
