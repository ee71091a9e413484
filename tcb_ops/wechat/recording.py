"""A transport that keeps what was asked and answered, for `doctor`. What it keeps holds secrets: see health/redacted.py."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tcb_ops.errors import TransportError
from tcb_ops.i18n import Text
from tcb_ops.wechat.transport import Answer, Timeouts, Transport

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came of it. Its fields hold secrets but those that it shows."""

    method: str
    url: str = field(repr=False)
    sent: int
    """Bytes of the body, where they were counted."""
    began_at: float
    """Unix seconds, this machine's clock."""
    seconds: float
    status: int | None
    """None where no usable answer came; `trouble` says why."""
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    trouble: Text | None = None


class RecordingTransport(Transport):
    """Sends as any transport does, and keeps every exchange in `exchanges`: for a handful of calls."""

    def __init__(self, *, connections: int, timeouts: Timeouts) -> None:
        super().__init__(connections=connections, timeouts=timeouts)
        self.exchanges: list[Exchange] = []

    async def send(self, request: httpx.Request, *, sending: int = 0, exact_url: str | None = None) -> Answer:
        """Send, and keep what was said. Raises as `Transport.send` does."""
        began_at, began = time.time(), time.perf_counter()

        def keep(
            status: int | None,
            headers: tuple[tuple[str, str], ...] = (),
            body: bytes = b"",
            trouble: Text | None = None,
        ) -> None:
            url = exact_url or str(request.url)
            seconds = time.perf_counter() - began
            one = Exchange(
                request.method, url, sending, began_at, seconds, status, headers, body, trouble=trouble
            )
            self.exchanges.append(one)

        try:
            answer = await super().send(request, sending=sending, exact_url=exact_url)
        except TransportError as error:
            keep(None, trouble=error.text)
            raise
        keep(answer.status, tuple(answer.headers.multi_items()), answer.body)
        return answer
