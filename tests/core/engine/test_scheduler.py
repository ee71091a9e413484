"""Which row is next: fair over environments, never over a limit, and nothing lost."""

from collections import Counter

import pytest

from tcb_ops.engine.limits import RunLimits
from tcb_ops.engine.scheduler import (
    COMING,
    REFILL,
    TURN,
    LaneRegistry,
    Scheduler,
    Task,
)
from tcb_ops.ledger.records import EnvRecord
from tcb_ops.model import Outcome, Owner, Reason, Row, RowEnd, Secret
from tcb_ops.wechat.tokens import Token

PACE = RunLimits(slow_wait=60.0)
TOKEN = Token(Secret("token"))
CLOSED = RowEnd(0, Outcome.NOT_ATTEMPTED, Reason.BREAKER, errcode=85088)


def environment(number: int, appid: str) -> EnvRecord:
    return EnvRecord(number, f"env{number}", appid, "", Owner.MERCHANT, left=False)


class Floor:
    """Lanes with as many rows as a test says: one merchant per environment, unless they share one."""

    def __init__(
        self,
        *rows: int,
        per_env: int = 8,
        per_app: int = 64,
        shared: bool = False,
        token: bool = True,
        batch: int = 1,
    ) -> None:
        environments = [environment(no, "wx" if shared else f"wx{no}") for no in range(len(rows))]
        limits = RunLimits(per_env=per_env, concurrency=per_app)
        self.scheduler = Scheduler(LaneRegistry(limits, rows_per_call=batch))
        self.scheduler.come(environments)
        self.lanes = list(self.scheduler.lanes)
        self.ledger: dict[int, list[Row]] = {}
        line = 1
        for lane, count in zip(self.lanes, rows, strict=True):
            lane.app.token = TOKEN if token else None
            self.ledger[lane.number] = [
                Row(line + n, lane.env.name, f"{n}.png", lane.app.appid, "", "", ())
                for n in range(1, count + 1)
            ]
            line += count
        self.refills: Counter[int] = Counter()

    def refill(self) -> None:
        needs_refill, self.scheduler.needs_refill = self.scheduler.needs_refill, []
        for lane in needs_refill:
            self.refills[lane.number] += 1
            rest = [row for row in self.ledger[lane.number] if row.line > lane.last_line]
            self.scheduler.refilled(lane, rest[: self.scheduler.refill])

    def take(self, now: float = 0.0) -> Task | None:
        """The next row, refilling as the engine does."""
        task = self.scheduler.take(now)
        while task is None and self.scheduler.needs_refill:
            self.refill()
            task = self.scheduler.take(now)
        return task

    def take_all(self, most: int = 10_000, now: float = 0.0) -> list[Task]:
        tasks: list[Task] = []
        while len(tasks) < most and (task := self.take(now)) is not None:
            tasks.append(task)
        return tasks


def envs(tasks: list[Task]) -> list[str]:
    return [task.row.env for task in tasks]


def test_environments_are_served_in_turn():
    floor = Floor(*[2 * TURN + 1] * 3, per_env=2 * TURN)
    order = envs(floor.take_all(4 * TURN))
    assert order == [name for name in ("env0", "env1", "env2", "env0") for _ in range(TURN)]


@pytest.mark.parametrize("way", ["env", "app"])
def test_a_limit_is_never_passed_and_a_row_that_ends_makes_room_for_one(way):
    floor = Floor(50, 50, per_env=4 if way == "env" else 99, per_app=99 if way == "env" else 6, shared=True)
    tasks = floor.take_all()
    assert len(tasks) == (8 if way == "env" else 6)
    floor.scheduler.release(tasks[0])
    assert len(floor.take_all()) == 1


def test_a_row_that_waits_keeps_its_place_in_flight():
    floor = Floor(10, per_env=2)
    first, second = floor.take_all()
    floor.scheduler.wait(first, until=5.0)
    assert floor.take(now=4.9) is None
    assert floor.scheduler.next_timer() == 5.0
    assert floor.take(now=5.0) is first
    floor.scheduler.release(second)
    assert floor.take(now=5.0) is not None


def test_a_row_that_comes_back_goes_before_fresh_ones():
    floor = Floor(10, per_env=3)
    first, *_ = floor.take_all()
    floor.scheduler.again(first)
    assert floor.take() is first


