"""A damaged ledger never passes for a whole one: whatever is read from it, damage is named, with what to do."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

import pytest
from workspace import BOOKS, QUICK, TEA, TEA_TEST, OpenWorkspace, Workspace, many

import tcb_ops as tcb
from tcb_ops.cli.main import run as run_command
from tcb_ops.errors import LedgerDamagedError, LedgerError, TcbOpsError
from tcb_ops.features.simulator import Fault
from tcb_ops.kinds import kind_named
from tcb_ops.model import Reason, RowEnd
from tcb_ops.runs import database
from tcb_ops.runs.database import check_file
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.locks import SqliteFile, hold, process_identity
from tcb_ops.runs.plan import list_spec, plan
from tcb_ops.runs.records import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = 4_096
DAMAGES = 27
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


def without_index(file: Path, index: str, statement: str) -> None:
    """Change a table behind the back of one of its indexes."""
    with closing(sqlite3.connect(file, isolation_level=None)) as ledger:
        kept = ledger.execute("SELECT * FROM sqlite_master WHERE name = ?", (index,)).fetchone()
        ledger.execute("PRAGMA writable_schema = ON")
        ledger.execute("DELETE FROM sqlite_master WHERE name = ?", (index,))
    with closing(sqlite3.connect(file)) as ledger, ledger:
        ledger.execute(statement)
    with closing(sqlite3.connect(file, isolation_level=None)) as ledger:
        ledger.execute("PRAGMA writable_schema = ON")
        ledger.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", kept)


def reopen(file: Path) -> None:
    """Make the newest run unfinished, with every third row pending."""
    sql(
        file,
        "UPDATE rows SET outcome = 'pending', reason = '', errcode = NULL, ended_at = NULL "
        "WHERE line % 3 = 0 AND run = (SELECT max(number) FROM runs)",
        "UPDATE runs SET finished_at = NULL WHERE number = (SELECT max(number) FROM runs)",
        "DELETE FROM tallies WHERE run = (SELECT max(number) FROM runs)",
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


def write_run(workspace: Workspace, number: int) -> None:
    """Write a finished run of the shop's list, one row in seven refused."""
    with closing(Ledger(workspace.settings.ledger)) as ledger:
        work = list_spec(workspace.read(), kind_named("upload"))
        run = plan(
            ledger, work, workspace.settings, out=None, options={}, new_run=True, now=1.7e9 + number
        ).run
        refused = {"outcome": tcb.Outcome.REFUSED, "reason": Reason.REFUSED, "errcode": 40097, "errmsg": "no"}
        good = {
            "outcome": tcb.Outcome.UPLOADED,
            "errcode": 0,
            "md5": "ab" * 16,
            "bytes": 5,
            "file_id": "cloud://a/b",
        }
        lines = range(2, run.rows + 2)
        ends = [
            RowEnd(
                line, attempts=1, started_at=1.7e9, ended_at=1.7e9 + line, **(good if line % 7 else refused)
            )
            for line in lines
        ]
        ledger.record(run, ends, Usage(5.0, len(ends), len(ends)))
        ledger.finish(run, 1.7e9 + 60)


@pytest.fixture
def used(open_workspace: OpenWorkspace) -> Callable[..., Workspace]:
    """A shop whose ledger holds two finished runs of one list, some rows refused in each, and a report of the second.

    The rows are sent, or only `written` to the ledger: for many.
    """

    def opened(rows: int, *, written: bool = False) -> Workspace:
        workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=rows), FAULTS)
        (workspace.folder / "tcb-ops.toml").write_text(
            f'api_base = "{workspace.sim.base}"\nmerchants = "merchants.csv"\nlang = "en"\n'
            '[tokens]\nsource = "file"\nfile = "tokens.csv"\n',
            encoding="utf-8",
        )
        for number in range(2):
            if written:
                write_run(workspace, number)
            else:
                tcb.upload(workspace.read(), settings=workspace.settings, limits=QUICK, new_run=True)
        tcb.open_run(settings=workspace.settings).export(workspace.folder / "report")
        settle(workspace.folder / "ledger.db")
        return workspace

    return opened


