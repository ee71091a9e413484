"""Local files: whether each may be uploaded, its path on this machine, its Content-Type."""

from __future__ import annotations

import mimetypes
import ntpath
import os
import posixpath
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path

from tcb_ops.errors import UsageError
from tcb_ops.formatting import shown
from tcb_ops.i18n import Text, plural
from tcb_ops.model import Problem, file_problem
from tcb_ops.resources import system_reason

MAX_FILE_BYTES = 5 * 1024**3
"""POST Object takes 5 GB at most (cloud.tencent.com/document/product/436/14690)."""

_CACHED = 16_384


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that may be uploaded."""

    size: int
    """Bytes."""
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class UnusableFile:
    """Why a file may not be uploaded."""

    message: Text
    fix: Text
    option: str = ""
    """The option of the command line that `fix` names."""
    missing: bool = False
    """There is no file of this name, nor one of nearly this name."""


class LocalFiles:
    """The files below a root; each is inspected once, however many rows upload it."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._inside = self._root.rstrip(os.sep) + os.sep
        self._name = str(root)
        self._folder = lru_cache(maxsize=4096)(os.path.realpath)
        self._names = lru_cache(maxsize=256)(self._list)
        self.inspect = lru_cache(maxsize=_CACHED)(self._inspect)

    def problem(self) -> Problem | None:
        """Return what is wrong with the root itself."""
        if os.path.isdir(self._root):  # noqa: PTH112  strings: a Path costs more than the stat
            return None
        root = shown(self._name)
        message = Text(f"the root folder {root} does not exist", f"根目录 {root} 不存在")
        fix = Text("give the folder that holds the files with --root", "请用 --root 指明存放文件的文件夹")
        return file_problem(message, fix, option="--root")

    def _inspect(self, file: str) -> LocalFile | UnusableFile:
        """Inspect a file, named relative to the root with forward slashes; links are resolved first."""
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
            return _missing(file, self._similar(file))
        except (OSError, ValueError) as error:
            return _unreadable(file, error)
        if not real.startswith(self._inside):
            return _outside(file)
        return _judge(file, facts, readable=readable)

    def _similar(self, file: str) -> str:
        """Return the one file that differs by letter case or Unicode form only; empty where there is none, or several."""
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


_FOLDERS = 500
_DEPTH = 3


def find_root(files: Sequence[str], *near: Path) -> Path | None:
    """Return the folder that holds most of these files: one of `near`, or below it; None where none holds half.

    Looks at 500 folders of each, three levels deep; hidden ones are left out.
    """
    best, most = None, (len(files) + 1) // 2 - 1
    for start in near:
        for folder in islice(_folders(start, _DEPTH), _FOLDERS):
            held = sum((folder / file).is_file() for file in files)
            if held > most:
                best, most = folder, held
    return best


def _folders(start: Path, depth: int) -> Iterator[Path]:
    """Yield a folder and those below it, breadth first."""
    level = [start]
    for _ in range(depth + 1):
        below: list[Path] = []
        for folder in level:
            yield folder
            with suppress(OSError), os.scandir(folder) as entries:
                below += sorted(
                    Path(entry.path)
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                )
        level = below


