"""What a power cut leaves, at any moment of a run: nothing is lost that was shown, and everything goes on from there.

Each scenario is recorded once, in a process of its own under the library of tests/crash.c. Its states are then written
to the same folder, one after the other, and worked on in this process.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import crash_states
import pytest
from crash_states import State, mark, read_log
from crash_worker import FEW, batch_of, settings_of
from rigged_simulator import Simulator
from workspace import BOOKS, TEA, TEA_TEST, many, write_csv

import tcb_ops as tcb
from tcb_ops.cli.main import run as run_command
from tcb_ops.errors import TcbOpsError
from tcb_ops.features.simulator.cos import bucket_of
from tcb_ops.features.simulator.faults import Component
from tcb_ops.features.simulator.state import RefreshToken
from tcb_ops.features.tokens.component_store import TokenStore
from tcb_ops.model import Merchant, Outcome
from tcb_ops.wechat.tokens import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.slow, crash_states.NEEDS_PRELOADING]

LIMITS = ("--concurrency", "8", "--per-env", "4", "--backoff", "0.01")
MERCHANTS = [TEA, TEA_TEST, BOOKS, Merchant("wxfruit", "果园", "fruit-5e")]
PLATFORM, SECRET, TICKET = "wxplatform", "PrAcTiCe-app-secret", "ticket@@@PrAcTiCe"


class Scenario:
    """A recorded program, and what must hold for each state that a power cut leaves of it."""

    kind: ClassVar[str]
    tokens: ClassVar[str] = 'source = "file"\nfile = "tokens.csv"'
    is_killed: ClassVar[bool] = False
    """Whether a first process kills itself in the middle of the run."""
    begins: ClassVar[str] = "begin"
    """The mark from which on the power may be cut."""
    most_rows: ClassVar[int] = 200

    def __init__(self, folder: Path, library: Path, rows: int, stack: ExitStack, capsys) -> None:
        self.rows, self.capsys = min(rows, self.most_rows), capsys
        self.folder, self.inputs, self.work, self.log = (
            folder,
            folder / "inputs",
            folder / "work",
            folder / "log",
        )
        for each in (self.inputs, self.inputs / "files", self.work):
            each.mkdir(parents=True)
        self.listed = many(*MERCHANTS, rows=self.rows // len(MERCHANTS))
        files = [(env, path, f"{number}.bin") for number, (env, path) in enumerate(self.listed)]
        write_csv(self.inputs / "list.csv", ("env", "path", "file"), files)
        for env, path, file in files:
            (self.inputs / "files" / file).write_bytes(self.uploaded(env, path))
        write_csv(
            self.inputs / "merchants.csv",
            ("appid", "name", "env"),
            ((m.appid, m.name, m.env) for m in MERCHANTS),
        )
        tokens = {merchant.appid: f"token-of-{merchant.appid}" for merchant in MERCHANTS}
        write_csv(self.inputs / "tokens.csv", ("appid", "access_token"), tokens.items())
        component = Component(PLATFORM, SECRET, TICKET, rotate=True) if self.kind == "tokens" else None
        tokens = {} if component else tokens
        self.sim = stack.enter_context(
            Simulator(MERCHANTS, tokens, record=True, component=component, link_lifetime=86_400)
        )
        (self.inputs / "tcb-ops.toml").write_text(
            f'target = "{self.sim.base}"\nledger = "{self.work}/ledger.db"\nmerchants = "merchants.csv"\nlang = "en"\n'
            f"[tokens]\n{self.tokens.replace('WORK', str(self.work))}\n"
        )
        for name, text in {"secret": SECRET, "ticket": TICKET}.items():
            (self.inputs / name).write_text(text)
            (self.inputs / name).chmod(0o600)
        self.settings = settings_of(folder)
        self.options = {"settings": self.settings, "limits": FEW}
        self._record(library)

    def _record(self, library: Path) -> None:
        self.prepare()
        with self.marked():
            for stop in (self.rows * 2 // 5, 0) if self.is_killed else (0,):
                command = [sys.executable, Path(crash_states.__file__).with_name("crash_worker.py")]
                preloaded = {"LD_PRELOAD": library, "CRASH_LOG": self.log, "CRASH_FOLDER": self.work}
                done = subprocess.run(
                    [*command, self.kind, self.folder, str(stop)],
                    env=os.environ | preloaded,
                    check=False,
                    capture_output=True,
                    text=True,
                    timeout=100,
                )
                assert done.returncode == (-signal.SIGKILL if stop else 0), done.stderr
        self.records = read_log(self.log)
        there = {
            str(path.relative_to(self.work)): None if path.is_dir() else path.read_bytes()
            for path in self.work.rglob("*")
            if not path.name.endswith("-shm")
        }
        entries = crash_states.final_state(self.work, self.records).entries
        assert {path: data for path, (_mode, data) in entries.items()} == there, "the log is complete"

    @staticmethod
    def uploaded(env: str, path: str) -> bytes:
        return f"{env}/{path}".encode()

    def prepare(self) -> None:
        """Do what comes before the recorded program."""

    def marked(self) -> ExitStack:
        """Add to the log what the store received, before it is answered."""
        stack, state = ExitStack(), self.sim._state
        stored = state.stored

        def stored_and_marked(bucket: str, key: str, found) -> None:
            stored(bucket, key, found)
            env = next(merchant.env for merchant in MERCHANTS if bucket_of(merchant.env) == bucket)
            mark(self.log, f"stored {json.dumps([env, key])}")

        stack.enter_context(pytest.MonkeyPatch.context()).setattr(state, "stored", stored_and_marked)
        return stack

    def reset(self, state: State) -> None:
        """Write a state to the disk, and bring the platform to where it was then."""
        state.write(self.work)
        self.sim._state.objects.clear()
        self.sim.calls.clear()
        self.prepare()
        for said in state.marks:
            if said.startswith("stored "):
                env, path = json.loads(said.removeprefix("stored "))
                self.sim.put(env, path, self.uploaded(env, path))

    def check(self, state: State, number: int) -> None:
        """Raise AssertionError or any other error if the state is not as it must be."""
        raise NotImplementedError

    # --- runs ---

    def run_of(self, state: State) -> tcb.Run | None:
        """Return the state's run, in which all is recorded that had been shown; None if there is none yet."""
        shown = shown_counts(state)
        runs = tcb.runs(settings=self.settings)
        if not runs:
            assert not shown, "rows were shown, and there is no run"
            assert not any(said.startswith("stored ") for said in state.marks), (
                "there is no run, and files were stored"
            )
            return None
        (run,) = runs
        assert run.counts.keys() >= shown.keys()
        assert all(run.counts[outcome] >= rows for outcome, rows in shown.items()), "shown, and not recorded"
        if "finished" in state.marks:
            assert run.record.finished_at is not None, "shown as finished, and not recorded"
        return run

    def resumed(self, run: tcb.Run | None, number: int, done: str, again: Callable[[], tcb.Run]) -> tcb.Run:
        """Continue a run in one of two ways, or start it; assert that nothing is sent again, and every row ends."""
        recorded = (
            set()
            if run is None
            else {(r.row.env, r.row.path) for r in run.rows() if r.end.outcome != "pending"}
        )
        if run is not None and run.record.finished_at is not None:
            assert len(recorded) == self.rows
            return run
        before = len(self.sim.calls)
        if number % 6 == 0:
            assert self.command(*self.words, *LIMITS) == 0
            after = tcb.open_run(kind=self.words[0], settings=self.settings)
        else:
            after = tcb.resume(run.id, **self.options) if run is not None and number % 2 else again()
        assert run is None or after.id == run.id
        sent = {(call.env, call.path) for call in self.sim.calls[before:]}
        assert not sent & recorded, "recorded, and sent again"
        assert after.counts == {done: self.rows}
        assert after.record.finished_at is not None
        return after

    def reported(self, run: tcb.Run) -> None:
        folder = self.folder / "work" / "reports" / "after"
        run.export(folder)
        assert tcb.verify(folder, settings=self.settings).good

    def command(self, *words: str) -> int:
        """Run a command in this process; return its exit code."""
        code = run_command((words[0], "--config", str(self.inputs / "tcb-ops.toml"), *words[1:]))
        error = self.capsys.readouterr().err
        assert "Traceback" not in error, error
        assert "defect" not in error, error
        return code

    @property
    def words(self) -> tuple[str, ...]:
        """The command that starts the run, or resumes it."""
        source, where = str(self.inputs / "list.csv"), ("--root", str(self.inputs / "files"))
        if self.kind == "links":
            return "links", source, "--out", str(self.work / "links.csv")
        backup = ("--backup", str(self.work / "saved" / "backup")) if self.kind == "backup" else ()
        return "upload", source, *where, "--out", str(self.work / "reports" / "now"), *backup

    def look(self) -> None:
        """Look at the state with commands, none of which may end with a trace."""
        codes = {self.command(*words) for words in (("runs",), ("show",), ("errcodes",))}
        assert codes <= ({0, 1} if self.ledger_has_runs() else {0, 2}), codes

    def ledger_has_runs(self) -> bool:
        return bool(tcb.runs(settings=self.settings))


