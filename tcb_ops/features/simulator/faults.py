"""Fault plans: the errors that the simulator injects, and where.

A plan is a TOML file of `[[fault]]` entries, and of accounts and environments with problems (docs: "Rehearse what goes
wrong"). A fault depends on (env, path, nth call of a step), never on the order of calls across paths, so that a plan
implies how each row ends at any concurrency. The first entry that matches a call is played.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, TypeAdapter, ValidationError, with_config

from tcb_ops.errors import SettingsError
from tcb_ops.i18n import Text, _, as_list
from tcb_ops.resources import system_reason

SECONDS_PER_DAY = 86_400
_NAMED_ONLY = ConfigDict(extra="forbid")


def _reset(value: object) -> Reset:
    if value is True:
        return Reset.BEFORE
    if value != Reset.MIDDLE:
        raise ValueError
    return Reset.MIDDLE


def _garbage(value: object) -> bool:
    if value != "garbage":
        raise ValueError
    return True


LAST_NIGHT = 99_999_999
"""The end of a range of nights without one."""


def _calls(value: object, open_end: str = "") -> tuple[tuple[int, int], ...]:
    """Return the ranges of 2, [1, 3] or "1-3"; `open_end` is the end of one such as "4-"."""
    values = value if isinstance(value, list) and value else [value]
    return tuple(_range(one, open_end) for one in values)


def _nights(value: object) -> tuple[tuple[int, int], ...]:
    return _calls(value, str(LAST_NIGHT))


def _range(value: object, open_end: str) -> tuple[int, int]:
    first, dash, last = value.partition("-") if isinstance(value, str) else (str(value), "", "")
    ends = (first, (last.strip() or open_end) if dash else first)
    if not isinstance(value, str | int) or not all(e.strip().isdecimal() and len(e) < 9 for e in ends):
        raise ValueError
    low, high = int(ends[0]), int(ends[1])
    if not 1 <= low <= high:
        raise ValueError
    return low, high


def covers(ranges: tuple[tuple[int, int], ...], number: int) -> bool:
    """Return whether ranges include a number; without any, they include all."""
    return not ranges or any(first <= number <= last for first, last in ranges)


def _no_zero(value: object) -> object:
    if value == 0 and not isinstance(value, bool):
        raise ValueError
    return value


Words = Annotated[str, Field(strict=True, min_length=1), _("must be non-empty text")]
"""A value of the plan. The Text in its annotation describes valid values, for the message about an invalid one."""
Id = Annotated[
    str,
    Field(strict=True, pattern=r"^[^*?\[\]]+$"),
    _("must be non-empty text for exactly one; the wildcards * ? and [] do not work here"),
]
DaySeconds = Annotated[int, Field(strict=True, ge=0, le=SECONDS_PER_DAY)]
LifeSeconds = Annotated[int, Field(strict=True, ge=1, le=SECONDS_PER_DAY)]
CallCount = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
Nights = Annotated[
    tuple[tuple[int, int], ...],
    BeforeValidator(_nights),
    _('counts from 1: write 2, [1, 3], "1-3" or "4-"'),
]
"""Ranges of nights of an evolving fleet, inclusive; empty means every night."""


class FaultStep(StrEnum):
    """The call that fails: one of a row's two steps, or of the platform's other interfaces."""

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
    BUCKET = "bucket"
    QUOTA = "quota"


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


@with_config(_NAMED_ONLY)
@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a plan."""

    env: Words = "*"
    appid: Words = "*"
    path: Words = "*"
    step: FaultStep = FaultStep.LINK
    calls: Annotated[
        tuple[tuple[int, int], ...],
        Field(alias="call"),
        BeforeValidator(_calls),
        _('counts from 1: write 2, [1, 3] or "1-3"'),
    ] = ()
    """Ranges of call numbers, inclusive, counted from 1; empty means every call."""
    errcode: (
        Annotated[
            int,
            BeforeValidator(_no_zero),
            Field(strict=True, ge=-9_999_999, le=9_999_999),
            _("must be a whole number from -9999999 to 9999999 other than 0, which is not a fault"),
        ]
        | None
    ) = None
    errmsg: Words = ""
    code: Words = ""
    status: Annotated[int, Field(strict=True, ge=300, le=599)] | None = None
    reset: Annotated[Reset, BeforeValidator(_reset), _('must be true or "middle"')] | None = None
    garbage: Annotated[StrictBool, Field(alias="body"), BeforeValidator(_garbage), _('must be "garbage"')] = (
        False
    )
    lifetime: DaySeconds | None = None
    """Of the link, in seconds."""
    other_env: Id = ""
    """The environment whose bucket the link leads to, instead of the requested one."""
    etag: Etag | None = None
    delay: Annotated[
        float, Field(strict=True, ge=0, le=3600, allow_inf_nan=False), _("must be seconds from 0 to 3600")
    ] = 0.0
    nights: Nights = ()

    def concerns(self, env: str, appid: str) -> bool:
        """Return whether the entry concerns this merchant's environment."""
        return fnmatchcase(env, self.env) and fnmatchcase(appid, self.appid)

    def hits(self, step: FaultStep, path: str, call: int) -> bool:
        """Return whether the entry is played at the nth call of a step for a path."""
        return self.step is step and covers(self.calls, call) and fnmatchcase(path, self.path)


