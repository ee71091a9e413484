"""The last look at a report before it is finished: no token, signature or key may be in any of its files.

Texts from outside have lost theirs by then (redact.py). What is found here came another way: in a cell of the list, in
the note, or through a mistake of ours.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from tcb_ops.model import Text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Leak", "find_leak"]

CHUNK = 1 << 20
OVERLAP = 512
"""Bytes looked at again with the next chunk: more than the beginning of any secret that a pattern needs."""

_QUOTES = rb"(?:\"|'|&#34;|&#39;|&quot;){0,2}"  # twice in a CSV
_IS = rb"(?:=|%3D|" + _QUOTES + rb"\s*[:=]\s*" + _QUOTES + rb")"
_VALUE = rb"[0-9A-Za-z_%+/.@-]{8}"
_KINDS = (
    # The literal is looked for first: it is quick, and hardly ever there.
    (b"access_token", rb"access_token" + _IS + _VALUE, Text("an access token", "访问令牌（access_token）")),
    (
        b"refresh_token",
        rb"refresh_token" + _IS + _VALUE,
        Text("a refresh token", "刷新令牌（refresh_token）"),
    ),
    (
        b"q-signature",
        rb"q-signature" + _IS + _VALUE,
        Text("a signature of the store", "存储签名（q-signature）"),
    ),
    (b"q-ak", rb"q-ak" + _IS + _VALUE, Text("a key id of the store", "存储密钥 ID（q-ak）")),
    (
        b"x-cos-security-token",
        rb"x-cos-security-token" + _IS + _VALUE,
        Text("a security token of the store", "存储临时令牌（x-cos-security-token）"),
    ),
    # domain.md §2: what tickets, refresh tokens and authorization codes begin with.
    (b"@@@", rb"(?:ticket|token|code)@@@[\w-]{8}", Text("a ticket or a refresh token", "票据或刷新令牌")),
)
_PATTERNS = tuple((literal, re.compile(pattern), kind) for literal, pattern, kind in _KINDS)


@dataclass(frozen=True, slots=True)
class Leak:
    """A secret in a file; what it is, never the secret itself."""

    kind: Text
    line: int
    """Where it stands, by line feeds from 1; within a workbook, of one of its parts."""


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
        for literal, pattern, kind in _PATTERNS:
            if literal in body and (found := pattern.search(body)):
                return Leak(kind, lines + body.count(b"\n", 0, found.start()))
        tail = body[-OVERLAP:]
        lines += body.count(b"\n", 0, len(body) - len(tail))
    return None
