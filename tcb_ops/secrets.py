"""Keep secrets out of what is shown, stored and exported.

`redact`: a server's message may contain the token or the link that it was sent. It is redacted on arrival, with the
secrets that were sent, and again by names alone when it is shown.
`masked` and `find_leak`: no file of a report may contain a token, signature or key. In the operators' own texts (cells of
the list, the note) only what the scan would find is masked; what it still finds in a report is a defect of tcb-ops.
"""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from tcb_ops.i18n import Text, _
from tcb_ops.model import Secret

MASK = "•••"
"""The text that replaces a secret."""
LONGEST_TEXT = 4000
"""Characters of a text from outside that are searched; the callers show fewer."""

_RUN = 12
"""Consecutive characters of a secret that must not be shown."""
_ENCODINGS = 3
"""How often a text may have been percent-encoded."""

_NAMES = (
    r"access_token|refresh_token|verify_ticket|secret(?:_?key)?|q-signature|q-ak|x-cos-security-token"
    r"|cos_file_id|x-cos-meta-fileid|authorization|auth(?:orization)?_?code|(?<![a-z])(?:token|signature|sign)"
)
_QUOTE = r"\\*[\"']"  # escaped where JSON is a text of JSON
_NAMED = re.compile(
    rf"(?P<name>(?:{_NAMES}))(?:"
    rf"(?P<named>(?:{_QUOTE})?\s*(?:=|%3D)\s*(?:{_QUOTE})?|{_QUOTE}\s*:\s*{_QUOTE})[^\s\"'&,;<>{{}}]+"
    r"|(?P<colon>\s*:\s*)[^\s\"'&,;<>{}]{16,})",
    re.IGNORECASE,
)
_MARKED = re.compile(r"((?:ticket|token|code)(?:@|%40){3})[^\s\"'&,;<>{}]+", re.IGNORECASE)
"""How tickets, refresh tokens and codes of an authorization begin, under any name."""
_QUERY = re.compile(r"(https?://[^\s?\"'<>]+\?)[^\s\"'<>]+", re.IGNORECASE)
_HINT = re.compile(r"[=?:]|%3[Dd]|@@@|%40")

_ESCAPED = re.compile(r"(?:%|\\u00|\\x)([0-9A-Fa-f]{2})|\\([\"\\/])")
_FOLDED = str.maketrans(string.ascii_uppercase + "-_", string.ascii_lowercase + "+/")
"""Lower case, with both alphabets of Base64 as one."""


def redact(text: str, secrets: Iterable[Secret] = (), public: Iterable[str] = ()) -> str:
    """Replace secrets in a text from outside with `•••`.

    ======================================================  =======================
    in the text                                             replaced
    ======================================================  =======================
    12 or more consecutive characters of a secret           these characters
    a shorter secret, complete                              the secret
    the same percent-encoded, in Base64, in other case      likewise
    a value after `access_token=`, `"token":"` and so on    the value
    a long value after `authorization: ` and so on          the value
    what follows `ticket@@@`, `token@@@` or `code@@@`       the rest of the value
    a URL's query                                           the query
    ======================================================  =======================

    Prose such as `access_token: expired` is kept.

    Args:
        text: a server's text; the time taken grows with its length, so cut it to LONGEST_TEXT before.
        secrets: those that the server was sent, or knows.
        public: parts of secrets that are not secret, such as the path within a link.

    """
    text = redact_known(text, (secret.reveal() for secret in secrets), public)
    if not _HINT.search(text):
        return text
    text = _MARKED.sub(rf"\1{MASK}", _QUERY.sub(rf"\1{MASK}", text))
    return _NAMED.sub(lambda m: f"{m['name']}{m['named'] or m['colon']}{MASK}", text)


def redact_known(text: str, secrets: Iterable[str], public: Iterable[str] = ()) -> str:
    """Redact by the first three lines of `redact`'s table; names and the values after them are kept."""
    secrets = [secret for secret in secrets if secret]
    if not secrets:
        return text
    open_to_all = "\n".join(form for text_form in public for form in (text_form, quote(text_form))).translate(
        _FOLDED
    )
    secrets = {form for secret in secrets for form in (secret, unquote(secret))}
    haystacks = [(min(_RUN, len(secret)), _spellings(secret)) for secret in secrets]
    hidden = bytearray(len(text))
    for view, positions in _views(text):
        folded = view.translate(_FOLDED)
        for run, haystack in haystacks:
            for start in _runs(folded, haystack, run):
                if folded[start : start + run] not in open_to_all:
                    begin, end = positions[start], positions[start + run]
                    hidden[begin:end] = b"\x01" * (end - begin)
    return "".join(
        MASK if match[0][0] else text[match.start() : match.end()]
        for match in re.finditer(rb"\x01+|\x00+", hidden)
    )


