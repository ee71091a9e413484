"""Why the system refuses something, in our own words; and that it has run out of what every row needs."""

from __future__ import annotations

import errno
import os
import socket
import sys

from tcb_ops.errors import ResourceLimitError
from tcb_ops.i18n import Text

if sys.platform != "win32":
    import resource  # now: once the descriptors have run out, no module can be loaded

_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
_MEMORY = {errno.ENOMEM, errno.ENOBUFS}


_REASONS = {
    errno.EACCES: Text("no permission", "没有权限"),
    errno.EPERM: Text("no permission", "没有权限"),
    errno.ENOENT: Text("there is no such file or folder", "没有这个文件或文件夹"),
    errno.ENOTDIR: Text("a part of its path is not a folder", "路径中有一级不是文件夹"),
    errno.EISDIR: Text("it is a folder", "这是文件夹"),
    errno.EEXIST: Text("it exists already", "已经存在"),
    errno.ENOSPC: Text("the disk is full", "磁盘已满"),
    errno.EFBIG: Text("the file is larger than is allowed here", "文件超过此处允许的大小"),
    errno.EROFS: Text("the disk is read-only", "磁盘只读"),
    errno.ENAMETOOLONG: Text("the name is too long", "名称过长"),
    errno.ELOOP: Text("its links lead in a circle", "链接互相循环"),
    errno.EBUSY: Text("another program is using it", "正被别的程序占用"),
    errno.EIO: Text("the disk reports an error", "磁盘报告读写错误"),
}


def system_reason(error: OSError | ValueError) -> Text:
    """Return why a file or folder cannot be used; ValueError is what Python raises for a name with a NUL."""
    if not isinstance(error, OSError):
        return Text("not a usable file name", "不是可用的文件名")
    code = error.errno or 0
    return _REASONS.get(code) or Text(f"system error {code}", f"系统错误 {code}")


def exhausted(error: BaseException, *, unclear: bool = False) -> ResourceLimitError | None:
    """Return the error to raise, outside any `except`, where an error means that a resource has run out; else None.

    Args:
        error: with its causes, as libraries wrap what the system says.
        unclear: whether the error hides what the system said, as SQLite and a host name's look-up do. Then opening a
            file is tried now.

    """
    code = _errno(error)
    if code is None and (unclear or isinstance(error, socket.gaierror)):
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as found:
            code = _errno(found)
    if code in _DESCRIPTORS:
        return ResourceLimitError(_descriptors(code))
    if code in _MEMORY:
        return ResourceLimitError(
            Text(
                "the system has no memory left for this. Close other programs or lower --concurrency, then run the same "
                "command again.",
                "系统内存不足。请关闭其他程序或调低 --concurrency，然后再次运行同一命令。",
            )
        )
    return None


def raise_if_exhausted(error: BaseException, *, unclear: bool = False) -> None:
    """Raise ResourceLimitError where `exhausted` finds one."""
    found = exhausted(error, unclear=unclear)
    if found is not None:
        raise found from None


def _errno(error: BaseException | None) -> int | None:
    """Return the errno of an error or the nearest of its causes, where it is about a resource."""
    while error is not None:
        if isinstance(error, MemoryError):
            return errno.ENOMEM
        if isinstance(error, OSError) and error.errno in _DESCRIPTORS | _MEMORY:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def _descriptors(code: int | None) -> Text:
    limit = _limit()
    if code == errno.ENFILE or limit is None:
        return Text(
            "too many open files on this machine: no more can be opened or connected to. Close other programs or lower "
            "--concurrency, then run the same command again.",
            "本机打开的文件过多，无法再打开文件或建立连接。请关闭其他程序或调低 --concurrency，然后再次运行同一命令。",
        )
    return Text(
        f"too many open files: the limit of this process is {limit}, for files and connections together. Raise ulimit -n, "
        "for example to 4096 (`ulimit -n 4096`), or lower --concurrency; then run the same command again.",
        f"打开的文件过多：本进程的上限为 {limit}（文件与连接合计）。请调高 ulimit -n，例如 `ulimit -n 4096`，"
        "或调低 --concurrency，然后再次运行同一命令。",
    )


def _limit() -> int | None:
    """Return how many files this process may have open; None where the system does not tell."""
    return None if sys.platform == "win32" else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
