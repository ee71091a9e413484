"""The reason why a row or a run ended: a code and its parameters in the ledger, a sentence when shown.

`DetailCodes` have the codes and their sentences. A Detail is a Text and can be used like any message; the ledger keeps its
code and parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, unique
from functools import lru_cache
from typing import Any, TypeGuard

import msgspec

from tcb_ops.i18n import NOTHING, Bilingual, Lang, Text, _, as_list


class DetailCodes(Enum):
    """Codes kept in the ledger instead of sentences: the names, in lower case. Each has its sentence.

    The core and each feature has its own; all are registered by their names. Neither a name nor the placeholders, which
    are the names of the parameters, ever change their meaning.
    """

    def __init_subclass__(cls) -> None:
        _CODES.update({str(code): code for code in cls})

    def __str__(self) -> str:
        """Return the code as the ledger keeps it."""
        return self.name.lower()


_CODES: dict[str, DetailCodes] = {}


@unique
class DetailCode(DetailCodes):
    """The core's codes."""

    TEXT = NOTHING
    """Sentences of its own, in both languages, without a code: from outside."""
    BOTH = _("{first}; {second}")
    # why a run stopped
    INTERRUPTED = _("Interrupted; unfinished rows stay pending.")
    LOCK_LOST = _(
        "The ledger's database does not respond, so another process may take over the run: this process stops, and "
        "unfinished rows stay pending. Check the database and the network."
    )
    NOT_LISTENING = _(
        "Nothing listens on {address}: {tcb-ops simulate:start `tcb-ops simulate --port {port}`, or }choose another "
        "target{tcb-ops simulate:, such as `simulator`, the embedded one}."
    )
    OUTAGE = _("{last} The run stops, because no host could be reached for {seconds:g} s.")
    PLATFORM = _("Errcode {errcode} ({errmsg}) affects every merchant.")
    TOKEN_SOURCE = _(
        "{last} The run stops, because the token source has not responded for any merchant for {seconds:g} s."
    )
    CANARY = _("Rows of the first environments that did not succeed: {rows:,}. The run stops here.")
    NO_TOKENS = _("{last} The run stops; unfinished rows stay pending.")
    # how a row ended
    UNCHANGED_SINCE = _("Unchanged since run {run}, not re-checked.")
    ETAG_DIFFERS = _("The store has {etag}; {md5} was sent.")
    FILE_CHANGED = _("{file} has changed since the run was planned; start a new run once it is final.")
    FILE_NOT_REGULAR = _(
        "{file} is not a regular file (a folder, a device, a pipe): only files can be uploaded."
    )
    FILE_UNREADABLE = _("{file} cannot be read ({why}): check that it exists and that you may read it.")
    # why there is no token
    TOKEN_MISSING = _("{file} has no token for {appid}: it needs a line per appid.")
    CANNOT_BE_READ = _("cannot be read ({why})")
    TOKEN_FILE = _("Token file {file}: {why}. Its first line must be appid,access_token[,expires_at].")
    SOURCE_SILENT = _("The token source did not respond for {appid} within {seconds:.0f} s.")
    NO_COMPONENT = _(
        "This environment is the platform's own (owner = platform) and is served with the component token: set tokens.component_appid in the settings."
    )
    # programs that the settings name
    NOT_STARTED = _("cannot be started ({why})")
    PRINTED_TOO_MUCH = _("printed more than 64 KB")
    NO_OUTPUT = _("did not finish within {command_seconds:g} s")
    ENDED_BY_SIGNAL = _("was ended by signal {value}")
    EXIT_CODE = _("ended with exit code {code}")
    # responses of the store
    STORE_MESSAGE = _("The store's message: “{message}”")
    NO_ETAG = _(
        "It returned HTTP {status} without what confirms an upload: one of 200, 201 and 204 with the file's MD5 as ETag, or "
        "with an ETag of another form of COS, its x-cos-request-id, and no text of another server."
    )
    STORE_TOO_EARLY = _(
        "{host} reported success before it had received the whole file; trying again may help."
    )
    # responses of the platform
    PLATFORM_STATUS = _(
        "The platform returned HTTP {status} without an errcode: a gateway in between answered, or the API base is "
        "wrong."
    )
    PLATFORM_NOT_JSON = _(
        "The platform returned HTTP {status} with something other than the expected JSON; trying again may help."
    )
    PLATFORM_LACKS = _("The platform's response lacks {fields}; trying again may help.")
    # a link that must not be used
    LINK_TOO_LONG = _(
        "A field of the link is longer than 16 KB, so nothing was sent: check any gateway in between."
    )
    LINK_SIGNATURE = _(
        "The link's authorization has no q-sign-time of at most 7 days, so it is not a signature of COS."
    )
    LINK_PATH = _(
        "The link at {host} is for a different path than the one requested, so nothing was sent to it."
    )
    LINK_ENV = _("The link at {host} is for another environment than {env}, so nothing was sent to it.")
    LINK_ADDRESS = _("The link is not a plain https address, so nothing was sent to it.")
    LINK_NOT_HTTPS = _("The link to {host} is not https on its usual port, so nothing was sent to it.")
    LINK_HOST = _(
        "The link points to {host}, which is not a host of the store; if it is one, add it to store_hosts."
    )
    LINK_GATEWAY = _(
        "The link points to {host}, the storage API of CloudBase and not COS, so nothing was sent to it: the environment "
        "is in PG mode."
    )
    # no usable response
    NO_CONNECTION = _("No connection to {host}: check the address, the network and the firewall.")
    NO_SUCH_HOST = _("The host name of {host} cannot be resolved: check the address and the DNS.")
    SLOW_CONNECT = _("{host} did not accept the connection in time: check the network and the firewall.")
    NO_TLS = _(
        "No secure connection to {host}: its certificate or its TLS was not accepted. If a company proxy re-signs "
        "traffic, set SSL_CERT_FILE to its certificates."
    )
    PROXY = _("The proxy did not connect to {host}: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.")
    SILENT = _("{host} did not accept the request or did not respond in time; trying again later may help.")
    BROKEN = _("The connection to {host} broke before the response was complete; trying again may help.")
    NOT_HTTP = _(
        "{host} returned something that is not HTTP, or a response header that is too long: check the address."
    )
    TOO_LARGE = _("{host} returned more than 1 MiB, far more than any expected response: check the address.")
    BAD_ADDRESS = _(
        "The address at {host} cannot be sent as it is (control characters, or not an http address)."
    )
    # what is wrong with a row of a list
    PATH_EMPTY = _("the path is empty")
    PATH_CONTROL = _("the path contains a control character ({character})")
    VALUE_CONTROL = _("the value contains a control character ({character})")
    PATH_LONG = _("the path is {bytes:,} bytes long in UTF-8; {most} are allowed")
    CELLS_BEYOND = _("the row has {cells:,} cells, the header {width:,}; beyond it: {listed}")
    APPID_ELSEWHERE = _("'{name}' is not a merchant of this environment; it belongs to {listed}")
    MERCHANT_ELSEWHERE = _("'{name}' is not a merchant of this row's environment; it belongs to {listed}")
    FILE_LARGE = _("{name} has {bytes:,} bytes; a form upload takes 5 GB ({most:,}) at most")
    PATH_BEGINS = _("the path begins with {path}")
    PATH_MASKED = _("the path contains •••: a report masked a token there")
    PATH_SLASHES = _("the path contains //")
    PATH_ENDS = _("the path ends with /, as a folder's does")
    PATH_DOTS = _("the path has a {segment} segment")
    MEDIA_TYPE = _("this is not a media type (type/subtype)")
    ENV_EMPTY = _("the environment is empty")
    ENV_UNKNOWN = _("the merchants file has no environment '{name}'")
    MERCHANT_UNKNOWN = _("the merchants file has no name or appid '{name}'")
    ENV_SHARED = _("several merchants share this environment: {listed}")
    ENVS_OF_MERCHANT = _("this merchant has several environments: {listed}")
    IS_FOLDER = _("{name} is a folder")
    IS_SPECIAL = _("{name} is not a regular file but a pipe, socket or device")
    NO_PERMISSION = _("{name} cannot be read: no permission")
    NO_FILE = _("there is no file {name} in the folder of local files")
    NOT_INSPECTED = _("{file} cannot be inspected ({why})")
    NOT_RELATIVE = _("{file} is not relative to the folder of local files")
    OUTSIDE = _("{file} is outside the folder of local files (links resolved)")
    DUPLICATE = _("the same environment and path as in line {first}")
    # what is wrong with a URL that a file is sent from
    SOURCE_STORE = _("{url} is an object of a store, which tcb-ops cannot ask for it")
    SOURCE_HOST = _("{host} is not one of the source_hosts, so nothing was requested from it")


