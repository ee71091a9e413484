"""The simulated store: COS's POST Object with the checks and responses relevant to links, and signed GETs.

Forms are parsed as a stream, with at most a chunk of the file in memory. Response formats:
cloud.tencent.com/document/product/436/7730.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, quote, unquote_to_bytes
from xml.sax.saxutils import escape

from aiohttp import web

from tcb_ops.errcodes import store_code
from tcb_ops.features.simulator.faults import Etag, Fault, FaultStep
from tcb_ops.features.simulator.signing import (
    SECRET_ID,
    SECRET_KEY,
    bucket_of,
    cos_file_id,
    download_sign,
    http_string,
    is_seconds,
    link_token,
    read_authorization,
    signature,
    string_to_sign,
)
from tcb_ops.features.simulator.state import SimulatedObject, SimulatorState, cut_short, reset
from tcb_ops.model import Merchant

MAX_OBJECT = 5 * 1024**3
"""Maximum size of an object in a POST, in bytes (436/14690)."""
FORM_HEAD = 64 * 1024
"""Maximum size of a form without its file, in bytes."""
HEAD_LIMIT = 64 * 1024
"""Maximum size of a part's head or a field, in bytes: a key has up to 850, a token about 1,000."""
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


_CONFLICT = CosRefusal(409, "PathConflict", "The object cannot stand beside those that are there.")
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

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond to a request for a bucket. One that cannot be a form upload is refused before its body is read."""
        target, _, query = request.raw_path.partition("?")
        bucket, _, rest = target[1:].partition("/")
        env = self._envs.get(bucket, "")
        try:
            path = unquote_to_bytes(rest.encode("utf-8", "surrogateescape")).decode()
        except UnicodeDecodeError:
            path = ""
        if request.method == "GET" and query:
            return self._download(request, bucket, path, query)
        self._state.arrived(FaultStep.STORE, env, path)
        checked = _head_refusal(request, env, path)
        if not isinstance(checked, CosRefusal):
            try:
                return await self._post(request, env, bucket, path, Form(checked))
            except (ConnectionError, web.RequestPayloadError):
                # The client disconnected or does not speak HTTP: no response is possible.
                self._state.answered(FaultStep.STORE, "gone")
                return reset(request)
        response = self._refuse(request, checked)
        response.force_close()
        return response

    async def _post(
        self, request: web.BaseRequest, env: str, bucket: str, path: str, form: Form
    ) -> web.StreamResponse:
        now = self._state.clock()
        with Upload(self._directory) as upload:
            md5 = await _receive(request, form, upload)
            checked = check_form(form, bucket, path, now)
            appid = "" if isinstance(checked, CosRefusal) else checked
            fault, played = await self._state.fault(request, FaultStep.STORE, env, appid, path)
            if played is not None:
                return played
            checked = _planned(fault) or checked
            if not isinstance(checked, CosRefusal):
                try:
                    self._keep(upload, bucket, path)
                except OSError:
                    # COS has no folders: a and a/b can be two objects there, but not two files here.
                    checked = _CONFLICT
        if isinstance(checked, CosRefusal):
            return self._refuse(request, checked)
        headers = (form.fields.get("content-type", ""), form.fields.get("cache-control", ""))
        self._state.stored(bucket, path, SimulatedObject(form.size, md5, 1, *headers))
        return cut_short(request, fault, self._accept(request, form, bucket, path, _etag(md5, fault)))

    def _accept(
        self, request: web.BaseRequest, form: Form, bucket: str, path: str, etag: str
    ) -> web.Response:
        asked = form.fields.get("success_action_status", "")
        status = int(asked) if asked in {"200", "201"} else 204
        location = f"http://{request.headers.get('Host', '')}/{bucket}/{quote(path, safe='/-_.~')}"
        elements = [("Location", location), ("Bucket", bucket), ("Key", path), ("ETag", f'"{etag}"')]
        body = xml_body("PostResponse", elements) if status == 201 else b""
        self._state.answered(FaultStep.STORE, status)
        headers = self._headers() | {"Location": location, "Content-Length": str(len(body))}
        if etag:
            headers["ETag"] = f'"{etag}"'
        if body:
            headers["Content-Type"] = "application/xml"
        return web.Response(status=status, body=body, headers=headers)

    def holds(self, bucket: str, path: str) -> bool:
        """Return whether an object exists."""
        return (bucket, path) in self._state.objects

    def remove(self, bucket: str, path: str) -> None:
        """Delete an object."""
        self._state.objects.pop((bucket, path), None)
        self._small.pop((bucket, path), None)
        if self._directory is not None:
            object_file(self._directory, bucket, path).unlink(missing_ok=True)

    def listed(self, bucket: str, prefix: str, marker: str) -> list[tuple[str, SimulatedObject]]:
        """Return a bucket's objects in the order of their keys, from after `marker`."""
        found = (
            (key, one)
            for (where, key), one in self._state.objects.items()
            if where == bucket and key.startswith(prefix) and key > marker
        )
        return sorted(found, key=lambda item: item[0])

    def put(self, env: str, key: str, data: bytes, etag: str | None = None) -> None:
        """Store an object as another tool does; `etag` in place of the MD5, an empty one for no ETag."""
        bucket = bucket_of(env)
        with Upload(self._directory) as upload:
            upload.write(data)
            self._keep(upload, bucket, key)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self._state.stored(bucket, key, SimulatedObject(len(data), md5, own_etag=etag))

    def cache(self, env: str, key: str) -> None:
        """Let a cache keep an object as it is now, and answer with it from now on."""
        at = (bucket_of(env), key)
        self._state.cached[at] = self._state.objects[at]

    def content(self, env: str, key: str) -> bytes | None:
        """Return an object's bytes, as far as they are kept."""
        found = self._kept(bucket_of(env), key)
        return found.read_bytes() if isinstance(found, Path) else found

    def _keep(self, upload: Upload, bucket: str, path: str) -> None:
        """Keep a completely received object. Raises OSError if the folder cannot hold it beside the others."""
        if self._directory is not None:
            upload.keep(object_file(self._directory, bucket, path))
            return
        self._small.pop((bucket, path), None)
        if upload.data is not None:
            self._small[bucket, path] = bytes(upload.data)
        if len(self._small) > LATEST:
            del self._small[next(iter(self._small))]

    def _kept(self, bucket: str, path: str) -> bytes | Path | None:
        """Return an object's bytes or file; None if it is not kept."""
        if self._directory is None:
            return self._small.get((bucket, path))
        file = object_file(self._directory, bucket, path)
        return file if file.is_file() else None

    def _download(self, request: web.BaseRequest, bucket: str, path: str, query: str) -> web.StreamResponse:
        """Answer a signed GET: the object, or its first byte; a stale cache answers with what was there before."""
        if refused := check_download(bucket, path, query, self._state.clock()):
            return self._xml(request, refused)
        stored = self._state.objects.get((bucket, path))
        cached = self._state.cached.get((bucket, path))
        if cached is not None and "no-cache" not in request.headers.get("Cache-Control", ""):
            stored = cached
        # An empty object is known without its bytes, of which only the latest are kept.
        content = self._kept(bucket, path) if stored is None or stored.size else b""
        first = request.headers.get("Range") == "bytes=0-0"
        if stored is None or (content is None and not first):
            return self._xml(request, CosRefusal(404, "NoSuchKey", "The specified key does not exist."))
        self._state.stats["fetched"] += 1
        headers = self._headers() | {"Content-Type": stored.content_type or "application/octet-stream"}
        if stored.etag:
            headers["ETag"] = f'"{stored.etag}"'
        if stored.cache_control:
            headers["Cache-Control"] = stored.cache_control
        if stored is cached:
            headers["X-Cache-Lookup"] = "Cache Hit"
        if first and not stored.size:
            return web.Response(status=416, headers=headers)
        if first:
            self._state.stats["looked_at"] += 1
            headers["Content-Range"] = f"bytes 0-0/{stored.size}"
            return web.Response(status=206, body=_first_byte(content), headers=headers)
        if isinstance(content, Path):
            return web.Response(
                body=content.open("rb"), headers=headers
            )  # FileResponse has an ETag of its own
        return web.Response(body=content, headers=headers)

    def _refuse(self, request: web.BaseRequest, refusal: CosRefusal) -> web.Response:
        self._state.answered(FaultStep.STORE, refusal.status)
        self._state.stats[f"store:{refusal.code}"] += 1
        return self._xml(request, refusal)

    def _xml(self, request: web.BaseRequest, refusal: CosRefusal) -> web.Response:
        headers = self._headers() | {"Content-Type": "application/xml"}
        request_id = headers["x-cos-request-id"]
        resource = request.headers.get("Host", "") + request.raw_path.partition("?")[0]
        elements = [
            ("Code", refusal.code),
            ("Message", refusal.message),
            *refusal.details,
            ("Resource", resource.encode("ascii", "backslashreplace").decode()),
            ("RequestId", request_id),
            ("TraceId", request_id[::-1]),
        ]
        return web.Response(status=refusal.status, body=xml_body("Error", elements), headers=headers)

    def _headers(self) -> dict[str, str]:
        return {"Server": "tencent-cos", "x-cos-request-id": self._state.new_id().replace("-", "")}


