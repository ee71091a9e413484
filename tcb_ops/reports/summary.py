"""The summary of a run, computed once from the ledger's tallies; every format renders it. And what to do next, by cause."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from tcb_ops.catalogue import COMPONENT_MARK, ETAG_MISMATCH, Decision, Scope, entry_of
from tcb_ops.details import merged
from tcb_ops.hooks import StoredHooks, hooks
from tcb_ops.i18n import Joined, Lang, Text, as_sentences, ngettext, verbatim
from tcb_ops.ledger.records import LaterChange, RowRecord, RunRecord, Tally, count_outcomes
from tcb_ops.model import STORED_OUTCOMES, Outcome, Reason
from tcb_ops.reports.explanations import merchant_text, source_message, why
from tcb_ops.secrets import redact

if TYPE_CHECKING:
    from tcb_ops.ledger.reader import LedgerReader
    from tcb_ops.settings import Settings

_Key = TypeVar("_Key", int, str, tuple[Any, ...])
FIRST_ROWS = 3
"""Rows shown per merchant."""
_FOR_ALL = {61028, "RequestTimeTooSkewed"}
"""Codes of a merchant or an environment that one action fixes for all: the platform's own publication, this
machine's clock."""
_IN_LIST = {
    *(Reason.INVALID, Reason.SOURCE_REDIRECT),
    *("40097", "40101", "-501000", "-501007", "-501009", "-501020", "-503003", "-601002"),
    *("PathConflict", "ObjectLocked", "KeyTooLong", "InvalidObjectName", "InvalidURI", "InvalidArgument"),
}
"""Codes whose rows fail again until env, path or file is corrected in the list."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Rows of one merchant's environment that did not succeed for one reason: a line of errcodes.csv."""

    appid: str
    merchant: str
    env: str
    code: str
    """An errcode, a code of the store, or a reason's name (`no_token`, `file_changed`, `pending` …)."""
    meaning: Text
    action: Text
    outcomes: Mapping[Outcome, int]
    """How these rows ended; the sum is `rows`."""
    rows: int
    detail: Text | None = None
    """Message of the token source or the platform about one of the rows, redacted, if the operator has to read it."""
    token: Reason | None = None
    """DEAD_TOKEN or COMPONENT if the code is about such a token."""
    read_errmsg: bool = False
    """Whether `detail` is the platform's errmsg."""


@dataclass(frozen=True, slots=True)
class MerchantShare:
    """One merchant's share of the rows with a code."""

    appid: str
    merchant: str
    envs: tuple[str, ...]
    """Most rows first."""
    rows: int


@dataclass(frozen=True, slots=True)
class CodeGroup:
    """All causes of one code that are fixed in the same way."""

    code: str
    meaning: Text
    action: Text
    token: Reason | None
    merchants: tuple[MerchantShare, ...]
    """Most rows first."""
    envs: tuple[int, ...]
    """Rows of each environment."""
    outcomes: Mapping[Outcome, int]
    """How these rows ended; the sum is `rows`."""
    rows: int
    detail: Text | None = None
    """Messages of the token source or the platform, redacted and shortened."""


@dataclass(frozen=True, slots=True)
class MerchantSummary:
    """One merchant's part of a run."""

    merchant: str
    appid: str
    outcomes: Mapping[Outcome, int]
    """Pending included; the sum is `rows`."""
    codes: tuple[tuple[str, int], ...]
    """Codes and numbers of the rows that ended without success; most rows first."""
    envs: tuple[tuple[str, Mapping[Outcome, int]], ...]
    """Most rows that did not succeed first."""
    first: tuple[RowRecord, ...] = ()
    """The first of those rows, if requested."""

    @property
    def rows(self) -> int:
        """All its rows."""
        return sum(self.outcomes.values())

    @property
    def not_succeeded(self) -> int:
        """Rows that ended without success."""
        return _without_success(self.outcomes)


