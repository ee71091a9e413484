"""An empty ledger, on SQLite and on PostgreSQL alike, and what a test plans in it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tcb_ops.engine.list_kinds import UPLOAD
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.records import EnvRecord, NewRun, RunRecord
from tcb_ops.model import Owner, Row, RunSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PLACES = [
    EnvRecord(0, "tea", "wxtea", "茶语小铺", Owner.MERCHANT, left=False),
    EnvRecord(1, "books", "wxbooks", "城南书店", Owner.MERCHANT, left=True),
]
TARGET = "https://api.weixin.qq.com"


def new_run(run_id: str = "20260101-090000-0001", **changes: Any) -> NewRun:
    values: dict[str, Any] = {
        "id": run_id,
        "kind": UPLOAD,
        "target": TARGET,
        "list_name": "清单.csv",
        "list_sha256": "ab" * 32,
        "list_bytes": 123,
        "headers": ("env", "path", "备注"),
        "root": "/files",
        "settings": RunSettings(cluster="中文"),
        "note": "每周",
        "operator": "op",
        "host": "host",
        "out": "",
        "created_at": 1000.0,
    }
    return NewRun(**(values | changes))


def a_row(line: int, place: EnvRecord = PLACES[0], **changes: Any) -> Row:
    cells = (place.env, f"{line}.png", 'a,"b"\n\'=1')
    return Row(line, place.env, f"{line}.png", place.appid, place.merchant, f"{line}.bin", cells, **changes)


def planned(ledger: Ledger, rows: Iterable[Row] = (), **changes: Any) -> RunRecord:
    rows = list(rows) or [a_row(line, PLACES[line % 2]) for line in range(2, 12)]
    return ledger.plan(new_run(**changes), rows, PLACES)


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
