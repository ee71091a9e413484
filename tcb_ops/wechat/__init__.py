"""The platform's interfaces, the store, tokens, and the HTTP transport."""

from __future__ import annotations

from tcb_ops.settings import Settings
from tcb_ops.wechat.tokens import TokenSource

__all__ = ["open_source"]


def open_source(settings: Settings) -> TokenSource:
    """Make the source of tokens that the settings name. Raises SettingsError when it cannot work at all."""
    tokens = settings.tokens
    match tokens.source:
        case "command":
            from tcb_ops.wechat.tokens.command import CommandTokens

            return CommandTokens(tokens.command)
        case "service":
            from tcb_ops.wechat.tokens.service import ServiceTokens

            return ServiceTokens.of(tokens)
        case "component":
            from tcb_ops.wechat.tokens.component import ComponentTokens

            return ComponentTokens.of(tokens, settings.api_base)
        case "file":
            from tcb_ops.wechat.tokens.file import FileTokens

            return FileTokens(tokens.file)
