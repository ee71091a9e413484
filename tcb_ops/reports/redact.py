"""Secrets out of texts from outside: a server's message may echo the token or the link that it got. Pure."""

from __future__ import annotations

import re

__all__ = ["redact"]

_NAMES = (
    r"\w*access_token|\w*refresh_token|\w*verify_ticket|\w*secret(?:_?key)?|q-signature|q-ak|x-cos-security-token"
    r"|cos_file_id|x-cos-meta-fileid|authorization|(?<![a-z])(?:token|signature|sign)"
)
_SECRET = re.compile(
    rf"(?P<name>(?:{_NAMES}))(?:"
    r"(?P<told>[\"']?\s*(?:=|%3D)\s*[\"']?|[\"']\s*:\s*[\"'])[^\s\"'&,;<>{}]+"
    r"|(?P<maybe>\s*:\s*)[^\s\"'&,;<>{}]{16,})",
    re.IGNORECASE,
)
_QUERY = re.compile(r"(https?://[^\s?\"'<>]+\?)[^\s\"'<>]+", re.IGNORECASE)
_HINT = re.compile(r"[=?:]|%3[Dd]")


def redact(text: str) -> str:
    """Take tokens, signatures and URL queries out of a text from outside: a server's message may echo what it got.

    A value after `name=`, `"name":"` or a long one after `name: ` goes; prose such as `access_token: expired` stays.
    """
    if not _HINT.search(text):
        return text
    text = _QUERY.sub(r"\1•••", text)
    return _SECRET.sub(lambda m: f"{m['name']}{m['told'] or m['maybe']}•••", text)
