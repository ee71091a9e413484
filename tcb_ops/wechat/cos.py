"""Uploads to COS: the form post of a local file, and COS's responses.

The form's fields and their order are those of getUploadTcbFileLink's page (key, Signature, x-cos-security-token,
x-cos-meta-fileid, then COS's own Content-Type and Cache-Control, the file last). Success is 200, 201 or 204 with an
ETag and without an `<Error>` body: COS, POST Object (cloud.tencent.com/document/product/436/14690). Every response of
COS has an x-cos-request-id (436/7729), and a login page on the way may have any ETag.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, TypeAlias
from xml.etree import ElementTree as ET

from tcb_ops.details import DetailCode, detail
from tcb_ops.errors import TcbOpsError, TransportError, TransportFault
from tcb_ops.i18n import Text
from tcb_ops.model import Link
from tcb_ops.secrets import LONGEST_TEXT, redact
from tcb_ops.wechat.local_files import Body
from tcb_ops.wechat.responses import UNPRINTABLE, HttpResponse
from tcb_ops.wechat.transport import HttpRequest, Transport

_JOINED = 64 * 1024
"""Maximum bytes of a form that is joined. To copy a larger one costs more than to write its parts."""
_LARGEST_XML = 64 * 1024
_LONGEST_MESSAGE = 1000

_CODE = re.compile(r"[0-9A-Za-z.]{1,64}")

EtagVerdict: TypeAlias = Literal["same", "different", "unverified"]
"""What an ETag says about the stored bytes: see `etag_verdict`."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The response when COS has stored the object."""

    http_status: int
    etag: str
    """As the store wrote it, without quotes."""
    md5: str
    """32 lower-case hex digits, of the planned file: computed during this or an earlier upload."""
    verdict: EtagVerdict


@dataclass(frozen=True, slots=True)
class StoreRefusal:
    """The response when COS, or a server in front of it, refused the object."""

    http_status: int
    code: str
    """COS's error code, e.g. `AccessDenied`; empty if the body was not COS's XML."""
    message: str
    """COS's `<Message>`, without secrets."""
    request_id: str


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A response that neither confirms nor refuses the object: a firewall's page, a redirect, no ETag of COS."""

    http_status: int
    why: Text
    request_id: str


async def post_object(
    transport: Transport,
    link: Link,
    path: str,
    body: Body,
    content_type: str = "",
    cache_control: str = "",
    *,
    any_etag: bool = False,
    before_end: Callable[[], None] = lambda: None,
) -> StoredObject | StoreRefusal | Unconfirmed:
    """Upload a file to its link, whose URL is used unchanged. The file is always closed afterwards.

    Args:
        transport: sends the form.
        link: from `PlatformClient.upload_link`.
        path: the cloud path of the link; the form's key.
        body: from `open_file` or a source; a retry opens it again.
        content_type: of the object; if empty, the store's default (application/octet-stream).
        cache_control: the object's Cache-Control; empty for none.
        any_etag: whether COS may write an ETag of any form, as a bucket that encrypts with its own keys does.
        before_end: called before the last bytes are given to the connection; what it raises aborts the upload, and is
            raised.

    Raises TransportError if there is no usable response, or a success before the whole file was sent;
    FileChangedError and FileUnreadableError if the upload was aborted, in which case no object was created. A source may
    raise TransportError, too.

    """
    with body:
        boundary = secrets.token_hex(16)
        head, tail = _around(boundary, link, path, content_type, cache_control)
        length = len(head) + body.size + len(tail)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(length),
        }
        form = _Form(head, body, tail, before_end)
        content: bytes | Iterator[bytes | bytearray] | AsyncGenerator[bytes, None]
        if body.content is None:
            content = form.chunks()
        else:
            parts = form.parts(body.content)
            content = b"".join(parts) if length <= _JOINED else parts
        failure = None
        request = HttpRequest("POST", link.url.reveal(), headers)
        try:
            response = await transport.send(request, content, sending=length)
        except TransportError as error:
            failure = error
        unread = body.error  # before closing: a thread may still be reading
    if unread is not None:
        raise unread
    if failure is not None:
        raise failure
    result = _read(response, link, path, body.md5, any_etag=any_etag)
    if isinstance(result, StoredObject) and not form.taken:
        raise TransportError(
            TransportFault.RESET, detail(DetailCode.STORE_TOO_EARLY, host=request.address.host)
        )
    return result


