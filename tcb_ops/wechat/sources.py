"""Files that are sent from a URL: looked at before a run, read when they are sent.

Only hosts in `source_hosts` are asked, and no redirect leaves the host. The query may be a signature: no message has it.
What is asked and what answers mean is decided by `source_problem`, `next_hop` and `read_status`, which are pure.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import IO, Self
from urllib.parse import urljoin

import httpx

from tcb_ops.details import Detail, DetailCode, detail
from tcb_ops.errors import TcbOpsError, TransportError, TransportFault
from tcb_ops.model import Secret, SourceFile, is_loopback
from tcb_ops.resources import exhausted, system_reason
from tcb_ops.secrets import MASK
from tcb_ops.wechat.cos import Body
from tcb_ops.wechat.local_files import FileBody, FileChangedError, FileUnreadableError
from tcb_ops.wechat.object_sources import is_object, object_problem, presigned
from tcb_ops.wechat.transport import Incoming, Transport

_URL = re.compile(
    r"(?P<scheme>(?i:https?))://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?][^\s\\#\x00-\x1f\x7f]*)?"
)
_NUMBERS = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*")
_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,256}"')
_RANGE = re.compile(r"bytes 0-0/([0-9]{1,15})")
_HOPS = 3
"""Redirects within a host that are followed."""
_SMALL = 256 * 1024
"""Bytes of a file that is read as a whole before it is sent."""


class SourceRefusedError(FileUnreadableError):
    """A URL that is not read, or whose server does not give the file. `detail` says why."""

    def __init__(self, why: Detail) -> None:
        super().__init__(why)
        self.detail = why


class Answer(StrEnum):
    """What an HTTP status means for a source."""

    GOOD = "good"
    CHANGED = "changed"
    REDIRECT = "redirect"
    GONE = "gone"
    REFUSED = "refused"
    BUSY = "busy"


def source_problem(url: str, shown: str, hosts: tuple[str, ...], *, loopback: bool) -> Detail | None:
    r"""Return why nothing is requested from a URL; None if it may be. `loopback`: whether the target is a simulator.

    ===================================================  ===============================  ==============
    URL                                                  hosts                            problem
    ===================================================  ===============================  ==============
    https://a.com/x.png, https://a.com:8443/x?sign=y     a.com                            none
    https://b.a.com/x.png                                *.a.com                          none
    https://a.com/x.png                                  *.a.com, b.a.com                 host
    http://127.0.0.1/x.png, only with `loopback`         127.0.0.1                        none
    https://127.0.0.1/x.png, without `loopback`          127.0.0.1                        host
    https://127.1/x.png, https://0.0.0.0/x.png           the same                         host
    http://a.com/x.png, ftp://a.com/x.png                a.com                            address
    https://me@a.com/x.png, https://a.com/x.png#y        a.com                            address
    https://a.com/x y.png, https://a.com\@b.com/x         a.com                            address
    https://a.com/x.png?•••                              a.com                            masked
    ===================================================  ===============================  ==============
    """
    found = _URL.fullmatch(url)
    if MASK in url and "@" not in shown:
        return detail(DetailCode.SOURCE_MASKED, url=shown)
    if found is None:
        return detail(DetailCode.SOURCE_ADDRESS, url=shown)
    host = found["host"].strip("[]").lower()
    allowed = any(
        host.endswith(one[1:].lower()) if one.startswith("*.") else host == one.lower() for one in hosts
    )
    if not allowed or (on_this_machine(host) and not loopback):
        return detail(DetailCode.SOURCE_HOST, host=host)
    if found["scheme"].lower() == "http" and not is_loopback(host):
        return detail(DetailCode.SOURCE_ADDRESS, url=shown)
    return None


def on_this_machine(host: str) -> bool:
    """Return whether a host is this machine, or an address in an unusual form, which may be.

    ==========================================================  ======
    host                                                        result
    ==========================================================  ======
    localhost, a.localhost, 127.0.0.1, ::1, 0.0.0.0, ::         yes
    ::ffff:127.0.0.1, 127.1, 2130706433, 0x7f000001             yes
    a.com, 10.0.0.1, 2001:db8::1                                no
    ==========================================================  ======
    """
    host = host.rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _NUMBERS.fullmatch(host) is not None
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def next_hop(url: str, location: str, hops: int) -> str | None:
    """Return the URL that a redirect leads to if it is followed; None if it is not.

    ==================================  ======  ===========
    location                            hops    followed
    ==================================  ======  ===========
    same scheme, host and port          0–2     yes
    same scheme, host and port          3       no
    another scheme, host or port        any     no
    none, or not an address             any     no
    ==================================  ======  ===========
    """
    try:
        there = urljoin(url, location)
    except ValueError:
        return None
    same = _origin(there) == _origin(url) and _URL.fullmatch(there) is not None
    return there if location and same and hops < _HOPS else None


def _origin(url: str) -> str:
    return "/".join(url.partition("?")[0].split("/", 3)[:3])


def read_status(status: int) -> Answer:
    """Return what a status means.

    =====================  ==========
    status                 meaning
    =====================  ==========
    200                    good
    412                    changed
    3xx                    redirect
    404, 410               gone
    408, 425, 429, 5xx     busy
    any other              refused
    =====================  ==========
    """
    if status == 200:
        return Answer.GOOD
    if status == 412:
        return Answer.CHANGED
    if 300 <= status < 400:
        return Answer.REDIRECT
    if status in {404, 410}:
        return Answer.GONE
    return Answer.BUSY if status in {408, 425, 429} or status >= 500 else Answer.REFUSED


class SourceClient:
    """Asks the servers of URLs. Raises SourceRefusedError, TransportError, and when reading FileChangedError.

    Args:
        transport: sends the requests.
        hosts: those that may be asked: names, and `*.` with a domain.
        loopback: whether the target is a simulator, so that this machine may be asked.
        most: the largest file that can be sent, in bytes.

    """

    def __init__(self, transport: Transport, hosts: tuple[str, ...], *, loopback: bool, most: int) -> None:
        self._transport, self._hosts, self._loopback, self._most = transport, hosts, loopback, most

    async def look(self, url: Secret, shown: str) -> SourceFile:
        """Return a file's size and ETag, by a HEAD request; where that is not allowed, by a GET of its first byte.

        A signed URL is often good for GET only.
        """
        async with self._asked("HEAD", url, shown) as answer:
            if answer.status not in {401, 403, 405, 501}:
                _check_status(answer, shown)
                return self._facts(answer, shown)
        async with self._asked("GET", url, shown, {"Range": "bytes=0-0"}) as answer:
            whole = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status == 206:
                return self._checked(SourceFile(int(whole[1]) if whole else None, _etag(answer)), shown)
            if answer.status == 416:  # an empty file has no first byte
                return SourceFile(None, "")
            _check_status(answer, shown)
            return self._facts(answer, shown)

    @asynccontextmanager
    async def opened(self, url: Secret, shown: str, size: int | None, etag: str) -> AsyncIterator[Body]:
        """Request a file and give its bytes; in a temporary file if its size is not known.

        `size`, `etag`: as planned. A file that differs raises FileChangedError, here or when it is read.
        """
        async with self._asked("GET", url, shown, {"If-Match": etag} if etag else {}) as answer:
            _check_status(answer, shown)
            now = self._facts(answer, shown)
            if (size is not None and now.size not in {None, size}) or (etag and now.etag not in {"", etag}):
                raise _changed(shown)
            if now.size is None:
                with await self._spooled(answer, shown, size) as spooled:
                    yield spooled
                return
            body = SourceBody(answer, now.size, shown)
            if now.size <= _SMALL:
                await body.load()
            yield body

    @asynccontextmanager
    async def _asked(
        self, method: str, url: Secret, shown: str, headers: Mapping[str, str] = {}
    ) -> AsyncIterator[Incoming]:
        """Send a request, and follow redirects within the host."""
        address, hops = url.reveal(), 0
        if is_object(address):
            if (problem := object_problem(address, shown)) is not None:
                raise SourceRefusedError(problem)
            signed = await presigned(address, method)
            if signed is None:
                raise SourceRefusedError(detail(DetailCode.SOURCE_UNSIGNED, url=shown))
            address = signed.reveal()
        if (problem := source_problem(address, shown, self._hosts, loopback=self._loopback)) is not None:
            raise SourceRefusedError(problem)
        while True:
            request = httpx.Request(method, _origin(address), headers=headers)
            async with self._transport.open(request, address) as answer:
                there = None
                if answer.status in {301, 302, 303, 307, 308}:
                    there = next_hop(address, answer.headers.get("Location", ""), hops)
                if there is None:
                    yield answer
                    return
            address, hops = there, hops + 1

    def _facts(self, answer: Incoming, shown: str) -> SourceFile:
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise SourceRefusedError(detail(DetailCode.SOURCE_ENCODED, url=shown))
        length = answer.headers.get("Content-Length", "")
        size = int(length) if re.fullmatch("[0-9]{1,15}", length) else None
        return self._checked(SourceFile(size, _etag(answer)), shown)

    def _checked(self, facts: SourceFile, shown: str) -> SourceFile:
        if facts.size is not None and facts.size > self._most:
            raise self._too_large(facts.size, shown)
        return facts

    def _too_large(self, size: int, shown: str) -> SourceRefusedError:
        return SourceRefusedError(detail(DetailCode.FILE_LARGE, name=shown, bytes=size, most=self._most))

    async def _spooled(self, answer: Incoming, shown: str, size: int | None) -> FileBody:
        """Write a body whose size is not known to an unnamed temporary file."""
        digest, received = hashlib.md5(usedforsecurity=False), 0
        with _temporary() as file:
            async for chunk in answer.chunks():
                received += len(chunk)
                if received > self._most:
                    raise self._too_large(received, shown)
                digest.update(chunk)
                _write(file, chunk)
            _write(file, None)
            if size is not None and received != size:
                raise _changed(shown)
            fd = os.dup(file.fileno())
            return FileBody(shown, fd, received, os.fstat(fd).st_mtime_ns, digest.hexdigest())


class SourceBody:
    """The bytes of a URL on their way to the store, for one upload. It has what FileBody has."""

    def __init__(self, answer: Incoming, size: int, shown: str) -> None:
        self.size = size
        self.md5 = ""
        self.content: bytes | None = None
        self.error: TcbOpsError | None = None
        self._answer, self._shown = answer, shown

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def take(self) -> None:
        """Do nothing: it cannot be read twice."""

    async def load(self) -> None:
        """Read the file into `content`. Raises FileChangedError and TransportError, as reading does."""
        self.content = b"".join([chunk async for chunk in self._read(patient=False)])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes; an error is also kept in `error`."""
        if self.content is not None:
            yield self.content
            return
        try:
            async for chunk in self._read(patient=True):
                yield chunk
        except TcbOpsError as error:
            self.error = error
            raise

    async def _read(self, *, patient: bool) -> AsyncIterator[bytes]:
        digest, received = hashlib.md5(usedforsecurity=False), 0
        async for chunk in self._answer.chunks(patient=patient):
            received += len(chunk)
            digest.update(chunk)
            yield chunk
        if received != self.size:
            raise _changed(self._shown)
        self.md5 = digest.hexdigest()


