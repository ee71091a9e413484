"""Which row is next: fair over environments, within the limits. Plain data and arithmetic, no I/O.

A lane is one merchant's environment: its fresh rows (a short buffer, refilled from the ledger) and its rows that
came back from a wait. Lanes that can go on stand in one queue and are served in turn, so that a list sorted by env
does not leave one environment working alone. A lane that cannot go on leaves the queue, and comes back through what
held it: a row of its environment or merchant ending, a time, a token, a refill.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from tcb_ops.model import Link, Owner, Row, RowEnd, Secret
from tcb_ops.runs.limits import Breaker, RunLimits, Slowdown
from tcb_ops.runs.progress import PhaseTimer
from tcb_ops.runs.records import Earlier, EnvRecord
from tcb_ops.wechat.call_policy import Tries
from tcb_ops.wechat.tokens import Token

REFILL = 50
"""Rows read from the ledger at a time for one lane."""
LOW = 16
"""Fresh rows at which a lane asks for more, so that it never runs dry while the ledger is read."""


@dataclass(eq=False, slots=True)
class Task:
    """A row on its way, and what it has used up."""

    row: Row
    lane: Lane
    tries: Tries = field(default_factory=Tries)
    link: Link | None = None
    link_until: float = 0.0
    """When the link is no longer begun with, in the engine's monotonic time."""
    token: Secret | None = None
    """The token of the last link call: the one that a refusal speaks of."""
    refusal: RowEnd | None = None
    """How the row ends if the token source has no other token."""
    started_at: float | None = None


@dataclass(eq=False, slots=True)
class Env:
    """An environment: the limit of rows in flight, the store's breaker."""

    name: str
    pace: Slowdown
    breaker: Breaker = field(default_factory=Breaker)
    in_flight: int = 0
    lanes: list[Lane] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Account:
    """A merchant (appid), or the component for the platform's own environments: its token, its rate, its breaker."""

    appid: str
    """Empty where the settings name no component."""
    pace: Slowdown
    breaker: Breaker = field(default_factory=Breaker)
    in_flight: int = 0
    lanes: list[Lane] = field(default_factory=list)
    token: Token | None = None
    renew_at: float = float("inf")
    """When the token is asked for anew, ahead of its end."""
    asking: bool = False
    """The token source is being asked."""
    refused: Secret | None = None
    """The token that the platform refused, until the source has been asked."""
    no_token_since: float | None = None
    """When the source was first asked of those questions, one after the other, that it gave no usable answer to."""
    no_token_tries: int = 0
    """So many they are."""
    dead: Secret | None = None
    """A token that the platform refused and the source gave again."""
    dead_until: float = 0.0
    """Until then the source is not asked again about the dead token."""
    next_call: float = 0.0
    """When `rate` allows the next link call."""


@dataclass(eq=False, slots=True)
class Lane:
    """One merchant's environment, and its rows that can be taken."""

    no: int
    """The environment's number in the ledger."""
    env: Env
    account: Account
    owner: str
    fresh: deque[Row] = field(default_factory=deque)
    back: deque[Task] = field(default_factory=deque)
    known: dict[str, Earlier] = field(default_factory=dict)
    """With `--skip-unchanged`: what earlier runs put at the paths of rows that are about to go."""
    last_line: int = 0
    """The last line that was read from the ledger."""
    drained: bool = False
    """The ledger has no more rows for it."""
    refilling: bool = False
    end_as: RowEnd | None = None
    """Set when no fresh row begins any more: how its rows end (`line` is unused)."""
    queued: bool = False
    jobs: set[Task] = field(default_factory=set)
    """Begun and not ended, waiting ones included."""
    held: str = ""
    """The phase of the meter that keeps its next row from beginning."""

    @property
    def spent(self) -> bool:
        """Whether nothing is left to begin or to end."""
        return not self.jobs and (self.end_as is not None or (self.drained and not self.fresh))


