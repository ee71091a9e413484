"""A ledger that hosts, users and operators share: one of them works on a run, whatever happens to its connection."""

import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from free_ports import free_port
from postgres import PASSWORD, Postgres, pooled, standby
from workspace import BOOKS, QUICK, TEA, TEA_TEST, Workspace, many

import tcb_ops as tcb
from tcb_ops.api import prune
from tcb_ops.engine import engine
from tcb_ops.errors import LedgerError, UsageError
from tcb_ops.features.cluster.coordinator import without_password
from tcb_ops.features.simulator.faults import Fault
from tcb_ops.ledger import database as ledger_database
from tcb_ops.ledger import schema
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.locks import hold, host_name, planning, process_identity
from tcb_ops.settings import Settings

LOCKS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"


@pytest.fixture
def url(postgres, database):
    return postgres.url(database)


def with_ledger(workspace: Workspace, url: str) -> Settings:
    return workspace.with_options(ledger=url)


# --- the lock --------------------------------------------------------------------------------------------------------


def test_the_server_gives_up_a_holder_that_has_fallen_silent_within_30_seconds(url):
    with closing(Ledger(url)) as ledger:
        lock = ledger.advisory_lock("run-1")
        assert lock is not None
        assert lock.acquire("me")
        connection = lock._connection
        assert connection is not None
        told = {
            name: connection.execute(f"SHOW tcp_{name}").fetchone()[0]
            for name in ("keepalives_idle", "keepalives_interval", "keepalives_count", "user_timeout")
        }
        lock.release()
    idle, interval, count = (int(told[f"keepalives_{name}"]) for name in ("idle", "interval", "count"))
    assert idle + interval * count <= 25
    assert told["user_timeout"] in {"25000", "25s"}
    ours = engine.LOCK_CHECK_EVERY + engine.LOCK_CHECK_WITHIN + engine.GRACE
    assert ours < idle + interval * count - engine.LOCK_CHECK_EVERY, "we have ended before another may begin"


@pytest.mark.integration
def test_a_pooler_must_be_in_session_mode(open_workspace, postgres, database):
    workspace = open_workspace()
    with pooled(postgres, "transaction") as pooler, pytest.raises(UsageError, match="to session mode"):
        workspace.upload(settings=with_ledger(workspace, pooler.url(database)))
    assert workspace.sim.stats["link_calls"] == 0
    assert postgres.run("SELECT count(*) FROM runs", database) == [(0,)]
    with pooled(postgres, "session") as pooler:
        settings = with_ledger(workspace, pooler.url(database))
        assert workspace.upload(settings=settings).counts == {"uploaded": 30}


@pytest.mark.integration
def test_a_run_whose_lock_is_lost_stops_and_is_resumed(
    open_workspace, assert_complete, wait_for, postgres, url, database
):
    workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=60), [Fault(delay=0.1)])
    settings = with_ledger(workspace, url)
    running = workspace.start_upload(settings=settings, limits=tcb.RunLimits(concurrency=8))
    wait_for(lambda: workspace.sim.stats["stored"] >= 20)
    [(holder,)] = postgres.run(LOCKS, database)
    postgres.run(f"SELECT pg_terminate_backend({holder})")
    with pytest.raises(LedgerError, match="held the lock on this run has ended") as caught:
        running.wait()
    assert caught.value.exit_code == 3
    assert 0 < assert_complete(tcb.open_run(running.id, settings=settings), 180)["pending"] < 180
    assert postgres.run(LOCKS, database) == []
    workspace.sim.play([])
    again = workspace.start_upload(settings=settings)
    assert (again.id, again.resumed) == (running.id, True)
    assert assert_complete(again.wait(), 180) == {"uploaded": 180}
    assert workspace.sim.stats["stored"] <= 180 + 2 * 8


class Network:
    """A way to a server that can fall silent: connections stay, nothing goes through."""

    def __init__(self, port: int) -> None:
        self._to, self._open = port, threading.Event()
        self._open.set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listening]
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self) -> None:
        self._open.clear()

    def lead_to(self, port: int) -> None:
        """Lead new connections to another server."""
        self._to = port

    def speak(self) -> None:
        self._open.set()

    def close(self) -> None:
        self.speak()
        for one in self._sockets:
            with ExitStack() as stack:
                stack.callback(one.close)
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:  # the server has ended
                near.close()
                continue
            self._sockets += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # a server that ends with a query unread resets the connection
            while data := source.recv(65536):
                self._open.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@pytest.mark.slow