@dataclass(frozen=True, slots=True, repr=False)
class Detail(Text):
    """A text that the ledger keeps as a code and its parameters; created by `detail`."""

    code: DetailCodes
    params: Mapping[str, Any]
    """Texts and numbers by the names in the message; a Detail if a reason contains another."""

    def __hash__(self) -> int:
        # With the parameters: a fleet has one sentence about each of its merchants, which a set must tell apart.
        return hash((self.code, frozenset(self.params.items())))

    def of(self, lang: Lang) -> str:
        """Return the sentence in one language."""
        if self.code is DetailCode.TEXT:
            return Bilingual(self.params[Lang.EN], self.params[Lang.ZH]).of(lang)
        sentence: Text = self.code.value
        return sentence.format(**self.params).of(lang)

    def format(self, **values: object) -> Detail:
        """Return the Detail with further parameters."""
        return detail(self.code, **{**self.params, **values})


def detail(code: DetailCodes, /, **params: object) -> Detail:
    """Return the Detail of a code with its message's parameters: numbers, texts, paths."""
    return Detail(code, {name: _kept(value) for name, value in params.items()})


def _kept(value: object) -> object:
    if isinstance(value, Text):
        return as_detail(value)
    return value if isinstance(value, int | float) else str(value)


def as_detail(text: Text) -> Detail:
    """Return a text as a Detail; without a code it is kept in both languages."""
    return text if isinstance(text, Detail) else detail(DetailCode.TEXT, en=text.en, zh=text.zh)