def _head_refusal(request: web.BaseRequest, env: str, path: str) -> CosRefusal | bytes:
    """Return the refusal caused by a request's head, or the form's boundary."""
    boundary = boundary_of(request.headers.get("Content-Type", ""))
    if request.method != "POST":
        return CosRefusal(
            405, "MethodNotAllowed", "The specified method is not allowed against this resource."
        )
    if not env:
        return CosRefusal(404, "NoSuchBucket", "The specified bucket does not exist.")
    if not path:
        return CosRefusal(400, "InvalidURI", "The path is empty or not UTF-8.")
    if request.content_length is None:
        return CosRefusal(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
    if request.content_length > MAX_OBJECT + FORM_HEAD:
        return _TOO_LARGE
    if boundary is None:
        return CosRefusal(400, "MalformedPOSTRequest", "The body is not multipart/form-data.")
    return boundary


async def _receive(request: web.BaseRequest, form: Form, upload: Upload) -> str:
    """Read a body to its end, refused or not (a reset could lose an early response); return the file's MD5."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    md5 = hashlib.md5(usedforsecurity=False)
    async for chunk in request.content.iter_any():
        data = form.feed(chunk)
        md5.update(data)
        upload.write(data)
    return md5.hexdigest()


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
    known = store_code(fault.code, fault.errmsg)
    default = "Access Denied." if fault.code == "AccessDenied" else known.meaning.en
    return CosRefusal(fault.status or known.http_status or 400, fault.code, fault.errmsg or default)


def _etag(md5: str, fault: Fault) -> str:
    match fault.etag:
        case Etag.WRONG:
            return hashlib.md5(md5.encode(), usedforsecurity=False).hexdigest()
        case Etag.OPAQUE:
            return f"{md5}-1"
        case Etag.MISSING:
            return ""
        case None:
            return md5


# --- forms and links ---


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary of a `multipart/form-data` content type, or None for any other."""
    found = _BOUNDARY.match(content_type)
    return (found[1] or found[2]).encode() if found else None


class _BrokenFormError(Exception):
    """What is wrong with a form."""


class Form:
    """A streaming parser of a form: takes the chunks of a body, returns the file's bytes, and keeps the fields.

    `broken` states what is wrong with the form; a broken form ignores the rest of the body.
    """

    def __init__(self, boundary: bytes) -> None:
        self.fields: dict[str, str] = {}
        """By lower-case name, in order of arrival."""
        self.files = 0
        self.size = 0
        """Bytes of the file so far."""
        self.field_after_file = False
        self.broken = ""
        self.complete = False
        """Whether the form has reached its closing boundary."""
        # A line break before the body makes the first boundary look like the others.
        self._buffer = bytearray(b"\r\n")
        self._file = bytearray()
        """The bytes of the file that a chunk has brought."""
        self._parser = self._parse(b"\r\n--" + boundary)

    def feed(self, chunk: bytes) -> bytes:
        """Parse the next chunk of the body; return the bytes known to belong to the file."""
        self._file.clear()
        if not self.broken and not self.complete:
            self._buffer += chunk
            try:
                next(self._parser, None)
            except _BrokenFormError as error:
                self.broken = str(error)
        self.size += len(self._file)
        return bytes(self._file)

    def _parse(self, delimiter: bytes) -> Iterator[None]:
        """Parse the body; stop wherever more bytes are needed."""
        yield from self._until(delimiter, "field too long")
        while True:
            while len(self._buffer) < 2:
                yield
            if self._buffer.startswith(b"--"):
                self.complete = True
                return
            if not self._buffer.startswith(b"\r\n"):
                raise _BrokenFormError("boundary without a line break")
            # The line break remains: it begins the blank line of a part without headers.
            found = _NAME.search((yield from self._until(b"\r\n\r\n", "part head too long")))
            if not found:
                raise _BrokenFormError("part without a name")
            name = found[1].decode("utf-8", "replace").lower()
            if name == "file":
                self.files += 1
                yield from self._content(delimiter)
                continue
            self.field_after_file |= self.files > 0
            value = yield from self._until(delimiter, "field too long")
            try:
                text = value.decode()
            except UnicodeDecodeError:
                raise _BrokenFormError("field is not UTF-8") from None
            if name in self.fields:
                raise _BrokenFormError("field given twice")
            self.fields[name] = text

    def _until(self, mark: bytes, too_long: str) -> Generator[None, None, bytes]:
        """Take the bytes before a mark, and the mark."""
        while (place := self._buffer.find(mark)) < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise _BrokenFormError(too_long)
            yield
        return self._take(place, mark)

    def _content(self, delimiter: bytes) -> Iterator[None]:
        while (place := self._buffer.find(delimiter)) < 0:
            # The last bytes may be the beginning of the delimiter.
            self._file += self._take(max(0, len(self._buffer) - len(delimiter) + 1))
            yield
        self._file += self._take(place, delimiter)

    def _take(self, size: int, mark: bytes = b"") -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[: size + len(mark)]
        return taken


def check_form(form: Form, bucket: str, path: str, now: float) -> CosRefusal | str:
    """Check a complete form against its link; return the link's appid, or the first refusal.

    `path` is the decoded path of the URL posted to, below the bucket; `now` is in Unix seconds.
    """
    malformed = _shape(form)
    if malformed:
        return malformed
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


def _shape(form: Form) -> CosRefusal | None:
    """Refuse a form that is invalid for any link."""
    if form.broken or not form.complete:
        return CosRefusal(
            400, "MalformedPOSTRequest", f"The body is not a whole form: {form.broken or 'cut off'}."
        )
    if form.files != 1:
        return CosRefusal(
            400, "IncorrectNumberOfFilesInPostRequest", f"One file is expected, {form.files} came."
        )
    if form.field_after_file:
        return CosRefusal(400, "MalformedPOSTRequest", "The file must be the last field of the form.")
    if form.size > MAX_OBJECT:
        return _TOO_LARGE
    if not form.fields.get("key"):
        return CosRefusal(400, "MalformedPOSTRequest", "The form has no key.")
    return None


def check_download(bucket: str, path: str, query: str, now: float) -> CosRefusal | None:
    """Check the query of a download URL; an invalid or expired one is 403 AccessDenied."""
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    sign, end = fields.get("sign", ""), fields.get("t", "")
    if not is_seconds(end) or sign != download_sign(bucket, path, int(end)):
        return _DENIED
    return CosRefusal(403, "AccessDenied", "Request has expired") if now >= int(end) else None


# --- XML ---


def xml_body(root: str, elements: Iterable[tuple[str, str]]) -> bytes:
    """Return a body such as COS's `<Error>`."""
    lines = "".join(f"  <{name}>{escape(_plain(text))}</{name}>\n" for name, text in elements)
    return f"<?xml version='1.0' encoding='utf-8' ?>\n<{root}>\n{lines}</{root}>\n".encode()


def _plain(text: str) -> str:
    """Remove characters that XML 1.0 does not allow."""
    return "".join(char for char in text if char >= " " or char in "\t\n\r")


# --- the objects' bytes ---


_AWKWARD = re.compile(r'[\x00-\x1f\x7f%<>:"\\|?*]')
SMALL = 64 * 1024
"""Maximum size of an object kept in memory, in bytes; only without a folder."""
LATEST = 64
"""Objects kept in memory, without a folder: enough to try an upload and fetch it again."""
LONGEST_NAME = 200
"""Maximum length of a file name, in bytes; file systems allow 255."""


def object_file(directory: Path, bucket: str, key: str) -> Path:
    """Return an object's file, below `directory/bucket` for any key: what a file name must not contain is %-encoded.

    ==================  =====================
    key                 below the bucket
    ==================  =====================
    banner/海报 1.png   banner/海报 1.png
    ../../etc/passwd    %2E%2E/%2E%2E/etc/passwd
    /etc//passwd        %/etc/%/passwd
    a:b?                a%3Ab%3F
    a. (a dot last)     a%2E
    ==================  =====================
    """
    return directory.joinpath(bucket, *(_name(segment) for segment in key.split("/")))


def _name(segment: str) -> str:
    if not segment:
        return "%"
    name = _AWKWARD.sub(lambda found: f"%{ord(found[0]):02X}", segment)
    if not name.strip("."):
        return "%2E" * len(name)
    if name[-1] in ". ":  # Windows drops them
        name = f"{name[:-1]}%{ord(name[-1]):02X}"
    if len(name.encode()) > LONGEST_NAME:
        return f"{name[:40]}%{hashlib.sha256(segment.encode()).hexdigest()}"
    return name


class Upload:
    """An object being received: in a temporary file until `keep` renames it, or without a folder in memory if small."""

    def __init__(self, directory: Path | None) -> None:
        self.data: bytearray | None = bytearray()
        """None once it is too large for memory."""
        self._file = None
        if directory:
            self._file = tempfile.NamedTemporaryFile(dir=directory, prefix=".upload-", delete=False)  # noqa: SIM115  closed in __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Append the next bytes."""
        if self._file is not None:
            self._file.write(data)
        elif self.data is not None:
            self.data = None if len(self.data) + len(data) > SMALL else self.data + data

    def keep(self, target: Path) -> None:
        """Move the object's file to its place, replacing an older one."""
        if self._file is not None:
            self._file.close()
            target.parent.mkdir(parents=True, exist_ok=True)
            Path(self._file.name).replace(target)
