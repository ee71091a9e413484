"""What a panel says, and how it works without ever falling silent.

A button's callback may run on any thread, and an exception in it would be seen by nobody. So everything that a click
sets off runs through a `Worker`: trouble is said in words, a defect's trace goes to the log.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

import ipywidgets as widgets

from tcb_ops.errors import TcbOpsError
from tcb_ops.i18n import Lang, Text
from tcb_ops.panels.html import said
from tcb_ops.panels.naming import beyond, here

_LOG = logging.getLogger("tcb_ops.panels")


class Worker:
    """A panel's status line, and the one thread that does what its buttons ask for."""

    def __init__(self, lang: Lang, out: Text | None = None) -> None:
        """`out`: what the panel calls the command line's `--out`; None where it has nothing like it."""
        self.lang, self._out = lang, out
        self.line = widgets.HTML()
        self.line.add_class("op-status")
        self.tells: Callable[[], None] = lambda: None
        """Called when work begins or ends: buttons are armed by it."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._newest: threading.Thread | None = None
        """The same, until it has told its end as well."""
        self._next: Callable[[], None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something that a button asked for is going on."""
        return self._thread is not None

    def say(self, text: Text, tone: str = "") -> None:
        """Show a sentence; `tone` is "", good or bad."""
        named = self.here(text)
        more = beyond([named])
        sentences = [named, more] if more is not None else [named]
        self.line.value = said("\n".join(sentence.of(self.lang) for sentence in sentences), tone)

    def here(self, text: Text) -> Text:
        """Call what a sentence names by the command line's options what it is called in this panel."""
        return here(text, self._out)

    def trouble(self, error: Exception) -> None:
        """Show what went wrong, in words."""
        if isinstance(error, TcbOpsError):
            self.say(error.text, "bad")
            return
        _LOG.error("a defect in a panel", exc_info=error)
        what = type(error).__name__
        self.say(
            Text(
                f"A defect in tcb-ops ({what}); the log has its trace. What the ledger holds is safe.",
                f"tcb-ops 内部缺陷（{what}），详情见日志。台账中的内容是安全的。",
            ),
            "bad",
        )

    def guarded(self, what: Callable[[], None]) -> bool:
        """Do something at once; gives whether it went well."""
        try:
            what()
        except Exception as error:  # noqa: BLE001  the last place where it can be said
            self.trouble(error)
            return False
        return True

    def start(self, what: Callable[[], None], *, waits: bool = False) -> None:
        """Do something in the background; one thing at a time.

        While another thing is going on, it is declined, or done next if it `waits`; of several that wait the last is done.
        """
        with self._lock:
            if self._thread is not None:
                if waits:
                    self._next = what
                else:
                    self.say(
                        Text("Still busy with the step before; wait a moment.", "上一步还在进行，请稍候。")
                    )
                return
            self._thread = threading.Thread(target=partial(self._do, what), name="tcb-ops-panel", daemon=True)
            thread = self._newest = self._thread
        self.guarded(self.tells)
        thread.start()

    def settle(self, seconds: float = 600) -> None:
        """Wait until nothing is going on, and the buttons say so."""
        thread = self._newest
        if thread is not None:
            thread.join(seconds)

    def _do(self, what: Callable[[], None]) -> None:
        doing: Callable[[], None] | None = what
        while doing is not None:
            self.guarded(doing)
            with self._lock:
                doing, self._next = self._next, None
                if doing is None:
                    self._thread = None
        self.guarded(self.tells)
