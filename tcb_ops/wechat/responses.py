"""The platform's responses: a JSON object, an errcode, or an unusable response. Pure; `client` sends the requests.

Errors are HTTP 200 with an errcode and a rid; success bodies of `cgi-bin/component` have no errcode. Every field is
checked before use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from tcb_ops.details import DetailCode, as_detail, detail
from tcb_ops.i18n import Text
from tcb_ops.model import Link, Reason, Secret, is_loopback
from tcb_ops.secrets import LONGEST_TEXT, redact
from tcb_ops.wechat.tokens import read_object

STORE_HOSTS = (".myqcloud.com", ".tencentcos.cn")
"""COS's own domains: `cos.<region>.myqcloud.com`, and the newer `cos.<region>.tencentcos.cn`."""
GATEWAY = ".api.tcloudbasegateway.com"
"""The end of `<env>.api.tcloudbasegateway.com`, through which the files of environments in PG mode go instead
(docs.cloudbase.net/http-api/storage-overview).
"""

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
LONGEST_ERRMSG = 1000
_LONGEST_FIELD = 16 * 1024
"""Maximum characters of a link's field; the longest, an encoded URL, has about 3,000."""
_RID_WITHIN = 200
"""Characters at the end of an errmsg that are searched for the rid."""
_RID = re.compile(r"[0-9A-Za-z-]{1,64}")
_ERRCODE = re.compile(r"-?[0-9]{1,9}")

_LATEST = 253_402_214_400
"""9999-12-31 UTC: within the calendar in every time zone."""
_LONGEST_LIFE = 7 * 24 * 3600
"""Seconds; a real link is valid for 15 minutes."""
_ADDRESS = re.compile(r"(https?)://([0-9A-Za-z.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(/.*)", re.DOTALL)
_LIFE = re.compile(r"&q-sign-time=([0-9]{1,12});([0-9]{1,12})(?:&|$)")
_BUCKET = re.compile(r"/[0-9a-f]{4}-([^/]+)-[0-9]+/")
_FILE_ID = re.compile(r"cloud://([^./]+)\.([^/]+)/")


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A server's response of any status. Its repr omits headers and body, which may contain a link."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Looked up case-insensitively."""
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApiError:
    """A response with an errcode."""

    errcode: int
    errmsg: str
    """Without the rid and without secrets."""
    rid: str
    """For openapi/rid/get, valid for seven days; empty if the response had none."""
    http_status: int


@dataclass(frozen=True, slots=True)
class InvalidResponse:
    """A response with neither the requested object nor an errcode: a gateway's page, invalid JSON, missing fields."""

    http_status: int
    why: Text
    retryable: bool


@dataclass(frozen=True, slots=True)
class UnsafeLink:
    """A link that must not be used."""

    why: Text

    @property
    def reason(self) -> Reason:
        """The reason of a row that ends with it."""
        return Reason.PG_MODE if as_detail(self.why).code is DetailCode.LINK_GATEWAY else Reason.BAD_LINK


def read_response(
    response: HttpResponse, secrets: Iterable[Secret]
) -> dict[str, Any] | ApiError | InvalidResponse:
    """Return the JSON object of a response, or its error; `secrets` are removed from the errmsg.

    ======================  ======================  ===========================================
    body                    HTTP status             result
    ======================  ======================  ===========================================
    an errcode other than 0 any                     ApiError
    anything else           5xx, 408, 429           InvalidResponse, retryable
    anything else           other than 2xx          InvalidResponse
    not an object, or empty 2xx                     InvalidResponse, retryable
    an object               2xx                     the object
    ======================  ======================  ===========================================
    """
    status = response.status
    payload = read_object(response.body)
    errcode = _errcode(payload)
    if errcode:
        errmsg, rid = _errmsg(payload.get("errmsg"), secrets)
        return ApiError(errcode, errmsg, rid, status)
    if not 200 <= status < 300:
        problem = detail(DetailCode.PLATFORM_STATUS, status=status)
        return InvalidResponse(status, problem, retryable=status >= 500 or status in {408, 429})
    if errcode is None:
        problem = detail(DetailCode.PLATFORM_NOT_JSON, status=status)
        return InvalidResponse(status, problem, retryable=True)
    return payload


