"""The scheduler: picks the next row, fairly over environments and within the limits. No I/O.

A lane is one merchant's environment: its fresh rows (a short buffer, refilled from the ledger) and its rows that
return from a wait. Lanes with work are in one queue and served in turn, so that a list sorted by env does not run one
environment at a time. A lane that has to wait leaves the queue until its reason ends: a row of its environment or
merchant, a timer, a missing token, a refill.

Lanes are made as their turn comes, and forgotten when their rows have ended: of a large fleet with few rows each, only
those at work are in memory. Those that have had a turn are behind those that have not.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

from tcb_ops.engine.limits import AttemptCounts, Breaker, RunLimits, Slowdown
from tcb_ops.ledger.files import OwnFile, StoredFile
from tcb_ops.ledger.records import EnvRecord
from tcb_ops.model import Link, Owner, Row, RowEnd, Secret
from tcb_ops.wechat.tokens import Token

REFILL = 50
"""Most rows read from the ledger at a time for one lane."""
BUFFERED = 10_000
"""Rows that all lanes together may buffer: with many lanes, each buffers fewer, so that memory stays constant."""
COMING = 256
"""Environments whose lanes are made at a time, when fewer than half as many have rows to begin."""
_UNSET = Secret("")
_ENV = "env"
"""In place of an owner, for the state of an environment."""
TURN = 8
"""Rows taken from a lane in one turn: they are adjacent in the ledger, and a commit writes whole pages."""


@dataclass(eq=False, slots=True)
class Task:
    """The rows of one call in progress, with their attempts, link and token: a single row, except for batch interfaces."""

    rows: list[Row]
    """Those that have not ended."""
    lane: Lane
    counts: AttemptCounts = field(default_factory=AttemptCounts)
    link: Link | None = None
    link_until: float = 0.0
    """When the link must be replaced, in the engine's monotonic time."""
    token: Secret = _UNSET
    """The token of its calls, to which a refusal refers; empty before the first."""
    refusal: RowEnd | None = None
    """How the row ends if the token source has no other token."""
    started_at: float | None = None
    acted: bool = False
    """For an undo: whether it has begun to delete or restore the file."""
    files: dict[str, StoredFile] = field(default_factory=dict)
    """For the kinds about stored files: what the ledger knows of the paths of its rows, right before its calls."""
    own: dict[int, OwnFile] = field(default_factory=dict)
    """What the upload that they are about stored, by the lines of its rows."""

    @property
    def row(self) -> Row:
        """Its first row; of most tasks the only one."""
        return self.rows[0]


@dataclass(eq=False, slots=True)
class ScopeState:
    """State of an environment: its limit of rows in flight, the store's breaker."""

    name: str
    slowdown: Slowdown
    breaker: Breaker = field(default_factory=Breaker)
    in_flight: int = 0
    lanes: list[Lane] = field(default_factory=list)
    """Those that are made and not done."""
    lanes_left: int = 1
    """Lanes that are not done, those to be made included."""


@dataclass(eq=False, slots=True)
class AppState(ScopeState):
    """State of a merchant (appid), or of the component for the platform's own environments: token, rate, breaker."""

    token: Token | None = None
    renew_at: float = float("inf")
    """When the token is renewed, ahead of its expiry."""
    token_requested: bool = False
    """Whether a token request is in progress."""
    refused: Secret | None = None
    """The token that the platform refused, for the next request to the source."""
    rejected: Secret | None = None
    """A token that the platform refused and the source returned again."""
    rejected_until: float = 0.0
    """Time until which the source is not asked to replace the rejected token."""
    next_call: float = 0.0
    """When `rate` allows the next link call."""

    @property
    def appid(self) -> str:
        """Its appid; empty if the settings name no component."""
        return self.name


