"""Client code for the WeChat platform and COS: HTTP transport, interfaces, uploads, and access tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tcb_ops.kinds import provided

if TYPE_CHECKING:
    from tcb_ops.i18n import Text
    from tcb_ops.settings import Settings
    from tcb_ops.wechat.call_policy import Caller, CallLimits
    from tcb_ops.wechat.client import PlatformClient
    from tcb_ops.wechat.tokens import TokenSource
    from tcb_ops.wechat.transport import Timeouts

__all__ = ["open_client", "open_source"]


@asynccontextmanager
async def open_client(
    settings: Settings,
    *,
    connections: int = 1,
    limits: CallLimits | None = None,
    timeouts: Timeouts | None = None,
    notify: Callable[[Text], None] = lambda _: None,
) -> AsyncIterator[tuple[PlatformClient, Caller]]:
    """Open a client for single calls, and what makes them; `notify`: called for a pause that the platform asks for."""
    from tcb_ops.wechat.call_policy import Caller, CallLimits
    from tcb_ops.wechat.client import PlatformClient
    from tcb_ops.wechat.transport import STANDARD, Transport

    source = open_source(settings)
    try:
        async with Transport(connections=connections, timeouts=timeouts or STANDARD) as transport:
            client = PlatformClient(transport, settings.api_base, store_hosts=settings.store_hosts)
            yield client, Caller(source, limits or CallLimits(), notify=notify)
    finally:
        await source.aclose()


def open_source(settings: Settings) -> TokenSource:
    """Create the token source named in the settings. Raises SettingsError if its settings are incomplete or invalid."""
    tokens = settings.tokens
    if tokens.source == "file":
        from tcb_ops.wechat.tokens.file import FileTokens

        return FileTokens(tokens.file)
    source: TokenSource = provided(tokens.source)(settings)
    return source
