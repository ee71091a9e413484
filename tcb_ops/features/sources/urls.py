"""The whole URLs of a run's rows, whose queries no ledger has, and the bytes that come from them."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from tcb_ops.features.sources.client import source_client
from tcb_ops.lists.row_files import whole_source
from tcb_ops.model import Row, Secret
from tcb_ops.runs.calls import CallContext
from tcb_ops.wechat.local_files import Body


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