READERS: dict[str, Callable[[tcb.Run], Any]] = {
    "counts": lambda run: run.counts,
    "succeeded": lambda run: run.succeeded,
    "repr": repr,
    "html": lambda run: run._repr_html_(),
    "summary": lambda run: run.summary(),
    "tallies": lambda run: run.tallies(),
    "rows": lambda run: list(run.rows()),
    "rows of a merchant": lambda run: list(run.rows(merchant=TEA.name)),
    "rows of a path": lambda run: list(run.rows(path="banner/1.png")),
    "failed": lambda run: list(run.rows(outcomes=frozenset({tcb.Outcome.REFUSED}))),
    "results": lambda run: run.results(),
    "errcodes": lambda run: run.errcodes(),
    "causes": lambda run: run.causes(),
    "by_merchant": lambda run: run.by_merchant(),
    "changes": lambda run: run.changes(),
    "final": lambda run: run.final().counts,
}


@pytest.mark.slow
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
def test_every_reader_compares_the_rows_with_those_that_were_planned(
    used: Callable[..., Workspace], statement: str, result: str
) -> None:
    workspace = used(10)
    run = tcb.open_run(settings=workspace.settings)
    first = tcb.all_runs(settings=workspace.settings)[1]
    sql(workspace.folder / "ledger.db", *statement.split("; "))
    for name, read in READERS.items():
        with pytest.raises(LedgerDamagedError, match=result) as caught:
            read(tcb.open_run(run.id, settings=workspace.settings))
        assert caught.value.exit_code == 3, name
    for read_two in (
        lambda: tcb.diff(first, run.id, settings=workspace.settings),
        lambda: tcb.retry(run.id, workspace.merchants, settings=workspace.settings, limits=QUICK),
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


def test_an_environment_that_is_missing_is_found_by_all_that_name_it(used: Callable[..., Workspace]) -> None:
    workspace = used(10)
    run = tcb.open_run(settings=workspace.settings)
    sql(workspace.folder / "ledger.db", "DELETE FROM envs WHERE run = 2 AND no = 1")
    for name in set(READERS) - {"counts", "succeeded", "repr", "failed"}:  # which read nothing of it
        with pytest.raises(LedgerDamagedError):
            READERS[name](run)
    assert sum(run.counts.values()) == 30  # no row is missing


def test_a_run_without_its_record_does_not_let_another_be_the_latest(used: Callable[..., Workspace]) -> None:
    workspace = used(3)
    sql(workspace.folder / "ledger.db", "DELETE FROM runs WHERE number = 2")
    sent = workspace.sim.stats["link_calls"]
    for ask in (
        lambda: tcb.open_run(settings=workspace.settings),
        lambda: tcb.all_runs(settings=workspace.settings),
        lambda: tcb.upload(workspace.read(), settings=workspace.settings, limits=QUICK),
    ):
        with pytest.raises(LedgerDamagedError, match="own record is missing"):
            ask()
    assert workspace.sim.stats["link_calls"] == sent


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: sql(file, "DELETE FROM rows WHERE run = 2 AND line = 5"),
        lambda file: sql(file, "DELETE FROM envs WHERE run = 2 AND no = 2"),
        lambda file: without_index(file, "rows_by_place", "DELETE FROM rows WHERE run = 1 AND line = 5"),
        lambda file: without_index(
            file, "rows_by_place", "UPDATE rows SET place = 0 WHERE run = 2 AND line = 27"
        ),
    ],
    ids=["row", "environment", "index of another run", "index"],
)
def test_a_damaged_run_is_not_resumed_and_nothing_is_sent(
    used: Callable[..., Workspace], damage: Callable[[Path], None]
) -> None:
    workspace = used(10)
    reopen(workspace.folder / "ledger.db")
    damage(workspace.folder / "ledger.db")
    sent = workspace.sim.stats["link_calls"]
    for work in (
        lambda: tcb.upload(workspace.read(), settings=workspace.settings, limits=QUICK),
        lambda: tcb.resume(settings=workspace.settings, limits=QUICK),
    ):
        with pytest.raises(LedgerDamagedError, match="damaged"):
            work()
    assert workspace.sim.stats["link_calls"] == sent