@pytest.mark.parametrize("scope", ["env", "app"])
def test_a_paused_scope_hands_out_nothing_and_the_others_go_on(scope):
    floor = Floor(5, 5)
    paused = floor.lanes[0].env.slowdown if scope == "env" else floor.lanes[0].app.slowdown
    paused.slow_down(0.0, PACE)
    assert set(envs(floor.take_all(now=59.9))) == {"env1"}
    assert floor.scheduler.next_timer() == 60.0
    assert set(envs(floor.take_all(now=60.0))) == {"env0"}


@pytest.mark.parametrize("scope", ["env", "app"])
def test_rows_that_come_back_after_a_pause_keep_to_the_halved_limit(scope):
    floor = Floor(20, per_env=8, per_app=8)
    [lane] = floor.lanes
    slowed = lane.env.slowdown if scope == "env" else lane.app.slowdown
    for waiting in (8, 4, 2, 1):
        taken = floor.take_all(now=slowed.paused_until)
        assert len(taken) == waiting
        slowed.slow_down(slowed.paused_until, PACE)
        for task in taken:
            floor.scheduler.again(task)
    [first] = floor.take_all(now=slowed.paused_until)
    floor.scheduler.release(first)
    assert len(floor.take_all(now=slowed.paused_until)) == 1, "a row's end makes room for the next that waits"


def test_a_paused_merchant_holds_all_of_its_environments():
    floor = Floor(5, 5, shared=True)
    floor.lanes[0].app.slowdown.slow_down(0.0, PACE)
    assert floor.take_all(now=1.0) == []
    assert set(envs(floor.take_all(now=60.0))) == {"env0", "env1"}


@pytest.mark.parametrize("by", ["pause", "rate"])
def test_a_waiting_lane_that_is_enqueued_again_has_one_timer(by):
    floor = Floor(5)
    [lane] = floor.lanes
    if by == "pause":
        lane.env.slowdown.slow_down(0.0, PACE)
    else:
        lane.app.next_call = 60.0
    for now in range(50):
        floor.scheduler.enqueue(lane)
        assert floor.take(float(now)) is None
    assert len(floor.scheduler._timers) == 1
    lane.env.slowdown.paused_until = 90.0
    assert (floor.take(60.0), floor.scheduler.next_timer()) == (None, 90.0), (
        "a longer pause has its own timer"
    )
    assert floor.take(90.0) is not None


def test_a_closed_lane_hands_out_only_rows_that_had_begun():
    floor = Floor(40, per_env=3)
    first, second, third = floor.take_all()
    floor.scheduler.again(second)
    floor.scheduler.wait(third, until=9.0)
    floor.scheduler.close(first.lane, CLOSED)
    assert floor.take_all(now=0.0) == [second]
    assert not first.lane.is_done
    assert floor.take_all(now=9.0) == [third]
    for task in (first, second, third):
        floor.scheduler.release(task)
    assert first.lane.is_done
    assert floor.take(now=9.0) is None


def test_a_refill_that_arrives_after_the_closing_brings_nothing():
    floor = Floor(40)
    lane = floor.lanes[0]
    assert floor.scheduler.take(0.0) is None
    floor.scheduler.close(lane, CLOSED)
    floor.refill()
    assert floor.take_all() == []
    assert lane.is_done


def test_a_closed_lane_ends_its_rows_whatever_the_pause():
    floor = Floor(5)
    task = floor.take()
    assert task is not None
    floor.scheduler.again(task)
    task.lane.env.slowdown.slow_down(0.0, PACE)
    floor.scheduler.close(task.lane, CLOSED)
    assert floor.take(now=1.0) is task


def test_a_lane_asks_for_each_refill_once():
    floor = Floor(120, per_env=500)
    for _ in range(5):
        assert floor.scheduler.take(0.0) is None
        floor.scheduler.enqueue(floor.lanes[0])
    assert floor.scheduler.needs_refill == floor.lanes
    floor.refill()
    tasks = []
    while (task := floor.scheduler.take(0.0)) is not None:  # the ledger is still being read
        tasks.append(task)
    assert len(tasks) == REFILL
    assert floor.scheduler.needs_refill == floor.lanes
    floor.refill()
    assert floor.refills == {0: 2}


def test_lanes_wait_for_the_token_and_go_on_with_it():
    floor = Floor(5, 5, shared=True, token=False)
    app = floor.lanes[0].app
    assert floor.take_all() == []
    assert list(floor.scheduler.tokenless) == [app]
    floor.scheduler.got_token(app, TOKEN)
    assert list(floor.scheduler.tokenless) == []
    assert len(floor.take_all()) == 10


