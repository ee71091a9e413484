"""A simulator that stops to answer at a certain call, so that a run can be killed there."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

from rigged_simulator import Simulator

from tcb_ops.features.simulator.faults import Reset
from tcb_ops.features.simulator.state import Request, Response


@dataclass(frozen=True)
class Kill:
    """When a run is killed: at a call, before or after it is carried out."""

    calls: int
    carried_out: bool


class CutOff(Simulator):
    """A simulator that leaves one call, and all that come after it, without an answer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.reached = threading.Event()
        self._cut: Kill | None = None
        self._calls = 0
        self._released = asyncio.Event()

    def cut(self, kill: Kill) -> None:
        """Answer so many calls, and the next only when `release` is called: by breaking its connection."""
        self.reached.clear()
        self._calls, self._released, self._cut = 0, asyncio.Event(), kill

    def release(self) -> None:
        self._cut = None
        self.reached.clear()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._released.set)

    async def handle(self, request: Request) -> Response:
        kill, released = self._cut, self._released
        self._calls += 1
        if kill is None or self._calls <= kill.calls:
            return await super().handle(request)
        if self._calls == kill.calls + 1 and kill.carried_out:
            await super().handle(request)
        self.reached.set()
        await released.wait()
        return Response(reset=Reset.BEFORE)
