"""A ledger of a released version is opened, read and written to; one of an older schema is upgraded first."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from histories import HISTORIES
from tables import table
from workspace import TEA, many

from tcb_ops.errors import TcbOpsError
from tcb_ops.ledger import schema
from tcb_ops.ledger.ledger import Ledger

KEPT = sorted(HISTORIES.glob("*.db"))
"""The ledger of this version, and from 0.1.0 on one of each release with another schema."""


def read(file, query):
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def steps(monkeypatch):
    """Let a step lead to this version from the one before, as if it had added the table of what merchants were asked for."""
    (asked,) = (each for each in schema.statements(sqlite=True) if "CREATE TABLE asked" in each)
    upgrades = {schema.VERSION - 1: (asked,)}
    monkeypatch.setattr(schema, "UPGRADES", upgrades)
    return upgrades


@pytest.fixture
def older(tmp_path):
    """A kept ledger as the version before might have left it."""
    file = tmp_path / "older.db"
    shutil.copy(HISTORIES / "ledger.db", file)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DROP TABLE asked")
        connection.execute("UPDATE tcb_ops SET version = version - 1")
    return file


@pytest.mark.integration
@pytest.mark.needs
@pytest.mark.parametrize("kept", KEPT, ids=[file.stem for file in KEPT])
def test_a_kept_ledger_is_opened_read_and_written_to(open_cli, kept):
    cli = open_cli(many(TEA, rows=2))
    shutil.copy(kept, cli.folder / "ledger.db")
    before = [run["run"] for run in cli("runs", "--json").json["runs"]]
    rows = [cli("show", run, "--json").json["counts"] for run in before]
    assert cli.upload().code == 0
    after = [run["run"] for run in cli("runs", "--json").json["runs"]]
    assert (len(before) > 0, after[1:]) == (True, before)
    assert [cli("show", run, "--json").json["counts"] for run in before] == rows
    assert cli("undo", "--yes").code == 0
    assert read(cli.folder / "ledger.db", "SELECT version FROM tcb_ops") == [(schema.VERSION,)]


@pytest.mark.needs
def test_an_older_ledger_is_upgraded_once_and_keeps_its_runs(older, steps):
    for _ in range(2):
        ledger = Ledger(str(older))
        runs = [run.id for run in ledger.runs()]
        ledger.close()
        assert runs == [
            run for (run,) in read(HISTORIES / "ledger.db", "SELECT id FROM runs ORDER BY number DESC")
        ]
    assert read(older, "SELECT version FROM tcb_ops") == [(schema.VERSION,)]


@pytest.mark.needs
def test_an_upgrade_that_fails_leaves_the_ledger_as_it_was(older, steps):
    steps[schema.VERSION - 1] += ("INSERT INTO nowhere VALUES (1)",)
    before = older.read_bytes()
    with pytest.raises(TcbOpsError):
        Ledger(str(older))
    assert older.read_bytes() == before


@table(
    "found, expected",
    {
        "this version": ([schema.VERSION], []),
        "the version before, with its step": ([schema.VERSION - 1], ["a step"]),
        "one before the first step": ([schema.VERSION - 2], None),
        "a newer one": ([schema.VERSION + 1], None),
        "several": ([schema.VERSION - 1, schema.VERSION], None),
        "none": ([], None),
    },
)
def test_which_ledgers_are_upgraded(monkeypatch, found, expected):
    monkeypatch.setattr(schema, "UPGRADES", {schema.VERSION - 1: ("a step",)})
    assert schema.upgrade(found) == expected