class RunSummary:
    """A run's counts, causes, merchants and totals at one moment."""

    def __init__(self, reader: LedgerReader, run: RunRecord) -> None:
        """Sum up a run with one query, in constant memory, so that the counts agree with one another."""
        self.run = run
        self.changed_by: Sequence[LaterChange] = ()
        """The later runs that undid, deleted or overwrote files of this upload, the newest first."""
        self.confirmed: tuple[str, dict[Outcome, int]] | None = None
        """The run that confirmed this upload, and its rows by outcome; None without one since the last change."""
        self.cached: Text | None = None
        """A sentence about older files that caches may still show."""
        if run.kind.sends_files and (stored := hooks(StoredHooks)):
            self.changed_by, self.confirmed, self.cached = stored.after_upload(reader, run)
        self.tallies: Sequence[Tally] = reader.tallies(run)

    @property
    def is_undone(self) -> bool:
        """Whether later runs took back all files of an upload and its retries."""
        undone = sum(change.files for change in self.changed_by if change.kind.takes_back)
        return bool(self.changed_by) and undone >= self.changed_by[0].of

    @cached_property
    def counts(self) -> dict[Outcome, int]:
        """Rows by outcome, without zeros, in the order of the outcomes."""
        return count_outcomes(self.tallies)

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.counts.values())

    @property
    def not_succeeded(self) -> int:
        """Rows that did not succeed, pending ones included: the lines of failed.csv."""
        return sum(rows for outcome, rows in self.counts.items() if not outcome.succeeded)

    @property
    def verdict(self) -> Text:
        """How the rows ended, in a sentence or two."""
        ended = verdict(self.run, self.tallies, self.confirmed[1] if self.confirmed is not None else {})
        return ended if self.cached is None else as_sentences((ended, self.cached))

    @cached_property
    def causes(self) -> list[Cause]:
        """Why rows did not succeed, by merchant, environment and code, most rows first. Each row is in one cause."""
        return causes_of(self.tallies)

    @cached_property
    def codes(self) -> list[CodeGroup]:
        """The causes by code, then by merchant; most rows first."""
        return by_code(self.causes)

    @cached_property
    def merchants(self) -> list[MerchantSummary]:
        """The merchants: most rows that ended without success first, then by name."""
        return _by_merchant(self.tallies, self.causes)

    @cached_property
    def namesakes(self) -> set[str]:
        """Names that several merchants share, so that the appid is shown beside them."""
        names = Counter(merchant.merchant for merchant in self.merchants)
        return {name for name, merchants in names.items() if name and merchants > 1}

    def with_first_rows(
        self, merchants: Iterable[MerchantSummary], reader: LedgerReader
    ) -> Iterator[MerchantSummary]:
        """Add to each merchant its first rows that did not succeed, read from the ledger on demand."""
        merchants = list(merchants)
        shown = {(merchant.appid, merchant.merchant) for merchant in merchants}
        environment_of = {
            (environment.appid, environment.merchant, environment.env): environment
            for environment in reader.envs(self.run)
            if (environment.appid, environment.merchant) in shown
        }
        failed = frozenset(Outcome.all()) - Outcome.successes() - {Outcome.PENDING}
        for merchant in merchants:
            first: list[RowRecord] = []
            for env, outcomes in merchant.envs:
                if _without_success(outcomes) and len(first) < FIRST_ROWS:
                    environment = environment_of[merchant.appid, merchant.merchant, env]
                    failures = reader.rows(self.run, environments=[environment], outcomes=failed)
                    first += islice(failures, FIRST_ROWS - len(first))
            yield replace(merchant, first=tuple(first))

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints.

        `counts` is by outcome, without zeros. `errcodes` and `store_codes` count the rows with a code by merchant and
        environment, most rows first, including those that it kept from being attempted. `calls` and `seconds` are over
        all sessions; `report` is a path or None. `unverified` is there where the store did not confirm some of the rows
        that succeeded, `changed_by` for an upload whose files a later run has undone, deleted or overwritten.
        """
        run = self.run
        content: dict[str, Any] = {
            "run": run.id,
            "kind": str(run.kind),
            "target": run.target,
            "rows": self.total,
            "counts": {str(outcome): rows for outcome, rows in self.counts.items()},
            "errcodes": self._listed("errcode", lambda tally: tally.errcode),
            "store_codes": self._listed("code", lambda tally: redact(tally.store_code)),
            "calls": {"link": run.link_calls, "upload": run.upload_calls},
            "seconds": round(run.seconds, 3),
            "report": run.report or run.links or None,
        }
        if run.retries:
            content["retries"] = list(run.retries)
        if self.confirmed is not None:
            confirmation, ended = self.confirmed
            counts = {str(outcome): rows for outcome, rows in ended.items()}
            content["confirmed"] = {"run": confirmation, "counts": counts}
        if unverified := count_unverified(self.tallies):
            content["unverified"] = unverified
        if self.changed_by:
            content["changed_by"] = [
                {
                    "run": change.run,
                    "kind": str(change.kind),
                    "at": datetime.fromtimestamp(change.at, UTC).isoformat(timespec="seconds"),
                    "files": change.files,
                }
                for change in self.changed_by
            ]
        return content

    def reasons(self) -> list[dict[str, Any]]:
        """Count the rows that did not succeed and have no code by merchant, environment and reason, most rows first."""

        def reason(tally: Tally) -> str | None:
            coded = tally.errcode or tally.store_code
            return str(tally.reason) if tally.reason and not tally.outcome.succeeded and not coded else None

        return self._listed("reason", reason)

    def messages(self, lang: Lang) -> list[dict[str, str]]:
        """Return what to tell each merchant that must act about its codes."""
        return [
            {"code": c.code, "appid": c.appid, "merchant": c.merchant, "env": c.env, "message": text.of(lang)}
            for c in self.causes
            if (text := merchant_text(c.code, c.appid, c.merchant, c.env)) is not None
        ]

    def _listed(self, name: str, code_of: Callable[[Tally], object]) -> list[dict[str, Any]]:
        counted: Counter[tuple[Any, ...]] = Counter()
        for tally in self.tallies:
            if code := code_of(tally):
                counted[tally.appid, tally.merchant, tally.env, code] += tally.rows
        names = ("appid", "merchant", "env", name)
        return [dict(zip(names, key, strict=True)) | {"rows": rows} for key, rows in most_first(counted)]


def causes_of(tallies: Iterable[Tally]) -> list[Cause]:
    """Tabulate tallies by merchant, environment and code, most rows first; rows that succeeded are left out."""
    causes: dict[tuple[str, str, str, str], Cause] = {}
    for tally in tallies:
        if (cause := why(tally.outcome, tally.reason, tally.errcode, tally.store_code)) is None:
            continue
        key = (tally.appid, tally.merchant, tally.env, cause.code)
        detail, outcomes, rows = source_message(tally, cause), {tally.outcome: tally.rows}, tally.rows
        if earlier := causes.get(key):
            detail, rows = earlier.detail or detail, rows + earlier.rows
            outcomes = dict(Counter(earlier.outcomes) + Counter(outcomes))
            causes[key] = replace(earlier, outcomes=outcomes, rows=rows, detail=detail)
        else:
            token = tally.reason if tally.reason in {Reason.DEAD_TOKEN, Reason.COMPONENT} else None
            texts = (cause.meaning, cause.action)
            causes[key] = Cause(*key, *texts, outcomes, rows, detail, token, cause.read_errmsg)
    return sorted(causes.values(), key=lambda c: (-c.rows, c.code, c.merchant, c.env, c.appid))


def by_code(causes: Iterable[Cause]) -> list[CodeGroup]:
    """Group causes by code and the kind of token it is about, then by merchant; most rows first."""
    codes: defaultdict[tuple[str, Reason | None], list[Cause]] = defaultdict(list)
    for cause in causes:
        codes[cause.code, cause.token].append(cause)
    return sorted(map(_code_group, codes.values()), key=lambda group: (-group.rows, group.code))


def _code_group(causes: Sequence[Cause]) -> CodeGroup:
    first = causes[0]
    merchants: defaultdict[tuple[str, str], list[Cause]] = defaultdict(list)
    envs: Counter[tuple[str, str]] = Counter()
    outcomes: Counter[Outcome] = Counter()
    for cause in causes:
        merchants[cause.appid, cause.merchant].append(cause)
        envs[cause.appid, cause.env] += cause.rows
        outcomes.update(cause.outcomes)
    shares = [
        MerchantShare(*key, tuple(cause.env for cause in group), sum(cause.rows for cause in group))
        for key, group in merchants.items()
    ]
    return CodeGroup(
        first.code,
        first.meaning,
        first.action,
        first.token,
        tuple(sorted(shares, key=lambda share: (-share.rows, share.merchant, share.appid))),
        tuple(envs.values()),
        Outcome.in_order(outcomes),
        outcomes.total(),
        shorten_details(causes),
    )


def shorten_details(causes: Iterable[Cause]) -> Text | None:
    """Combine the details of several appids: each sentence once, with the appids that it is about.

    Of the platform's errmsgs only the first is used: each contains another rid.

    ==========================================  ===========================
    details                                     combined
    ==========================================  ===========================
    wx1: unknown wx1                            unknown wx1
    wx1: unknown wx1, wx2: unknown wx2          unknown wx1, wx2
    wx1: unknown wx1, wx2: wx2 has left         unknown wx1 / wx2 has left
    the same of more than five                  unknown wx1, wx2, wx3, wx4, wx5 and 2 more
    four or more different sentences            the first three, then / …
    errmsg: a rid: 1, errmsg: a rid: 2          errmsg: a rid: 1
    ==========================================  ===========================
    """
    heard = [(cause, cause.detail) for cause in causes if cause.detail is not None]
    if not heard or heard[0][0].read_errmsg:
        return heard[0][1] if heard else None
    texts = merged(text for _, text in heard)
    return Joined((*texts[:3], *(["…"] if len(texts) > 3 else [])), verbatim(" / "))


def _by_merchant(tallies: Iterable[Tally], causes: Iterable[Cause]) -> list[MerchantSummary]:
    envs: dict[tuple[str, str], defaultdict[str, Counter[Outcome]]] = {}
    for tally in tallies:
        by_env = envs.setdefault((tally.merchant, tally.appid), defaultdict(Counter))
        by_env[tally.env][tally.outcome] += tally.rows
    codes: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for cause in causes:
        if cause.code != Outcome.PENDING:
            codes[cause.merchant, cause.appid][cause.code] += cause.rows
    merchants = []
    for key, by_env in envs.items():
        outcomes = Outcome.in_order(sum(by_env.values(), Counter[Outcome]()))
        worst = sorted(by_env.items(), key=lambda env: (-_without_success(env[1]), env[0]))
        merchants.append(MerchantSummary(*key, outcomes, tuple(most_first(codes[key])), tuple(worst)))
    return sorted(merchants, key=lambda m: (-m.not_succeeded, m.merchant, m.appid))


def _without_success(outcomes: Mapping[Outcome, int]) -> int:
    return sum(
        rows for outcome, rows in outcomes.items() if not outcome.succeeded and outcome is not Outcome.PENDING
    )


def most_first(counted: Counter[_Key]) -> list[tuple[_Key, int]]:
    """Order what was counted: most rows first, then by key."""
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


def count_unverified(tallies: Iterable[Tally]) -> int:
    """Count the rows that succeeded, but whose stored bytes the store did not confirm."""
    return sum(t.rows for t in tallies if t.outcome.succeeded and t.reason is Reason.UNVERIFIED)


def verdict(
    run: RunRecord, tallies: Sequence[Tally], looked_for: Mapping[Outcome, int] | None = None
) -> Text:
    """Sum up how a run's rows ended. `looked_for`: what a confirmation of it has seen, by outcome.

    ===========================================  ===============================================
    rows that succeeded                          verdict
    ===========================================  ===============================================
    none, or the store confirmed each            the kind's own
    a confirmation saw each                      the kind's own
    some whose ETag is not the file's MD5        the kind's own, and how many are not confirmed
    ===========================================  ===============================================
    """
    result = run.kind.verdict(count_outcomes(tallies), finished=run.finished_at is not None)
    unverified = count_unverified(tallies)
    stored = sum(tally.rows for tally in tallies if tally.outcome in STORED_OUTCOMES)
    seen = sum(rows for outcome, rows in (looked_for or {}).items() if outcome.succeeded)
    if not unverified or seen == stored:
        return result
    doubt = ngettext(
        "{n:,} row is stored but not confirmed (unverified in results.csv).",
        "{n:,} rows are stored but not confirmed (unverified in results.csv).",
        unverified,
    )
    return as_sentences((result, doubt))


# --- what to do next ---


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
    in_list: bool
    """Whether the list's own values may be wrong, so that a retry of the same rows would be refused again."""

    @property
    def retried(self) -> int:
        """The rows that a retry takes."""
        return sum(rows for outcome, rows in self.group.outcomes.items() if outcome.retried)


