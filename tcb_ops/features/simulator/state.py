"""A simulator's state while it runs, and how it plays a fault.

SimulatorState has counters, objects and recorded calls; Accounts has tokens, tickets, authorizations, environments, quotas.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from enum import Enum, auto
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

from tcb_ops.features.simulator.changes import AllChanges, Consent
from tcb_ops.features.simulator.faults import (
    NO_FAULT,
    PERMISSION_SETS,
    SECONDS_PER_DAY,
    Component,
    EnvStatus,
    Fault,
    Faults,
    FaultStep,
    Reset,
    SimulatedAccount,
    SimulatedEnvironment,
)
from tcb_ops.model import Merchant, Owner
from tcb_ops.wechat.tokens import FileTokens


class Request(NamedTuple):
    """A whole request."""

    method: str
    target: str
    """Path and query as they were sent."""
    headers: Mapping[str, str] = {}
    """Looked up by names such as `Content-Type`."""
    body: bytes | mmap = b""


@dataclass(slots=True)
class Response:
    """What becomes of a request."""

    status: int = 200
    body: bytes | Path = b""
    headers: dict[str, str] = field(default_factory=dict)
    reset: Reset | None = None
    """The connection breaks instead of the response, or in the middle of it."""


class SimulatedObject(NamedTuple):
    """An object that the store holds."""

    size: int
    """Bytes."""
    md5: str
    """Hex."""
    times: int = 1
    """How often it was received."""
    content_type: str = ""
    """From the form; empty without one."""
    cache_control: str = ""
    own_etag: str | None = None
    """The ETag where it is not the MD5, as of an object that was written in parts; empty for none."""


class SimulatorState:
    """A simulator's state. Memory grows with the number of objects, but not with calls, which are only counted."""

    def __init__(self, faults: Faults, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.stats: Counter[str] = Counter()
        self.objects: dict[tuple[str, str], SimulatedObject] = {}
        self._faults = faults
        self._plans: dict[tuple[str, str], Faults] = {}
        """The part of the plan for one merchant's environment, mostly empty."""
        self._counts: Counter[tuple[FaultStep, str, str]] = Counter()
        """Calls by (step, env, path), where the plan has entries."""
        self._ids = 0

    async def fault(self, step: FaultStep, env: str, appid: str, path: str) -> tuple[Fault, Response | None]:
        """Count a call. Return its fault, NO_FAULT for none, and the response if it stands in for the answer."""
        fault = self._find(step, env, appid, path)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        name, response = "", Response(fault.status or 200)
        if fault.reset is Reset.BEFORE:
            name, response.reset = "reset", fault.reset
        elif fault.status is not None and not fault.code:
            title = f"<html><head><title>{fault.status}</title></head>"
            page = f"{title}<body><center><h1>{fault.status}</h1></center></body></html>\r\n"
            name, response.body = f"status {fault.status}", page.encode()
            response.headers["Content-Type"] = "text/html"
        elif fault.body:
            name, response.body = "garbage", b"<<< no JSON"
            response.headers["Content-Type"] = "application/json"
        if not name:
            return fault, None
        self.answered(step, name)
        return fault, response

    def _find(self, step: FaultStep, env: str, appid: str, path: str) -> Fault:
        plan = self._plans.get((env, appid))
        if plan is None:
            plan = self._plans[env, appid] = self._faults.within(env, appid)
        if not plan.entries:
            return NO_FAULT
        self._counts[step, env, path] += 1
        return plan.find(step, path, self._counts[step, env, path]) or NO_FAULT

    def called(self, step: FaultStep, appid: str) -> None:
        """Count a call of an interface that is not a step of a row; `appid` is empty if it is unknown."""
        self.stats[str(step)] += 1
        if appid:
            self.stats[f"{step}:{appid}"] += 1

    def arrived(self, step: FaultStep, _env: str, _path: str) -> None:
        """Count a call. Environment and path are empty if the request had none that could be read."""
        self.stats[f"{step}_calls"] += 1

    def answered(self, step: str, answer: int | str) -> None:
        """Count a response: an errcode, an HTTP status, or a fault instead, such as "reset" or "status 503"."""
        self.stats[f"{step}:{answer}"] += 1

    def stored(self, bucket: str, key: str, new_object: SimulatedObject) -> None:
        """Record a completely received object."""
        before = self.objects.get((bucket, key))
        self.objects[bucket, key] = new_object._replace(times=before.times + 1) if before else new_object
        self.stats["stored"] += 1

    def new_id(self) -> str:
        """Return the next rid: three words of eight hex digits."""
        self._ids += 1
        return f"{int(self.clock()) & 0xFFFFFFFF:08x}-{self._ids * 2654435761 & 0xFFFFFFFF:08x}-{self._ids & 0xFFFFFFFF:08x}"


# --- accounts: who may call what ---


NEVER = float("inf")
CLEARINGS = 10
"""Calls of clear_quota that take effect, per account and month."""
BEIJING = timezone(timedelta(hours=8))


@dataclass(slots=True)
class _AccessToken:
    """An access token. Times are Unix seconds."""

    appid: str
    expires: float = NEVER
    """The time from which it is refused with 42001."""
    replaced: float = NEVER
    """The time from which it is refused with 40001, because a newer one was issued."""


class Tokens:
    """The valid access tokens: those of a mapping appid → token, or of a CSV `appid,access_token`, and those that are issued."""

    def __init__(self, source: Mapping[str, str] | Path) -> None:
        if isinstance(source, Path):
            source = {appid: token.value.reveal() for appid, token in FileTokens(source).tokens().items()}
        self._issued = 0
        self._tokens = {token: _AccessToken(appid) for appid, token in source.items()}

    def owner(self, token: str, now: float) -> str | int:
        """Return the appid that a token belongs to, or the errcode that refuses it."""
        record = self._tokens.get(token)
        if record is None or now >= record.replaced:
            return 40001
        return 42001 if now >= record.expires else record.appid

    def issue(self, appid: str, now: float, lifetime: float, overlap: float) -> str:
        """Give the appid a new token that is valid for `lifetime` seconds.

        Its latest token remains valid for another `overlap` seconds; older ones are refused with 40001 immediately.
        """
        tokens = list(self._tokens.items())
        valid = {old: record for old, record in tokens if record.appid != appid or record.replaced == NEVER}
        for record in valid.values():
            if record.appid == appid:
                record.replaced = now + overlap
        token = self.new_value(appid)
        self._tokens = valid | {token: _AccessToken(appid, now + lifetime)}
        return token

    def new_value(self, appid: str) -> str:
        """Return a value that no other token has, also for a refresh token."""
        self._issued += 1
        return f"{self._issued}_{hashlib.sha256(f'{appid}/{self._issued}'.encode()).hexdigest()}"


class Wants(Enum):
    """The kind of token that an interface requires."""

    NOBODYS = auto()
    MERCHANTS = auto()
    COMPONENTS = auto()
    EITHER = auto()


@dataclass(slots=True)
class RefreshToken:
    """The newest refresh token of a merchant, and the one before it, which works until a time."""

    newest: str
    before: str = ""
    until: float = 0.0
    listed: bool = True
    """Whether api_get_authorizer_list has it: the platform may have lost it."""


class Accounts:
    """The state of all accounts, which changes while the simulator runs. Methods may be called from any thread."""

    def __init__(
        self,
        merchants: Sequence[Merchant],
        tokens: Tokens,
        clock: Callable[[], float],
        faults: Faults,
        store: Path | None = None,
    ) -> None:
        self.component = component = faults.component or Component("")
        self.tokens = tokens
        self.clock = clock
        self.ip_refused = component.ip_refused
        self.began = int(clock())
        self.used: Counter[tuple[str, str]] = Counter()
        """Calls by (appid, interface path)."""
        self._accounts: dict[str, SimulatedAccount] = {}
        self._merchants = tuple(merchants)
        self._environments = {environment.env: environment for environment in faults.environments}
        self.play(faults.accounts)
        self._changes = AllChanges(store)
        self._allowed = {(merchant.appid, merchant.env): merchant.owner for merchant in merchants}
        for appid, changes in self._changes.items():
            self._allowed |= dict.fromkeys(((appid, env) for env in changes.envs), Owner.MERCHANT)
            self._apply(appid)
        self._platforms = dict.fromkeys(m.env for m in merchants if m.owner is Owner.PLATFORM)
        self._ticket = component.ticket
        self._ticket_ends = clock() + component.ticket_lifetime
        self.refresh_tokens = {
            account.appid: RefreshToken(account.refresh_token or f"practice-refresh-token-of-{account.appid}")
            for account in self._accounts.values()
        }

    def play(self, accounts: Iterable[SimulatedAccount]) -> None:
        """Replace the accounts with problems, and reset the quotas."""
        accounts_by_appid: dict[str, SimulatedAccount] = {}
        self.used.clear()
        self._changes = AllChanges(None)
        for merchant in self._merchants:
            account = accounts_by_appid.get(merchant.appid) or SimulatedAccount(
                merchant.appid, merchant.name, revoked=True
            )
            accounts_by_appid[merchant.appid] = replace(account, revoked=account.revoked and merchant.left)
        for account in accounts:
            name = account.name or (accounts_by_appid.get(account.appid) or account).name
            accounts_by_appid[account.appid] = replace(account, name=name)
            root = "componenttcb" if account.appid == self.component.appid else "tcb"
            self.used[account.appid, f"/{root}/uploadfile"] = account.used
        self._accounts = accounts_by_appid

    def caller(self, token: str, wants: Wants) -> str | int:
        """Return the appid of a token's caller, or the errcode that refuses it."""
        if self.ip_refused:
            return 61004
        if wants is Wants.NOBODYS:
            return self.component.appid
        if not token:
            return 41001
        appid = self.tokens.owner(token, self.clock())
        if isinstance(appid, int):
            return appid
        components = appid == self.component.appid
        if wants is Wants.MERCHANTS and components:
            return 48001
        return 61014 if wants is Wants.COMPONENTS and not components else appid

    def account(self, appid: str) -> SimulatedAccount:
        """Return an account's current state; the default for an unknown appid."""
        return self._accounts.get(appid) or SimulatedAccount(appid)

    def authorizers(self) -> list[SimulatedAccount]:
        """Return the accounts that have authorized the platform, by appid."""
        return [account for appid, account in sorted(self._accounts.items()) if self.is_authorizer(appid)]

    def is_authorizer(self, appid: str) -> bool:
        """Return whether an account has authorized the platform."""
        return appid in self._accounts and not self._accounts[appid].revoked and appid != self.component.appid

    def env_refusal(self, appid: str, env: str) -> int:
        """Return the errcode that keeps a caller from an environment's files, or 0."""
        if appid == self.component.appid:
            allowed = env in self._platforms
        elif not self.account(appid).cloud:
            return 85088
        else:
            allowed = self._exists(appid, env)
        return self._environment(appid, env).refusal() if allowed else -601012

    def environments_of(self, appid: str) -> list[SimulatedEnvironment]:
        """Return a caller's environments in the order of the merchants file."""
        if appid == self.component.appid:
            names = list(self._platforms)
        else:
            names = [env for who, env in self._allowed if who == appid and self._exists(appid, env)]
        environments = [self._environment(appid, env) for env in names]
        return [environment for environment in environments if not environment.foreign]

    def spend(self, appid: str, interface: str) -> bool:
        """Count a call against the caller's quota; return False without counting if it is used up."""
        limit = self.daily_limit(appid, interface)
        if limit and self.used[appid, interface] >= limit:
            return False
        self.used[appid, interface] += 1
        return True

    def daily_limit(self, appid: str, interface: str) -> int:
        """Return an interface's daily limit for a caller; 0 for no limit."""
        if interface.startswith("/cgi-bin/openapi/"):
            return self.account(appid).question_limit
        return self.account(appid).daily_limit if interface.endswith("/uploadfile") else 0

    def ticket_refusal(self, ticket: str) -> int:
        """Return the errcode that refuses a component_verify_ticket, or 0."""
        if ticket != self._ticket:
            return 61006
        return 61005 if self.clock() >= self._ticket_ends else 0

    def issue(self, appid: str) -> str:
        """Return a new access token; the one before it remains valid for the overlap."""
        component = self.component
        return self.tokens.issue(appid, self.clock(), component.token_lifetime, component.overlap)

    def refresh(self, appid: str, refresh_token: str) -> tuple[str, str] | int:
        """Return (access token, refresh token), or the errcode that refuses the refresh."""
        if not self.is_authorizer(appid):
            return 61003
        refresh_tokens, now = self.refresh_tokens[appid], self.clock()
        if refresh_token != refresh_tokens.newest and (
            refresh_token != refresh_tokens.before or now >= refresh_tokens.until
        ):
            return 61023
        if self.component.rotate:
            until = now + self.component.overlap
            refresh_tokens = self.refresh_tokens[appid] = RefreshToken(
                self.tokens.new_value(appid), refresh_tokens.newest, until
            )
        return self.issue(appid), refresh_tokens.newest

    def authorizes(self, appid: str) -> bool:
        """Return whether a merchant that was refused has authorized the platform again, with permission set 49."""
        if self.account(appid).confirms_after is None:
            return False
        self._changes[appid].asked.setdefault(Consent.AUTHORIZATION, self.clock())
        return self._gives(appid, Consent.AUTHORIZATION)

    def open_cloud(self, appid: str) -> int:
        """Open 云开发; return 0, or the errcode that says what its administrator was asked."""
        if self.account(appid).cloud:
            return 0
        changes, asked = self._changes[appid], self._changes[appid].asked
        if self._gives(appid, Consent.CLOUD):
            changes.opened = True
            self._apply(appid)
            return 0
        if self.clock() < asked.get(Consent.CLOUD, -NEVER) + SECONDS_PER_DAY:
            return -601026
        asked[Consent.CLOUD] = self.clock()
        self._changes.save()
        return -601049 if self.account(appid).phone else -601048

    def confirm(self, appid: str) -> list[Consent]:
        """Let a merchant's administrator confirm what waits for it, and return that."""
        changes, account = self._changes[appid], self.account(appid)
        waiting = {Consent.CLOUD} & set(changes.asked) - changes.given
        if account.revoked or not PERMISSION_SETS & set(account.permissions):
            waiting.add(Consent.AUTHORIZATION)
        changes.given |= waiting
        self._apply(appid)
        return sorted(waiting)

    def _gives(self, appid: str, consent: Consent) -> bool:
        changes, after = self._changes[appid], self.account(appid).confirms_after
        if after is not None and self.clock() >= changes.asked.get(consent, NEVER) + after:
            changes.given.add(consent)
        self._apply(appid)
        return consent in changes.given

    def _apply(self, appid: str) -> None:
        """Bring an account to where its changes have led, and keep them."""
        changes, account = self._changes[appid], self._accounts.get(appid)
        if account is not None:
            if Consent.AUTHORIZATION in changes.given:
                account = replace(account, revoked=False, permissions=(*{*account.permissions, 49},))
            self._accounts[appid] = replace(account, cloud=account.cloud or changes.opened)
        if changes.cleared:
            self._clear(appid)
        self._changes.save()

    def create_env(self, appid: str, alias: str, env: str = "") -> str:
        """Create an environment and return its id: one that the merchants file names by this alias, else a new one."""
        changes = self._changes[appid]
        planned = (each for who, each in self._allowed if who == appid and not self._exists(appid, each))
        digest = hashlib.sha256(f"{appid}/{alias}/{len(changes.envs)}".encode()).hexdigest()
        env = env or next((each for each in planned if alias_of(each) == alias), f"{alias}-{digest[:6]}")
        self._allowed[appid, env] = Owner.MERCHANT
        changes.envs[env] = self.clock() + self.account(appid).ready_after
        self._changes.save()
        return env

    def clear_quota(self, appid: str) -> int:
        """Reset an account's quotas; return 0, or the errcode once this month's clearings are used up."""
        cleared, month = self._changes[appid].cleared, _month(self.clock())
        if self.account(appid).cleared + sum(_month(time) == month for time in cleared) >= CLEARINGS:
            return 48006
        cleared.append(self.clock())
        self._clear(appid)
        self._changes.save()
        return 0

    def _clear(self, appid: str) -> None:
        for each in [each for each in self.used if each[0] == appid]:
            del self.used[each]

    def _exists(self, appid: str, env: str) -> bool:
        """Return whether an environment is a merchant's; where 云开发 was opened since, whether it has been created."""
        changes = self._changes.get(appid)
        created = changes is None or not changes.opened or env in changes.envs
        return created and self._allowed.get((appid, env)) is Owner.MERCHANT

    def _environment(self, appid: str, env: str) -> SimulatedEnvironment:
        changes = self._changes.get(appid)
        if changes is not None and self.clock() < changes.envs.get(env, 0):
            return SimulatedEnvironment(env, EnvStatus.UNAVAILABLE)
        return self._environments.get(env) or SimulatedEnvironment(env)


def alias_of(env: str) -> str:
    """Return an environment's alias: its id without the end that the platform adds."""
    return env.rpartition("-")[0] or env


def _month(time: float) -> str:
    return f"{datetime.fromtimestamp(time, BEIJING):%Y-%m}"
