"""Client code for the WeChat platform and COS: HTTP transport, interfaces, uploads, and access tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcb_ops.settings import Settings
    from tcb_ops.wechat.tokens import TokenSource

__all__ = ["open_source"]


def open_source(settings: Settings) -> TokenSource:
    """Create the token source named in the settings. Raises SettingsError if its settings are incomplete or invalid."""
    tokens = settings.tokens
    match tokens.source:
        case "command":
            from tcb_ops.wechat.tokens.command import CommandTokens

            return CommandTokens(tokens.command)
        case "service":
            from tcb_ops.wechat.tokens.service import ServiceTokens

            return ServiceTokens.of(tokens)
        case "component":
            from tcb_ops.features.component.source import ComponentTokens

            return ComponentTokens.of(tokens, settings.api_base)
        case "file":
            from tcb_ops.wechat.tokens.file import FileTokens

            return FileTokens(tokens.file)
