"""A damaged ledger never passes for a whole one: whatever is read from it, damage is named, with what to do."""

import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
from workspace import BOOKS, QUICK, TEA, TEA_TEST, Workspace, many

import tcb_ops as tcb
from tcb_ops.cli.main import run as run_command
from tcb_ops.errors import LedgerDamagedError, LedgerError
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.ledger import database
from tcb_ops.ledger.ledger import Ledger

pytestmark = pytest.mark.slow

PAGE = 4_096
FAULTS = [
    Fault(env=BOOKS.env, path="banner/?.png", errcode=40097),
    Fault(env=TEA.env, path="banner/7.png", errcode=-601002),
]
QUICKLY = ("--backoff", "0.01", "--slow-wait", "0.05", "--patience", "5", "--yes")


def sql(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as ledger, ledger:
        for statement in statements:
            ledger.execute(statement)


def settle(file: Path) -> None:
    """Bring all that is in the write-ahead log into the file."""
    with closing(sqlite3.connect(file)) as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def reopen(file: Path) -> None:
    """Make the newest run unfinished, with every third row pending."""
    sql(
        file,
        "UPDATE rows SET outcome = 'pending', reason = '', errcode = NULL, ended_at = NULL "
        "WHERE line % 3 = 0 AND run = (SELECT max(number) FROM runs)",
        "UPDATE runs SET finished_at = NULL WHERE number = (SELECT max(number) FROM runs)",
    )


def command(workspace: Workspace, ledger: Path, *words: str) -> tuple[int, str, str]:
    """Run a command on a ledger, with the shop's target, merchants and tokens; never a trace or a defect."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run_command(
            [*words, "--config", str(workspace.folder / "tcb-ops.toml"), "--ledger", str(ledger)]
        )
    told = err.getvalue()
    assert "Traceback" not in told, (words, told)
    assert "defect" not in told, (words, told)
    return code, out.getvalue(), told


def upload_again(workspace: Workspace, ledger: Path, *words: str) -> tuple[int, str, str]:
    """Upload the shop's list by the command."""
    folder = workspace.folder
    listed = (str(folder / "list.csv"), "--root", str(folder / "files"))
    return command(workspace, ledger, "upload", *listed, *QUICKLY, *words)


@pytest.fixture
def used(open_workspace):
    """A shop whose ledger holds two finished runs of one list, some rows refused in each, and a report of the second."""

    def opened(rows: int) -> Workspace:
        workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=rows), FAULTS)
        (workspace.folder / "tcb-ops.toml").write_text(
            f'api_base = "{workspace.sim.base}"\nmerchants = "merchants.csv"\nlang = "en"\n'
            '[tokens]\nsource = "file"\nfile = "tokens.csv"\n',
            encoding="utf-8",
        )
        for _ in range(2):
            workspace.upload(new_run=True)
        tcb.open_run(settings=workspace.settings).export(workspace.folder / "report")
        settle(workspace.folder / "ledger.db")
        return workspace

    return opened


READERS: dict[str, Callable[[tcb.Run], Any]] = {
    "counts": lambda run: run.counts,
    "succeeded": lambda run: run.succeeded,
    "repr": repr,
    "rows": lambda run: list(run.rows()),
    "rows of a merchant": lambda run: list(run.rows(merchant=TEA.name)),
    "rows of a path": lambda run: list(run.rows(path="banner/1.png")),
    "failed": lambda run: list(run.rows(outcomes=frozenset({tcb.Outcome.REFUSED}))),
    **{name: methodcaller(name) for name in ("_repr_html_", "summary", "tallies", "results", "errcodes")},
    **{name: methodcaller(name) for name in ("causes", "by_merchant", "changes")},
    "final": lambda run: run.final().counts,
}