NO_FAULT = Fault()


@with_config(_NAMED_ONLY)
@dataclass(frozen=True, slots=True)
class Component:
    """The third-party platform. Times are seconds of the simulator's clock."""

    appid: Id
    secret: Words = field(default="", repr=False)
    """If empty, tokens come from outside, and the interfaces that issue them are not simulated."""
    ticket: Words = field(default="", repr=False)
    _: KW_ONLY
    rotate: StrictBool = False
    """Whether each refresh also issues a new refresh token."""
    ip_refused: StrictBool = False
    """Whether every call is refused with 61004."""
    token_lifetime: LifeSeconds = 7200
    """Of the component's and the merchants' access tokens."""
    ticket_lifetime: Annotated[int, Field(strict=True, ge=1, le=7 * SECONDS_PER_DAY)] = 12 * 3600
    overlap: DaySeconds = 300
    """How long the token before the newest remains valid."""


@with_config(_NAMED_ONLY)
@dataclass(frozen=True, slots=True)
class SimulatedAccount:
    """A merchant's account; without a line in the merchants file, an authorizer without environments."""

    appid: Id
    name: Words = ""
    """Its nick_name at the platform; if empty, the name in the merchants file."""
    _: KW_ONLY
    revoked: StrictBool = False
    permissions: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=1, le=9999)], ...],
        _("must be a list such as [49], of whole numbers from 1 to 9999"),
    ] = (18, 49)
    """Permission sets that it has granted."""
    cloud: StrictBool = True
    """Whether 云开发 is open."""
    daily_limit: CallCount = 0
    """Calls of uploadfile allowed in total; 0 for no limit."""
    used: CallCount = 0
    """Calls made before the simulator started."""
    refresh_token: Words = field(default="", repr=False)
    nights: Nights = ()

    def refusal(self) -> int:
        """Return the errcode that refuses every call to its cloud (61003, 61007), or 0."""
        if self.revoked:
            return 61003
        return 0 if PERMISSION_SETS & set(self.permissions) else 61007


@with_config(_NAMED_ONLY)
@dataclass(frozen=True, slots=True)
class SimulatedEnvironment:
    """An environment that is not NORMAL, or not its merchant's."""

    env: Id
    status: EnvStatus = EnvStatus.NORMAL
    _: KW_ONLY
    foreign: StrictBool = False
    """Whether it belongs to somebody else, despite the merchants file."""
    nights: Nights = ()

    def refusal(self) -> int:
        """Return the errcode that refuses reading and writing in it, or 0."""
        return -601012 if self.foreign else _REFUSES[self.status]


