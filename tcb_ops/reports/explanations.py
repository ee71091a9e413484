"""Why rows did not succeed and what to do: texts in both languages for an outcome and its codes. Pure.

The catalogue (errcodes.csv, storecodes.csv, reasons.csv) has the texts; this module selects those of a row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from functools import cache
from typing import TYPE_CHECKING

from tcb_ops import errcodes
from tcb_ops.details import Detail, detail
from tcb_ops.i18n import NOTHING, Joined, Text, _, as_list, as_sentences, ngettext, pgettext, verbatim
from tcb_ops.model import SUCCESSES, Kind, Outcome, Owner, Reason, RowEnd
from tcb_ops.secrets import redact

if TYPE_CHECKING:
    from tcb_ops.runs.later_changes import LaterChange  # loads SQLAlchemy
    from tcb_ops.runs.records import Tally

_KIND_TEXTS = {
    Kind.LINKS: (_("links"), _("Upload links report"), _("issued with a link")),
    Kind.UPLOAD: (_("upload"), _("Upload report"), _("uploaded")),
    Kind.AUDIT: (_("audit"), _("Audit report"), _("healthy")),
    Kind.CONFIRM: (_("confirm"), _("Confirmation report"), _("the file is there")),
    Kind.DELETE: (_("delete"), _("Deletion report"), _("deleted or already gone")),
    Kind.UNDO: (_("undo"), _("Undo report"), _("restored or deleted")),
}
KINDS = {kind: texts[0] for kind, texts in _KIND_TEXTS.items()}
"""What runs of a kind do, in panels and cards of notebooks."""
TITLES = {kind: texts[1] for kind, texts in _KIND_TEXTS.items()}
"""A report's title, by the run's kind."""
_CHANGED = {
    Kind.UNDO: (
        _("This upload was undone by run {run} on {at}."),
        _("{files:,} of {total:,} files of this upload were undone by run {run} on {at}."),
    ),
    Kind.DELETE: (
        _("The files of this upload were deleted by run {run} on {at}."),
        _("{files:,} of {total:,} files of this upload were deleted by run {run} on {at}."),
    ),
    Kind.UPLOAD: (
        _("The files of this upload were overwritten by run {run} on {at}."),
        _("{files:,} of {total:,} files of this upload were overwritten by run {run} on {at}."),
    ),
}
"""What a later run did to all files of an upload, and to some."""
_MARKS = {
    Kind.UNDO: (_("undone by {run}"), _("partly undone by {run}")),
    Kind.DELETE: (_("deleted by {run}"), _("partly deleted by {run}")),
    Kind.UPLOAD: (_("overwritten by {run}"), _("partly overwritten by {run}")),
}
"""The same in a list of runs."""
_DONE = {kind: texts[2] for kind, texts in _KIND_TEXTS.items()}
"""What was done to all rows of a run that succeeded."""
OUTCOMES: dict[Outcome, Text] = {
    Outcome.LINKED: _("linked"),
    Outcome.UPLOADED: _("uploaded"),
    Outcome.UNCHANGED: _("unchanged"),
    Outcome.HEALTHY: _("healthy"),
    Outcome.REFUSED: _("refused"),
    Outcome.FAILED: _("failed"),
    Outcome.NOT_ATTEMPTED: _("not attempted"),
    Outcome.UNHEALTHY: _("unhealthy"),
    Outcome.UNKNOWN: pgettext("outcome", "unknown"),
    Outcome.PRESENT: _("present"),
    Outcome.ABSENT: _("absent"),
    Outcome.DIFFERENT: _("different"),
    Outcome.FOREIGN: _("foreign"),
    Outcome.STALE: _("stale"),
    Outcome.UNDONE: pgettext("outcome", "undone"),
    Outcome.DELETED: _("deleted"),
    Outcome.ALREADY_GONE: _("already gone"),
    Outcome.RESTORED: _("restored"),
    Outcome.CONFLICT: _("conflict"),
    Outcome.NOT_UNDOABLE: _("cannot be undone"),
    Outcome.INVALID: _("invalid"),
    Outcome.PENDING: _("pending"),
}
"""Names of the outcomes on screens."""
MARK = "SIMULATED 演练"
"""Marks what is about a loopback target."""

ERRMSG = 160
"""Characters of an errmsg shown beside a cause; results.csv has all of it."""
ETAG_MISMATCH = "ETagMismatch"
"""Recorded in place of a store's code if the stored object's checksum does not match the file."""
COMPONENT_MARK = " (component)"
"""Distinguishes an errcode of the component token from the merchants' own."""
ERRCODE = re.compile("-?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Why:
    """Why rows did not succeed: the code they are counted under, its meaning, what to do."""

    code: str
    """An errcode, a code of the store, or else the reason's name."""
    meaning: Text
    action: Text
    read_errmsg: bool = False
    """Whether the action refers the operator to the platform's own message."""


def why(
    outcome: Outcome,
    reason: Reason | None,
    errcode: int | None,
    store_code: str,
    *,
    message: str = "",
    http_status: int | None = None,
) -> Why | None:
    """Return the code that a row is counted under, with its texts; None for a row that succeeded.

    ======================================  ================  ==============================
    the outcome                             code              texts
    ======================================  ================  ==============================
    success                                 none
    pending                                 pending           resume the run
    an errcode other than 0                 the errcode       the catalogue's
    the same, of the component token        it, (component)   the catalogue's, if they differ from a merchant's
    the same, of a dead token               the errcode       the reason's: the source returned the token again
    ETagMismatch                            ETagMismatch      the reason's (it is not a code of the store)
    a code of the store                     the store's code  the catalogue's
    the store refused without a code        store_refused     the catalogue's for the HTTP status, if there is one
    anything else                           the reason        the reason's
    ======================================  ================  ==============================

    `message` and `http_status` are the store's; for a single row, they make the texts more precise.
    """
    if outcome in SUCCESSES or outcome is Outcome.PENDING:
        return None if outcome in SUCCESSES else _of_reason(Outcome.PENDING)
    if errcode and reason is Reason.DEAD_TOKEN:
        return replace(_of_reason(reason), code=str(errcode))
    if errcode:
        known = errcodes.errcode(errcode)
        own = errcodes.errcode(errcode, Owner.PLATFORM) if reason is Reason.COMPONENT else known
        # Separate from merchants' rows with the same code: a different cause with a different fix.
        shown = f"{errcode}{COMPONENT_MARK}" if own != known else str(errcode)
        return Why(shown, own.meaning, own.action, own.read_errmsg)
    if store_code == ETAG_MISMATCH:
        return replace(_of_reason(Reason.ETAG_MISMATCH), code=store_code)
    if store_code or (reason is Reason.STORE_REFUSED and http_status):
        # An unknown code may be any text from the server, and the catalogue quotes it.
        shown = redact(store_code)
        code = errcodes.store_code(shown, message, http_status or 0)
        return Why(shown or Reason.STORE_REFUSED, code.meaning, code.action)
    if reason is None:
        return Why(outcome, OUTCOMES[outcome], _("Look at the row in results.csv."))
    return _of_reason(reason)


@cache
def _of_reason(reason: str) -> Why:
    known = errcodes.all_reasons()[reason]
    return Why(reason, known.meaning, known.action, reason in {Reason.REFUSED, Reason.COMPONENT})


def reason_text(end: RowEnd) -> Text:
    """Return why a row did not succeed, in a sentence or two; empty for a verified success.

    ===================================  ==================================================================
    end                                  sentence
    ===================================  ==================================================================
    success                              empty
    success, unverified                  stored, but not confirmed
    unchanged, with the run it is since  unchanged since that run, not re-checked
    breaker                              not attempted: three consecutive rows ended with CODE; its meaning
    breaker, CODE says slow down         not attempted: CODE persisted for longer than --patience; its meaning
    dead token                           CODE: the token source returned the same token again
    an errcode or a store's code         CODE: its meaning; the store's own message
    anything else                        the reason; the row's own detail
    ===================================  ==================================================================
    """
    found, more = _why_of(end), _redacted(end.detail) if end.detail is not None else None
    if found is None:
        if end.outcome is Outcome.UNCHANGED and more is not None:
            return more
        return NOTHING if end.reason is None else errcodes.all_reasons()[end.reason].meaning
    meaning = found.meaning if more is None else as_sentences((found.meaning, more))
    if found.code in {end.reason, end.outcome}:
        return meaning
    if end.reason is Reason.BREAKER or (end.reason, end.outcome) == (Reason.COMPONENT, Outcome.NOT_ATTEMPTED):
        known = errcodes.errcode(end.errcode) if end.errcode else errcodes.store_code(end.store_code)
        if known.decision is errcodes.Decision.SLOW:
            text = _("Not attempted: {code} persisted for longer than --patience. {meaning}")
        else:
            text = _("Not attempted: three rows in succession ended with {code}. {meaning}")
        return text.format(code=found.code, meaning=found.meaning)
    return _("{code}: {meaning}", code=found.code, meaning=meaning)


def _why_of(end: RowEnd) -> Why | None:
    message = str(end.detail.params.get("message", "")) if end.detail is not None else ""
    return why(
        end.outcome, end.reason, end.errcode, end.store_code, message=message, http_status=end.http_status
    )


def _redacted(found: Detail) -> Detail:
    """Redact the parameters, which contain text from outside."""
    params = {
        name: _redacted(value)
        if isinstance(value, Detail)
        else redact(value)
        if isinstance(value, str)
        else value
        for name, value in found.params.items()
    }
    return detail(found.code, **params)


def action_text(end: RowEnd) -> Text:
    """Return what the operator has to do about a row; empty if there is nothing to do."""
    if end.outcome in SUCCESSES and end.reason is not None:
        return errcodes.all_reasons()[end.reason].action
    found = _why_of(end)
    return NOTHING if found is None else found.action


def catalogued(code: str) -> errcodes.Errcode | errcodes.StoreCode:
    """Return the catalogue's entry for a code as the report's errcodes.csv lists it."""
    number = code.removesuffix(COMPONENT_MARK)
    return errcodes.errcode(int(number)) if ERRCODE.fullmatch(number) else errcodes.store_code(code)


def code_label(code: str) -> Text:
    """Return a short label for such a code; empty if the code is clear without one."""
    known = errcodes.all_reasons().get(Reason.ETAG_MISMATCH if code == ETAG_MISMATCH else code)
    return known.label if known is not None else catalogued(code).label


def source_message(group: Tally, cause: Why) -> Text | None:
    """Return the message of the token source or the platform, redacted, if the operator has to read it."""
    if group.detail is not None:
        return _redacted(group.detail)
    if not cause.read_errmsg or not group.errmsg:
        return None
    errmsg = redact(group.errmsg)
    return verbatim(f"errmsg: {errmsg[:ERRMSG]}{'…' * (len(errmsg) > ERRMSG)}")


def row_count(count: int) -> Text:
    """Return `1 row`, `1,204 rows`."""
    return ngettext("{n:,} row", "{n:,} rows", count)


def merchant_count(count: int) -> Text:
    """Return `1 merchant`, `28 merchants`."""
    return ngettext("{n:,} merchant", "{n:,} merchants", count)


def environment_count(count: int) -> Text:
    """Return `1 environment`, `28 environments`."""
    return ngettext("{n:,} environment", "{n:,} environments", count)


def unit_count(kind: Kind, count: int) -> Text:
    """Return `1,204 rows`; of an audit, whose rows are environments, `28 environments`."""
    return environment_count(count) if kind is Kind.AUDIT else row_count(count)


def counts_line(counts: Mapping[Outcome, int]) -> Text:
    """Return the counts on one line, without zeros: `412 uploaded · 12 refused`."""
    return Joined(tuple(_counted(counts)), verbatim(" · "))


def _counted(counts: Mapping[Outcome, int]) -> list[Text]:
    return [
        pgettext("count", "{rows:,} {outcome}", rows=rows, outcome=OUTCOMES[outcome])
        for outcome, rows in counts.items()
        if rows
    ]


def verdict(kind: Kind, counts: Mapping[Outcome, int], *, finished: bool) -> Text:
    """Sum up a run in one sentence.

    ==========  ====================  ===========================================
    finished    rows                  sentence
    ==========  ====================  ===========================================
    no          any                   unfinished: how many have ended, how many are pending
    no          of an audit           unfinished: how many environments were checked, how many are pending
    yes         none                  no rows
    yes         all succeeded         all N rows succeeded; how many of them unchanged
    yes         some did not          G of N succeeded, how many of them unchanged; B did not: by outcome
    yes         of an audit           G of N environments are healthy; the others by outcome
    ==========  ====================  ===========================================
    """
    total = sum(counts.values())
    good = sum(rows for outcome, rows in counts.items() if outcome in SUCCESSES)
    pending = counts.get(Outcome.PENDING, 0)
    bad = {outcome: rows for outcome, rows in counts.items() if outcome not in SUCCESSES | {Outcome.PENDING}}
    if not finished:
        text = _("Unfinished: {total:,} of {rows} have ended ({good:,} succeeded), {pending:,} pending.")
        if kind is Kind.AUDIT:
            text = _(
                "Unfinished: {total:,} of {environments} were checked ({good:,} healthy), {pending:,} pending."
            )
        units = unit_count(kind, total)
        return text.format(total=total - pending, rows=units, environments=units, good=good, pending=pending)
    if not total:
        return _("The run has no rows.")
    if kind is Kind.AUDIT:
        return _audit_verdict(good, total, bad)
    same = counts.get(Outcome.UNCHANGED, 0)
    if bad:
        listed = as_list(
            _("{rows:,} {outcome}", rows=rows, outcome=OUTCOMES[outcome]) for outcome, rows in bad.items()
        )
        text = _("{good:,} of {rows} succeeded, {total:,} did not: {listed}.")
        if same:
            text = _(
                "{good:,} of {rows} succeeded ({same:,} unchanged, not sent again), {total:,} did not: {listed}."
            )
        return text.format(good=good, rows=row_count(total), same=same, total=total - good, listed=listed)
    done = as_list(_counted(counts)) if Outcome.UNDONE in counts else _DONE[kind]
    if kind is Kind.DELETE and total == 1:
        done = OUTCOMES[next(iter(counts))]
    if same == total:
        done = _("unchanged, nothing sent again")
    elif same:
        done = _(
            "{rest:,} {done}, {same:,} unchanged and not sent again", rest=total - same, done=done, same=same
        )
    return ngettext("The only row succeeded: {done}.", "All {n:,} rows succeeded: {done}.", total, done=done)


def _audit_verdict(good: int, total: int, bad: Mapping[Outcome, int]) -> Text:
    environments = environment_count(total)
    if not bad:
        return _("All is well: {environments}, all healthy.", environments=environments)
    listed = as_list(
        ngettext("{n:,} is {outcome}", "{n:,} are {outcome}", rows, outcome=OUTCOMES[outcome])
        for outcome, rows in bad.items()
    )
    text = _("{good:,} of {environments} are healthy, {listed}.")
    if 1 in {good, total}:
        text = _("{good:,} of {environments} is healthy, {listed}.")
    return text.format(good=good, environments=environments, listed=listed)


def confirmation_text(run: str, counts: Mapping[Outcome, int]) -> Text:
    """Say how many rows of an upload a run has confirmed."""
    rows, there = sum(counts.values()), counts.get(Outcome.PRESENT, 0)
    if there == rows:
        return ngettext(
            "Confirmed: the file is there (run {run}).",
            "Confirmed: all {n:,} files are there (run {run}).",
            rows,
            run=run,
        )
    bad: dict[Outcome, int] = {
        outcome: count for outcome, count in counts.items() if outcome is not Outcome.PRESENT
    }
    return _(
        "Confirmed: {there:,} of {files} are there; {bad} (run {run}).",
        there=there,
        files=ngettext("{n:,} file", "{n:,} files", rows),
        bad=as_list(_counted(bad)),
        run=run,
    )


def change_lines(changes: Sequence[LaterChange], zone: tzinfo) -> list[Text]:
    """Say which later runs undid, deleted or overwrote files of an upload, and when; a sentence for each."""
    lines = []
    for change in changes:
        whole, part = _CHANGED[change.kind]
        at = datetime.fromtimestamp(change.at, zone).isoformat(" ", "minutes")[:16]
        text = whole if change.files == change.of else part
        lines.append(text.format(run=change.run, at=at, files=change.files, total=change.of))
    return lines


def change_mark(changes: Sequence[LaterChange]) -> Text:
    """Name what the later runs did to files of an upload: `undone by 20261129-101500-k7q2`."""
    marks = []
    for change in changes:
        whole, part = _MARKS[change.kind]
        marks.append((whole if change.files == change.of else part).format(run=change.run))
    return Joined(tuple(marks), verbatim(", "))
