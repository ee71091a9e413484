"""Plays runs in simulated time and checks after each session what must hold, whatever happened.

`python tests/simulated_runs.py --runs 2000 --seed 0` plays the seeds 0 to 1999 in processes of their own, prints the first
seed of each batch that violates something with the smallest scenario that still does, and ends with exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import csv
import gc
import hashlib
import logging
import multiprocessing
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from simulated_time import KilledError, SimulatedLoop, SimulatedThread, StuckError
from simulated_world import (
    BASE,
    BEGAN,
    MERCHANTS,
    Ending,
    Scenario,
    SimulatedTokens,
    SimulatedTransport,
    Watch,
    World,
    scenario_of,
)

from tcb_ops.catalogue import CodeEntry, Decision, Scope, errcode, store_code
from tcb_ops.engine.calls import RunContext, Runtime
from tcb_ops.engine.limits import BREAKER_ROWS, RunLimits
from tcb_ops.engine.session import RunSession
from tcb_ops.errors import InterruptedRunError, LedgerError, StoppedError, TransportError, TransportFault
from tcb_ops.features.simulator.cos import bucket_of
from tcb_ops.kinds import kind_named
from tcb_ops.ledger.ledger import IDLE_SECONDS, Ledger
from tcb_ops.ledger.records import EnvRecord, NewRun, Usage
from tcb_ops.model import Listener, Outcome, Owner, Row, RowEnd, RunSettings
from tcb_ops.settings import Settings
from tcb_ops.wechat.responses import ApiError, HttpResponse, read_response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection as Pipe

    from tcb_ops.ledger.database import Connection
    from tcb_ops.ledger.records import RunRecord

Play = Callable[[Any], Counter[str]]
"""Plays a scenario."""
RUN = "20260921-220000-0001"
MOST_SESSIONS = 12
A_WHILE = 30.0
"""Seconds between the arrival of a link and its commit at most."""
A_MOMENT = 1e-6
"""Seconds within which two moments count as one."""
KILLED: list[object] = []
"""What killed sessions leave: nothing of it may run, not even what the garbage collector would run."""


class Violation(AssertionError):  # noqa: N818  the term of the subject
    """Something that must always hold did not."""


class WatchedLedger(Ledger):
    """A ledger that tells the oracle what was committed."""

    oracle: Oracle

    killed_in_commit: int | None = None
    commits = 0
    was_full = False
    """Whether a write has failed in this session because the disk was full."""

    @contextmanager
    def writing(self, idle: int = IDLE_SECONDS, *, in_one_statement: bool = False) -> Iterator[Connection]:
        with super().writing(idle) as connection:
            if self.oracle.world.is_full():
                self.was_full, full = True, sqlite3.OperationalError("database or disk is full")
                full.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise full
            yield connection

    def record(self, run: RunRecord, ends: Sequence[RowEnd], usage: Usage) -> None:
        self.commits += 1
        if self.killed_in_commit == -self.commits:
            raise KilledError
        super().record(run, ends, usage)
        self.oracle.recorded(ends)
        if self.killed_in_commit == self.commits:
            raise KilledError

    def reopen(self, run: RunRecord, lines: Iterable[int]) -> None:
        opened = list(lines)
        super().reopen(run, opened)
        for line in opened:
            self.oracle.done.pop(line, None)


@dataclass
class Oracle(Watch):
    """Knows what was sent, answered and recorded, and what must follow from it."""

    world: World
    done: dict[int, Outcome] = field(default_factory=dict)
    """Lines that the ledger has."""
    answered: set[int] = field(default_factory=set)
    """Lines of this session whose success has arrived, and which it has not recorded."""
    begun: set[int] = field(default_factory=set)
    """Lines of which this session has made a call."""
    in_flight: Counter[str] = field(default_factory=Counter)
    last_call: dict[str, float] = field(default_factory=dict)
    paused_until: dict[str, float] = field(default_factory=dict)
    breakers: dict[str, tuple[str, int]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    """Environments and appids whose breaker has opened in this session."""
    linked: set[int] = field(default_factory=set)
    """Lines whose link has arrived, in any session."""
    expires: dict[int, float] = field(default_factory=dict)
    """When each line's newest link expires, by this machine's clock."""
    expired: set[int] = field(default_factory=set)
    failures: Counter[tuple[int, Decision]] = field(default_factory=Counter)
    """Failed link calls of each line in this session since its last link, by what they ask for."""
    etags: dict[int, str] = field(default_factory=dict)
    """What the store said at last of each line's object."""
    trace: int = 0
    """Checksum of all calls, their moments and answers, by which a replay is recognised."""

    def __post_init__(self) -> None:
        self.rows = rows_of(self.world.scenario)
        self.line_of = {(row.env, row.path): row.line for row in self.rows}

    def begin(self) -> None:
        """Forget what belongs to a session; note which links have expired, which this one must request again."""
        now = self.world.now()
        linked = {line for line, outcome in self.done.items() if outcome is Outcome.LINKED}
        if not any(change.what == "clock" for change in self.world.scenario.changes):
            self.expired = {line for line in linked if self.expires[line] < now - A_WHILE}
        self.failures.clear()
        for kept in (self.answered, self.begun, self.in_flight, self.last_call, self.paused_until):
            kept.clear()
        self.breakers.clear()
        self.closed.clear()

    @contextmanager
    def call(self, step: str, env: str, path: str) -> Iterator[Any]:
        """See a call begin, and end."""
        scenario, now = self.world.scenario, self.world.loop.time()
        line, appid = self.line_of.get((env, path)), self.world.appid_of_env.get(env, "")
        if line is None:
            raise Violation(f"a {step} call for {env}:{path}, which is no row")
        if line in self.done:
            raise Violation(f"line {line} was recorded as {self.done[line]}, and is sent again")
        if self.in_flight.total() >= scenario.concurrency:
            raise Violation(f"more than {scenario.concurrency} calls in flight")
        if self.in_flight[env] >= scenario.per_env:
            raise Violation(f"more than {scenario.per_env} calls in flight in {env}")
        if step == "link":
            if now < max(self.paused_until.get(env, 0), self.paused_until.get(appid, 0)) - A_MOMENT:
                raise Violation(f"a call in {env} during its pause")
            if line not in self.begun and self.closed & {env, appid}:
                raise Violation(f"line {line} begins, although the breaker of {env} or {appid} is open")
            if scenario.rate:
                if now - self.last_call.get(appid, -9e9) < 1 / scenario.rate - A_MOMENT:
                    raise Violation(f"link calls of {appid} follow each other within 1/rate seconds")
                self.last_call[appid] = now
        self.begun.add(line)
        self.in_flight[env] += 1
        self.trace = crc32(repr((round(self.world.elapsed, 6), step, line)).encode(), self.trace)

        def answered(response: HttpResponse) -> None:
            self._answered(step, line, env, appid, response)

        try:
            yield answered
        except TransportError as error:
            if step == "link" and error.fault is not TransportFault.UNREACHABLE:
                self._failed(line, Decision.RETRY)
            raise
        finally:
            self.in_flight[env] -= 1

    def _failed(self, line: int, decision: Decision) -> None:
        """Count a failed link call, and check that it was allowed."""
        self.failures[line, decision] += 1
        most = {Decision.RETRY: self.world.scenario.attempts, Decision.REFRESH: 2}.get(decision)
        if most is not None and self.failures[line, decision] > most:
            raise Violation(f"line {line} had more than {most} link calls that end in {decision}")

    def _answered(self, step: str, line: int, env: str, appid: str, response: HttpResponse) -> None:
        if step == "store":
            if response.status in {200, 201, 204}:
                self.etags[line] = etag = response.headers.get("ETag", "").strip('"')
                if etag and not _differs(etag, md5_of(self.rows[line - 2].file)):
                    self.answered.add(line)  # without a checksum, or with another, the row is tried again
            elif code := re.search(rb"<Code>(\w+)</Code>", response.body):
                self._slowed(store_code(code[1].decode()), env, appid)
            return
        answer = read_response(response, ())
        if isinstance(answer, dict):
            self.linked.add(line)
            self.failures.pop((line, Decision.RETRY), None)
            begins, _, ends = re.search(r"q-sign-time=(\d+;\d+)", str(answer["authorization"]))[1].partition(
                ";"
            )
            self.expires[line] = self.world.now() + int(ends) - int(begins)
            if self.world.scenario.kind == "links":
                self.answered.add(line)
        elif isinstance(answer, ApiError):
            entry = errcode(answer.errcode)
            self._failed(line, entry.decision)
            self._slowed(entry, env, appid)

    def _slowed(self, entry: CodeEntry, env: str, appid: str) -> None:
        """Note the pause that an answer asks for."""
        if entry.decision is Decision.SLOW and entry.scope in {Scope.ENV, Scope.APPID}:
            scope = env if entry.scope is Scope.ENV else appid
            self.paused_until[scope] = self.world.loop.time() + self.world.scenario.slow_wait

    def recorded(self, ends: Sequence[RowEnd]) -> None:
        """See a commit, and count what the breakers count."""
        for end in ends:
            if end.line in self.done:
                raise Violation(f"line {end.line} is recorded twice")
            self.done[end.line] = end.outcome
            # Another session may request the link again, of which its file has none.
            self.answered.discard(end.line)
            row = self.rows[end.line - 2]
            code, scope = _stopping(end)
            for name, counted in ((row.env, scope is Scope.ENV), (row.appid, scope is Scope.APPID)):
                counting = code if counted else ""
                before, rows = self.breakers.get(name, ("", 0))
                rows = (rows + 1 if counting == before else 1) if counting else 0
                self.breakers[name] = (counting, rows)
                if rows >= BREAKER_ROWS:
                    self.closed.add(name)


