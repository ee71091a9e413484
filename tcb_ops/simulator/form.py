"""The multipart form of a POST Object, read as it streams in: never more than a chunk of the file in memory."""

from __future__ import annotations

import re
from collections.abc import Callable

HEAD_LIMIT = 64 * 1024
"""Bytes that one part's head, or one field, may have: a key has 850, a token some 1,000."""

_NAME = re.compile(rb'^content-disposition:[^\r\n]*?;[ \t]*name="([^"\r\n]*)"', re.IGNORECASE | re.MULTILINE)
_BOUNDARY = re.compile(r'^multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary of a `multipart/form-data` content type, or None for any other."""
    found = _BOUNDARY.match(content_type)
    return (found[1] or found[2]).encode() if found else None


class Form:
    """Fed with the chunks of a body, it gives back the file's bytes and keeps the fields.

    `broken` says in a word what is wrong with the form; a broken form swallows what still comes.
    """

    def __init__(self, boundary: bytes) -> None:
        self.fields: dict[str, str] = {}
        """By lower-case name, in the order in which they came."""
        self.files = 0
        self.size = 0
        """Bytes of the file so far."""
        self.field_after_file = False
        self.broken = ""
        self._delimiter = b"\r\n--" + boundary
        # A line break before the body lets the first boundary look like every other.
        self._buffer = bytearray(b"\r\n")
        self._next: Callable[[Form, bytearray], bool] | None = Form._preamble
        """Reads on, False when more bytes are needed; None behind the closing boundary."""
        self._name = ""

    @property
    def complete(self) -> bool:
        """Whether the closing boundary has been seen."""
        return self._next is None and not self.broken

    def feed(self, chunk: bytes) -> bytes:
        """Take the next chunk of the body; return the bytes of the file that are certain by now."""
        file = bytearray()
        if not self.broken and self._next is not None:
            self._buffer += chunk
        while not self.broken and self._next is not None and self._next(self, file):
            pass
        self.size += len(file)
        return bytes(file)

    def _preamble(self, _file: bytearray) -> bool:
        return self._to_boundary() is not None

    def _to_boundary(self) -> bytes | None:
        place = self._buffer.find(self._delimiter)
        if place < 0:
            if len(self._buffer) > HEAD_LIMIT:
                self.broken = "field too long"
            return None
        before = bytes(self._buffer[:place])
        del self._buffer[: place + len(self._delimiter)]
        self._next = Form._after_boundary
        return before

    def _after_boundary(self, _file: bytearray) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer.startswith(b"--"):
            self._next = None
        elif self._buffer.startswith(b"\r\n"):
            # The line break stays: a part without headers has its blank line right there.
            self._next = Form._head
        else:
            self.broken = "boundary without a line break"
        return True

    def _head(self, _file: bytearray) -> bool:
        place = self._buffer.find(b"\r\n\r\n")
        if place < 0:
            if len(self._buffer) > HEAD_LIMIT:
                self.broken = "part head too long"
            return False
        found = _NAME.search(bytes(self._buffer[2 : place + 2]))
        del self._buffer[: place + 4]
        if not found:
            self.broken = "part without a name"
            return False
        self._name = found[1].decode("utf-8", "replace").lower()
        if self._name == "file":
            self.files += 1
            self._next = Form._content
        else:
            self.field_after_file = self.field_after_file or self.files > 0
            self._next = Form._field
        return True

    def _field(self, _file: bytearray) -> bool:
        value = self._to_boundary()
        if value is None:
            return False
        try:
            text = value.decode()
        except UnicodeDecodeError:
            self.broken = "field is not UTF-8"
            return False
        if self._name in self.fields:
            self.broken = "field given twice"
        self.fields.setdefault(self._name, text)
        return True

    def _content(self, file: bytearray) -> bool:
        place = self._buffer.find(self._delimiter)
        if place >= 0:
            file += self._buffer[:place]
            del self._buffer[: place + len(self._delimiter)]
            self._next = Form._after_boundary
            return True
        certain = len(self._buffer) - len(self._delimiter) + 1
        if certain > 0:
            file += self._buffer[:certain]
            del self._buffer[:certain]
        return False
