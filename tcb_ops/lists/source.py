"""A list's file: opened once, a regular file, and the same at the end as at the beginning."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tcb_ops.lists.problems import input_error, of_file
from tcb_ops.model import Problem, Text
from tcb_ops.resources import raise_if_exhausted

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["digest", "is_workbook", "open_source"]

_WORKBOOKS = (b"PK\x03\x04", b"PK\x05\x06", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
"""How a zip (xlsx), an empty zip and an OLE container (xls, a workbook with a password) begin."""


@contextmanager
def open_source(source: str | Path) -> Iterator[BinaryIO]:
    """Open a list as bytes.

    Raises InputError where the file is not there, cannot be read, is no regular file, or is written to meanwhile.
    """
    name, path = str(source), Path(source)
    try:
        # Opening a FIFO would wait for a writer for ever, so what it is is looked up first.
        if not stat.S_ISREG(path.stat().st_mode):
            raise input_error(name, [_not_a_file(path)])
        raw = path.open("rb")
    except (OSError, ValueError) as error:
        raise_if_exhausted(error)
        problem = _unreadable(error)
    else:
        with raw:
            before = os.fstat(raw.fileno())
            yield raw
            after = os.fstat(raw.fileno())
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise input_error(name, [_CHANGED])
        return
    raise input_error(name, [problem])


def is_workbook(raw: BinaryIO) -> bool:
    """Whether the bytes begin as a workbook's do, whatever the file is called."""
    raw.seek(0)
    return raw.read(8).startswith(_WORKBOOKS)


def digest(raw: BinaryIO) -> tuple[int, str]:
    """The file's bytes and their SHA-256, 64 hex digits."""
    raw.seek(0)
    sha256 = hashlib.sha256()
    while chunk := raw.read(1 << 20):
        sha256.update(chunk)
    return raw.tell(), sha256.hexdigest()


_CHANGED = of_file(
    Text("the file was written to while it was read", "读取过程中文件被改动了"),
    Text("run it again when nobody is saving the file", "等没有人在保存这个文件时再运行一次"),
)


def _not_a_file(path: Path) -> Problem:
    if path.is_dir():
        message = Text("this is a folder, not a file", "这是文件夹，不是文件")
    else:
        message = Text("this is no regular file but a pipe or a device", "这不是普通文件，而是管道或设备")
    return of_file(
        message, Text("give the path of a CSV, TSV or XLSX file", "请给出 CSV、TSV 或 XLSX 文件的路径")
    )


def _unreadable(error: OSError | ValueError) -> Problem:
    if isinstance(error, FileNotFoundError):
        message = Text("there is no such file", "没有这个文件")
        return of_file(message, Text("check the name and the folder", "请检查文件名和所在文件夹"))
    why = error.strerror if isinstance(error, OSError) else "not a usable file name"
    message = Text(f"the file cannot be read ({why})", f"文件无法读取（{why}）")
    mend = Text(
        "check its permissions, and whether another program holds it",
        "请检查文件权限，以及是否被别的程序占用",
    )
    return of_file(message, mend)
