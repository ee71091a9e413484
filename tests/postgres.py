"""A PostgreSQL for the tests: a private cluster in a temporary folder, on a free loopback port.

If PostgreSQL's programs, its driver or pgbouncer are missing, tests that need them are skipped; with TCB_OPS_NEED_POSTGRES=1
they fail.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from free_ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEEDED = os.environ.get("TCB_OPS_NEED_POSTGRES") == "1"
PASSWORD = "planted-db-password-0123456789"
"""Of the role `guarded`, the only one that needs a password."""


@dataclass
class Postgres:
    """A running cluster; connections are trusted."""

    port: int
    _start: Callable[[], subprocess.Popen[bytes]]
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self._process = self._start()

    def stop(self) -> None:
        """End the server at once, as a crash does: connections break, and what is not committed is lost."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)  # an "immediate" shutdown
        self._process.wait(240)

    def promote(self) -> None:
        """Let a standby work alone."""
        self.run("SELECT pg_promote()")

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def tool(self, name: str, *words: str, text: str = "") -> None:
        """Run one of PostgreSQL's client programs with this server, and a text on its stdin."""
        folder = programs()
        assert folder is not None
        argv = [folder / name, "--host", "127.0.0.1", "--port", str(self.port), *words]
        subprocess.run(argv, check=True, capture_output=True, input=text, text=True)

    def run(self, statement: str, database: str = "postgres") -> list[Any]:
        """Execute one statement and return its rows."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname=database, autocommit=True
        ) as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs: from PATH, or the newest in Debian's location."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    kept = [file.parent for file in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(kept, key=lambda folder: float(folder.parent.name), default=None)


@contextmanager
def cluster() -> Iterator[Postgres]:
    """Run a cluster inside the block; skip or fail if PostgreSQL is missing."""
    found = programs()
    if found is None or importlib.util.find_spec("psycopg") is None:
        what = "PostgreSQL is not installed" if found is None else "psycopg is not installed"
        (pytest.fail if NEEDED else pytest.skip)(what)
    with _folder() as (folder, who):
        data = folder / "data"
        subprocess.run(
            [
                found / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-N",
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            **who,
        )
        rules = data / "pg_hba.conf"
        rules.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        with _server(found, data, folder, who) as server:
            server.run(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")
            yield server


@contextmanager
def pooled(server: Postgres, mode: str) -> Iterator[Postgres]:
    """Run pgbouncer before a cluster inside the block; skip or fail if it is missing."""
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        (pytest.fail if NEEDED else pytest.skip)("pgbouncer is not installed")
    pooler = Postgres(free_port(), lambda: _started(argv, pooler.port, folder, who))
    with _folder() as (folder, who):
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {pooler.port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n"
            "server_login_retry = 1\nquery_wait_timeout = 5\n"  # 15 and 120 seconds by default
        )
        argv = [found, folder / "pgbouncer.ini"]
        pooler.start()
        try:
            yield pooler
        finally:
            pooler.stop()


@contextmanager
def standby(server: Postgres) -> Iterator[Postgres]:
    """Run a copy of a cluster that follows it, and works alone once `promote` is called."""
    found = programs()
    assert found is not None
    with _folder() as (folder, who):
        data = folder / "data"
        source = f"host=127.0.0.1 port={server.port} user=postgres"
        copied = [
            found / "pg_basebackup",
            "-D",
            data,
            "-d",
            source,
            "--write-recovery-conf",
            "--checkpoint=fast",
        ]
        subprocess.run(copied, check=True, capture_output=True, cwd=folder, **who)
        with _server(found, data, folder, who) as copy:
            yield copy


@contextmanager
def _folder() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Make a folder for a server; give it, and as whom the server is started."""
    who: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="tcb-ops-postgres-"))
    try:
        if os.geteuid() == 0:  # PostgreSQL and pgbouncer refuse to run as root
            import pwd

            known = {entry.pw_name: entry for entry in pwd.getpwall()}
            user = known.get("postgres") or known["nobody"]
            who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
        yield folder, who
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _server(found: Path, data: Path, folder: Path, who: dict[str, Any]) -> Iterator[Postgres]:
    port = free_port()
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": folder,
        "fsync": "off",
    }
    argv = [found / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())]
    server = Postgres(port, lambda: _started(argv, port, folder, who))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _started(argv: list[Any], port: int, folder: Path, who: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start a server, and wait until it answers."""
    found = programs()
    assert found is not None
    ready = [found / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder, **who)
    end = time.monotonic() + 240
    while subprocess.run(ready, check=False).returncode:
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.02)
    return process
