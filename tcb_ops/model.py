"""The values passed between stages: list → Row → (ledger: pending) → Link → RowEnd → ledger → report.

All are frozen: a stage reads the values of the one before and creates its own. Sizes are bytes, times are Unix seconds
(UTC), unless noted otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final

from tcb_ops.details import Detail
from tcb_ops.i18n import Text


def file_problem(
    message: Text, fix: Text, *, line: int = 0, column: str = "", value: str = "", option: str = ""
) -> Problem:
    """Return a problem of the file itself, which `--on-bad skip` cannot skip."""
    return Problem(line, column, message, fix, value, skippable=False, option=option)


class Secret:
    """A string hidden from repr, str and format; it cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string, for the request that needs it and for links.csv."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(•••)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret cannot be pickled")


class Kind(StrEnum):
    """What a run does with its rows."""

    LINKS = "links"
    UPLOAD = "upload"
    AUDIT = "audit"
    """Whether each environment works: its status, its quota, and a link for a probe path."""
    CONFIRM = "confirm"
    """Whether stored files are there, and with the bytes that were sent."""
    DELETE = "delete"
    UNDO = "undo"
    """What an upload overwrote is restored, what it added is deleted."""


class Outcome(StrEnum):
    """How a row ended. PENDING rows have not ended yet."""

    LINKED = "linked"
    UPLOADED = "uploaded"
    UNCHANGED = "unchanged"
    HEALTHY = "healthy"
    """In an audit: every check of the environment passed."""
    REFUSED = "refused"
    """The platform returned an errcode."""
    FAILED = "failed"
    """No usable response, a refusal by the store, or a file that changed after the plan."""
    NOT_ATTEMPTED = "not_attempted"
    UNHEALTHY = "unhealthy"
    """In an audit: the environment cannot be used; the errcode or the reason is the cause."""
    UNKNOWN = "unknown"
    """In an audit or a confirm: no usable response."""
    PRESENT = "present"
    """Confirm: the file is there."""
    ABSENT = "absent"
    DIFFERENT = "different"
    """Confirm: the stored bytes are not those that were uploaded."""
    FOREIGN = "foreign"
    """Confirm: the file was written in parts, so by another tool."""
    STALE = "stale"
    """Confirm: a cache in front of the store still serves an older object."""
    UNDONE = "undone"
    """Confirm: the upload was undone, and the store has what the undo left there."""
    DELETED = "deleted"
    ALREADY_GONE = "already_gone"
    RESTORED = "restored"
    CONFLICT = "conflict"
    """Undo: somebody else has changed the file since. Nothing was changed."""
    NOT_UNDOABLE = "not_undoable"
    INVALID = "invalid"
    """Skipped as invalid input."""
    PENDING = "pending"


SUCCESSES = frozenset(
    {
        Outcome.LINKED,
        Outcome.UPLOADED,
        Outcome.UNCHANGED,
        Outcome.HEALTHY,
        Outcome.PRESENT,
        Outcome.UNDONE,
        Outcome.DELETED,
        Outcome.ALREADY_GONE,
        Outcome.RESTORED,
    }
)
"""The outcomes of rows that succeeded."""
STORED_OUTCOMES = frozenset({Outcome.UPLOADED, Outcome.UNCHANGED})
"""The outcomes of an upload's rows whose file is in the store."""


class Reason(StrEnum):
    """Why a row did not succeed, if the errcode or the store's code alone does not show it."""

    BREAKER = "breaker"
    """Not attempted: earlier rows of the merchant or environment ended with this code."""
    NO_TOKEN = "no_token"  # noqa: S105  a reason, not a password
    MERCHANT_LEFT = "merchant_left"
    REFUSED = "refused"
    """The platform returned an errcode."""
    COMPONENT = "component"
    """In an environment of the platform's own, an errcode for the component token: the row's, or if it was not attempted
    that of earlier rows.
    """
    DEAD_TOKEN = "dead_token"  # noqa: S105  a reason, not a password
    """The token was refused, and the token source returned the same one again."""
    STORE_REFUSED = "store_refused"
    NO_ANSWER = "no_answer"
    """Timeout, reset, invalid response, or a gateway's error page, on every attempt."""
    BAD_LINK = "bad_link"
    """The link is not https, not on the store's host, or not for this path."""
    FILE_CHANGED = "file_changed"
    FILE_UNREADABLE = "file_unreadable"
    SOURCE_REDIRECT = "source_redirect"
    """The URL of the file leads to another address, which is not followed."""
    NO_CONFIRMATION = "no_confirmation"
    """On every attempt, the store's response neither confirmed nor refused the object: no ETag, a redirect."""
    ETAG_MISMATCH = "etag_mismatch"
    INVALID = "invalid"
    """Invalid input; the row's detail names the rule."""
    HALTED = "halted"
    """The environment's status in getenvinfo."""
    UNAVAILABLE = "unavailable"
    """Any other status than NORMAL; in the row's detail."""
    PROBE_LEFT = "probe_left"
    """An audit with `--write-probe` could not delete its file again."""
    NOT_ASKED = "not_asked"
    """A problem that affects every merchant stopped the audit first; it is in the row's detail."""
    UNVERIFIED = "unverified"
    """Succeeded, but the store's ETag is not an MD5, so the content was not compared."""
    ABSENT = "absent"
    DIFFERENT = "different"
    FOREIGN = "foreign"
    STALE = "stale"
    CONFLICT = "conflict"
    NOT_UNDOABLE = "not_undoable"
    EXISTS = "exists"
    """`--if-exists fail`: a file is already there."""
    BACKUP_FAILED = "backup_failed"
    """The stored file could not be saved, so it was not overwritten."""
    BACKUP_DAMAGED = "backup_damaged"
    """What an undo needs from the backup is missing or damaged; nothing was changed."""
    NO_CHECKSUM = "no_checksum"
    """No run of this ledger uploaded the file, so there is nothing to compare it with."""


