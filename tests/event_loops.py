"""A fresh event loop per test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from scripted import Run


@pytest.fixture
def loop() -> str:
    """Which event loop; a module in which the loop matters has this fixture with both."""
    return "asyncio"


@pytest.fixture
def run(loop: str) -> Run:
    """Run a coroutine in a fresh loop, in debug mode where asyncio would complain; hung is failed."""

    def in_loop(work: Coroutine[Any, Any, Any]) -> Any:
        factory = None
        if loop == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(debug=True, loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(work, 240))

    return in_loop