def _errcode(payload: dict[str, Any]) -> int | None:
    """Return the errcode: 0 if the object has none, None if it is invalid or the object is empty."""
    errcode = payload.get("errcode", 0)
    if errcode.__class__ is int and payload and abs(errcode) < 1_000_000_000:  # as a rule
        return int(errcode)
    if isinstance(errcode, float) and errcode.is_integer():
        errcode = int(errcode)
    if (
        isinstance(errcode, bool)
        or not isinstance(errcode, int | str)
        or not _ERRCODE.fullmatch(str(errcode))
    ):
        return None
    return int(errcode) if payload else None


def _errmsg(errmsg: object, secrets: Iterable[Secret]) -> tuple[str, str]:
    """Return the errmsg without rid and secrets, and the rid.

    Every step takes linear time, since the text may be long. Secrets are removed before the text is shortened, which
    could leave a part of one.
    """
    text = UNPRINTABLE.sub(" ", errmsg).strip() if isinstance(errmsg, str) else ""
    secrets = tuple(secrets)
    rid_at = text.rfind("rid:", -_RID_WITHIN)
    rid = text[rid_at + 4 :].strip()
    if rid_at < 0 or text[max(rid_at - 1, 0) : rid_at].isalnum() or not _RID.fullmatch(rid):
        rid = ""
    else:
        text = text[:rid_at].rstrip(" ,")
        rid = rid if redact(rid, secrets) == rid else ""
    return redact(text[:LONGEST_TEXT], secrets)[:LONGEST_ERRMSG], rid


def missing_field(fields: str, status: int = 200) -> InvalidResponse:
    """Return the result for a response with missing or invalid fields."""
    return InvalidResponse(status, detail(DetailCode.PLATFORM_LACKS, fields=fields), retryable=True)


def clock_offset(date: str, began_at: float, seconds: float) -> float | None:
    """Return the seconds that a server's clock is ahead of this machine's; None without a usable Date.

    A Date is cut to whole seconds, and was written about the middle of the exchange, which began at `began_at`.
    """
    from email.utils import parsedate_to_datetime

    with suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(date).timestamp() + 0.5 - (began_at + seconds / 2)
    return None


def objects_in(value: object) -> list[dict[str, Any]] | None:
    """Return the objects of a list; None for anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else None


def count_in(value: object) -> int | None:
    """Return an integer; None for anything else, booleans included."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53 else None


def text_in(value: object) -> str:
    """Return a text on one line, empty for anything else."""
    return UNPRINTABLE.sub(" ", value) if isinstance(value, str) else ""


# --- links ----------------------------------------------------------------------------------------------------------


_LINK_FIELDS = ("url", "token", "authorization", "cos_file_id")
"""Those that a link cannot be used without."""


def read_link(
    payload: dict[str, Any],
    response: HttpResponse,
    env: str,
    path: str,
    base: str,
    store_hosts: tuple[str, ...],
) -> Link | InvalidResponse | UnsafeLink:
    """Return the upload link in the object of a response, or why it is incomplete or must not be used."""
    get, body = payload.get, response.body
    # JSON has control characters only as escapes: to look for these in the whole body takes a fraction of the time.
    plain = body.isascii() and b"\\" not in body and b"\x7f" not in body
    fields = [_field(get(name), plain=plain) for name in _LINK_FIELDS]
    if not all(fields):
        missing = ", ".join(name for name, value in zip(_LINK_FIELDS, fields, strict=True) if not value)
        return missing_field(missing, response.status)
    url, token, authorization, cos_file_id = fields
    file_id = _field(get("file_id"), plain=plain)
    if len(body) > _LONGEST_FIELD and max(map(len, (*fields, file_id))) > _LONGEST_FIELD:
        return UnsafeLink(detail(DetailCode.LINK_TOO_LONG))
    unsafe = check_link(url, file_id, env, path, base, store_hosts)
    if unsafe is not None:
        return UnsafeLink(unsafe)
    life = _LIFE.search(f"&{authorization}")
    start, end = (int(life[1]), int(life[2])) if life is not None else (1, 0)
    if not start <= end <= min(start + _LONGEST_LIFE, _LATEST):
        return UnsafeLink(detail(DetailCode.LINK_SIGNATURE))
    return Link(
        url=Secret(url),
        token=Secret(token),
        authorization=Secret(authorization),
        file_id=file_id,
        cos_file_id=Secret(cos_file_id),
        expires_at=end,
        starts_at=start,
    )


