"""A run's rows as text: the lines of results.csv and failed.csv, and the input of the digest, from the ledger's records.

A million rows are exported and verified without an object for each. A row's text is composed from its record, and each
batch is searched once for what its lines must not contain: secrets, control characters. A row with something to quote,
guard or mask is written cell by cell (`formats.csv.RowLines`), which also defines what the texts must be.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo
from itertools import islice
from json.encoder import encode_basestring
from typing import Any, Protocol

from tcb_ops.details import read_detail
from tcb_ops.formatting import RISKY, guard
from tcb_ops.i18n import Lang
from tcb_ops.model import SUCCESSES, Outcome, Reason, RowEnd
from tcb_ops.reports.formats.csv import Clock, RowLines, explanation
from tcb_ops.reports.manifest import RowsDigest, detail_text, encode, fields
from tcb_ops.runs.reader import LedgerReader, RunReader
from tcb_ops.runs.records import RowRecord, RunRecord, read_end, read_row
from tcb_ops.secrets import masked, redact

_GOOD = frozenset(map(str, SUCCESSES))
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHARED = 1_000
"""Maximum number of cached texts that many rows share, such as the sentence for an errcode."""
_BATCH = 1_000
"""Rows read at a time as objects."""


class _IrregularError(Exception):
    """A text that has to be masked: its row is written cell by cell."""


class RowTexts(Protocol):
    """The lines of a run's rows, in the order of the list, and the digest over them."""

    @property
    def head(self) -> str:
        """The first line of both files."""

    @property
    def hidden(self) -> int:
        """Number of rows so far in which a possible secret was masked."""

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield the lines of the next rows, and of those that did not succeed; only once. Raises LedgerDamagedError."""

    def hexdigest(self) -> str:
        """Return the digest (`manifest`) over the rows so far: 64 hex digits."""


def row_texts(reader: RunReader, run: RunRecord, lang: Lang, zone: tzinfo) -> RowTexts:
    """Return the texts of a run's rows, in a language and a time zone."""
    if isinstance(reader, LedgerReader):
        return _TextsOfRecords(reader, run, lang, zone)
    return TextsOfRows(reader.rows(run), run.headers, lang, zone)


class TextsOfRows:
    """The texts of rows that are read one by one, such as those of a run merged with its retries."""

    def __init__(self, rows: Iterable[RowRecord], headers: Sequence[str], lang: Lang, zone: tzinfo) -> None:
        self._digest, self._lines = RowsDigest(), RowLines(headers, lang, zone)
        self._rows, self.hexdigest = self._digest.passing(rows), self._digest.hexdigest
        self.head = self._lines.head()

    @property
    def hidden(self) -> int:
        """Number of rows so far in which something was masked."""
        return self._lines.hidden

    def __iter__(self) -> Iterator[tuple[str, str]]:
        while batch := list(islice(self._rows, _BATCH)):
            lines = [(self._lines.line(record), record.end.outcome in SUCCESSES) for record in batch]
            yield "".join(line for line, _ in lines), "".join(line for line, good in lines if not good)