@pytest.mark.parametrize("pool", [False, True], ids=["directly", "through a pooler"])
def test_a_run_whose_server_restarts_stops_and_is_resumed(
    open_workspace, assert_complete, wait_for, postgres, database, pool
):
    workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=60), [Fault(delay=0.1)])
    with ExitStack() as stack:
        server = stack.enter_context(pooled(postgres, "session")) if pool else postgres
        settings = with_ledger(workspace, server.url(database))
        running = workspace.start_upload(settings=settings, limits=tcb.RunLimits(concurrency=8))
        wait_for(lambda: workspace.sim.stats["stored"] >= 20)
        postgres.stop()
        with pytest.raises(LedgerError) as caught:
            running.wait()
        assert caught.value.exit_code == 3
        postgres.start()
        wait_for(lambda: answers(server, database))
        resume(workspace, settings, running.id, assert_complete)


def answers(server, database):
    """Whether a server answers; a pooler tries again a second after it could not reach its own."""
    import psycopg

    try:
        return server.run("SELECT 1", database) == [(1,)]
    except psycopg.OperationalError:
        return False


@pytest.mark.slow
def test_a_run_is_resumed_on_a_standby_that_has_taken_over(
    open_workspace, assert_complete, wait_for, postgres, database
):
    workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=60), [Fault(delay=0.1)])
    with standby(postgres) as copy, closing(Network(postgres.port)) as network:
        url = f"postgresql+psycopg://postgres@127.0.0.1:{network.port}/{database}"
        settings = with_ledger(workspace, url)
        running = workspace.start_upload(settings=settings, limits=tcb.RunLimits(concurrency=8))
        wait_for(lambda: workspace.sim.stats["stored"] >= 20)
        postgres.stop()
        try:
            with pytest.raises(LedgerError):
                running.wait()
            copy.promote()
            network.lead_to(copy.port)
            resume(workspace, settings, running.id, assert_complete)
        finally:
            postgres.start()


def resume(workspace, settings, run, assert_complete):
    """Resume a run that was stopped, and see that it ends with nothing sent again but what was not recorded."""
    recorded = assert_complete(tcb.open_run(run, settings=settings), 180)["uploaded"]
    sent = workspace.sim.stats["stored"]
    assert 0 < recorded <= sent
    workspace.sim.play([])
    again = workspace.start_upload(settings=settings)
    assert (again.id, again.resumed) == (run, True)
    assert assert_complete(again.wait(), 180) == {"uploaded": 180}
    assert workspace.sim.stats["stored"] == sent + 180 - recorded


@pytest.mark.integration
@pytest.mark.parametrize(("how", "why"), [("ended", "held the lock"), ("silent", "does not respond")])
def test_a_run_stops_without_a_commit_where_its_lock_is_lost(
    open_workspace, wait_for, monkeypatch, postgres, database, how, why
):
    monkeypatch.setattr(engine, "LOCK_CHECK_EVERY", 0.05)
    monkeypatch.setattr(engine, "GRACE", 0.05)
    workspace = open_workspace(many(TEA, rows=4), [Fault(delay=100)])
    with closing(Network(postgres.port)) as network:
        url = f"postgresql+psycopg://postgres@127.0.0.1:{network.port}/{database}"
        running = workspace.start_upload(settings=with_ledger(workspace, url))
        wait_for(lambda: workspace.sim.stats["link_calls"] > 0)
        if how == "silent":
            monkeypatch.setattr(engine, "LOCK_CHECK_WITHIN", 0.5)
            network.fall_silent()
        else:
            [(holder,)] = postgres.run(LOCKS, database)
            postgres.run(f"SELECT pg_terminate_backend({holder})")
        working_engine = running._session._engine
        wait_for(lambda: working_engine._error is not None)
        assert workspace.sim.stats["stored"] == 0
        network.speak()  # so that nothing waits for TCP to give up, as it would for 10 s
        with pytest.raises(LedgerError, match=why):
            running.wait()