def _stopping(end: RowEnd) -> tuple[str, Scope | None]:
    """Return the code and the scope for which a breaker counts this end."""
    if end.outcome is Outcome.REFUSED and end.errcode:
        entry: Any = errcode(end.errcode)
    elif end.outcome is Outcome.FAILED and end.store_code and end.store_code != "ETagMismatch":
        message = str(end.detail.params.get("message", "")) if end.detail is not None else ""
        entry = store_code(end.store_code, message, end.http_status or 0)
    else:
        return "", None
    stops = (
        entry.decision in {Decision.STOP, Decision.SLOW, Decision.NEW_LINK_ONCE} or entry.scope is Scope.ENV
    )
    return (str(end.errcode or end.store_code), entry.scope) if stops else ("", None)


# --- a planned run, and its sessions --------------------------------------------------------------------------------


@cache
def folder() -> Path:
    """Return the folder of the files and the ledgers: in memory where there is one, since nothing here crashes."""
    memory = Path("/dev/shm")  # noqa: S108  it only makes the runs quicker
    made = Path(tempfile.mkdtemp(prefix="tcb-ops-simulated-", dir=memory if memory.is_dir() else None))
    (made / "files").mkdir()
    for number in range(20):
        size = 100_000 if number % 10 == 9 else 100 * number
        (made / "files" / f"{number}.bin").write_bytes(bytes([number]) * size)
    return made


