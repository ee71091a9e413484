"""Platform, store, token source and network of a run in simulated time: the simulator's own decisions, without sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote
from zlib import crc32

from multidict import CIMultiDict
from rigged_simulator import Simulator
from simulated_time import SimulatedLoop

from tcb_ops.catalogue import all_errcodes, all_store_codes
from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import TokenError, TransportError, TransportFault
from tcb_ops.features.simulator.cos import bucket_of
from tcb_ops.features.simulator.faults import Etag, Fault, Faults, FaultStep, Reset
from tcb_ops.features.simulator.state import Request
from tcb_ops.model import Merchant, Secret
from tcb_ops.wechat.responses import HttpResponse
from tcb_ops.wechat.tokens import Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from tcb_ops.wechat.transport import HttpRequest

BASE = "http://127.0.0.1:9"
"""Nothing listens there, and nothing is sent."""
BEGAN = 1_790_000_000.0
"""Unix seconds at which simulated time begins."""
MERCHANTS = (
    Merchant("wxtea", "茶语小铺", "tea-1a2b3c"),
    Merchant("wxtea", "茶语小铺", "tea-test-9f"),
    Merchant("wxbooks", "城南书店", "books-77aa01"),
    Merchant("wxcake", "蛋糕屋", "cake-0c0c0c"),
)
NO_ANSWER_AFTER = 70.0
"""Seconds after which a client gives up a request that is never answered."""


@dataclass(frozen=True)
class Outage:
    """A time in which no host can be reached, or nothing can be written."""

    begins: float
    ends: float


@dataclass(frozen=True)
class Change:
    """What somebody changes at a moment: a merchant's token, or this machine's clock."""

    moment: float
    what: str
    """`rotate`, `expire`, or `clock`."""
    appid: str = ""
    seconds: float = 0.0
    """By which the clock is set forward."""


@dataclass(frozen=True)
class Ending:
    """What ends a session early: a kill at a turn of the loop or in a commit, or Ctrl-C at a moment."""

    killed_at: int | None = None
    killed_in_commit: int | None = None
    """The number of the commit: before it if it is negative, else after it."""
    cancelled_at: float | None = None


@dataclass(frozen=True)
class Scenario:
    """A run and everything that happens to it. The seed also decides each latency and each lost answer."""

    seed: int
    kind: str
    merchants: int
    rows: int
    concurrency: int
    per_env: int
    rate: float | None
    attempts: int
    backoff: float
    slow_wait: float
    patience: float
    canary: int
    lost: float
    """The chance that an answer does not arrive, although the call was carried out."""
    slowest: float
    """Seconds that a call takes at most, but for faults."""
    disk: float
    """Seconds that a commit takes at most."""
    faults: tuple[Fault, ...] = ()
    outages: tuple[Outage, ...] = ()
    changes: tuple[Change, ...] = ()
    token_failures: float = 0.0
    """The chance that the token source does not answer."""
    endings: tuple[Ending, ...] = ()
    """Those of the first sessions; the last session ends by itself."""
    twice: float = 0.0
    """The chance that a request is carried out twice, and answered by either."""
    full: tuple[Outage, ...] = ()
    """Times in which the ledger's disk is full."""

    def chance(self, *about: object) -> float:
        """Return a number from 0 up to 1 that depends on the seed and what it is about, and on nothing else."""
        return crc32(repr((self.seed, *about)).encode()) / 2**32

    def parts(self) -> list[tuple[str, int]]:
        """Return what a smaller scenario can do without."""
        lists = ("faults", "outages", "changes", "endings", "full")
        return [(name, index) for name in lists for index in range(len(getattr(self, name)))]

    def without(self, name: str, index: int) -> Scenario:
        """Return the scenario without one of its parts."""
        kept = getattr(self, name)
        return replace(self, **{name: (*kept[:index], *kept[index + 1 :])})


ERRCODES = sorted({entry.code for entry in all_errcodes()} - {0})
STORE_CODES = sorted({entry.code for entry in all_store_codes()} - {""})


