"""Why a row or a run ended so: a code and its parameters in the ledger, a sentence when it is shown.

`MESSAGES` has the sentence of each code. Whoever finds out why makes a Detail, which is a Text: it may stand wherever a
message does, and the ledger keeps its code and parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

from tcb_ops.i18n import Lang, Text, _


class DetailCode(StrEnum):
    """What the ledger keeps in place of a sentence. Codes and names of parameters never change their meaning."""

    TEXT = "text"
    """A sentence that has no code: of before schema version 3, or from outside."""
    BOTH = "both"
    # why a run stopped
    INTERRUPTED = "interrupted"
    LOCK_LOST = "lock_lost"
    OUTAGE = "outage"
    PLATFORM = "platform"
    TOKEN_SOURCE = "token_source"  # noqa: S105  a code, not a secret
    CANARY = "canary"
    # how a row ended
    UNCHANGED_SINCE = "unchanged_since"
    ETAG_DIFFERS = "etag_differs"
    FILE_CHANGED = "file_changed"
    FILE_NOT_REGULAR = "file_not_regular"
    FILE_UNREADABLE = "file_unreadable"
    # why there is no token
    TOKEN_MISSING = "token_missing"  # noqa: S105  a code, not a secret
    # what the store answered
    STORE_MESSAGE = "store_message"
    STORE_REDIRECT = "store_redirect"
    STORE_ERROR = "store_error"
    STORE_WEB_PAGE = "store_web_page"
    STORE_NO_ETAG = "store_no_etag"
    STORE_STATUS = "store_status"
    STORE_TOO_EARLY = "store_too_early"
    # what the platform answered
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
    # no usable answer
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


@dataclass(frozen=True, slots=True)
class Detail(Text):
    """A text that the ledger keeps as a code and its parameters. `detail` makes one."""

    code: DetailCode
    params: Mapping[str, Any] = field(hash=False)
    """Texts and numbers by the names in the message; a Detail where one reason holds another."""

    def of(self, lang: Lang) -> str:
        """Return the sentence in one language."""
        if self.code is DetailCode.TEXT:
            return str(self.params[lang])
        return MESSAGES[self.code].format(**self.params).of(lang)

    __str__ = Text.__str__


def detail(code: DetailCode, **params: str | float | Detail) -> Detail:
    """Make the Detail of a code with the parameters that its message names."""
    return Detail(code, params)


def as_detail(text: Text) -> Detail:
    """Return the Detail that a text is; one that has no code is kept as it stands, in both languages."""
    return text if isinstance(text, Detail) else detail(DetailCode.TEXT, en=text.en, zh=text.zh)


def without_appid(text: Text) -> Text:
    """Return the same about any merchant: `…` in place of the appid, where that is a parameter."""
    if isinstance(text, Detail) and "appid" in text.params:
        return detail(text.code, **{**text.params, "appid": "…"})
    return text


def stored(reason: Detail | None) -> str:
    """Return what the ledger keeps: a JSON object with `code` and `params`, its keys in order; empty for None."""
    return "" if reason is None else _encode(_plain(reason))


def read_detail(value: str) -> Detail | None:
    """Return what `stored` was given. Raises KeyError, TypeError or ValueError for a damaged value."""
    return _parsed(value) if value else None


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


@lru_cache(maxsize=1024)  # most rows of a run share a few
def _parsed(value: str) -> Detail:
    return _from_plain(json.loads(value))


def _plain(reason: Detail) -> dict[str, Any]:
    params = {name: _plain(one) if isinstance(one, Detail) else one for name, one in reason.params.items()}
    return {"code": str(reason.code), "params": params}


def _from_plain(found: Any) -> Detail:
    params = {
        name: _from_plain(one) if isinstance(one, dict) else one for name, one in found["params"].items()
    }
    reason = detail(DetailCode(found["code"]), **params)
    for lang in Lang:
        reason.of(lang)  # all its parameters are there
    return reason


MESSAGES: Mapping[DetailCode, Text] = {
    DetailCode.BOTH: _("{first}; {second}"),
    DetailCode.INTERRUPTED: _("interrupted; the rows not done are pending."),
    DetailCode.LOCK_LOST: _(
        "the ledger's database does not answer, so another process may take the run over: this one stops, and the rows "
        "not done are pending. Check the database and the network."
    ),
    DetailCode.OUTAGE: _(
        "{last} The run stops, because no host could be reached for {seconds:g} s; the rows not done are pending. Check "
        "the network."
    ),
    DetailCode.PLATFORM: _("errcode {errcode} ({errmsg}) stops every merchant."),
    DetailCode.TOKEN_SOURCE: _(
        "{last} No merchant got an answer from the token source for {seconds:g} s, so the run stops and the rows not done "
        "are pending."
    ),
    DetailCode.CANARY: _(
        "Rows of the first environments that did not succeed: {rows:,}. The run stops here."
    ),
    DetailCode.UNCHANGED_SINCE: _("Unchanged since run {run}, not re-checked."),
    DetailCode.ETAG_DIFFERS: _("The store holds {etag}, sent was {md5}."),
    DetailCode.FILE_CHANGED: _(
        "{file} has changed since the run was planned; start a new run when it is final."
    ),
    DetailCode.FILE_NOT_REGULAR: _(
        "{file} is not a regular file (a folder, a device, a pipe): only files can be uploaded."
    ),
    DetailCode.FILE_UNREADABLE: _("{file} cannot be read ({why}): check that it is there and may be read."),
    DetailCode.TOKEN_MISSING: _("{file} has no token for {appid}: add a line for it."),
    DetailCode.STORE_MESSAGE: _("The store's message: “{message}”"),
    DetailCode.STORE_REDIRECT: _("It answered HTTP {status}, a redirect, which is never followed."),
    DetailCode.STORE_ERROR: _("It answered HTTP {status} with an error that cannot be read."),
    DetailCode.STORE_WEB_PAGE: _("It answered HTTP {status} with a web page."),
    DetailCode.STORE_NO_ETAG: _("It answered HTTP {status} without an ETag."),
    DetailCode.STORE_STATUS: _("It answered HTTP {status}, which is not documented for an upload."),
    DetailCode.STORE_TOO_EARLY: _(
        "{host} reported success before it had the whole file; trying again may help."
    ),
    DetailCode.PLATFORM_STATUS: _(
        "The platform answered HTTP {status} without an errcode: a gateway in between, or a wrong API base."
    ),
    DetailCode.PLATFORM_NOT_JSON: _(
        "The platform answered HTTP {status} with something that is not its JSON; trying again may help."
    ),
    DetailCode.PLATFORM_LACKS: _("The platform's answer lacks {fields}; trying again may help."),
    DetailCode.PLATFORM_FILES: _(
        "The platform's answer does not name each file in {field}; trying again may help."
    ),
    DetailCode.LINK_TOO_LONG: _(
        "A field of the link is longer than 16 KB, so nothing was sent: check for a gateway in between."
    ),
    DetailCode.LINK_SIGNATURE: _(
        "The link's authorization has no q-sign-time of at most 7 days, so it is not COS's signature."
    ),
    DetailCode.LINK_PATH: _(
        "The link at {host} is for another path than the one asked for, so nothing was sent to it."
    ),
    DetailCode.LINK_ENV: _(
        "The link at {host} is for another environment than {env}, so nothing was sent to it."
    ),
    DetailCode.LINK_ADDRESS: _("The link is not a plain https address, so nothing was sent to it."),
    DetailCode.LINK_NOT_HTTPS: _(
        "The link to {host} is not https on its usual port, so nothing was sent to it."
    ),
    DetailCode.LINK_HOST: _(
        "The link leads to {host}, which is not a host of the store's; if it should be, add it to store_hosts."
    ),
    DetailCode.NO_CONNECTION: _("No connection to {host}: check the address, the network and the firewall."),
    DetailCode.NO_SUCH_HOST: _("The host name of {host} is not known: check the address and the DNS."),
    DetailCode.SLOW_CONNECT: _(
        "{host} did not take the connection in time: check the network and the firewall."
    ),
    DetailCode.NO_TLS: _(
        "No secure connection to {host}: its certificate or its TLS was not accepted. If a company proxy re-signs "
        "traffic, set SSL_CERT_FILE to its certificates."
    ),
    DetailCode.PROXY: _("The proxy did not connect to {host}: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY."),
    DetailCode.SILENT: _(
        "{host} did not take the request or did not answer in time; trying again later may help."
    ),
    DetailCode.BROKEN: _(
        "The connection to {host} broke before the whole answer was there; trying again may help."
    ),
    DetailCode.NOT_HTTP: _(
        "{host} answered with something that is not HTTP, or with a head that is too long: check the address."
    ),
    DetailCode.TOO_LARGE: _(
        "{host} answered with more than 1 MiB, which none of its answers needs: check the address."
    ),
    DetailCode.BAD_ADDRESS: _(
        "The address at {host} cannot be sent as it stands (control characters, or not an http address)."
    ),
}
"""The sentence of each code; placeholders are the names of the parameters. `text` has its own two."""
