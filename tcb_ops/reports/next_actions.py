"""What to do next, by cause. Actions that fix the most rows come first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from tcb_ops.errcodes import Decision, Scope
from tcb_ops.i18n import Text, _
from tcb_ops.model import Kind, Outcome, Reason
from tcb_ops.reports.explanations import COMPONENT_MARK, ETAG_MISMATCH, catalogued, row_count, unit_count
from tcb_ops.runs.next_commands import SIGNED_LIST, audit_again, command, fixed_list, retry, upload_options
from tcb_ops.runs.plan import AGAIN
from tcb_ops.runs.records import RunRecord
from tcb_ops.settings import Settings

if TYPE_CHECKING:
    from tcb_ops.reports.summary import CodeGroup

_FOR_ALL = {61028, "RequestTimeTooSkewed"}
"""Codes of a merchant or an environment that one action fixes for all: the platform's own publication, this
machine's clock."""


class Per(StrEnum):
    """How often the operator has to act."""

    ONCE = "once"
    MERCHANT = "merchant"
    ENV = "env"
    NOBODY = "nobody"
    """There is nothing to do."""


@dataclass(frozen=True, slots=True)
class NextAction:
    """The action that fixes the rows of a code, and how often it is needed."""

    group: CodeGroup
    per: Per
    actions: int
    """Number of actions: 1, one per merchant or environment, or 0 if there is nothing to do."""
    even: bool
    """Whether all actions fix the same number of rows."""
    in_list: bool
    """Whether the list's own values may be wrong, so that a retry of the same rows would be refused again."""


def next_actions(groups: Iterable[CodeGroup]) -> list[NextAction]:
    """Return the actions for a run's codes: most rows per action first, "nothing to do" last."""
    return sorted(
        map(_action, groups),
        key=lambda one: (
            -one.group.rows / one.actions if one.actions else 1,
            -one.group.rows,
            one.group.code,
        ),
    )


def per(code: str, token: Reason | None = None) -> Per:
    """Return how often the operator has to act on the rows of a code, as errcodes.csv lists it.

    ==================================================  ==========================
    the code                                            act
    ==================================================  ==========================
    merchant_left                                       nobody
    no_token, any code of a dead token                  per merchant
    ETagMismatch, halted, unavailable, probe_left       per environment
    a code that one action fixes for all                once
    a code that says slow down (lower --rate)           once
    a code of scope appid, of the component token       once
    a code of scope appid                               per merchant
    a code of scope env                                 per environment
    a code of scope row (the list), or platform         once
    anything else: the list, files, network, pending    once
    ==================================================  ==========================

    `token`: DEAD_TOKEN or COMPONENT if the code is about such a token. Rows that a breaker kept from being attempted are
    fixed together with those that opened it.
    """
    if code == Reason.MERCHANT_LEFT:
        return Per.NOBODY
    if code == Reason.NO_TOKEN or token is Reason.DEAD_TOKEN:
        return Per.MERCHANT
    if code in {ETAG_MISMATCH, Reason.HALTED, Reason.UNAVAILABLE, Reason.PROBE_LEFT}:
        return Per.ENV
    known = catalogued(code)
    if known.decision is Decision.SLOW or known.code in _FOR_ALL:
        return Per.ONCE
    if token is Reason.COMPONENT and known.scope is Scope.APPID:
        return Per.ONCE
    return {Scope.APPID: Per.MERCHANT, Scope.ENV: Per.ENV}.get(known.scope, Per.ONCE)


def _action(group: CodeGroup) -> NextAction:
    how_often = per(group.code, group.token)
    rows_each = {Per.MERCHANT: [share.rows for share in group.merchants], Per.ENV: [*group.envs]}.get(
        how_often, [group.rows]
    )
    actions = 0 if how_often is Per.NOBODY else len(rows_each)
    return NextAction(group, how_often, actions, len(set(rows_each)) == 1, _in_list(group.code))


def _in_list(code: str) -> bool:
    """Return whether rows with a code fail again until the list itself is corrected."""
    if code in set(Reason) | {Outcome.PENDING} or code.endswith(COMPONENT_MARK):
        return code in {Reason.INVALID, Reason.SOURCE_REDIRECT}
    known = catalogued(code)
    return known.known and (known.decision, known.scope) == (Decision.FIX, Scope.ROW)


def next_command(
    settings: Settings, run: RunRecord, groups: Iterable[CodeGroup]
) -> tuple[Text, list[str]] | None:
    """Return the purpose and the next command for a finished run; None if nothing is left to do.

    If only the list's own values are wrong, it runs a corrected copy of their rows, else it is a retry.
    """
    left = [action for action in next_actions(groups) if action.per is not Per.NOBODY]
    if not left:
        return None
    if run.kind in {Kind.CONFIRM, Kind.DELETE, Kind.UNDO}:
        return _about_stored(settings, run, [action.group for action in left])
    rows = sum(action.group.rows for action in left)
    if run.kind is Kind.AUDIT:
        return _about_audit(settings, run, rows)
    if all(action.in_list for action in left):
        purpose = _("Correct {rows} in a copy of the list, failed-fixed.csv, then run:", rows=row_count(rows))
        return purpose, fixed_list(settings, run)
    return _("When the causes are fixed, run {rows} again:", rows=row_count(rows)), retry(settings, run)


def _about_audit(settings: Settings, run: RunRecord, environments: int) -> tuple[Text, list[str]]:
    """Compose what follows an audit: its environments again, or another audit where this one was stopped.

    A retry is no audit of its own, with which the next one could be compared.
    """
    if run.stopped is not None and not run.parent:
        return _("When that is fixed, audit again:"), audit_again(settings, run)
    which = unit_count(run.kind, environments)
    purpose = _("When the causes are fixed, check {environments} again:", environments=which)
    return purpose, retry(settings, run)


def _about_stored(
    settings: Settings, run: RunRecord, groups: Iterable[CodeGroup]
) -> tuple[Text, list[str]] | None:
    """Compose what follows a confirm, a delete or an undo: its open rows again, or files that are missing uploaded again."""
    outcomes: Counter[Outcome] = Counter()
    for group in groups:
        if group.code == Reason.NO_CHECKSUM:  # asked again, the answer would be the same
            continue
        outcomes.update(group.outcomes)
    again = sum(outcomes[outcome] for outcome in AGAIN)
    if again:
        return _("When the causes are fixed, run {rows} again:", rows=row_count(again)), retry(settings, run)
    missing = sum(outcomes[outcome] for outcome in (Outcome.ABSENT, Outcome.DIFFERENT, Outcome.FOREIGN))
    root = str(run.settings.get("root", ""))
    if run.kind is not Kind.CONFIRM or not missing or not root or not run.report:
        return None
    options = ("--root", root, *upload_options(run))
    if SIGNED_LIST in run.settings:
        purpose = _(
            "failed.csv has {rows} without the queries of their URLs. To upload the whole list again, if your versions "
            "are the right ones:",
            rows=row_count(missing),
        )
        words = (*run.settings[SIGNED_LIST], *options, "--on-bad", "skip", "--new-run")
    else:
        purpose = _("To upload {rows} again, if your version is the right one:", rows=row_count(missing))
        words = (str(Path(run.report) / "failed.csv"), *options)
    return purpose, command(settings, "upload", *words, target=run.target)
