"""The values that flow: list → Row → (ledger: pending) → Link → RowEnd → ledger → report.

All are frozen: a stage reads what the stage before it made and makes its own. Sizes are bytes, times are Unix
seconds (UTC) unless a name says otherwise.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from urllib.parse import urlsplit

from tcb_ops.details import Detail
from tcb_ops.i18n import Text


def file_problem(
    message: Text, fix: Text, *, line: int = 0, column: str = "", value: str = "", option: str = ""
) -> Problem:
    """Return a problem of the file itself, which `--on-bad skip` cannot pass over."""
    return Problem(line, column, message, fix, value, skippable=False, option=option)


class Secret:
    """A string that repr, str and format do not show, and that cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string: for the request that needs it, and for links.csv."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(•••)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        message = "a secret cannot be pickled"
        raise TypeError(message)


class Kind(StrEnum):
    """What a run does with its rows."""

    LINKS = "links"
    UPLOAD = "upload"
    AUDIT = "audit"
    """Whether each environment works: its status, its quota, and a link for a probe path."""


class Outcome(StrEnum):
    """What a row ended as: exactly one of these. PENDING rows have not ended yet."""

    LINKED = "linked"
    UPLOADED = "uploaded"
    UNCHANGED = "unchanged"
    HEALTHY = "healthy"
    """In an audit: every check that was made of the environment passed."""
    REFUSED = "refused"
    """The platform answered with an errcode."""
    FAILED = "failed"
    """No usable answer, or the store refused, or the file changed since the plan."""
    NOT_ATTEMPTED = "not_attempted"
    UNHEALTHY = "unhealthy"
    """In an audit: the environment cannot be worked on; the errcode or the reason is the cause."""
    UNKNOWN = "unknown"
    """In an audit: it could not be told, because nobody gave a usable answer about this environment."""
    INVALID = "invalid"
    """Skipped as bad input."""
    PENDING = "pending"


SUCCESSES = frozenset({Outcome.LINKED, Outcome.UPLOADED, Outcome.UNCHANGED, Outcome.HEALTHY})
"""The outcomes of rows that succeeded."""


class Reason(StrEnum):
    """Why a row did not succeed, where the errcode or the store's code alone does not tell."""

    BREAKER = "breaker"
    """Not attempted: earlier rows of the same merchant or environment were stopped by this code."""
    NO_TOKEN = "no_token"  # noqa: S105  a reason, not a password
    MERCHANT_LEFT = "merchant_left"
    REFUSED = "refused"
    """The platform answered with an errcode."""
    COMPONENT = "component"
    """The errcode came for the component token, in an environment of the platform's own: the row's own, or (not
    attempted) that of the rows before it."""
    DEAD_TOKEN = "dead_token"  # noqa: S105  a reason, not a password
    """The token was refused and the token source gave the same one again."""
    STORE_REFUSED = "store_refused"
    NO_ANSWER = "no_answer"
    """Timeout, reset, garbage, or a gateway's error page, on every attempt."""
    BAD_LINK = "bad_link"
    """The link is not https, not the store's host, or not for this path."""
    FILE_CHANGED = "file_changed"
    FILE_UNREADABLE = "file_unreadable"
    NO_CONFIRMATION = "no_confirmation"
    """The store's answer, on every attempt, neither confirmed the object nor refused it: no ETag, a redirect."""
    ETAG_MISMATCH = "etag_mismatch"
    INVALID = "invalid"
    """Bad input; the row's detail says which rule."""
    HALTED = "halted"
    """getenvinfo's status of the environment."""
    UNAVAILABLE = "unavailable"
    """Any other status than NORMAL; the row's detail names it."""
    PROBE_LEFT = "probe_left"
    """An audit with `--write-probe` could not delete its file again."""
    NOT_ASKED = "not_asked"
    """A problem that affects every merchant stopped the audit first; the row's detail says which."""
    UNVERIFIED = "unverified"
    """It succeeded, but the store's ETag is not an MD5, so the bytes were not compared."""


