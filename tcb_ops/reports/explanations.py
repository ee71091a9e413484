"""Why rows did not succeed and what to do: texts in both languages for an outcome and its codes. Pure.

The catalogue (errcodes.csv, storecodes.csv, reasons.csv) has the texts; this module selects those of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from functools import cache
from typing import TYPE_CHECKING

from tcb_ops.catalogue import COMPONENT_MARK, ETAG_MISMATCH, Decision, all_reasons, texts_of
from tcb_ops.catalogue import errcode as errcode_entry
from tcb_ops.catalogue import store_code as store_code_entry
from tcb_ops.details import Detail, detail
from tcb_ops.hooks import DiagnosisHooks, WechatVerdict, hooks
from tcb_ops.i18n import NOTHING, Bilingual, Joined, Lang, Text, _, as_list, as_sentences, verbatim
from tcb_ops.kinds import counted, counted_rows, row_count
from tcb_ops.ledger.records import LaterChange, RunRecord, Tally
from tcb_ops.model import Outcome, Owner, Reason, RowEnd
from tcb_ops.secrets import redact

if TYPE_CHECKING:
    from tcb_ops.ledger.reader import LedgerReader

MARK = "SIMULATED 演练"
"""Marks what is about a loopback target."""

ERRMSG = 160
"""Characters of an errmsg shown beside a cause; results.csv has all of it."""


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
    if outcome.succeeded or outcome is Outcome.PENDING:
        return None if outcome.succeeded else _of_reason(Outcome.PENDING)
    if errcode and reason is Reason.DEAD_TOKEN:
        return replace(_of_reason(reason), code=str(errcode))
    if errcode:
        entry = errcode_entry(errcode)
        own = errcode_entry(errcode, Owner.PLATFORM) if reason is Reason.COMPONENT else entry
        # Separate from merchants' rows with the same code: a different cause with a different fix.
        shown = f"{errcode}{COMPONENT_MARK}" if own != entry else str(errcode)
        return Why(shown, own.meaning, own.action, own.read_errmsg)
    if store_code == ETAG_MISMATCH:
        return replace(_of_reason(Reason.ETAG_MISMATCH), code=store_code)
    if store_code or (reason is Reason.STORE_REFUSED and http_status):
        # An unknown code may be any text from the server, and the catalogue quotes it.
        shown = redact(store_code)
        code = store_code_entry(shown, message, http_status or 0)
        return Why(shown or Reason.STORE_REFUSED, code.meaning, code.action)
    if reason is None:
        return Why(outcome, outcome.label, _("Look at the row in results.csv."))
    return _of_reason(reason)


@cache
def _of_reason(reason: str) -> Why:
    texts = all_reasons()[reason]
    return Why(reason, texts.meaning, texts.action, reason in {Reason.REFUSED, Reason.COMPONENT})


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
    cause, more = why_of(end), _redacted(end.detail) if end.detail is not None else None
    if cause is None:
        if end.outcome is Outcome.UNCHANGED and more is not None:
            return more
        return NOTHING if end.reason is None else all_reasons()[end.reason].meaning
    meaning = cause.meaning if more is None else as_sentences((cause.meaning, more))
    if cause.code in {end.reason, end.outcome}:
        return meaning
    if end.reason is Reason.BREAKER or (end.reason, end.outcome) == (Reason.COMPONENT, Outcome.NOT_ATTEMPTED):
        entry = errcode_entry(end.errcode) if end.errcode else store_code_entry(end.store_code)
        if entry.decision is Decision.SLOW:
            text = _("Not attempted: {code} persisted for longer than {--patience}. {meaning}")
        else:
            text = _("Not attempted: three rows in succession ended with {code}. {meaning}")
        return text.format(code=cause.code, meaning=cause.meaning)
    return _("{code}: {meaning}", code=cause.code, meaning=meaning)


def why_of(end: RowEnd) -> Why | None:
    """Return the code that a row is counted under, with its texts; None for a row that succeeded."""
    message = str(end.detail.params.get("message", "")) if end.detail is not None else ""
    return why(
        end.outcome, end.reason, end.errcode, end.store_code, message=message, http_status=end.http_status
    )


def _redacted(text: Detail) -> Detail:
    """Redact the parameters, which contain text from outside."""

    def safe(value: object) -> object:
        if isinstance(value, Detail):
            return _redacted(value)
        return redact(value) if isinstance(value, str) else value

    return detail(text.code, **{name: safe(value) for name, value in text.params.items()})


def action_text(end: RowEnd) -> Text:
    """Return what the operator has to do about a row; empty if there is nothing to do."""
    if end.outcome.succeeded and end.reason is not None:
        return all_reasons()[end.reason].action
    cause = why_of(end)
    return NOTHING if cause is None else cause.action


def code_label(code: str) -> Text:
    """Return a short label for such a code; empty if the code is clear without one."""
    return texts_of(code).label


def merchant_text(code: str, appid: str = "", merchant: str = "", env: str = "") -> Text | None:
    """Return what to tell a merchant that must act about a code; None where it need not, or no feature has the texts."""
    diagnosis = hooks(DiagnosisHooks)
    return None if diagnosis is None else diagnosis.presumed(code, appid, merchant, env).message


def answered_at(ledger: LedgerReader, run: RunRecord) -> dict[str, float]:
    """Return by code when a row that ever ended with it got its last answer, also in a retry or correction, in Unix seconds."""
    from tcb_ops.ledger.histories import merged_runs

    last: dict[str, float] = {}
    for outcome, reason, errcode, store_code, at in ledger.last_answers(merged_runs(ledger, run)):
        cause = why(Outcome(outcome), Reason(reason) if reason else None, errcode, store_code)
        if cause is not None:
            code = cause.code.removesuffix(COMPONENT_MARK)
            last[code] = max(at, last.get(code, 0.0))
    return last


def kept_verdicts(reader: LedgerReader, run: RunRecord) -> list[WechatVerdict]:
    """Return what WeChat answered about codes of a run, without what it was asked before a row's last answer.

    Each has `code`, `who_acts`, `meaning`, `action`, `message`, `lines()`, and `at`, when it was asked.
    """
    diagnosis = hooks(DiagnosisHooks)
    verdicts = diagnosis.kept(reader.ledger, run) if diagnosis is not None else []
    last = answered_at(reader.ledger, run) if verdicts else {}
    return [verdict for verdict in verdicts if verdict.at >= last.get(verdict.code, 0.0)]


def source_message(group: Tally, cause: Why) -> Text | None:
    """Return the message of the token source or the platform, redacted, if the operator has to read it."""
    if group.detail is not None:
        return _redacted(group.detail)
    if not cause.read_errmsg or not group.errmsg:
        return None
    errmsg = redact(group.errmsg)
    return verbatim(f"errmsg: {errmsg[:ERRMSG]}{'…' * (len(errmsg) > ERRMSG)}")


def run_title(run: RunRecord) -> Text:
    """Return what a run is: `Upload of list.csv, 600 rows`."""
    label, rows = run.kind.label, run.kind.unit_count(run.rows)
    if run.parent:
        text = _("Retry of the {kind} of {list_name}, {rows}")
        return text.format(kind=label, list_name=run.list_name, rows=rows)
    kind = Bilingual(label.of(Lang.EN).capitalize(), label.of(Lang.ZH))
    return _("{kind} of {list_name}, {rows}", kind=kind, list_name=run.list_name, rows=rows)


def named(run: RunRecord) -> Text:
    """Return a run's id, with those of the retries and corrections that are merged into it."""
    if not run.retries:
        return verbatim(run.id)
    return _("{id} with its retries and corrections {ids}", id=run.id, ids=as_list(run.retries, 5))


