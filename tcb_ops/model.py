"""The values passed between stages: list → Row → (ledger: pending) → Link → RowEnd → ledger → report.

All are frozen: a stage reads the values of the one before and creates its own. Sizes are bytes, times are Unix seconds
(UTC), unless noted otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum, StrEnum, auto
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias

from tcb_ops.details import Detail
from tcb_ops.i18n import Text, _, pgettext, verbatim


def file_problem(
    message: Text, fix: Text, *, line: int = 0, column: str = "", value: str = "", answer: str = ""
) -> Problem:
    """Return a problem of the file itself, which `--on-bad skip` cannot skip."""
    return Problem(line, column, message, fix, value, skippable=False, answer=answer)


OnBad: TypeAlias = Literal["refuse", "skip"]
"""What a list's problems lead to: it is refused, or the rows with problems are skipped."""
Rows: TypeAlias = Literal["all", "visible"]
"""The rows of a worksheet that are meant, where some are hidden."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of a list, or of the merchants, a run is about; without options, all of it."""

    options: tuple[tuple[str, str], ...] = ()
    """Names of options with their values, `("where", "region=华东")`."""

    @classmethod
    def of(cls, *options: tuple[str, object]) -> Self:
        """Return the selection by some options; those without a value are left out."""
        return cls(tuple((name, str(value)) for name, value in options if value))

    @classmethod
    def read(cls, pairs: Iterable[tuple[str, str]]) -> Self:
        """Return a selection as a ledger keeps it."""
        return cls.of(*pairs)

    @classmethod
    def of_list(
        cls,
        where: Iterable[str],
        columns: Iterable[str] = (),
        maps: Iterable[str] = (),
        **how: object,
    ) -> Self:
        """Return the selection of a list: of which merchants, and how it is read, by the names of the command line's options."""
        return cls.of(
            *(("column", item) for item in sorted(columns)),
            *(("map", item) for item in sorted(maps)),
            *(("where", item) for item in sorted(where)),
            *((name.replace("_", "-"), value) for name, value in how.items()),
        )

    def __add__(self, other: Selection) -> Selection:
        return Selection(self.options + other.options)

    def words(self, *only: str) -> list[str]:
        """Return the options as words of a command, or `only` those of these names."""
        chosen = (pair for pair in self.options if not only or pair[0] in only)
        return [word for name, value in chosen for word in (f"--{name}", value)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What a run keeps of the settings and options that it was started with. Manifests have it: it contains no secrets.

    A kind of run with options of its own adds them in a class of its own (`Kind.settings`). None: it has no such setting.
    """

    selection: tuple[tuple[str, str], ...] = ()
    """`Selection.options`."""
    etag: str | None = None
    tokens: str | None = None
    """The source of tokens."""
    timezone: str | None = None
    listener: str = ""
    """What listened at its target, as in `Listener`; empty where that was not asked."""
    attempts: int | None = None
    backoff: float | None = None
    slow_wait: float | None = None
    patience: float | None = None
    concurrency: int | None = None
    per_env: int | None = None
    rate: float | None = None
    skip_unchanged: bool = False
    canary: int = 0
    cluster: str | None = None
    signed: str | None = None
    """Of a run whose URLs have queries, which are not kept: the path of its list, empty if it was no file."""
    corrects: str | None = None
    """The id of the run whose rows it corrects."""
    backup: str | None = None
    """The folder in which what it overwrites is saved, or of one about an upload, what that has overwritten."""
    of: tuple[str, ...] = ()
    """The ids of the upload that it is about, and of its retries."""
    undoes: str | None = None
    """The id of the upload that it undoes."""

    def facts(self) -> dict[str, Any]:
        """Return what it has, by name."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), "")}


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


class Term(str):  # noqa: SLOT000  terms have attributes, and there are few
    """A word of an open vocabulary that the ledger stores: the core has its own, and a feature registers more.

    Terms of one name are one object, so they can be compared with `is`. A term of a feature that is not installed has its
    name and no more.
    """

    _terms: ClassVar[dict[str, Self]]

    def __init_subclass__(cls) -> None:
        cls._terms = {}

    def __new__(cls, name: str) -> Self:
        """Return the term of a name."""
        term = cls._terms.get(name)
        return str.__new__(cls, name) if term is None else term

    @classmethod
    def register(cls, name: str) -> Self:
        """Add a term to the vocabulary."""
        return cls._terms.setdefault(name, cls(name))

    @classmethod
    def all(cls) -> list[Self]:
        """Return the terms in the order of their registration; outcomes in that of tables and legends."""
        return list(cls._terms.values())

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (str.__str__(self),)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


class Outcome(Term):
    """How a row ended. PENDING rows have not ended yet."""

    label: Text
    """Its name on screens."""
    succeeded: bool = False
    retried: bool = False
    """Whether a retry runs such rows again."""
    stored: bool = False
    """Whether it is certain which bytes are at the row's path."""
    taken_back: bool = False
    """Whether a later run has taken back what the row is about."""
    order: int = 999
    """Its place in tables and legends."""

    LINKED: ClassVar[Outcome]
    UPLOADED: ClassVar[Outcome]
    UNCHANGED: ClassVar[Outcome]
    REFUSED: ClassVar[Outcome]
    """The platform returned an errcode."""
    FAILED: ClassVar[Outcome]
    """No usable response, a refusal by the store, or a file that changed after the plan."""
    NOT_ATTEMPTED: ClassVar[Outcome]
    INVALID: ClassVar[Outcome]
    """Skipped as invalid input."""
    PENDING: ClassVar[Outcome]
    UNKNOWN: ClassVar[Outcome]

    def __new__(cls, name: str) -> Self:
        """Return the outcome of a name."""
        outcome = super().__new__(cls, name)
        if outcome not in cls._terms:
            outcome.label = verbatim(name)
        return outcome

    @classmethod
    def define(cls, name: str, label: Text, order: int, **flags: bool) -> Outcome:
        """Add an outcome to the vocabulary; `flags`: what it is besides, such as `succeeded`."""
        outcome = cls.register(name)
        vars(outcome).update(flags, label=label, order=order)
        return outcome

    @classmethod
    def all(cls) -> list[Self]:
        """Return the outcomes in the order of tables and legends."""
        return sorted(cls._terms.values(), key=lambda outcome: outcome.order)

    @staticmethod
    def in_order(counts: Mapping[Outcome, int]) -> dict[Outcome, int]:
        """Return counts without zeros, in the order of tables and legends."""
        ordered = sorted(counts.items(), key=lambda count: count[0].order)
        return {outcome: rows for outcome, rows in ordered if rows}

    @classmethod
    def successes(cls) -> frozenset[Outcome]:
        """Return the outcomes of rows that succeeded."""
        return frozenset(outcome for outcome in cls._terms.values() if outcome.succeeded)

    @classmethod
    def retriable(cls) -> frozenset[Outcome]:
        """Return the outcomes of rows that a retry runs again."""
        return frozenset(outcome for outcome in cls._terms.values() if outcome.retried)


Outcome.LINKED = Outcome.define("linked", _("linked"), 0, succeeded=True)
Outcome.UPLOADED = Outcome.define("uploaded", _("uploaded"), 1, succeeded=True, stored=True)
Outcome.UNCHANGED = Outcome.define("unchanged", _("unchanged"), 2, succeeded=True, stored=True)
Outcome.REFUSED = Outcome.define("refused", _("refused"), 20, retried=True)
Outcome.FAILED = Outcome.define("failed", _("failed"), 21, retried=True)
Outcome.NOT_ATTEMPTED = Outcome.define("not_attempted", _("not attempted"), 22, retried=True)
Outcome.INVALID = Outcome.define("invalid", _("invalid"), 80)
Outcome.PENDING = Outcome.define("pending", _("pending"), 90)
Outcome.UNKNOWN = Outcome.define("unknown", pgettext("outcome", "unknown"), 24, retried=True)
STORED_OUTCOMES = frozenset({Outcome.UPLOADED, Outcome.UNCHANGED})
"""The outcomes of an upload's rows whose file is in the store."""


class Reason(Term):
    """Why a row did not succeed, if the errcode or the store's code alone does not show it."""

    explained: bool = False
    """Whether the row's detail says what the operator has to know."""
    of_environment: bool = False
    """Whether it is put right once for each environment."""

    BREAKER: ClassVar[Reason]
    """Not attempted: earlier rows of the merchant or environment ended with this code."""
    NO_TOKEN: ClassVar[Reason]
    MERCHANT_LEFT: ClassVar[Reason]
    REFUSED: ClassVar[Reason]
    """The platform returned an errcode."""
    COMPONENT: ClassVar[Reason]
    """In an environment of the platform's own, an errcode for the component token: the row's, or if it was not attempted
    that of earlier rows.
    """
    DEAD_TOKEN: ClassVar[Reason]
    """The token was refused, and the token source returned the same one again."""
    STORE_REFUSED: ClassVar[Reason]
    NO_ANSWER: ClassVar[Reason]
    """Timeout, reset, invalid response, or a gateway's error page, on every attempt."""
    BAD_LINK: ClassVar[Reason]
    """The link is not https, not on the store's host, or not for this path."""
    PG_MODE: ClassVar[Reason]
    """The link leads to CloudBase's gateway: files of environments in PG mode go through a storage API, not to COS."""
    FILE_CHANGED: ClassVar[Reason]
    FILE_UNREADABLE: ClassVar[Reason]
    SOURCE_REDIRECT: ClassVar[Reason]
    """The URL of the file leads to another address, which is not followed."""
    NO_CONFIRMATION: ClassVar[Reason]
    """On every attempt, the store's response neither confirmed nor refused the object: no ETag, a redirect."""
    ETAG_MISMATCH: ClassVar[Reason]
    INVALID: ClassVar[Reason]
    """Invalid input; the row's detail names the rule."""
    UNVERIFIED: ClassVar[Reason]
    """Succeeded, but the store's ETag is not an MD5, so the content was not compared."""

    @classmethod
    def define(cls, name: str, **flags: bool) -> Reason:
        """Add a reason to the vocabulary; `flags`: what it is, such as `explained`."""
        reason = cls.register(name)
        vars(reason).update(flags)
        return reason


for _name in Reason.__annotations__:
    if _name.isupper():
        setattr(Reason, _name, Reason.register(_name.lower()))
Reason.define("no_token", explained=True)


class Owner(StrEnum):
    """The account that owns an environment; determines the interface and the token."""

    MERCHANT = "merchant"
    PLATFORM = "platform"


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
    line: int = field(default=0, compare=False)
    """The line number in the file; 0 if it is of none."""


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
    origin: str = ""
    """Of a fix-me file, the SHA-256 of the list that has the row; of a failed.csv, when the row ended; not in the ledger."""
    of_line: int = 0
    """Its line in the list; 0 for a row of any other file."""


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


class Want(Enum):
    """What a run wants at a row's path."""

    FILE = auto()
    """The row's file."""
    NOTHING = auto()
    AS_IT_IS = auto()
    """What is there stays."""
    NOT_KNOWN = auto()
    """The store's answer decides."""


class Step(StrEnum):
    """What a run will do at a row's path, as far as the ledger knows."""

    NEW = "new"
    REPLACED = "replaced"
    DELETED = "deleted"
    UNCHANGED = "unchanged"
    NOT_KNOWN = "not_known"
    """The store will be asked."""

    @property
    def changes(self) -> bool:
        """Whether what is at the path changes for certain."""
        return self in {Step.NEW, Step.REPLACED, Step.DELETED}


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
    answer: str = ""
    """The parameter of `read_paths` that is missing; empty if it is another problem."""


PLATFORM = "https://api.weixin.qq.com"


_OWN_DOMAINS = {"internal", "invalid", "lan", "local", "localhost", "test"}
"""They are never public."""


def is_foreign(target: str) -> bool:
    """Return whether a target is a public host that is not the platform's.

    ================================  ========
    target                            result
    ================================  ========
    https://api.weixin.qq.com         no
    https://api2.weixin.qq.com        no
    https://api.weixin.qq.cm          yes
    https://8.8.8.8                   yes
    https://10.0.0.7, a loopback      no
    https://proxy, https://wx.lan     no
    ================================  ========
    """
    import ipaddress
    from urllib.parse import urlsplit

    host = urlsplit(target).hostname or ""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return (
            "." in host
            and host.rpartition(".")[2] not in _OWN_DOMAINS
            and not host.endswith(".weixin.qq.com")  # its other names: api2, sh.api, sz.api, hk.api
        )


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
    may_be = ":" in file or "?" in file or "：" in file  # asked of every row
    return may_be and _SOURCE.match(file) is not None


def in_object_store(file: str) -> bool:
    """Return whether a URL names an object by its store's own scheme; such a URL is not read."""
    return file.lower().startswith(("cos://", "oss://", "s3://"))


SIMULATOR: Final = "simulator"
"""The target of runs against the embedded simulator, on any port."""


def target_name(target: str) -> Text:
    """Return what sentences call a target as it is stored with runs: the simulator, or its API base."""
    return _("the simulator") if target == SIMULATOR else verbatim(target)


class Listener(StrEnum):
    """What listens at an http address, as the handshake found."""

    SIMULATOR = "simulator"
    OTHER = "other"
    NOTHING = "nothing"
    """The connection was refused."""
