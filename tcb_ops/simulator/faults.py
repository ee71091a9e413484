"""Fault plans: what the simulator does wrong on purpose, and to whom.

A plan is a TOML file of `[[fault]]` entries. A fault hangs on (env, path, nth call of a step), never on the order of
calls across paths, so that a plan implies how each row ends, however many calls run at once::

    [[fault]]
    env = "shop-a-1f2e3d"  # or appid = "wx…", or both; * ? and [] work in env, appid and path, and * crosses /
    path = "banner/*.png"  # default: every path
    step = "link"  # link (default) or store
    call = 1  # only the nth call of the step for (env, path): 2, [1, 3] or "1-3"; default: every call
    errcode = 85088  # link: this answer, with `errmsg = "…"` if you like
    code = "SlowDown"  # store: this COS error, with `errmsg` and `status` if you like
    status = 503  # a bare HTTP status with a gateway's HTML page
    reset = true  # the connection breaks before the answer; "middle": within it
    body = "garbage"  # link: an answer that is not JSON
    lifetime = 1  # link: a link of this many seconds
    other_env = "shop-b-4d5e6f"  # link: a link into another environment's bucket
    etag = "wrong"  # store: not the MD5; "opaque": no MD5 at all; "missing": no ETag
    delay = 1.5  # seconds before whatever follows

The first entry that fits a call is played. `delay` goes with everything; of the others an entry has one. `step` may
also be one of the platform's other interfaces, such as `authorizer_token`; its calls are counted by appid.

Beside its faults a plan says who is not in order; what these imply stands before every fault::

    [component]  # the third-party platform; all but appid may be left out
    appid = "wx…"
    secret = "practice-secret"  # with the ticket: component and merchants' tokens can be had from the simulator
    ticket = "practice-ticket"
    rotate = true  # each refresh gives a new refresh token
    ip_refused = true  # 61004 for every call
    token_lifetime = 7200  # seconds; also ticket_lifetime = 43200, overlap = 300 (of the token before the newest)

    [[account]]
    appid = "wx…"  # of a merchant; an appid that no merchant has is one that the merchants file lacks
    name = "…"  # at the platform, where it is another than in the merchants file
    revoked = true  # 61003
    permissions = [18]  # neither 49 nor 64: 61007
    cloud = false  # 85088
    daily_limit = 1000  # calls of uploadfile, then 45009; `used = 990` of them already
    refresh_token = "…"  # default: practice-refresh-token-of-APPID

    [[environment]]
    env = "shop-a-1f2e3d"
    status = "HALTED"  # -501005; or "UNAVAILABLE": -501018
    foreign = true  # somebody else's, whatever the merchants file says: -601012
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from tcb_ops.simulator.accounts import Component, SimulatedAccount, SimulatedEnvironment


class FaultStep(StrEnum):
    """What is called: the two steps of a row, and the platform's other interfaces."""

    LINK = "link"
    STORE = "store"
    COMPONENT_TOKEN = "component_token"  # noqa: S105  an interface, not a password
    AUTHORIZER_TOKEN = "authorizer_token"  # noqa: S105  an interface, not a password
    AUTHORIZER_LIST = "authorizer_list"
    AUTHORIZER_INFO = "authorizer_info"
    ENV_INFO = "env_info"
    DESCRIBE_ENVS = "describe_envs"
    DOWNLOAD = "download"
    DELETE = "delete"
    QUOTA = "quota"


class Reset(StrEnum):
    """Where a connection breaks."""

    BEFORE = "before"
    MIDDLE = "middle"
    """Within the answer: what was asked has been done, and the client cannot know."""


class Etag(StrEnum):
    """What the store says instead of the MD5."""

    WRONG = "wrong"
    OPAQUE = "opaque"
    """No MD5 at all, as a bucket with its own keys answers."""
    MISSING = "missing"
    """No ETag header, as a firewall's page answers."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a plan."""

    env: str = "*"
    appid: str = "*"
    path: str = "*"
    step: FaultStep = FaultStep.LINK
    calls: tuple[tuple[int, int], ...] = ()
    """Ranges of call numbers, ends included, counted from 1; none means every call."""
    errcode: int | None = None
    errmsg: str = ""
    code: str = ""
    status: int | None = None
    reset: Reset | None = None
    garbage: bool = False
    lifetime: int | None = None
    """Seconds."""
    other_env: str = ""
    """The environment whose bucket the link leads to, instead of the one that was asked for."""
    etag: Etag | None = None
    delay: float = 0.0
    """Seconds."""

    def concerns(self, env: str, appid: str) -> bool:
        """Whether the entry is about this merchant's environment."""
        return fnmatchcase(env, self.env) and fnmatchcase(appid, self.appid)

    def hits(self, step: FaultStep, path: str, call: int) -> bool:
        """Whether the entry is played at the nth call of a step for a path."""
        return self.step is step and self.covers(call) and fnmatchcase(path, self.path)

    def covers(self, call: int) -> bool:
        """Whether the entry names this call."""
        return not self.calls or any(first <= call <= last for first, last in self.calls)


@dataclass(frozen=True, slots=True)
class Faults:
    """A fault plan. The empty plan is the default: everything goes well."""

    entries: tuple[Fault, ...] = ()
    component: Component | None = None
    accounts: tuple[SimulatedAccount, ...] = ()
    environments: tuple[SimulatedEnvironment, ...] = ()

    def within(self, env: str, appid: str) -> Faults:
        """Give the entries that are about one merchant's environment."""
        return Faults(tuple(entry for entry in self.entries if entry.concerns(env, appid)))

    def find(self, step: FaultStep, path: str, call: int) -> Fault | None:
        """Give the entry to play at a call, of a plan narrowed by `within`."""
        return next((entry for entry in self.entries if entry.hits(step, path, call)), None)

    def counted(self, step: FaultStep, path: str) -> bool:
        """Whether calls for this path need counting, because an entry names a call."""
        return any(
            entry.calls and entry.step is step and fnmatchcase(path, entry.path) for entry in self.entries
        )