def merged(texts: Iterable[Text]) -> list[Text]:
    """Return each text once; those that differ only in their appid are merged into one with up to five appids."""
    alike: dict[Text, dict[Text, object]] = {}
    for text in texts:
        of_any_appid = text.format(appid="") if _has_appid(text) else text
        alike.setdefault(of_any_appid, {})[text] = text.params["appid"] if _has_appid(text) else None
    return [
        text.format(appid=as_list(dict.fromkeys(its.values()), 5)) if _has_appid(text) else text
        for text, its in alike.items()
    ]


def _has_appid(text: Text) -> TypeGuard[Detail]:
    return isinstance(text, Detail) and "appid" in text.params


def stored(reason: Detail | None) -> str:
    """Return a Detail as the ledger keeps it: a JSON object with `code` and `params`, keys sorted; empty for None."""
    return "" if reason is None else _encode(_plain(reason))


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


class _Stored(msgspec.Struct):
    code: str
    params: dict[str, str | int | float | _Stored]


@lru_cache(maxsize=1024)  # most rows of a run share a few
def read_detail(value: str) -> Detail | None:
    """Return the Detail of a value from `stored`. Raises KeyError, RecursionError, TypeError or ValueError for a damaged one."""
    return _from_stored(msgspec.json.decode(value, type=_Stored)) if value else None


def _plain(reason: Detail) -> dict[str, Any]:
    params = {
        name: _plain(value) if isinstance(value, Detail) else value for name, value in reason.params.items()
    }
    return {"code": str(reason.code), "params": params}


def _from_stored(record: _Stored) -> Detail:
    """Return the Detail; a code of a newer tcb-ops is shown unchanged, with its parameters."""
    if record.code not in _CODES:
        text = (
            f"{record.code} {msgspec.json.encode(record.params).decode()}" if record.params else record.code
        )
        return detail(DetailCode.TEXT, en=text, zh=text)
    inner = {name: _from_stored(v) if isinstance(v, _Stored) else v for name, v in record.params.items()}
    reason = detail(_CODES[record.code], **inner)
    for lang in Lang:
        reason.of(lang)  # raises if a parameter is missing
    return reason