def _form(name: str) -> str:
    """A name without differences of case and Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def _judge(file: str, facts: os.stat_result, *, readable: bool) -> LocalFile | UnusableFile:
    name = shown(file)
    if stat.S_ISDIR(facts.st_mode):
        return UnusableFile(
            Text(f"{name} is a folder", f"{name} 是文件夹"),
            Text("name a file; a folder needs a row per file", "请写文件；文件夹要每个文件一行"),
        )
    if not stat.S_ISREG(facts.st_mode):
        return UnusableFile(
            Text(
                f"{name} is not a regular file but a pipe, socket or device",
                f"{name} 不是普通文件，而是管道、套接字或设备",
            ),
            Text("name a regular file", "请写普通文件"),
        )
    if not readable:
        return UnusableFile(
            Text(f"{name} cannot be read: no permission", f"{name} 无法读取：没有权限"),
            Text("give yourself read permission on it", "请给自己加上读权限"),
        )
    if facts.st_size > MAX_FILE_BYTES:
        return UnusableFile(
            Text(
                f"{name} has {plural(facts.st_size, 'byte')}; a form upload takes 5 GB ({MAX_FILE_BYTES:,}) at most",
                f"{name} 有 {facts.st_size:,} 字节；表单上传最多 5 GB（{MAX_FILE_BYTES:,}）",
            ),
            Text("split or compress it, or upload it in the console", "请拆分或压缩，或在控制台上传"),
        )
    return LocalFile(facts.st_size, facts.st_mtime_ns)


def _missing(file: str, similar: str) -> UnusableFile:
    name = shown(file)
    message = Text(f"there is no file {name} below the root", f"根目录下没有文件 {name}")
    if not similar:
        return UnusableFile(
            message,
            Text("check the name (case matters) and --root", "请检查文件名（区分大小写）和 --root"),
            "--root",
            missing=True,
        )
    real = shown(similar)
    if unicodedata.normalize("NFC", similar) == unicodedata.normalize("NFC", file):
        # The two look the same on any screen, so the name alone would not help.
        return UnusableFile(
            message,
            Text(
                f"there is {real}, which looks the same but is in another Unicode form (as macOS writes names): copy its name into the list",
                f"有 {real}，看起来一样，但 Unicode 形式不同（Mac 会这样写文件名）：请把它的文件名复制到清单里",
            ),
        )
    return UnusableFile(
        message,
        Text(
            f"did you mean {real}? Upper and lower case matter",
            f"是不是 {real}？文件名区分大小写",
        ),
    )


def _unreadable(file: str, error: OSError | ValueError) -> UnusableFile:
    why = system_reason(error)
    return UnusableFile(
        Text(f"{shown(file)} cannot be inspected ({why.en})", f"{shown(file)} 无法查看（{why.zh}）"),
        Text("check its name and permissions", "请检查文件名和权限"),
    )


def _absolute(file: str) -> UnusableFile:
    folder = shown(file.rpartition("/")[0] or "/")
    return UnusableFile(
        Text(f"{shown(file)} is not relative to the root", f"{shown(file)} 不是相对于根目录的路径"),
        Text(
            f"write it relative to the root, e.g. banner/a.png, or map its folder to one here: --map '{folder}=FOLDER'",
            f"请从根目录写起，例如 banner/a.png；或用 --map '{folder}=本机文件夹' 指明它的文件夹在哪里",
        ),
        "--map",
    )


def _outside(file: str) -> UnusableFile:
    return UnusableFile(
        Text(
            f"{shown(file)} is outside the root (links resolved)",
            f"{shown(file)} 在根目录之外（已解析链接）",
        ),
        Text(
            "copy it below the root, or give a --root that holds all files",
            "请把它复制到根目录下，或用 --root 指定包含全部文件的文件夹",
        ),
        "--root",
    )


class PathMap:
    r"""Folders of another machine, each mapped to a folder below the root.

    ==========================  ==================  ==================  ==============
    item                        root                file in the list    result
    ==========================  ==================  ==================  ==============
    D:\素材=/data/素材          /data               D:\素材\春\a.png    素材/春/a.png
    D:\素材=/data/素材          /data/素材          d:/素材/a.png       a.png
    D:\素材=.                   any                 D:\素材\a.png       a.png
    \\nas\public=公共           any                 \\NAS\public\a.png  公共/a.png
    D:\素材=/data/素材          /data               D:\素材2\a.png      unchanged
    D:\素材=/elsewhere          /data               –                   UsageError
    ==========================  ==================  ==================  ==============

    The longest match counts. A target that is not absolute is relative to the root. Without a root no local file is
    inspected, so nothing is mapped.
    """

    def __init__(self, items: Sequence[str], root: str | Path | None) -> None:
        pairs = [_pair(item, root) for item in items]
        self._pairs = sorted(pairs, key=lambda pair: -len(pair[0])) if root is not None else []

    def map(self, file: str) -> str:
        """Map a file with forward slashes to one relative to the root; unchanged where no folder matches."""
        for prefix, target in self._pairs:
            # Windows ignores case, and lists typed by hand do, too.
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
    inside = os.path.realpath(os.path.join(real, target))  # noqa: PTH118  as above
    if os.path.commonpath([real, inside]) != real:
        raise UsageError(
            Text(
                f"--map {shown(item)}: {shown(target)} is not below the root {shown(str(root))}; give a --root that holds it",
                f"--map {shown(item)}：{shown(target)} 不在根目录 {shown(str(root))} 之下；请用 --root 指定包含它的文件夹",
            )
        )
    below = os.path.relpath(inside, real).replace(os.sep, "/")
    return prefix, "" if below == "." else below


UNKNOWN_TYPE = "application/octet-stream"

_WEB_TYPES = {
    ".7z": "application/x-7z-compressed",
    ".aac": "audio/aac",
    ".apk": "application/vnd.android.package-archive",
    ".apng": "image/apng",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".bz2": "application/x-bzip2",
    ".csv": "text/csv",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".eot": "application/vnd.ms-fontobject",
    ".epub": "application/epub+zip",
    ".flac": "audio/flac",
    ".geojson": "application/geo+json",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".gz": "application/gzip",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".ico": "image/vnd.microsoft.icon",
    ".jfif": "image/jpeg",
    ".js": "text/javascript",
    ".jsonld": "application/ld+json",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".m4v": "video/x-m4v",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".mp3": "audio/mpeg",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".otf": "font/otf",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".rar": "application/vnd.rar",
    ".rtf": "application/rtf",
    ".ts": "video/mp2t",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xml": "text/xml",
    ".xz": "application/x-xz",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}


def content_type_of(path: str, file: str = "") -> str:
    """Return the Content-Type for a cloud path's extension; where the path has none, for the local file's.

    The table is the standard library's own (not the machine's /etc/mime.types) with the web types that it lacks or that
    differ between versions of Python. A compressed file has its own type: it is stored as it is, without Content-Encoding.

    =====================  ==========  ==========================
    path                   file        type
    =====================  ==========  ==========================
    a/b.PNG                any         image/png
    a/b.tar.gz             any         application/gzip
    a/b                    c.webp      image/webp
    a/b.unknown            c.png       application/octet-stream
    a/.png, a/b            c           application/octet-stream
    =====================  ==========  ==========================
    """
    extension = posixpath.splitext(path)[1] or posixpath.splitext(file)[1]
    return _types().get(extension.lower(), UNKNOWN_TYPE)


@cache
def _types() -> dict[str, str]:
    # An instance has the library's own table only; the machine's files are read into the module's.
    return mimetypes.MimeTypes().types_map[True] | _WEB_TYPES
