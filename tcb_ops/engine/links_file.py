"""links.csv, whose links are secrets: mode 0600, UTF-8 without BOM. No ledger and no report contains links.

During a run, links are appended to `links.csv.part` in the order of issue, and synced to disk before the ledger records
their rows as linked. At the end they are written in the list's order; the file is synced, renamed into place, and its
folder synced. Only then is the run marked as finished in the ledger, and only then is the part file removed.
"""

from __future__ import annotations

import csv
import io
import os
import re
import stat
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from zoneinfo import ZoneInfo

from tcb_ops.disk import replacing, sync_to_disk
from tcb_ops.errors import StoppedError, UsageError
from tcb_ops.i18n import _, as_list
from tcb_ops.ledger.ledger import Ledger
from tcb_ops.ledger.records import RunRecord
from tcb_ops.model import RowEnd
from tcb_ops.system_errors import exhausted, system_reason

LINK_COLUMNS = ("errcode", "errmsg", "url", "token", "authorization", "file_id", "cos_file_id", "expires_at")
"""Names of the interface, and the link's expiry."""
_OWNER = re.compile(rb"# [0-9A-Za-z-]{4,60}\n")
"""The first line of a part file: its run's id."""
_LONGEST_LINE = 1_000_000
"""Bytes of a line with its line break, at most: the six fields of a link have up to 16 KiB each."""


class _Returned:
    write = staticmethod(str)


csv_line = csv.writer(_Returned()).writerow
"""Returns the line of a CSV with these cells, which ends with CRLF."""


def check_columns(headers: Iterable[str]) -> None:
    """Raise UsageError for a list with a column that links.csv itself writes."""
    if twice := [name for name in headers if name.strip().lower() in LINK_COLUMNS]:
        raise UsageError(
            _(
                "The list has a column that links.csv itself writes: {names}. Rename it in the list.",
                names=as_list(twice),
            )
        )


def check_destination(dest: Path) -> None:
    """Raise UsageError unless `dest` is a new file, or an earlier links.csv.

    A wrong --out must not overwrite a list.
    """
    if dest.suffix.lower() in {".xlsx", ".xlsm", ".xls"}:
        raise UsageError(
            _(
                "{--out} {dest}: links are secrets, which are written only to a CSV file that nobody else can read: a workbook is "
                "opened, copied and sent on. Give a name that ends in .csv.",
                dest=dest,
            )
        )
    head = b""
    try:
        if stat.S_ISREG(dest.lstat().st_mode):  # to open a pipe would wait for its writer
            with dest.open("rb") as file:
                head = file.readline(1_000_000)
    except FileNotFoundError:
        if dest.parent.is_dir():
            return
    except OSError:
        pass
    if not head.rstrip(b"\r\n").endswith(",".join(LINK_COLUMNS).encode()):
        raise UsageError(
            _(
                "{--out} {dest}: this must be a new file in an existing folder, or an earlier file of links, which is "
                "replaced. Choose another file.",
                dest=dest,
            ),
        )


