"""The file of an upload's download links, which are secrets: mode 0600, UTF-8 without BOM.

They are not resumed, because they expire: the next call requests new ones.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

from tcb_ops.errors import StoppedError, TokenError, TransportError, UsageError
from tcb_ops.i18n import Text, _
from tcb_ops.model import Owner, Row, Secret
from tcb_ops.resources import raise_if_exhausted, replacing, system_reason
from tcb_ops.runs.links_file import csv_line
from tcb_ops.wechat.call_policy import ARGUMENT_ERRORS, FILES_PER_CALL, Caller, CallFailure, NextStep
from tcb_ops.wechat.responses import ApiError, FileStatus, InvalidResponse

DOWNLOAD_COLUMNS = ("errcode", "errmsg", "file_id", "download_url", "expires_at")
_WINDOW = 5_000
"""Rows whose download links are requested before they are written."""
_CALLS = 16
"""Concurrent calls for download links."""


@dataclass(frozen=True, slots=True)
class DownloadLinks:
    """Where the links were written, and how many rows have one."""

    file: Path
    rows: int
    links: int


@dataclass(slots=True)
class LinkRequests:
    """Requests download links for windows of rows."""

    locate: Callable[..., Awaitable[dict[str, FileStatus] | ApiError | InvalidResponse]]
    """`PlatformClient.locate`."""
    caller: Caller
    owners: Mapping[tuple[str, str], Owner]
    """By (env, appid)."""
    component_appid: str
    max_age: int
    """Seconds that the links are valid."""
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CALLS))

    async def request(self, rows: Sequence[tuple[Row, str]]) -> dict[str, FileStatus]:
        """Return the results by file_id; `rows` have theirs."""
        by_env: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for row, file_id in rows:
            if file_id:
                by_env[row.env, row.appid].append(file_id)
        calls = [
            self._call(env, appid, ids[first : first + FILES_PER_CALL])
            for (env, appid), ids in by_env.items()
            for first in range(0, len(ids), FILES_PER_CALL)
        ]
        results: dict[str, FileStatus] = {}
        for result in await asyncio.gather(*calls):
            results |= result
        return results

    async def _call(self, env: str, appid: str, ids: Sequence[str]) -> dict[str, FileStatus]:
        """Request the links of one call. Raises StoppedError where there is no answer, or it is about every row."""
        owner = self.owners.get((env, appid), Owner.MERCHANT)
        whose = self.component_appid if owner is Owner.PLATFORM else appid
        try:
            async with self.gate:
                answer = await self.caller.call(
                    whose, lambda token: self.locate(env, ids, token, owner, self.max_age)
                )
        except TokenError as error:
            return _all(ids, error.errcode or -1, error.text.en)
        if not isinstance(answer, CallFailure):
            return answer
        refusal = answer.answer
        if isinstance(refusal, InvalidResponse):
            return _all(ids, -1, refusal.why.en)
        if isinstance(refusal, ApiError) and answer.step is not NextStep.STOP_RUN:
            if str(refusal.errcode) in ARGUMENT_ERRORS and len(ids) > 1:  # the platform may take fewer
                half = len(ids) // 2
                return await self._call(env, appid, ids[:half]) | await self._call(env, appid, ids[half:])
            return _all(ids, refusal.errcode, refusal.errmsg)
        problem = refusal.text if isinstance(refusal, TransportError) else _refused(refusal)
        raise StoppedError(_("{what} No download links were written.", what=problem))


def _refused(refusal: ApiError) -> Text:
    text = _("The platform returned errcode {errcode}: {errmsg}.")
    return text.format(errcode=refusal.errcode, errmsg=refusal.errmsg)


async def write_download_links(
    rows: Iterable[tuple[Row, str]],
    headers: Sequence[str],
    dest: Path,
    requests: LinkRequests,
    zone: ZoneInfo,
) -> DownloadLinks:
    """Write the links of rows (with their file_ids) to `dest`, 0600, which appears when it is complete.

    Raises UsageError where it cannot be written, and StoppedError, with nothing written, where a call has no answer.
    """
    count = links = 0
    stream = iter(rows)
    try:
        with replacing(dest, private=True) as part, part.open("wb") as out:
            out.write(csv_line([*headers, *DOWNLOAD_COLUMNS]).encode())
            while window := list(islice(stream, _WINDOW)):
                alive_until = datetime.fromtimestamp(time.time() + requests.max_age, zone)
                expires = alive_until.isoformat(timespec="seconds")
                results = await requests.request(window)
                for row, file_id in window:
                    file = results.get(file_id)
                    url = file.url.reveal() if file is not None and not file.status else ""
                    answer = (file.status, file.errmsg) if file is not None else ("", "")
                    cells = (*row.cells, *answer, file_id, url, expires if url else "")
                    out.write(csv_line(cells).encode())
                    count, links = count + 1, links + bool(url)
    except OSError as error:
        raise_if_exhausted(error)
        raise UsageError(_("{file} cannot be written: {why}.", file=dest, why=system_reason(error))) from None
    return DownloadLinks(dest, count, links)


def _all(ids: Sequence[str], errcode: int, errmsg: str) -> dict[str, FileStatus]:
    return {file_id: FileStatus(file_id, errcode, errmsg, Secret("")) for file_id in ids}
