"""URLs of a list's files, looked at before a run is planned: each once, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from tcb_ops.details import Detail, DetailCode, as_detail, detail
from tcb_ops.errors import TransportError, TransportFault
from tcb_ops.features.sources import SourceCode
from tcb_ops.features.sources.client import SourceClient, SourceRefusedError, source_client
from tcb_ops.i18n import _
from tcb_ops.lists.row_files import SOURCE_FIXES, UnusableFile, split_source
from tcb_ops.model import Secret, SourceFile
from tcb_ops.runs.loop import submit_coroutine
from tcb_ops.settings import Settings
from tcb_ops.wechat.transport import Transport

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
