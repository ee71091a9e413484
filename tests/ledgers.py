"""An empty ledger, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tcb_ops.runs.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> str:
    """Where the ledger is: a file's name, or a URL. It is not made yet."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("tmp_path") / "ledger.db")
    url: str = request.getfixturevalue("postgres").url(request.getfixturevalue("database"))
    return url


@pytest.fixture
def ledger(place: str) -> Iterator[Ledger]:
    with closing(Ledger(place)) as opened:
        yield opened


@pytest.fixture
def sqlite_ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(str(tmp_path / "ledger.db"))) as opened:
        yield opened
