"""Reasons for system errors as messages, and the detection of exhausted file descriptors and memory."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

from tcb_ops import shell
from tcb_ops.errors import ResourceLimitError
from tcb_ops.i18n import Text, _

_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
_MEMORY = {errno.ENOMEM, errno.ENOBUFS}
_REASONS = {
    errno.EACCES: _("no permission"),
    errno.EPERM: _("no permission"),
    errno.ENOENT: _("there is no such file or folder"),
    errno.ENOTDIR: _("a part of its path is not a folder"),
    errno.EISDIR: _("it is a folder"),
    errno.ESPIPE: _("it is not a regular file but a pipe or a device"),
    errno.EEXIST: _("it already exists"),
    errno.ENOSPC: _("the disk is full"),
    errno.EFBIG: _("the file is larger than allowed here"),
    errno.EROFS: _("the disk is read-only"),
    errno.ENAMETOOLONG: _("the name is too long"),
    errno.ELOOP: _("its links form a loop"),
    errno.EBUSY: _("another program is using it"),
    errno.EIO: _("the disk reports an error"),
    errno.EDQUOT: _("the disk quota is used up"),
    errno.ENOEXEC: _("it is not a program for this machine"),
    errno.EADDRNOTAVAIL: _("this machine does not have that address"),
}
_WINDOWS_REASONS = {
    6: _("Windows reserves that name for a device"),  # ERROR_INVALID_HANDLE
    32: _("another program, such as Excel, is using it: close it there"),  # ERROR_SHARING_VIOLATION
    33: _("another program, such as Excel, is using it: close it there"),  # ERROR_LOCK_VIOLATION
    123: _("Windows does not allow such a name"),  # ERROR_INVALID_NAME
    206: _("the path is too long for Windows: shorten it"),  # ERROR_FILENAME_EXCED_RANGE
}
"""By Windows' own code, where errno says less (EACCES, EINVAL, ENOENT)."""


def system_reason(error: OSError | ValueError) -> Text:
    """Return why a file or folder cannot be used. Python raises ValueError for a name with a NUL."""
    if not isinstance(error, OSError):
        return _("not a usable file name")
    code = error.errno or 0
    windows = 206 if path_too_long(error) else getattr(error, "winerror", None) or 0
    if code == errno.EACCES and shell.WINDOWS:
        # Windows has no code for a folder in a file's place; one that is listed is permitted.
        with suppress(OSError):
            os.scandir(error.filename2 or error.filename or "").close()
            code = errno.EISDIR
    if (reason := _WINDOWS_REASONS.get(windows)) is not None:
        return reason
    return _REASONS.get(code) or _("system error {code}", code=code)


def path_too_long(error: OSError | ValueError) -> bool:
    """Return whether Windows says "not found" because a path is too long. Where long paths are on, it may be just missing."""
    missing = getattr(error, "winerror", None) in {2, 3}  # ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND
    return missing and len(os.path.abspath(getattr(error, "filename", ""))) > 259  # noqa: PTH100  keeps the name as it is


def exhausted(error: BaseException, *, unclear: bool = False) -> ResourceLimitError | None:
    """Return the error to raise, outside any `except`, if an error means that a resource is exhausted; else None.

    Args:
        error: is checked with its causes, because libraries wrap the system's errors.
        unclear: whether the error hides the system's error, as in SQLite and host name resolution. Then a file is opened
            as a test.

    """
    code = _errno(error)
    # Code that could not look up a host's name has loaded sockets, which is slow.
    no_address = "socket" in sys.modules and isinstance(error, sys.modules["socket"].gaierror)
    if code is None and (unclear or no_address):
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as found:
            code = _errno(found)
    if code in _DESCRIPTORS:
        return ResourceLimitError(
            _(
                "Too many open files: no further file or connection can be opened. Close other programs, raise the limit "
                "(`ulimit -n 4096`) or lower {--concurrency}, then try again."
            )
        )
    if code in _MEMORY:
        return ResourceLimitError(
            _(
                "The system has no memory left for this. Close other programs or lower {--concurrency}, then "
                "try again."
            )
        )
    return None


def raise_if_exhausted(error: BaseException, *, unclear: bool = False) -> None:
    """Raise ResourceLimitError if a resource is exhausted."""
    if (shortage := exhausted(error, unclear=unclear)) is not None:
        raise shortage from None


def _errno(error: BaseException | None) -> int | None:
    """Return the errno of an error or its nearest cause that concerns a resource."""
    while error is not None:
        if isinstance(error, MemoryError):
            return errno.ENOMEM
        if isinstance(error, OSError) and error.errno in _DESCRIPTORS | _MEMORY:
            return error.errno
        error = error.__cause__ or error.__context__
    return None
