"""A workbook's container: a zip of XML parts, read in pieces and bounded, since it comes from anybody.

The one module of this wing that knows zipfile and expat.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import BinaryIO, TypeAlias
from xml.parsers import expat

from tcb_ops.cell_text import shown
from tcb_ops.errors import BrokenTableError
from tcb_ops.i18n import Text
from tcb_ops.model import Problem, file_problem

_CHUNK = 1 << 14
"""Bytes that are parsed at once. 30 bytes of a sheet can make a row of 16,384 cells (128 KB)."""
_LARGEST = 1 << 30
"""Bytes of a part, unpacked. A full sheet of 1,048,576 rows and five columns has some 300 MB."""
_LARGEST_SMALL = 32 << 20
"""Bytes of a part that lists things: sheets, relations, styles."""
_PLAUSIBLE = 16 << 20
_RATIO = 200
"""A part over _PLAUSIBLE bytes that unpacks to more than this many times its size is a bomb: sheets of one repeated
row reach 100."""
_LONGEST_TAG = 1 << 20
"""expat holds a whole tag in memory; a cell's has some 30 bytes."""
_DEEPEST = 256
"""Elements within each other: expat and the handlers hold each open one. A sheet's cells are seven deep."""
_MOST_NAMES = 10_000
"""Names of elements and attributes in a part: a parser holds each. A sheet has some 200."""
_MOST_PARTS = 100_000
_LARGEST_DIRECTORY = 16 << 20
"""Bytes of the zip's list of its parts, which zipfile reads at once and whole."""
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""What ECMA-376 part 2, annex B allows. zipfile unpacks the others without a bound on memory."""

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PASSWORD = "EncryptedPackage".encode("utf-16-le")
"""The stream of an OLE container that holds a workbook with a password ([MS-OFFCRYPTO] 2.3.4.4)."""

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


class _TooMuchError(Exception):
    """More than a list can hold, in the part that is being read."""


Change: TypeAlias = "Callable[[Iterator[bytes]], Iterator[bytes]]"
"""From the pieces of a part to those of the part that takes its place."""


def local(name: str) -> str:
    """An element's name without its namespace prefix: which prefix is used differs with the writing program."""
    return name.rpartition(":")[2]


class Package:
    """The parts of an open workbook. Raises BrokenTableError where it is none, or cannot be read as one."""

    def __init__(self, raw: BinaryIO) -> None:
        raw.seek(0)
        if raw.read(8) == _OLE:
            raise BrokenTableError(_ole(raw))
        self._bytes = raw.seek(0, io.SEEK_END)
        try:
            self._zip = zipfile.ZipFile(_Bounded(raw))
        except _TooMuchError:
            problem = _bomb("zip")
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError):
            problem = _cut()
        else:
            parts = self._zip.infolist()
            # Some writers use backslashes, some differ in case from what their own directory says.
            self._parts = {part.filename.replace("\\", "/").lower(): part for part in parts}
            if len(parts) <= _MOST_PARTS:
                return
            problem = _bomb("zip")
        raise BrokenTableError(problem)

    def has(self, part: str) -> bool:
        """Whether there is such a part."""
        return part.lower() in self._parts

    def feed(self, part: str, parser: expat.XMLParserType) -> Iterator[None]:
        """Give a part to a parser, piece by piece: a step of the iteration each."""
        fed = 0
        try:
            with self._zip.open(self._bounded(part)) as file:
                while chunk := file.read(_CHUNK):
                    fed += len(chunk)
                    parser.Parse(chunk, False)  # noqa: FBT003  expat takes it by position only
                    _check(parser, fed)
                    yield
                parser.Parse(b"", True)  # noqa: FBT003  as above
            yield
        except _TooMuchError:
            problem = _bomb(part)
        except _UNREADABLE:
            problem = damaged(part)
        except RuntimeError:  # what zipfile says of a part that needs a password
            problem = _password()
        else:
            return
        raise BrokenTableError(problem)

    def elements(self, part: str) -> Iterator[tuple[str, _Attributes]]:
        """(name, attributes) of every element of a small part in the order of their beginnings; ends as (/name, {})."""
        found: list[tuple[str, _Attributes]] = []
        parser = new_parser(
            lambda name, attributes: found.append((local(name), attributes)),
            lambda name: found.append((f"/{local(name)}", {})),
        )
        self._small(part)
        for _ in self.feed(part, parser):
            yield from found
            found.clear()

    def related(self, part: str) -> dict[str, tuple[str, str]]:
        """The parts that a part leads to: id → (kind, part). Raises BrokenTableError where they are too many."""
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
        """The bytes of a small part."""
        self._small(part)
        return b"".join(self.chunks(part))

    def copy(self, out: BinaryIO, changes: Mapping[str, Change]) -> None:
        """Write the package anew, every part as it is but those that have a change, which they pass through.

        Raises BrokenTableError where a part cannot be read or changed, OSError where `out` takes no more.
        """
        by_name = {part.lower(): change for part, change in changes.items()}
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as fresh:
            for name, part in self._parts.items():
                info = zipfile.ZipInfo(part.filename, part.date_time)
                info.compress_type, info.external_attr = part.compress_type, part.external_attr
                info.file_size = part.file_size  # how much room its size needs
                with fresh.open(info, "w") as target:
                    for chunk in self.chunks(name, by_name.get(name, iter)):
                        target.write(chunk)

    def chunks(self, part: str, change: Change = iter) -> Iterator[bytes]:
        """A part, piece by piece, as a change makes it."""
        try:
            with self._zip.open(self._bounded(part)) as file:
                yield from change(iter(partial(file.read, _CHUNK), b""))
        except _TooMuchError:
            problem = _bomb(part)
        except _UNREADABLE:
            problem = damaged(part)
        except RuntimeError:  # what zipfile says of a part that needs a password
            problem = _password()
        else:
            return
        raise BrokenTableError(problem)

    def _bounded(self, part: str) -> zipfile.ZipInfo:
        info = self._parts.get(part.lower())
        if info is None:
            raise BrokenTableError(damaged(part))
        if info.compress_type not in _METHODS:
            raise BrokenTableError(damaged(part))
        size, packed = (
            info.file_size,
            min(info.compress_size, self._bytes),
        )  # it may say that it is packed larger
        if size > _LARGEST or (size > _PLAUSIBLE and size > packed * _RATIO):
            # What is said is what is unpacked at most: zipfile reads no further.
            raise BrokenTableError(_bomb(part))
        return info

    def _small(self, part: str) -> None:
        if self._bounded(part).file_size > _LARGEST_SMALL:
            raise BrokenTableError(_bomb(part))


