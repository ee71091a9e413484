"""Local files to upload: compared with the run's plan, read, and hashed.

The plan holds each file's size and modification time. A file that differs from it is not uploaded.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar, Self

from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.errors import ResourceLimitError, TcbOpsError
from tcb_ops.model import Reason
from tcb_ops.system_errors import exhausted, system_reason

_WHOLE = 1024 * 1024 - 64 * 1024
"""Maximum bytes of a file that is read at once."""
_CHUNK = 1024 * 1024
"""Bytes of a larger file that are read and hashed at a time while few are sent."""
_FEW = 4
"""Larger files sent at once of which each has a thread and read-ahead of its own."""
_AHEAD = 4
"""Chunks that the thread reads ahead."""
_CHUNK_OF_MANY = 256 * 1024
"""Bytes at a time while more are sent, so that memory stays flat: one chunk each, read when it is needed."""


class FileChangedError(TcbOpsError):
    """The local file differs from the plan, before or during the upload."""

    of_row = Reason.FILE_CHANGED


class FileUnreadableError(TcbOpsError):
    """The local file cannot be read, or is not a regular file. `of_row`: the reason of the row that ends with it."""

    of_row = Reason.FILE_UNREADABLE


class Body:
    """The bytes of an upload: of a local file, or of a URL."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.md5 = ""
        """Their digest; empty until all of them have been given out."""
        self.content: bytes | bytearray | None = None
        """All of them, if they were read before the upload."""
        self.error: TcbOpsError | None = None
        """The error of the last read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close what they come from."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes."""
        raise NotImplementedError


