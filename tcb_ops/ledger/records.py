"""The values that the ledger stores, and their conversion to and from records."""

from __future__ import annotations

import json
from collections import Counter, namedtuple
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from typing import Any, TypedDict

import msgspec

from tcb_ops.details import Detail, as_detail, read_detail, stored
from tcb_ops.hooks import features
from tcb_ops.i18n import Text, _
from tcb_ops.kinds import Kind, kind_named
from tcb_ops.model import SIMULATOR, Outcome, Owner, Reason, Row, RowEnd, RunSettings, Selection

_ANSWERS = "why"
"""The name of `RunRecord.answers` among the settings in the ledger."""
REPLACED = "replaced"
"""The name of REPLACED_CACHED among `RunRecord.answers`, counted once at the run's end."""
MESSAGE, LETTER = "message", "letter"
"""How a merchant was asked: `Asked.how`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a merchant was asked for, when and by whom."""

    target: str
    appid: str
    cause: str
    """Its name in causes.csv."""
    merchant: str
    run: str
    """The id of the run whose rows wait for it."""
    operator: str
    """Empty: WeChat told that it was asked in the last 24 hours, not by whom."""
    how: str
    """`message`, which WeChat sent, or `letter`, which the operator sent."""
    at: str
    """ISO 8601 with offset."""
    done: bool = False

    @property
    def text(self) -> Text:
        """When and by whom, in place of advice to ask."""
        text = _("Asked on {day} by {operator} (a text with what to do). No confirmation seen yet.")
        if self.how == MESSAGE:
            text = _(
                "Asked on {day} by {operator} (a message from WeChat, at most one in 24 hours). No confirmation seen yet."
            )
        if not self.operator:
            text = _(
                "Asked already, in the 24 hours before {day}, by someone else or an earlier call (a message from WeChat, at most "
                "one in 24 hours). No confirmation seen yet."
            )
        return text.format(day=self.at[:16].replace("T", " "), operator=self.operator)


ASKED_COLUMNS = tuple(column.name for column in fields(Asked))


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be written to the ledger."""

    id: str
    kind: Kind
    target: str
    list_name: str
    list_sha256: str
    list_bytes: int
    headers: tuple[str, ...]
    root: str
    settings: RunSettings
    note: str
    operator: str
    host: str
    out: str
    created_at: float
    parent: str = ""


@dataclass(frozen=True, slots=True)
class RunRecord(NewRun):
    """A run as recorded in the ledger."""

    number: int = 0
    """Primary key in the ledger."""
    rows: int = 0
    """Planned rows, invalid ones included."""
    seconds: float = 0.0
    """Over all sessions."""
    link_calls: int = 0
    upload_calls: int = 0
    finished_at: float | None = None
    stopped: Detail | None = None
    """Why the last session ended early; None when it did not."""
    cut_off: float | None = None
    """When a session ended with calls under way, or after a kill the next one began, in Unix seconds; None if none did."""
    newest_run: int = 0
    """The number of the newest run when this one last recorded something, or was resumed."""
    report: str = ""
    """Path of its newest report folder."""
    changes_store: bool = False
    """Whether its rows may change what is stored; its kind, which says so, may be missing later."""
    answers: Mapping[str, Any] = field(default_factory=dict)
    """What was found out about it: verdicts, the platform's answers, what it replaced. The ledger keeps it beside its settings."""
    undelivered: tuple[str, ...] = ()
    """The receivers of a message about its findings to whom that was not delivered."""
    retries: tuple[str, ...] = ()
    """Ids of the retries merged into it by `report --final`; not in the ledger."""
    environments: tuple[tuple[str, str], ...] = ()
    """Environments selected by `report --where`, as (appid, env); empty for all. Not in the ledger."""

    @property
    def links(self) -> str:
        """Path of the file of the links of a finished links run; empty for any other run."""
        return self.out if self.kind.writes_links and self.finished_at is not None else ""

    @property
    def selection(self) -> Selection:
        """The part of the list or of the merchants that it is about."""
        return Selection(self.settings.selection)

    @property
    def corrects(self) -> str:
        """The id of the run whose rows it has corrected, with the lines that they have there; empty for none."""
        return self.settings.corrects or ""

    @property
    def simulated(self) -> bool:
        """Whether its target was a simulator, as the handshake found."""
        return SIMULATOR in {self.target, self.settings.listener}

    @property
    def has_findings(self) -> bool:
        """Whether the run is reported by what it found: it is finished, and no retry, which is only a part of one."""
        return self.kind.has_findings and self.finished_at is not None and not self.parent

    def may_be_resumed(self, now: float) -> bool:
        """Return whether the run is unfinished, or was killed lately while its report was written."""
        if self.finished_at is None:
            return True
        return (
            self.out not in {"", self.links}
            and self.report == ""
            and now - self.created_at < resumed_within(self.kind)
        )


