"""The reason why a row or a run ended: a code and its parameters in the ledger, a sentence when shown.

`MESSAGES` has the sentence of each code. A Detail is a Text and can be used like any message; the ledger keeps its code
and parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeGuard

from tcb_ops.i18n import Lang, Text, _, as_list


class DetailCode(StrEnum):
    """The codes kept in the ledger instead of sentences. Codes and parameter names never change their meaning."""

    TEXT = "text"
    """A sentence without a code: from before schema version 3, or from outside."""
    BOTH = "both"
    # why a run stopped
    INTERRUPTED = "interrupted"
    LOCK_LOST = "lock_lost"
    OUTAGE = "outage"
    PLATFORM = "platform"
    TOKEN_SOURCE = "token_source"  # noqa: S105  a code, not a secret
    CANARY = "canary"
    AUDIT_INTERRUPTED = "audit_interrupted"
    AUDIT_OUTAGE = "audit_outage"
    NO_TOKENS = "no_tokens"
    AUDIT_TOKEN_SOURCE = "audit_token_source"  # noqa: S105  a code, not a secret
    # how a row ended
    UNCHANGED_SINCE = "unchanged_since"
    ETAG_DIFFERS = "etag_differs"
    FILE_CHANGED = "file_changed"
    FILE_NOT_REGULAR = "file_not_regular"
    FILE_UNREADABLE = "file_unreadable"
    ENV_STATUS = "env_status"
    NOT_CHECKED = "not_checked"
    QUOTAS = "quotas"
    ALSO = "also"
    PROBE_LEFT = "probe_left"
    COMPONENT_TOKEN = "component_token"  # noqa: S105  a code, not a secret
    KEPT = "kept"
    BACKUP_ACCESS = "backup_access"
    BACKUP_DAMAGED = "backup_damaged"
    DOWNLOAD_STATUS = "download_status"
    FILE_LEFT_OUT = "file_left_out"
    NO_BACKUP = "no_backup"
    NOT_KNOWN_WHOSE = "not_known_whose"
    WRITTEN_SINCE = "written_since"
    NOT_UPLOADED_HERE = "not_uploaded_here"
    LISTING_REPEATS = "listing_repeats"
    # why there is no token
    TOKEN_TOO_LONG = "token_too_long"  # noqa: S105
    NO_ACCESS_TOKEN = "no_access_token"  # noqa: S105
    NO_EXPIRY = "no_expiry"
    TOO_MUCH = "too_much"
    NOT_STARTED = "not_started"
    PRINTED_TOO_MUCH = "printed_too_much"
    NO_OUTPUT = "no_output"
    ENDED_BY_SIGNAL = "ended_by_signal"
    EXIT_CODE = "exit_code"
    PRINTED = "printed"
    TOKEN_PROGRAM = "token_program"  # noqa: S105
    COMPONENT_SILENT = "component_silent"
    REFRESH_REFUSED = "refresh_refused"
    REFRESH_SILENT = "refresh_silent"
    NOT_AUTHORIZED = "not_authorized"
    AUTHORIZATION_OVER = "authorization_over"
    LIST_LACKS = "list_lacks"
    LIST_SHORT = "list_short"
    COMPONENT_REFUSED = "component_refused"
    LACKS_EXPIRY = "lacks_expiry"
    TOKEN_MISSING = "token_missing"  # noqa: S105
    NOT_A_FILE = "not_a_file"
    OVER_16_MB = "over_16_mb"
    NOT_UTF_8 = "not_utf_8"
    CANNOT_BE_READ = "cannot_be_read"
    LINE_NO_CSV = "line_no_csv"
    NO_COLUMN = "no_column"
    LINE_NO_APPID = "line_no_appid"
    APPID_TWICE = "appid_twice"
    LINE = "line"
    TOKEN_FILE = "token_file"  # noqa: S105
    TOKEN_EMPTY = "token_empty"  # noqa: S105
    TOKEN_LONG = "token_long"  # noqa: S105
    TOKEN_CHARACTERS = "token_characters"  # noqa: S105
    EXPIRES_AT = "expires_at"
    SERVICE_AWAY = "service_away"
    SERVICE_SILENT = "service_silent"
    SERVICE_CREDENTIALS = "service_credentials"
    ANSWERED_WITH = "answered_with"
    ANSWERED_404 = "answered_404"
    ANSWERED_REDIRECT = "answered_redirect"
    ANSWERED_STATUS = "answered_status"
    SERVICE_NO_TOKEN = "service_no_token"  # noqa: S105
    NO_RECORD = "no_record"
    TOKEN_RECORD = "token_record"  # noqa: S105
    TOKEN_LOCKED = "token_locked"  # noqa: S105
    NO_APPID = "no_appid"
    TOKEN_STORE = "token_store"  # noqa: S105
    SOURCE_SILENT = "source_silent"
    NO_COMPONENT = "no_component"
    # responses of the store
    STORE_MESSAGE = "store_message"
    STORE_REDIRECT = "store_redirect"
    STORE_ERROR = "store_error"
    STORE_WEB_PAGE = "store_web_page"
    STORE_NO_ETAG = "store_no_etag"
    STORE_STATUS = "store_status"
    STORE_TOO_EARLY = "store_too_early"
    # responses of the platform
    PLATFORM_STATUS = "platform_status"
    PLATFORM_NOT_JSON = "platform_not_json"
    PLATFORM_LACKS = "platform_lacks"
    PLATFORM_FILES = "platform_files"
    # a link that must not be used
    LINK_TOO_LONG = "link_too_long"
    LINK_SIGNATURE = "link_signature"
    LINK_PATH = "link_path"
    LINK_ENV = "link_env"
    LINK_ADDRESS = "link_address"
    LINK_NOT_HTTPS = "link_not_https"
    LINK_HOST = "link_host"
    # no usable response
    NO_CONNECTION = "no_connection"
    NO_SUCH_HOST = "no_such_host"
    SLOW_CONNECT = "slow_connect"
    NO_TLS = "no_tls"
    PROXY = "proxy"
    SILENT = "silent"
    BROKEN = "broken"
    NOT_HTTP = "not_http"
    TOO_LARGE = "too_large"
    BAD_ADDRESS = "bad_address"
    # what is wrong with a row of a list
    PATH_EMPTY = "path_empty"
    PATH_CONTROL = "path_control"
    VALUE_CONTROL = "value_control"
    PATH_LONG = "path_long"
    CELLS_BEYOND = "cells_beyond"
    APPID_ELSEWHERE = "appid_elsewhere"
    MERCHANT_ELSEWHERE = "merchant_elsewhere"
    FILE_LARGE = "file_large"
    PATH_BEGINS = "path_begins"
    PATH_MASKED = "path_masked"
    PATH_SLASHES = "path_slashes"
    PATH_DOTS = "path_dots"
    MEDIA_TYPE = "media_type"
    ENV_EMPTY = "env_empty"
    MERCHANT_EMPTY = "merchant_empty"
    ENV_UNKNOWN = "env_unknown"
    MERCHANT_UNKNOWN = "merchant_unknown"
    ENV_SHARED = "env_shared"
    ENVS_OF_MERCHANT = "envs_of_merchant"
    IS_FOLDER = "is_folder"
    IS_SPECIAL = "is_special"
    NO_PERMISSION = "no_permission"
    NO_FILE = "no_file"
    NOT_INSPECTED = "not_inspected"
    NOT_RELATIVE = "not_relative"
    OUTSIDE = "outside"
    CELL_NUMBER = "cell_number"
    CELL_DATE = "cell_date"
    CELL_BOOLEAN = "cell_boolean"
    CELL_ERROR = "cell_error"
    CELL_FORMULA = "cell_formula"
    CELL_NOT_COMPUTED = "cell_not_computed"
    CELL_MERGED = "cell_merged"
    DUPLICATE = "duplicate"
    # what is wrong with a URL that a file is sent from
    SOURCE_ADDRESS = "source_address"
    SOURCE_HOST = "source_host"
    SOURCE_MASKED = "source_masked"
    SOURCE_GONE = "source_gone"
    SOURCE_REFUSED = "source_refused"
    SOURCE_REDIRECT = "source_redirect"
    SOURCE_BUSY = "source_busy"
    SOURCE_ENCODED = "source_encoded"
    SOURCE_PACKAGE = "source_package"
    SOURCE_KEYS = "source_keys"
    SOURCE_UNSIGNED = "source_unsigned"


@dataclass(frozen=True, slots=True)
class Detail(Text):
    """A text that the ledger keeps as a code and its parameters; created by `detail`."""

    code: DetailCode
    params: Mapping[str, Any] = field(hash=False)
    """Texts and numbers by the names in the message; a Detail if a reason contains another."""

    def of(self, lang: Lang) -> str:
        """Return the sentence in one language."""
        if self.code is DetailCode.TEXT:
            return str(self.params[lang])
        return MESSAGES[self.code].format(**self.params).of(lang)

    def format(self, **values: object) -> Detail:
        """Return the Detail with further parameters."""
        return detail(self.code, **{**self.params, **values})

    __str__ = Text.__str__


def detail(code: DetailCode, /, **params: object) -> Detail:
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
        alike.setdefault(of_any_appid(text), {})[text] = text.params["appid"] if _has_appid(text) else None
    return [
        text.format(appid=as_list(dict.fromkeys(its.values()), 5)) if _has_appid(text) else text
        for text, its in alike.items()
    ]


def of_any_appid(text: Text) -> Text:
    """Return a text without its appid, for comparison."""
    return text.format(appid="") if _has_appid(text) else text


def _has_appid(text: Text) -> TypeGuard[Detail]:
    return isinstance(text, Detail) and "appid" in text.params


def stored(reason: Detail | None) -> str:
    """Return a Detail as the ledger keeps it: a JSON object with `code` and `params`, keys sorted; empty for None."""
    return "" if reason is None else _encode(_plain(reason))


def read_detail(value: str) -> Detail | None:
    """Return the Detail of a value from `stored`. Raises KeyError, TypeError or ValueError for a damaged value."""
    return _parsed(value) if value else None


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


_CODES = frozenset(DetailCode)
_DEEPEST = 50
"""Maximum nesting of reasons: as many as a row of a list can have problems."""


@lru_cache(maxsize=1024)  # most rows of a run share a few
def _parsed(value: str) -> Detail:
    try:
        found = json.loads(value)
        _encode(found).encode()  # refuses surrogates, which cannot be printed
    except RecursionError:
        raise ValueError(value) from None
    return _from_plain(found, _DEEPEST)


def _plain(reason: Detail) -> dict[str, Any]:
    params = {name: _plain(one) if isinstance(one, Detail) else one for name, one in reason.params.items()}
    return {"code": str(reason.code), "params": params}


def _from_plain(found: Any, deepest: int) -> Detail:
    """Return the Detail of parsed JSON; a code of a newer tcb-ops is shown unchanged, with its parameters."""
    code, params = found["code"], found["params"]
    known = deepest > 0 and type(code) is str and type(params) is dict
    if not known or not all(isinstance(one, str | int | float | dict) for one in params.values()):
        raise ValueError(found)
    inner = {
        name: _from_plain(one, deepest - 1) if isinstance(one, dict) else one for name, one in params.items()
    }
    if code not in _CODES:
        shown = f"{code} {_encode(params)}" if params else code
        return detail(DetailCode.TEXT, en=shown, zh=shown)
    reason = detail(DetailCode(code), **inner)
    for lang in Lang:
        reason.of(lang)  # raises if a parameter is missing
    return reason


MESSAGES: Mapping[DetailCode, Text] = {
    DetailCode.BOTH: _("{first}; {second}"),
    DetailCode.INTERRUPTED: _("interrupted; unfinished rows stay pending."),
    DetailCode.LOCK_LOST: _(
        "the ledger's database does not respond, so another process may take over the run: this process stops, and "
        "unfinished rows stay pending. Check the database and the network."
    ),
    DetailCode.OUTAGE: _(
        "{last} The run stops, because no host could be reached for {seconds:g} s; unfinished rows stay pending."
    ),
    DetailCode.PLATFORM: _("errcode {errcode} ({errmsg}) affects every merchant."),
    DetailCode.TOKEN_SOURCE: _(
        "{last} The token source has not responded for any merchant for {seconds:g} s, so the run stops; "
        "unfinished rows stay pending."
    ),
    DetailCode.NO_TOKENS: _("{last} The run stops; unfinished rows stay pending."),
    DetailCode.CANARY: _(
        "Rows of the first environments that did not succeed: {rows:,}. The run stops here."
    ),
    DetailCode.AUDIT_INTERRUPTED: _(
        "interrupted; what has not been checked yet is checked when the audit is resumed."
    ),
    DetailCode.AUDIT_OUTAGE: _(
        "{last} The audit was stopped, because no host could be reached for {seconds:g} s; the environments that it had "
        "not checked are unknown."
    ),
    DetailCode.AUDIT_TOKEN_SOURCE: _(
        "{last} The audit was stopped, because the token source has not responded for any merchant for {seconds:g} s; "
        "the environments that it had not checked are unknown."
    ),
    DetailCode.UNCHANGED_SINCE: _("Unchanged since run {run}, not re-checked."),
    DetailCode.ETAG_DIFFERS: _("The store has {etag}; {md5} was sent."),
    DetailCode.FILE_CHANGED: _(
        "{file} has changed since the run was planned; start a new run once it is final."
    ),
    DetailCode.FILE_NOT_REGULAR: _(
        "{file} is not a regular file (a folder, a device, a pipe): only files can be uploaded."
    ),
    DetailCode.FILE_UNREADABLE: _(
        "{file} cannot be read ({why}): check that it exists and that you may read it."
    ),
    DetailCode.ENV_STATUS: _("Its status is {status}."),
    DetailCode.NOT_CHECKED: _("Not checked: {checks}."),
    DetailCode.ALSO: _("It has further causes: {also}."),
    DetailCode.QUOTAS: _(
        "Used: link calls {links_used} of {links_limit}, storage {storage_used} of {storage_limit} MB, writes "
        "{writes_used} of {writes_limit}."
    ),
    DetailCode.PROBE_LEFT: _("It is still at {path}. {why}"),
    DetailCode.COMPONENT_TOKEN: _(
        "The component token of {appid} was refused with errcode {errcode} ({errmsg}), which affects every merchant."
    ),
    DetailCode.KEPT: _("A file is there already; it was kept (--if-exists skip)."),
    DetailCode.BACKUP_ACCESS: _("{file} cannot be written or read ({why})."),
    DetailCode.BACKUP_DAMAGED: _("{file} in the backup is missing or damaged."),
    DetailCode.NOT_KNOWN_WHOSE: _(
        "The upload got no answer for this file, and there is no backup: whether the file that is there is the upload's or "
        "somebody else's is not known."
    ),
    DetailCode.DOWNLOAD_STATUS: _("The store returned HTTP {status} for the download link."),
    DetailCode.FILE_LEFT_OUT: _("The platform's response does not mention this file; trying again may help."),
    DetailCode.WRITTEN_SINCE: _("Run {run} has uploaded to this path, or deleted its file, since."),
    DetailCode.NOT_UPLOADED_HERE: _("No run of this ledger uploaded the file that is there."),
    DetailCode.LISTING_REPEATS: _("the listing of the environment repeats itself"),
    DetailCode.NO_BACKUP: _("Run {run} had uploaded the earlier version, and there is no backup of it."),
    DetailCode.TOKEN_TOO_LONG: _("an access_token longer than {longest_token} characters"),
    DetailCode.NO_ACCESS_TOKEN: _("content without an access_token"),
    DetailCode.NO_EXPIRY: _("an invalid expiry time"),
    DetailCode.TOO_MUCH: _("more than 64 KB"),
    DetailCode.NOT_STARTED: _("cannot be started ({why})"),
    DetailCode.PRINTED_TOO_MUCH: _("printed more than 64 KB"),
    DetailCode.NO_OUTPUT: _("did not finish within {command_seconds:g} s"),
    DetailCode.ENDED_BY_SIGNAL: _("was ended by signal {value}"),
    DetailCode.EXIT_CODE: _("ended with exit code {code}"),
    DetailCode.PRINTED: _("printed {read}"),
    DetailCode.TOKEN_PROGRAM: _(
        "the token program {program} {reason} for {appid}: run it by hand to see why."
    ),
    DetailCode.COMPONENT_SILENT: _("api_component_token at {host} gave no usable response. {why}"),
    DetailCode.REFRESH_REFUSED: _("the token of {appid} cannot be refreshed: errcode {answer}."),
    DetailCode.REFRESH_SILENT: _(
        "the token of {appid} cannot be refreshed now: {interface} gave no usable response. {why}"
    ),
    DetailCode.NOT_AUTHORIZED: _(
        "{appid} needs a new authorization. api_get_authorizer_list has no refresh token for it."
    ),
    DetailCode.AUTHORIZATION_OVER: _(
        "{appid} needs a new authorization: its refresh token is refused and api_get_authorizer_list has no other."
    ),
    DetailCode.LIST_LACKS: _("It lacks list or total_count."),
    DetailCode.LACKS_EXPIRY: _("It lacks {name} or expires_in."),
    DetailCode.TOKEN_MISSING: _("{file} has no token for {appid}: it needs a line per appid."),
    DetailCode.NOT_A_FILE: _("cannot be read (not a regular file)"),
    DetailCode.OVER_16_MB: _("is larger than 16 MB"),
    DetailCode.NOT_UTF_8: _("is not UTF-8: save it as UTF-8"),
    DetailCode.CANNOT_BE_READ: _("cannot be read ({why})"),
    DetailCode.LINE_NO_CSV: _("line {line}: not valid CSV (an unclosed quotation mark?)"),
    DetailCode.NO_COLUMN: _("line 1: no column {names}"),
    DetailCode.LINE_NO_APPID: _("line {line}: the appid is empty"),
    DetailCode.APPID_TWICE: _("the appid appears twice"),
    DetailCode.LINE: _("line {line}: {read}"),
    DetailCode.TOKEN_FILE: _(
        "token file {file}: {why}. Its first line must be appid,access_token[,expires_at]."
    ),
    DetailCode.TOKEN_EMPTY: _("the access_token is empty"),
    DetailCode.TOKEN_LONG: _("the access_token is longer than {longest_token} characters"),
    DetailCode.TOKEN_CHARACTERS: _("the access_token contains characters that no token has"),
    DetailCode.EXPIRES_AT: _("expires_at is neither Unix seconds nor ISO 8601"),
    DetailCode.SERVICE_AWAY: _("the token server {host} cannot be reached. {why}"),
    DetailCode.SERVICE_SILENT: _("the token server {host} did not respond for {appid}. {why}"),
    DetailCode.SERVICE_CREDENTIALS: _(
        "the token server {host} rejected the credentials (HTTP {status}): check the environment variable that tokens.auth_env names, and tokens.auth_header."
    ),
    DetailCode.ANSWERED_WITH: _("returned {read}: it should be JSON with access_token and expires_in"),
    DetailCode.ANSWERED_404: _("does not know this merchant (HTTP 404): add it there"),
    DetailCode.ANSWERED_REDIRECT: _(
        "returned a redirect (HTTP {status}), which is not followed: set tokens.url to the final address"
    ),
    DetailCode.ANSWERED_STATUS: _("returned HTTP {status}: see its own log"),
    DetailCode.SERVICE_NO_TOKEN: _("no token for {appid}: the token server {host} {why}."),
    DetailCode.NO_RECORD: _("is not a token record"),
    DetailCode.TOKEN_RECORD: _("{file} {reason}: delete it, and the refresh token is looked up again."),
    DetailCode.TOKEN_LOCKED: _(
        "other processes have kept {appid}'s token locked for {longest_hold:g} s: the platform answers them slowly, or one of them hangs."
    ),
    DetailCode.NO_APPID: _("{appid} is not an appid: correct it in the merchants file."),
    DetailCode.TOKEN_STORE: _(
        "token store: {path}: {why}. Without it, tokens cannot be refreshed safely: check the disk and its "
        "permissions."
    ),
    DetailCode.SOURCE_SILENT: _("the token source did not respond for {appid} within {seconds:.0f} s."),
    DetailCode.NO_COMPONENT: _(
        "This environment is the platform's own (owner = platform) and is served with the component token: set tokens.component_appid in the settings."
    ),
    DetailCode.STORE_MESSAGE: _("The store's message: “{message}”"),
    DetailCode.STORE_REDIRECT: _("It returned HTTP {status}, a redirect, which is never followed."),
    DetailCode.STORE_ERROR: _("It returned HTTP {status} with an error that cannot be read."),
    DetailCode.STORE_WEB_PAGE: _("It returned HTTP {status} with a web page."),
    DetailCode.STORE_NO_ETAG: _("It returned HTTP {status} without an ETag."),
    DetailCode.STORE_STATUS: _("It returned HTTP {status}, which is not documented for an upload."),
    DetailCode.STORE_TOO_EARLY: _(
        "{host} reported success before it had received the whole file; trying again may help."
    ),
    DetailCode.PLATFORM_STATUS: _(
        "The platform returned HTTP {status} without an errcode: a gateway in between answered, or the API base is "
        "wrong."
    ),
    DetailCode.PLATFORM_NOT_JSON: _(
        "The platform returned HTTP {status} with something other than the expected JSON; trying again may help."
    ),
    DetailCode.PLATFORM_LACKS: _("The platform's response lacks {fields}; trying again may help."),
    DetailCode.PLATFORM_FILES: _(
        "The platform's response does not list every file in {field}; trying again may help."
    ),
    DetailCode.LINK_TOO_LONG: _(
        "A field of the link is longer than 16 KB, so nothing was sent: check any gateway in between."
    ),
    DetailCode.LINK_SIGNATURE: _(
        "The link's authorization has no q-sign-time of at most 7 days, so it is not a signature of COS."
    ),
    DetailCode.LINK_PATH: _(
        "The link at {host} is for a different path than the one requested, so nothing was sent to it."
    ),
    DetailCode.LINK_ENV: _(
        "The link at {host} is for another environment than {env}, so nothing was sent to it."
    ),
    DetailCode.LINK_ADDRESS: _("The link is not a plain https address, so nothing was sent to it."),
    DetailCode.LINK_NOT_HTTPS: _(
        "The link to {host} is not https on its usual port, so nothing was sent to it."
    ),
    DetailCode.LINK_HOST: _(
        "The link points to {host}, which is not a host of the store; if it is one, add it to store_hosts."
    ),
    DetailCode.NO_CONNECTION: _("No connection to {host}: check the address, the network and the firewall."),
    DetailCode.NO_SUCH_HOST: _("The host name of {host} cannot be resolved: check the address and the DNS."),
    DetailCode.SLOW_CONNECT: _(
        "{host} did not accept the connection in time: check the network and the firewall."
    ),
    DetailCode.NO_TLS: _(
        "No secure connection to {host}: its certificate or its TLS was not accepted. If a company proxy re-signs "
        "traffic, set SSL_CERT_FILE to its certificates."
    ),
    DetailCode.PROXY: _("The proxy did not connect to {host}: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY."),
    DetailCode.SILENT: _(
        "{host} did not accept the request or did not respond in time; trying again later may help."
    ),
    DetailCode.BROKEN: _(
        "The connection to {host} broke before the response was complete; trying again may help."
    ),
    DetailCode.NOT_HTTP: _(
        "{host} returned something that is not HTTP, or a response header that is too long: check the address."
    ),
    DetailCode.TOO_LARGE: _(
        "{host} returned more than 1 MiB, far more than any expected response: check the address."
    ),
    DetailCode.BAD_ADDRESS: _(
        "The address at {host} cannot be sent as it is (control characters, or not an http address)."
    ),
    DetailCode.PATH_EMPTY: _("the path is empty"),
    DetailCode.PATH_BEGINS: _("the path begins with {path}"),
    DetailCode.PATH_MASKED: _("the path contains •••: a report masked a token there"),
    DetailCode.PATH_SLASHES: _("the path contains //"),
    DetailCode.PATH_DOTS: _("the path has a {segment} segment"),
    DetailCode.MEDIA_TYPE: _("this is not a media type (type/subtype)"),
    DetailCode.ENV_EMPTY: _("the environment is empty"),
    DetailCode.MERCHANT_EMPTY: _("the merchant is empty"),
    DetailCode.ENV_UNKNOWN: _("the merchants file has no environment '{name}'"),
    DetailCode.MERCHANT_UNKNOWN: _("the merchants file has no name or appid '{name}'"),
    DetailCode.ENV_SHARED: _("several merchants share this environment: {listed}"),
    DetailCode.ENVS_OF_MERCHANT: _("this merchant has several environments: {listed}"),
    DetailCode.IS_FOLDER: _("{name} is a folder"),
    DetailCode.IS_SPECIAL: _("{name} is not a regular file but a pipe, socket or device"),
    DetailCode.NO_PERMISSION: _("{name} cannot be read: no permission"),
    DetailCode.NO_FILE: _("there is no file {name} below the root"),
    DetailCode.NOT_INSPECTED: _("{file} cannot be inspected ({why})"),
    DetailCode.NOT_RELATIVE: _("{file} is not relative to the root"),
    DetailCode.OUTSIDE: _("{file} is outside the root (links resolved)"),
    DetailCode.CELL_NUMBER: _("cell {ref} is a number ({value}), not text"),
    DetailCode.CELL_DATE: _("cell {ref} is a date or time ({value}), not text"),
    DetailCode.CELL_BOOLEAN: _("cell {ref} is a Boolean ({value}), not text"),
    DetailCode.CELL_ERROR: _("cell {ref} contains the error {value}"),
    DetailCode.CELL_FORMULA: _("cell {ref} contains a formula (it shows '{value}')"),
    DetailCode.CELL_NOT_COMPUTED: _("cell {ref} contains a formula whose value is not in the file"),
    DetailCode.CELL_MERGED: _("the cell is merged with {ref}, so it has no value of its own"),
    DetailCode.DUPLICATE: _("the same environment and path as in line {first}"),
    DetailCode.PATH_CONTROL: _("the path contains a control character ({character})"),
    DetailCode.VALUE_CONTROL: _("the value contains a control character ({character})"),
    DetailCode.PATH_LONG: _("the path is {bytes:,} bytes long in UTF-8; {most} are allowed"),
    DetailCode.CELLS_BEYOND: _("the row has {cells:,} cells, the header {width:,}; beyond it: {listed}"),
    DetailCode.APPID_ELSEWHERE: _("'{name}' is not a merchant of this environment; it belongs to {listed}"),
    DetailCode.MERCHANT_ELSEWHERE: _(
        "'{name}' is not a merchant of this row's environment; it belongs to {listed}"
    ),
    DetailCode.FILE_LARGE: _("{name} has {bytes:,} bytes; a form upload takes 5 GB ({most:,}) at most"),
    DetailCode.SOURCE_ADDRESS: _(
        "{url} is not an address that files are read from: https without a user name, spaces or #; or cos://, oss:// "
        "or s3:// with a bucket and a key"
    ),
    DetailCode.SOURCE_PACKAGE: _("{scheme}:// needs the package opendal"),
    DetailCode.SOURCE_UNSIGNED: _("no signed URL can be made for {url}"),
    DetailCode.SOURCE_KEYS: _("{scheme}:// needs environment variables that are not set: {names}"),
    DetailCode.SOURCE_HOST: _("{host} is not one of the source_hosts, so nothing was requested from it"),
    DetailCode.SOURCE_MASKED: _("the query of {url} is masked, as in every report"),
    DetailCode.SOURCE_GONE: _("there is no file at {url} (HTTP {status})"),
    DetailCode.SOURCE_REFUSED: _("{url} cannot be read (HTTP {status})"),
    DetailCode.SOURCE_REDIRECT: _(
        "{url} redirects to another address (HTTP {status}), which is not followed"
    ),
    DetailCode.SOURCE_BUSY: _("{url} returned HTTP {status}; trying again later may help"),
    DetailCode.SOURCE_ENCODED: _(
        "{url} is sent with Content-Encoding, so these are not the file's own bytes"
    ),
    DetailCode.LIST_SHORT: _("It listed {seen:,} of {total:,} merchants."),
    DetailCode.COMPONENT_REFUSED: _(
        "{interface} returned errcode {errcode} ({errmsg}), which affects every merchant."
    ),
}
"""The sentence of each code; placeholders are the names of the parameters. `text` has its own two sentences."""