def _differs(etag: str, md5: str) -> bool:
    """Return whether an ETag is the checksum of other bytes; one of another form says nothing."""
    return re.fullmatch("[0-9a-f]{32}", etag) is not None and etag != md5


@cache
def md5_of(file: str) -> str:
    return hashlib.md5((folder() / "files" / file).read_bytes(), usedforsecurity=False).hexdigest()


@cache
def _rows(kind: str, merchants: int, rows: int) -> tuple[Row, ...]:
    made = []
    for number in range(rows):
        merchant = MERCHANTS[number % merchants]
        path, file = f"{number % 7}/{number}.png", f"{number}.bin"
        stat = (folder() / "files" / file).stat()
        planned: dict[str, Any] = {}
        if kind == "upload":
            planned = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        cells = (merchant.env, path)
        made.append(
            Row(number + 2, merchant.env, path, merchant.appid, merchant.name, file, cells, **planned)
        )
    return tuple(made)


def rows_of(scenario: Scenario) -> tuple[Row, ...]:
    """Return the rows of a scenario: in file order, over all its environments."""
    return _rows(scenario.kind, scenario.merchants, scenario.rows)


@cache
def _template(kind: str, merchants: int, rows: int) -> dict[str, list[Any]]:
    """Return the records of a ledger with the planned run, by table: planning takes longer than the run."""
    file = folder() / f"{kind}-{merchants}-{rows}.db"
    ledger = Ledger(str(file))
    environments = [
        EnvRecord(number, m.env, m.appid, m.name, Owner.MERCHANT, left=False)
        for number, m in enumerate(MERCHANTS[:merchants])
    ]
    new = NewRun(
        id=RUN,
        kind=kind_named(kind),
        target=BASE,
        list_name="list.csv",
        list_sha256="ab" * 32,
        list_bytes=1,
        headers=("env", "path"),
        root=str(folder() / "files"),
        settings=RunSettings(),
        note="",
        operator="op",
        host="host",
        out=str(folder() / "links.csv") if kind == "links" else "",
        created_at=BEGAN,
    )
    ledger.plan(new, _rows(kind, merchants, rows), environments)
    ledger.close()
    with closing(sqlite3.connect(file)) as planned:
        return {
            f"{table} VALUES ({', '.join('?' * len(records[0]))})": records
            for table in ("runs", "envs", "rows")
            if (records := planned.execute(f"SELECT * FROM {table}").fetchall())
        }


