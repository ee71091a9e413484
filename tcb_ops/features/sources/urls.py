"""Files that are sent from URLs: looked at before a run is planned, read when they are sent.

Only hosts in `source_hosts` are asked, and no redirect is followed. The query may be a signature: no message has it, and no
ledger. What is asked and what answers mean is decided by `source_problem` and `read_status`, which are pure.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sqlite3
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

from tcb_ops.details import Detail, DetailCode, DetailCodes, as_detail, detail
from tcb_ops.engine.calls import CallContext
from tcb_ops.engine.loop import submit_coroutine
from tcb_ops.errors import TcbOpsError, TransportError, TransportFault
from tcb_ops.features.sources import SourceCode
from tcb_ops.i18n import _
from tcb_ops.lists.row_files import MAX_FILE_BYTES, SOURCE_FIXES, UnusableFile, split_source, whole_source
from tcb_ops.model import Reason, Row, Secret, SourceFile, in_object_store, is_loopback
from tcb_ops.secrets import MASK
from tcb_ops.settings import Settings
from tcb_ops.wechat.local_files import Body, FileChangedError, FileUnreadableError
from tcb_ops.wechat.transport import HttpRequest, Incoming, Transport

_URL = re.compile(
    r"(?P<scheme>(?i:https?))://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?][^\s\\#\x00-\x1f\x7f]*)?"
)
_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,256}"')
_RANGE = re.compile(r"bytes 0-0/([0-9]{1,15})")
_SMALL = 256 * 1024
"""Bytes of a file that is read as a whole before it is sent."""
AT_ONCE = 32
"""URLs that are looked at at once."""
TRY_AGAIN = (0.0, 0.5, 2.0)
"""Seconds before each attempt to look at a URL."""
_KNOWN = 16_384
"""URLs whose facts are kept."""
FIXES = {
    **SOURCE_FIXES,
    SourceCode.SOURCE_ADDRESS: _("correct the URL"),
    SourceCode.SOURCE_MASKED: _("copy the URL from the original list"),
    SourceCode.SOURCE_GONE: _("correct the URL"),
    SourceCode.SOURCE_REFUSED: _("check who may read it; a signed URL may have expired"),
    SourceCode.SOURCE_REDIRECT: _("write the address that it leads to"),
    SourceCode.SOURCE_ENCODED: _("have it sent without Content-Encoding, or download it and give the file"),
}
"""What to do about a URL that cannot be used."""


class SourceRefusedError(FileUnreadableError):
    """A URL that is not read, or whose server does not give the file. `detail` says why."""

    def __init__(self, problem: Detail) -> None:
        super().__init__(problem)
        self.detail = problem
        if problem.code is SourceCode.SOURCE_REDIRECT:
            self.of_row = Reason.SOURCE_REDIRECT


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
    http://a.com/x.png, ftp://a.com/x.png                a.com                            address
    https://me@a.com/x.png, https://a.com/x.png#y        a.com                            address
    https://a.com/x y.png, https://a.com\@b.com/x         a.com                            address
    https://a.com/x.png?•••                              a.com                            masked
    cos://b/x.png, oss://b/x.png, s3://b/x.png           any                              store
    ===================================================  ===============================  ==============
    """
    if in_object_store(url):
        return detail(DetailCode.SOURCE_STORE, url=shown)
    address = _URL.fullmatch(url)
    if MASK in url and "@" not in shown:
        return detail(SourceCode.SOURCE_MASKED, url=shown)
    if address is None:
        return detail(SourceCode.SOURCE_ADDRESS, url=shown)
    host = address["host"].strip("[]").lower()
    allowed = any(
        host.endswith(name[1:].lower()) if name.startswith("*.") else host == name.lower() for name in hosts
    )
    if not allowed or (is_loopback(host) and not loopback):
        return detail(DetailCode.SOURCE_HOST, host=host)
    if address["scheme"].lower() == "http" and not is_loopback(host):
        return detail(SourceCode.SOURCE_ADDRESS, url=shown)
    return None


def read_status(status: int) -> DetailCodes | None:
    """Return what is wrong if a source's server answers with a status; None if it gives the file.

    =====================  ===============
    status                 problem
    =====================  ===============
    200                    none
    412                    FILE_CHANGED
    3xx                    SOURCE_REDIRECT
    404, 410               SOURCE_GONE
    408, 425, 429, 5xx     SOURCE_BUSY
    any other              SOURCE_REFUSED
    =====================  ===============
    """
    match status:
        case 200:
            return None
        case 412:
            return DetailCode.FILE_CHANGED
        case 404 | 410:
            return SourceCode.SOURCE_GONE
    if 300 <= status < 400:
        return SourceCode.SOURCE_REDIRECT
    busy = status in {408, 425, 429} or status >= 500
    return SourceCode.SOURCE_BUSY if busy else SourceCode.SOURCE_REFUSED