@dataclass(eq=False, slots=True)
class Lane:
    """One merchant's environment, and its rows that can be worked on."""

    environment: EnvRecord
    env: ScopeState
    app: AppState
    fresh: list[Row] = field(default_factory=list)
    """Rows not yet taken. This and `back` are lists, since there are many lanes: an empty deque takes 600 bytes."""
    back: list[Task] = field(default_factory=list)
    """Tasks that were taken and handed back."""
    known_files: dict[str, StoredFile] = field(default_factory=dict)
    """With `--skip-unchanged`: what is certain to be there, by the paths of the next rows."""
    rows_per_call: int = 1
    """Rows that go in one call."""
    last_line: int = 0
    """The last line read from the ledger."""
    drained: bool = False
    """Whether the ledger has no more rows for it."""
    refilling: bool = False
    end_as: RowEnd | None = None
    """How the remaining rows of a closed lane end (`line` is unused); None while fresh rows may begin."""
    queued: bool = False
    begun: bool = False
    """Whether it has had a turn."""
    taken: int = 0
    """Rows taken in this turn."""
    timer: float = float("inf")
    """When a lane that waits for a pause or the rate is queued again."""
    tasks: list[Task] = field(default_factory=list)
    """Rows begun and not ended, waiting ones included."""

    @property
    def number(self) -> int:
        """The environment's number in the ledger."""
        return self.environment.number

    @property
    def owner(self) -> Owner:
        """The environment's owner."""
        return self.environment.owner

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to begin or to end."""
        return not self.tasks and (self.end_as is not None or (self.drained and not self.fresh))


class LaneRegistry:
    """Makes the lanes of environments, and the states that these share."""

    def __init__(
        self,
        limits: RunLimits,
        component_appid: str = "",
        rows_per_call: int = 1,
        forget: Callable[[str, Owner], None] = lambda _appid, _owner: None,
    ) -> None:
        """`forget`: told of each account (appid, owner) that is done."""
        self.rows_per_call, self._limits = rows_per_call, limits
        self._component, self._forget = component_appid, forget
        self.coming: deque[EnvRecord] = deque()
        """The environments whose lanes are to be made, in the order of the list."""
        self.apps: dict[tuple[str, str], AppState] = {}
        self._envs: dict[str, ScopeState] = {}
        self._shared: dict[tuple[str, str], int] = {}
        """How many of them share an appid or an env, where several do."""

    def come(self, environments: Collection[EnvRecord]) -> None:
        """Take the environments of a run, when all earlier ones are done."""
        self.coming.extend(environments)
        numbers = Counter(
            key
            for environment in environments
            for key in (self._account(environment), (_ENV, environment.env))
        )
        self._shared = {key: number for key, number in numbers.items() if number > 1}

    @property
    def has_begun_rows(self) -> bool:
        """Whether rows have begun and not ended."""
        return any(lane.tasks for app in self.apps.values() for lane in app.lanes)

    def make_next(self, most: int) -> Iterator[Lane]:
        """Make the lanes of the next environments."""
        for _ in range(min(most, len(self.coming))):
            yield self._make(self.coming.popleft())

    def make_rest_of(self, scope: ScopeState) -> Iterator[Lane]:
        """Make the other lanes of an appid or of an env before their turn."""
        if len(scope.lanes) < scope.lanes_left:
            coming, others = list(self.coming), list[EnvRecord]()
            self.coming.clear()
            for environment in coming:
                states = self.apps.get(self._account(environment)), self._envs.get(environment.env)
                if scope in states:
                    yield self._make(environment)
                else:
                    others.append(environment)
            self.coming.extend(others)

    def _make(self, environment: EnvRecord) -> Lane:
        """Return the lane of an environment; lanes that share an env or an appid share its limits."""
        app, env = self._app(environment), self._env(environment.env)
        lane = Lane(environment, env, app, rows_per_call=self.rows_per_call)
        app.lanes.append(lane)
        env.lanes.append(lane)
        return lane

    def forget(self, lane: Lane) -> None:
        """Forget a lane that is done, and the states that no other lane shares."""
        app, env = lane.app, lane.env
        for scope in (app, env):
            scope.lanes.remove(lane)
            scope.lanes_left -= 1
        if app.lanes_left <= 0:
            self.apps.pop((lane.owner, app.appid), None)
            self._forget(app.appid, lane.owner)
        if env.lanes_left <= 0:
            self._envs.pop(env.name, None)

    def pauses(self, now: float) -> tuple[int, str, float]:
        """Return how many environments are paused, lanes to be made included; the one that continues first, and when."""
        paused: list[tuple[ScopeState, int]]
        paused = [(app, app.lanes_left) for app in self.apps.values() if app.slowdown.paused_until > now]
        paused += [
            (env, sum(lane.app.slowdown.paused_until <= now for lane in env.lanes))
            for env in self._envs.values()
            if env.slowdown.paused_until > now
        ]
        if not paused:
            return 0, "", 0.0
        first = min((scope for scope, _count in paused), key=lambda scope: scope.slowdown.paused_until)
        env = first.lanes[0].env.name if first.lanes else first.name
        return sum(count for _scope, count in paused), env, first.slowdown.paused_until

    def _app(self, environment: EnvRecord) -> AppState:
        """Return the state of an appid. The platform's own environments share the component's."""
        key = self._account(environment)
        if key not in self.apps:
            lanes = self._shared.get(key, 1)
            most = min(self._limits.concurrency, self._limits.per_env * lanes)
            self.apps[key] = AppState(key[1], Slowdown(most), lanes_left=lanes)
        return self.apps[key]

    def _env(self, name: str) -> ScopeState:
        if name not in self._envs:
            lanes = self._shared.get((_ENV, name), 1)
            self._envs[name] = ScopeState(name, Slowdown(self._limits.per_env), lanes_left=lanes)
        return self._envs[name]

    def _account(self, environment: EnvRecord) -> tuple[str, str]:
        # Separate from a merchant's own calls with the same appid: another interface and quota.
        of_component = environment.owner == Owner.PLATFORM
        return environment.owner, self._component if of_component else environment.appid


class Scheduler:
    """The lanes of a run, the queue of those with work, and the timers of those that wait."""

    def __init__(self, registry: LaneRegistry) -> None:
        self.registry = registry
        self.lanes: dict[Lane, None] = {}
        """Those that are made and not done, in the order of the list."""
        self.refill = REFILL
        """Rows read from the ledger at a time for one lane; at least those of one call."""
        self._queue: deque[Lane] = deque()
        self._later: deque[Lane] = deque()
        """The queue of the lanes that have had a turn."""
        self._timers: list[tuple[float, int, Lane, Task | None]] = []
        self._ticket = 0
        self._refilling = 0
        self.needs_refill: list[Lane] = []
        """Lanes to be refilled from the ledger."""
        self.tokenless: dict[AppState, None] = {}
        """Apps whose lanes wait for a token."""

    def come(self, environments: Collection[EnvRecord]) -> None:
        """Take the environments of a run that have pending rows, when all earlier ones are done."""
        self.registry.come(environments)
        few = BUFFERED // max(1, len(environments))
        self.refill = max(TURN, self.registry.rows_per_call, min(REFILL, few))
        self._want_lanes()

    def enqueue(self, lane: Lane) -> None:
        """Put a lane at the end of the queue, unless it is queued already; those without a turn yet go first."""
        if not lane.queued:
            lane.queued = True
            (self._later if lane.begun else self._queue).append(lane)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to begin or to end."""
        return not self.registry.coming and all(lane.is_done for lane in self.lanes)

    def make_now(self, scope: ScopeState) -> None:
        """Make the other lanes of an appid or of an env before their turn: it was closed, and they end with it."""
        self.lanes.update(dict.fromkeys(self.registry.make_rest_of(scope)))

    def take(self, now: float) -> Task | None:
        """Return the next task to work on, or None. The caller hands it back with `release`, `wait` or `again`."""
        self._fire_timers(now)
        self._want_lanes()
        for queue in (self._queue, self._later):
            for _ in range(len(queue)):
                lane = queue.popleft()
                lane.queued = False
                task = self._from(lane, now)
                if task is not None:
                    lane.begun = True
                    lane.taken += 1
                    if lane.taken < TURN:
                        lane.queued = True
                        queue.appendleft(lane)
                    else:
                        lane.taken = 0
                        self.enqueue(lane)
                    return task
                lane.taken = 0
        return None

    def next_timer(self) -> float | None:
        """Return when the next wait ends, on the clock of `take`."""
        return self._timers[0][0] if self._timers else None

    def wait(self, task: Task, until: float) -> None:
        """Take back a task that continues at a later time. It still counts as in flight."""
        self._at(until, task.lane, task)

    def again(self, task: Task) -> None:
        """Take back a task that continues as soon as its lane may."""
        task.lane.back.append(task)
        self.enqueue(task.lane)

    def release(self, task: Task) -> None:
        """Remove a task that has ended, and queue the lanes that may have waited for it."""
        lane = task.lane
        lane.tasks.remove(task)
        lane.env.in_flight -= 1
        lane.app.in_flight -= 1
        for other in lane.env.lanes:
            self.enqueue(other)
        if len(lane.app.lanes) > 1:
            for other in lane.app.lanes:
                self.enqueue(other)
        self._forget_done(lane)

    def refilled(self, lane: Lane, rows: list[Row]) -> None:
        """Add rows from the ledger; fewer than `refill` mean that there are no more."""
        lane.refilling = False
        self._refilling -= 1
        lane.drained = len(rows) < self.refill
        if rows:
            lane.last_line = rows[-1].line
        if lane.end_as is None:
            lane.fresh.extend(rows)
        self.enqueue(lane)
        self._forget_done(lane)

    def close(self, lane: Lane, end_as: RowEnd) -> None:
        """Begin no more fresh rows of a lane; `take` returns its waiting rows to be ended.

        Rows in backoff follow when their wait is over.
        """
        lane.end_as = end_as
        lane.fresh.clear()
        self.enqueue(lane)
        self._forget_done(lane)

    def split(self, task: Task) -> None:
        """Halve a task whose call was refused as a whole; both halves continue as soon as their lane may."""
        half = (len(task.rows) + 1) // 2
        other = Task(task.rows[half:], task.lane, counts=replace(task.counts), started_at=task.started_at)
        task.rows = task.rows[:half]
        task.lane.tasks.append(other)
        task.lane.env.in_flight += 1
        task.lane.app.in_flight += 1
        self.again(task)
        self.again(other)

    def got_token(self, app: AppState, token: Token) -> None:
        """Set an app's token, and queue its lanes."""
        app.token = token
        self.tokenless.pop(app, None)
        for lane in app.lanes:
            self.enqueue(lane)

    def _from(self, lane: Lane, now: float) -> Task | None:
        env, app = lane.env, lane.app
        self._want_rows(lane)
        if lane.end_as is not None:
            return lane.back.pop(0) if lane.back else None
        if not lane.back and (not lane.fresh or (len(lane.fresh) < lane.rows_per_call and not lane.drained)):
            return None
        open_at = max(env.slowdown.paused_until, app.slowdown.paused_until, app.next_call)
        if open_at > now:
            if open_at < lane.timer:  # one timer per lane, however often it is queued
                lane.timer = open_at
                self._at(open_at, lane, None)
            return None
        if now >= app.renew_at:
            app.token = None
        if app.token is None:
            self.tokenless[app] = None
            return None
        # A task that comes back has its place among those in flight already; it waits only while a slowed scope has fewer
        # places than before. One that begins needs a free place.
        full = _no_more_continue if lane.back else _no_more_begin
        if full(env) or full(app):
            return None
        if lane.back:
            return lane.back.pop(0)
        env.in_flight += 1
        app.in_flight += 1
        task = Task(lane.fresh[: lane.rows_per_call], lane)
        del lane.fresh[: lane.rows_per_call]
        lane.tasks.append(task)
        return task

    def _want_lanes(self) -> None:
        """Make the next lanes while few others have rows to begin, so that work never waits for them."""
        if self.registry.coming and len(self._queue) + self._refilling < COMING // 2:
            for lane in self.registry.make_next(COMING):
                self.lanes[lane] = None
                self._want_rows(lane)

    def _forget_done(self, lane: Lane) -> None:
        if lane.is_done and not lane.refilling and lane in self.lanes:
            del self.lanes[lane]
            self.registry.forget(lane)

    def _want_rows(self, lane: Lane) -> None:
        """Have a lane with few rows refilled from the ledger, so that it is never empty while that is read."""
        low = max(self.refill // 3, lane.rows_per_call)
        if len(lane.fresh) > low or lane.drained or lane.refilling or lane.end_as:
            return
        lane.refilling = True
        self._refilling += 1
        self.needs_refill.append(lane)

    def _at(self, when: float, lane: Lane, task: Task | None) -> None:
        self._ticket += 1
        heapq.heappush(self._timers, (when, self._ticket, lane, task))

    def _fire_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, _, lane, task = heapq.heappop(self._timers)
            if task is None:
                lane.timer = float("inf")
            else:
                lane.back.append(task)
            self.enqueue(lane)


def _no_more_begin(scope: ScopeState) -> bool:
    """Return whether a scope has as many rows begun and not ended as its limit allows."""
    return scope.in_flight >= scope.slowdown.limit


def _no_more_continue(scope: ScopeState) -> bool:
    """Return whether a slowed scope has as many rows in progress, without waiting ones, as its limit allows."""
    if scope.slowdown.limit >= scope.slowdown.full:
        return False
    return scope.in_flight - sum(len(lane.back) for lane in scope.lanes) >= scope.slowdown.limit
