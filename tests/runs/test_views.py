"""The SQL views of a ledger: documented columns, one line per run, row, and run, environment and code."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from workspace import BOOKS

import tcb_ops as tcb
from tcb_ops.runs.views import NAMES
from tcb_ops.simulator import Fault

COLUMNS = {
    "v_runs": "run kind target list_name parent note operator host started_at finished_at rows seconds link_calls upload_calls",
    "v_rows": "run line merchant appid env path outcome code errmsg rid http_status attempts bytes md5 started_at ended_at seconds",
    "v_errcodes": "run started_at kind target merchant appid env code rows",
}


def test_they_agree_with_the_run(open_workspace: Any):
    workspace = open_workspace(faults=[Fault(env=BOOKS.env, errcode=85088)])
    run = tcb.upload(workspace.read(), settings=workspace.settings)
    with closing(sqlite3.connect(workspace.settings.ledger)) as ledger:
        for name in NAMES:
            found = [column[0] for column in ledger.execute(f"SELECT * FROM {name}").description]
            assert found == COLUMNS[name].split(), name
        assert ledger.execute("SELECT run, kind, rows FROM v_runs").fetchall() == [(run.id, "upload", 30)]
        assert ledger.execute("SELECT COUNT(*), SUM(code IS NULL) FROM v_rows").fetchone() == (30, 20)
        assert ledger.execute("SELECT merchant, code, rows FROM v_errcodes").fetchall() == [
            (BOOKS.name, "85088", 10)
        ]


def test_an_upgraded_ledger_has_them(ledger_of_version_1: Any):
    tcb.all_runs(settings=ledger_of_version_1)
    with closing(sqlite3.connect(ledger_of_version_1.ledger)) as ledger:
        views = ledger.execute("SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name").fetchall()
    assert [name for (name,) in views] == sorted(NAMES)


@pytest.fixture
def ledger_of_version_1(tmp_path: Any) -> Any:
    from pathlib import Path
    from shutil import copy

    kept = sorted((Path(__file__).parents[1] / "data").glob("ledger*"))
    return tcb.load_settings(options={"ledger": str(copy(kept[0], tmp_path / "old.db"))})