def plan(scenario: Scenario) -> None:
    """Plan the scenario's run in the ledger in place of its runs; not by a copy, after which all is prepared again."""
    with database() as planned:
        for table in ("rows", "envs", "runs"):
            planned.execute(f"DELETE FROM {table}")
        for values, records in _template(scenario.kind, scenario.merchants, scenario.rows).items():
            planned.executemany(f"INSERT INTO {values}", records)


@cache
def the_ledger() -> WatchedLedger:
    """Return the ledger of all runs, which is filled again for each: to open one takes as long as a run."""
    return WatchedLedger(str(folder() / "ledger.db"))


@cache
def _planned(kind: str, merchants: int, rows: int) -> RunRecord:
    """Return the record of the planned run that has just been copied."""
    return the_ledger().run(RUN)


@cache
def database() -> sqlite3.Connection:
    """Return the oracle's own connection to that ledger."""
    return sqlite3.connect(the_ledger().file)


@cache
def settings() -> Settings:
    return Settings(api_base=BASE, listener=Listener.SIMULATOR)


def play(scenario: Scenario) -> Counter[str]:
    """Play a scenario to its end; return what happened, counted. Raises Violation."""
    for rest in folder().glob("links.csv*"):
        rest.unlink()
    plan(scenario)
    world = World(scenario)
    return finish(world, Oracle(world)) + Counter(runs=1)


def finish(world: World, oracle: Oracle, sessions: int = 0) -> Counter[str]:
    """Play sessions, after so many, until one finishes the run; return what happened, counted. Raises Violation."""
    scenario, ledger, happened = world.scenario, the_ledger(), Counter[str]()
    ledger.oracle = oracle
    for number in range(sessions, MOST_SESSIONS):
        ending = scenario.endings[number] if number < len(scenario.endings) else Ending()
        end = _session(world, oracle, ledger, ending, resumed=number > 0)
        happened[f"session {end}"] += 1
        if end == "stopped":
            world.simulator.play(())  # its cause is fixed
        if end == "finished":
            happened["calls"], happened["trace"] = world.calls, oracle.trace
            return happened
    raise Violation(f"not finished after {MOST_SESSIONS} sessions")


def _session(world: World, oracle: Oracle, ledger: WatchedLedger, ending: Ending, *, resumed: bool) -> str:
    """Play a session, and check what it leaves; return how it ended."""
    loop = SimulatedLoop()
    world.begin(loop)
    context = context_of(world, oracle, ledger, loop, ending, resumed=resumed)
    KILLED.append((loop, context))

    def work() -> RunRecord:
        session = RunSession(context)
        KILLED.append(session)
        if ending.cancelled_at is not None:
            loop.call_at(ending.cancelled_at, session.cancel)
        return session.wait()

    run, end = end_of(work, context, ending)
    world.end()
    check(world, oracle, context, run, end)
    if end == "finished":
        KILLED.clear()
    return end