@dataclass(frozen=True, slots=True)
class LaterChange:
    """What a later run did to files of an upload and its retries."""

    kind: Kind
    """UNDO, DELETE, or UPLOAD, which overwrote them."""
    run: str
    number: int
    """The later run's, which grows from run to run."""
    at: float
    """When that run ended or, unfinished, when it was created, in Unix seconds."""
    files: int
    of: int
    """Files that the upload stored or left unchanged."""


def resumed_within(kind: Kind) -> float:
    """Return the age in seconds below which an unfinished run is resumed by the same command."""
    return kind.renewed_after or 24 * 3600.0


@dataclass(frozen=True, slots=True)
class EnvRecord:
    """One merchant's environment in a run."""

    number: int
    env: str
    appid: str
    merchant: str
    owner: Owner
    left: bool
    rows: int = 0
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Closing:
    """The closing of an environment: no further row begins; pending rows that are not in flight end like `end`."""

    environment: EnvRecord
    end: RowEnd
    """Its line is unused."""
    in_flight: tuple[int, ...] = ()
    """Lines."""


@dataclass(frozen=True, slots=True)
class RowRecord:
    """A row of a run: its input, and how it ended or that it is pending."""

    row: Row
    end: RowEnd


class RowFilter(TypedDict, total=False):
    """Which rows of a run are read: those that fit every key; None stands for all."""

    outcomes: Collection[Outcome] | None
    merchant: str
    """A name or an appid."""
    path: str
    """A cloud path, or a part of one."""
    line: int | None
    after_line: int
    lines: Collection[int]
    lines_not_of: Collection[int]
    """Without the lines of other runs, given by their numbers."""
    ends: Collection[tuple[Outcome, str, int | None, str]] | None
    """By outcome, reason, errcode and store_code."""
    environments: Sequence[EnvRecord] | None


@dataclass(frozen=True, slots=True)
class Tally:
    """The number of rows of one merchant's environment that ended with the same outcome, reason and code."""

    appid: str
    merchant: str
    env: str
    outcome: Outcome
    reason: Reason | None
    errcode: int | None
    store_code: str
    rows: int
    errmsg: str = ""
    """The platform's message for one of these rows."""
    detail: Detail | None = None
    """Detail of one of these rows: why there was no token, an environment's status."""

    @property
    def key(self) -> tuple[Any, ...]:
        """Whose rows they are, and how they ended."""
        return self.appid, self.merchant, self.env, self.outcome, self.reason, self.errcode, self.store_code


def count_outcomes(tallies: Iterable[Tally]) -> dict[Outcome, int]:
    """Count rows by outcome, without zeros, in the order of the outcomes."""
    counted: Counter[Outcome] = Counter()
    for tally in tallies:
        counted[tally.outcome] += tally.rows
    return Outcome.in_order(counted)