def next_actions(groups: Iterable[CodeGroup]) -> list[NextAction]:
    """Return the actions for a run's codes: most rows per action first, "nothing to do" last."""
    actions = []
    for group in groups:
        how_often = per(group.code, group.token)
        times = {Per.MERCHANT: len(group.merchants), Per.ENV: len(group.envs), Per.NOBODY: 0}.get(
            how_often, 1
        )
        actions.append(NextAction(group, how_often, times, group.code in _IN_LIST))
    return sorted(
        actions,
        key=lambda action: (
            -action.group.rows / action.actions if action.actions else 1,
            -action.group.rows,
            action.group.code,
        ),
    )


def retry_helps(groups: Sequence[CodeGroup], *, again: bool) -> bool:
    """Decide whether a retry is the next thing to do.

    ====================================================  ====================================  =====
    causes                                                the run is a retry without a success  helps
    ====================================================  ====================================  =====
    each is in the list's own values                      any                                   no
    each is for the merchant, or is in the list           yes                                   no
    anything else                                         any                                   yes
    ====================================================  ====================================  =====
    """
    others = [group.code for group in groups if group.code not in _IN_LIST]
    return not all(again and merchant_text(code.removesuffix(COMPONENT_MARK)) is not None for code in others)


def per(code: str, token: Reason | None = None) -> Per:
    """Return how often the operator has to act on the rows of a code, as errcodes.csv lists it.

    ==================================================  ==========================
    the code                                            act
    ==================================================  ==========================
    merchant_left                                       nobody
    no_token, any code of a dead token                  per merchant
    ETagMismatch, halted, unavailable                   per environment
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
    if code == ETAG_MISMATCH or Reason(code).of_environment:
        return Per.ENV
    entry = entry_of(code)
    if entry.decision is Decision.SLOW or entry.code in _FOR_ALL:
        return Per.ONCE
    if token is Reason.COMPONENT and entry.scope is Scope.APPID:
        return Per.ONCE
    return {Scope.APPID: Per.MERCHANT, Scope.ENV: Per.ENV}.get(entry.scope, Per.ONCE)


def next_command(
    settings: Settings, run: RunRecord, groups: Iterable[CodeGroup]
) -> tuple[Text, list[str]] | None:
    """Return the purpose and the next command for a finished run; None if nothing is left to do."""
    actions = [action for action in next_actions(groups) if action.per is not Per.NOBODY]
    return run.kind.next_command(settings, run, actions) if actions else None
