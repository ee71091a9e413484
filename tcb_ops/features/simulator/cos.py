"""The simulated store: COS's POST Object with the checks and responses relevant to links, signed GETs, and the signatures.

It decides about whole requests; `server` reads and sends them. Response formats: cloud.tencent.com/document/product/436/7730;
COS's SHA-1 request signature: …/436/7778. The upload links of the WeChat cloud have the whole signature in one form field,
`Signature`, with method `post`, the decoded path of the link's URL, and empty lists.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from mmap import mmap
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote_to_bytes
from xml.sax.saxutils import escape

from tcb_ops.catalogue import store_code
from tcb_ops.features.simulator.faults import Etag, Fault, FaultStep
from tcb_ops.features.simulator.state import Request, Response, SimulatedObject, SimulatorState
from tcb_ops.model import Merchant
from tcb_ops.system_errors import system_reason

MAX_OBJECT = 5 * 1024**3
"""Maximum size of an object in a POST, in bytes (436/14690)."""
FORM_HEAD = 64 * 1024
"""Maximum size of a form without its file, in bytes: a key has up to 850, a token about 1,000."""
_NAME = re.compile(rb'^content-disposition:[^\r\n]*?;[ \t]*name="([^"\r\n]*)"', re.IGNORECASE | re.MULTILINE)
_BOUNDARY = re.compile(r'^multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CosRefusal:
    """A refusal by COS, or one that a fault injects."""

    status: int
    code: str
    message: str
    details: tuple[tuple[str, str], ...] = ()
    """Further XML elements, such as StringToSign or ServerTime."""


_DENIED = CosRefusal(403, "AccessDenied", "Access Denied.")
_TOO_LARGE = CosRefusal(
    400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size."
)


class CosStore:
    """The merchants' buckets: receives form uploads and serves download URLs."""

    def __init__(self, state: SimulatorState, merchants: Sequence[Merchant], directory: Path | None) -> None:
        self._state, self._directory = state, directory
        self._small: dict[tuple[str, str], bytes] = {}
        """Without a folder only the latest small objects are kept, so that memory does not grow."""
        self._envs = {bucket_of(merchant.env): merchant.env for merchant in merchants}
        if directory is not None:
            state.objects |= _kept_objects(directory)

    async def handle(self, request: Request) -> Response:
        """Respond to a request for a bucket."""
        bucket, path, query = _split(request.target)
        if request.method == "GET" and query:
            return self._download(request, bucket, path, query)
        env = self._envs.get(bucket, "")
        self._state.arrived(FaultStep.STORE, env, path)
        refusal = self.head_refusal(request)
        if refusal is not None:
            return self._refuse(request, refusal)
        form = read_form(request.body, boundary_of(request.headers.get("Content-Type", "")) or b"")
        checked = check_form(form, bucket, path, self._state.clock())
        appid = "" if isinstance(checked, CosRefusal) else checked
        fault, played = await self._state.fault(FaultStep.STORE, env, appid, path)
        if played is not None:
            return played
        refusal = _planned(fault) or (checked if isinstance(checked, CosRefusal) else None)
        if refusal is not None or isinstance(form, CosRefusal):
            return self._refuse(request, refusal or _DENIED)
        headers = (form.fields.get("content-type", ""), form.fields.get("cache-control", ""))
        try:
            with memoryview(request.body)[form.start : form.end] as data:
                self._keep(data, bucket, path)
                md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
            self._state.stored(bucket, path, SimulatedObject(form.end - form.start, md5, 1, *headers))
            self._record(bucket, path)
        except OSError as error:
            reason = f"The folder of the simulator's store: {system_reason(error).en}."
            return self._refuse(request, CosRefusal(500, "InternalError", reason))
        self._state.answered(FaultStep.STORE, 204)
        location = link_url(f"http://{request.headers.get('Host', '')}", bucket, path)
        response = Response(204, headers=self._headers() | {"Location": location, "Content-Length": "0"})
        if etag := _etag(md5, fault):
            response.headers["ETag"] = f'"{etag}"'
        response.reset = fault.reset
        return response

    def head_refusal(self, request: Request) -> CosRefusal | None:
        """Return the refusal of a request that cannot be a form upload, whatever its body is."""
        bucket, path, query = _split(request.target)
        length = request.headers.get("Content-Length")
        if request.method == "GET" and query:
            return None
        if request.method != "POST":
            return CosRefusal(
                405, "MethodNotAllowed", "The specified method is not allowed against this resource."
            )
        if bucket not in self._envs:
            return CosRefusal(404, "NoSuchBucket", "The specified bucket does not exist.")
        if not path:
            return CosRefusal(400, "InvalidURI", "The path is empty or not UTF-8.")
        if length is None:
            return CosRefusal(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if int(length) > MAX_OBJECT + FORM_HEAD:
            return _TOO_LARGE
        if boundary_of(request.headers.get("Content-Type", "")) is None:
            return _malformed("The body is not multipart/form-data.")
        return None

    def holds(self, bucket: str, path: str) -> bool:
        """Return whether an object exists."""
        return (bucket, path) in self._state.objects

    def remove(self, bucket: str, path: str) -> None:
        """Delete an object."""
        self._state.objects.pop((bucket, path), None)
        self._small.pop((bucket, path), None)
        if self._directory is not None:
            object_file(self._directory, bucket, path).unlink(missing_ok=True)
        self._record(bucket, path)

    def _keep(self, data: memoryview, bucket: str, path: str) -> None:
        if self._directory is not None:
            fresh = self._directory / f".upload-{os.getpid()}"  # one that is being downloaded stays as it is
            fresh.touch(mode=0o600)
            fresh.write_bytes(data)
            fresh.replace(object_file(self._directory, bucket, path))
            return
        self._small.pop((bucket, path), None)
        if len(data) <= SMALL:
            self._small[bucket, path] = bytes(data)
        if len(self._small) > LATEST:
            del self._small[next(iter(self._small))]

    def _record(self, bucket: str, path: str) -> None:
        """Add an object, or that it is gone, to the folder's index, with which the next simulator begins."""
        if self._directory is not None:
            entry = [bucket, path, self._state.objects.get((bucket, path))]
            index = self._directory / INDEX
            index.touch(mode=0o600)
            with index.open("a", encoding="utf-8") as entries:
                entries.write(f"{json.dumps(entry)}\n")

    def _content(self, bucket: str, path: str) -> bytes | Path | None:
        if self._directory is None:
            return self._small.get((bucket, path))
        file = object_file(self._directory, bucket, path)
        return file if file.is_file() else None

    def _download(self, request: Request, bucket: str, path: str, query: str) -> Response:
        if refused := check_download(bucket, path, query, self._state.clock()):
            return self._error(request, refused)
        stored = self._state.objects.get((bucket, path))
        # An empty object is known without its bytes, of which only the latest are kept.
        content = self._content(bucket, path) if stored is None or stored.size else b""
        first = request.headers.get("Range") == "bytes=0-0"
        if stored is None or (content is None and not first):
            return self._error(request, CosRefusal(404, "NoSuchKey", "The specified key does not exist."))
        self._state.stats["fetched"] += 1
        headers = self._headers() | {"Content-Type": stored.content_type or "application/octet-stream"}
        if etag := stored.md5 if stored.own_etag is None else stored.own_etag:
            headers["ETag"] = f'"{etag}"'
        if stored.cache_control:
            headers["Cache-Control"] = stored.cache_control
        if first and not stored.size:
            return Response(416, headers=headers)
        if first:
            self._state.stats["looked_at"] += 1
            headers["Content-Range"] = f"bytes 0-0/{stored.size}"
            return Response(206, _first_byte(content), headers)
        return Response(200, content or b"", headers)

    def _refuse(self, request: Request, refusal: CosRefusal) -> Response:
        self._state.answered(FaultStep.STORE, refusal.status)
        self._state.stats[f"store:{refusal.code}"] += 1
        return self._error(request, refusal)

    def _error(self, request: Request, refusal: CosRefusal) -> Response:
        headers = self._headers() | {"Content-Type": "application/xml"}
        request_id = headers["x-cos-request-id"]
        resource = request.headers.get("Host", "") + request.target.partition("?")[0]
        elements = [
            ("Code", refusal.code),
            ("Message", refusal.message),
            *refusal.details,
            ("Resource", resource.encode("ascii", "backslashreplace").decode()),
            ("RequestId", request_id),
            ("TraceId", request_id[::-1]),
        ]
        lines = "".join(f"  <{name}>{escape(_plain(text))}</{name}>\n" for name, text in elements)
        body = f"<?xml version='1.0' encoding='utf-8' ?>\n<Error>\n{lines}</Error>\n"
        return Response(refusal.status, body.encode(), headers)

    def _headers(self) -> dict[str, str]:
        return {"Server": "tencent-cos", "x-cos-request-id": self._state.new_id().replace("-", "")}


def _split(target: str) -> tuple[str, str, str]:
    resource, _, query = target.partition("?")
    bucket, _, rest = resource[1:].partition("/")
    try:
        return bucket, unquote_to_bytes(rest.encode("utf-8", "surrogateescape")).decode(), query
    except UnicodeDecodeError:
        return bucket, "", query


def _plain(text: str) -> str:
    return "".join(char for char in text if char >= " " or char in "\t\n\r")


def _first_byte(content: bytes | Path | None) -> bytes:
    """Return an object's first byte; of one whose bytes are not kept, a zero."""
    if isinstance(content, Path):
        with content.open("rb") as stream:
            return stream.read(1)
    return content[:1] if content else b"\0"


def _planned(fault: Fault) -> CosRefusal | None:
    """Return the COS error of a fault, with the catalogue's status unless the plan has one; None without a code."""
    if not fault.code:
        return None
    entry = store_code(fault.code, fault.errmsg)
    default = "Access Denied." if fault.code == "AccessDenied" else entry.meaning.en
    return CosRefusal(fault.status or entry.http_status or 400, fault.code, fault.errmsg or default)


def _etag(md5: str, fault: Fault) -> str:
    wrong = hashlib.md5(md5.encode(), usedforsecurity=False).hexdigest()
    return {None: md5, Etag.WRONG: wrong, Etag.OPAQUE: f"{md5}-1", Etag.MISSING: ""}[fault.etag]


# --- forms and links ---


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary of a `multipart/form-data` content type, or None for any other."""
    match = _BOUNDARY.match(content_type)
    return (match[1] or match[2]).encode() if match else None


@dataclass(frozen=True, slots=True)
class Form:
    """A form with one file, its last field."""

    fields: dict[str, str]
    """By lower-case name."""
    start: int
    """The file's place in the body."""
    end: int


def _malformed(message: str) -> CosRefusal:
    return CosRefusal(400, "MalformedPOSTRequest", message)


def read_form(body: bytes | mmap, boundary: bytes) -> Form | CosRefusal:
    """Return the form in a body, or why it is invalid for any link."""
    fields: dict[str, str] = {}
    files: list[tuple[int, int]] = []
    try:
        for name, start, end in _parts(body, boundary):
            if name == "file":
                files.append((start, end))
            elif files:
                return _malformed("The file must be the last field of the form.")
            elif name in fields:
                return _malformed(f"The field {name} is given twice.")
            else:
                fields[name] = body[start:end].decode()
    except ValueError:
        return _malformed("The body is not a whole form in UTF-8.")
    if len(files) != 1:
        return CosRefusal(
            400, "IncorrectNumberOfFilesInPostRequest", f"One file is expected, {len(files)} came."
        )
    if not fields.get("key"):
        return _malformed("The form has no key.")
    start, end = files[0]
    return _TOO_LARGE if end - start > MAX_OBJECT else Form(fields, start, end)


def _parts(body: bytes | mmap, boundary: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield the lower-case name of each part, and where its content begins and ends. Raises ValueError for no form."""
    delimiter = b"\r\n--" + boundary
    position = len(delimiter) - 2  # the first boundary stands at the beginning
    if body[:position] != delimiter[2:]:
        raise ValueError
    while body[position : position + 2] == b"\r\n":
        head_end = body.find(b"\r\n\r\n", position, position + FORM_HEAD)
        name = _NAME.search(body, position, max(head_end, position))
        end = body.find(delimiter, head_end + 4)
        if name is None or end < 0:
            raise ValueError
        yield name[1].decode().lower(), head_end + 4, end
        position = end + len(delimiter)
    if body[position : position + 2] != b"--":
        raise ValueError


def check_form(form: Form | CosRefusal, bucket: str, path: str, now: float) -> CosRefusal | str:
    """Check a form against its link; return the link's appid, or the first refusal.

    `path` is the decoded path of the URL posted to, below the bucket; `now` is in Unix seconds.
    """
    if isinstance(form, CosRefusal):
        return form
    fields = form.fields
    if "signature" not in fields:
        return _DENIED
    signed = read_authorization(fields["signature"])
    if signed is None or signed.secret_id != SECRET_ID:
        return CosRefusal(
            403, "InvalidAccessKeyId", "The Access Key Id you provided does not exist in our records."
        )
    http = http_string("post", f"/{bucket}/{path}")
    if signed.signature != signature(SECRET_KEY, signed.key_time, http):
        shown = (("StringToSign", string_to_sign(signed.key_time, http)), ("FormatString", http))
        return CosRefusal(403, "SignatureDoesNotMatch", "The Signature you specified is invalid.", shown)
    if now >= signed.end:
        server_time = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return CosRefusal(403, "AccessDenied", "Request has expired", (("ServerTime", server_time),))
    token = fields.get("x-cos-security-token", "")
    if not token:
        return CosRefusal(403, "InvalidAccessKeyId", "The temporary key comes without its token.")
    appid = token.partition(".")[2]
    if token != link_token(bucket, path, signed.key_time, appid) or fields["key"] != path:
        return _DENIED
    if fields.get("x-cos-meta-fileid") != cos_file_id(bucket, path):
        return CosRefusal(400, "InvalidArgument", "x-cos-meta-fileid is not the one issued with the link.")
    return appid


def check_download(bucket: str, path: str, query: str, now: float) -> CosRefusal | None:
    """Check the query of a download URL; an invalid or expired one is 403 AccessDenied."""
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    sign, end = fields.get("sign", ""), fields.get("t", "")
    if not is_seconds(end) or sign != download_sign(bucket, path, int(end)):
        return _DENIED
    return CosRefusal(403, "AccessDenied", "Request has expired") if now >= int(end) else None


# --- the objects' bytes ---


SMALL = 64 * 1024
"""Maximum size of an object kept in memory, in bytes; only without a folder."""
LATEST = 64
"""Objects kept in memory, without a folder: enough to try an upload and fetch it again."""
INDEX = ".objects"
"""The file of the folder with a line of JSON per change: bucket, key, and the object or null."""


def _kept_objects(directory: Path) -> dict[tuple[str, str], SimulatedObject]:
    objects: dict[tuple[str, str], SimulatedObject] = {}
    with suppress(FileNotFoundError), (directory / INDEX).open(encoding="utf-8") as index:
        for line in index:
            with suppress(ValueError):  # the last line of a simulator that was killed
                bucket, key, values = json.loads(line)
                objects.pop((bucket, key), None)
                if values is not None:
                    objects[bucket, key] = SimulatedObject(*values)
    return objects


def object_file(directory: Path, bucket: str, key: str) -> Path:
    """Return an object's file. COS has no folders, and any text is a key: the name is a digest; the index has the key."""
    return directory / hashlib.sha256(f"{bucket}/{key}".encode()).hexdigest()


# --- signatures, and the links that contain them ---

SECRET_ID = "AKIDsimulatorsimulatorsimulatorsimul"  # noqa: S105  signs on loopback only
SECRET_KEY = "simulatorsimulatorsimulatorsimul"  # noqa: S105  signs on loopback only
_TENCENT_APPID = "1258717764"
_PLUS_AND_SLASH = b"\xfb\xff\xbf"
"""In base64 "+/+/": every link reveals a client that loses plus signs."""


class Authorization(NamedTuple):
    """The parts of a `q-sign-algorithm=…` string that are checked."""

    secret_id: str
    key_time: str
    """`start;end` in Unix seconds, as in the string."""
    end: int
    signature: str


def authorization(secret_id: str, secret_key: str, key_time: str, method: str, path: str) -> str:
    """Return the complete `q-sign-algorithm=sha1&…` string. `path` is decoded and begins with `/`."""
    signed = signature(secret_key, key_time, http_string(method, path))
    return (
        f"q-sign-algorithm=sha1&q-ak={secret_id}&q-sign-time={key_time}&q-key-time={key_time}"
        f"&q-header-list=&q-url-param-list=&q-signature={signed}"
    )


def signature(secret_key: str, key_time: str, http: str) -> str:
    """Return the 40 hex digits of q-signature for an HttpString."""
    return _hmac_sha1(sign_key(secret_key, key_time), string_to_sign(key_time, http))


@lru_cache(maxsize=64)
def sign_key(secret_key: str, key_time: str) -> str:
    """Return SignKey; cached, because all links of one second share it."""
    return _hmac_sha1(secret_key, key_time)


def http_string(method: str, path: str) -> str:
    """Return HttpString, the signed part of the request: no parameter and no header is signed."""
    return f"{method.lower()}\n{path}\n\n\n"


def string_to_sign(key_time: str, http: str) -> str:
    """Return StringToSign, which COS includes in a SignatureDoesNotMatch response."""
    return f"sha1\n{key_time}\n{hashlib.sha1(http.encode()).hexdigest()}\n"  # noqa: S324  COS's own algorithm


def read_authorization(text: str) -> Authorization | None:
    """Parse a `q-sign-algorithm=…` string; return None for any other text."""
    parts = dict(part.partition("=")[::2] for part in text.split("&"))
    start, _, end = parts.get("q-sign-time", "").partition(";")
    if parts.get("q-sign-algorithm") != "sha1" or not (is_seconds(start) and is_seconds(end)):
        return None
    if parts.get("q-key-time") != parts["q-sign-time"]:
        return None
    return Authorization(parts.get("q-ak", ""), parts["q-sign-time"], int(end), parts.get("q-signature", ""))


def is_seconds(text: str) -> bool:
    """Return whether a text can be Unix seconds."""
    return text.isascii() and text.isdigit() and len(text) <= 12


def _hmac_sha1(key: str, text: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha1").hex()


def bucket_of(env: str) -> str:
    """Return an environment's bucket: the hex of the id's first two characters, the id, the Tencent appid."""
    return f"{env[:2].encode().hex()}-{env}-{_TENCENT_APPID}"


def link_url(base: str, bucket: str, path: str) -> str:
    """Return the path-style URL."""
    return f"{base}/{bucket}/{quote(path, safe='/-_.~')}"


def issue(base: str, env: str, path: str, appid: str, start: int, lifetime: int) -> dict[str, str | int]:
    """Return the response of getUploadTcbFileLink. `start` is in Unix seconds, `lifetime` in seconds."""
    bucket, key_time = bucket_of(env), f"{start};{start + lifetime}"
    return {
        "errcode": 0,
        "errmsg": "ok",
        "url": link_url(base, bucket, path),
        "token": link_token(bucket, path, key_time, appid),
        "authorization": authorization(SECRET_ID, SECRET_KEY, key_time, "post", f"/{bucket}/{path}"),
        "file_id": f"cloud://{env}.{bucket}/{path}",
        "cos_file_id": cos_file_id(bucket, path),
    }


def download_url(base: str, bucket: str, path: str, end: int) -> str:
    """Return the URL from which a file can be downloaded until `end`, in Unix seconds."""
    query = f"sign={download_sign(bucket, path, end)}&t={end}"
    return f"{link_url(base, bucket, path)}?{query}"


def _proof(*parts: object) -> bytes:
    return hmac.digest(SECRET_KEY.encode(), "\n".join(map(str, parts)).encode(), "sha256")


def link_token(bucket: str, path: str, key_time: str, appid: str) -> str:
    """Return the security token of a link, which ends with the merchant's appid."""
    return f"{_proof('token', bucket, path, key_time, appid).hex()}.{appid}"


def cos_file_id(bucket: str, path: str) -> str:
    """Return the required value of the form field x-cos-meta-fileid."""
    return base64.b64encode(_PLUS_AND_SLASH + _proof("file", bucket, path)).decode()


def download_sign(bucket: str, path: str, end: int) -> str:
    """Return the signature of a download URL."""
    return _proof("download", bucket, path, end).hex()