def may_have_changed(end: RowEnd, kind: Kind, settings: RunSettings, cut_off: float | None) -> bool:
    """Decide whether a row of an upload, undo or delete that did not succeed may have changed what is at its path.

    The first line that applies decides.

    ==========================================  ==========================  ========  ======
    reason                                      the run                     attempts  result
    ==========================================  ==========================  ========  ======
    any, after the run was cut off              any                         any       yes
    no_answer, no_confirmation, etag_mismatch   any                         any       yes
    store_refused                               undo                        over 3    yes
    refused, store_refused                      upload with a backup        over 3    yes
    refused, store_refused                      any other upload, undo      over 2    yes
    refused                                     delete                      over 1    yes
    any other: it ended before its next call    upload with a backup        over 2    yes
    any other: it ended before its next call    any other upload, undo      over 1    yes
    any other: it ended before its next call    delete                      over 0    yes
    any                                                                               no
    ==========================================  ==========================  ========  ======

    `attempts`: calls. A delete's first may change the path, and an undo's second, after one that looks, or its third, if it
    restores a file with a link. An upload's second, after its link, and one more if it has looked for its backup. A refusal has
    changed nothing, but the calls before it may have, if they got no answer. `settings`, `cut_off`: the run's. Of one that was
    cut off, an earlier session may have made the call without recording it.
    """
    if cut_off is not None and end.ended_at is not None and end.ended_at >= cut_off:
        return True
    if end.reason in {Reason.NO_ANSWER, Reason.NO_CONFIRMATION, Reason.ETAG_MISMATCH}:
        return True
    if settings.undoes:
        before = 2 if end.reason is Reason.STORE_REFUSED else 1
    else:
        before = kind.sends_files + bool(settings.backup)
    refused = end.reason in {Reason.STORE_REFUSED, Reason.REFUSED}
    return end.attempts > before + refused


@dataclass(frozen=True, slots=True)
class Usage:
    """Time and calls that a session has used since its last commit."""

    seconds: float = 0.0
    link_calls: int = 0
    upload_calls: int = 0


@dataclass(frozen=True, slots=True)
class TimelineBucket:
    """An interval of a run, and the outcomes of the rows that ended in it."""

    at: float
    """Unix seconds."""
    until: float
    outcomes: Mapping[Outcome, int]
    """Without zeros."""


END_COLUMNS = tuple(name for name in RowEnd.__dataclass_fields__ if name not in {"line", "link"})
"""Columns written when a row ends, named like the fields of RowEnd."""
WRITE_END = f"UPDATE rows SET {', '.join(f'{name} = ?' for name in END_COLUMNS)}, room = NULL WHERE run = ?"
PLAN_COLUMNS = (
    "run", "line", "place", "path", "file", "size", "mtime_ns", "cells", "outcome", "reason", "detail",
    "content_type", "cache_control", "etag", "room",
)  # fmt: skip
"""Columns written when a run is planned."""
END_BYTES = 46
"""Bytes that a row's end takes in the ledger, besides the environment and path in its file id."""
FILE_BYTES = 38
"""Further ones, of the MD5 and size of a file that was sent."""
_plain = attrgetter(*END_COLUMNS[3:])


def end_values(end: RowEnd) -> tuple[Any, ...]:
    """Return a row's end as the values of END_COLUMNS."""
    # Drivers accept a plain str directly, and search for an adapter for any other class.
    reason = str.__str__(end.reason) if end.reason is not None else ""
    detail = stored(end.detail) if end.detail is not None else ""
    return (str.__str__(end.outcome), reason, detail, *_plain(end))


def plan_values(
    number: int, number_of: Mapping[tuple[str, str], int], kind: Kind, with_room: bool, row: Row
) -> tuple[Any, ...]:
    """Return a planned row as the values of PLAN_COLUMNS; for an upload, with the object's headers."""
    content_type, cache_control = kind.stored_headers(row)
    state = ("pending", "", "")
    if row.invalid:
        skipped = str.__str__(kind.end_of(RowEnd(row.line, Outcome.INVALID)).outcome)
        state = (skipped, skipped, stored(as_detail(row.invalid)))
    env_number, cells = number_of[row.env, row.appid], _encode(row.cells).decode()
    # A file id is cloud://ENV.4hex-ENV-APPID/PATH (domain.md, 1.1).
    room = (
        END_BYTES + FILE_BYTES * kind.sends_files + 2 * len(row.env) + len(row.path.encode())
        if with_room and not row.invalid
        else 0
    )
    return (
        number, row.line, env_number, row.path, row.file, row.size, row.mtime_ns, cells, *state,
        content_type, cache_control, row.etag or None, " " * room or None,
    )  # fmt: skip


