"""Workbooks. Here: the container, a zip of XML parts, read as a stream and within limits, since it is not trusted.

A copy of it, with some parts changed, is byte for byte the same elsewhere.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import BinaryIO, TypeAlias
from xml.parsers import expat

from tcb_ops.errors import BrokenTableError
from tcb_ops.formatting import shown
from tcb_ops.i18n import _
from tcb_ops.model import Problem, file_problem

_CHUNK = 1 << 14
"""Bytes parsed at once. 30 bytes of a sheet can produce a row of 16,384 cells (128 KB)."""
_LARGEST = 1 << 30
"""Maximum bytes of an unpacked part. A full sheet of 1,048,576 rows and five columns has about 300 MB."""
_LARGEST_SMALL = 32 << 20
"""Maximum bytes of a part that lists sheets, relations or styles."""
_PLAUSIBLE = 16 << 20
_RATIO = 200
"""The maximum compression ratio of a part over _PLAUSIBLE bytes: sheets of one repeated row reach 100."""
_LONGEST_TAG = 1 << 20
"""expat keeps a whole tag in memory; a cell's has about 30 bytes."""
_DEEPEST = 256
"""Maximum nesting: expat and the handlers keep each open element. A sheet's cells are seven levels deep."""
_MOST_NAMES = 10_000
"""Maximum names of elements and attributes in a part: a parser keeps each. A sheet has about 200."""
_MOST_PARTS = 100_000
_LARGEST_DIRECTORY = 16 << 20
"""Maximum bytes of the zip directory, which zipfile reads at once."""
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""The methods that ECMA-376 part 2, annex B allows. zipfile unpacks others without a memory limit."""

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PASSWORD = "EncryptedPackage".encode("utf-16-le")
"""The stream of an OLE container with an encrypted workbook ([MS-OFFCRYPTO] 2.3.4.4)."""

_UNREADABLE = (
    expat.ExpatError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    NotImplementedError,
)

_Attributes: TypeAlias = dict[str, str]


class _LimitExceededError(Exception):
    """The part has more data than any list can have."""


Change: TypeAlias = "Callable[[Iterator[bytes]], Iterator[bytes]]"
"""A function from the chunks of a part to the chunks of its replacement."""


def local(name: str) -> str:
    """Return an element's name without its namespace prefix, which depends on the writing program."""
    return name.rpartition(":")[2]