def context_of(
    world: World,
    oracle: Oracle,
    ledger: WatchedLedger,
    loop: SimulatedLoop,
    ending: Ending,
    *,
    resumed: bool,
    waits: Callable[[], float] = lambda: 0.0,
    **more: Any,
) -> RunContext:
    """Return the inputs of a session that works on the planned run on this loop.

    `waits`: returns the seconds that threads wait now, besides those of the disk.
    """
    scenario = world.scenario
    loop.killed_at = ending.killed_at
    ledger.killed_in_commit, ledger.commits, ledger.was_full = ending.killed_in_commit, 0, False
    oracle.begin()

    def thread(name: str) -> SimulatedThread:
        return SimulatedThread(loop, lambda: scenario.disk * scenario.chance(name, loop.turns) ** 3 + waits())

    runtime = Runtime(
        now=world.now,
        chance=lambda: scenario.chance("jitter", loop.turns),
        executor=thread,
        transport=lambda _connections: SimulatedTransport(world, oracle),  # type: ignore[arg-type, return-value]
        submit=loop.submit,
        since_boot=loop.time,
    )
    limits = RunLimits(
        attempts=scenario.attempts,
        backoff=scenario.backoff,
        slow_wait=scenario.slow_wait,
        patience=scenario.patience,
        concurrency=scenario.concurrency,
        per_env=scenario.per_env,
        rate=scenario.rate,
    )
    return RunContext(
        ledger=ledger,
        run=_planned(scenario.kind, scenario.merchants, scenario.rows),
        settings=settings(),
        limits=limits,
        tokens=SimulatedTokens(world),
        root=folder() / "files",
        canary=scenario.canary if not resumed else 0,
        runtime=runtime,
        resumed=resumed,
        **more,
    )


def end_of(
    work: Callable[[], RunRecord], context: RunContext, ending: Ending, *, lost: bool = False
) -> tuple[RunRecord, str]:
    """Let a session end; return its run, and how it ended. `lost`: whether it has met a lost lock or connection."""
    run, ledger = context.run, context.ledger
    try:
        return work(), "finished"
    except KilledError:
        return run, "killed"
    except InterruptedRunError:
        if ending.cancelled_at is None:
            raise Violation("interrupted, although nobody interrupted it") from None
        return run, "interrupted"
    except LedgerError as error:
        if lost:
            return run, "without its lock"
        if not isinstance(ledger, WatchedLedger) or not ledger.was_full:
            raise Violation(f"ended with {error}") from None
        return run, "without disk space"
    except StoppedError:
        return run, "stopped"
    except StuckError as error:
        raise Violation(str(error)) from None
    except Violation:
        raise
    except Exception as error:
        raise Violation(f"ended with {type(error).__name__}: {error}") from error


def check(world: World, oracle: Oracle, context: RunContext, run: RunRecord, end: str) -> None:
    """Check the ledger, links.csv and the store after a session."""
    ledger = context.ledger
    scenario = world.scenario
    ends = [Outcome(end) for (end,) in database().execute("SELECT outcome FROM rows ORDER BY line")]
    for row, outcome in zip(oracle.rows, ends, strict=True):
        _check_row(world, oracle, row, outcome)
    lost = sum(oracle.done.get(line) is None for line in oracle.answered)
    if lost > 2 * scenario.concurrency:
        raise Violation(f"{lost} answered rows were lost at {scenario.concurrency} calls at once")
    if end != "finished":
        return
    counts = Counter(ends)
    if run.finished_at is None or counts[Outcome.PENDING]:
        raise Violation(f"finished with {counts[Outcome.PENDING]} pending rows")
    if ledger.counts(run) != counts:
        raise Violation(f"counts {ledger.counts(run)}, rows {counts}")
    still_linked = {row.line for row, end in zip(oracle.rows, ends, strict=True) if end is Outcome.LINKED}
    if stale := oracle.expired & still_linked - oracle.begun:
        raise Violation(f"the links of lines {stale} had expired, and are not renewed")
    if scenario.kind == "links":
        _check_links(context.out or Path(run.out), oracle.rows, ends)


def _check_row(world: World, oracle: Oracle, row: Row, outcome: Outcome) -> None:
    """Check that a row's outcome is the one that was committed, and that a success is one."""
    line = row.line
    seen = oracle.done.get(line)
    if seen is not None and seen is not outcome:
        raise Violation(f"line {line} was recorded as {seen} and is {outcome}")
    if outcome is not Outcome.PENDING:
        oracle.done[line] = outcome  # closed with its environment
    if outcome is Outcome.UPLOADED:
        stored = world.simulator.objects.get((bucket_of(row.env), row.path))
        if stored is None or stored.md5 != md5_of(row.file):
            raise Violation(f"line {line} is uploaded, but the store has {stored}")
        if _differs(oracle.etags[line], stored.md5):
            raise Violation(f"line {line} is uploaded, but the store's checksum is another")
    if outcome is Outcome.LINKED and line not in oracle.linked:
        raise Violation(f"line {line} is linked, but no link arrived")


