"""The simulated platform's accounts: who may call what, environments, tickets, refresh tokens, quotas."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from pathlib import Path

from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Text, _
from tcb_ops.model import Merchant, Owner
from tcb_ops.resources import system_reason
from tcb_ops.simulator.faults import Component, EnvStatus, SimulatedAccount, SimulatedEnvironment

NEVER = float("inf")


@dataclass(slots=True)
class _AccessToken:
    """An access token. Times are Unix seconds."""

    appid: str
    expires: float = NEVER
    """The time from which it is refused with 42001."""
    replaced: float = NEVER
    """The time from which it is refused with 40001, because a newer one was issued."""
    issued: bool = False
    """Whether `issue` created it, so that reading the file does not remove it."""


class Tokens:
    """The valid access tokens: a mapping appid → token, or a CSV `appid,access_token[,expires_at]`, read again after changes.

    If the file becomes unreadable or invalid, the tokens remain unchanged.
    """

    def __init__(self, source: Mapping[str, str] | Path) -> None:
        self._file = source if isinstance(source, Path) else None
        self._seen = (0, 0)
        self._made = 0
        self._tokens: dict[str, _AccessToken] = {}
        if isinstance(source, Path):
            self._read(source)
        else:
            self._tokens = {token: _AccessToken(appid) for appid, token in source.items()}

    def owner(self, token: str, now: float) -> str | int:
        """Return the appid that a token belongs to, or the errcode that refuses it."""
        if self._file is not None:
            self._read_if_changed(self._file)
        known = self._tokens.get(token)
        if known is None or now >= known.replaced:
            return 40001
        return 42001 if now >= known.expires else known.appid

    def rotate(self, appid: str) -> str:
        """Give the appid a new token; its old ones are refused with 40001 from now on."""
        token = self._new(appid)
        kept = {old: known for old, known in self._tokens.items() if known.appid != appid}
        self._tokens = kept | {token: _AccessToken(appid)}
        return token

    def issue(self, appid: str, now: float, lifetime: float, overlap: float) -> str:
        """Give the appid a new token that is valid for `lifetime` seconds.

        Its latest token remains valid for another `overlap` seconds; older ones are refused with 40001 immediately.
        """
        token = self._new(appid)
        kept = {}
        for old, known in list(self._tokens.items()):
            if known.appid != appid or known.replaced == NEVER:
                kept[old] = known
            if known.appid == appid:
                known.replaced = min(known.replaced, now + overlap)
        self._tokens = kept | {token: _AccessToken(appid, now + lifetime, issued=True)}
        return token

    def expire(self, appid: str) -> None:
        """Expire the appid's token, also the component's: it is refused with 42001 from now on."""
        for known in list(self._tokens.values()):
            if known.appid == appid:
                known.expires = -NEVER

    def _new(self, appid: str) -> str:
        self._made += 1
        return f"{self._made}_{hashlib.sha256(f'{appid}/{self._made}'.encode()).hexdigest()}"

    def _read_if_changed(self, file: Path) -> None:
        try:
            stat = file.stat()
            if (stat.st_mtime_ns, stat.st_size) != self._seen:
                self._read(file)
        except (OSError, SettingsError):
            return

    def _read(self, file: Path) -> None:
        try:
            stat = file.stat()
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise _bad(file, _("cannot be read ({why})", why=system_reason(error))) from None
        except UnicodeDecodeError:
            raise _bad(file, _("is not UTF-8")) from None
        found = _parse(file, lines)
        for token, known in self._tokens.items():
            if known.issued:
                found[token] = known
            elif token in found:
                found[token].replaced = known.replaced
        self._tokens = found
        self._seen = (stat.st_mtime_ns, stat.st_size)


def _parse(file: Path, lines: list[str]) -> dict[str, _AccessToken]:
    reader = csv.DictReader(lines, strict=True)
    found: dict[str, _AccessToken] = {}
    line = 0
    try:
        for row in reader:
            line = reader.line_num
            cells = {name: (row.get(name) or "").strip() for name in ("appid", "access_token", "expires_at")}
            if not cells["appid"] or not cells["access_token"]:
                raise _bad(file, _("line {line}: appid or access_token is missing", line=line))
            expires = _seconds(file, line, cells["expires_at"]) if cells["expires_at"] else NEVER
            found[cells["access_token"]] = _AccessToken(cells["appid"], expires)
    except csv.Error:
        raise _bad(
            file, _("line {line}: not valid CSV (an unclosed quotation mark?)", line=line + 1)
        ) from None
    if not found:
        raise _bad(file, _("contains no token"))
    return found


def _seconds(file: Path, line: int, text: str) -> float:
    try:
        if text.replace(".", "", 1).isdecimal():
            return float(text)
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise _bad(
            file, _("line {line}: expires_at is neither Unix seconds nor ISO 8601", line=line)
        ) from None


def _bad(file: Path, why: Text) -> SettingsError:
    return SettingsError(
        _("token file {file}: {why}.", file=file, why=why),
        _("Its first line must be appid,access_token[,expires_at]."),
    )


UPLOADS = {Owner.MERCHANT: "/tcb/uploadfile", Owner.PLATFORM: "/componenttcb/uploadfile"}


class Wants(Enum):
    """The kind of token that an interface requires."""

    NOBODYS = auto()
    MERCHANTS = auto()
    COMPONENTS = auto()
    EITHER = auto()


@dataclass(slots=True)
class _RefreshToken:
    """A merchant's newest refresh token, and during the overlap the one before it."""

    newest: str
    before: str = ""
    until: float = 0.0
    listed: bool = True