@pytest.mark.parametrize(
    ("statement", "result"),
    [
        ("DELETE FROM rows WHERE run = 2 AND line % 10 = 0", "was planned with 30 rows, but 27 can be read"),
        ("UPDATE runs SET rows = 29 WHERE number = 2", "was planned with 29 rows, but 30 can be read"),
        (
            "CREATE TEMP TABLE more AS SELECT * FROM rows WHERE run = 2 AND line < 4; "  # noqa: ISC004  one script
            "UPDATE more SET line = line + 100; INSERT INTO rows SELECT * FROM more",
            "30 rows, but 32 can be read",
        ),
    ],
)
def test_every_reader_compares_the_rows_with_those_that_were_planned(used, statement, result):
    workspace = used(10)
    run = tcb.open_run(settings=workspace.settings)
    first = tcb.runs(settings=workspace.settings)[1]
    sql(workspace.folder / "ledger.db", *statement.split("; "))
    for name, read in READERS.items():
        with pytest.raises(LedgerDamagedError, match=result) as caught:
            read(tcb.open_run(run.id, settings=workspace.settings))
        assert caught.value.exit_code == 3, name
    for read_two in (
        lambda: tcb.diff(first, run.id, settings=workspace.settings),
        lambda: workspace.retry(run.id),
        lambda: run.export(workspace.folder / "again"),
    ):
        with pytest.raises(LedgerDamagedError, match=result):
            read_two()
    assert not (workspace.folder / "again").exists()
    found = tcb.verify(workspace.folder / "report", settings=workspace.settings)
    assert [check.what for check in found.checks if check.state == "differs"] == ["ledger"]
    code, out, _ = command(
        workspace, workspace.folder / "ledger.db", "verify", str(workspace.folder / "report"), "--json"
    )
    assert (code, json.loads(out)["good"]) == (3, False)


def test_an_environment_that_is_missing_is_found_by_all_that_name_it(used):
    workspace = used(10)
    run = tcb.open_run(settings=workspace.settings)
    sql(workspace.folder / "ledger.db", "DELETE FROM envs WHERE run = 2 AND no = 1")
    for name in set(READERS) - {"counts", "succeeded", "repr", "failed"}:  # which read nothing of it
        with pytest.raises(LedgerDamagedError):
            READERS[name](run)
    assert sum(run.counts.values()) == 30  # no row is missing


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: sql(file, "DELETE FROM rows WHERE run = 2 AND line = 5"),
        lambda file: sql(file, "DELETE FROM envs WHERE run = 2 AND no = 2"),
        lambda file: file.write_bytes(file.read_bytes()[:-PAGE]),
    ],
    ids=["row", "environment", "cut off"],
)
def test_a_damaged_run_is_not_resumed_and_nothing_is_sent(used, damage):
    workspace = used(10)
    reopen(workspace.folder / "ledger.db")
    settle(workspace.folder / "ledger.db")
    damage(workspace.folder / "ledger.db")
    sent = workspace.sim.stats["link_calls"]
    for work in (workspace.upload, lambda: tcb.resume(settings=workspace.settings, limits=QUICK)):
        with pytest.raises(LedgerDamagedError, match="damaged"):
            work()
    assert workspace.sim.stats["link_calls"] == sent


def test_rows_that_vanish_while_the_run_works_are_no_success(open_workspace):
    """The index by environment has lost rows: they are pending, and never taken up."""
    workspace = open_workspace(many(TEA, rows=40), [Fault(delay=0.05)])
    lost = False

    def lose(_progress: Any) -> None:
        nonlocal lost
        if not lost:
            lost = True
            sql(workspace.folder / "ledger.db", "DELETE FROM rows WHERE line = 41")

    pace = tcb.RunLimits(concurrency=2, per_env=2, backoff=0.01)
    with pytest.raises(LedgerDamagedError, match="40 rows, but 39"):
        workspace.upload(limits=pace, progress=lose).counts  # noqa: B018


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM rows WHERE run = 1 AND line = 5", "UPDATE runs SET stopped = '{' WHERE number = 1"],
)
def test_one_damaged_run_does_not_hide_the_others(used, damage):
    workspace = used(3)
    ledger = workspace.folder / "ledger.db"
    newer, older = tcb.runs(settings=workspace.settings)
    sql(ledger, damage)
    code, out, told = command(workspace, ledger, "runs")
    assert (code, newer.id in out, older.id in out, older.id in told) == (3, True, False, True)
    code, out, told = command(workspace, ledger, "runs", "--json")
    assert (code, [run["run"] for run in json.loads(out)["runs"]], older.id in told) == (3, [newer.id], True)
    for given in ("latest", newer.id):
        code, out, told = command(workspace, ledger, "show", given, "--json")
        assert (code, json.loads(out)["run"]) == (0, newer.id), told
    code, _, told = command(workspace, ledger, "show", older.id)
    assert (code, older.id in told) == (3, True)
    for words in (("prune", "--older-than", "1d"), ("confirm",), ("undo", "--yes")):
        code, _, told = command(workspace, ledger, *words)
        assert code in {0, 1}, (words, told)
    code, _, told = upload_again(workspace, ledger, "--new-run")
    assert code == 1, told
    reopen(ledger)
    code, _, told = command(workspace, ledger, "upload", "--resume", "latest", *QUICKLY)
    assert code in {0, 1}, told


