"""The multipart form of a POST Object, read as it streams in: never more than a chunk of the file in memory."""

from __future__ import annotations

import re
from enum import Enum, auto

HEAD_LIMIT = 64 * 1024
"""Bytes that one part's head, or one field, may have: a key has 850, a token some 1,000."""

_NAME = re.compile(rb'^content-disposition:[^\r\n]*?;[ \t]*name="([^"\r\n]*)"', re.IGNORECASE | re.MULTILINE)
_BOUNDARY = re.compile(r'^multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)


def boundary_of(content_type: str) -> bytes | None:
    """Give the boundary of a `multipart/form-data` content type, or None for any other."""
    found = _BOUNDARY.match(content_type)
    return (found[1] or found[2]).encode() if found else None


class _At(Enum):
    START = auto()
    BOUNDARY = auto()
    HEAD = auto()
    FIELD = auto()
    FILE = auto()
    END = auto()


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
        self._at = _At.START
        self._name = ""

    @property
    def complete(self) -> bool:
        """Whether the closing boundary has been seen."""
        return self._at is _At.END and not self.broken

    def feed(self, chunk: bytes) -> bytes:
        """Take the next chunk of the body; give the bytes of the file that are certain by now."""
        if self.broken or self._at is _At.END:
            return b""
        self._buffer += chunk
        file = bytearray()
        while not self.broken and self._step(file):
            pass
        self.size += len(file)
        return bytes(file)

    def _step(self, file: bytearray) -> bool:
        """Go one step on; False when more bytes are needed."""
        match self._at:
            case _At.START:
                return self._to_boundary() is not None
            case _At.BOUNDARY:
                return self._after_boundary()
            case _At.HEAD:
                return self._head()
            case _At.FIELD:
                value = self._to_boundary()
                if value is not None:
                    self._keep(value)
                return value is not None
            case _At.FILE:
                return self._file(file)
            case _At.END:
                return False

    def _to_boundary(self) -> bytes | None:
        place = self._buffer.find(self._delimiter)
        if place < 0:
            if len(self._buffer) > HEAD_LIMIT:
                self.broken = "field too long"
            return None
        before = bytes(self._buffer[:place])
        del self._buffer[: place + len(self._delimiter)]
        self._at = _At.BOUNDARY
        return before

    def _after_boundary(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer.startswith(b"--"):
            self._at = _At.END
        elif self._buffer.startswith(b"\r\n"):
            self._at = _At.HEAD
        else:
            self.broken = "boundary without a line break"
        # The line break stays: a part without headers has its blank line right there.
        return self._at is _At.HEAD

    def _head(self) -> bool:
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
            self._at = _At.FILE
        else:
            self.field_after_file = self.field_after_file or self.files > 0
            self._at = _At.FIELD
        return True

    def _keep(self, value: bytes) -> None:
        if self._name in self.fields:
            self.broken = "field given twice"
            return
        try:
            self.fields[self._name] = value.decode()
        except UnicodeDecodeError:
            self.broken = "field is not UTF-8"

    def _file(self, file: bytearray) -> bool:
        place = self._buffer.find(self._delimiter)
        if place >= 0:
            file += self._buffer[:place]
            del self._buffer[: place + len(self._delimiter)]
            self._at = _At.BOUNDARY
            return True
        certain = len(self._buffer) - len(self._delimiter) + 1
        if certain > 0:
            file += self._buffer[:certain]
            del self._buffer[:certain]
        return False