def scenario_of(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    rng = Random(seed)
    kind = rng.choice(["links", "upload"])
    merchants = rng.randint(1, len(MERCHANTS))
    trouble = rng.random()
    scenario = Scenario(
        seed,
        kind,
        merchants,
        rows=20,
        concurrency=rng.choice([1, 2, 4, 8, 16]),
        per_env=rng.choice([1, 2, 4, 8]),
        rate=rng.choice([None, None, 0.5, 5.0]),
        attempts=rng.randint(1, 4),
        backoff=rng.choice([0.0, 0.1, 1.0]),
        slow_wait=rng.choice([1.0, 60.0]),
        patience=rng.choice([30.0, 300.0]),
        canary=rng.choice([0, 0, 0, 1]),
        lost=rng.choice([0.0, 0.0, 0.02, 0.2]),
        slowest=rng.choice([0.01, 1.0, 30.0]),
        disk=rng.choice([0.02, 0.02, 10.0]),
        faults=tuple(_fault(rng) for _ in range(rng.choice([0, 1, 1, 2, 3, 5]))) if trouble > 0.2 else (),
        outages=tuple(_outage(rng) for _ in range(rng.choice([0, 0, 0, 1, 2]))),
        changes=tuple(_change(rng) for _ in range(rng.choice([0, 0, 1, 2]))),
        token_failures=rng.choice([0.0, 0.0, 0.2]),
        endings=tuple(_ending(rng) for _ in range(rng.choice([0, 1, 1, 2, 3]))),
        twice=rng.choice([0.0, 0.0, 0.05]),
        full=(_full(rng),) if rng.random() < 0.1 else (),
    )
    lasting = any(outage.ends - outage.begins > 1 for outage in scenario.outages)
    # Without backoff an outage is probed twenty times a second: two thousand times the same, and a sixth of all time.
    return replace(scenario, backoff=0.1) if lasting and not scenario.backoff else scenario


def _fault(rng: Random) -> Fault:
    where: dict[str, Any] = rng.choice(
        [{"appid": rng.choice(MERCHANTS).appid}, {"env": rng.choice(MERCHANTS).env}]
    )
    if rng.random() < 0.7:
        where["path"] = f"{rng.randint(0, 4)}*"
    if rng.random() < 0.6:
        first = rng.randint(1, 3)
        where["calls"] = ((first, first + rng.randint(0, 2)),)
    kinds: list[Callable[[], dict[str, Any]]] = [
        lambda: {"errcode": rng.choice(ERRCODES)},
        lambda: {"errcode": rng.choice([-1, 45009, 45011, 40001, 42001, 85088, -601012, 61003, 61004])},
        lambda: {"step": FaultStep.STORE, "code": rng.choice(STORE_CODES)},
        lambda: {"step": FaultStep.STORE, "code": rng.choice(["SlowDown", "AccessDenied", "InternalError"])},
        lambda: {"step": rng.choice([FaultStep.LINK, FaultStep.STORE]), "reset": rng.choice(list(Reset))},
        lambda: {
            "step": rng.choice([FaultStep.LINK, FaultStep.STORE]),
            "status": rng.choice([302, 429, 503]),
        },
        lambda: {"body": "garbage"},
        lambda: {"lifetime": rng.choice([0, 1, 8])},
        lambda: {"other_env": rng.choice(MERCHANTS).env},
        lambda: {"step": FaultStep.STORE, "etag": rng.choice(list(Etag))},
        lambda: {
            "step": rng.choice([FaultStep.LINK, FaultStep.STORE]),
            "delay": rng.choice([1.0, 50.0, 90.0]),
        },
    ]
    return Fault(**where | rng.choice(kinds)())


def _outage(rng: Random) -> Outage:
    begins = rng.choice([0.0, rng.uniform(0, 5), rng.uniform(0, 60)])
    return Outage(begins, begins + rng.choice([1.0, 20.0, 100.0]))


def _full(rng: Random) -> Outage:
    begins = rng.choice([0.0, rng.uniform(0, 2), rng.uniform(0, 60)])
    return Outage(begins, begins + 10)


def _change(rng: Random) -> Change:
    moment, appid = rng.choice([rng.uniform(0, 2), rng.uniform(0, 60)]), rng.choice(MERCHANTS).appid
    what = rng.choice(["rotate", "rotate", "expire", "clock"])
    return Change(moment, what, appid, rng.choice([-3600.0, 3600.0]))


def _ending(rng: Random) -> Ending:
    chance = rng.random()
    if chance < 0.5:
        return Ending(killed_at=int(2 ** rng.uniform(1, 9)))
    if chance < 0.75:
        return Ending(killed_in_commit=rng.choice([-1, 1]) * rng.randint(1, 8))
    return Ending(cancelled_at=rng.choice([0.0, rng.uniform(0, 2), rng.uniform(0, 60)]))


@dataclass
class World:
    """What lasts from session to session: platform, store, tokens, and time."""

    scenario: Scenario
    loop: SimulatedLoop = field(default_factory=SimulatedLoop)
    """Of the session; of the network, if there are two sessions."""
    passed: float = 0.0
    """Seconds of earlier sessions."""
    clock_error: float = 0.0
    """Seconds by which this machine's clock is ahead."""
    calls: int = 0

    def __post_init__(self) -> None:
        self.merchants = MERCHANTS[: self.scenario.merchants]
        self.tokens = {merchant.appid: f"token-of-{merchant.appid}" for merchant in self.merchants}
        self.simulator = Simulator(
            self.merchants, self.tokens, faults=Faults(self.scenario.faults), clock=self.truth
        )
        self.simulator.port = 9
        self.simulator._platform.base = BASE
        self.env_of_bucket = {bucket_of(merchant.env): merchant.env for merchant in self.merchants}
        self.appid_of_env = {merchant.env: merchant.appid for merchant in self.merchants}

    @property
    def elapsed(self) -> float:
        """Seconds since the first session began."""
        return self.passed + self.loop.time()

    def truth(self) -> float:
        """Return the platform's time, Unix seconds."""
        return BEGAN + self.elapsed

    def now(self) -> float:
        """Return the time by this machine's clock, Unix seconds."""
        return self.truth() + self.clock_error

    def begin(self, loop: SimulatedLoop) -> None:
        """Begin a session on this loop: what is to change changes at its moment."""
        self.loop = loop
        for change in self.scenario.changes:
            if change.moment >= self.passed:
                loop.call_at(change.moment - self.passed, self._change, change)

    def end(self) -> None:
        """End a session: the next one begins some seconds later."""
        self.passed = self.elapsed + 10 * self.scenario.chance("pause", self.elapsed)

    def is_down(self) -> bool:
        """Return whether no host can be reached now."""
        return self._within(self.scenario.outages)

    def is_full(self) -> bool:
        """Return whether the ledger's disk is full now."""
        return self._within(self.scenario.full)

    def _within(self, times: tuple[Outage, ...]) -> bool:
        return any(time.begins <= self.elapsed < time.ends for time in times)

    def _change(self, change: Change) -> None:
        if change.what == "clock":
            self.clock_error += change.seconds
        elif change.appid not in self.tokens:
            pass
        elif change.what == "expire":
            self.simulator.expire(change.appid)
        else:
            self.tokens[change.appid] = self.simulator.rotate(change.appid)

    async def carry(self, exchange: Coroutine[Any, Any, Any]) -> Any:
        """Carry a call through the network, which goes on while the process that calls is frozen."""
        caller = asyncio.get_running_loop()
        if caller is self.loop:
            return await exchange
        arrived = caller.create_future()

        def arrive(task: asyncio.Task[Any]) -> None:
            caller.call_soon(lambda: arrived.cancelled() or arrived.set_result(task.result()))

        self.loop.create_task(exchange).add_done_callback(arrive)
        return await arrived

    async def pause(self, *about: object, most: float = float("inf")) -> None:
        """Let a part of a call's time pass."""
        await asyncio.sleep(min(most, self.scenario.slowest) * self.scenario.chance("seconds", *about) ** 3)


@dataclass(frozen=True)
class SimulatedTokens:
    """A token source that knows each merchant's newest token, and sometimes does not answer."""

    world: World

    async def token(self, appid: str, refused: Secret | None = None) -> Token:
        world = self.world
        world.calls += 1
        call = world.calls
        # A source that often takes longer than the run's patience would end session after session.
        await world.pause("token", call, most=world.scenario.patience / 4)
        if world.scenario.chance("token fails", call) < world.scenario.token_failures:
            raise TokenError.of(appid, detail(DetailCode.SOURCE_SILENT, seconds=1), transient=True)
        if refused is not None and refused.reveal() == world.tokens[appid]:
            world.tokens[appid] = world.simulator.rotate(appid)
        return Token(Secret(world.tokens[appid]))

    async def aclose(self) -> None:
        """Close nothing."""


class SimulatedTransport:
    """Carries requests to the simulator's decisions, and their answers back, in simulated time."""

    def __init__(self, world: World, watch: Watch) -> None:
        self._world, self._watch = world, watch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close nothing."""

    async def send(
        self,
        request: HttpRequest,
        body: bytes | Iterator[bytes | bytearray] | AsyncGenerator[bytes, None] = b"",
        *,
        sending: int = 0,
    ) -> HttpResponse:
        """Carry a link call or a form."""
        target = request.address.raw_path_qs
        if isinstance(body, Iterator):
            body = b"".join(body)
        elif not isinstance(body, bytes):
            body = b"".join([chunk async for chunk in body])
        if not sending:
            asked = json.loads(body)
            return await self._exchange("link", asked["env"], asked["path"], target, {}, body)
        assert len(body) == sending
        bucket, _, key = target[1:].partition("/")
        env = self._world.env_of_bucket.get(bucket, "")
        return await self._exchange("store", env, unquote(key), target, dict(request.headers), body)

    async def _exchange(
        self, step: str, env: str, path: str, raw_path: str, headers: Any, body: bytes
    ) -> HttpResponse:
        self._world.calls += 1
        call = (step, self._world.calls)
        with self._watch.call(step, env, path) as answered:
            answer = await self._world.carry(self._carried(call, Request("POST", raw_path, headers, body)))
            if isinstance(answer, HttpResponse):
                answered(answer)
                return answer
            code = DetailCode.NO_CONNECTION if answer is TransportFault.UNREACHABLE else DetailCode.BROKEN
            raise TransportError(answer, detail(code, host="127.0.0.1:9"))

    async def _carried(self, call: tuple[str, int], request: Request) -> HttpResponse | TransportFault:
        """Carry a request, and its answer or what becomes of it."""
        world = self._world
        if world.is_down():
            await world.pause("refused", *call)
            return TransportFault.UNREACHABLE
        await world.pause("there", *call)
        response = await world.simulator.handle(request)
        await world.pause("back", *call)
        if world.scenario.chance("twice", *call) < world.scenario.twice:
            second = await world.simulator.handle(request)
            response = second if world.scenario.chance("which", *call) < 0.5 else response
        lost = world.scenario.chance("lost", *call) < world.scenario.lost
        if not lost and response.reset is None:
            assert isinstance(response.body, bytes)
            return HttpResponse(response.status, CIMultiDict(response.headers), response.body)
        if lost and world.scenario.chance("never", *call) < 0.3:
            await asyncio.sleep(NO_ANSWER_AFTER)
            return TransportFault.TIMEOUT
        return TransportFault.RESET


class Watch:
    """Sees each call begin, and its answer arrive."""

    def call(self, step: str, env: str, path: str) -> Any:
        """Return a context of the call, which gives the function that takes its answer."""
        raise NotImplementedError
