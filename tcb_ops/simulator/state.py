"""What a simulator keeps while it runs: counters, objects, the place in the fault plan, and on request the calls."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from tcb_ops.simulator.faults import Fault, Faults, FaultStep


class SimulatedObject(NamedTuple):
    """An object that the store holds."""

    size: int
    """Bytes."""
    md5: str
    """Hex."""
    times: int
    """How often it was received."""
    content_type: str = ""
    """As the form gave it; empty where it gave none."""
    cache_control: str = ""


class Call(NamedTuple):
    """A recorded call. `env` and `path` are empty where the call did not say them in a way one can read."""

    step: FaultStep
    env: str
    path: str
    answer: int | str
    """link: the errcode. store: the HTTP status. What a fault did instead: "reset", "garbage", "status 503"."""


class SimulatorState:
    """Grows with the number of objects, never with that of calls: of those only counters are kept."""

    def __init__(self, faults: Faults, *, record: bool) -> None:
        self.stats: Counter[str] = Counter()
        self.objects: dict[tuple[str, str], SimulatedObject] = {}
        self.calls: list[Call] = []
        self._faults = faults
        self._record = record
        self._plans: dict[tuple[str, str], Faults] = {}
        """The part of the plan that is about one merchant's environment: most have none."""
        self._counts: Counter[tuple[FaultStep, str, str]] = Counter()
        """Calls by (env, path), only where an entry names a call."""
        self._ids = 0

    def fault(self, step: FaultStep, env: str, appid: str, path: str) -> Fault | None:
        """Count a call and return the fault to play."""
        if not self._faults.entries:
            return None
        plan = self._plans.get((env, appid))
        if plan is None:
            plan = self._plans[env, appid] = self._faults.within(env, appid)
        if not plan.entries:
            return None
        call = 1
        if plan.counted(step, path):
            self._counts[step, env, path] += 1
            call = self._counts[step, env, path]
        return plan.find(step, path, call)

    def called(self, step: FaultStep, appid: str) -> None:
        """Count a call of an interface that is no step of a row; `appid` is empty where nobody's."""
        self.stats[str(step)] += 1
        if appid:
            self.stats[f"{step}:{appid}"] += 1

    def arrived(self, step: FaultStep, env: str, path: str) -> int:
        """Note a call in the order of arrival; return its place, for `answered`."""
        self.stats[f"{step}_calls"] += 1
        if not self._record:
            return -1
        self.calls.append(Call(step, env, path, ""))
        return len(self.calls) - 1

    def answered(self, place: int, step: FaultStep, answer: int | str) -> None:
        """Count an answer, and note it at the call's place."""
        self.stats[f"{step}:{answer}"] += 1
        if place >= 0:
            self.calls[place] = self.calls[place]._replace(answer=answer)

    def stored(
        self, bucket: str, key: str, size: int, md5: str, content_type: str, cache_control: str
    ) -> None:
        """Note an object received whole."""
        before = self.objects.get((bucket, key))
        self.objects[bucket, key] = SimulatedObject(
            size, md5, before.times + 1 if before else 1, content_type, cache_control
        )
        self.stats["stored"] += 1

    def new_id(self, now: float) -> str:
        """Return the next rid: three words of eight hex digits."""
        self._ids += 1
        return f"{int(now) & 0xFFFFFFFF:08x}-{self._ids * 2654435761 & 0xFFFFFFFF:08x}-{self._ids & 0xFFFFFFFF:08x}"
