"""Where an appid's access token comes from: a file, a program, a token server, or the platform itself.

A source answers one question, `token(appid, refused)`. `refused` is the token that the platform has just refused
(40001, 40014, 42001): a source looks again and gives what it has; whether that differs is the caller's to check.
Only `component` keeps tokens on disk; none logs anything.
"""

from tcb_ops.settings import Settings
from tcb_ops.wechat.tokens.token import Token, TokenSource

__all__ = ["Token", "TokenSource", "open_source"]


def open_source(settings: Settings) -> TokenSource:
    """Make the source that the settings name. Raises SettingsError when it cannot work at all."""
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
