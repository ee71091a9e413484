"""The outcomes of a row that a fault plan implies, by the contract's rules: pure, and independent of the tested engine.

A retry is an attempt; the token is refreshed once; a new link is an attempt of the store; slowing down is no attempt.
Three rows of a scope that end with the same stop code end its other rows as not attempted; a refusal of the whole
platform leaves the other rows pending. Delays are assumed to be shorter than the client's timeouts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from glob import escape

from tcb_ops.errcodes import Decision, Scope, errcode, store_code
from tcb_ops.features.simulator.faults import NO_FAULT, Etag, Fault, Faults, FaultStep
from tcb_ops.kinds import Kind
from tcb_ops.model import Outcome
from tcb_ops.runs.list_kinds import LINKS

BREAKER_ROWS = 3
SLOW_WAITS = 5
"""Pauses until patience ends: 300 s of patience, 60 s each."""

End = tuple[Outcome, Scope | None]
"""A row's outcome, and the scope whose breaker counts it."""


def expected_outcomes(
    faults: Faults,
    env: str,
    appid: str,
    path: str,
    *,
    kind: Kind,
    attempts: int = 4,
    siblings: Collection[str] = (),
) -> frozenset[Outcome]:
    """Return every outcome that this row may have under the plan; tests/features/simulator/test_expected.py has a table.

    Args:
        faults: the plan.
        env: the row's environment.
        appid: the merchant's; the component's for an environment of the platform's own.
        path: the row's path.
        kind: links or upload.
        attempts: of the run's limits.
        siblings: the appid's other environments: a fault there can stop all its rows.

    """
    faults = replace(faults, entries=(*_state_faults(faults), *faults.entries))
    here = faults.within(env, appid)
    ends = _Row(lambda step, call: here.find(step, path, call), kind, attempts).link(_Used())
    outcomes = {outcome for outcome, _ in ends}
    rows: dict[tuple[Scope, str], int] = {}
    for entry in faults.entries:
        for scope in _stops(entry, kind, attempts):
            code = f"{entry.step}/{entry.errcode}/{entry.code}/{entry.etag}"
            rows[scope, code] = rows.get((scope, code), 0) + _rows_hit(entry, scope, env, appid, siblings)
    for (scope, _), count in rows.items():
        if scope is Scope.PLATFORM and count:
            outcomes.add(Outcome.PENDING)
        elif count >= BREAKER_ROWS:
            outcomes.add(Outcome.NOT_ATTEMPTED)
    if any(account.appid == appid and account.daily_limit for account in faults.accounts):
        outcomes |= {Outcome.REFUSED, Outcome.NOT_ATTEMPTED}
    return frozenset(outcomes)


def _state_faults(faults: Faults) -> list[Fault]:
    """Return the state of the platform, its accounts and environments as faults, in the order of the checks."""
    platform = faults.component
    found = [Fault(errcode=61004)] if platform and platform.ip_refused else []
    for account in faults.accounts:
        appid = escape(account.appid)
        merchant = platform is None or account.appid != platform.appid
        if merchant and account.refusal():
            found.append(Fault(appid=appid, errcode=account.refusal()))
        elif merchant and not account.cloud:
            found.append(Fault(appid=appid, errcode=85088))
    found += [
        Fault(escape(environment.env), errcode=environment.refusal())
        for environment in faults.environments
        if environment.refusal()
    ]
    found += [
        Fault(appid=escape(account.appid), errcode=45009)
        for account in faults.accounts
        if 0 < account.daily_limit <= account.used
    ]
    return found


def _rows_hit(entry: Fault, scope: Scope, env: str, appid: str, siblings: Collection[str]) -> int:
    """Count the rows of the scope that an entry can stop: one per environment for a plain path, else enough for the breaker."""
    envs = {env} if scope is Scope.ENV else {env, *siblings}
    hit = sum(entry.concerns(each, appid) for each in envs)
    if scope is Scope.PLATFORM:
        return 1
    return hit if not set(entry.path) & set("*?[") else hit * BREAKER_ROWS


def _stops(entry: Fault, kind: Kind, attempts: int) -> set[Scope]:
    """Return the scopes whose breaker counts a row that meets this entry."""
    if entry.errcode is not None and errcode(entry.errcode).decision is Decision.STOP:
        return {errcode(entry.errcode).scope}
    alone = _Row(
        lambda step, call: entry if step == entry.step and entry.is_at(call) else None, kind, attempts
    )
    return {scope for _, scope in alone.link(_Used()) if scope is not None}