class Scheduler:
    """The lanes of a run, the queue of those that can go on, and the clock of those that wait."""

    def __init__(self, lanes: Iterable[Lane], meter: PhaseTimer | None = None) -> None:
        self.lanes = list(lanes)
        self._meter = meter
        self._queue: deque[Lane] = deque()
        self._clock: list[tuple[float, int, Lane, Task | None]] = []
        self._ticket = 0
        self.needs_refill: list[Lane] = []
        """Lanes whose fresh rows run low: to be refilled from the ledger."""
        self.tokenless: set[Account] = set()
        """Accounts whose lanes wait for a token."""
        for lane in self.lanes:
            self.enqueue(lane)

    def enqueue(self, lane: Lane) -> None:
        """Put a lane at the end of the queue, unless it stands there."""
        if not lane.queued:
            lane.queued = True
            self._queue.append(lane)

    def take(self, now: float) -> Task | None:
        """Give the next row that may go now, or None. The caller hands it back with `release` or `wait`."""
        self._fire_timers(now)
        for _ in range(len(self._queue)):
            lane = self._queue.popleft()
            lane.queued = False
            job = self._from(lane, now)
            if job is not None:
                self.enqueue(lane)
                return job
        return None

    def next_timer(self) -> float | None:
        """When something that waits for a time may go on, in the clock that `take` is given."""
        return self._clock[0][0] if self._clock else None

    def wait(self, job: Task, until: float) -> None:
        """Take a row back that goes on later. It keeps its place in flight."""
        self._at(until, job.lane, job)
        if self._meter is not None:
            self._meter.enter("backoff")

    def again(self, job: Task) -> None:
        """Take a row back that may go on as soon as its lane may."""
        job.lane.back.append(job)
        self.enqueue(job.lane)

    def release(self, job: Task) -> None:
        """Take a row off the board that has ended: its place is free for the others."""
        lane = job.lane
        lane.jobs.discard(job)
        lane.env.in_flight -= 1
        lane.account.in_flight -= 1
        for other in lane.env.lanes:
            self.enqueue(other)
        if len(lane.account.lanes) > 1:
            for other in lane.account.lanes:
                self.enqueue(other)

    def refilled(self, lane: Lane, rows: list[Row]) -> None:
        """Add rows from the ledger; fewer than asked for means that there are no more."""
        lane.refilling = False
        lane.drained = len(rows) < REFILL
        if rows:
            lane.last_line = rows[-1].line
        if lane.end_as is None:
            lane.fresh.extend(rows)
        self.enqueue(lane)

    def close(self, lane: Lane, end_as: RowEnd) -> None:
        """Let no fresh row of a lane begin any more; those that wait are handed out to be ended.

        Rows in backoff come when their time does.
        """
        lane.end_as = end_as
        lane.fresh.clear()
        self.enqueue(lane)

    def got_token(self, account: Account, token: Token) -> None:
        """Let an account's lanes go on."""
        account.token = token
        self.tokenless.discard(account)
        for lane in account.lanes:
            self.enqueue(lane)

    def _from(self, lane: Lane, now: float) -> Task | None:
        """Take one row of a lane, or note what it waits for."""
        env, account = lane.env, lane.account
        self._hold(lane, "")
        if len(lane.fresh) <= LOW and not (lane.drained or lane.refilling or lane.end_as):
            lane.refilling = True
            self.needs_refill.append(lane)
        if lane.end_as is not None:
            return lane.back.popleft() if lane.back else None
        if not lane.back and not lane.fresh:
            return None
        paused_until = max(env.pace.paused_until, account.pace.paused_until)
        open_at = max(paused_until, account.next_call)
        if open_at > now:
            self._hold(lane, "slow" if paused_until > now else "limit")
            self._at(open_at, lane, None)
            return None
        if now >= account.renew_at:
            account.token = None
        if account.token is None:
            self.tokenless.add(account)
            self._hold(lane, "token")
            return None
        if lane.back:
            return lane.back.popleft()
        if env.in_flight >= env.pace.limit or account.in_flight >= account.pace.limit:
            self._hold(lane, "limit")
            return None
        env.in_flight += 1
        account.in_flight += 1
        job = Task(lane.fresh.popleft(), lane)
        lane.jobs.add(job)
        return job

    def _hold(self, lane: Lane, phase: str) -> None:
        """Tell the meter what a lane waits for from now on; empty for nothing."""
        if self._meter is not None:
            if lane.held:
                self._meter.leave(lane.held)
            if phase:
                self._meter.enter(phase)
            lane.held = phase

    def _at(self, when: float, lane: Lane, job: Task | None) -> None:
        self._ticket += 1
        heapq.heappush(self._clock, (when, self._ticket, lane, job))

    def _fire_timers(self, now: float) -> None:
        while self._clock and self._clock[0][0] <= now:
            _, _, lane, job = heapq.heappop(self._clock)
            if job is not None:
                if self._meter is not None:
                    self._meter.leave("backoff")
                lane.back.append(job)
            self.enqueue(lane)


def lanes_of(places: list[EnvRecord], pace: RunLimits, component_appid: str = "") -> list[Lane]:
    """One lane a place; places that share an environment or a merchant share its limits.

    The platform's own environments share the component's account, whoever they are listed for.
    """
    accounts: dict[tuple[str, str], Account] = {}
    environments: dict[str, Env] = {}
    lanes = []

    def caller(place: EnvRecord) -> tuple[str, str]:
        # Apart from a merchant's own account of the same appid: another interface, another quota.
        return (place.owner, component_appid if place.owner == Owner.PLATFORM else place.appid)

    envs_of = Counter(map(caller, places))
    for place in places:
        key = caller(place)
        most = min(pace.concurrency, pace.per_env * envs_of[key])
        account = accounts.setdefault(key, Account(key[1], Slowdown(most)))
        environment = environments.setdefault(place.env, Env(place.env, Slowdown(pace.per_env)))
        lane = Lane(place.no, environment, account, place.owner)
        account.lanes.append(lane)
        environment.lanes.append(lane)
        lanes.append(lane)
    return lanes
