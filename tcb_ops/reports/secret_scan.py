"""No token, signature or key may be in any file of a report.

Texts of servers are redacted before they are kept (secrets.py). In the operators' own texts (cells of the list, the note)
only what this scan would find is masked; what it still finds in a report is a defect of tcb-ops.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tcb_ops.i18n import Text
from tcb_ops.secrets import MASK

CHUNK = 1 << 20
OVERLAP = 512
"""Bytes looked at again with the next chunk: more than the beginning of any secret that a pattern needs."""

_QUOTES = r"(?:\"|'|&#34;|&#39;|&quot;){0,2}"  # twice in a CSV
_IS = rf"(?:=|%3D|{_QUOTES}\s*[:=]\s*{_QUOTES})"
_VALUE = r"[0-9A-Za-z_%+/.@-]{8,}"
_KINDS = (
    # The literal, in small letters, is looked for first: it is quick, and hardly ever there.
    ("access_token", rf"access_token{_IS}", Text("an access token", "访问令牌（access_token）")),
    ("refresh_token", rf"refresh_token{_IS}", Text("a refresh token", "刷新令牌（refresh_token）")),
    ("q-signature", rf"q-signature{_IS}", Text("a signature of the store", "存储签名（q-signature）")),
    ("q-ak", rf"q-ak{_IS}", Text("a key id of the store", "存储密钥 ID（q-ak）")),
    (
        "x-cos-security-token",
        rf"x-cos-security-token{_IS}",
        Text("a security token of the store", "存储临时令牌（x-cos-security-token）"),
    ),
    # domain.md §2: what tickets, refresh tokens and authorization codes begin with.
    ("@@@", r"(?:ticket|token|code)@@@", Text("a ticket or a refresh token", "票据或刷新令牌")),
)
# People and programs write Access_Token too; of ASCII alone, so that bytes and texts are read alike.
_PATTERNS = tuple(
    (literal.encode(), re.compile((name + _VALUE).encode(), re.IGNORECASE), kind)
    for literal, name, kind in _KINDS
)
_MASKED = tuple(
    (literal.encode(), re.compile(rf"({name}){_VALUE}", re.IGNORECASE | re.ASCII))
    for literal, name, _ in _KINDS
)


@dataclass(frozen=True, slots=True)
class Leak:
    """A secret in a file; what it is, never the secret itself."""

    kind: Text
    line: int
    """Its line, by line feeds from 1; within a workbook, of one of its parts."""


def masked(text: str) -> str:
    """A text with ••• for what `find_leak` would find."""
    small = text.encode("utf-8", "surrogatepass").lower()  # a text's own lower() takes five times as long
    if b"token" in small or b"q-" in small or b"@@@" in small:
        for literal, pattern in _MASKED:
            if literal in small:
                text = pattern.sub(rf"\1{MASK}", text)
    return text


def find_leak(file: Path) -> Leak | None:
    """Look through a file, or the parts of a workbook; gives the first secret. Raises OSError.

    A PDF is printed from the page and compressed; it is not looked into.
    """
    if file.suffix == ".xlsx":
        with zipfile.ZipFile(file) as parts:
            for name in parts.namelist():
                with parts.open(name) as stream:
                    if leak := _look_through(stream):
                        return leak
        return None
    if file.suffix == ".pdf":
        return None
    with file.open("rb") as stream:
        return _look_through(stream)


def _look_through(stream: IO[bytes]) -> Leak | None:
    tail, lines = b"", 1
    while chunk := stream.read(CHUNK):
        body = tail + chunk
        small = body.lower()
        for literal, pattern, kind in _PATTERNS:
            if literal in small and (found := pattern.search(body)):
                return Leak(kind, lines + body.count(b"\n", 0, found.start()))
        tail = body[-OVERLAP:]
        lines += body.count(b"\n", 0, len(body) - len(tail))
    return None