@pytest.mark.slow
def test_rows_that_vanish_while_the_run_works_are_no_success(open_workspace: OpenWorkspace) -> None:
    """The index by environment has lost rows: they are pending, and never taken up."""
    workspace = open_workspace(many(TEA, rows=40), [Fault(delay=0.02)])
    lost = False

    def lose(_progress: Any) -> None:
        nonlocal lost
        if not lost:
            lost = True
            sql(workspace.folder / "ledger.db", "DELETE FROM rows WHERE line = 41")

    pace = tcb.RunLimits(concurrency=2, per_env=2, backoff=0.01)
    with pytest.raises(LedgerDamagedError, match="40 rows, but 39"):
        tcb.upload(workspace.read(), settings=workspace.settings, limits=pace, progress=lose).counts  # noqa: B018


def test_what_to_do_is_said_in_both_languages_and_the_command_recovers(
    used: Callable[..., Workspace],
) -> None:
    workspace = used(3)
    ledger = workspace.folder / "ledger.db"
    sql(ledger, "DELETE FROM rows WHERE run = 1 AND line = 5")
    code, out, told = command(
        workspace, ledger, "show", tcb.all_runs(settings=workspace.settings)[1].id, "--json"
    )
    assert (code, out) == (3, "")
    assert f"sqlite3 {ledger} .recover | sqlite3 {workspace.folder / 'ledger.recovered.db'}" in told
    _, _, chinese = command(workspace, ledger, "runs", "--lang", "zh")
    assert "台账" in chinese
    assert "已损坏" in chinese


def test_one_damaged_run_does_not_hide_the_others(used: Callable[..., Workspace]) -> None:
    workspace = used(3)
    ledger = workspace.folder / "ledger.db"
    newer, older = tcb.all_runs(settings=workspace.settings)
    sql(ledger, "DELETE FROM rows WHERE run = 1 AND line = 5")
    code, out, told = command(workspace, ledger, "runs", "--json")
    assert code == 3
    assert [run["run"] for run in json.loads(out)["runs"]] == [newer.id]
    assert older.id in told
    code, out, told = command(workspace, ledger, "runs")
    assert (code, newer.id in out, older.id in out, older.id in told) == (3, True, False, True)


def test_one_damaged_record_does_not_hide_the_other_runs(used: Callable[..., Workspace]) -> None:
    workspace = used(3)
    ledger = workspace.folder / "ledger.db"
    newer, older = tcb.all_runs(settings=workspace.settings)
    sql(ledger, "UPDATE runs SET stopped = '{' WHERE number = 1")
    code, out, told = command(workspace, ledger, "runs", "--json")
    assert (code, [run["run"] for run in json.loads(out)["runs"]], older.id in told) == (3, [newer.id], True)
    for given in ("latest", newer.id):
        code, out, told = command(workspace, ledger, "show", given, "--json")
        assert (code, json.loads(out)["run"]) == (0, newer.id), told
    code, _, told = command(workspace, ledger, "show", older.id)
    assert (code, older.id in told) == (3, True)
    with pytest.raises(LedgerDamagedError, match=older.id):
        tcb.all_runs(settings=workspace.settings)
    for words in (("prune", "--older-than", "1d"), ("confirm",), ("undo", "--yes")):
        code, _, told = command(workspace, ledger, *words)
        assert code in {0, 1}, (words, told)
    list_of = (str(workspace.folder / "list.csv"), "--root", str(workspace.folder / "files"))
    code, _, told = command(workspace, ledger, "upload", *list_of, "--new-run", *QUICKLY)
    assert code == 1, told
    reopen(ledger)
    code, _, told = command(workspace, ledger, "upload", "--resume", "latest", *QUICKLY)
    assert code in {0, 1}, told


