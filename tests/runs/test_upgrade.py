"""A ledger of an earlier schema version is upgraded in place: nothing is lost, whoever else is at work, wherever it is killed."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from postgres import PASSWORD
from workspace import BOOKS

import tcb_ops as tcb
from tcb_ops.details import stored
from tcb_ops.errors import LedgerDamagedError, LedgerError, UsageError
from tcb_ops.model import Outcome, Row, RowEnd
from tcb_ops.reports.formats.csv import RowsDigest
from tcb_ops.runs.database import VIEWS
from tcb_ops.runs.ledger import Ledger
from tcb_ops.runs.links import LINKS
from tcb_ops.runs.locks import host_name, operator_name
from tcb_ops.runs.migrations import STEPS
from tcb_ops.runs.records import EnvRecord, NewRun, Usage
from tcb_ops.runs.schema import SCHEMA, VERSION, holders
from tcb_ops.runs.uploads import UPLOAD
from tcb_ops.simulator import Fault

if TYPE_CHECKING:
    from postgres import Postgres

DATA = Path(__file__).parent.parent / "data"
LEDGERS = ["ledger-v1-7a462b5.db", "ledger-v1.db", "ledger-v2.db", "ledger-v3.db"]
VERSIONS = dict(zip(LEDGERS, (1, 1, 2, 3), strict=True))
TABLES = ("runs", "envs", "rows", "spent", "exports")


def contents(file: Path) -> dict[str, list[dict[str, Any]]]:
    """All records of a ledger's file, by table, without what every upgrade adds."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return {
            table: [
                {"content_type": None, "cache_control": None, "etag": None, **dict(record)}
                for record in connection.execute(f"SELECT * FROM {table}")
            ]
            for table in TABLES
        }


