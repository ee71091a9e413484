"""Input files (lists, merchants files, known.csv): opening, decoding in one pass and in constant memory, and their refusal.

=================================  =====================================================================
the bytes                          read as
=================================  =====================================================================
begin with a BOM                   what the BOM names (UTF-8, UTF-16, GB18030), nothing else
are valid UTF-8                    UTF-8
are not, but are valid GB18030     GB18030 (GBK and GB2312 are subsets)
are neither, or hold NUL bytes     a problem that names the line
begin as an image, a PDF … does    a problem that names the kind of file
begin as a workbook does           a problem: save it as CSV (path lists are read by table.py)
=================================  =====================================================================
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, TypeVar

from tcb_ops.errors import BrokenTableError, InputError
from tcb_ops.formatting import shown
from tcb_ops.i18n import Text, _
from tcb_ops.model import Problem, file_problem
from tcb_ops.resources import nearest_path, raise_if_exhausted, system_reason

_T = TypeVar("_T")

# --- messages about problems ---------------------------------------------------------------------------------------

PROBLEMS_SHOWN = 50
"""Maximum problems on stderr; the fix-me CSV has all."""


def format_problem(source: str, problem: Problem) -> Text:
    """Format a problem as `FILE:LINE: column 'X': problem — fix`, without LINE if it concerns the whole file."""
    where = f"{source}:{problem.line}" if problem.line else source
    message = _("{message} — {fix}", message=problem.message, fix=problem.fix)
    if problem.column:
        return _("{where}: column '{column}': {message}", where=where, column=problem.column, message=message)
    return _("{where}: {message}", where=where, message=message)


def input_error(
    source: str,
    problems: Sequence[Problem],
    decided: Text | None = None,
    *,
    all_missing: bool = False,
) -> InputError:
    """Return the error that refuses a file: the number of problems, and the text of the first one."""
    many, text = len(problems), format_problem(source, problems[0])
    if many > 1:
        text = _(
            "{source} has {many:,} problems, so nothing was sent. The first: {first}",
            source=source,
            many=many,
            first=text,
        )
    return InputError(text, source, problems, decided, all_missing=all_missing)


def refused(source: str, message: Text, fix: Text, line: int = 0) -> InputError:
    """Return the error that refuses a file as a whole."""
    return input_error(source, [file_problem(message, fix, line=line)])


def read_or_refuse(source: str, read: Callable[[], _T]) -> _T:
    """Return what `read` does. Raises InputError where a table cannot be read any further."""
    try:
        return read()
    except BrokenTableError as error:
        problem = error.problem
    raise input_error(source, [problem])


# --- decoding ------------------------------------------------------------------------------------------------------

_CHUNK = 1 << 20
_LONGEST_LINE = 16 << 20
"""Bytes. A longer line means a binary file, which could fill the memory."""

_BOMS = (
    (b"\xef\xbb\xbf", "utf-8", "UTF-8 (BOM)"),
    (b"\xff\xfe", "utf-16-le", "UTF-16"),
    (b"\xfe\xff", "utf-16-be", "UTF-16"),
    (b"\x84\x31\x95\x33", "gb18030", "GB18030 (BOM)"),
)

_CJK = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_SUSPICIOUS = re.compile("[\u0080-\u009f\u00a1-\u07ff]+")
"""Latin-1, Greek, Cyrillic and nearby letters, except the no-break space: two-byte GBK that is valid UTF-8 looks like
this (路 looks like a middle dot)."""
_SURELY_UTF8 = 10
"""With so many Chinese characters, valid UTF-8 is not GBK by coincidence."""

_SAVE_AS = _("save it in Excel or WPS as 'CSV UTF-8 (comma delimited)' and use that file")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A list opened as text."""

    text: IO[str] = field(repr=False)
    """With the file's line ends."""
    encoding: str
    """As displayed."""
    bytes: int
    sha256: str
    """Of the file's bytes, 64 hex digits."""
    warnings: tuple[Text, ...]


@dataclass(slots=True)
class _Attempt:
    """An encoding that is tried while the bytes are read."""

    codec: str
    failed_at: int | None = None
    """Byte offset after the BOM."""
    cjk: int = 0
    suspicious: str = ""
    _fed: int = 0
    _decoder: codecs.IncrementalDecoder = field(init=False)

    def __post_init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder(self.codec)()

    def feed(self, chunk: bytes, *, last: bool) -> None:
        if self.failed_at is not None:
            return
        pending = self._decoder.getstate()[0]
        if not pending and not self.codec.startswith("utf-16") and chunk.isascii():
            self._fed += len(chunk)
            return
        try:
            text = self._decoder.decode(chunk, final=last)
        except UnicodeDecodeError as error:
            self.failed_at = self._fed - len(pending) + error.start
            text = error.object[: error.start].decode(self.codec, "replace")
        else:
            if "\0" in text:  # UTF-16 only: in other encodings NUL bytes are refused earlier
                before = text[: text.index("\0")].encode(self.codec)
                self.failed_at = self._fed - len(pending) + len(before)
        self._fed += len(chunk)
        if self.cjk < _SURELY_UTF8:
            self.cjk += len(_CJK.findall(text))
        if not self.suspicious and (found := _SUSPICIOUS.search(text)):
            self.suspicious = found.group()


