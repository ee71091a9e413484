"""Fault plans: the errors that the simulator injects, and where.

A plan is a TOML file of `[[fault]]` entries, and of accounts and environments with problems (docs: "Rehearse what goes
wrong"). A fault depends on (env, path, nth call of a step), never on the order of calls across paths, so that a plan
implies how each row ends at any concurrency. The first entry that matches a call is played.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Text, _, as_list
from tcb_ops.settings_files import parse_toml, read_text
from tcb_ops.values import Named, Raw, check, values_of

SECONDS_PER_DAY = 86_400


def _reset(value: object) -> Reset:
    if value is True:
        return Reset.BEFORE
    if value != Reset.MIDDLE:
        raise ValueError
    return Reset.MIDDLE


def _calls(value: object) -> tuple[tuple[int, int], ...]:
    return tuple(_range(entry) for entry in (value if isinstance(value, list) and value else [value]))


def _range(value: object) -> tuple[int, int]:
    first, dash, last = value.partition("-") if isinstance(value, str) else (str(value), "", "")
    ends = (first, last if dash else first)
    if not isinstance(value, str | int) or not all(e.strip().isdecimal() and len(e) < 9 for e in ends):
        raise ValueError
    low, high = int(ends[0]), int(ends[1])
    if not 1 <= low <= high:
        raise ValueError
    return low, high


Words = Annotated[str, Meta(min_length=1), _("must be non-empty text")]
"""A value of the plan. The Text in its annotation describes valid values, for the message about an invalid one."""
Id = Annotated[
    str,
    Meta(pattern=r"^[^*?\[\]]+$"),
    _("must be non-empty text for exactly one; the wildcards * ? and [] do not work here"),
]
DaySeconds = Annotated[int, Meta(ge=0, le=SECONDS_PER_DAY)]
LifeSeconds = Annotated[int, Meta(ge=1, le=SECONDS_PER_DAY)]
CallCount = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class FaultStep(StrEnum):
    """The call that fails: one of a row's two steps, or of the platform's other interfaces."""

    LINK = "link"
    STORE = "store"
    COMPONENT_TOKEN = "component_token"  # noqa: S105  an interface, not a password
    AUTHORIZER_TOKEN = "authorizer_token"  # noqa: S105  an interface, not a password
    PREAUTH_CODE = "preauth_code"
    AUTHORIZER_LIST = "authorizer_list"
    AUTHORIZER_INFO = "authorizer_info"
    CREATE_CLOUD_USER = "create_cloud_user"
    CREATE_ENV = "create_env"
    ENV_INFO = "env_info"
    DESCRIBE_ENVS = "describe_envs"
    DOWNLOAD = "download"
    DELETE = "delete"
    QUOTA = "quota"
    CLEAR_QUOTA = "clear_quota"
    RID = "rid"


class Reset(StrEnum):
    """When a connection is reset."""

    BEFORE = "before"
    MIDDLE = "middle"
    """Within the response: the call was executed, but the client cannot know."""


class Etag(StrEnum):
    """The ETag that the store returns instead of the MD5."""

    WRONG = "wrong"
    OPAQUE = "opaque"
    """Not an MD5, as from a bucket with its own encryption keys."""
    MISSING = "missing"
    """No ETag header, as in a firewall's page."""


class EnvStatus(StrEnum):
    """An environment's status in getenvinfo."""

    NORMAL = "NORMAL"
    HALTED = "HALTED"
    """Unpaid, over quota or banned: uploadfile returns -501005."""
    UNAVAILABLE = "UNAVAILABLE"
    """uploadfile returns -501018."""


_REFUSES = {EnvStatus.NORMAL: 0, EnvStatus.HALTED: -501005, EnvStatus.UNAVAILABLE: -501018}
PERMISSION_SETS = frozenset({49, 64})
"""Either lets the platform use the merchant's cloud: 49 小程序云开发管理, on older pages 64 (func_info of api_get_authorizer_info)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a plan."""

    env: Words = "*"
    appid: Words = "*"
    path: Words = "*"
    step: FaultStep = FaultStep.LINK
    calls: Annotated[
        tuple[tuple[int, int], ...],
        Named("call"),
        Raw(_calls),
        _('counts from 1: write 2, [1, 3] or "1-3"'),
    ] = ()
    """Ranges of call numbers, inclusive, counted from 1; empty means every call."""
    errcode: Annotated[int, Meta(ge=-9_999_999, le=9_999_999)] | None = None
    """0: success, without what belongs to it."""
    errmsg: Words = ""
    code: Words = ""
    status: Annotated[int, Meta(ge=300, le=599)] | None = None
    reset: Annotated[Reset, Raw(_reset), _('must be true or "middle"')] | None = None
    body: Literal["", "garbage"] = ""
    lifetime: DaySeconds | None = None
    """Of the link, in seconds."""
    other_env: Id = ""
    """The environment whose bucket the link leads to, instead of the requested one."""
    etag: Etag | None = None
    delay: Annotated[float, Meta(ge=0, le=3600), _("must be seconds from 0 to 3600")] = 0.0

    def concerns(self, env: str, appid: str) -> bool:
        """Return whether the entry concerns this merchant's environment."""
        return fnmatchcase(env, self.env) and fnmatchcase(appid, self.appid)

    def hits(self, step: FaultStep, path: str, call: int) -> bool:
        """Return whether the entry is played at the nth call of a step for a path."""
        return self.step is step and self.is_at(call) and fnmatchcase(path, self.path)

    def is_at(self, call: int) -> bool:
        """Return whether the entry is for the nth call."""
        return not self.calls or any(first <= call <= last for first, last in self.calls)


NO_FAULT = Fault()