@dataclass(frozen=True, slots=True)
class _Used:
    """The calls, attempts and one-time retries that a row has used."""

    link_calls: int = 0
    store_calls: int = 0
    link_attempts: int = 0
    store_attempts: int = 0
    waits: int = 0
    refreshed: bool = False
    relinked: bool = False
    retried_once: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """A row; each method returns all ways in which it can end from that call on."""

    find: Callable[[FaultStep, int], Fault | None]
    """Returns the fault at the nth call of a step."""
    kind: Kind
    attempts: int

    def link(self, used: _Used) -> set[End]:
        """Make a link call."""
        fault = self.find(FaultStep.LINK, used.link_calls + 1) or NO_FAULT
        used = replace(used, link_calls=used.link_calls + 1)
        tried = replace(used, link_attempts=used.link_attempts + 1)
        end = Outcome.FAILED if fault.errcode is None else Outcome.REFUSED
        decision, scope = _of_link(fault)
        again = tried.link_attempts < self.attempts
        match decision:
            case Decision.GOOD:
                return self._linked(fault.lifetime, tried)
            case Decision.REFRESH if not used.refreshed:
                # The plan does not determine whether the token source has a new token; without one, the row ends.
                return {(end, None)} | self.link(replace(used, refreshed=True))
            case Decision.SLOW:
                return self._slow(end, scope, used, self.link)
            case Decision.STOP:
                return {(Outcome.PENDING if scope is Scope.PLATFORM else end, scope)}
            case Decision.RETRY if again:
                return self.link(tried)
            case _:
                return {(end, None)}

    def _linked(self, lifetime: int | None, used: _Used) -> set[End]:
        if self.kind == LINKS:
            return {(Outcome.LINKED, None)}
        if lifetime is None:
            return self.store(used, expired=False)
        run_out = self.store(used, expired=True)
        return run_out if lifetime <= 0 else run_out | self.store(used, expired=False)

    def store(self, used: _Used, *, expired: bool) -> set[End]:
        """Make a store call."""
        fault = self.find(FaultStep.STORE, used.store_calls + 1) or NO_FAULT
        used = replace(used, store_calls=used.store_calls + 1)
        tried = replace(used, store_attempts=used.store_attempts + 1)
        decision, scope = _of_store(fault, expired=expired)
        again = tried.store_attempts < self.attempts
        match decision:
            case Decision.GOOD:
                return {(Outcome.UPLOADED, None)}
            case Decision.SLOW:
                return self._slow(Outcome.FAILED, scope, used, lambda then: self.store(then, expired=expired))
            case Decision.RETRY if again:
                return self.store(tried, expired=expired)
            case Decision.RETRY_ONCE if again and not tried.retried_once:
                return self.store(replace(tried, retried_once=True), expired=expired)
            case Decision.NEW_LINK if again:
                return self.link(replace(tried, relinked=True))
            case Decision.NEW_LINK_ONCE if again and not tried.relinked:
                return self.link(replace(tried, relinked=True))
            case _:
                return {(Outcome.FAILED, None if scope is Scope.ROW else scope)}

    def _slow(self, end: Outcome, scope: Scope, used: _Used, again: Callable[[_Used], set[End]]) -> set[End]:
        """Wait without an attempt while patience lasts; after that the scope's other rows may end as not attempted."""
        if used.waits < SLOW_WAITS:
            return again(replace(used, waits=used.waits + 1))
        return {(end, None), (Outcome.NOT_ATTEMPTED, scope)}


def _of_link(fault: Fault) -> tuple[Decision, Scope]:
    if fault.errcode is not None:
        entry = errcode(fault.errcode)
        return entry.decision, entry.scope
    decision = Decision.GOOD
    if fault.reset or fault.garbage:
        decision = Decision.RETRY
    elif fault.other_env:
        decision = Decision.FIX
    elif fault.status is not None:
        # A gateway's page has no errcode: 5xx, 408 and 429 are temporary, any other status is permanent.
        passing = fault.status >= 500 or fault.status in {408, 429}
        decision = Decision.RETRY if passing else Decision.FIX
    return decision, Scope.ROW


def _of_store(fault: Fault, *, expired: bool) -> tuple[Decision, Scope]:
    status = fault.status or 0
    if fault.code or status >= 400:
        entry = store_code(fault.code, fault.errmsg, status)
        return entry.decision, entry.scope
    if fault.reset or status:  # a redirect, or a page without an ETag: no confirmation
        return Decision.RETRY, Scope.ROW
    if expired:
        return Decision.NEW_LINK, Scope.ROW
    if fault.etag is Etag.WRONG:
        # Ends as a failure of the environment: the stored object is not what was sent.
        return Decision.RETRY, Scope.ENV
    return Decision.RETRY if fault.etag is Etag.MISSING else Decision.GOOD, Scope.ROW