def _check_links(out: Path, rows: Sequence[Row], ends: Sequence[Outcome]) -> None:
    with out.open(encoding="utf-8", newline="") as lines:
        listed = list(csv.DictReader(lines))
    if [(line["env"], line["path"]) for line in listed] != [(row.env, row.path) for row in rows]:
        raise Violation("links.csv does not have each row once, in order")
    for number, (line, outcome) in enumerate(zip(listed, ends, strict=True), 2):
        if bool(line["url"]) != (outcome is Outcome.LINKED):
            raise Violation(f"line {number} is {outcome}, its link in links.csv is {line['url']!r}")


# --- many runs --------------------------------------------------------------------------------------------------------


def violation_of(play: Play, scenario: Any) -> str:
    """Play a scenario; return what it violates, or nothing."""
    try:
        play(scenario)
    except Violation as error:
        return str(error)
    return ""


def shrunk(play: Play, scenario: Any) -> Scenario:
    """Return the smallest scenario that still violates something, found by leaving out one part after another."""
    shrinking = True
    while shrinking:
        shrinking = False
        for name, index in scenario.parts():
            smaller = scenario.without(name, index)
            if violation_of(play, smaller):
                scenario, shrinking = smaller, True
                break
    return scenario


def play_seeds(
    play: Play, scenario_of: Callable[[int], Any], first: int, runs: int
) -> tuple[Counter[str], str]:
    """Play seeds one after another until one violates something; return what happened, and the violation."""
    happened: Counter[str] = Counter()
    for seed in range(first, first + runs):
        try:
            happened += play(scenario_of(seed))
        except Violation as error:
            happened["runs"] += 1
            smallest = shrunk(play, scenario_of(seed))
            return happened, f"seed {seed}: {error}\n  {smallest}\n  {violation_of(play, smallest)}"
    return happened, ""


SOME = 250
"""Runs that `make test` plays."""
BATCH = 1_000
"""Runs of one process: what killed sessions leave is kept until it ends."""


def _batch(results: Pipe, *batch: Any) -> None:
    """Play a batch in a process of its own, which ends without running anything of the killed sessions."""
    logging.disable()
    gc.disable()
    results.send(play_seeds(*batch))
    shutil.rmtree(folder())


def main(play: Play = play, scenario_of: Callable[[int], Any] = scenario_of) -> int:
    """Play seeds in processes of their own; return the exit code."""
    parser = argparse.ArgumentParser(description="Plays runs in simulated time.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--runs", type=int, default=SOME)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no batch after so many")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    began, total, failed = time.monotonic(), Counter[str](), False
    firsts = iter(range(chosen.seed, chosen.seed + chosen.runs, BATCH))
    working: list[Pipe] = []
    fork = multiprocessing.get_context("fork")  # what is imported is imported once
    while True:
        while len(working) < chosen.processes and time.monotonic() - began < chosen.seconds:
            first = next(firsts, None)
            if first is None:
                break
            runs = min(BATCH, chosen.seed + chosen.runs - first)
            receiver, sender = fork.Pipe(duplex=False)
            fork.Process(target=_batch, args=(sender, play, scenario_of, first, runs)).start()
            sender.close()
            working.append(receiver)
        if not working:
            break
        try:
            happened, violation = working.pop(0).recv()
        except EOFError:  # it has printed why
            happened, violation = Counter[str](), "a batch did not end"
        total += happened
        if violation:
            failed = True
            print(violation)
    seconds = time.monotonic() - began
    trace = total.pop("trace", 0)
    print(", ".join(f"{name} {count:,}" for name, count in sorted(total.items())))
    print(f"{seconds:.0f} s, {60 * total['runs'] / seconds:,.0f} runs a minute, trace {trace:x}")
    return 1 if failed or not total["runs"] else 0


if __name__ == "__main__":
    sys.exit(main())