def test_a_token_is_requested_again_when_its_time_has_come():
    floor = Floor(5)
    app = floor.lanes[0].app
    app.renew_at = 100.0
    assert floor.take(now=99.0) is not None
    assert floor.take(now=100.0) is None
    assert list(floor.scheduler.tokenless) == [app]


def test_own_environments_share_the_components_account_apart_from_its_merchants():
    listed = [
        ("a", "wx1", "merchant"),
        ("b", "wx1", "platform"),
        ("c", "wxp", "platform"),
        ("d", "wxp", "merchant"),
    ]
    environments = [
        EnvRecord(no, env, appid, "", Owner(owner), left=False)
        for no, (env, appid, owner) in enumerate(listed)
    ]
    registry = LaneRegistry(RunLimits(per_env=2), "wxp")
    registry.come(environments)
    merchant, own, other, its_own = (lane.app for lane in registry.make_next(4))
    assert own is other
    assert len({id(merchant), id(own), id(its_own)}) == 3
    assert [app.appid for app in (merchant, own, its_own)] == ["wx1", "wxp", "wxp"]
    assert [app.slowdown.limit for app in (merchant, own, its_own)] == [2, 4, 2]
    without = LaneRegistry(RunLimits())
    without.come(environments[1:2])
    assert [lane.app.appid for lane in without.make_next(1)] == [""], "no component: no token"


class Fleet:
    """A run over many environments with so many rows each, worked on as the engine does."""

    def __init__(self, environments: int, rows: int, appid: str = "") -> None:
        self.rows = rows
        self.registry = LaneRegistry(RunLimits())
        self.scheduler = Scheduler(self.registry)
        self.scheduler.come([environment(no, appid or f"wx{no}") for no in range(environments)])
        self.most = 0
        """The most lanes at a time."""

    def take(self) -> Task | None:
        """The next row; reads rows where they are wanted."""
        while True:
            task = self.scheduler.take(0.0)
            self.most = max(self.most, len(self.scheduler.lanes))
            wanting = bool(self.scheduler.needs_refill)
            self.serve()
            if task is not None or not wanting:
                return task

    def serve(self) -> None:
        """Read the rows that are wanted."""
        needs_refill, self.scheduler.needs_refill = self.scheduler.needs_refill, []
        for lane in needs_refill:
            lane.app.token = TOKEN
            first = lane.number * self.rows + 1
            rest = range(max(first, lane.last_line + 1), first + self.rows)[: self.scheduler.refill]
            self.scheduler.refilled(
                lane, [Row(line, lane.env.name, "x", lane.app.appid, "", "", ()) for line in rest]
            )


def test_lanes_are_made_as_their_turn_comes_and_forgotten_when_they_are_done():
    fleet = Fleet(5_000, 1)
    lines = []
    while (task := fleet.take()) is not None:
        lines.append(task.row.line)
        fleet.scheduler.release(task)
    assert lines == list(range(1, 5_001))
    assert fleet.most < 2 * COMING
    assert fleet.scheduler.is_done
    assert len(fleet.scheduler.lanes) == len(fleet.registry.apps) == 0


def test_every_environment_has_its_turn_before_any_has_a_second():
    fleet = Fleet(1_000, 20)
    begun: list[str] = []
    while len(begun) < 1_000 * TURN and (task := fleet.take()) is not None:
        begun.append(task.row.env)
        fleet.scheduler.release(task)
    assert Counter(begun) == {f"env{no}": TURN for no in range(1_000)}


def test_the_state_of_an_appid_lasts_until_the_last_of_its_lanes():
    fleet = Fleet(3, 1, "wx")
    first, second, third = fleet.scheduler.lanes
    assert first.app is second.app is third.app
    fleet.registry.forget(first)
    fleet.registry.forget(second)
    assert list(fleet.registry.apps.values()) == [third.app]
    fleet.registry.forget(third)
    assert not fleet.registry.apps


def test_all_lanes_of_a_closed_appid_are_made_at_once_and_no_others():
    registry = LaneRegistry(RunLimits())
    scheduler = Scheduler(registry)
    numbers = range(4 * COMING)
    scheduler.come([environment(no, "wx" if no % 2 else f"wx{no}") for no in numbers])
    shared = next(lane.app for lane in scheduler.lanes if lane.app.appid == "wx")
    others = len(registry.apps)
    scheduler.make_now(shared)
    assert len(shared.lanes) == len(numbers) / 2
    assert [of.number for of in registry.coming] == [no for no in numbers if no >= COMING and not no % 2]
    assert len(registry.apps) == others