@with_config(_NAMED_ONLY)
@dataclass(frozen=True, slots=True)
class Faults:
    """A fault plan. The default is empty: nothing fails."""

    entries: Annotated[tuple[Fault, ...], Field(alias="fault")] = ()
    component: Component | None = None
    accounts: Annotated[tuple[SimulatedAccount, ...], Field(alias="account")] = ()
    environments: Annotated[tuple[SimulatedEnvironment, ...], Field(alias="environment")] = ()

    def on_night(self, night: int) -> Faults:
        """Return the part of the plan for a night, counted from 1."""
        return replace(
            self,
            entries=tuple(one for one in self.entries if covers(one.nights, night)),
            accounts=tuple(one for one in self.accounts if covers(one.nights, night)),
            environments=tuple(one for one in self.environments if covers(one.nights, night)),
        )

    def within(self, env: str, appid: str) -> Faults:
        """Return the entries for one merchant's environment."""
        return Faults(tuple(entry for entry in self.entries if entry.concerns(env, appid)))

    def find(self, step: FaultStep, path: str, call: int) -> Fault | None:
        """Return the entry to play at a call, in a plan narrowed by `within`."""
        return next((entry for entry in self.entries if entry.hits(step, path, call)), None)

    def counted(self, step: FaultStep, path: str) -> bool:
        """Return whether calls for this path must be counted, because an entry has call numbers."""
        return any(
            entry.calls and entry.step is step and fnmatchcase(path, entry.path) for entry in self.entries
        )


# --- the file ----------------------------------------------------------------------------------------------------


_KINDS: dict[str, type] = {
    "fault": Fault,
    "component": Component,
    "account": SimulatedAccount,
    "environment": SimulatedEnvironment,
}
_TITLES = {
    "fault": _("fault {number}"),
    "account": _("account {number}"),
    "environment": _("environment {number}"),
}
_NO_PLAN = _(
    "a fault plan contains [[fault]], [[account]] and [[environment]] entries, one [component], and nothing else"
)
_LINK_ONLY = ("lifetime", "other_env")
_ANSWERS = ("errcode", "code", "status", "reset", "body", *_LINK_ONLY, "etag")
_STORE_ONLY = ("code", "etag")
_NOT_STORE = ("errcode", "body", *_LINK_ONLY)
_OF_COMPONENT = ("appid", "daily_limit", "used")
"""The fields that an [[account]] of the platform itself may have."""


def load_faults(path: Path) -> Faults:
    """Read a fault plan. Raises SettingsError with the file, the entry's number, the field and what is valid."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = system_reason(error)
        raise SettingsError(_("{path}: the fault plan cannot be read ({why}).", path=path, why=why)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(_("{path}: this is not TOML: {error}.", path=path, error=error)) from None
    try:
        plan = TypeAdapter(Faults).validate_python(raw)
    except ValidationError as error:
        mistake = _invalid_value(error.errors(include_url=False)[0])
    else:
        found = next(_contradictions(raw), None)
        if found is None:
            return plan
        mistake = _at(*found)
    raise SettingsError(_("{path}: {mistake}.", path=path, mistake=mistake))


def _at(table: str, number: int, wrong: Text) -> Text:
    """Prepend the entry's number to a message."""
    if table not in _TITLES:
        return _("{table}: {wrong}", table=table, wrong=wrong)
    return _("{entry}: {wrong}", entry=_TITLES[table].format(number=number), wrong=wrong)


def _invalid_value(error: Any) -> Text:
    """Return the message about one invalid value, without the value, which may be a secret."""
    table, *place = error["loc"]
    number = place.pop(0) + 1 if table in _TITLES and place else 1
    if table not in _KINDS or not place:
        return _NO_PLAN
    key, fields = str(place[0]), _fields(_KINDS[table])
    if error["type"] == "missing" or error["type"] == "missing_argument":
        return _at(table, number, _("{key} is missing", key=key))
    if key not in fields:
        near = get_close_matches(key, fields, n=1)
        if near:
            unknown = _(
                "there is no “{key}” (did you mean “{near}”?); the names are {fields}",
                key=key,
                near=near[0],
                fields=as_list(fields),
            )
        else:
            unknown = _("there is no “{key}”; the names are {fields}", key=key, fields=as_list(fields))
        return _at(table, number, unknown)
    return _at(table, number, _("{key} {valid}", key=key, valid=_valid(fields[key], error["input"])))


