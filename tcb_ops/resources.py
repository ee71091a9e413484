"""Reasons for system errors as messages, detection of exhausted file descriptors and memory, and atomic writing of files."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from getpass import getuser
from pathlib import Path
from typing import BinaryIO

from tcb_ops import shell
from tcb_ops.errors import ResourceLimitError
from tcb_ops.formatting import fold
from tcb_ops.i18n import Text, _

_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
_MEMORY = {errno.ENOMEM, errno.ENOBUFS}
_LONGEST_NAME = 255
"""Bytes of a file's name."""


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


def open_regular(file: Path) -> BinaryIO:
    """Open a file for reading. Raises OSError, also for a pipe or a device: to open or read it might never end."""
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.ESPIPE, "not a regular file", str(file))
    return file.open("rb")


def path_too_long(error: OSError | ValueError) -> bool:
    """Return whether Windows says "not found" because a path is too long. Where long paths are on, it may be just missing."""
    missing = getattr(error, "winerror", None) in {2, 3}  # ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND
    return missing and len(os.path.abspath(getattr(error, "filename", ""))) > 259  # noqa: PTH100  keeps the name as it is


def others_may_read(path: Path, *, windows: bool = shell.WINDOWS) -> bool:
    """Return whether other users of this machine may read a file or folder. Raises OSError.

    On Windows, where a file has its folder's access list, everything outside this user's profile counts as readable.
    """
    if windows:
        return not path.resolve().is_relative_to(Path.home())
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def restricting(path: Path, *, windows: bool = shell.WINDOWS) -> str:
    """Compose the command that lets nobody but this user read a file, or a folder with all that is in it."""
    if windows:
        inherited = "(OI)(CI)" if path.is_dir() else ""
        return shell.join(["icacls", str(path), "/inheritance:r", "/grant:r", f"{getuser()}:{inherited}F"])
    return shell.join(["chmod", *(["-R", "go-rwx"] if path.is_dir() else ["600"]), str(path)])


def nearest_path(missing: Path, fits: Callable[[Path], bool] = Path.is_file) -> Path | None:
    """Return the path beside a missing one with the most similar name, ignoring extensions; None without one."""
    from difflib import get_close_matches

    by_name: dict[str, Path] = {}
    with suppress(OSError):
        by_name = {fold(path.stem): path for path in sorted(missing.parent.iterdir()) if fits(path)}
    near = get_close_matches(fold(missing.stem), by_name, n=1)
    return by_name[near[0]] if near else None


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


def sync_to_disk(path: Path) -> None:
    """Sync a file, or the names in a folder, to disk; Windows does so with folders itself."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_names(folder: Path) -> None:
    """Sync the names in a folder, unless it cannot be read, or its file system does not sync folders."""
    try:
        sync_to_disk(folder)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EINVAL}:
            raise


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it, synced to disk with their names. Raises OSError."""
    for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        with suppress(FileExistsError):  # another process was faster
            missing.mkdir(mode=mode)
        _sync_names(missing.parent)
    if not folder.is_dir():
        raise FileExistsError(errno.EEXIST, "")


@contextmanager
def replacing(dest: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield an empty file that replaces `dest` at the end, synced to disk with its name; after an error `dest` is unchanged.

    `private`: only its owner may read it. The file's name is always the same, so that what a killed process left is
    removed: nobody else may write `dest` at the same time.
    """
    part = dest.with_name(f".{dest.name}.part")
    if len(os.fsencode(part.name)) > _LONGEST_NAME:
        import hashlib

        part = dest.with_name(f".{hashlib.sha256(os.fsencode(dest.name)).hexdigest()}.part")
    if not part.is_symlink():  # a link there is nothing that we left
        part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666))
    try:
        yield part
        sync_to_disk(part)
        _replace(part, dest)
        _sync_names(dest.parent)
    finally:
        with suppress(OSError):  # it is gone if it has replaced `dest`
            part.unlink()


def _replace(part: Path, dest: Path) -> None:
    try:
        part.replace(dest)
    except PermissionError as error:
        if os.name != "nt" or dest.is_dir():
            raise
        raise OSError(errno.EBUSY, "") from error  # Windows replaces no file that a program has open


def bundled(inside: str, beside: str) -> Path:
    """Return a folder of bundled files: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return package / inside if (package / inside).is_dir() else package.parent / beside


SAMPLE = bundled("data", "data")
"""The sample: merchants, lists, files, a fault plan, a ledger."""


def sample_folder() -> Path:
    """Return the sample's copy in the working folder, which an operator may have changed, or else the packaged sample."""
    copied = Path("data")
    names = ("merchants.csv", "paths.csv", "files")
    return copied if all((copied / name).exists() for name in names) else SAMPLE