class SourceClient:
    """Asks the servers of URLs. Raises SourceRefusedError, TransportError, and when reading FileChangedError.

    Args:
        transport: sends the requests.
        hosts: those that may be asked: names, and `*.` with a domain.
        loopback: whether the target is a simulator, so that this machine may be asked.

    """

    def __init__(self, transport: Transport, hosts: tuple[str, ...], *, loopback: bool) -> None:
        self._transport, self._hosts, self._loopback = transport, hosts, loopback

    async def look(self, url: Secret, shown: str) -> SourceFile:
        """Return a file's size and ETag, by a HEAD request; where that is not allowed, by a GET of its first byte.

        A signed URL is often good for GET only.
        """
        async with self._asked("HEAD", url, shown) as answer:
            if answer.status not in {401, 403, 405, 501}:
                return self._facts(answer, shown)
        async with self._asked("GET", url, shown, {"Range": "bytes=0-0"}) as answer:
            if answer.status == 206:
                content_range = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
                size = int(content_range[1]) if content_range else None
                return self._checked(SourceFile(size, _etag(answer)), shown)
            if answer.status == 416:  # an empty file has no first byte
                return SourceFile(None, "")
            return self._facts(answer, shown)

    @asynccontextmanager
    async def opened(self, url: Secret, shown: str, size: int | None, etag: str) -> AsyncIterator[Body]:
        """Request a file and give its bytes.

        `size`, `etag`: as planned. A file that differs raises FileChangedError, here or when it is read. The store needs the
        length first: without it SourceRefusedError.
        """
        async with self._asked("GET", url, shown, {"If-Match": etag} if etag else {}) as answer:
            now = self._facts(answer, shown)
            if (size is not None and now.size not in {None, size}) or (etag and now.etag not in {"", etag}):
                raise _changed(shown)
            if now.size is None:
                raise SourceRefusedError(detail(SourceCode.SOURCE_NO_LENGTH, url=shown))
            body = SourceBody(answer, now.size, shown)
            if now.size <= _SMALL:
                body.content = b"".join([chunk async for chunk in body.chunks()])
            yield body

    @asynccontextmanager
    async def _asked(
        self, method: str, url: Secret, shown: str, headers: Mapping[str, str] = {}
    ) -> AsyncIterator[Incoming]:
        address = url.reveal()
        if (problem := source_problem(address, shown, self._hosts, loopback=self._loopback)) is not None:
            raise SourceRefusedError(problem)
        async with self._transport.open(HttpRequest(method, address, headers)) as answer:
            yield answer

    def _facts(self, answer: Incoming, shown: str) -> SourceFile:
        _check_status(answer, shown)
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise SourceRefusedError(detail(SourceCode.SOURCE_ENCODED, url=shown))
        length = answer.headers.get("Content-Length", "")
        size = int(length) if re.fullmatch("[0-9]{1,15}", length) else None
        return self._checked(SourceFile(size, _etag(answer)), shown)

    def _checked(self, facts: SourceFile, shown: str) -> SourceFile:
        if facts.size is not None and facts.size > MAX_FILE_BYTES:
            too_large = detail(DetailCode.FILE_LARGE, name=shown, bytes=facts.size, most=MAX_FILE_BYTES)
            raise SourceRefusedError(too_large)
        return facts


class SourceBody(Body):
    """The bytes of a URL on their way to the store, for one upload."""

    content: bytes | None

    def __init__(self, answer: Incoming, size: int, shown: str) -> None:
        super().__init__(size)
        self._answer, self._shown = answer, shown

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the file's bytes. Raises FileChangedError and TransportError, which are also kept in `error`."""
        if self.content is not None:
            yield self.content
            return
        digest, received = hashlib.md5(usedforsecurity=False), 0
        try:
            async for chunk in self._answer.chunks():
                received += len(chunk)
                digest.update(chunk)
                yield chunk
            if received != self.size:
                raise _changed(self._shown)
        except TcbOpsError as error:
            self.error = error
            raise
        self.md5 = digest.hexdigest()


