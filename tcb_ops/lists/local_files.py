"""The local files: whether each is there and may be sent."""

from __future__ import annotations

import ntpath
import os
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tcb_ops.cell_text import shown
from tcb_ops.errors import UsageError
from tcb_ops.i18n import Text
from tcb_ops.model import Problem, file_problem

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
    fix: Text
    option: str = ""
    """The option of the command line that `fix` names."""


class Files:
    """The files below a root. Each is looked at once, however many rows send it."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._inside = self._root.rstrip(os.sep) + os.sep
        self._name = str(root)
        self._folder = lru_cache(maxsize=4096)(os.path.realpath)
        self._names = lru_cache(maxsize=256)(self._list)
        self.look = lru_cache(maxsize=_REMEMBERED)(self._look)

    def problem(self) -> Problem | None:
        """What is wrong with the root itself."""
        if os.path.isdir(self._root):  # noqa: PTH112  this module works on strings: Path costs more than the stat
            return None
        root = shown(self._name)
        message = Text(f"the root folder {root} is not there", f"根目录 {root} 不存在")
        fix = Text("give the folder that holds the files with --root", "请用 --root 指明存放文件的文件夹")
        return file_problem(message, fix, option="--root")

    def _look(self, file: str) -> Found | Unfit:
        """`file` is relative to the root, with forward slashes; links are resolved before it is judged."""
        if os.path.isabs(file) or ntpath.splitdrive(file)[0]:  # noqa: PTH117  as above
            return _absolute(file)
        folder, name = os.path.split(os.path.join(self._root, file))  # noqa: PTH118  as above
        try:
            real = os.path.join(self._folder(folder), name)  # noqa: PTH118  as above
            facts = os.lstat(real)
            if stat.S_ISLNK(facts.st_mode) or name in {"", ".", ".."}:
                real = os.path.realpath(real)
                facts = os.stat(real)  # noqa: PTH116  as above
            readable = os.access(real, os.R_OK)
        except (FileNotFoundError, NotADirectoryError):
            return _missing(file, self._alike(file))
        except (OSError, ValueError) as error:
            return _unreadable(file, error)
        if not real.startswith(self._inside):
            return _outside(file)
        return _judge(file, facts, readable=readable)

    def _alike(self, file: str) -> str:
        """The one file that differs by letter case or Unicode form only; empty where there is none, or several."""
        here, found = self._root, []
        for part in filter(None, file.split("/")):
            there = self._names(here).get(_form(part), [])
            real = part if part in there else there[0] if len(there) == 1 else ""
            if not real or part == "..":
                return ""
            found.append(real)
            here = os.path.join(here, real)  # noqa: PTH118  as above
        return "/".join(found)

    def _list(self, folder: str) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        try:
            for name in os.listdir(folder):  # noqa: PTH208  as above
                names.setdefault(_form(name), []).append(name)
        except OSError:
            return {}
        return names


def _form(name: str) -> str:
    """A name as a file system that tells neither case nor Unicode form apart sees it."""
    return unicodedata.normalize("NFC", name).casefold()


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


def _missing(file: str, alike: str) -> Unfit:
    name = shown(file)
    message = Text(f"there is no file {name} below the root", f"根目录下没有文件 {name}")
    if not alike:
        return Unfit(
            message,
            Text("check the name (case counts) and --root", "请检查文件名（区分大小写）和 --root"),
            "--root",
        )
    real = shown(alike)
    if unicodedata.normalize("NFC", alike) == unicodedata.normalize("NFC", file):
        # The two look alike on any screen, so a name alone would not help.
        return Unfit(
            message,
            Text(
                f"there is {real}, which looks the same but is in another Unicode form (a Mac writes names so): copy its name into the list",
                f"有 {real}，看起来一样，但 Unicode 形式不同（Mac 会这样写文件名）：请把它的文件名复制到清单里",
            ),
        )
    return Unfit(
        message,
        Text(
            f"did you mean {real}? Upper and lower case count",
            f"是不是 {real}？文件名区分大小写",
        ),
    )


def _unreadable(file: str, error: OSError | ValueError) -> Unfit:
    why = error.strerror if isinstance(error, OSError) else "not a usable file name"
    return Unfit(
        Text(f"{shown(file)} cannot be looked at ({why})", f"{shown(file)} 无法查看（{why}）"),
        Text("check its name and permissions", "请检查文件名和权限"),
    )


def _absolute(file: str) -> Unfit:
    folder = shown(file.rpartition("/")[0] or "/")
    return Unfit(
        Text(f"{shown(file)} is not relative to the root", f"{shown(file)} 不是相对于根目录的路径"),
        Text(
            f"write it from the root on, e.g. banner/a.png, or say where its folder is here: --map '{folder}=FOLDER'",
            f"请从根目录写起，例如 banner/a.png；或用 --map '{folder}=本机文件夹' 指明它的文件夹在哪里",
        ),
        "--map",
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
        "--root",
    )


class Mapped:
    r"""The folders of another machine, each with the folder below the root that stands for it.

    ==========================  ==================  ==================  ==============
    item                        root                file in the list    gives
    ==========================  ==================  ==================  ==============
    D:\素材=/data/素材          /data               D:\素材\春\a.png    素材/春/a.png
    D:\素材=/data/素材          /data/素材          d:/素材/a.png       a.png
    D:\素材=.                   any                 D:\素材\a.png       a.png
    \\nas\public=公共           any                 \\NAS\public\a.png  公共/a.png
    D:\素材=/data/素材          /data               D:\素材2\a.png      as it is
    D:\素材=/elsewhere          /data               –                   UsageError
    ==========================  ==================  ==================  ==============

    Of several that fit the longest counts. A target that is not absolute is meant from the root on. Without a root no
    local file is looked at, so nothing is mapped.
    """

    def __init__(self, items: Sequence[str], root: str | Path | None) -> None:
        pairs = [_pair(item, root) for item in items]
        self._pairs = sorted(pairs, key=lambda pair: -len(pair[0])) if root is not None else []

    def file(self, file: str) -> str:
        """The file from the root on, where one of the folders holds it; else as it is. Slashes lean forward."""
        for prefix, target in self._pairs:
            # Windows does not tell upper from lower case, and a list typed by hand does not either.
            if file[: len(prefix)].casefold() == prefix and file[len(prefix) : len(prefix) + 1] == "/":
                rest = file[len(prefix) :].lstrip("/")
                return f"{target}/{rest}" if target else rest
        return file


def _pair(item: str, root: str | Path | None) -> tuple[str, str]:
    prefix, equals, target = item.partition("=")
    prefix = prefix.strip().replace("\\", "/").rstrip("/").casefold()
    target = target.strip()
    if not equals or not prefix or not target:
        raise UsageError(
            Text(
                rf"--map {shown(item)}: write it as THERE=HERE, e.g. D:\素材=/data/素材",
                rf"--map {shown(item)}：请写成 原路径=本机路径，例如 D:\素材=/data/素材",
            )
        )
    if root is None:
        return prefix, ""
    real = os.path.realpath(root)
    inside = os.path.realpath(os.path.join(real, target))  # noqa: PTH118  strings, as files.py
    if os.path.commonpath([real, inside]) != real:
        raise UsageError(
            Text(
                f"--map {shown(item)}: {shown(target)} is not below the root {shown(str(root))}; give a --root that holds it",
                f"--map {shown(item)}：{shown(target)} 不在根目录 {shown(str(root))} 之下；请用 --root 指定包含它的文件夹",
            )
        )
    below = os.path.relpath(inside, real).replace(os.sep, "/")
    return prefix, "" if below == "." else below