class Package:
    """The parts of an open workbook. Raises BrokenTableError if the file is not a readable workbook."""

    def __init__(self, raw: BinaryIO) -> None:
        raw.seek(0)
        if raw.read(8) == _OLE:
            raise BrokenTableError(_ole(raw))
        self._bytes = raw.seek(0, io.SEEK_END)
        try:
            self._zip = zipfile.ZipFile(_Bounded(raw))
        except _LimitExceededError:
            problem = _bomb("zip")
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError):
            message = _("this starts like a workbook (a zip file) but is incomplete")
            problem = file_problem(message, _("copy or download it again"))
        else:
            parts = self._zip.infolist()
            # Some writers use backslashes or a different case than in their own directory.
            self._parts = {part.filename.replace("\\", "/").lower(): part for part in parts}
            if len(parts) <= _MOST_PARTS:
                return
            problem = _bomb("zip")
        raise BrokenTableError(problem)

    def has(self, part: str) -> bool:
        """Return whether a part exists."""
        return part.lower() in self._parts

    def feed(self, part: str, parser: expat.XMLParserType) -> Iterator[bytes]:
        """Feed a part to a parser, one chunk per iteration."""

        def parse(chunks: Iterator[bytes]) -> Iterator[bytes]:
            fed = 0
            for chunk in chunks:
                fed += len(chunk)
                parser.Parse(chunk, False)  # noqa: FBT003  expat takes it by position only
                if fed - parser.CurrentByteIndex > _LONGEST_TAG or len(parser.intern) > _MOST_NAMES:
                    raise _LimitExceededError
                yield b""
            parser.Parse(b"", True)  # noqa: FBT003  as above
            yield b""

        return self.chunks(part, parse)

    def elements(self, part: str) -> Iterator[tuple[str, _Attributes]]:
        """Yield the elements of a small part in document order.

        (name, attributes) at the start of each, (/name, {}) at its end.
        """
        found: list[tuple[str, _Attributes]] = []
        parser = new_parser(
            lambda name, attributes: found.append((local(name), attributes)),
            lambda name: found.append((f"/{local(name)}", {})),
        )
        self._check_small(part)
        for _each in self.feed(part, parser):
            yield from found
            found.clear()

    def related(self, part: str) -> dict[str, tuple[str, str]]:
        """Return the parts that a part references: id → (kind, part)."""
        folder, name = posixpath.split(part)
        directory = posixpath.join(folder, "_rels", f"{name}.rels")
        if not self.has(directory):
            return {}
        found: dict[str, tuple[str, str]] = {}
        for name, attributes in self.elements(directory):
            if name == "Relationship" and attributes.get("TargetMode") != "External":
                found[attributes.get("Id", "")] = (
                    attributes.get("Type", "").rpartition("/")[2],
                    posixpath.normpath(posixpath.join("/", folder, attributes.get("Target", ""))).lstrip("/"),
                )
                if len(found) > _MOST_PARTS:
                    raise BrokenTableError(_bomb(directory))
        return found

    def read(self, part: str) -> bytes:
        """Return the bytes of a small part."""
        self._check_small(part)
        return b"".join(self.chunks(part))

    def copy(self, out: BinaryIO, changes: Mapping[str, Change]) -> None:
        """Write a copy of the package; `changes` maps parts to functions that change their chunks.

        Raises BrokenTableError if a part cannot be read or changed, OSError if `out` cannot be written.
        """
        by_name = {part.lower(): change for part, change in changes.items()}
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as fresh:
            for name, part in self._parts.items():
                info = zipfile.ZipInfo(part.filename, part.date_time)
                info.compress_type, info.external_attr = part.compress_type, part.external_attr
                info.file_size = part.file_size  # determines the space reserved for its size
                with fresh.open(info, "w") as target:
                    for chunk in self.chunks(name, by_name.get(name, iter)):
                        target.write(chunk)

    def chunks(self, part: str, change: Change = iter) -> Iterator[bytes]:
        """Yield the chunks of a part, passed through `change`."""
        try:
            with self._zip.open(self._bounded(part)) as file:
                yield from change(iter(partial(file.read, _CHUNK), b""))
        except _LimitExceededError:
            problem = _bomb(part)
        except _UNREADABLE:
            problem = damaged(part)
        except RuntimeError:  # zipfile raises this for an encrypted part
            problem = _password()
        else:
            return
        raise BrokenTableError(problem)

    def _bounded(self, part: str) -> zipfile.ZipInfo:
        info = self._parts.get(part.lower())
        if info is None or info.compress_type not in _METHODS:
            raise BrokenTableError(damaged(part))
        # The stated sizes may be wrong: the packed size is at most that of the file, and zipfile stops at the stated
        # size.
        size, packed = info.file_size, min(info.compress_size, self._bytes)
        if size > _LARGEST or (size > _PLAUSIBLE and size > packed * _RATIO):
            raise BrokenTableError(_bomb(part))
        return info

    def _check_small(self, part: str) -> None:
        if self._bounded(part).file_size > _LARGEST_SMALL:
            raise BrokenTableError(_bomb(part))


class _Bounded:
    """A file that refuses the one large read of zipfile: that of the whole zip directory."""

    def __init__(self, raw: BinaryIO) -> None:
        self._read = raw.read
        self.seek, self.tell, self.seekable = raw.seek, raw.tell, raw.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _LARGEST_DIRECTORY:
            raise _LimitExceededError
        return self._read(size)