@contextmanager
def open_text(source: str | Path) -> Iterator[Decoded]:
    """Open a list as text. Raises InputError as `open_bytes` and `decode` do."""
    with open_bytes(source) as raw:
        decoded = decode(raw, str(source))  # keeps it alive: collecting its wrapper closes the file
        yield decoded


def decode(raw: BinaryIO, name: str) -> Decoded:
    """Detect the encoding of an open file and compute its SHA-256.

    Raises InputError if it is empty, a workbook, binary, or in an unknown encoding.
    """
    if is_workbook(raw):
        raise refused(name, _("this is a workbook (XLSX or XLS), not a CSV"), _SAVE_AS)
    raw.seek(0)
    head = raw.read(64)
    for pattern, kind in _OTHER_KINDS:
        if pattern.match(head):
            fix = _SAVE_AS if kind is _WEB_PAGE else _GIVE_A_LIST
            raise refused(name, _("this is {kind}, not a list", kind=kind), fix)
    bom, codec, encoding = next((b for b in _BOMS if head.startswith(b[0])), (b"", "", ""))
    attempts = [_Attempt(codec)] if bom else [_Attempt("utf-8"), _Attempt("gb18030")]
    size, sha256 = _read_through(raw, len(bom), attempts, name)
    if size == len(bom):
        raise refused(name, _("the file is empty"), _("export the list again; it needs a header and rows"))
    chosen = next((t for t in attempts if t.failed_at is None), None)
    if chosen is None:
        furthest = max(attempts, key=lambda t: t.failed_at or 0)
        line = _line_at(raw, len(bom), furthest.failed_at or 0, furthest.codec)
        message = _("these bytes are not text in {tried}", tried=encoding or "UTF-8, GB18030")
        raise refused(name, message, _SAVE_AS, line)
    warnings = () if bom else _warnings(raw, attempts, chosen)
    raw.seek(len(bom))
    text = io.TextIOWrapper(raw, encoding=chosen.codec, newline="")
    return Decoded(text, encoding or chosen.codec.upper(), size, sha256, warnings)


def _read_through(raw: BinaryIO, skip: int, attempts: list[_Attempt], name: str) -> tuple[int, str]:
    """Feed all bytes to the hash and, after the BOM, to the attempts. Return size and SHA-256."""
    raw.seek(0)
    digest, size, line_begins = hashlib.sha256(), 0, 0
    wide = attempts[0].codec.startswith("utf-16")
    while chunk := raw.read(_CHUNK):
        digest.update(chunk)
        if b"\0" in chunk and not wide:
            line = _line_at(raw, 0, size + chunk.index(b"\0"), "latin-1")
            message = _("there are NUL bytes here: this is not text, or UTF-16 without a BOM")
            raise refused(name, message, _SAVE_AS, line)
        if (end := max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))) >= 0:
            line_begins = size + end
        for attempt in attempts:
            attempt.feed(chunk if size else chunk[skip:], last=False)
        size += len(chunk)
        if size - line_begins > _LONGEST_LINE:
            raise refused(name, _("a line is longer than 16 MiB, so this is not a list"), _SAVE_AS)
    for attempt in attempts:
        attempt.feed(b"", last=True)
    return size, digest.hexdigest()


def _warnings(raw: BinaryIO, attempts: list[_Attempt], chosen: _Attempt) -> tuple[Text, ...]:
    """Return reasons why the detected encoding may be wrong."""
    utf8 = attempts[0]
    if chosen is not utf8 and utf8.cjk >= _SURELY_UTF8:
        line = _line_at(raw, 0, utf8.failed_at or 0, "utf-8")
        return (
            _(
                "read as GB18030, but the file is valid UTF-8 up to line {line}: it may be UTF-8 with a damaged "
                "line, or two files joined. Check the Chinese text; if it is wrong, fix that line",
                line=line,
            ),
        )
    if chosen.cjk or not chosen.suspicious:
        return ()
    text = shown(chosen.suspicious, 20)
    other = "gb18030" if chosen is utf8 else "utf-8"
    try:
        instead = shown(chosen.suspicious.encode(chosen.codec).decode(other), 20)
        held = _(
            "'{text}' (the same bytes read as {encoding}: '{instead}')",
            text=text,
            encoding=other.upper(),
            instead=instead,
        )
    except UnicodeDecodeError:
        held = _("'{text}'", text=text)
    return (
        _(
            "read as {encoding}, but it contains {held} and no Chinese: the encoding may be detected wrongly. If "
            "the text is wrong, save the list as 'CSV UTF-8', which states its encoding",
            encoding=chosen.codec.upper(),
            held=held,
        ),
    )