@pytest.mark.integration
def test_planning_alone_is_lost_with_its_connection(url, postgres, database):
    with closing(Ledger(url)) as ledger, planning(ledger) as still_alone:
        still_alone()
        [(holder,)] = postgres.run(LOCKS, database)
        postgres.run(f"SELECT pg_terminate_backend({holder})")
        with pytest.raises(LedgerError):
            still_alone()


@pytest.mark.parametrize("version", [7, 99], ids=["older", "newer"])
def test_a_ledger_of_another_schema_version_is_refused_unchanged(url, postgres, database, version):
    Ledger(url).close()
    postgres.run(f"UPDATE tcb_ops SET version = {version}; DROP TABLE pruned_runs", database)
    listing = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    tables = set(postgres.run(listing, database))
    with pytest.raises(UsageError, match=f"is a ledger of schema version {version}, and") as caught:
        Ledger(url)
    assert caught.value.exit_code == 2
    assert set(postgres.run(listing, database)) == tables


def test_an_older_ledger_is_upgraded(url, postgres, database, monkeypatch):
    (asked,) = (each for each in schema.statements(sqlite=False) if "CREATE TABLE asked" in each)
    monkeypatch.setattr(schema, "UPGRADES", {schema.VERSION - 1: (asked,)})
    Ledger(url).close()
    postgres.run("UPDATE tcb_ops SET version = version - 1; DROP TABLE asked", database)
    for _ in range(2):
        Ledger(url).close()
    assert postgres.run("SELECT version FROM tcb_ops", database) == [(schema.VERSION,)]
    assert postgres.run("SELECT count(*) FROM asked", database) == [(0,)]