def old_ledger(source: str, place: str) -> None:
    """Put a ledger of an earlier version at a file or into a database."""
    if "://" not in place:
        shutil.copy(DATA / source, place)
        return
    Ledger(place).close()
    engine, kept = sa.create_engine(place), contents(DATA / source)
    with engine.begin() as connection:
        for table in TABLES:
            if kept[table]:
                known = SCHEMA.tables[table]
                connection.execute(
                    known.insert(),
                    [
                        {name: bool(value) if name == "left" else value for name, value in record.items()
                         if name in known.c} for record in kept[table]
                    ],
                )  # fmt: skip
        connection.exec_driver_sql(f"SELECT setval('runs_number_seq', {len(kept['runs'])})")
        for table in ("tallies", "partitions", "cluster_sessions"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("ALTER TABLE rows DROP COLUMN etag")
        connection.exec_driver_sql(f"UPDATE tcb_ops SET version = {VERSIONS[source]}")
        if VERSIONS[source] == 1:
            connection.exec_driver_sql("DROP TABLE alembic_version")
        else:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{VERSIONS[source]}'")
        if source == LEDGERS[0]:
            for column in ("content_type", "cache_control"):
                connection.exec_driver_sql(f"ALTER TABLE rows DROP COLUMN {column}")
            connection.exec_driver_sql("DROP TABLE holders")
    engine.dispose()


@pytest.fixture(params=LEDGERS)
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def old(place: str, source: str) -> str:
    old_ledger(source, place)
    return place


def read_version(place: str) -> int:
    engine = sa.create_engine(place if "://" in place else f"sqlite:///{place}")
    with closing(engine.connect()) as connection:
        found = int(connection.exec_driver_sql("SELECT version FROM tcb_ops").scalar_one())
    engine.dispose()
    return found


def test_every_run_and_row_is_as_it_was(old: str, source: str) -> None:
    before = contents(DATA / source)
    with closing(Ledger(old)) as ledger:
        found = {run.id: run for run in ledger.runs()}
        assert {run["id"] for run in before["runs"]} == set(found)
        for record in before["runs"]:
            run = found[record["id"]]
            rows = [row for row in before["rows"] if row["run"] == record["number"]]
            told = result if VERSIONS[source] < 3 else as_stored
            ends = [
                (one.row.line, one.end.outcome, told(one.end), one.end.errcode) for one in ledger.rows(run)
            ]
            assert ends == [(row["line"], row["outcome"], row["detail"], row["errcode"]) for row in rows]
            assert (run.finished_at, run.seconds) == (record["finished_at"], record["seconds"])
            assert (run.stopped is None) == (record["stopped"] == "")
        stopped = [run for run in found.values() if run.stopped is not None]
        assert {(run.kind, run.finished_at) for run in stopped} == (
            {(LINKS, None)} if VERSIONS[source] < 3 else set()
        )


def as_stored(end: RowEnd) -> str:
    """What a row of version 3 and later has: a code and its parameters."""
    return stored(end.detail)


def result(end: RowEnd) -> str:
    """What a row of before version 3 had in words, in one language or of the store."""
    if end.detail is None:
        return ""
    assert set(end.detail.params) in ({"message"}, {"en", "zh"})
    assert (str(end.detail.code) == "store_message") == (end.reason == "store_refused")
    [kept] = set(end.detail.params.values())
    return str(kept)


@pytest.mark.slow
def test_reasons_of_version_1_keep_both_sentences(place: str) -> None:
    old_ledger(LEDGERS[1], place)
    [kept] = [json.loads(run["stopped"]) for run in contents(DATA / LEDGERS[1])["runs"] if run["stopped"]]
    with closing(Ledger(place)) as ledger:
        [stopped] = [run.stopped for run in ledger.runs() if run.stopped is not None]
        assert (str(stopped.code), stopped.params, stopped.zh) == ("text", kept, kept["zh"])


def test_reasons_of_version_2_keep_their_codes(place: str) -> None:
    old_ledger(LEDGERS[2], place)
    with closing(Ledger(place)) as ledger:
        away, refused = [run.stopped for run in ledger.runs() if run.stopped is not None]
        errmsg = "access clientip is not registered requestIP: 203.0.113.9"
        assert (str(refused.code), refused.params) == ("platform", {"errcode": 61004, "errmsg": errmsg})
        assert str(away.code) == "outage"
        assert "the firewall. The run stops, because no host could be reached for 0.3 s" in away.en
        assert "0.3 秒内未能连上任何地址" in away.zh


DIGESTS = {
    1: "90c3419e68b0b616333f1c2fffc75ad56e654b20a3a525ba26b423773620314b",
    2: "cd7f8b1de985d83f410449a36025bad122e4b33d1967eb6d52d2367a6a037d89",
    3: "d60fa508829f7fe80c9761a66755d1a5bb5935d7d945c0a55f2d65e535507c9d",
    4: "5be42a3a99f4b99447b649558a6d7b7b0cb1cf695f0d32169eb4827c4b05715d",
    5: "9b2f1d9722f71bc29a6505c01621a4412728c24e7c4582a5d38d430ac344e861",
    6: "d904b9fbbd5abbf45556da79c69d88f59c8342824dd053b4cbc98130c4ddb2db",
}
"""Of the rows of the runs of ledger-v2.db, as version 2 computed them: reports from before are still verified."""


def test_reports_of_before_keep_their_digest(place: str) -> None:
    old_ledger(LEDGERS[2], place)
    with closing(Ledger(place)) as ledger:
        for run in ledger.runs():
            digest = RowsDigest()
            assert len(list(digest.passing(ledger.rows(run)))) == run.rows
            assert digest.hexdigest() == DIGESTS[run.number]


@pytest.mark.parametrize("source", LEDGERS[2:3])
@pytest.mark.parametrize(
    ("stopped", "en"),
    [
        (
            {"code": "platform", "params": {"errcode": 61004, "errmsg": ""}},
            "errcode 61004 (-) affects every merchant",
        ),
        (
            {"code": "token_source", "params": {"seconds": 2, "en": "It hangs.", "zh": "无应答。"}},
            "It hangs. The token source has not responded",
        ),
        ({"code": "canary", "params": {"rows": 1200}}, "1,200"),
        ({"code": "interrupted", "params": {}}, "interrupted"),
        ({"code": "other", "params": {"en": "the disk is full", "zh": "磁盘已满"}}, "the disk is full"),
    ],
)
def test_every_reason_of_version_2_is_converted(
    tmp_path: Path, source: str, stopped: dict[str, Any], en: str
) -> None:
    file = tmp_path / "ledger.db"
    shutil.copy(DATA / source, file)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE runs SET stopped = ? WHERE number = 6", (json.dumps(stopped),))
    with closing(Ledger(str(file))) as ledger:
        newest = ledger.run("latest").stopped
        assert newest is not None
        assert en in newest.en


@pytest.mark.parametrize(
    "stopped",
    [
        "interrupted",
        "[]",
        "[" * 200_000,
        '{"code":"platform"}',
        '{"code":"platform","params":{}}',
        '{"code":"outage","params":{"seconds":"a","last":"b"}}',
        '{"code":"canary","params":[]}',
        '{"code":"unknown","params":{}}',
        r'{"code":"other","params":{"en":"\ud800","zh":"\ud800"}}',
    ],
    ids=lambda stopped: stopped[:40],
)
def test_a_reason_that_version_2_does_not_write_is_kept_unchanged(tmp_path: Path, stopped: str) -> None:
    file = tmp_path / "ledger.db"
    shutil.copy(DATA / LEDGERS[2], file)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE runs SET stopped = ? WHERE number = 6", (stopped,))
    with closing(Ledger(str(file))) as ledger:
        newest = ledger.run("latest").stopped
        assert newest is not None
        assert (str(newest.code), newest.en, newest.zh) == ("text", stopped, stopped)


def test_an_upgrade_that_fails_leaves_no_copy(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    shutil.copy(DATA / LEDGERS[2], file)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE rows SET detail = x'00ff' WHERE run = 1")
    with pytest.raises(LedgerDamagedError):
        Ledger(str(file))
    assert read_version(str(file)) == 2
    assert list(tmp_path.glob("*backup*")) == []


@pytest.mark.slow
def test_an_upgraded_ledger_is_like_a_new_one_and_takes_runs(old: str, tmp_path: Path) -> None:
    with closing(Ledger(old)) as ledger:
        place = EnvRecord(0, "tea", "wxtea", "茶语小铺", "merchant", left=False)
        new = NewRun("new", UPLOAD, "t", "l", "s", 1, (), "", {}, "", "", "", "", 2e9)
        run = ledger.plan(new, [Row(2, "tea", "a.png", "wxtea", "茶语小铺", "a.bin", ())], [place])
        ledger.record(run, [RowEnd(2, Outcome.UPLOADED)], Usage(1.0, 1, 1, {"link": 1.0}))
        ledger.note_export(run, "ab" * 32)
        assert (ledger.phase_seconds(run), ledger.exports(run)) == ({"link": 1.0}, {"ab" * 32})
        with ledger._engine.connect() as connection:
            tables = sa.MetaData()
            for table in SCHEMA.tables.values():
                table.to_metadata(tables)
            if "://" in old:
                holders.to_metadata(tables)
            opts = {
                "compare_server_default": False,
                "include_name": lambda name, kind, _parents: kind != "table" or not name.endswith("_backup"),
            }
            context = MigrationContext.configure(connection, opts=opts)
            assert compare_metadata(context, tables) == []
            assert str(VERSION) == context.get_current_revision()
    with closing(Ledger(str(tmp_path / "new.db"))) as fresh, fresh._engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == str(VERSION)
    assert len(STEPS) + 1 == VERSION


@pytest.mark.parametrize(
    "sentence", ["the disk is full", '{"en": 1}', "{", "[" * 200_000], ids=lambda result: result[:40]
)
def test_the_first_ledgers_of_version_1_lack_most_and_keep_one_sentence(
    tmp_path: Path, sentence: str
) -> None:
    file = tmp_path / "ledger.db"
    shutil.copy(DATA / LEDGERS[0], file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE runs SET stopped = ? WHERE stopped <> ''", (sentence,))
        connection.commit()
        connection.executescript(
            "DROP TABLE spent; DROP TABLE exports; DROP INDEX rows_by_path; DROP INDEX rows_by_errcode"
        )
    with closing(Ledger(str(file))) as ledger:
        [text] = [run.stopped for run in ledger.runs() if run.stopped is not None]
        assert (text.en, text.zh) == (sentence, sentence)
        assert ledger.phase_seconds(ledger.runs()[0]) == {}
        with ledger._engine.connect() as connected:
            assert compare_metadata(MigrationContext.configure(connected), SCHEMA) == []


def test_a_copy_of_the_old_file_is_kept_beside_it_and_named(
    tmp_path: Path, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"ledger.db.v{VERSIONS[source]}-backup"
    file, copy = tmp_path / "ledger.db", tmp_path / name
    shutil.copy(DATA / source, file)
    Ledger(str(file)).close()
    assert contents(copy) == contents(DATA / source)
    assert read_version(str(copy)) == VERSIONS[source]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    [message] = [record.getMessage() for record in caplog.records if record.name == "tcb_ops.runs"]
    assert message.count(str(copy)) == 2, "in both languages"
    Ledger(str(file)).close()
    shutil.copy(DATA / source, file)
    Ledger(str(file)).close()
    backups = {found.name for found in tmp_path.iterdir() if "backup" in found.name}
    assert backups == {name, f"{name}-2"}, "no copy is overwritten"


def test_copies_of_the_old_tables_are_kept_in_postgresql(
    postgres: Postgres, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.url(database)
    old_ledger(LEDGERS[2], url)
    before = {table: postgres.run(f"SELECT * FROM {table} ORDER BY 1, 2", database) for table in TABLES}
    Ledger(url).close()
    assert "with names that end in _v2_backup" in caplog.text
    for table, records in before.items():
        assert postgres.run(f"SELECT * FROM {table}_v2_backup ORDER BY 1, 2", database) == records
    assert postgres.run("SELECT version FROM tcb_ops_v2_backup", database) == [(2,)]
    Ledger(url).close()  # the copies are in nobody's way


def test_without_a_copy_nothing_is_changed(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    shutil.copy(DATA / LEDGERS[1], file)
    (tmp_path / ".ledger.db.v1-backup.part").mkdir()
    with pytest.raises(LedgerError, match=r"was not upgraded.*ledger\.db\.v1-backup") as caught:
        Ledger(str(file))
    assert caught.value.exit_code == 3
    assert (contents(file), read_version(str(file))) == (contents(DATA / LEDGERS[1]), 1)


@pytest.mark.slow
def test_a_role_that_may_not_change_the_tables_is_told_so(postgres: Postgres, database: str) -> None:
    old_ledger(LEDGERS[1], postgres.url(database))
    postgres.run("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guarded", database)
    url = postgres.url(database, f"guarded:{PASSWORD}")
    with pytest.raises(LedgerError, match=r"cannot be upgraded .* nothing was changed") as caught:
        Ledger(url)
    assert PASSWORD not in f"{caught.value!r} {caught.value.text}"
    assert read_version(postgres.url(database)) == 1


# --- others at work ---------------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
import sqlalchemy as sa
from tcb_ops.runs.locks import AdvisoryLock, SqliteFile, hold, process_identity
place, run = sys.argv[1:]
if "://" in place:
    lock = AdvisoryLock(sa.create_engine(place), run, lambda error: error)
    assert lock.acquire(process_identity())
    print("held", flush=True)
    sys.stdin.read()
else:
    with hold(SqliteFile(place, Path(place)), run):
        print("held", flush=True)
        sys.stdin.read()
"""


@pytest.mark.slow
def test_while_a_process_works_on_a_run_the_upgrade_is_refused_and_says_who(place: str) -> None:
    old_ledger(LEDGERS[1], place)
    run = contents(DATA / LEDGERS[1])["runs"][-1]["id"]
    argv = [sys.executable, "-c", HOLD, place, run]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UsageError) as caught:
            Ledger(place)
        process.communicate("")
    assert caught.value.exit_code == 2
    for text in (caught.value.text.en, caught.value.text.zh):
        assert f"{operator_name()}@{host_name()}, PID {process.pid}" in text
        assert run in text
    assert read_version(place) == 1
    with closing(Ledger(place)) as ledger:
        assert ledger.run(run).id == run
    assert read_version(place) == VERSION


OPEN = """
import sys
from tcb_ops.runs.ledger import Ledger
print("ready", flush=True)
sys.stdin.read(1)
ledger = Ledger(sys.argv[1])
print(len(ledger.runs()), flush=True)
ledger.close()
"""


@pytest.mark.slow
def test_processes_that_upgrade_a_ledger_at_once_upgrade_it_once(
    old: str, source: str, tmp_path: Path
) -> None:
    runs = len(contents(DATA / source)["runs"])
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", OPEN, old], **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in processes] == [f"{runs}\n"] * 4
    assert read_version(old) == VERSION
    assert len(list(tmp_path.glob("*backup*"))) == (0 if "://" in old else 1)


# --- killed -----------------------------------------------------------------------------------------------------------

KILLED = """
import itertools, os, shutil, signal, sys
import sqlalchemy as sa
from tcb_ops.runs import database
from tcb_ops.runs.ledger import Ledger
source, place = sys.argv[1:]
for last in itertools.count():
    at = place if "://" in place else f"{place}.{last}"
    if at != place:
        shutil.copy(source, at)
    pid = os.fork()
    if pid == 0:
        left = last
        def step(*_args):
            global left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        for event in ("before_cursor_execute", "commit"):
            sa.event.listen(sa.Engine, event, step)
        sys.addaudithook(lambda name, _args: step() if name in {"os.rename", "sqlite3.connect"} else None)
        Ledger(at).close()
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
    print(at, flush=True)
"""


@pytest.mark.kill
def test_killed_at_any_step_the_ledger_is_whole_and_the_next_start_upgrades_it(place: str) -> None:
    old_ledger(LEDGERS[0], place)
    argv = [sys.executable, "-c", KILLED, str(DATA / LEDGERS[0]), place]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    killed = done.stdout.splitlines()
    assert len(killed) > 15
    if "://" in place:
        assert read_version(place) == VERSION, "killed at every step before, it was still version 1"
        return
    before = contents(DATA / LEDGERS[0])
    for file in map(Path, killed):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = read_version(str(file))
        assert found in {1, VERSION}
        if found == 1:
            assert contents(file) == before
        with closing(Ledger(str(file))) as ledger:
            assert len(ledger.runs()) == 5
            assert [sum(ledger.counts(run).values()) for run in ledger.runs()] == [
                run.rows for run in ledger.runs()
            ]
        for copy in file.parent.glob(f"{file.name}.v1-backup*"):
            assert contents(copy) == before
        assert read_version(str(file)) == VERSION
    assert {read_version(file) for file in killed} == {VERSION}


LOADED = """
import sys
from tcb_ops.runs.ledger import Ledger
for _ in range(2):
    Ledger(sys.argv[1]).close()
print([name for name in ("alembic", "mako") if name in sys.modules])
"""


@pytest.mark.slow
def test_alembic_is_loaded_for_an_upgrade_only(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", LOADED, str(tmp_path / "ledger.db")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- views

VIEW_COLUMNS = {
    "v_runs": "run kind target list_name parent note operator host started_at finished_at rows seconds link_calls upload_calls",
    "v_rows": "run line merchant appid env path outcome code errmsg rid http_status attempts bytes md5 started_at ended_at seconds",
    "v_errcodes": "run started_at kind target merchant appid env code rows",
}


def test_the_views_agree_with_the_run(open_workspace: Any):
    workspace = open_workspace(faults=[Fault(env=BOOKS.env, errcode=85088)])
    run = tcb.upload(workspace.read(), settings=workspace.settings)
    with closing(sqlite3.connect(workspace.settings.ledger)) as ledger:
        for name in VIEWS:
            found = [column[0] for column in ledger.execute(f"SELECT * FROM {name}").description]
            assert found == VIEW_COLUMNS[name].split(), name
        assert ledger.execute("SELECT run, kind, rows FROM v_runs").fetchall() == [(run.id, "upload", 30)]
        assert ledger.execute("SELECT COUNT(*), SUM(code IS NULL) FROM v_rows").fetchone() == (30, 20)
        assert ledger.execute("SELECT merchant, code, rows FROM v_errcodes").fetchall() == [
            (BOOKS.name, "85088", 10)
        ]


def test_an_upgraded_ledger_has_the_views(tmp_path: Path):
    old = shutil.copy(DATA / LEDGERS[0], tmp_path / "old.db")
    tcb.all_runs(settings=tcb.load_settings(options={"ledger": str(old)}))
    with closing(sqlite3.connect(old)) as ledger:
        views = ledger.execute("SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name").fetchall()
    assert [name for (name,) in views] == sorted(VIEWS)
