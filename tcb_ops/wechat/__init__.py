"""Client code for the WeChat platform and COS: HTTP transport, interfaces, uploads, and access tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcb_ops.kinds import provided

if TYPE_CHECKING:
    from tcb_ops.settings import Settings
    from tcb_ops.wechat.tokens import TokenSource


def open_source(settings: Settings) -> TokenSource:
    """Create the token source named in the settings. Raises SettingsError if its settings are incomplete or invalid."""
    tokens = settings.tokens
    if tokens.source == "file":
        from tcb_ops.wechat.tokens.file import FileTokens

        return FileTokens(tokens.file)
    source: TokenSource = provided(tokens.source)(settings)
    return source