class Owner(StrEnum):
    """Whose account an environment belongs to, and so which interface and token serve it."""

    MERCHANT = "merchant"
    PLATFORM = "platform"


class FailOn(StrEnum):
    """What makes an audit end with exit code 1."""

    ANY = "any"
    NEW = "new"
    """What the previous audit did not have."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Merchant:
    """One line of the merchants file: a mini program in one of its environments."""

    appid: str
    name: str
    env: str
    default: bool = False
    """The environment that the merchant's name alone means."""
    owner: Owner = Owner.MERCHANT
    left: bool = False
    """Revoked its authorization: its rows end as not_attempted."""
    columns: tuple[tuple[str, str], ...] = ()
    """Every column of the line as it is in the file, for `--where`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One checked line of a path list."""

    line: int
    """The file's own line number; the first data row of a plain CSV is 2."""
    env: str
    path: str
    """The cloud path, the object's key."""
    appid: str
    merchant: str
    """The merchant's name."""
    file: str
    """The local file, relative to the root, with forward slashes."""
    cells: tuple[str, ...]
    """The input's cells as they are in the file, in the order of its header."""
    size: int | None = None
    """Bytes of the local file at the plan; None where local files were not looked at."""
    mtime_ns: int | None = None
    invalid: Text | None = None
    """With `on_bad="skip"`: the problem's message, and the row ends as invalid."""
    content_type: str = ""
    """From the list, empty where it says none. In an upload run: what the object is stored with."""
    cache_control: str = ""
    """The object's Cache-Control; empty for none."""


@dataclass(frozen=True, slots=True)
class Link:
    """An upload link: getUploadTcbFileLink's answer. Expires after about 15 minutes; the end is in the response."""

    url: Secret
    token: Secret
    authorization: Secret
    file_id: str
    cos_file_id: Secret
    expires_at: int
    """Unix seconds, the end of q-sign-time."""
    starts_at: int = 0
    """Unix seconds, the start of q-sign-time; the two are the target's clock, their difference anybody's."""

    def alive_for(self, now: float) -> float:
        """Seconds that a link which has just come lives: by its own span, so that a wrong clock here does no harm."""
        return self.expires_at - (self.starts_at or now)


@dataclass(frozen=True, slots=True)
class RowEnd:
    """How a row ended: what the ledger keeps of it. Holds no secret."""

    line: int
    outcome: Outcome
    reason: Reason | None = None
    detail: Detail | None = None
    """What only this row knows: the store's message, the rule that was broken."""
    errcode: int | None = None
    errmsg: str = ""
    rid: str = ""
    http_status: int | None = None
    store_code: str = ""
    attempts: int = 0
    """Calls made for this row, link and store together."""
    bytes: int | None = None
    md5: str = ""
    file_id: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    link: Link | None = field(default=None, repr=False)
    """For links.csv only; never written to the ledger."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a list or merchants file that must be fixed before anything is sent."""

    line: int
    """0 where it concerns the file as a whole."""
    column: str
    """The header as it is in the file; empty where no one column is meant."""
    message: Text
    fix: Text
    value: str = ""
    """The offending cell, shortened for screens."""
    skippable: bool = True
    """False for problems of the file itself, which `--on-bad skip` cannot pass over."""
    option: str = ""
    """The option of the command line that `fix` names; empty for none."""


@lru_cache(maxsize=256)  # asked of each link
def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine itself.

    Names other than localhost are not looked up.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


SIMULATOR = "simulator"
"""The target of runs against the embedded simulator, whatever port it listens on."""


def is_simulated(target: str) -> bool:
    """Return whether a run's target is a simulator on this machine: nothing of it reached WeChat."""
    return target == SIMULATOR or is_loopback(urlsplit(target).hostname or "")


def target_label(target: str, base: str) -> str:
    """Name a target for people, with whether it is live: `LIVE https://…` or `SIMULATED http://…`.

    `base` is where the embedded simulator listens, or stands for it.
    """
    url = base if target == SIMULATOR else target
    return f"{'SIMULATED' if is_simulated(target) else 'LIVE'} {url}"