@pytest.mark.parametrize("words", [("show", "--json"), ("errcodes", "--json")], ids=["show", "errcodes"])
def test_rows_with_an_outcome_that_nobody_wrote_are_no_success(
    used: Callable[..., Workspace], words: tuple[str, ...]
) -> None:
    workspace = used(3)
    ledger = workspace.folder / "ledger.db"
    sql(ledger, "UPDATE rows SET outcome = 'gone' WHERE run = 2 AND outcome = 'uploaded'")
    code, out, told = command(workspace, ledger, *words)
    assert (code, out) == (3, ""), told
    assert "damaged" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("DELETE FROM rows WHERE run = 2 AND line = 5", "29 can be read"),
        ("UPDATE envs SET merchant = x'00ff' WHERE run = 2 AND no = 1", "values that tcb-ops does not write"),
        ("UPDATE runs SET settings = '{' WHERE number = 2", "values that tcb-ops does not write"),
    ],
)
def test_damage_of_an_earlier_run_leaves_the_new_one_its_report(
    used: Callable[..., Workspace], damage: str, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = used(10)
    ledger, report = workspace.folder / "ledger.db", workspace.folder / "today"
    before = tcb.open_run(settings=workspace.settings).id
    sql(ledger, damage)
    words = (
        "upload",
        str(workspace.folder / "list.csv"),
        "--root",
        str(workspace.folder / "files"),
        "--new-run",
    )
    code, out, told = command(workspace, ledger, *words, "--out", str(report), "--json", *QUICKLY)
    assert code == 1, told
    assert sum(json.loads(out)["counts"].values()) == 30
    assert before in caplog.text
    assert named in caplog.text
    assert tcb.verify(report, settings=workspace.settings).good


@pytest.mark.slow
def test_a_ledger_whose_file_is_damaged_takes_no_new_run_and_nothing_is_sent(
    used: Callable[..., Workspace],
) -> None:
    workspace = used(10)
    without_index(
        workspace.folder / "ledger.db",
        "rows_by_place",
        "UPDATE rows SET place = 0 WHERE run = 1 AND line = 27",
    )
    sent = workspace.sim.stats["link_calls"]
    with pytest.raises(LedgerDamagedError, match="SQLite's check"):
        tcb.upload(workspace.read(), settings=workspace.settings, limits=QUICK, new_run=True)
    assert workspace.sim.stats["link_calls"] == sent


@pytest.mark.slow
def test_an_emptied_ledger_is_not_taken_for_a_new_one(used: Callable[..., Workspace]) -> None:
    workspace = used(3)
    ledger, locks = workspace.folder / "emptied.db", workspace.folder / "emptied.db-locks"
    ledger.touch()
    (workspace.folder / "ledger.db-locks").rename(locks)
    sent = workspace.sim.stats["link_calls"]
    words = (
        "upload",
        str(workspace.folder / "list.csv"),
        "--root",
        str(workspace.folder / "files"),
        *QUICKLY,
    )
    for given in (("runs",), words):
        code, _, told = command(workspace, ledger, *given)
        assert (code, str(locks) in told) == (3, True), told
    assert (ledger.stat().st_size, workspace.sim.stats["link_calls"]) == (0, sent)
    with hold(SqliteFile(str(ledger), ledger), "some-run"):
        code, _, told = command(workspace, ledger, "runs")
        assert (code, "some-run" in told, process_identity() in told, "remove the folder" in told) == (
            3,
            True,
            True,
            False,
        )
    shutil.rmtree(locks)
    code, _, told = command(workspace, ledger, *words, "--out", str(workspace.folder / "new"))
    assert code == 1, told


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or not shutil.which("setpriv"), reason="root may write everywhere")
def test_a_ledger_in_a_read_only_folder_is_called_so(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "ledger.db"
    file.parent.mkdir()
    Ledger(str(file)).close()
    file.parent.chmod(0o500)
    open_it = "import sys, tcb_ops.runs.ledger as one; one.Ledger(sys.argv[1])"
    without_privilege = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    argv = [*without_privilege, sys.executable, "-c", open_it, str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    file.parent.chmod(0o700)
    assert f"UsageError: {file} cannot be the ledger: {file.parent} is read-only" in done.stderr


OPEN = """
import sys
from tcb_ops.runs.ledger import Ledger
print("ready", flush=True)
for name in sys.stdin:
    Ledger(name.strip()).close()
    print("opened", flush=True)
"""


@pytest.mark.slow
def test_a_ledger_that_another_process_is_making_is_not_called_empty(tmp_path: Path) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", OPEN], **pipes) for _ in range(4)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
        for number in range(10):
            (tmp_path / f"{number}.db-locks").mkdir()
            for process in processes:
                process.stdin.write(f"{tmp_path / f'{number}.db'}\n")
                process.stdin.flush()
            assert [process.stdout.readline() for process in processes] == ["opened\n"] * 4
    finally:
        for process in processes:
            process.communicate(timeout=60)


@pytest.mark.slow
def test_the_check_of_the_file_ends_when_its_time_is_up(tmp_path: Path) -> None:
    file = tmp_path / "some.db"
    sql(
        file,
        "CREATE TABLE numbers (n)",
        "CREATE INDEX by_n ON numbers (n)",
        "INSERT INTO numbers WITH RECURSIVE up (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < 5000) "
        "SELECT n FROM up",
    )
    without_index(file, "by_n", "UPDATE numbers SET n = 0 WHERE n = 4999")
    with closing(sqlite3.connect(file)) as connection:
        assert "by_n" in check_file(connection)
        assert check_file(connection, 0.5, iter(range(100)).__next__) == ""
        connection.execute(
            "SELECT count(*) FROM numbers a, numbers b"
        ).fetchone()  # nothing stops it any more


@pytest.mark.slow
def test_another_programs_lock_is_said_after_two_seconds(
    used: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = used(3)
    file = workspace.folder / "ledger.db"
    monkeypatch.setattr(database, "WAITING_SECONDS", 3)
    with closing(Ledger(str(file))) as ledger, closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another program has locked the ledger"):
            ledger.finish(ledger.run("latest"), 1.0)
        assert "another program has locked the ledger" in caplog.text
        other.execute("COMMIT")
    opened = workspace.folder / "opened.db"
    Ledger(str(opened)).close()
    with closing(sqlite3.connect(opened, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(tcb.UsageError, match="another program has locked the ledger"):
            Ledger(str(opened))


@pytest.mark.slow
def test_a_locked_or_unreachable_ledger_is_not_called_damaged(used: Callable[..., Workspace]) -> None:
    workspace = used(3)
    with closing(Ledger(str(workspace.folder / "ledger.db"))) as ledger:
        with ledger._writing() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
        with pytest.raises(LedgerError) as caught:
            ledger.finish(ledger.run("latest"), 1.0)
    assert not isinstance(caught.value, LedgerDamagedError)


# --- damage of any kind -----------------------------------------------------------------------------------------------


def zeroed(file: Path, dice: random.Random) -> None:
    pages = file.stat().st_size // PAGE
    overwrite(file, dice.randrange(1, pages) * PAGE, bytes(PAGE))


def scribbled(file: Path, dice: random.Random) -> None:
    for _ in range(dice.randint(1, 4)):
        overwrite(file, dice.randrange(100, file.stat().st_size), dice.randbytes(dice.randint(1, 400)))


def page_of_noise(file: Path, dice: random.Random) -> None:
    overwrite(file, dice.randrange(1, file.stat().st_size // PAGE) * PAGE, dice.randbytes(PAGE))


def swapped(file: Path, dice: random.Random) -> None:
    body = file.read_bytes()
    one, two = (PAGE * number for number in dice.sample(range(1, len(body) // PAGE), 2))
    overwrite(file, one, body[two : two + PAGE])
    overwrite(file, two, body[one : one + PAGE])


def truncated(file: Path, dice: random.Random) -> None:
    with file.open("r+b") as out:
        out.truncate(dice.randrange(PAGE, file.stat().st_size))


def text_changed(file: Path, dice: random.Random) -> None:
    """Values become those of another type, or words that nobody wrote."""
    column = dice.choice(
        ["outcome", "reason", "cells", "path", "line", "place", "ended_at", "errmsg", "attempts"]
    )
    value = dice.choice(["x'00ff'", "'\N{SNOWMAN}'", "1e300", "-7", "'[1]'"])
    sql(file, f"UPDATE OR IGNORE rows SET {column} = {value} WHERE line % 97 = {dice.randrange(97)}")


def record_changed(file: Path, dice: random.Random) -> None:
    column = dice.choice(["rows", "kind", "headers", "settings", "created_at", "target"])
    value = dice.choice(["x'00ff'", "'{'", "1e300", "-7", "'[1]'"])
    sql(file, f"UPDATE OR IGNORE runs SET {column} = {value} WHERE number = {dice.choice([1, 2])}")


def rows_lost(file: Path, dice: random.Random) -> None:
    sql(file, f"DELETE FROM rows WHERE run = 2 AND line > {dice.randrange(2, 1500)}")


def index_apart(file: Path, dice: random.Random) -> None:
    index = dice.choice(["rows_by_place", "rows_by_path", "rows_by_errcode"])
    without_index(file, index, f"DELETE FROM rows WHERE run = 2 AND line % 50 = {dice.randrange(50)}")


def overwrite(file: Path, at: int, body: bytes) -> None:
    with file.open("r+b") as out:
        out.seek(at)
        out.write(body)


KINDS = (
    zeroed,
    scribbled,
    page_of_noise,
    swapped,
    truncated,
    text_changed,
    record_changed,
    rows_lost,
    index_apart,
)
LOOKS = (("runs", "--json"), ("show", "--json"), ("errcodes", "--json"), ("verify", "report", "--json"))
WORKS = (
    ("report", "--out", "out"),
    ("diff",),
    ("retry", *QUICKLY, "--json"),
    ("upload", "list.csv", *QUICKLY, "--json"),
)


def tells_the_truth(name: str, code: int, out: str, truth: dict[str, dict[str, int]]) -> bool:
    """Whether what a command printed as JSON has all rows, and, where the truth is known, how they ended."""
    if name == "verify":
        return bool(json.loads(out)["good"]) is (code == 0)
    if name not in {"runs", "show", "retry", "upload"}:
        return True
    told = json.loads(out)
    runs = told["runs"] if name == "runs" else [told]
    return all(
        sum(run["counts"].values()) == run["rows"] and run["counts"] == truth.get(run["run"], run["counts"])
        for run in runs
    )


@pytest.mark.slow
def test_no_damage_passes_for_success_or_ends_in_a_trace(
    used: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged copies of a ledger of 2 × 900 rows: each command says the whole truth, or ends with exit code 2 or 3."""
    workspace = used(300, written=True)
    monkeypatch.chdir(workspace.folder)
    newer, older = tcb.all_runs(settings=workspace.settings)
    truth = {run.id: run.counts for run in (newer, older)}
    lines = [record.row.line for record in newer.rows()]
    found = 0
    for seed in range(DAMAGES):
        dice, file = random.Random(seed), workspace.folder / f"damaged-{seed}.db"
        shutil.copyfile(workspace.folder / "ledger.db", file)
        work = WORKS[(seed // len(KINDS)) % len(WORKS)]
        unfinished = work[0] == "upload"
        if unfinished:
            reopen(file)
            settle(file)
        KINDS[seed % len(KINDS)](file, dice)
        with suppress(sqlite3.Error):
            settle(file)
        named = False
        for words in (*LOOKS, work):
            extra = ("--root", "files") if unfinished and words is work else ()
            given = (words[0], older.id, newer.id) if words[0] == "diff" else words
            if words[0] == "report":
                shutil.rmtree(workspace.folder / "out", ignore_errors=True)
            code, out, told = command(workspace, file, *given, *extra)
            where = (seed, KINDS[seed % len(KINDS)].__name__, words, code, told)
            named |= code in {2, 3}
            if code in {2, 3}:
                message = told or out  # verify prints what differs as data
                assert "damaged" in message or "cannot be used" in message or code == 2, where
                assert message.strip(), where
            else:
                assert tells_the_truth(words[0], code, out, {} if unfinished else truth), where
        found += named
        settings = workspace.with_options(ledger=str(file))
        for name in ("counts", "rows", "failed", "final"):
            read = READERS[name]
            try:
                run = tcb.open_run(newer.id, settings=settings)
                value = read(run)
            except TcbOpsError:
                continue
            if unfinished:
                continue
            if name == "counts":
                assert value == truth[newer.id], (seed, name)
            elif name == "rows":
                assert [record.row.line for record in value] == lines, (seed, name)
    assert found > DAMAGES // 2