def _fields(kind: type) -> dict[str, Any]:
    """Return the annotations of a table's fields, by their names in the plan."""
    hints = get_type_hints(kind, include_extras=True)
    hints.pop("_", None)
    renamed = {"calls": "call", "garbage": "body"}
    return {renamed.get(name, name): hint for name, hint in hints.items()}


def _valid(hint: Any, value: object) -> Text:
    """Return what a field's annotation allows."""
    if type(None) in get_args(hint):
        hint = get_args(hint)[0]
    base, *notes = get_args(hint) or (hint,)
    found = next((note for note in notes if isinstance(note, Text)), None)
    if found is not None:
        return found
    if isinstance(base, type) and issubclass(base, StrEnum):
        near = get_close_matches(str(value), base, n=1)
        if near:
            return _("must be one of {names} (did you mean “{near}”?)", names=as_list(base), near=near[0])
        return _("must be one of {names}", names=as_list(base))
    if base is bool:
        return _("must be true or false")
    limits = {
        name: getattr(one, name) for one in notes[0].metadata for name in ("ge", "le") if hasattr(one, name)
    }
    return _("must be a whole number from {least} to {most}", least=limits["ge"], most=limits["le"])


def _contradictions(raw: dict[str, Any]) -> Iterator[tuple[str, int, Text]]:
    """Yield mistakes across several values: fields that cannot be combined, entries that appear twice."""
    for number, entry in enumerate(raw.get("fault", ()), 1):
        for wrong in _wrong_fault(entry):
            yield "fault", number, wrong
    component = raw.get("component", {})
    if ("secret" in component) != ("ticket" in component):
        wrong = _("secret and ticket must be given together; omit both if tokens come from --tokens")
        yield "component", 1, wrong
    yield from _twice(raw)
    for number, entry in enumerate(raw.get("account", ()), 1):
        foreign = [key for key in entry if key not in _OF_COMPONENT]
        if entry["appid"] == component.get("appid") and foreign:
            wrong = _("this is the platform itself: {foreign} is for merchants", foreign=foreign[0])
            yield "account", number, wrong
    for number, entry in enumerate(raw.get("environment", ()), 1):
        if not {"status", "foreign"} & set(entry):
            wrong = _("specify the problem: status or foreign")
            yield "environment", number, wrong


def _twice(raw: dict[str, Any]) -> Iterator[tuple[str, int, Text]]:
    for table, key in (("account", "appid"), ("environment", "env")):
        seen: dict[str, list[tuple[int, Any]]] = {}
        for number, entry in enumerate(raw.get(table, ()), 1):
            before = seen.setdefault(entry[key], [])
            for first, nights in before:
                if _overlap(nights, entry.get("nights")):
                    wrong = _("{name} is already in entry {first}", name=entry[key], first=first)
                    yield table, number, wrong
                    break
            before.append((number, entry.get("nights")))


def _overlap(nights: Any, others: Any) -> bool:
    """Return whether two entries are played on the same night; without `nights`, an entry is played on all."""
    if nights is None or others is None:
        return True
    return any(
        first <= end and begin <= last for first, last in _nights(nights) for begin, end in _nights(others)
    )


def _wrong_fault(entry: dict[str, Any]) -> Iterator[Text]:
    if "env" not in entry and "appid" not in entry:
        yield _("specify whom it affects: env, appid or both")
    step = entry.get("step", FaultStep.LINK)
    foreign = [key for key in entry if key in (_NOT_STORE if step == FaultStep.STORE else _STORE_ONLY)]
    foreign += [key for key in _LINK_ONLY if key in entry and step != FaultStep.LINK]
    for key in foreign:
        other = FaultStep.STORE if key in _STORE_ONLY else FaultStep.LINK
        yield _('{key} can only be used with step = "{other}"', key=key, other=other)
    answers = [key for key in _ANSWERS if key in entry]
    if len(answers) > 1 and answers != ["code", "status"]:
        yield _(
            "{answers} cannot be combined: each entry may have only one of them", answers=as_list(answers)
        )
    if not answers and "delay" not in entry:
        yield _("specify the fault: one of {answers}, or delay", answers=as_list(_ANSWERS))
    if "errmsg" in entry and not {"errcode", "code"} & set(entry):
        yield _("errmsg can only be used with errcode or code")