def shown_counts(state: State) -> dict[str, int]:
    """Return the counts that were shown last."""
    shown = [said for said in state.marks if said.startswith("shown ")]
    counts: dict[str, int] = json.loads(shown[-1].removeprefix("shown ")) if shown else {}
    return counts


class Links(Scenario):
    kind = "links"

    def check(self, state: State, number: int) -> None:
        run = self.run_of(state)
        if run is not None:
            linked = {record.row.line for record in run.rows(outcomes=frozenset({Outcome.LINKED}))}
            if run.record.finished_at is None:
                assert linked <= self.lines_in_part(), "linked in the ledger, and the link is lost"
            else:
                self.check_links()
        again = lambda: tcb.links(batch_of(self.folder), out=self.work / "links.csv", **self.options)  # noqa: E731
        run = self.resumed(run, number, "linked", again)
        self.check_links()
        if number % 5 == 0:
            self.reported(run)

    def lines_in_part(self) -> set[int]:
        part = self.work / "links.csv.part"
        records = part.read_bytes().split(b"\n")[1:-1] if part.exists() else []
        numbers = (record.partition(b",")[0] for record in records)
        return {int(line) for line in numbers if line.isdigit()}

    def check_links(self) -> None:
        with (self.work / "links.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["env"], row["path"]) for row in rows] == self.listed
        assert all(row["errcode"] == "0" and row["url"].startswith("http") for row in rows)
        assert all(row["authorization"] and row["token"] and row["expires_at"] for row in rows)


class Upload(Scenario):
    kind = "upload"
    is_killed = True

    def check(self, state: State, number: int) -> None:
        run = self.resumed(
            self.run_of(state), number, "uploaded", lambda: tcb.upload(batch_of(self.folder), **self.options)
        )
        for env, path in self.listed:
            assert self.sim.content(env, path) == self.uploaded(env, path)
        if number % 5 == 0:
            self.reported(run)


class Backup(Scenario):
    kind = "backup"
    most_rows = 60  # each is sent, read back and restored

    def prepare(self) -> None:
        for env, path in self.listed:
            self.sim.put(env, path, self.original(env, path))

    @staticmethod
    def original(env: str, path: str) -> bytes:
        return f"somebody else's {env}/{path}".encode()

    def check(self, state: State, number: int) -> None:
        run = self.run_of(state)
        if number % 3 or run is None:
            backup = self.work / "saved" / "backup"
            again = lambda: tcb.upload(batch_of(self.folder), backup=backup, **self.options)  # noqa: E731
            run = self.resumed(run, number, "uploaded", again)
        try:
            undone = tcb.undo(run.id, **self.options)
            assert set(undone.counts) <= {"restored", "left"}, undone.counts
        except tcb.UsageError as error:
            assert "has no uploaded files" in error.text.en  # noqa: PT017  in one of many states
        for env, path in self.listed:
            assert self.sim.content(env, path) == self.original(env, path), (
                "what was overwritten is not restored"
            )


class Export(Scenario):
    kind = "export"
    most_rows = 40
    begins = "finished"

    def check(self, state: State, number: int) -> None:
        run = self.run_of(state)
        assert run is not None
        assert run.record.finished_at is not None
        reports, today = self.work / "reports", self.work / "reports" / "today"
        good, damaged = set(), set()
        for folder in reports.iterdir() if reports.is_dir() else ():
            with suppress(tcb.UsageError):  # it has no manifest
                (good if tcb.verify(folder, settings=self.settings).good else damaged).add(folder.name)
        if "today" in damaged:
            assert any(".part-" in name for name in good), (
                "being replaced, and the new report is not complete"
            )
        if "exported" in state.marks:
            assert good, "an export was shown, and no report is there"
        if state.marks[-1] == "exported":
            assert "today" in good, "the export was shown, and is not there"
        run.export(today)
        assert tcb.verify(today, settings=self.settings).good


class Rotation(Scenario):
    kind = "tokens"
    tokens = (
        f'source = "component"\nsole_owner = true\ncomponent_appid = "{PLATFORM}"\n'
        'secret = "file:secret"\nticket = "file:ticket"\nstore = "WORK/platform/tokens"'
    )

    def marked(self) -> ExitStack:
        """Add to the log which refresh tokens were issued, before the answer."""
        stack, accounts = ExitStack(), self.sim._accounts
        refresh = accounts.refresh

        def refreshed_and_marked(appid: str, refresh_token: str):
            issued = refresh(appid, refresh_token)
            mark(self.log, f"issued {json.dumps([appid, issued[1]])}")
            return issued

        stack.enter_context(pytest.MonkeyPatch.context()).setattr(accounts, "refresh", refreshed_and_marked)
        return stack

    def check(self, state: State, number: int) -> None:
        issued: dict[str, list[str]] = {}
        for said in state.marks:
            if said.startswith("issued "):
                appid, token = json.loads(said.removeprefix("issued "))
                issued.setdefault(appid, []).append(token)
        store = self.work / "platform" / "tokens"
        for appid in sorted({merchant.appid for merchant in MERCHANTS}):
            first = f"practice-refresh-token-of-{appid}"
            tokens = [first, first, *issued.get(appid, [])]
            shown = f"token {appid}" in state.marks
            # What was stored once is the only place: the platform's list need not have it.
            self.sim._accounts.refresh_tokens[appid] = RefreshToken(
                tokens[-1], tokens[-2], float("inf"), listed=not shown
            )
            stored = TokenStore(store, PLATFORM, self.sim.base).read(appid)
            if shown:
                assert stored is not None, f"{appid}: a token was used, and its refresh token is lost"
            if stored is not None:
                assert stored.refresh.reveal() in tokens[-2:], f"{appid}: only an old refresh token is left"

        async def renew() -> None:
            source = open_source(self.settings)
            try:
                for appid in issued:
                    token = await source.token(appid)
                    assert (await source.token(appid, token.value)).value != token.value
            finally:
                await source.aclose()

        from tcb_ops.engine.loop import submit_coroutine

        submit_coroutine(renew()).result()


SCENARIOS = (Links, Upload, Backup, Export, Rotation)


@dataclass(frozen=True)
class Violation:
    state: State
    error: BaseException

    def __str__(self) -> str:
        text = str(self.error).splitlines() or [""]
        return f"call {self.state.position}, {self.state.choice}: {type(self.error).__name__}: {text[0]}"


@pytest.fixture
def record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[type[Scenario], int], Scenario]]:
    """A function that records a scenario; its simulator runs until the test's end."""
    monkeypatch.setattr("tcb_ops.features.simulator.cos.LATEST", 1_000)
    with ExitStack() as stack:
        yield lambda scenario, rows: scenario(
            tmp_path.resolve(), crash_states.build(tmp_path), rows, stack, capsys
        )


def violations(scenario: Scenario, states: list[State]) -> list[Violation]:
    found = []
    for number, state in enumerate(states):
        scenario.reset(state)
        try:
            if number % 6 == 0:
                scenario.look()
            scenario.check(state, number)
        except (
            AssertionError,
            TcbOpsError,
            ArithmeticError,
            LookupError,
            OSError,
            TypeError,
            ValueError,
        ) as error:
            found.append(Violation(state, error))
    return found


@pytest.mark.parametrize(
    ("rows", "most"),
    [(24, 30), pytest.param(200, 500, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
    ids=["some", "many"],
)
@pytest.mark.parametrize("of", SCENARIOS, ids=lambda of: of.kind)
def test_every_state_that_a_power_cut_leaves_is_whole_and_goes_on(record, of, rows, most):
    scenario = record(of, rows)
    states = crash_states.states(
        scenario.work, scenario.records, most, 1, lambda said: said.startswith(of.begins)
    )
    found = violations(scenario, states)
    print(f"{len(states)} states of {len(scenario.records)} calls")  # noqa: T201  shown with -rP
    assert not found, f"{len(found)} of {len(states)} states:\n" + "\n".join(map(str, found[:20]))