def test_a_damaged_undo_does_not_hide_its_upload(used):
    workspace = used(3)
    ledger = workspace.folder / "ledger.db"
    newer, older = tcb.runs(settings=workspace.settings)
    settings = json.dumps({"of": [older.id]})
    sql(ledger, f"UPDATE runs SET kind = 'undo', settings = '{settings}', stopped = '{{' WHERE number = 2")
    code, out, told = command(workspace, ledger, "runs")
    assert (code, older.id in out, newer.id in told) == (3, True, True)


def test_rows_with_an_outcome_that_nobody_wrote_are_no_success(used):
    workspace = used(3)
    ledger = workspace.folder / "ledger.db"
    for table in ("rows", "sums"):
        sql(ledger, f"UPDATE {table} SET outcome = 'gone' WHERE run = 2 AND outcome = 'uploaded'")
    for name in ("show", "errcodes", "report"):
        code, out, told = command(workspace, ledger, name, "--json")
        assert (code, json.loads(out)["error"]["code"], "damaged" in told) == (3, "ledger_damaged", True), (
            told
        )


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM rows WHERE run = 2 AND line = 5", "UPDATE runs SET settings = '{' WHERE number = 2"],
)
def test_damage_of_an_earlier_run_leaves_the_new_one_its_report(used, damage):
    workspace = used(10)
    ledger, report = workspace.folder / "ledger.db", workspace.folder / "today"
    sql(ledger, damage)
    code, out, told = upload_again(workspace, ledger, "--new-run", "--out", str(report), "--json")
    assert code == 1, told
    assert sum(json.loads(out)["counts"].values()) == 30
    assert tcb.verify(report, settings=workspace.settings).good


def test_an_emptied_ledger_is_not_taken_for_a_new_one(used):
    workspace = used(3)
    ledger, locks = workspace.folder / "emptied.db", workspace.folder / "emptied.db-locks"
    ledger.touch()
    (workspace.folder / "ledger.db-locks").rename(locks)
    sent = workspace.sim.stats["link_calls"]
    for code, _, told in (command(workspace, ledger, "runs"), upload_again(workspace, ledger)):
        assert (code, str(locks) in told) == (3, True), told
    assert (ledger.stat().st_size, workspace.sim.stats["link_calls"]) == (0, sent)
    shutil.rmtree(locks)
    code, _, told = upload_again(workspace, ledger, "--out", str(workspace.folder / "new"))
    assert code == 1, told


def test_another_programs_lock_is_said_after_two_seconds(used, monkeypatch, caplog):
    workspace = used(3)
    file = workspace.folder / "ledger.db"
    monkeypatch.setattr(database, "WAITING_SECONDS", 3)
    with closing(Ledger(str(file))) as ledger, closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="Another program has locked the ledger"):
            ledger.finish(ledger.run("latest"), 1.0)
        assert "Another program has locked the ledger" in caplog.text
        other.execute("COMMIT")
    opened = workspace.folder / "opened.db"
    Ledger(str(opened)).close()
    with closing(sqlite3.connect(opened, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(tcb.UsageError, match="Another program has locked the ledger"):
            Ledger(str(opened))


def test_a_locked_or_unreachable_ledger_is_not_called_damaged(used):
    workspace = used(3)
    with closing(Ledger(str(workspace.folder / "ledger.db"))) as ledger:
        with ledger.writing() as connection:
            connection.execute("PRAGMA query_only = ON")
        with pytest.raises(LedgerError) as caught:
            ledger.finish(ledger.run("latest"), 1.0)
    assert not isinstance(caught.value, LedgerDamagedError)
