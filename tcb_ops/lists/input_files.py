"""Input files (lists, merchants files, known.csv): opening, decoding in one pass and in constant memory, and their refusal.

=================================  =====================================================================
the bytes                          read as
=================================  =====================================================================
begin with a BOM                   what the BOM names (UTF-8, UTF-16, GB18030), nothing else
are valid UTF-8                    UTF-8
are not, but are valid GB18030     GB18030 (GBK and GB2312 are subsets)
are neither, or hold NUL bytes     a problem that names the line
begin as a workbook does           by table.py; a problem where only text can be read
=================================  =====================================================================
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tcb_ops.disk import nearest_path
from tcb_ops.errors import BrokenTableError, InputError
from tcb_ops.formatting import shown
from tcb_ops.i18n import Text, _
from tcb_ops.model import Problem, file_problem
from tcb_ops.system_errors import raise_if_exhausted, system_reason

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


def input_error(source: str, problems: Sequence[Problem], decided: Text | None = None) -> InputError:
    """Return the error that refuses a file: the number of problems, and the text of the first one."""
    many, text = len(problems), format_problem(source, problems[0])
    if many > 1:
        text = _(
            "{source} has {many:,} problems, so nothing was sent. The first: {first}",
            source=source,
            many=many,
            first=text,
        )
    return InputError(text, source, problems, decided)


def refused(source: str, message: Text, fix: Text, line: int = 0) -> InputError:
    """Return the error that refuses a file as a whole."""
    return input_error(source, [file_problem(message, fix, line=line)])


@contextmanager
def readable(source: str | Path) -> Iterator[None]:
    """Raise InputError where the table in an input file cannot be read any further."""
    try:
        yield
    except BrokenTableError as error:
        raise input_error(str(source), [error.problem]) from None


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

_SAVE_AS = _("save it in Excel or WPS as 'CSV UTF-8 (comma delimited)' and use that file")


def decode(raw: BinaryIO, name: str) -> tuple[io.TextIOWrapper, str, int, str]:
    """Return a file as text with its line ends, its encoding as displayed, its bytes and its SHA-256, 64 hex digits.

    Raises InputError if it is empty, a workbook, binary, or in an unknown encoding.
    """
    if is_workbook(raw):
        raise refused(name, _("this is a workbook (XLSX or XLS), not a CSV"), _SAVE_AS)
    raw.seek(0)
    head = raw.read(5)
    bom, codec, encoding = next((b for b in _BOMS if head.startswith(b[0])), (b"", "", ""))
    if len(head) == len(bom):
        raise refused(name, _("the file is empty"), _("export the list again; it needs a header and rows"))
    bad_line = 0
    for candidate in (codec,) if bom else ("utf-8", "gb18030"):
        raw.seek(len(bom))
        if not (bad := _bad_line(raw, candidate, name)):
            size, sha256 = digest(raw)
            raw.seek(len(bom))
            text = io.TextIOWrapper(raw, encoding=candidate, newline="")
            return text, encoding or candidate.upper(), size, sha256
        bad_line = max(bad_line, bad)
    message = _("these bytes are not text in {tried}", tried=encoding or "UTF-8, GB18030")
    raise refused(name, message, _SAVE_AS, bad_line)


def _bad_line(raw: BinaryIO, codec: str, name: str) -> int:
    """Return the first line that is not text in an encoding; 0 if all lines are. Raises InputError for a binary file."""
    decoder = codecs.getincrementaldecoder(codec)()
    number, unbroken = 1, 0
    try:
        while chunk := raw.read(_CHUNK):
            text = decoder.decode(chunk)
            if "\0" in text:
                message = _("there are NUL bytes here: this is not text, or UTF-16 without a BOM")
                raise refused(name, message, _SAVE_AS, number + text.partition("\0")[0].count("\n"))
            number += text.count("\n")
            unbroken = len(chunk) - 1 - chunk.rfind(b"\n") if b"\n" in chunk else unbroken + len(chunk)
            if unbroken > _LONGEST_LINE:
                raise refused(name, _("a line is longer than 16 MiB, so this is not a list"), _SAVE_AS)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return number + error.object[: error.start].decode(codec).count("\n")
    return 0


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
            message = _("this is not a regular file but a pipe or a device")
            if path.is_dir():
                message = _("this is a folder, not a file")
            raise refused(name, message, _GIVE_A_LIST)
        raw = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        failed = _missing(name, path)
    except (OSError, ValueError) as error:
        raise_if_exhausted(error)
        message = _("the file cannot be read ({why})", why=system_reason(error))
        failed = refused(name, message, _("check its permissions, and whether another program has locked it"))
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


_GIVE_A_LIST = _("give the path of a CSV, TSV or XLSX file")
_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/")


def _missing(name: str, path: Path) -> InputError:
    if _URL.match(name):
        name = re.sub(r"(?<=/)[^/]*@|\?.*", "", name)  # both may contain a password
        return refused(name, _("this is a URL, not a file"), _("download it first, then give the file"))
    fix = _("check the name; the folder is {folder}", folder=path.absolute().parent)
    lists = {".csv", ".tsv", ".xlsx", ".xlsm"}
    if near := nearest_path(path, lambda other: other.suffix.lower() in lists and other != path):
        fix = _("did you mean {meant}?", meant=shown(str(near)))
    return refused(name, _("there is no such file"), fix)