class _Bounded:
    """A zip file as zipfile reads it, but for a directory that is too large: it would be read whole."""

    def __init__(self, raw: BinaryIO) -> None:
        self._read = raw.read
        self.seek, self.tell, self.seekable = raw.seek, raw.tell, raw.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _LARGEST_DIRECTORY:
            raise _TooMuchError
        return self._read(size)


def write_package(out: BinaryIO, parts: Iterable[tuple[str, Iterable[bytes]]]) -> None:
    """Write a package of these parts: (name, pieces). Raises OSError."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
        for name, chunks in parts:
            with package.open(name, "w") as target:
                for chunk in chunks:
                    target.write(chunk)


def new_parser(
    start: Callable[[str, _Attributes], None],
    end: Callable[[str], None],
    text: Callable[[str], None] | None = None,
) -> expat.XMLParserType:
    """Make a parser with these handlers, for a part that may hold anything."""
    parser = expat.ParserCreate()
    depth = 0

    def deeper(name: str, attributes: _Attributes) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise _TooMuchError
        start(name, attributes)

    def higher(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(name)

    parser.buffer_text = True
    parser.StartElementHandler = deeper
    parser.EndElementHandler = higher
    parser.StartDoctypeDeclHandler = _no_doctype
    if text is not None:
        parser.CharacterDataHandler = text
    return parser


def _check(parser: expat.XMLParserType, fed: int) -> None:
    """Raise where a parser that was fed so many bytes holds too much of them."""
    if fed - parser.CurrentByteIndex > _LONGEST_TAG or len(parser.intern) > _MOST_NAMES:
        raise _TooMuchError


def _no_doctype(*_: object) -> None:
    # No workbook has one, and entities are declared there: what they expand to is a bomb of another kind.
    raise BrokenTableError(damaged("DOCTYPE"))


_SAVE_ANEW = Text(
    "open it in Excel or WPS and save it as .xlsx, or as 'CSV UTF-8'",
    "请在 Excel 或 WPS 中打开，另存为 .xlsx 或“CSV UTF-8”",
)


def damaged(part: str) -> Problem:
    """A part of the workbook is missing, or is not what it should be."""
    message = Text(f"the workbook is damaged (in {shown(part, 60)})", f"工作簿已损坏（{shown(part, 60)}）")
    return file_problem(message, _SAVE_ANEW)


def _cut() -> Problem:
    message = Text(
        "this begins as a workbook (a zip file) but is not whole",
        "文件开头像工作簿（zip 文件），但内容不完整",
    )
    return file_problem(message, Text("copy or download it again", "请重新复制或下载"))


def _bomb(part: str) -> Problem:
    message = Text(
        f"the workbook unpacks to far more than a list can be (in {shown(part, 60)})",
        f"工作簿解压后远远超过一份清单应有的大小（{shown(part, 60)}）",
    )
    fix = Text(
        "copy the rows into a new workbook; do not open this one if you do not know where it is from",
        "请把数据复制到新的工作簿；来源不明时不要打开它",
    )
    return file_problem(message, fix)


def _password() -> Problem:
    message = Text("the workbook is protected with a password", "工作簿设有打开密码")
    fix = Text(
        "open it, take the password off (File > Info > Protect Workbook) and save it",
        "请打开后取消密码（文件 > 信息 > 保护工作簿）并保存",
    )
    return file_problem(message, fix)


def _ole(raw: BinaryIO) -> Problem:
    """An OLE container: a workbook with a password, or one of the format before .xlsx."""
    tail = b""
    while chunk := raw.read(1 << 20):
        if _PASSWORD in tail + chunk:
            return _password()
        tail = chunk[-len(_PASSWORD) :]
    message = Text("this is an old workbook (.xls or .et)", "这是旧格式的工作簿（.xls 或 .et）")
    return file_problem(
        message,
        Text("open it in Excel or WPS and save it as .xlsx", "请在 Excel 或 WPS 中打开，另存为 .xlsx"),
    )