# Rows are read by position in the table (schema.py): by name, a report of a million rows takes a third longer.
_encode = msgspec.json.Encoder().encode
read_cells = msgspec.json.Decoder(tuple[str, ...]).decode
"""Parses a JSON list of strings. Raises ValueError for a damaged one."""
features()  # they register the outcomes and reasons that a ledger may hold
OUTCOMES = {str(outcome): outcome for outcome in Outcome.all()}
"""The outcomes that are known here, by their names."""
_REASONS = {"": None} | {str(reason): reason for reason in Reason.all()}


PENDING_COLUMNS = "line, path, file, size, mtime_ns, content_type, cache_control, etag"
"""Columns read of a row to work on."""


def read_row(record: Any, environment: EnvRecord) -> Row:
    """Return the row of a record of the rows table. Raises ValueError or TypeError for a damaged record."""
    line, _, path, file, size, mtime_ns, cells = record[1:8]
    content_type, cache_control, etag = record[22:25]
    return Row(
        line, environment.env, path, environment.appid, environment.merchant, file, read_cells(cells), size, mtime_ns, None,
        content_type or "", cache_control or "", etag or "",
    )  # fmt: skip


def read_pending(record: Any, environment: EnvRecord) -> Row:
    """Return the row of a record of PENDING_COLUMNS, without cells."""
    line, path, file, size, mtime_ns, content_type, cache_control, etag = record
    return Row(
        line, environment.env, path, environment.appid, environment.merchant, file, (), size, mtime_ns, None,
        content_type or "", cache_control or "", etag or "",
    )  # fmt: skip


def read_end(record: Any) -> RowEnd:
    """Return how the row of a record ended. Raises ValueError, TypeError or KeyError for a damaged record."""
    detail = read_detail(record[10]) if record[10] else None
    return RowEnd(record[1], OUTCOMES[record[8]], _REASONS[record[9]], detail, *record[11:22])


def read_env(record: Any) -> EnvRecord:
    """Return the environment of a record. Raises ValueError for a damaged record."""
    _, number, env, appid, merchant, owner, has_left, _ = record
    return EnvRecord(number, env, appid, merchant, Owner(owner), bool(has_left))


RUN_COLUMNS = tuple(
    name for name in RunRecord.__dataclass_fields__ if name not in {"answers", "retries", "environments"}
)
"""Columns read of a run, named like the fields of RunRecord."""
StoredRun: Any = namedtuple("StoredRun", RUN_COLUMNS)  # type: ignore[misc]  # noqa: PYI024  the fields of a type that is checked
"""The record of a run, which may be damaged."""


def read_run(record: Any) -> RunRecord:
    """Return the run of a record. Raises ValueError or TypeError for a damaged record."""
    kind, settings = kind_named(record.kind), dict(json.loads(record.settings))
    values = {
        "kind": kind,
        "headers": read_cells(record.headers),
        "answers": settings.pop(_ANSWERS, {}),
        "settings": msgspec.convert(settings, kind.settings),
        "stopped": read_detail(record.stopped),
        "changes_store": bool(record.changes_store),
        "undelivered": tuple(record.undelivered.split("\n")) if record.undelivered else (),
    }
    return RunRecord(**record._asdict() | values)


def run_values(new: NewRun) -> dict[str, Any]:
    """Return a new run's record."""
    return asdict(new) | {
        "kind": str.__str__(new.kind),
        "changes_store": new.kind.changes_store,
        "headers": json.dumps(new.headers, ensure_ascii=False),
        "settings": encoded_settings(new.settings, {}),
    }


def encoded_settings(settings: RunSettings, answers: Mapping[str, Any]) -> str:
    """Return a run's settings as the ledger keeps them, with what was asked about it."""
    kept = settings.facts() | ({_ANSWERS: answers} if answers else {})
    return json.dumps(kept, ensure_ascii=False, sort_keys=True)
