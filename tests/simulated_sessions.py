"""Plays two processes that work on the same run, in one simulated clock, and checks what they do to it together.

The second one takes the run over once it gets its lock: after the first has ended, or while that one is frozen, or cut off from
the database, for so long that the server has released the lock. `python tests/simulated_sessions.py --runs 2000 --seed 0`.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

import simulated_runs as one
from simulated_runs import Oracle, Violation, WatchedLedger, check, context_of, end_of, folder
from simulated_time import Clock, KilledError, SimulatedLoop, StuckError
from simulated_world import Ending, Scenario, World, scenario_of

from tcb_ops.engine.session import RunSession
from tcb_ops.errors import LedgerError
from tcb_ops.i18n import verbatim
from tcb_ops.ledger.ledger import IDLE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tcb_ops.engine.calls import RunContext
    from tcb_ops.ledger.database import Connection
    from tcb_ops.ledger.records import RunRecord, Usage
    from tcb_ops.model import RowEnd

SERVER_DROPS = 25.0
"""Seconds after which PostgreSQL drops a client that is silent, and releases its lock: `_SESSION` of its ledger."""
DRIVER_WAITS = 10.0
"""Seconds that a statement waits for a server that cannot be reached: `_LIBPQ` of its ledger."""
TRIES_EVERY = 5.0
"""Seconds between two attempts of an operator to take the run over."""


@dataclass(frozen=True)
class Halt:
    """A time in which a process or its machine is frozen, or the machine is cut off from the database."""

    session: int
    what: str
    """`process`: its connections live on. `machine`: they fall silent. `cut off`: the same, while the process goes on."""
    begins: float
    ends: float


@dataclass(frozen=True)
class TwoSessions(Scenario):
    """A run on which a second process wants to work, too."""

    second_at: float = 0.0
    """When it tries to take the lock for the first time."""
    advisory: bool = True
    """Whether the lock is one in the database, and each process on a machine of its own; else a file."""
    halts: tuple[Halt, ...] = ()

    def parts(self) -> list[tuple[str, int]]:
        return [*super().parts(), *(("halts", index) for index in range(len(self.halts)))]

    def within(self, now: float, session: int, *kinds: str) -> Halt | None:
        """Return the halt of these kinds in which a session is now."""
        mine = (halt for halt in self.halts if halt.session == session and halt.what in kinds)
        return next((halt for halt in mine if halt.begins <= now < halt.ends), None)


def two_of(seed: int) -> TwoSessions:
    """Return the scenario of a seed: that of one session, with a second one and with halts."""
    base, rng = scenario_of(seed), Random(f"two {seed}")
    advisory = rng.random() < 0.8
    kinds = ["process", "machine", "cut off"] if advisory else ["process"]
    halts = []
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        begins = 10 ** rng.uniform(-2, 1.5)
        seconds = rng.choice([1.0, 12.0, 20.0, 40.0, 40.0, 200.0])
        halts.append(Halt(rng.choice([0, 0, 1]), rng.choice(kinds), begins, begins + seconds))
    second_at = rng.choice([0.0, rng.uniform(0, 5), rng.uniform(0, 100)])
    known = {each.name: getattr(base, each.name) for each in fields(base)}
    return TwoSessions(**known, second_at=second_at, advisory=advisory, halts=tuple(halts))


@dataclass
class Lock:
    """A model of the lock on the run."""

    scenario: TwoSessions
    clock: Clock
    lost: set[int] = field(default_factory=set)
    """The sessions whose lock the server has released while they had it."""
    _holder: int | None = None
    _since: float = 0.0

    def holder(self) -> int | None:
        """Return the session that has the lock now."""
        for halt in self.scenario.halts if self.scenario.advisory else ():
            silent_from = max(halt.begins, self._since)
            silent_to = min(halt.ends, self.clock.now)
            if (
                halt.session == self._holder
                and halt.what != "process"
                and silent_to - silent_from >= SERVER_DROPS
            ):
                self.lost.add(halt.session)
                self._holder = None
        return self._holder

    def take(self, session: int) -> bool:
        """Take the lock if it is free; return whether it was."""
        if self.holder() is not None:
            return False
        self._holder, self._since = session, self.clock.now
        return True

    def release(self, session: int) -> None:
        """Release the lock, if the session still has it."""
        if self.holder() == session:
            self._holder = None

    def check(self, session: int) -> None:
        """Ask for the lock, as a session does. Raises LedgerError if it is lost, or the server cannot be reached."""
        if not self.scenario.advisory:
            return
        if self.scenario.within(self.clock.now, session, "cut off") or self.holder() != session:
            raise LedgerError(verbatim("the lock is lost"))


@dataclass
class SharedOracle(Oracle):
    """Knows what one of the two sessions did, and with the other what the run has become."""

    lock: Lock = field(kw_only=True)
    session: int = field(kw_only=True)
    late: set[int] = field(kw_only=True)
    """Lines, of both, that a session has recorded after it had lost its lock: the other may have begun them."""
    pending: set[int] = field(default_factory=set)
    """The lines that were pending before the commit."""
    _late_commits: int = 0

    @contextmanager
    def call(self, step: str, env: str, path: str) -> Iterator[Any]:
        if self.lock.holder() != self.session:
            raise Violation(f"session {self.session} makes a {step} call without the lock")
        line = self.line_of.get((env, path))
        known = {each: self.done.pop(each) for each in self.late & {line} if each in self.done}
        try:
            with super().call(step, env, path) as answered:
                self.done.update(known)
                yield answered
        finally:
            self.done.update(known)

    def recorded(self, ends: Sequence[RowEnd]) -> None:
        written = [end for end in ends if end.line in self.pending]
        if self.lock.holder() == self.session:
            again = {end.line for end in ends} - self.pending - self.late
            if again:
                raise Violation(f"lines {again} are recorded twice")
        elif ends:
            self._late_commits += 1
            self.late |= {end.line for end in written}
            if self._late_commits > 1:
                raise Violation(f"session {self.session} commits again after it has lost its lock")
        for end in written:
            self.done.pop(end.line, None)
        super().recorded(written)


class SharedLedger(WatchedLedger):
    """The ledger as one of the two sessions reaches it."""

    oracle: SharedOracle

    def record(self, run: RunRecord, ends: Sequence[RowEnd], usage: Usage) -> None:
        pending = one.database().execute("SELECT line FROM rows WHERE outcome = 'pending'")
        self.oracle.pending = {line for (line,) in pending}
        super().record(run, ends, usage)

    @contextmanager
    def writing(self, idle: int = IDLE_SECONDS, *, in_one_statement: bool = False) -> Iterator[Connection]:
        lock, session = self.oracle.lock, self.oracle.session
        cut_off = lock.scenario.within(lock.clock.now, session, "cut off")
        arrives = lock.scenario.chance("commit", session, self.commits) < 0.5
        if cut_off and not arrives:
            raise LedgerError(verbatim("the server cannot be reached"))
        with super().writing(idle, in_one_statement=in_one_statement) as connection:
            yield connection
        if cut_off:
            raise LedgerError(verbatim("the server's answer did not arrive"))


@cache
def _ledger(_session: int) -> SharedLedger:
    return SharedLedger(str(one.the_ledger().file))


class Process:
    """One of the two: waits for the lock, works, ends."""

    def __init__(self, number: int, starts: float, lock: Lock, world: World, oracle: SharedOracle) -> None:
        self.number, self.lock, self.world, self.oracle = number, lock, world, oracle
        self.scenario = lock.scenario
        self.loop = SimulatedLoop(lock.clock)
        self.end = ""
        self.took_over = False
        self._starts: float = starts
        self._ending = self.scenario.endings[number] if number < len(self.scenario.endings) else Ending()
        self._context: RunContext | None = None
        self._session: RunSession | None = None

    def due(self) -> float | None:
        """Return when it does something next: not while it is frozen."""
        due = self._starts if self._session is None else self.loop.due()
        kinds = ("process", "machine") if self._session is not None else ("process", "machine", "cut off")
        while due is not None and (halt := self.scenario.within(due, self.number, *kinds)):
            due = halt.ends
        return due

    def step(self, other: Process) -> None:
        """Do what is due."""
        if self._session is None:
            self._start(other)
            return
        asyncio._set_running_loop(self.loop)
        try:
            self.loop.turn()
        except KilledError:
            self._finish(self._killed)
            return
        except StuckError as error:
            raise Violation(str(error)) from None
        finally:
            asyncio._set_running_loop(None)
        if self._session._future._task.done():  # type: ignore[attr-defined]
            self._finish(self._session.wait)

    def _start(self, other: Process) -> None:
        if other.end == "finished":
            self.end = "not needed"
        elif not self.lock.take(self.number):
            self._starts = self.lock.clock.now + TRIES_EVERY
        else:
            self.took_over = other._session is not None and not other.end
            advisory = self.scenario.advisory
            ledger = _ledger(self.number)
            ledger.oracle = self.oracle
            self._context = context_of(
                self.world,
                self.oracle,
                ledger,
                self.loop,
                self._ending,
                resumed=other._context is not None,
                waits=self._waits,
                check_lock=lambda: self.lock.check(self.number),
                out=folder() / f"links-{self.number}.csv"
                if advisory and self.scenario.kind == "links"
                else None,
            )
            _run, end = end_of(self._begin, self._context, self._ending)
            if self._session is None:
                self.lock.release(self.number)
                self.end = end
                return
            one.KILLED.append((self.loop, self._context, self._session))
            if self._ending.cancelled_at is not None:
                self.loop.call_later(self._ending.cancelled_at, self._session.cancel)

    def _begin(self) -> RunRecord:
        assert self._context is not None
        self._session = RunSession(self._context)
        return self._context.run

    def _waits(self) -> float:
        """Return the seconds that a statement waits for a server that cannot be reached."""
        return DRIVER_WAITS if self.scenario.within(self.lock.clock.now, self.number, "cut off") else 0.0

    def _killed(self) -> RunRecord:
        raise KilledError

    def _finish(self, work: Any) -> None:
        assert self._context is not None
        self.lock.holder()
        was_cut_off = any(
            halt.session == self.number and halt.what == "cut off" and halt.begins <= self.lock.clock.now
            for halt in self.scenario.halts
        )
        lost = self.number in self.lock.lost or was_cut_off
        run, end = end_of(work, self._context, self._ending, lost=lost)
        if end == "finished" and self.number in self.lock.lost:
            raise Violation(f"session {self.number} finishes the run without the lock")
        self.lock.release(self.number)
        self.end = end
        check(self.world, self.oracle, self._context, run, end)


def play(scenario: TwoSessions) -> Counter[str]:
    """Play a scenario to its end; return what happened, counted. Raises Violation."""
    for rest in folder().glob("links*.csv*"):
        rest.unlink()
    one.plan(scenario)
    clock, world = Clock(), World(scenario)
    network = SimulatedLoop(clock)
    world.begin(network)
    lock, known = Lock(scenario, clock), Oracle(world)
    shared = {name: getattr(known, name) for name in ("done", "linked", "expires", "etags")}
    late: set[int] = set()
    processes = [
        Process(
            number, starts, lock, world, SharedOracle(world, lock=lock, session=number, late=late, **shared)
        )
        for number, starts in enumerate((0.0, scenario.second_at))
    ]
    happened: Counter[str] = Counter(runs=1)
    while waiting := [process for process in processes if not process.end]:
        moments = [
            (due, process.number, process) for process in waiting if (due := process.due()) is not None
        ]
        network_due = network.due()
        if not moments and network_due is None:
            raise Violation("nobody will wake the runs")
        first = min(moments, default=None)
        if network_due is not None and (first is None or network_due <= first[0]):
            clock.now = max(clock.now, network_due)
            asyncio._set_running_loop(network)
            try:
                network.turn()
            finally:
                asyncio._set_running_loop(None)
            continue
        assert first is not None
        clock.now = max(clock.now, first[0])
        process = first[2]
        process.step(processes[1 - process.number])
    for process in processes:
        happened[f"session {process.end}"] += 1
        happened["taken over"] += process.took_over
        happened["lost locks"] += process.number in lock.lost
    happened["late rows"] += len(late)
    if "finished" not in {process.end for process in processes}:
        world.end()
        world.simulator.play(())  # the causes are fixed
        happened += one.finish(world, known, sessions=len(processes))
    happened["calls"] = world.calls
    return happened


if __name__ == "__main__":
    sys.exit(one.main(play=play, scenario_of=two_of))