def _field(value: object, *, plain: bool) -> str:
    if isinstance(value, str) and (plain or value.isprintable() or not UNPRINTABLE.search(value)):
        return value
    return ""


def check_link(
    link_url: str, file_id: str, env: str, path: str, base: str, store_hosts: tuple[str, ...]
) -> Text | None:
    """Return why a link must not be used; None if it is safe.

    ==============================================  =====================================
    the link                                        verdict
    ==============================================  =====================================
    not http or https, user info, an odd host       refused
    loopback host under a loopback base             host, scheme and port are not checked
    http                                            refused
    a port other than 443                           refused
    a host that is neither COS's nor allowed        refused
    CloudBase's gateway, unless it is allowed       refused, as of an environment in PG mode
    `/<bucket>/<path>`, not encoded                 good
    `/<bucket>/<path>`, percent-decoded once        good
    any other path, a query, a fragment             refused
    the bucket or file_id of another environment    refused
    ==============================================  =====================================

    The bucket is the one in file_id (`cloud://<env>.<bucket>/<path>`), or any single segment if file_id has another
    form. An environment's bucket is `<4 hex>-<env>-<Tencent appid>`; one of any other form is not compared with
    `env`. The text never contains the link. Source: the sample response of getUploadTcbFileLink.
    """
    address = _split(link_url)
    if address is None:
        return detail(DetailCode.LINK_ADDRESS)
    scheme, host, port, target = address
    unsafe = _check_origin(scheme, host, port, base, store_hosts)
    if unsafe is not None:
        return unsafe
    if not _is_for(target, file_id, path):
        return detail(DetailCode.LINK_PATH, host=host)
    named = {match[1] for match in (_BUCKET.match(target), _FILE_ID.match(file_id)) if match is not None}
    if not named <= {env}:
        return detail(DetailCode.LINK_ENV, host=host, env=env)
    return None


def check_host(link_url: str, base: str, hosts: tuple[str, ...]) -> Text | None:
    """Return why nothing may be sent to a link's host; None for https and an allowed host, or for the simulator.

    `hosts` are allowed besides COS's own. See the first five lines of the table of `check_link`.
    """
    address = _split(link_url)
    return _check_origin(*address[:3], base, hosts) if address else detail(DetailCode.LINK_ADDRESS)


@lru_cache(maxsize=256)  # for every link, but of few hosts
def _check_origin(scheme: str, host: str, port: str | None, base: str, hosts: tuple[str, ...]) -> Text | None:
    target = _split(f"{base}/")
    if is_loopback(host) and target is not None and is_loopback(target[1]):
        return None  # links of a simulator are plain http on any port
    if scheme != "https" or port not in {None, "443"}:
        return detail(DetailCode.LINK_NOT_HTTPS, host=host)
    if not any(
        host.endswith(name.lower()) if name.startswith(".") else host == name.lower()
        for name in STORE_HOSTS + hosts
    ):
        return detail(DetailCode.LINK_GATEWAY if host.endswith(GATEWAY) else DetailCode.LINK_HOST, host=host)
    return None


def _split(url: str) -> tuple[str, str, str | None, str] | None:
    parts = _ADDRESS.fullmatch(url)
    return (parts[1], parts[2].strip("[]").lower(), parts[3], parts[4]) if parts is not None else None


def _is_for(target: str, file_id: str, path: str) -> bool:
    """Return whether a request target is `/<bucket>/<path>`, literally or percent-encoded once."""
    file = _FILE_ID.match(file_id)
    bucket = file[2] if file else ""
    if not bucket:
        segment = re.match(r"/([0-9A-Za-z._-]+)/", target)
        if segment is None:
            return False
        bucket = segment[1]
    expected = f"/{bucket}/{path}"
    if target == expected:
        return True
    return not re.search(r"[?#]", target) and unquote_to_bytes(target) == expected.encode()