@dataclass(frozen=True, slots=True)
class Component:
    """The third-party platform. Times are seconds of the simulator's clock."""

    appid: Id
    secret: Words = field(default="", repr=False)
    """If empty, tokens come from outside, and the interfaces that issue them are not simulated."""
    ticket: Words = field(default="", repr=False)
    _: KW_ONLY
    rotate: bool = False
    """Whether each refresh also issues a new refresh token."""
    ip_refused: bool = False
    """Whether every call is refused with 61004."""
    token_lifetime: LifeSeconds = 7200
    """Of the component's and the merchants' access tokens."""
    ticket_lifetime: Annotated[int, Meta(ge=1, le=7 * SECONDS_PER_DAY)] = 12 * 3600
    overlap: DaySeconds = 300
    """How long the token before the newest remains valid."""


@dataclass(frozen=True, slots=True)
class SimulatedAccount:
    """A merchant's account; without a line in the merchants file, an authorizer without environments."""

    appid: Id
    name: Words = ""
    """Its nick_name at the platform; if empty, the name in the merchants file."""
    _: KW_ONLY
    revoked: bool = False
    permissions: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=9999)], ...],
        _("must be a list such as [49], of whole numbers from 1 to 9999"),
    ] = (18, 49)
    """Permission sets that it has granted."""
    cloud: bool = True
    """Whether 云开发 is open."""
    daily_limit: CallCount = 0
    """Calls of uploadfile allowed in total; 0 for no limit."""
    used: CallCount = 0
    """Calls made before the simulator started."""
    question_limit: CallCount = 0
    """Calls of openapi/quota/get and of openapi/rid/get allowed in total; 0 for no limit."""
    unconfirmed: bool = False
    """Whether the platform has yet to confirm what it has granted."""
    cleared: CallCount = 0
    """Calls of clear_quota that took effect this month, before the simulator started."""
    phone: bool = True
    """Whether a phone number is bound; without one, createclouduser asks for it (-601048)."""
    confirms_after: DaySeconds | None = None
    """Seconds until its administrator confirms what was asked; None: only when told to (simulator/confirm)."""
    ready_after: DaySeconds = 5
    """Seconds until a new environment is NORMAL; at the platform about ten minutes."""
    refresh_token: Words = field(default="", repr=False)

    def refusal(self) -> int:
        """Return the errcode that refuses every call to its cloud (61003, 61016, 61007), or 0."""
        if self.revoked or self.unconfirmed:
            return 61003 if self.revoked else 61016
        return 0 if PERMISSION_SETS & set(self.permissions) else 61007


@dataclass(frozen=True, slots=True)
class SimulatedEnvironment:
    """An environment that is not NORMAL, or not its merchant's."""

    env: Id
    status: EnvStatus = EnvStatus.NORMAL
    _: KW_ONLY
    foreign: bool = False
    """Whether it belongs to somebody else, despite the merchants file."""

    def refusal(self) -> int:
        """Return the errcode that refuses reading and writing in it, or 0."""
        return -601012 if self.foreign else _REFUSES[self.status]


@dataclass(frozen=True, slots=True)
class Faults:
    """A fault plan. The default is empty: nothing fails."""

    entries: tuple[Fault, ...] = ()
    component: Component | None = None
    accounts: tuple[SimulatedAccount, ...] = ()
    environments: tuple[SimulatedEnvironment, ...] = ()

    def within(self, env: str, appid: str) -> Faults:
        """Return the entries for one merchant's environment."""
        return Faults(tuple(entry for entry in self.entries if entry.concerns(env, appid)))

    def find(self, step: FaultStep, path: str, call: int) -> Fault | None:
        """Return the entry to play at a call, in a plan narrowed by `within`."""
        return next((entry for entry in self.entries if entry.hits(step, path, call)), None)


# --- the file ----------------------------------------------------------------------------------------------------


_TABLES: dict[str, tuple[type, Text]] = {
    "fault": (Fault, _("fault {number}")),
    "component": (Component, _("component")),
    "account": (SimulatedAccount, _("account {number}")),
    "environment": (SimulatedEnvironment, _("environment {number}")),
}
_NO_PLAN = _(
    "a fault plan contains [[fault]], [[account]] and [[environment]] entries, one [component], and nothing else"
)


def load_faults(path: Path) -> Faults:
    """Read a fault plan. Raises SettingsError with the file, the entry's number, the field and what is valid."""
    tables: dict[str, list[Any]] = {name: [] for name in _TABLES}
    for table, value in parse_toml(read_text(path, path), path).items():
        entries = value if isinstance(value, list) else [value]
        if table not in _TABLES or isinstance(value, list) == (table == "component"):
            raise _invalid(path, _NO_PLAN)
        model, name = _TABLES[table]
        for number, entry in enumerate(entries, 1):
            if not isinstance(entry, dict):
                raise _invalid(path, _NO_PLAN)
            converted, wrong = check(model, entry, partial(_unknown, model), strict=True)
            for key, reason in wrong.items():  # without the value, which may be a secret
                entry_name = name.format(number=number)
                raise _invalid(path, _("{entry}: {key} {why}", entry=entry_name, key=key, why=reason))
            tables[table].append(model(**converted))
    component = next(iter(tables["component"]), None)
    return Faults(tuple(tables["fault"]), component, tuple(tables["account"]), tuple(tables["environment"]))


def _invalid(path: Path, mistake: Text) -> SettingsError:
    return SettingsError(_("{path}: {mistake}.", path=path, mistake=mistake))


def _unknown(model: type, _name: str, _value: object) -> Text:
    return _("does not exist; the names are {names}", names=as_list(values_of(model)))
