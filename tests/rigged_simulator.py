"""The simulator, with what its platform, its merchants and other tools do while a run goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tcb_ops.features.simulator.cos import bucket_of
from tcb_ops.features.simulator.faults import (
    Component,
    EnvStatus,
    Fault,
    Faults,
    FaultStep,
    SimulatedAccount,
    SimulatedEnvironment,
)
from tcb_ops.features.simulator.server import Simulator as PlainSimulator
from tcb_ops.features.simulator.state import NEVER, RefreshToken, SimulatedObject
from tcb_ops.model import Merchant


class Call(NamedTuple):
    """A recorded call. `env` and `path` are empty if the request had none that could be read."""

    step: FaultStep
    env: str
    path: str


class Simulator(PlainSimulator):
    """The simulator, whose state a test changes; methods may be called from any thread.

    `record` keeps every call in `calls`. `component_appid` alone says which of the tokens is the component's.
    """

    def __init__(
        self,
        merchants: Sequence[Merchant],
        tokens: Mapping[str, str] | Path,
        *,
        faults: Faults = Faults(),  # noqa: B008  frozen and empty
        component: Component | None = None,
        component_appid: str = "",
        accounts: Sequence[SimulatedAccount] = (),
        environments: Sequence[SimulatedEnvironment] = (),
        record: bool = False,
        **options: Any,
    ) -> None:
        faults = Faults(
            faults.entries,
            component or faults.component or Component(component_appid),
            (*faults.accounts, *accounts),
            (*faults.environments, *environments),
        )
        super().__init__(merchants, tokens, faults=faults, **options)
        self.calls: list[Call] = []

        def arrived(step: FaultStep, env: str, path: str) -> None:
            type(self._state).arrived(self._state, step, env, path)
            self.calls.append(Call(step, env, path))

        if record:
            self._state.arrived = arrived  # type: ignore[method-assign]

    def play(self, faults: Iterable[Fault], accounts: Iterable[SimulatedAccount] | None = None) -> None:
        """Inject these faults from now on, instead of the plan's. `accounts`: these, with the quotas of a new day."""
        self._state._faults, self._state._plans = Faults(tuple(faults)), {}
        self._state._counts.clear()
        if accounts is not None:
            self._accounts.play(accounts)

    def put(self, env: str, key: str, data: bytes, etag: str | None = None) -> None:
        """Store an object as another tool does; `etag` in place of the MD5, an empty one for no ETag."""
        bucket, store = bucket_of(env), self._store
        store._keep(memoryview(data), bucket, key)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self._state.stored(bucket, key, SimulatedObject(len(data), md5, own_etag=etag))
        store._record(bucket, key)

    def content(self, env: str, key: str) -> bytes | None:
        """Return an object's bytes, as far as they are kept."""
        content = self._store._content(bucket_of(env), key)
        return content.read_bytes() if isinstance(content, Path) else content

    def remove(self, env: str, key: str) -> None:
        """Delete an object as somebody else does."""
        self._store.remove(bucket_of(env), key)

    def rotate(self, appid: str) -> str:
        """Give the appid a new token; its old ones are refused with 40001 from now on."""
        return self._tokens.issue(appid, 0, NEVER, 0)

    def expire(self, appid: str) -> None:
        """Expire the appid's token, also the component's: it is refused with 42001 from now on."""
        for record in list(self._tokens._tokens.values()):
            if record.appid == appid:
                record.expires = -NEVER

    def refuse_ip(self, refused: bool = True) -> None:
        """Refuse every call to the platform with 61004, or stop doing so."""
        self._accounts.ip_refused = refused

    def revoke(self, appid: str) -> None:
        """Revoke a merchant's authorization: its calls are refused with 61003, and it is no longer listed."""
        self._authorize(appid, revoked=True)

    def authorize(self, appid: str) -> None:
        """Restore a merchant's authorization, with a new refresh token that only the authorizer list has."""
        self._authorize(appid, revoked=False)
        self.drop_refresh_token(appid)

    def _authorize(self, appid: str, *, revoked: bool) -> None:
        self._accounts._accounts[appid] = replace(self._accounts.account(appid), revoked=revoked)

    def refresh_token(self, appid: str) -> str:
        """Return a merchant's current refresh token."""
        return self._accounts.refresh_tokens[appid].newest

    def drop_refresh_token(self, appid: str, *, listed: bool = True) -> None:
        """Replace a merchant's refresh token (old ones: 61023); `listed`: whether api_get_authorizer_list has the new one."""
        new = RefreshToken(self._accounts.tokens.new_value(appid), listed=listed)
        self._accounts.refresh_tokens[appid] = new

    def set_status(self, env: str, status: EnvStatus) -> None:
        """Change an environment's status."""
        self._accounts._environments[env] = SimulatedEnvironment(env, status)

    def new_ticket(self) -> str:
        """Return a new component_verify_ticket; the earlier ones are refused with 61006."""
        accounts = self._accounts
        accounts._ticket = accounts.tokens.new_value("ticket")
        accounts._ticket_ends = accounts.clock() + accounts.component.ticket_lifetime
        return accounts._ticket