def new_parser(
    start: Callable[[str, _Attributes], None],
    end: Callable[[str], None],
    text: Callable[[str], None] | None = None,
) -> expat.XMLParserType:
    """Create a parser with these handlers that refuses deep nesting and a DOCTYPE."""
    parser = expat.ParserCreate()
    depth = 0

    def open_element(name: str, attributes: _Attributes) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise _LimitExceededError
        start(name, attributes)

    def close_element(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(name)

    parser.buffer_text = True
    parser.StartElementHandler = open_element
    parser.EndElementHandler = close_element
    parser.StartDoctypeDeclHandler = _no_doctype
    if text is not None:
        parser.CharacterDataHandler = text
    return parser


def _no_doctype(*_: object) -> None:
    # No workbook has one; the entities declared in it could expand without limit.
    raise BrokenTableError(damaged("DOCTYPE"))


_SAVE_AGAIN = _("open it in Excel or WPS and save it as .xlsx, or as 'CSV UTF-8'")


def damaged(part: str) -> Problem:
    """Return the problem for a missing or malformed part."""
    return file_problem(_("the workbook is damaged (in {part})", part=shown(part, 60)), _SAVE_AGAIN)


def _bomb(part: str) -> Problem:
    message = _(
        "the workbook unpacks to far more data than a list can have (in {part})", part=shown(part, 60)
    )
    fix = _("copy the rows into a new workbook; do not open this one unless you know where it comes from")
    return file_problem(message, fix)


def _password() -> Problem:
    message = _("the workbook is protected with a password")
    fix = _("open it, remove the password (File > Info > Protect Workbook) and save it")
    return file_problem(message, fix)


def _ole(raw: BinaryIO) -> Problem:
    """Return the problem for an OLE container: an encrypted workbook, or one in the format before .xlsx."""
    tail = b""
    while chunk := raw.read(1 << 20):
        if _PASSWORD in tail + chunk:
            return _password()
        tail = chunk[-len(_PASSWORD) :]
    message = _("this is an old workbook (.xls or .et)")
    return file_problem(message, _("open it in Excel or WPS and save it as .xlsx"))


# --- changed parts ---------------------------------------------------------------------------------------------------

_TAG = re.compile(rb"<[^>\"']*(?:\"[^\"]*\"[^>\"']*|'[^']*'[^>\"']*)*>")
_MOST_HELD = 16 << 20
"""Maximum bytes buffered, of a tag or of removed text. The longest is the list of columns: 16,384 short tags."""
_UTF8 = {"utf-8", "utf8", "us-ascii"}


class PartPatcher:
    """Parser handlers that copy a part of the package. A subclass makes changes in `start` and `end`."""

    def __init__(self) -> None:
        self._parser = new_parser(self.start, self.end)
        self._parser.XmlDeclHandler = _only_utf8
        self._done = bytearray()
        self._held = bytearray()
        """What is neither copied nor replaced yet."""
        self._at = 0
        """The offset in the part of the first held byte."""
        self._cutting = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element."""
        raise NotImplementedError

    def end(self, name: str) -> None:
        """Handle the end of an element."""
        raise NotImplementedError

    def patch(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the part's chunks with the changes. Raises ValueError if it is not UTF-8."""
        for chunk in chunks:
            self._held += chunk
            if len(self._held) > _MOST_HELD:
                raise ValueError
            self._parser.Parse(chunk, False)  # noqa: FBT003  expat takes it by position only
            self._copy()
            yield bytes(self._done)
            self._done.clear()
        self._parser.Parse(b"", True)  # noqa: FBT003  as above
        yield bytes(self._done + self._held)

    def _copy(self) -> None:
        """Copy what precedes the current tag, unless it is to be removed."""
        if not self._cutting:
            self._done += self._take(self._parser.CurrentByteIndex)

    def _take(self, until: int) -> bytes:
        taken = bytes(self._held[: max(until - self._at, 0)])
        del self._held[: len(taken)]
        self._at += len(taken)
        return taken

    # --- for handlers -------------------------------------------------------------------------------------------

    def tag(self) -> bytes:
        """Return the raw bytes of the current tag."""
        found = _TAG.match(self._held, self._parser.CurrentByteIndex - self._at)
        if found is None:
            raise ValueError
        return found[0]

    def change_tag(self, tag: bytes) -> None:
        """Replace the current tag."""
        self._copy()
        self._take(self._at + len(self.tag()))
        self._done += tag

    def insert(self, text: str) -> None:
        """Insert text before the current tag."""
        self._copy()
        self._done += text.encode()

    def cut_from_here(self) -> None:
        """Start removing, from the current tag on."""
        self._copy()
        self._cutting = True

    def cut_so_far(self) -> str:
        """Return the text removed so far, up to and including the current end tag."""
        return self._held[: self._element_end() - self._at].decode()

    def cut_to_here(self, instead: str = "") -> None:
        """Stop removing after the current end tag."""
        if self._cutting:
            self._take(self._element_end())
            self._done += instead.encode()
            self._cutting = False

    def _element_end(self) -> int:
        at = self._parser.CurrentByteIndex
        # For <c/> expat reports its end, for </c> its start.
        return at + len(self.tag()) if self._held.startswith(b"</", at - self._at) else at


def _only_utf8(_version: str, encoding: str | None, _standalone: int) -> None:
    if encoding is not None and encoding.lower() not in _UTF8:
        raise ValueError(encoding)
