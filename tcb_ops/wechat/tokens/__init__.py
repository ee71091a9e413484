"""Where an appid's access token comes from: a file, a program, a token server, or the platform itself.

A source answers one question, `token(appid, refused)`. `refused` is the token that the platform has just refused
(40001, 40014, 42001): a source looks again, and gives what it has; whether that differs is the caller's to see.
Only `component` keeps tokens on disk; none logs anything.
"""

from tcb_ops.wechat.tokens.source import open_source
from tcb_ops.wechat.tokens.token import Token, TokenSource

__all__ = ["Token", "TokenSource", "open_source"]