class _Form:
    """A form. Its end is sent only after the file was checked to be unchanged, and `before_end` raised nothing."""

    def __init__(self, head: bytes, body: Body, tail: bytes, before_end: Callable[[], None]) -> None:
        self._head, self._body, self._tail, self._before_end = head, body, tail, before_end
        self.taken = False
        """Whether the connection has taken the whole file. It may hold some MiB of it."""

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        yield self._head
        async with aclosing(self._body.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk
        yield self._end()

    def parts(self, content: bytes | bytearray) -> Iterator[bytes | bytearray]:
        """Yield the form of a file that was read before."""
        yield self._head
        yield content
        yield self._end()

    def _end(self) -> bytes:
        self.taken = True
        try:
            self._before_end()
        except TcbOpsError as error:
            self._body.error = error
            raise
        return self._tail


def _around(
    boundary: str, link: Link, path: str, content_type: str, cache_control: str
) -> tuple[bytes, bytes]:
    """Return the parts of the form before and after the file's bytes.

    The file name is a constant: COS uses it only to replace `${filename}` in the key. For such a key the name is
    `${filename}` itself, so that the key stays unchanged.
    """
    fields = {
        "key": path,
        "Signature": link.authorization.reveal(),
        "x-cos-security-token": link.token.reveal(),
        "x-cos-meta-fileid": link.cos_file_id.reveal(),
        **({"Content-Type": content_type} if content_type else {}),
        **({"Cache-Control": cache_control} if cache_control else {}),
    }
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    name = "${filename}" if "${filename}" in path else "file"
    file = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: application/octet-stream'
    return f"{head}--{boundary}\r\n{file}\r\n\r\n".encode(), f"\r\n--{boundary}--\r\n".encode()


def _read(
    response: HttpResponse, link: Link, path: str, md5: str, *, any_etag: bool
) -> StoredObject | StoreRefusal | Unconfirmed:
    """Return the result of an upload from the store's response.

    ==============  ===========================  ===============================  =====================================
    HTTP status     ETag                         body                             result
    ==============  ===========================  ===============================  =====================================
    200, 201, 204   the file's MD5               no `<Error>`                     StoredObject
    200, 201, 204   another with a verdict, and  empty, or COS's                  StoredObject
                    an x-cos-request-id          `<PostResponse>`
    200, 201, 204   anything else                no `<Error>`                     Unconfirmed
    3xx             any                          any: redirects are not followed  Unconfirmed
    1xx, other 2xx  any                          no `<Error>`                     Unconfirmed
    any other       any                          `<Error>` with a code            StoreRefusal with its code and message
    below 400       any                          `<Error>` without such a code    Unconfirmed
    4xx, 5xx        any                          anything else                    StoreRefusal without a code
    ==============  ===========================  ===============================  =====================================
    """
    error = _error(response.body)
    fields = error or {}
    request_id = response.headers.get("x-cos-request-id", "").strip()
    etag = _bare(response.headers.get("etag", ""))
    verdict = etag_verdict(etag, md5, any_etag=any_etag)
    if error is None and verdict is not None and response.status in {200, 201, 204}:
        # Only the MD5 of the sent file proves by itself that the response is the store's.
        if verdict == "same":
            return StoredObject(response.status, md5, md5, verdict)
        if request_id and _is_own(response.body):
            return StoredObject(response.status, _clean(etag, link, path), md5, verdict)
    code = _clean(fields.get("Code", ""), link, path)
    if not _CODE.fullmatch(code):
        code = ""
    request_id = _clean(request_id or fields.get("RequestId", ""), link, path)
    if 300 <= response.status < 400 or (response.status < 400 and not code):
        return Unconfirmed(response.status, detail(DetailCode.NO_ETAG, status=response.status), request_id)
    return StoreRefusal(response.status, code, _clean(fields.get("Message", ""), link, path), request_id)


def _error(body: bytes) -> dict[str, str] | None:
    """Return the children of an `<Error>` document; {} if unreadable, None for any other body."""
    if b"error" not in body.replace(b"\0", b"").lower():
        return None
    root = _document(body)
    if root is None:
        return {}
    if root.tag == "Error":
        return {child.tag: (child.text or "").strip() for child in root}
    return {} if any("error" in element.tag.lower() for element in root.iter()) else None


def _is_own(body: bytes) -> bool:
    """Return whether a body is one that COS sends with a success: none, or that of status 201."""
    if not body.strip():
        return True
    root = _document(body)
    return root is not None and root.tag == "PostResponse"


def _document(body: bytes) -> ET.Element | None:
    """Return the root of an XML document; None for any other body, and for one that is not safe to read."""
    text = body.decode("utf-8", errors="replace")
    if len(body) > _LARGEST_XML or re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        return None
    try:
        return ET.fromstring(text)  # noqa: S314  no DOCTYPE, no ENTITY, no more than 64 KiB
    except (ET.ParseError, ValueError):
        return None


def _clean(text: str, link: Link, path: str) -> str:
    """Return a text of the store on one line, without anything that could be part of a signature."""
    secrets = (link.url, link.token, link.authorization, link.cos_file_id)
    text = redact(UNPRINTABLE.sub(" ", text).strip()[:LONGEST_TEXT], secrets, (path, link.file_id))
    return text[:_LONGEST_MESSAGE]


def etag_verdict(etag: str, md5: str, *, any_etag: bool) -> EtagVerdict | None:
    """Compare the ETag of a stored object, without quotes, with the MD5 of the sent file.

    =============================================  ===========  ==============
    etag                                           verdict      with any_etag
    =============================================  ===========  ==============
    the 32 hex digits of md5                       same         same
    32 other hex digits                            different    unverified
    32 hex digits and `-N`: written in parts       unverified   unverified
    any other text                                 None         unverified
    empty                                          None         None
    =============================================  ===========  ==============

    None: not an ETag of COS. The form that a bucket with keys of its own writes is documented nowhere.
    """
    etag = etag.lower()
    if not etag:
        return None
    if etag == md5:
        return "same"
    if any_etag:
        return "unverified"
    form = re.fullmatch(r"[0-9a-f]{32}(-[0-9]+)?", etag)
    if form is None:
        return None
    return "unverified" if form[1] else "different"


def _bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"').strip()