class FileBody(Body):
    """A local file, opened and checked by `open_file`, for one upload, which closes it."""

    streams: ClassVar[int] = 0
    """Bodies whose chunks are being sent in this process."""

    def __init__(self, path: Path, fd: int, size: int, mtime_ns: int, known_md5: str = "") -> None:
        super().__init__(size)
        self.path = path
        self._plan = (size, mtime_ns)
        self._fd = fd
        self._left = size
        self._hash = None if known_md5 else hashlib.md5(usedforsecurity=False)
        self._known_md5 = known_md5

    def __exit__(self, *_: object) -> None:
        """Close the file. May be called more than once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.__exit__()  # a thread may open a file for a task that was cancelled meanwhile

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the file's bytes. Of few files, one thread reads ahead of what the connection takes, and another hashes."""
        run = asyncio.get_running_loop().run_in_executor
        few = FileBody.streams < _FEW
        size, ahead = (_CHUNK, _AHEAD) if few else (_CHUNK_OF_MANY, 1)
        # A thread of its own does its work in order. None is the loop's threads, which all files share.
        reading, hashing = (
            (ThreadPoolExecutor(1, "tcb-ops-read"), ThreadPoolExecutor(1, "tcb-ops-hash"))
            if few
            else (None, None)
        )
        remaining = max(1, -(-self.size // size))
        reads: deque[asyncio.Future[bytes]] = deque()
        hashes: deque[asyncio.Future[None]] = deque()
        FileBody.streams += 1
        try:
            while remaining or reads:
                while remaining and len(reads) < ahead:
                    reads.append(run(reading, self._read, size))
                    remaining -= 1
                chunk = await reads.popleft()
                hashes.append(run(hashing, self._update, chunk))
                if len(hashes) == ahead:
                    await hashes.popleft()
                yield chunk
                # A read that came out short is made up for.
                remaining += bool(not remaining and not reads and self._left)
            for update in hashes:
                await update
        finally:
            FileBody.streams -= 1
            under_way: list[asyncio.Future[Any]] = [*reads, *hashes]
            for work in under_way:
                # One that has failed has nobody else to ask for its error.
                _ = work.cancel() or work.cancelled() or work.exception()
            for thread in (reading, hashing):
                if thread is not None:
                    thread.shutdown(wait=False)
        self.md5 = self._digest()

    def read(self) -> Iterator[bytes]:
        """Read and hash all chunks, and compare the file with the plan again. Blocks.

        Raises FileChangedError (it grew, shrank or was modified) and FileUnreadableError, which are also stored in
        `error`.
        """
        while not self.md5:
            chunk = self._read(_CHUNK)
            self._update(chunk)
            if not self._left:
                self.md5 = self._digest()
            yield chunk

    def read_into(self, memory: bytearray) -> None:
        """Read and hash the whole file, whose size the memory has. Blocks, and raises, as `read` does."""
        with self._reading(), FileIO(self._fd, closefd=False) as file:
            whole, count = memoryview(memory), 1
            while self._left and count:
                count = file.readinto(whole[-self._left :]) or 0
                self._left -= count
            self._compare()
        self._update(memory)
        self.content, self.md5 = memory, self._digest()

    def _read(self, size: int) -> bytes:
        with self._reading():
            chunk = os.read(self._fd, min(size, self._left))
            self._left -= len(chunk)
            if not chunk or not self._left:
                self._compare()
        return chunk

    def _compare(self) -> None:
        """Compare the file with its plan, when its bytes have come or no more do."""
        self.error = _check(self.path, self._fd, self._plan)
        if self._left and self.error is None:
            self.error = _changed(self.path)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # also if a cancelled upload has closed it
            self.error = _unreadable(self.path, error)
        if self.error is not None:
            raise self.error

    def _update(self, chunk: bytes | bytearray) -> None:
        if self._hash is not None:
            self._hash.update(chunk)

    def _digest(self) -> str:
        return self._hash.hexdigest() if self._hash is not None else self._known_md5


def _check(path: Path, fd: int, plan: tuple[int, int]) -> FileChangedError | FileUnreadableError | None:
    """Return the error if an open file differs from its plan (size, mtime_ns)."""
    now = os.fstat(fd)
    if not stat.S_ISREG(now.st_mode):
        return FileUnreadableError(detail(DetailCode.FILE_NOT_REGULAR, file=str(path)))
    return None if (now.st_size, now.st_mtime_ns) == plan else _changed(path)


def _changed(path: Path | str) -> FileChangedError:
    return FileChangedError(detail(DetailCode.FILE_CHANGED, file=str(path)))


def _unreadable(path: Path, error: OSError | ValueError) -> FileUnreadableError | ResourceLimitError:
    if (shortage := exhausted(error)) is not None:
        return shortage
    reason = as_detail(system_reason(error))
    return FileUnreadableError(detail(DetailCode.FILE_UNREADABLE, file=str(path), why=reason))


def hash_file(path: Path, size: int, mtime_ns: int) -> str:
    """Return the MD5 of a file. Blocks. Raises as `open_file` does."""
    with open_file(path, size, mtime_ns) as body:
        for _chunk in body.read():
            pass
        return body.md5


_real = lru_cache(maxsize=16)(os.path.realpath)


def _is_below(path: Path, fd: int, root: Path) -> bool:
    """Return whether an open file is inside a folder. If not, the folder's cached real path is resolved again first."""
    real = ""
    with suppress(OSError):  # Linux names the opened file, even if the path has changed since
        real = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115  called for each file, and a Path is slower
    real = real or os.path.realpath(path)
    if real.startswith(_real(root).rstrip(os.sep) + os.sep):
        return True
    _real.cache_clear()
    return real.startswith(_real(root).rstrip(os.sep) + os.sep)


def memory_for(size: int) -> bytearray | None:
    """Return the memory for `open_file`, if a file of so many bytes is read at once.

    Made in the event loop's thread: a thread that reads would get it from the system, and return it, for each file.
    """
    return bytearray(size) if size <= _WHOLE else None


def open_file(
    path: Path,
    size: int,
    mtime_ns: int,
    known_md5: str = "",
    root: Path | None = None,
    memory: bytearray | None = None,
) -> FileBody:
    """Open a file for one upload and compare it with the plan.

    Blocks while the file system does: call it in a thread.

    Args:
        path: the local file.
        size: bytes, as planned.
        mtime_ns: modification time in nanoseconds, as planned.
        known_md5: digest of the same file (by size and time), if known: a file for 400 environments is hashed once.
        root: the folder that must contain the file after links are resolved, since a link may have changed.
        memory: of `memory_for`; the whole file is read into it, and hashed.

    Raises FileChangedError if size or time differ or the file is outside the root; FileUnreadableError if it cannot
    be read or is not a regular file (a pipe does not block); ResourceLimitError.

    """
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
    try:
        fd = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        wrong: TcbOpsError | None = _check(path, fd, (size, mtime_ns))
        if wrong is None and root is not None and not _is_below(path, fd, root):
            wrong = _changed(path)
    except OSError as error:
        wrong = _unreadable(path, error)
    if wrong is not None:
        os.close(fd)
        raise wrong
    body = FileBody(path, fd, size, mtime_ns, known_md5)
    if memory is not None:
        with body:
            body.read_into(memory)
    return body