class _TextsOfRecords:
    """The texts of a run in the ledger."""

    def __init__(self, reader: LedgerReader, run: RunRecord, lang: Lang, zone: tzinfo) -> None:
        self._reader, self._run, self._lang = reader, run, lang
        self._lines = RowLines(run.headers, lang, zone)
        self.head = self._lines.head()
        self._iso = Clock(zone).of_milliseconds
        self._environments = {place.number: place for place in reader.envs(run)}
        self._places: dict[int, tuple[str, str]] = {}
        self._kept: dict[Any, Any] = {}
        self._sha256, self._between = hashlib.sha256(), "["

    @property
    def hidden(self) -> int:
        """Number of rows so far in which something was masked."""
        return self._lines.hidden

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for records in self._reader.records(self._run):
            with self._reader.reading(self._run):
                lines, digested = self._texts(records)
            self._sha256.update(f"{self._between}{','.join(digested)}".encode())
            self._between = ","
            bad = [line for line, record in zip(lines, records, strict=True) if record[8] not in _GOOD]
            yield "".join(lines), "".join(bad)

    def hexdigest(self) -> str:
        """Return the digest over the rows so far."""
        whole = self._sha256.copy()
        whole.update(b"]" if self._between == "," else b"[]")
        return whole.hexdigest()

    def _texts(self, records: Sequence[Any]) -> tuple[list[str], list[str]]:
        """Return the rows' lines with line breaks, and their parts of the digest's input."""
        made = [*map(self._regular, records)]
        lines, digested = [line for line, _ in made], [text for _, text in made]
        if "" in lines or _has_special("".join(lines)):
            for number, line in enumerate(lines):
                if not line or _has_special(line):
                    record = records[number]
                    row = RowRecord(read_row(record, self._environments[record[2]]), read_end(record))
                    lines[number] = self._lines.line(row).removesuffix("\r\n")
                    digested[number] = encode([fields(row)])[1:-1]
        return [f"{line}\r\n" for line in lines], digested

    def _regular(self, record: Any) -> tuple[str, str]:
        """Return a row's line without a line break, and its part of the digest's input; empty texts if irregular."""
        (
            _run, line, place, path, file, size, _mtime, cells, outcome, reason, detail, errcode, errmsg, rid, http_status,
            store_code, attempts, sent, md5, file_id, started, ended, content_type, cache_control, _etag,
        ) = record  # fmt: skip
        texts = cells[2:-2].split('","')
        own = ",".join(texts)
        if (
            # Without escapes, the ledger's JSON is the digest's, and the cells are the texts between its quotes.
            "\\" in cells
            or cells.count('"') != 2 * len(texts)
            or not (cells.startswith('["') and cells.endswith('"]'))
            or own.count(",") != len(texts) - 1
            or not RISKY.isdisjoint([text[:1] for text in texts])
        ):
            return "", ""
        quoted = encode_basestring
        begun = None if started is None else round(started * 1000)
        done = None if ended is None else round(ended * 1000)
        try:
            in_csv, in_json = self._places.get(place) or self._place(place)
            words, in_digest = self._why(outcome, reason, detail, errcode, store_code, http_status)
            text = (
                f"{own},{line},{in_csv},{outcome},{words},{'' if errcode is None else errcode},"
                f"{self._server_text(errmsg)},{self._server_text(rid)},{'' if http_status is None else http_status},"
                f"{self._server_text(store_code)},{attempts},{'' if sent is None else sent},"
                f"{md5 if md5.isalnum() else _cell(md5)},"
                f"{_cell(redact(file_id) if '=' in file_id else file_id)},"
                f"{_cell(content_type) if content_type else ''},"
                f"{'' if begun is None else self._iso(begun)},{'' if done is None else self._iso(done)}"
            )
        except _IrregularError:
            return "", ""
        headers = (
            f",{quoted(content_type or '')},{quoted(cache_control or '')}"
            if content_type or cache_control
            else ""
        )
        return text, (
            f"[{line},{in_json},{quoted(path)},{quoted(file)},{'null' if size is None else size},{cells},"
            f'"{outcome}","{reason}",{in_digest},{"null" if errcode is None else errcode},{quoted(errmsg)},{quoted(rid)},'
            f"{'null' if http_status is None else http_status},{quoted(store_code)},{attempts},"
            f"{'null' if sent is None else sent},{quoted(md5)},{quoted(file_id)},"
            f"{'null' if begun is None else begun},{'null' if done is None else done}{headers}]"
        )

    def _place(self, number: int) -> tuple[str, str]:
        """Return an environment's parts of the line and of the digest's input."""
        place = self._environments[number]
        in_csv = ",".join(map(_cell, (place.merchant, place.appid, place.env)))
        if len(self._places) >= _SHARED:
            self._places.clear()
        self._places[number] = in_csv, encode((place.env, place.appid, place.merchant))[1:-1]
        return self._places[number]

    def _why(self, *state: Any) -> tuple[str, str]:
        """Return the two columns of WORDS, and the detail for the digest."""
        found: tuple[str, str] | None = self._kept.get(state)
        if found is None:
            outcome, reason, detail, errcode, store_code, http_status = state
            end = RowEnd(
                0,
                Outcome(outcome),
                Reason(reason) if reason else None,
                read_detail(detail),
                errcode,
                http_status=http_status,
                store_code=store_code,
            )
            words = ",".join(map(_cell, explanation(end, self._lang)))
            found = words, encode_basestring(detail_text(end.detail))
            self._keep(state, found)
        return found

    def _server_text(self, text: str) -> str:
        """Return the cell of a text from a server, redacted."""
        if not text:
            return ""
        found: str | None = self._kept.get(text)
        if found is None:
            found = _cell(redact(text))
            self._keep(text, found)
        return found

    def _keep(self, key: Any, value: Any) -> None:
        if len(self._kept) >= _SHARED:
            self._kept.clear()
        self._kept[key] = value


def _cell(text: str) -> str:
    """Return a text as a cell of a line. Raises _IrregularError if it has to be masked."""
    if text[:1] in RISKY:
        text = guard(text)
    if "," in text or '"' in text:  # line breaks make the row irregular
        if masked(text) != text:  # once quoted, a secret might not be found
            raise _IrregularError
        text = '"' + text.replace('"', '""') + '"'
    return text


def _has_special(text: str) -> bool:
    """Return whether lines contain a control character, or what looks like a secret."""
    return (not text.isprintable() and _CONTROL.search(text) is not None) or masked(text) != text