class LinksFile:
    """The links of one run: the part file that collects them, and the links.csv written from it."""

    def __init__(
        self,
        dest: Path,
        run_id: str,
        zone: ZoneInfo,
        started_at: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`zone`: of `expires_at`. `started_at`: the planned links.csv, beside which the part is; None if it is `dest`."""
        self.dest = dest
        started_at = started_at or dest
        self.part = started_at.with_name(f"{started_at.name}.part")
        self._run_id, self._clock = run_id, clock
        self._expiry = lru_cache(4)(partial(_expiry, zone=zone))
        self._file: io.BufferedRandom | None = None

    def open(self, may_discard: Callable[[str], bool] = lambda _run: False) -> None:
        """Open the part file for appending, and remove an incomplete last line.

        Raises UsageError for another run's part file, unless `may_discard` returns True for that run's id.
        """
        head = f"# {self._run_id}\n".encode()
        has_links = True
        try:
            handle = os.open(self.part, os.O_RDWR | os.O_CREAT, 0o600)
            self._file = os.fdopen(handle, "r+b")
            self.part.chmod(0o600)
            first_line = self._file.readline()
            owner = first_line[2:].decode(errors="replace").strip()
            # One without a line break is torn, and has no links yet.
            if (
                first_line.endswith(b"\n")
                and first_line != head
                and not (_OWNER.fullmatch(first_line) and may_discard(owner))
            ):
                self.close()
                raise UsageError(
                    _(
                        "{part} belongs to another run ({owner}): resume that run, discard it with {--new-run}, or "
                        "choose another file with {--out}.",
                        part=self.part,
                        owner=owner[:40],
                    ),
                )
            if first_line != head:
                has_links = False
                self._file.seek(0)
                self._file.truncate()
                self._file.write(head)
                self._file.flush()
                os.fsync(self._file.fileno())  # else later bytes might survive without it
                sync_to_disk(self.part.parent)
            _cut_torn_line(self._file)
        except OSError as error:
            if not has_links:
                self.discard()  # the run may be forgotten, and its part would be in the way of the next
            raise _trouble(self.part, error) from None

    def close(self) -> None:
        """Close the part file, and keep it for the next session."""
        if self._file is not None:
            with suppress(OSError):  # a full disk was reported when the write failed
                self._file.close()
            self._file = None

    def append(self, ends: Iterable[RowEnd]) -> None:
        """Append the links of these ends, and sync them to disk.

        A record has the row's line, the link's expiry by this machine's clock, and the columns of links.csv.
        """
        if self._file is None:
            return
        now, records = self._clock(), []
        for end in ends:
            link = end.link
            if link is not None:
                fields = (
                    str(end.line),
                    str(now + link.alive_for(now)),
                    str(end.errcode),
                    end.errmsg,
                    link.url.reveal(),
                    link.token.reveal(),
                    link.authorization.reveal(),
                    link.file_id,
                    link.cos_file_id.reveal(),
                    self._expiry(link.expires_at),
                )
                record = ",".join(fields)
                if record.count(",") >= len(fields) or '"' in record:
                    # Only if needed: the csv module examines every character.
                    record = csv_line(fields).removesuffix("\r\n")
                records.append(record)
        if not records:
            return
        records.append("")
        try:
            self._file.write("\n".join(records).encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _trouble(self.part, error) from None

    def lost(self, linked: Iterable[int], now: float) -> Iterator[int]:
        """Return those of the linked lines whose link is missing here or has expired."""
        offsets = self._find(now)
        return (line for line in linked if line >= len(offsets) or offsets[line] < 0)

    def finish(self, ledger: Ledger, run: RunRecord, now: float) -> int:
        """Write links.csv in the list's order, each row once; return how many of its links have expired."""
        offsets = self._find(None)
        run_out = 0
        try:
            with (
                replacing(self.dest, private=True) as fresh,
                fresh.open("wb") as out,
                self.part.open("rb") as part,
            ):
                out.write(csv_line((*run.headers, *LINK_COLUMNS)).encode())
                for line, cells, outcome, errcode, errmsg in ledger.listed(run):
                    if outcome == "linked":
                        part.seek(offsets[line])
                        _, alive_until, text = part.readline().split(b",", 2)
                        run_out += float(alive_until) <= now
                        # One cell more: csv.writer would quote a single empty one.
                        out.write(b"%b%b\r\n" % (csv_line((*cells, ""))[:-2].encode(), text[:-1]))
                    else:
                        out.write(csv_line((*cells, errcode, errmsg, *[""] * 6)).encode())
        except OSError as error:
            raise _trouble(self.dest, error) from None
        return run_out

    def discard(self) -> None:
        """Remove the part file of a finished run."""
        self.close()
        with suppress(OSError):  # the next run that writes here removes it
            self.part.unlink()

    def _find(self, alive_at: float | None) -> array[int]:
        """Return the offset of each line's newest link, -1 for none: with `alive_at`, for expired and damaged ones, too."""
        offsets = array("q")
        try:
            part = self.part.open("rb")
        except OSError as error:
            raise _trouble(self.part, error) from None
        with part:
            position = len(part.readline())
            for record in part:
                number, _, rest = record.partition(b",")
                begin, position = position, position + len(record)
                if not number.isdigit() or len(number) > 9:
                    continue
                line = int(number)
                # The newest record counts, also a damaged one: an earlier link of the row has been replaced, so it may have expired.
                if line >= len(offsets):
                    offsets.extend([-1] * (line + 1 - len(offsets)))
                try:
                    alive = alive_at is None or float(rest.partition(b",")[0]) > alive_at
                except ValueError:
                    alive = False
                offsets[line] = begin if alive else -1
        return offsets


def _expiry(expires_at: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(expires_at, UTC).astimezone(zone).isoformat()


def _cut_torn_line(file: io.BufferedRandom) -> None:
    """Remove the incomplete last line of a killed process, and seek to the end. Links contain no line breaks."""
    begin = max(0, file.seek(0, os.SEEK_END) - _LONGEST_LINE)
    file.seek(begin)
    file.truncate(begin + file.read().rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)


def _trouble(file: Path, error: OSError) -> StoppedError:
    if (shortage := exhausted(error)) is not None:
        return shortage
    return StoppedError(
        _(
            "{file}: {why}. What was committed is safe: free space or fix the access, then try again.",
            file=file,
            why=system_reason(error),
        )
    )
