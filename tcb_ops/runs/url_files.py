"""Files as they are when a run is planned: local ones, and those that are sent from URLs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

from tcb_ops.kinds import is_provided, provided
from tcb_ops.lists.row_files import SourceCheck, refuse_sources
from tcb_ops.model import Row, Secret, SourceFile, is_source
from tcb_ops.settings import Settings

_PAGE = 2_000


def source_check(settings: Callable[[], Settings]) -> SourceCheck:
    """Return what looks at URLs, with these settings where there is one to look at; without the feature, they are refused."""
    if not is_provided("source_check"):
        return refuse_sources
    loaded = cache(lambda: provided("source_check")(settings))  # it loads the HTTP library
    return lambda urls: loaded()(urls)  # noqa: PLW0108  not before there is a URL


def as_they_are(rows: Iterable[Row], root: Path, inspect: SourceCheck) -> Iterator[Row]:
    """Yield rows with their files' current sizes and versions. A missing file is reported when it is to be sent."""
    stream = iter(rows)
    while page := list(islice(stream, _PAGE)):
        urls = [*dict.fromkeys(Secret(row.file) for row in page if is_source(row.file))]
        facts = inspect(urls) if urls else {}
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