def total_text(run: RunRecord, original: str, succeeded: int, rows: int) -> Text:
    """Say how many rows have succeeded by now, of `Run.with_retries`."""
    text = _("With its retries, {succeeded:,} of {rows} have succeeded.")
    if run.parent:
        text = _("Retry of {id}: with its retries, {succeeded:,} of {rows} have succeeded.")
    elif run.corrects:
        text = _(
            "Correction of {id}: with its retries and corrections, {succeeded:,} of {rows} have succeeded."
        )
    return text.format(id=original, succeeded=succeeded, rows=row_count(rows))


def counts_line(counts: Mapping[Outcome, int]) -> Text:
    """Return the counts on one line, without zeros: `412 uploaded · 12 refused`."""
    return Joined(tuple(counted(counts)), verbatim(" · "))


def confirmation_text(run: str, counts: Mapping[Outcome, int]) -> Text:
    """Say how many rows of an upload a run has confirmed."""
    return _("Run {run} looked for the files: {counts}.", run=run, counts=as_list(counted_rows(counts)))


def change_lines(changes: Sequence[LaterChange], zone: tzinfo) -> list[Text]:
    """Say which later runs undid, deleted or overwrote files of an upload, and when; a sentence for each."""
    text = _("{files:,} of {total:,} files of this upload were {changed} by run {run} on {at}.")
    return [
        text.format(
            files=change.files,
            total=change.of,
            changed=change.kind.changed,
            run=change.run,
            at=datetime.fromtimestamp(change.at, zone).isoformat(" ", "minutes"),
        )
        for change in changes
    ]