def _spellings(secret: str) -> str:
    """Return every spelling of a secret except the percent-encoded one, folded.

    Base64 encodes three bytes as four characters, so a part of a secret has three spellings, by its offset. 12 bytes of
    a secret always fill 15 characters, at any offset.
    """
    written = (secret, secret.lower(), secret.upper(), quote(secret, safe=""))
    coded = {
        base64.b64encode(bytes(before) + spelling.encode("utf-8", "replace")).decode().rstrip("=")
        for spelling in written
        for before in range(3)
    }
    return "\n".join((secret, *(coded if len(secret) >= _RUN else ()))).translate(_FOLDED)


def _views(text: str) -> Iterator[tuple[str, list[int]]]:
    """Yield the text, then its forms without percent and JSON escapes, each with its characters' positions in the text."""
    positions = list(range(len(text) + 1))
    for _each in range(_ENCODINGS + 1):
        yield text, positions
        if not _ESCAPED.search(text):
            return
        parts: list[str] = []
        places: list[int] = []
        last = 0
        for match in _ESCAPED.finditer(text):
            parts += text[last : match.start()], match[2] or chr(int(match[1], 16))
            places += positions[last : match.start() + 1]
            last = match.end()
        text, positions = "".join((*parts, text[last:])), places + positions[last:]


def _runs(text: str, haystack: str, run: int) -> Iterator[int]:
    """Yield where a text has `run` characters of the haystack. Blocks of half as many are searched first, for speed."""
    block = (run + 1) // 2
    for offset in range(0, len(text) - block + 1, block):
        if text[offset : offset + block] in haystack:
            for start in range(max(0, offset - run + block), min(offset, len(text) - run) + 1):
                if text[start : start + run] in haystack:
                    yield start


CHUNK = 1 << 18
OVERLAP = 512
"""Bytes searched again with the next chunk: more than any pattern needs of a secret's beginning."""

_QUOTES = r"(?:\"|'|&#34;|&#39;|&quot;){0,2}"  # doubled in a CSV
_IS = rf"(?:=|%3D|{_QUOTES}\s*[:=]\s*{_QUOTES})"
_VALUE = r"[0-9A-Za-z_%+/.@-]{8,}"
_KINDS = (
    # The lower-case literal is searched first: this is fast, and rarely finds anything.
    ("access_token", rf"access_token{_IS}", _("an access token")),
    ("refresh_token", rf"refresh_token{_IS}", _("a refresh token")),
    ("q-signature", rf"q-signature{_IS}", _("a signature of the store")),
    ("q-ak", rf"q-ak{_IS}", _("a key id of the store")),
    ("x-cos-security-token", rf"x-cos-security-token{_IS}", _("a security token of the store")),
    # How tickets, refresh tokens and authorization codes begin.
    ("@@@", r"(?:ticket|token|code)@@@", _("a ticket or a refresh token")),
)


@cache
def _patterns() -> tuple[tuple[bytes, re.Pattern[bytes], Text], ...]:
    """Return each kind's literal and pattern, which ignores case (Access_Token occurs too)."""
    return tuple(
        (literal.encode(), re.compile(f"({name}){_VALUE}".encode(), re.IGNORECASE), kind)
        for literal, name, kind in _KINDS
    )


def masked(text: str) -> str:
    """Return a text with ••• in place of what `find_leak` would find."""
    body = text.encode("utf-8", "surrogatepass")
    small = body.lower()  # str.lower() takes five times as long
    if not (b"token" in small or b"q-" in small or b"@@@" in small):
        return text
    for literal, pattern, _kind in _patterns():
        if literal in small:
            body = pattern.sub(rb"\1" + MASK.encode(), body)
    return body.decode("utf-8", "surrogatepass")


def find_leak(file: Path) -> Text | None:
    """Return what the first secret in a file, or in a part of a workbook, is; None without one. Raises OSError.

    PDFs are not searched: they are compressed, and printed from the page.
    """
    if file.suffix == ".pdf":
        return None
    if file.suffix != ".xlsx":
        with file.open("rb") as stream:
            return _look_through(stream)
    import zipfile

    with zipfile.ZipFile(file) as parts:
        for name in parts.namelist():
            with parts.open(name) as stream:
                if (leak := _look_through(stream)) is not None:
                    return leak
    return None


def _look_through(stream: IO[bytes]) -> Text | None:
    tail = b""
    while chunk := stream.read(CHUNK):
        body = tail + chunk
        small = body.lower()
        for literal, pattern, kind in _patterns():
            if literal in small and pattern.search(body):
                return kind
        tail = body[-OVERLAP:]
    return None