def _check_status(answer: Incoming, shown: str) -> None:
    code = read_status(answer.status)
    if code is None:
        return
    if code is DetailCode.FILE_CHANGED:
        raise _changed(shown)
    problem = detail(code, url=shown, status=answer.status)
    if code is SourceCode.SOURCE_BUSY:
        raise TransportError(TransportFault.GARBAGE, problem)
    raise SourceRefusedError(problem)


def _changed(shown: str) -> FileChangedError:
    return FileChangedError(detail(DetailCode.FILE_CHANGED, file=shown))


def _etag(answer: Incoming) -> str:
    """Return a strong ETag; a weak one does not say that the bytes are the same."""
    etag = answer.headers.get("ETag", "").strip()
    return etag if _ETAG.fullmatch(etag) else ""


def source_client(transport: Transport, settings: Settings) -> SourceClient:
    """Return the client for the URLs that the settings allow."""
    return SourceClient(transport, settings.source_hosts, loopback=settings.on_loopback)


# --- before a run --------------------------------------------------------------------------------------------------


class SourceInspector:
    """Looks at URLs, each once, several at once. Blocks."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        """`settings` is called when there is a URL to look at."""
        self._settings = settings
        self._known: dict[Secret, SourceFile | UnusableFile] = {}
        self._away: dict[str, Detail] = {}
        """Hosts that cannot be reached, with the last error: their other URLs are not tried."""

    def __call__(self, urls: Sequence[Secret]) -> dict[Secret, SourceFile | UnusableFile]:
        """Return a file's size and ETag, or why it cannot be sent."""
        new = [url for url in urls if url not in self._known]
        if len(self._known) + len(new) > _KNOWN:
            self._known, new = {}, list(urls)
        if new:
            looking = submit_coroutine(self._look(new))
            try:
                self._known.update(looking.result())
            except BaseException:
                looking.cancel()
                raise
        return {url: self._known[url] for url in urls}

    async def _look(self, urls: Sequence[Secret]) -> dict[Secret, SourceFile | UnusableFile]:
        facts: dict[Secret, SourceFile | UnusableFile] = {}
        async with Transport(connections=AT_ONCE) as transport:
            client, gate = source_client(transport, self._settings()), asyncio.Semaphore(AT_ONCE)

            async def look(url: Secret) -> None:
                async with gate:
                    facts[url] = await self._of(client, url)

            try:
                async with asyncio.TaskGroup() as group:
                    for url in urls:
                        group.create_task(look(url))
            except ExceptionGroup as errors:  # such as too few file descriptors
                raise errors.exceptions[0] from None
        return facts

    async def _of(self, client: SourceClient, url: Secret) -> SourceFile | UnusableFile:
        shown = split_source(url.reveal())[0]
        host = shown.split("/", 3)[2]
        if (problem := self._away.get(host)) is None:
            for wait in TRY_AGAIN:
                await asyncio.sleep(wait)
                try:
                    return await client.look(url, shown)
                except SourceRefusedError as error:
                    return UnusableFile(error.detail, FIXES[error.detail.code])
                except TransportError as error:
                    problem, away = as_detail(error.text), error.fault is TransportFault.UNREACHABLE
            if problem is not None and away:
                self._away[host] = problem
        message = detail(DetailCode.NOT_INSPECTED, file=shown, why=problem or host)
        return UnusableFile(message, _("try again later, or check the URL"))


# --- in a run ------------------------------------------------------------------------------------------------------


def source_urls(queries: Iterator[tuple[int, Secret]]) -> Callable[[Row], Secret] | None:
    """Return what gives a row's URL with its query, by the queries of lines; None if there are none.

    They are in an unnamed temporary file if they are many, until the process ends.
    """
    kept = sqlite3.connect("", check_same_thread=False)
    kept.execute("CREATE TABLE queries (line INTEGER PRIMARY KEY, query TEXT)")
    lines = ((line, query.reveal()) for line, query in queries)
    if not kept.executemany("INSERT INTO queries VALUES (?, ?)", lines).rowcount:
        kept.close()
        return None

    def whole(row: Row) -> Secret:
        record = kept.execute("SELECT query FROM queries WHERE line = ?", (row.line,)).fetchone()
        return whole_source(row.file, Secret(record[0]) if record else None)

    weakref.finalize(whole, kept.close)
    return whole


@asynccontextmanager
async def source_body(context: CallContext, row: Row) -> AsyncIterator[Body]:
    """Open the file of a row that is sent from a URL."""
    url = context.urls(row) if context.urls is not None else whole_source(row.file, None)
    sources = source_client(context.transport, context.settings)
    async with sources.opened(url, row.file, row.size, row.etag) as body:
        yield body