@pytest.mark.integration
@pytest.mark.parametrize("step", ["finish", "compact"])
def test_a_table_that_stays_locked_ends_the_wait(url, monkeypatch, step, open_workspace):
    monkeypatch.setattr(ledger_database, "WAITING_SECONDS", 1)
    workspace = open_workspace(many(TEA, rows=2))
    settings = workspace.with_options(ledger=url)
    run = workspace.upload(settings=settings)
    other = Ledger(url)
    with closing(Ledger(url)) as ledger, closing(other), other.writing() as connection:
        connection.execute("LOCK TABLE runs, rows IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(tcb.TcbOpsError, match="Another program has locked the ledger"):
            ledger.finish(run.record, 1.0) if step == "finish" else ledger.compact()


@pytest.mark.integration
def test_ledgers_in_two_schemas_of_a_database_have_locks_of_their_own(url, postgres, database):
    for name in ("east", "west"):
        postgres.run(f"CREATE SCHEMA {name}", database)
    with (
        closing(Ledger(f"{url}?options=-csearch_path%3Deast")) as east,
        closing(Ledger(f"{url}?options=-csearch_path%3Dwest")) as west,
        hold(east, "run-1"),
        hold(west, "run-1"),
    ):
        assert east.runs() == west.runs() == []


def documented_sql(lang: str) -> str:
    """The SQL of the page about two operators, without its comments."""
    page = Path(__file__).parents[3] / "docs" / lang / "howto" / "postgres.md"
    block = re.search(r"```text\n(.+?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return re.sub(r" *--.*", "", block[1])


@contextmanager
def as_documented(postgres: Postgres, name: str, without: str = "") -> Iterator[dict[str, str]]:
    """The ledger's URL for each role of the page, whose SQL has been run without one privilege."""
    roles = ("wang", "li", "tcb_operators", "tcb_owner")
    sql = re.sub(rf"\b(tcb_ledger|{'|'.join(roles)})\b", rf"{name}_\1", documented_sql("en"))
    if without:
        sql, found = re.subn(without, "", sql)
        assert found == 1
    try:
        postgres.tool("psql", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "postgres", text=sql)
        yield {role: postgres.url(f"{name}_tcb_ledger", f"{name}_{role}") for role in roles}
    finally:
        postgres.run(f"DROP DATABASE IF EXISTS {name}_tcb_ledger WITH (FORCE)")
        for role in roles:
            postgres.run(f"DROP ROLE IF EXISTS {name}_{role}")


@pytest.mark.integration
def test_operators_work_with_the_privileges_of_the_page_and_can_do_no_more(
    open_workspace, assert_complete, postgres, database
):
    import psycopg

    workspace = open_workspace(
        many(TEA, BOOKS, rows=3), [Fault(path="banner/1.png", errcode=85088, calls=((1, 1),))]
    )
    assert documented_sql("en") == documented_sql("zh")
    with as_documented(postgres, database) as urls:
        with pytest.raises(UsageError, match="permission denied"):
            Ledger(urls["wang"])  # nobody but the owner makes the tables
        Ledger(urls["tcb_owner"]).close()
        with pytest.raises(UsageError, match="permission denied"):
            Ledger(
                postgres.url(f"{database}_tcb_ledger", "guarded").replace("guarded", f"guarded:{PASSWORD}")
            )
        with closing(Ledger(urls["wang"])) as wang, closing(Ledger(urls["li"])) as li:
            for first, second in ((wang, li), (li, wang)):
                with (
                    hold(first, "run-1"),
                    pytest.raises(UsageError, match=process_identity()),
                    hold(second, "run-1"),
                ):
                    pass
        first = workspace.upload(settings=with_ledger(workspace, urls["wang"]))
        theirs = with_ledger(workspace, urls["li"])
        seen = tcb.open_run(first.id, settings=theirs)
        assert seen.counts == first.counts
        again = tcb.retry(first.id, workspace.merchants, settings=theirs, limits=QUICK)
        assert assert_complete(again, again.record.rows) == {"uploaded": again.record.rows}
        postgres.run("UPDATE runs SET finished_at = 1", f"{database}_tcb_ledger")
        assert {run.id for run in prune(1, settings=theirs)} == {first.id, again.id}
        with psycopg.connect(urls["li"].replace("+psycopg", ""), autocommit=True) as connection:
            for statement in (
                "CREATE TABLE mine (x int)",
                "CREATE TEMP TABLE mine (x int)",
                "CREATE SCHEMA mine",
                "ALTER TABLE rows ADD COLUMN x int",
                "DROP TABLE rows",
                "TRUNCATE rows CASCADE",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


REACHED = "Check that the server runs"
"""How the advice begins if the connection fails."""


def test_what_keeps_a_database_from_opening_comes_with_what_to_do_there(
    postgres, database, monkeypatch, tmp_path
):
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    with as_documented(postgres, database) as urls:
        guarded = postgres.url(f"{database}_tcb_ledger", "guarded")
        closed = urls["wang"].replace(str(postgres.port), str(free_port()))
        for url, advice in (
            (guarded, REACHED),
            (guarded.replace("guarded", "guarded:wrong"), REACHED),
            (guarded.replace("guarded", f"guarded:{PASSWORD}"), REACHED),  # may not connect
            (urls["wang"].replace("_tcb_ledger", "_nowhere"), REACHED),
            (closed, REACHED),
            (urls["wang"], REACHED),  # before its owner has created the tables
        ):
            with pytest.raises(UsageError, match=advice) as caught:
                Ledger(url)
            shown = str(caught.value)
            assert shown.startswith(without_password(url))
            assert not any(wrong in shown for wrong in ("--ledger", "..", "LINE", PASSWORD, ":wrong")), shown


@pytest.mark.integration
@pytest.mark.parametrize("right", ["SELECT", "SELECT, INSERT, UPDATE, DELETE ON holders", "read only"])
def test_a_role_that_may_only_read_is_refused_before_anything_is_planned(
    open_workspace, postgres, database, right
):
    workspace = open_workspace(many(TEA, rows=1))
    writes = ", INSERT, UPDATE, DELETE(?= ON TABLES)"
    with as_documented(postgres, database, writes if right != "read only" else "") as urls:
        Ledger(urls["tcb_owner"]).close()
        if "ON holders" in right:
            postgres.run(f"GRANT {right} TO {database}_wang", f"{database}_tcb_ledger")
        if right == "read only":
            postgres.run(f"ALTER ROLE {database}_wang SET default_transaction_read_only = on")
        settings = with_ledger(workspace, urls["wang"])
        with pytest.raises(LedgerError, match="fix the access"):
            workspace.upload(settings=settings)
        with closing(Ledger(urls["wang"])) as ledger:
            assert ledger.runs() == []
    assert workspace.sim.stats["link_calls"] == 0


def test_a_role_whose_idle_sessions_are_ended_keeps_its_connections(url, postgres, database):
    role = f"idle_{database}"
    postgres.run(f"CREATE ROLE {role} LOGIN SUPERUSER")
    postgres.run(f"ALTER ROLE {role} SET idle_session_timeout = '1s'")
    try:
        with closing(Ledger(postgres.url(database, role))) as ledger:
            lock = ledger.advisory_lock("run-1")
            assert lock is not None
            assert lock.acquire("me")
            asked = "SHOW idle_session_timeout"
            assert lock._connection is not None
            assert lock._connection.execute(asked).fetchall() == ledger.fetch(asked) == [("0",)]
            lock.release()
    finally:
        postgres.run(f"DROP OWNED BY {role} CASCADE", database)
        postgres.run(f"DROP ROLE {role}")


def test_what_a_killed_holder_left_names_nobody_and_is_cleared(url, postgres, database):
    with closing(Ledger(url)) as ledger:
        postgres.run("INSERT INTO holders VALUES (999999999, 'a dead one')", database)
        with hold(ledger, "run-1"):
            [(who,)] = postgres.run("SELECT who FROM holders", database)
            assert who == process_identity()
        assert postgres.run("SELECT who FROM holders", database) == []


# --- passwords -------------------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize(
    "form",
    [
        "postgresql+psycopg://guarded:{}@127.0.0.1:{}/{}",
        "postgresql+psycopg://guarded@127.0.0.1:{1}/{2}?password={0}",
        "postgresql+psycopg:///{2}?user=guarded&password={0}&host=127.0.0.1&port={1}",
        "postgresql+psycopg://guarded@127.0.0.1:{1}/{2}?password={0}&passfile=/{0}&sslpassword={0}",
    ],
)
def test_a_database_password_is_shown_nowhere(open_workspace, postgres, database, form, tmp_path, capsys):
    with pytest.raises(UsageError, match="password authentication failed") as caught:
        Ledger(form.format("wrong" + PASSWORD, postgres.port, database))
    assert PASSWORD not in f"{caught.value!r} {caught.value.text}"
    postgres.run("GRANT CREATE ON SCHEMA public TO guarded", database)
    workspace = open_workspace(many(TEA, rows=3), [Fault(path="banner/1.png", errcode=85088)])
    settings = with_ledger(workspace, form.format(PASSWORD, postgres.port, database))
    run = workspace.upload(settings=settings)
    run.export(tmp_path / "report")
    with pytest.raises(UsageError) as missing:
        tcb.open_run("nosuch", settings=settings)
    shown = (repr(settings), repr(run), run._repr_html_(), str(missing.value), *capsys.readouterr())
    assert [text for text in shown if PASSWORD in text] == []
    files = [file for file in (tmp_path / "report").iterdir() if file.is_file()]
    assert "manifest.json" in {file.name for file in files}
    assert [file.name for file in files if PASSWORD.encode() in file.read_bytes()] == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://op:hun@ter2@nowhere.invalid/runs",
        "postgresql+psycopg://op:hunter2@127.0.0.1:hunter2/runs",
        "postgresql+psycopg://nowhere:1/runs?password=x@hunter2",
        "sqlite:///x.db?password=hunter2",
        "mysql://op:hunter2@127.0.0.1/runs",
        "postgresql+nosuch://op:hunter2@127.0.0.1:1/runs",
        "nonsense://op:hunter2@h/x",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url):
    with pytest.raises((UsageError, LedgerError)) as caught:
        Ledger(url)
    shown = f"{caught.value!r} {caught.value.text.en} {caught.value.text.zh} {caught.value.__cause__}"
    assert "ter2" not in shown
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# --- two hosts at once -----------------------------------------------------------------------------------------------

SEED = 20261126
ROUNDS = [0, *(pytest.param(number, marks=pytest.mark.soak) for number in range(1, 51))]
AFTER = "import sys; sys.stdin.readline(); from tcb_ops.cli.main import main; main(sys.argv[1:])"
"""The command as a user types it, once all of them may begin."""


@contextmanager
def operators(
    workspace: Workspace, base: str, tmp_path: Path, url: str, names: tuple[str, str]
) -> Iterator[list[Any]]:
    """Two commands about to upload the same list, each with a user name, HOME, TMPDIR and working folder of its own."""
    with ExitStack() as stack:
        started = []
        for number, name in enumerate(names):
            mine = tmp_path / name
            for folder in ("home", "tmp", "work"):
                (mine / folder).mkdir(parents=True, exist_ok=True)
            system = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "LOGNAME": name, "USER": name}
            system |= {"HOME": str(mine / "home"), "TMPDIR": str(mine / "tmp")}
            own = {"TCB_OPS_LEDGER": url, "TCB_OPS_CHROMIUM": "", "TCB_OPS_LANG": ("en", "zh")[number]}
            argv = [
                sys.executable,
                "-c",
                AFTER,
                "upload",
                workspace.list,
                "--root",
                workspace.folder / "files",
            ]
            argv += ["--api-base", base, "--merchants", workspace.folder / "merchants.csv", "--json", "--yes"]
            argv += ["--tokens", workspace.folder / "tokens.csv", "--out", mine / "report"]
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            process = subprocess.Popen(argv, text=True, cwd=mine / "work", env=system | own, **pipes)
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(process)
        yield started


