"""Fixtures and settings for all tests: their environment and order, a workspace, and assertions about every run."""

from __future__ import annotations

import gc
import os
import re
import secrets
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from postgres import Postgres, cluster
from robots import SimulatorWithRobots
from workspace import (
    BOOKS,
    TEA,
    TEA_TEST,
    AssertComplete,
    OpenWorkspace,
    WaitFor,
    Workspace,
    many,
    options_for,
    write_csv,
)

from tcb_ops.features.simulator.faults import Faults
from tcb_ops.hooks import features
from tcb_ops.lists.merchants import Merchants
from tcb_ops.settings import load_settings, set_default_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tcb_ops.features.simulator.faults import Fault
    from tcb_ops.model import Merchant
    from tcb_ops.run import Run


pytest_plugins = ["command_line", "event_loops", "ledgers", "reported_runs", "token_server"]

TERMINAL = ("COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""The variables of the terminal that rich and click read."""

if sys.platform == "win32":
    # They import what is not there: pty, resource, nbformat, and Tencent's SDK, whose crcmod has no wheel.
    collect_ignore = [
        "contract/test_notebooks.py",
        "core/cli/test_signals.py",
        "core/cli/test_terminal.py",
        "core/reports/test_cards.py",
        "core/test_i18n.py",
        "features/simulator/test_signing.py",
        "features/simulator/test_store_posts.py",
    ]
MEMORY = Path("/dev/shm")  # noqa: S108  Linux's file system in memory
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2**31:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # avoids waiting for fsync on a disk
os.umask(0o022)  # what a group may change is named in the first line
# jsonschema would build its grammars, for a second and a half in each process; no test needs them.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
sys.dont_write_bytecode = False  # otherwise each process started would compile all modules again
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


FEATURES = frozenset(file.parent.name for file in Path(__file__).parent.glob("features/*/test_*.py"))
"""The features that there are tests of; their folders may have been deleted."""
MISSING = FEATURES - features().keys()


def features_of(file: Path) -> set[str]:
    """The features of which a test file imports something, itself or by a module beside this one."""
    text = file.read_text(encoding="utf-8")
    used = set(re.findall(r"tcb_ops\.features\.(\w+)", text))
    for name in re.findall(r"^from (\w+) import", text, re.MULTILINE):
        if (beside := Path(__file__).with_name(f"{name}.py")).is_file():
            used |= features_of(beside)
    return used


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the tests of a feature that is not installed, and those that import something of it, or every public name."""
    file = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    if not MISSING or file.suffix != ".py" or not file.is_file() or file == Path(__file__):
        return None
    takes_all = file.name == "test_python.py"
    return True if takes_all or MISSING & (features_of(file) | {file.parent.name}) else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs a feature which is not installed: `needs("workbooks")`; all of them: `needs()`."""
    for marker in item.iter_markers("needs"):
        if missing := MISSING & {*(marker.args or FEATURES)}:
            pytest.skip(f"without {', '.join(sorted(missing))}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start with the longest tests, so that all processes end at the same time; `make shuffle` keeps its order."""
    if not config.pluginmanager.hasplugin("randomly"):
        longest = ("browser", "notebook", "kill", "slow", "integration")
        items.sort(
            key=lambda item: [
                item.get_closest_marker("xdist_group") is None,
                *(item.get_closest_marker(mark) is None for mark in longest),
            ]
        )


def pytest_collection_finish() -> None:
    """Leave modules and collected tests out of every later garbage collection, which would take 0.4 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _signals_arrive() -> None:
    """Restore Ctrl-C and SIGHUP, which are ignored by processes started in the background or by nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """Fail a test that leaves a signal handler: the Ctrl-C of a later test would end the test process."""
    yield
    left = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert left is signal.default_int_handler


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings, proxies, language and terminal of the user who runs the tests."""
    for name in list(os.environ):
        if name.startswith("TCB_OPS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LANGUAGE", *TERMINAL):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    set_default_settings(None)  # set by a panel in another test
    monkeypatch.setenv("TCB_OPS_CHROMIUM", "")  # starting a browser per report would take most of the time


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let token sources retry almost at once."""
    if "tokens" in features():
        for name in ("RETRY_WAIT", "ROTATION_WAIT"):
            monkeypatch.setattr(f"tcb_ops.features.tokens.component.{name}", 0.01)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL cluster for the tests."""
    if "postgres" not in features():
        pytest.skip("without postgres")
    with cluster() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The name of an empty PostgreSQL database."""
    name = f"tcb_{secrets.token_hex(6)}"
    postgres.run(f"CREATE DATABASE {name}")
    yield name
    postgres.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def open_workspace(tmp_path: Path) -> Iterator[OpenWorkspace]:
    """A function that opens a workspace: `open_workspace(rows, faults, merchants=…)`; other options go to the simulator.

    Each file contains its environment and path. `tokens` are those of the token file, if they differ from the
    platform's.
    """
    with ExitStack() as stack:

        def opened(
            rows: Iterable[tuple[str, str]] | None = None,
            faults: Iterable[Fault] = (),
            *,
            merchants: Iterable[Merchant] = (TEA, TEA_TEST, BOOKS),
            tokens: Mapping[str, str] | None = None,
            **options: Any,
        ) -> Workspace:
            known = Merchants(tuple(merchants))
            rows = list(rows if rows is not None else many(*known, rows=10))
            valid = {merchant.appid: f"token-of-{merchant.appid}" for merchant in known}
            sim = stack.enter_context(
                SimulatorWithRobots(list(known), valid, faults=Faults(tuple(faults)), record=True, **options)
            )
            write_csv(
                tmp_path / "merchants.csv",
                ("appid", "name", "env"),
                ((m.appid, m.name, m.env) for m in known),
            )
            header = ("env", "path", "file", "备注")
            listed = [(env, path, f"{n}.bin", f"第 {n} 行") for n, (env, path) in enumerate(rows)]
            write_csv(tmp_path / "list.csv", header, listed)
            (tmp_path / "files").mkdir(exist_ok=True)
            for env, path, file, _ in listed:
                (tmp_path / "files" / file).write_text(f"{env}/{path}", encoding="utf-8")
            settings = load_settings(options=options_for(tmp_path, sim))
            workspace = Workspace(tmp_path, sim, settings, known, tmp_path / "list.csv")
            workspace.keep_tokens(valid if tokens is None else tokens)
            return workspace

        yield opened


@pytest.fixture
def assert_complete() -> AssertComplete:
    """A function that asserts that the outcomes add up to the rows in every output, and returns the counts."""

    def checked(run: Run, rows: int) -> dict[str, int]:
        counts, summary = run.counts, run.summary()
        listed = [str(record.end.outcome) for record in run.rows()]
        assert sum(counts.values()) == len(listed) == summary["rows"] == rows
        assert counts == summary["counts"] == {outcome: listed.count(outcome) for outcome in counts}
        assert run.results()["tcb_outcome"].value_counts().to_dict() == counts
        return counts

    return checked


@pytest.fixture
def wait_for() -> WaitFor:
    """A function that waits until a condition holds, and fails after a timeout."""

    def waited(true: Callable[[], bool], seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.002)

    return waited
