"""Where the bytes of the store's objects are: in a folder, or, of the latest small ones, in memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Self

from tcb_ops.simulator.disk import Upload, object_file

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["Shelf"]

SMALL = 64 * 1024
"""Bytes of the largest object that is kept without a folder."""
LATEST = 64
"""Objects that are kept without a folder: what somebody who tries one upload wants to fetch again."""


class Shelf:
    """Takes objects in and gives them out. Memory stays flat: without a folder it forgets."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._small: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def upload(self) -> Upload | Small:
        """Begin an object: a context with `write`; what is not `put` is dropped."""
        return Upload(self._directory) if self._directory else Small()

    def put(self, upload: Upload | Small, bucket: str, key: str) -> None:
        """Keep an object that came whole. Raises OSError where the folder cannot hold it beside the others."""
        if isinstance(upload, Upload):
            if self._directory:
                upload.keep(object_file(self._directory, bucket, key))
            return
        self._small.pop((bucket, key), None)
        if upload.data is not None:
            self._small[bucket, key] = bytes(upload.data)
        while len(self._small) > LATEST:
            self._small.popitem(last=False)

    def get(self, bucket: str, key: str) -> bytes | Path | None:
        """Give an object, or its file; None where it is not kept."""
        if self._directory is None:
            return self._small.get((bucket, key))
        file = object_file(self._directory, bucket, key)
        return file if file.is_file() else None

    def remove(self, bucket: str, key: str) -> None:
        """Let an object be gone."""
        if self._directory is None:
            self._small.pop((bucket, key), None)
        else:
            object_file(self._directory, bucket, key).unlink(missing_ok=True)


class Small:
    """An object on its way to memory; its data is None once it is too large for that."""

    def __init__(self) -> None:
        self.data: bytearray | None = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def write(self, data: bytes) -> None:
        """Add the next bytes."""
        if self.data is not None:
            self.data = None if len(self.data) + len(data) > SMALL else self.data + data
