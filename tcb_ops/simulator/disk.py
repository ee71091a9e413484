"""Objects on disk, for a simulator that is asked to keep the bytes."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Upload", "object_file"]

_AWKWARD = re.compile(r'[\x00-\x1f\x7f%<>:"\\|?*]')
LONGEST_NAME = 200
"""Bytes of a file name; file systems stop at 255."""


def object_file(directory: Path, bucket: str, key: str) -> Path:
    """Give an object's file, below `directory/bucket` whatever the key: what no file name may hold is %-encoded.

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
    """An object on its way to disk: in a temporary file until `keep` renames it."""

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.NamedTemporaryFile(dir=directory, prefix=".upload-", delete=False)  # noqa: SIM115  closed in __exit__
        self._temporary = Path(self._file.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Add the next bytes."""
        self._file.write(data)

    def keep(self, target: Path) -> None:
        """Put the object in its place, over an older one."""
        self._file.close()
        target.parent.mkdir(parents=True, exist_ok=True)
        self._temporary.replace(target)