@pytest.mark.integration
@pytest.mark.parametrize("number", ROUNDS)
def test_of_two_hosts_that_start_at_once_on_an_empty_database_one_works(
    open_workspace, wait_for, postgres, url, database, tmp_path, number
):
    chance = random.Random(SEED + number)
    rows = chance.randrange(40, 160)
    workspace = open_workspace(many(TEA, TEA_TEST, BOOKS, rows=rows))
    names = ("wang", "li")
    with ExitStack() as stack:
        # The platform answers once one of them has been refused: neither can be done before the other has begun.
        network = stack.enter_context(closing(Network(urlsplit(workspace.sim.base).port or 0)))
        network.fall_silent()
        base = f"http://127.0.0.1:{network.port}"
        both = stack.enter_context(operators(workspace, base, tmp_path, url, names))
        for process in chance.sample(both, 2):
            process.stdin.write("\n")
            process.stdin.flush()
        wait_for(lambda: any(process.poll() is not None for process in both))
        network.speak()
        ended = [process.communicate(timeout=240) for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], ended
    winner, loser = codes.index(0), codes.index(2)
    found = json.loads(ended[winner][0])
    assert found["counts"] == {"uploaded": 3 * rows}
    result = ended[loser][1]
    assert f"{names[winner]}@{host_name()}, PID {both[winner].pid}" in result
    assert found["run"] in result
    sent = [(call.env, call.path) for call in workspace.sim.calls if call.step == "store"]
    assert len(sent) == len(set(sent)) == workspace.sim.stats["stored"] == 3 * rows
    assert postgres.run("SELECT count(*) FROM runs", database) == [(1,)]
    assert [file for name in names for file in (tmp_path / name / "tmp").iterdir()] == []


@pytest.mark.integration
def test_an_audit_is_compared_with_the_last_known_state(open_workspace, url, monkeypatch):
    monkeypatch.setattr("tcb_ops.features.health.notifications.RETRY_WAITS", ())
    workspace = open_workspace([])
    settings = workspace.with_options(ledger=url, notify=[{"kind": "command", "command": ["false"]}])

    def night(*faults: Fault) -> tcb.Run:
        workspace.sim.play(faults)
        return tcb.audit(workspace.merchants, settings=settings, limits=QUICK)

    broken = Fault(env=BOOKS.env, errcode=85088)
    (told,) = tcb.notify(night(broken), on_demand=False, settings=settings)
    assert not told.sent
    tcb.notify(night(Fault(env=BOOKS.env, errcode=-1)), on_demand=False, settings=settings)
    found = night(broken)
    assert [one.cause.env for one in found.audit().still] == [BOOKS.env]
    (told,) = tcb.notify(found, on_demand=False, settings=settings)
    assert told.due  # the first message did not arrive
