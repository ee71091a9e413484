"""Objects on disk, for a simulator that is asked to keep the bytes."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

_AWKWARD = re.compile(r'[\x00-\x1f\x7f%<>:"\\|?*]')
SMALL = 64 * 1024
"""Bytes of the largest object that is kept without a folder."""
LATEST = 64
"""Objects that are kept without a folder: what somebody who tries one upload wants to fetch again."""
LONGEST_NAME = 200
"""Bytes of a file name; file systems stop at 255."""


def object_file(directory: Path, bucket: str, key: str) -> Path:
    """Return an object's file, below `directory/bucket` whatever the key: what no file name may hold is %-encoded.

    ==================  =====================
    key                 below the bucket
    ==================  =====================
    banner/海报 1.png   banner/海报 1.png
    ../../etc/passwd    %2E%2E/%2E%2E/etc/passwd
    /etc//passwd        %/etc/%/passwd
    a:b?                a%3Ab%3F
    a. (a dot last)     a%2E
    ==================  =====================
    """
    return directory.joinpath(bucket, *(_name(segment) for segment in key.split("/")))


def _name(segment: str) -> str:
    if not segment:
        return "%"
    name = _AWKWARD.sub(lambda found: f"%{ord(found[0]):02X}", segment)
    if not name.strip("."):
        return "%2E" * len(name)
    if name[-1] in ". ":  # Windows drops them
        name = f"{name[:-1]}%{ord(name[-1]):02X}"
    if len(name.encode()) > LONGEST_NAME:
        return f"{name[:40]}%{hashlib.sha256(segment.encode()).hexdigest()}"
    return name


class Upload:
    """An object on its way in: in a temporary file until `keep` renames it, or without a folder in memory if small."""

    def __init__(self, directory: Path | None) -> None:
        self.data: bytearray | None = bytearray()
        """None once it is too large for memory."""
        self._file = None
        if directory:
            self._file = tempfile.NamedTemporaryFile(dir=directory, prefix=".upload-", delete=False)  # noqa: SIM115  closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Add the next bytes."""
        if self._file is not None:
            self._file.write(data)
        elif self.data is not None:
            self.data = None if len(self.data) + len(data) > SMALL else self.data + data

    def keep(self, target: Path) -> None:
        """Put the object's file in its place, over an older one."""
        if self._file is not None:
            self._file.close()
            target.parent.mkdir(parents=True, exist_ok=True)
            Path(self._file.name).replace(target)


class BlobStore:
    """Takes objects in and gives them out. Memory stays flat: without a folder only the latest small ones are kept."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._small: dict[tuple[str, str], bytes] = {}

    def upload(self) -> Upload:
        """Begin an object: a context with `write`; what is not `put` is dropped."""
        return Upload(self._directory)

    def put(self, upload: Upload, bucket: str, key: str) -> None:
        """Keep an object that came whole. Raises OSError where the folder cannot hold it beside the others."""
        if self._directory:
            upload.keep(object_file(self._directory, bucket, key))
            return
        self._small.pop((bucket, key), None)
        if upload.data is not None:
            self._small[bucket, key] = bytes(upload.data)
        if len(self._small) > LATEST:
            del self._small[next(iter(self._small))]

    def get(self, bucket: str, key: str) -> bytes | Path | None:
        """Return an object, or its file; None where it is not kept."""
        if self._directory is None:
            return self._small.get((bucket, key))
        file = object_file(self._directory, bucket, key)
        return file if file.is_file() else None

    def remove(self, bucket: str, key: str) -> None:
        """Delete an object."""
        if self._directory is None:
            self._small.pop((bucket, key), None)
        else:
            object_file(self._directory, bucket, key).unlink(missing_ok=True)