class Accounts:
    """The state of all accounts, which changes while the simulator runs. Methods may be called from any thread."""

    def __init__(
        self,
        merchants: Sequence[Merchant],
        tokens: Tokens,
        clock: Callable[[], float],
        component: Component,
        accounts: Iterable[SimulatedAccount],
        environments: Iterable[SimulatedEnvironment],
    ) -> None:
        self.component = component
        self.tokens = tokens
        self.clock = clock
        self.ip_refused = component.ip_refused
        self.began = int(clock())
        self.used: Counter[tuple[str, str]] = Counter()
        """Calls by (appid, interface path)."""
        self._accounts: dict[str, SimulatedAccount] = {}
        self._merchants = tuple(merchants)
        self._environments: dict[str, SimulatedEnvironment] = {}
        self.play(accounts, environments)
        self._allowed = {(merchant.appid, merchant.env): merchant.owner for merchant in merchants}
        self._platforms = dict.fromkeys(m.env for m in merchants if m.owner is Owner.PLATFORM)
        self._ticket = component.ticket
        self._ticket_ends = clock() + component.ticket_lifetime
        self._old_tickets: set[str] = set()
        self._made = 0
        self._refresh_tokens = {
            account.appid: _RefreshToken(
                account.refresh_token or f"practice-refresh-token-of-{account.appid}"
            )
            for account in self._accounts.values()
        }

    def play(
        self, accounts: Iterable[SimulatedAccount], environments: Iterable[SimulatedEnvironment]
    ) -> None:
        """Replace the accounts and environments with problems, and reset the quotas."""
        known: dict[str, SimulatedAccount] = {}
        self.used.clear()
        for merchant in self._merchants:
            account = known.get(merchant.appid) or SimulatedAccount(
                merchant.appid, merchant.name, revoked=True
            )
            known[merchant.appid] = replace(account, revoked=account.revoked and merchant.left)
        for account in accounts:
            name = account.name or (known.get(account.appid) or account).name
            known[account.appid] = replace(account, name=name)
            owner = Owner.PLATFORM if account.appid == self.component.appid else Owner.MERCHANT
            self.used[account.appid, UPLOADS[owner]] = account.used
        self._accounts = known
        self._environments = {environment.env: environment for environment in environments}

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
        return [
            account
            for appid, account in sorted(self._accounts.items())
            if not account.revoked and appid != self.component.appid
        ]

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
            allowed = self._allowed.get((appid, env)) is Owner.MERCHANT
        return self._environment(env).refusal() if allowed else -601012

    def environments_of(self, appid: str) -> list[SimulatedEnvironment]:
        """Return a caller's environments in the order of the merchants file."""
        if appid == self.component.appid:
            names = list(self._platforms)
        else:
            owned = (appid, Owner.MERCHANT)
            names = [env for (who, env), owner in self._allowed.items() if (who, owner) == owned]
        found = [self._environment(env) for env in names]
        return [environment for environment in found if not environment.foreign]

    def spend(self, appid: str, interface: str) -> bool:
        """Count a call against the caller's quota; return False without counting if it is used up."""
        limit = self.daily_limit(appid, interface)
        if limit and self.used[appid, interface] >= limit:
            return False
        self.used[appid, interface] += 1
        return True

    def daily_limit(self, appid: str, interface: str) -> int:
        """Return an interface's daily limit for a caller; 0 for no limit."""
        return self.account(appid).daily_limit if interface in UPLOADS.values() else 0

    def ticket_refusal(self, ticket: str) -> int:
        """Return the errcode that refuses a component_verify_ticket, or 0."""
        if ticket == self._ticket:
            return 61005 if self.clock() >= self._ticket_ends else 0
        return 61005 if ticket in self._old_tickets else 61006

    def issue(self, appid: str) -> str:
        """Return a new access token; the one before it remains valid for the overlap."""
        component = self.component
        return self.tokens.issue(appid, self.clock(), component.token_lifetime, component.overlap)

    def refresh(self, appid: str, refresh_token: str) -> tuple[str, str] | int:
        """Return (access token, refresh token), or the errcode that refuses the refresh."""
        if not self.is_authorizer(appid):
            return 61003
        known, now = self._refresh_tokens[appid], self.clock()
        if refresh_token != known.newest and (refresh_token != known.before or now >= known.until):
            return 61023
        if self.component.rotate:
            until = now + self.component.overlap
            known = self._refresh_tokens[appid] = _RefreshToken(self._new(appid), known.newest, until)
        return self.issue(appid), known.newest

    def refresh_token(self, appid: str, *, listed: bool = False) -> str:
        """Return a merchant's current refresh token; with `listed`, empty if api_get_authorizer_list omits it."""
        known = self._refresh_tokens[appid]
        return known.newest if known.listed or not listed else ""

    def drop_refresh_token(self, appid: str, *, listed: bool = True) -> None:
        """Replace a merchant's refresh token (old ones: 61023); `listed`: whether api_get_authorizer_list has the new one."""
        self._refresh_tokens[appid] = _RefreshToken(self._new(appid), listed=listed)

    def revoke(self, appid: str) -> None:
        """Revoke a merchant's authorization: its calls are refused with 61003, and it is no longer listed."""
        self._accounts[appid] = replace(self.account(appid), revoked=True)

    def authorize(self, appid: str) -> None:
        """Restore a merchant's authorization, with a new refresh token that only the authorizer list has."""
        self._accounts[appid] = replace(self.account(appid), revoked=False)
        self.drop_refresh_token(appid)

    def set_status(self, env: str, status: EnvStatus) -> None:
        """Change an environment's status."""
        self._environments[env] = SimulatedEnvironment(env, status)

    def new_ticket(self) -> str:
        """Return a new component_verify_ticket; the earlier ones are refused with 61005."""
        self._old_tickets.add(self._ticket)
        self._ticket, self._ticket_ends = self._new("ticket"), self.clock() + self.component.ticket_lifetime
        return self._ticket

    def _environment(self, env: str) -> SimulatedEnvironment:
        return self._environments.get(env) or SimulatedEnvironment(env)

    def _new(self, whose: str) -> str:
        self._made += 1
        return f"practice-{self._made}-{hashlib.sha256(f'{whose}/{self._made}'.encode()).hexdigest()}"