def _line_at(raw: BinaryIO, skip: int, offset: int, codec: str) -> int:
    """Return the line of the byte at `offset` after `skip`; lines end in CRLF, CR or LF."""
    raw.seek(skip)
    newlines = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(codec)("replace"), translate=True)
    line = 1
    while offset > 0 and (chunk := raw.read(min(_CHUNK, offset))):
        offset -= len(chunk)
        line += newlines.decode(chunk, final=offset <= 0).count("\n")
    return line


_WEB_PAGE = _("a web page")
_OTHER_KINDS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _("a PNG image")),
    (re.compile(rb"\xff\xd8\xff"), _("a JPEG image")),
    (re.compile(rb"GIF8[79]a"), _("a GIF image")),
    (re.compile(rb"(?s)RIFF....WEBP"), _("a WebP image")),
    (re.compile(rb"(?s)\0\0\0.ftyp"), _("a video (MP4)")),
    (re.compile(rb"%PDF-"), _("a PDF")),
    (re.compile(rb"Rar!|7z\xbc\xaf|\x1f\x8b"), _("an archive")),
    (re.compile(rb"SQLite format 3\0"), _("an SQLite database")),
    (re.compile(rb"(?i)\s*<(!doctype )?html"), _WEB_PAGE),
)
"""The first bytes of other files that may be given by mistake."""

_WORKBOOKS = (b"PK\x03\x04", b"PK\x05\x06", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
"""The first bytes of a zip (xlsx), an empty zip and an OLE container (xls, a workbook with a password)."""


@contextmanager
def open_bytes(source: str | Path) -> Iterator[BinaryIO]:
    """Open an input file as bytes.

    Raises InputError if it does not exist, cannot be read, is not a regular file, or changes while it is read.
    """
    name, path = str(source), Path(source)
    if not name:
        raise refused("''", _("the file name is empty"), _GIVE_A_LIST)
    try:
        # Opening a FIFO would wait for a writer, so the type is checked first.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _not_a_file(name, path)
        if path.name.startswith("~$"):
            workbook = path.with_name(path.name.removeprefix("~$"))
            message = _("this is not a list but the file that Excel keeps while a workbook is open")
            raise refused(name, message, _("give {workbook}", workbook=shown(str(workbook))))
        raw = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        failed = _missing(name, path)
    except (OSError, ValueError) as error:
        raise_if_exhausted(error)
        message = _("the file cannot be read ({why})", why=system_reason(error))
        fix = _("check its permissions, and whether another program has locked it")
        failed = refused(name, message, fix)
    else:
        with raw:
            before = os.fstat(raw.fileno())
            yield raw
            after = os.fstat(raw.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise input_error(name, [CHANGED])
        return
    raise failed  # outside of `except`: the error that led here may contain a password


def is_workbook(raw: BinaryIO) -> bool:
    """Return whether the file is a workbook by its first bytes, regardless of its name."""
    raw.seek(0)
    return raw.read(8).startswith(_WORKBOOKS)


def digest(raw: BinaryIO) -> tuple[int, str]:
    """Return the file's size in bytes and its SHA-256, 64 hex digits."""
    raw.seek(0)
    sha256 = hashlib.sha256()
    while chunk := raw.read(_CHUNK):
        sha256.update(chunk)
    return raw.tell(), sha256.hexdigest()


CHANGED = file_problem(
    _("the file changed while it was read"), _("run it again when nobody is saving the file")
)


_LISTS = {".csv", ".tsv", ".xlsx", ".xlsm"}
_OWN_FILES = {"links.csv", "merchants.csv", "tokens.csv"}
_GIVE_A_LIST = _("give the path of a CSV, TSV or XLSX file")
_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/")


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in _LISTS and path.name[0] not in ".~"


def _not_a_file(name: str, path: Path) -> InputError:
    if not path.is_dir():
        return refused(name, _("this is not a regular file but a pipe or a device"), _GIVE_A_LIST)
    lists: list[str] = []
    with suppress(OSError):
        lists = sorted(
            entry.name for entry in path.iterdir() if _is_list(entry) and entry.name not in _OWN_FILES
        )
    listed = ", ".join(shown(name, 60) for name in lists[:5]) + (" …" if lists[5:] else "")
    fix = _("choose one of the lists in it: {listed}", listed=listed) if lists else _GIVE_A_LIST
    return refused(name, _("this is a folder, not a file"), fix)


def _missing(name: str, path: Path) -> InputError:
    if _URL.match(name):
        name = re.sub(r"(?<=/)[^/]*@|\?.*", "", name)  # both may contain a password
        return refused(name, _("this is a URL, not a file"), _("download it first, then give the file"))
    fix = _("check the name and the folder")
    if not path.parent.is_dir():
        fix = _("there is no folder {folder}: check the path", folder=shown(str(path.parent)))
    elif near := nearest_path(path, lambda other: _is_list(other) and other != path):
        fix = _("did you mean {meant}?", meant=shown(str(near)))
    return refused(name, _("there is no such file"), fix)
