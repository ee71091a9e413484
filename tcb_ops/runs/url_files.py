"""Files from URLs in runs: looked at before the run is planned; their queries kept while this process works on it."""

from __future__ import annotations

import asyncio
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.details import Detail, DetailCode, as_detail, detail
from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.i18n import _
from tcb_ops.lists.row_files import MAX_FILE_BYTES, SOURCE_FIXES, UnusableFile, split_source, whole_source
from tcb_ops.model import Row, Secret, SourceFile, is_source
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from tcb_ops.wechat.remote_files import SourceClient
    from tcb_ops.wechat.transport import Transport

AT_ONCE = 32
"""URLs that are looked at at once."""
TRY_AGAIN = (0.0, 0.5, 2.0)
"""Seconds before each attempt to look at a URL."""
_KNOWN = 16_384
"""URLs whose facts are kept."""
_PAGE = 2_000


def source_client(transport: Transport, settings: Settings) -> SourceClient:
    """Return the client for the URLs that the settings allow."""
    from tcb_ops.wechat.remote_files import SourceClient

    return SourceClient(transport, settings.source_hosts, loopback=settings.on_loopback, most=MAX_FILE_BYTES)


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
        from tcb_ops.runs.loop import submit_coroutine

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
        from tcb_ops.wechat.transport import Transport

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
        from tcb_ops.wechat.remote_files import SourceRefusedError

        shown = split_source(url.reveal())[0]
        host = shown.split("/", 3)[2]
        if (problem := self._away.get(host)) is None:
            for wait in TRY_AGAIN:
                await asyncio.sleep(wait)
                try:
                    return await client.look(url, shown)
                except SourceRefusedError as error:
                    return UnusableFile(error.detail, SOURCE_FIXES[error.detail.code])
                except TransportError as error:
                    problem, away = as_detail(error.text), error.fault is TransportFault.UNREACHABLE
            if problem is not None and away:
                self._away[host] = problem
        message = detail(DetailCode.NOT_INSPECTED, file=shown, why=problem or host)
        return UnusableFile(message, _("try again later, or check the URL"))


class SourceQueries:
    """The queries of a run's URLs by line, in an unnamed temporary file if they are many, until the process ends."""

    def __init__(self, queries: Iterable[tuple[int, Secret]]) -> None:
        self._queries = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._queries.close)
        self._queries.execute("CREATE TABLE queries (line INTEGER PRIMARY KEY, query TEXT)")
        self._queries.executemany(
            "INSERT INTO queries VALUES (?, ?)", ((line, query.reveal()) for line, query in queries)
        )

    def __bool__(self) -> bool:
        return self._queries.execute("SELECT 1 FROM queries LIMIT 1").fetchone() is not None

    def whole(self, row: Row) -> Secret:
        """Return a row's URL with its query."""
        record = self._queries.execute("SELECT query FROM queries WHERE line = ?", (row.line,)).fetchone()
        return whole_source(row.file, Secret(record[0]) if record else None)


def as_they_are(rows: Iterable[Row], root: Path, inspect: SourceInspector) -> Iterator[Row]:
    """Yield rows with their files' current sizes and versions. A missing file is reported when it is to be sent."""
    stream = iter(rows)
    while page := list(islice(stream, _PAGE)):
        facts = inspect([*dict.fromkeys(Secret(row.file) for row in page if is_source(row.file))])
        for row in page:
            if not is_source(row.file):
                yield _as_it_is(row, root)
            elif isinstance(source := facts[Secret(row.file)], SourceFile):
                yield replace(row, size=source.size, etag=source.etag)
            else:
                yield row


def _as_it_is(row: Row, root: Path) -> Row:
    try:
        now = (root / row.file).stat()
    except (OSError, ValueError):
        return row
    return replace(row, size=now.st_size, mtime_ns=now.st_mtime_ns)
