"""A part of a workbook written anew: byte for byte as it was, but for the places that are changed.

What nobody here understands (charts, validations, a later Excel's inventions) stays exactly as it stands.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from tcb_ops.lists.package import new_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Rewriting", "as_text", "replaced"]

_TAG = re.compile(rb"<[^>\"']*(?:\"[^\"]*\"[^>\"']*|'[^']*'[^>\"']*)*>")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f]")
_ESCAPED = re.compile("_(?=x[0-9A-Fa-f]{4}_)")
_NOT_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
_MOST_HELD = 16 << 20
"""Bytes of what is left out, or of a tag. The longest is what says how wide the columns are: 16,384 short tags."""
_UTF8 = {"utf-8", "utf8", "us-ascii"}


class Rewriting:
    """Handlers that copy a part through. A subclass looks at elements in `start` and `end`, and changes what it means to."""

    def __init__(self) -> None:
        self._parser = new_parser(self.start, self.end)
        self._parser.XmlDeclHandler = _only_utf8
        self._held = bytearray()
        self._at = 0
        """Where in the part the held bytes begin."""
        self._edits: list[tuple[int, int, bytes]] = []
        """(from, to, what stands there instead), by place."""
        self._cut: int | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        raise NotImplementedError

    def end(self, name: str) -> None:
        """An element ends."""
        raise NotImplementedError

    def passing(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Give the part's pieces on, changed. ValueError where it is not in UTF-8."""
        for chunk in chunks:
            self._held += chunk
            if len(self._held) > _MOST_HELD:
                raise ValueError
            self._parser.Parse(chunk, False)  # noqa: FBT003  expat takes it by position only
            yield self._ready(self._parser.CurrentByteIndex)
        self._parser.Parse(b"", True)  # noqa: FBT003  as above
        yield self._ready(self._at + len(self._held))

    # --- for handlers -------------------------------------------------------------------------------------------

    def tag(self) -> bytes:
        """The tag that the handler is called for, as it stands."""
        found = _TAG.match(self._held, self._parser.CurrentByteIndex - self._at)
        if found is None:
            raise ValueError
        return found[0]

    def change_tag(self, tag: bytes) -> None:
        """Have another tag stand there."""
        place = self._parser.CurrentByteIndex
        self._edits.append((place, place + len(self.tag()), tag))

    def insert(self, text: str) -> None:
        """Have something stand before the tag."""
        place = self._parser.CurrentByteIndex
        self._edits.append((place, place, text.encode()))

    def cut_from_here(self) -> None:
        """Leave out what stands from this tag on."""
        self._cut = self._parser.CurrentByteIndex

    def cut_so_far(self) -> str:
        """What is being left out, up to this end of an element and with it."""
        begin = (self._cut or 0) - self._at
        return self._held[begin : self._element_end() - self._at].decode()

    def cut_to_here(self, instead: str = "") -> None:
        """Leave out what stands up to this end of an element, which is left out too."""
        if self._cut is not None:
            self._edits.append((self._cut, self._element_end(), instead.encode()))
            self._cut = None

    def _element_end(self) -> int:
        place = self._parser.CurrentByteIndex
        # Of <c/> expat says where it ends, of </c> where it begins.
        return place + len(self.tag()) if self._held.startswith(b"</", place - self._at) else place

    # --- the bytes ----------------------------------------------------------------------------------------------

    def _ready(self, until: int) -> bytes:
        """What is decided of the held bytes; the rest is held on."""
        if self._cut is not None:
            until = min(until, self._cut)
        out = bytearray()
        at = self._at
        done = 0
        for begin, end, instead in self._edits:
            if end > until:
                until = min(until, begin)
                break
            out += self._held[at - self._at : begin - self._at] + instead
            at = end
            done += 1
        until = max(until, at)
        out += self._held[at - self._at : until - self._at]
        del self._held[: until - self._at]
        del self._edits[:done]
        self._at = until
        return bytes(out)


def replaced(tag: bytes, attribute: str, value: str) -> bytes:
    """A tag with another value of an attribute that it has; unchanged where it has none."""
    found = re.search(rb"(?<=\s)" + attribute.encode() + rb"\s*=\s*(\"[^\"]*\"|'[^']*')", tag)
    if found is None:
        return tag
    return tag[: found.start(1)] + quoteattr(value).encode() + tag[found.end(1) :]


def as_text(text: str) -> str:
    """A text as it stands between tags of a workbook: what XML cannot hold is written as _x0001_ (ECMA-376 22.9.2.19)."""
    if not text.isascii():
        text = _NOT_XML.sub("\ufffd", text)
    text = _ESCAPED.sub("_x005F_", text)
    return escape(_CONTROL.sub(lambda found: f"_x{ord(found[0]):04X}_", text))


def _only_utf8(_version: str, encoding: str | None, _standalone: int) -> None:
    if encoding is not None and encoding.lower() not in _UTF8:
        raise ValueError(encoding)
