"""What a run will change: a list and the table of stored files make changes. The run makes them, its dry run shows them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tcb_ops.formatting import format_duration
from tcb_ops.i18n import Text, ngettext
from tcb_ops.kinds import Kind
from tcb_ops.ledger.files import StoredFile
from tcb_ops.model import Row, Step, Want, is_source
from tcb_ops.wechat.local_files import FileChangedError, FileUnreadableError, hash_file

DAY = 86_400
"""In seconds."""
_AGE = re.compile(r"(?:s-maxage|max-age)=\"?([0-9]{1,10})\"?")


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """What a run will do at the path of a row."""

    row: Row
    have: StoredFile | None
    """What is known of the path; None for nothing."""
    want: Want
    same: bool = False
    """Whether it is certain that the wanted file is there."""

    @property
    def step(self) -> Step:
        """What is done.

        ============================  =============  =========
        known to be at the path       wanted         step
        ============================  =============  =========
        no file, or nothing is known  the file       new
        another file                  the file       replaced
        the same file, for certain    the file       unchanged
        a file, or nothing is known   nothing        deleted
        no file, for certain          nothing        unchanged
        any                           what is there  unchanged
        any                           not known yet  not_known
        ============================  =============  =========
        """
        match self.want:
            case Want.FILE if self.same:
                return Step.UNCHANGED
            case Want.FILE:
                return Step.REPLACED if self.have is not None and self.have.md5 else Step.NEW
            case Want.NOTHING:
                return Step.UNCHANGED if self.have is not None and self.have.is_gone else Step.DELETED
            case Want.AS_IT_IS:
                return Step.UNCHANGED
            case Want.NOT_KNOWN:
                return Step.NOT_KNOWN


def changes_of(
    kind: Kind,
    files: Iterable[tuple[Row, StoredFile | None]],
    left: Collection[tuple[str, str]] = (),
    is_same: Callable[[Row, StoredFile], bool] = lambda _row, _file: False,
) -> Iterator[PlannedChange]:
    """Give the changes by rows, of which `files` has each with what is known of its path.

    `left`: (env, appid) of merchants that have left, for whose rows nothing is attempted. `is_same`: whether a file that is
    certain to be there is the row's.
    """
    for row, have in files:
        want = Want.AS_IT_IS if (row.env, row.appid) in left else kind.want(row)
        same = have is not None and have.is_known and is_same(row, have)
        yield PlannedChange(row, have, want, same)


def comparing(kind: Kind, root: Path) -> Callable[[Row, StoredFile], bool]:
    """Return what compares the rows' files, which are below `root`, with those that are there. Each is read once."""
    digests = dict[str, str]()

    def is_same(row: Row, file: StoredFile) -> bool:
        content_type, cache_control = kind.stored_headers(row)
        row = replace(row, content_type=content_type or "", cache_control=cache_control or "")
        if not file.may_be(row):
            return False
        if is_source(row.file):
            return file.has_etag_of(row)
        if row.file not in digests:
            digests[row.file] = ""
            with suppress(FileChangedError, FileUnreadableError):
                digests[row.file] = hash_file(root / row.file, row.size or 0, row.mtime_ns or 0)
        return digests[row.file] == file.md5

    return is_same


def seconds_cached(cache_control: str) -> int:
    """Return for how long caches may show a stored file, as far as its Cache-Control tells; 0 for none, or not told.

    =========================================  ================================
    Cache-Control                              seconds
    =========================================  ================================
    no-store, no-cache, alone or with others   0
    max-age, s-maxage                          the longer one
    any other, and none                        0: the CDN and browsers decide
    =========================================  ================================
    """
    directives = {part.strip().lower() for part in cache_control.split(",")}
    if directives & {"no-store", "no-cache"}:
        return 0
    ages = (_AGE.fullmatch(directive) for directive in directives)
    return max((int(age[1]) for age in ages if age), default=0)


def time_cached(seconds: int) -> Text:
    """Return a time that caches may take, in days from one day on."""
    return (
        ngettext("{n:,} day", "{n:,} days", -(-seconds // DAY))
        if seconds >= DAY
        else format_duration(seconds)
    )