class Owner(StrEnum):
    """The account that owns an environment; determines the interface and the token."""

    MERCHANT = "merchant"
    PLATFORM = "platform"


class FailOn(StrEnum):
    """Which failures make an audit end with exit code 1."""

    ANY = "any"
    NEW = "new"
    """Those that the previous audit did not have."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Merchant:
    """One line of the merchants file: a mini program in one of its environments."""

    appid: str
    name: str
    env: str
    default: bool = False
    """Whether the merchant's name alone means this environment."""
    owner: Owner = Owner.MERCHANT
    left: bool = False
    """Whether it revoked its authorization: its rows end as not_attempted."""
    columns: tuple[tuple[str, str], ...] = ()
    """Every (header, cell) of the line, unchanged, for `--where`."""


@dataclass(frozen=True, slots=True)
class Row:
    """A checked row of a path list."""

    line: int
    """The line number in the file; the first data row of a plain CSV is 2."""
    env: str
    path: str
    """The cloud path: the object's key."""
    appid: str
    merchant: str
    """The merchant's name."""
    file: str
    """The local file, relative to the root, with forward slashes; or a URL, its query masked."""
    cells: tuple[str, ...]
    """The input's cells, unchanged, in the order of its header."""
    size: int | None = None
    """Bytes of the file when planned; None if files were not checked, or a URL does not tell."""
    mtime_ns: int | None = None
    invalid: Text | None = None
    """With `on_bad="skip"`: the problem, with which the row ends as invalid."""
    content_type: str = ""
    """From the list, empty without one; in an upload run, the type that the object is stored with."""
    cache_control: str = ""
    """The object's Cache-Control; empty for none."""
    etag: str = ""
    """For a URL, its strong ETag when planned, with quotes; empty if it had none."""
    query: Secret | None = field(default=None, repr=False)
    """For a URL with a query, what follows the `?`. It may contain a signature: no ledger and no report has it."""


@dataclass(frozen=True, slots=True)
class Link:
    """An upload link: the response of getUploadTcbFileLink. It expires after about 15 minutes."""

    url: Secret
    token: Secret
    authorization: Secret
    file_id: str
    cos_file_id: Secret
    expires_at: int
    """Unix seconds: the end of q-sign-time."""
    starts_at: int = 0
    """Unix seconds: the start of q-sign-time. Both are by the target's clock; their difference holds for any."""

    def alive_for(self, now: float) -> float:
        """Return the lifetime of a new link in seconds, from its own times, so that a wrong local clock has no effect."""
        return self.expires_at - (self.starts_at or now)


@dataclass(frozen=True, slots=True)
class RowEnd:
    """How a row ended, as stored in the ledger. Contains no secret."""

    line: int
    outcome: Outcome
    reason: Reason | None = None
    detail: Detail | None = None
    """Specific to this row: the store's message, the broken rule."""
    errcode: int | None = None
    errmsg: str = ""
    rid: str = ""
    http_status: int | None = None
    store_code: str = ""
    attempts: int = 0
    """Calls made for this row, to the platform and the store."""
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
    """0 if it concerns the whole file."""
    column: str
    """The header as in the file; empty if no single column is concerned."""
    message: Text
    fix: Text
    value: str = ""
    """The invalid cell, shortened for display."""
    skippable: bool = True
    """False for problems of the file itself, which `--on-bad skip` cannot skip."""
    option: str = ""
    """The command-line option in `fix`; empty for none."""


@dataclass(frozen=True, slots=True)
class QuotaUsage:
    """How much of a quota is used."""

    used: int
    limit: int
    """0 if unknown."""


@lru_cache(maxsize=256)  # called for every link
def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine. Names other than localhost are not resolved."""
    if host == "localhost":
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class SourceFile:
    """What the server of a URL says about a file that can be uploaded."""

    size: int | None
    """Bytes; None if it does not say."""
    etag: str
    """Its strong ETag with quotes; empty without one."""


_SOURCE = re.compile(
    r"\W*[A-Za-z][A-Za-z0-9+.-]+\s*[:：]\s*[/\\]{2}|(?i:\W*(?:https?|cos|oss|s3)\s*[:：]\s*[/\\])|.*\?(?:\S*=|•••$)",
    re.DOTALL,
)
"""The beginning of a URL, also of a mistyped one, or anything with a query: it may hold a signature. A drive letter
(`C://a.png`) is none."""


def is_source(file: str) -> bool:
    """Return whether a row's file is a URL."""
    return _SOURCE.match(file) is not None


SIMULATOR: Final = "simulator"
"""The target of runs against the embedded simulator, on any port."""


def is_simulated(target: str) -> bool:
    """Return whether a run's target is a simulator on this machine, so that nothing reached WeChat."""
    from urllib.parse import urlsplit

    return target == SIMULATOR or is_loopback(urlsplit(target).hostname or "")


def target_label(target: str, base: str) -> str:
    """Return a target for display, with whether it is live: `LIVE https://…` or `SIMULATED http://…`.

    `base`: the embedded simulator's URL, or a placeholder for it.
    """
    url = base if target == SIMULATOR else target
    return f"{'SIMULATED' if is_simulated(target) else 'LIVE'} {url}"
