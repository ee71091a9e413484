"""The local files: whether each is there and may be sent."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tcb_ops.lists.cells import shown
from tcb_ops.lists.problems import of_file
from tcb_ops.model import Problem, Text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MAX_FILE_BYTES", "Files", "Found", "Unfit"]

MAX_FILE_BYTES = 5 * 1024**3
"""POST Object takes 5 GB at most (cloud.tencent.com/document/product/436/14690)."""

_REMEMBERED = 16_384


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be sent."""

    size: int
    """Bytes."""
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a file may not be sent."""

    message: Text
    mend: Text


class Files:
    """The files below a root. Each is looked at once, however many rows send it."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._inside = self._root.rstrip(os.sep) + os.sep
        self._name = str(root)
        self._folder = lru_cache(maxsize=4096)(os.path.realpath)
        self.look = lru_cache(maxsize=_REMEMBERED)(self._look)

    def problem(self) -> Problem | None:
        """What is wrong with the root itself."""
        if os.path.isdir(self._root):  # noqa: PTH112  this module works on strings: Path costs more than the stat
            return None
        root = shown(self._name)
        message = Text(f"the root folder {root} is not there", f"根目录 {root} 不存在")
        mend = Text("give the folder that holds the files with --root", "请用 --root 指明存放文件的文件夹")
        return of_file(message, mend)

    def _look(self, file: str) -> Found | Unfit:
        """`file` is relative to the root, with forward slashes; links are resolved before it is judged."""
        if os.path.isabs(file) or os.path.splitdrive(file)[0]:  # noqa: PTH117  as above
            return _absolute(file)
        folder, name = os.path.split(os.path.join(self._root, file))  # noqa: PTH118  as above
        try:
            real = os.path.join(self._folder(folder), name)  # noqa: PTH118  as above
            facts = os.lstat(real)
            if stat.S_ISLNK(facts.st_mode) or name in {"", ".", ".."}:
                real = os.path.realpath(real)
                facts = os.stat(real)  # noqa: PTH116  as above
            readable = os.access(real, os.R_OK)
        except FileNotFoundError:
            return _missing(file)
        except NotADirectoryError:
            return _missing(file)
        except (OSError, ValueError) as error:
            return _unreadable(file, error)
        if not real.startswith(self._inside):
            return _outside(file)
        return _judge(file, facts, readable=readable)


def _judge(file: str, facts: os.stat_result, *, readable: bool) -> Found | Unfit:
    name = shown(file)
    if stat.S_ISDIR(facts.st_mode):
        return Unfit(
            Text(f"{name} is a folder", f"{name} 是文件夹"),
            Text("name a file; a folder is a row per file", "请写文件；文件夹要每个文件一行"),
        )
    if not stat.S_ISREG(facts.st_mode):
        return Unfit(
            Text(
                f"{name} is no regular file but a pipe, socket or device",
                f"{name} 不是普通文件，而是管道、套接字或设备",
            ),
            Text("name a regular file", "请写普通文件"),
        )
    if not readable:
        return Unfit(
            Text(f"{name} cannot be read: no permission", f"{name} 无法读取：没有权限"),
            Text("give yourself read permission on it", "请给自己加上读权限"),
        )
    if facts.st_size > MAX_FILE_BYTES:
        return Unfit(
            Text(
                f"{name} has {facts.st_size:,} bytes; a form upload takes 5 GB ({MAX_FILE_BYTES:,}) at most",
                f"{name} 有 {facts.st_size:,} 字节；表单上传最多 5 GB（{MAX_FILE_BYTES:,}）",
            ),
            Text("split or compress it, or upload it in the console", "请拆分或压缩，或在控制台上传"),
        )
    return Found(facts.st_size, facts.st_mtime_ns)


def _missing(file: str) -> Unfit:
    return Unfit(
        Text(f"there is no file {shown(file)} below the root", f"根目录下没有文件 {shown(file)}"),
        Text("check the name (case counts) and --root", "请检查文件名（区分大小写）和 --root"),
    )


def _unreadable(file: str, error: OSError | ValueError) -> Unfit:
    why = error.strerror if isinstance(error, OSError) else "not a usable file name"
    return Unfit(
        Text(f"{shown(file)} cannot be looked at ({why})", f"{shown(file)} 无法查看（{why}）"),
        Text("check its name and permissions", "请检查文件名和权限"),
    )


def _absolute(file: str) -> Unfit:
    return Unfit(
        Text(f"{shown(file)} is not relative to the root", f"{shown(file)} 不是相对于根目录的路径"),
        Text("write it from the root on, e.g. banner/a.png", "请从根目录写起，例如 banner/a.png"),
    )


def _outside(file: str) -> Unfit:
    return Unfit(
        Text(
            f"{shown(file)} lies outside the root (links resolved)",
            f"{shown(file)} 在根目录之外（已解析链接）",
        ),
        Text(
            "copy it below the root, or give a --root that holds all files",
            "请把它复制到根目录下，或用 --root 指定包含全部文件的文件夹",
        ),
    )
