"""Rows that did not succeed, and the retries that run some of them and no others. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tcb_ops.catalogue import COMPONENT_MARK, Scope, errcode
from tcb_ops.ledger.records import Tally
from tcb_ops.model import Outcome, Reason
from tcb_ops.reports.explanations import why


class OpenRows(NamedTuple):
    """The rows of an environment that ended with a code and did not succeed."""

    code: str
    """As `--errcode` takes it."""
    appid: str
    env: str


def open_rows(tallies: Iterable[Tally]) -> dict[OpenRows, list[Tally]]:
    """Return the rows of a run that did not succeed, with their tallies."""
    rows = defaultdict[OpenRows, list[Tally]](list)
    for tally in tallies:
        cause = why(tally.outcome, tally.reason, tally.errcode, tally.store_code)
        if cause is not None and tally.outcome is not Outcome.PENDING:
            rows[OpenRows(cause.code.removesuffix(COMPONENT_MARK), tally.appid, tally.env)].append(tally)
    return dict(rows)


def lies_in_merchant(tally: Tally) -> bool:
    """Return whether rows ended by a cause in the merchant or its environment, about which an audit asks."""
    if tally.errcode:
        return errcode(tally.errcode).scope in {Scope.ENV, Scope.APPID}
    return tally.reason is not None and (tally.reason is Reason.NO_TOKEN or tally.reason.of_environment)


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry, by what narrows it: as little as leaves out a run's other open rows."""

    rows: frozenset[OpenRows]
    codes: tuple[str, ...]
    where: tuple[str, ...]
    """As `--where` takes it."""

    @property
    def words(self) -> list[str]:
        """The options of the command."""
        pairs = [*(("--errcode", code) for code in self.codes), *(("--where", item) for item in self.where)]
        return [word for pair in pairs for word in pair]


def retries_of(chosen: Collection[OpenRows], rows: Collection[OpenRows]) -> list[Retry]:
    """Return the retries of the chosen among a run's open rows.

    A retry runs the rows with some codes at some merchants. If that would run other rows, too, there is one for each code.
    """
    codes, places = {each.code for each in chosen}, {each[1:] for each in chosen}
    sent = {each for each in rows if each.code in codes and each[1:] in places}
    parts = [codes] if sent <= set(chosen) else [{code} for code in sorted(codes)]
    return [_narrowed({each for each in chosen if each.code in part}, rows) for part in parts if part]


def _narrowed(retried: set[OpenRows], rows: Collection[OpenRows]) -> Retry:
    codes, others = {each.code for each in retried}, set(rows) - retried
    more = {each for each in others if each.code in codes}
    appids = {each.appid for each in retried}
    column = "env" if any(each.appid in appids for each in more) else "appid"
    values = {getattr(each, column) for each in retried} if more else ()
    where = tuple(f"{column}={value}" for value in sorted(values))
    return Retry(frozenset(retried), tuple(sorted(codes)) if others else (), where)