def _check_status(answer: Incoming, shown: str) -> None:
    """Raise the error of a status other than 200."""
    match read_status(answer.status):
        case Answer.GOOD:
            return
        case Answer.CHANGED:
            raise _changed(shown)
        case Answer.REDIRECT:
            code = DetailCode.SOURCE_REDIRECT
        case Answer.GONE:
            code = DetailCode.SOURCE_GONE
        case Answer.REFUSED:
            code = DetailCode.SOURCE_REFUSED
        case Answer.BUSY:
            busy = detail(DetailCode.SOURCE_BUSY, url=shown, status=answer.status)
            raise TransportError(TransportFault.GARBAGE, busy)
    raise SourceRefusedError(detail(code, url=shown, status=answer.status))


def _changed(shown: str) -> FileChangedError:
    return FileChangedError(detail(DetailCode.FILE_CHANGED, file=shown))


def _etag(answer: Incoming) -> str:
    """Return a strong ETag; a weak one does not say that the bytes are the same."""
    etag = answer.headers.get("ETag", "").strip()
    return etag if _ETAG.fullmatch(etag) else ""


def _temporary() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        failed = _not_spooled(error)
    raise failed


def _write(file: IO[bytes], chunk: bytes | None) -> None:
    """Write a chunk; with None, return to the beginning."""
    try:
        if chunk is not None:
            file.write(chunk)
            return
        file.flush()
        file.seek(0)
    except OSError as error:
        failed = _not_spooled(error)
    else:
        return
    raise failed


def _not_spooled(error: OSError) -> TcbOpsError:
    why = detail(DetailCode.BACKUP_ACCESS, file=tempfile.gettempdir(), why=system_reason(error))
    return exhausted(error) or SourceRefusedError(why)
