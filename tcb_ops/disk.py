"""Files and folders: opened, replaced as a whole and synced to disk, who may read them, and which is probably meant."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from getpass import getuser
from pathlib import Path
from typing import BinaryIO

from tcb_ops import shell
from tcb_ops.formatting import fold

_LONGEST_NAME = 255
"""Bytes of a file's name."""


def open_regular(file: Path) -> BinaryIO:
    """Open a file for reading. Raises OSError, also for a pipe or a device: to open or read it might never end."""
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.ESPIPE, "not a regular file", str(file))
    return file.open("rb")


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
