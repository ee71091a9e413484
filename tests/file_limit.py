"""Files that cannot grow: a disk that takes no more."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes. Python would keep half of a module that it compiles."""
    resource = pytest.importorskip("resource")
    limits, sys.dont_write_bytecode = resource.getrlimit(resource.RLIMIT_FSIZE), True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sys.dont_write_bytecode = False
