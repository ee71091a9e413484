"""What a run would do, before anything is sent: rows, bytes, calls against the quotas, time, warnings.

Pure, except for `scope_of_stored`, which reads the ledger.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tcb_ops.features.merchants.check import Allowances, QuotaAccount, fits, seconds_left_of_the_day
from tcb_ops.formatting import format_duration, format_size, sanitize
from tcb_ops.i18n import Text, _, as_facts, as_list, ngettext, verbatim
from tcb_ops.lists.batch import Batch
from tcb_ops.model import Merchant, Outcome, Owner
from tcb_ops.run import Run
from tcb_ops.runs.limits import RunLimits
from tcb_ops.runs.records import Tally
from tcb_ops.settings import Settings

LINK_LIFE = 900
"""Lifetime of a link in seconds (q-sign-time in the sample of getUploadTcbFileLink)."""
RETRIED = frozenset({Outcome.REFUSED, Outcome.FAILED, Outcome.NOT_ATTEMPTED})
"""The outcomes that `retry` runs again."""
NAMED = 5
"""Maximum number of merchants named in a warning."""


def seconds_at_rate(batch: Batch, limits: RunLimits) -> float:
    """Return the least seconds that the busiest appid needs at the configured rate."""
    return batch.most_rows_of_an_appid / limits.rate if limits.rate else 0.0


def short_life(batch: Batch, limits: RunLimits) -> Text | None:
    """Return a warning if the first links expire before the last is issued at the configured rate."""
    seconds = seconds_at_rate(batch, limits)
    if seconds <= LINK_LIFE:
        return None
    return _(
        "At {rate:g} calls/s this takes {duration}, but a link expires after about 15 minutes: the first links "
        "will have expired before the last one is issued.",
        rate=limits.rate,
        duration=format_duration(seconds),
    )


def ran_out(links: int, out: Path | str) -> Text | None:
    """Return a warning about links that had expired when their file was finished; None without any."""
    if not links:
        return None
    return _(
        "{links} had expired when {out} was finished. Run again for new ones.",
        links=ngettext("{n:,} link", "{n:,} links", links),
        out=out,
    )


def done_before(
    batch: Batch, settings: Settings, selection: str, runs: Iterable[Run], *, new_run: bool = False
) -> Text | None:
    """Return a warning if the newest run of this list, part and target is finished: its files would be sent again.

    None if an unfinished run would be resumed, or the newest has stored nothing. `runs`: newest first.
    """
    wanted = ("upload", settings.run_target, batch.sha256, selection, "")
    found = [
        run
        for run, one in ((run, run.record) for run in runs)
        if (one.kind, one.target, one.list_sha256, one.selection, one.parent) == wanted
    ]
    same = [run.record for run in found]
    if not same or same[0].finished_at is None or not any(outcome.succeeded for outcome in found[0].outcomes):
        return None
    root, now = str((batch.root or batch.source.parent).resolve()), time.time()
    if not new_run and any(run.root == root and run.may_be_resumed(now) for run in same):
        return None
    at = datetime.fromtimestamp(same[0].finished_at, settings.zone).isoformat(" ", "minutes")[:16]
    return _("Run {id} finished this list at {at}: its files are sent again.", id=same[0].id, at=at)


def facts(batch: Batch) -> dict[str, Any]:
    """Return the facts about a checked list, for `--json`."""
    return {
        "list": str(batch.source),
        "sha256": batch.sha256,
        "encoding": batch.encoding,
        "rows": batch.count,
        "valid": batch.valid,
        "invalid": batch.count - batch.valid,
        "left_out": batch.left_out,
        "merchant_left": sum(rows for _, rows in batch.by_departed_merchant()),
        "merchants": batch.merchants_count,
        "envs": batch.envs,
        "bytes": batch.total_bytes if batch.root is not None else None,
    }


def facts_line(batch: Batch) -> Text:
    """Return the facts in one line."""
    parts: list[object] = [
        ngettext("{n:,} merchant", "{n:,} merchants", batch.merchants_count),
        ngettext("{n:,} environment", "{n:,} environments", batch.envs),
    ]
    if batch.root is not None:
        parts.append(format_size(batch.total_bytes))
    line = _(
        "{valid:,} of {rows} valid: {facts}",
        valid=batch.valid,
        rows=ngettext("{n:,} row", "{n:,} rows", batch.count),
        facts=as_facts(parts),
    )
    left = batch.by_departed_merchant()
    if not left:
        return line
    return _(
        "{line}; {rows:,} of them will not be attempted: the merchant has left ({names})",
        line=line,
        rows=sum(count for _merchant, count in left),
        names=as_list(dict.fromkeys(sanitize(merchant.name) for merchant, _count in left), 3),
    )


@dataclass(frozen=True, slots=True)
class SendScope:
    """The rows, merchants and environments that would be sent."""

    rows: int
    merchants: int
    envs: int

    def needs_confirmation(self, settings: Settings, *, can_ask: bool) -> bool:
        """Return whether an operator must confirm before anything is uploaded.

        ==================  ========================  =======
        target              environments              result
        ==================  ========================  =======
        simulated           any                       no
        live, a terminal    any                       yes
        live, no terminal   up to `confirm_over`      no
        live, no terminal   more                      yes
        ==================  ========================  =======
        """
        return not settings.on_loopback and (can_ask or self.envs > settings.confirm_over)

    @property
    def text(self) -> Text:
        """The figures as text."""
        return _(
            "{rows}: {merchants}, {environments}",
            rows=ngettext("{n:,} row", "{n:,} rows", self.rows),
            merchants=ngettext("{n:,} merchant", "{n:,} merchants", self.merchants),
            environments=ngettext("{n:,} environment", "{n:,} environments", self.envs),
        )


def scope_of_list(batch: Batch) -> SendScope:
    """Return the scope of an upload of a list."""
    return SendScope(batch.valid, batch.merchants_count, batch.envs)


def scope_of_rows(tallies: Iterable[Tally], outcomes: frozenset[Outcome]) -> SendScope:
    """Return the scope of a run's rows with these outcomes, to run again or resume."""
    found = [tally for tally in tallies if tally.outcome in outcomes and tally.env]
    return SendScope(
        sum(tally.rows for tally in found),
        len({tally.appid for tally in found}),
        len({(tally.appid, tally.env) for tally in found}),
    )


def scope_of_stored(run: Run, only: Iterable[Merchant] | None) -> SendScope:
    """Return the scope of a change of the files that an upload has stored, its retries included; `only`: of these merchants."""
    final = run.final()
    narrowed = final if only is None else final.of_merchants(only)
    return scope_of_rows(narrowed.tallies(), frozenset({Outcome.UPLOADED}))


@dataclass(frozen=True, slots=True)
class Cost:
    """The link calls of a list, one per row, by the account that they count against."""

    rows: Mapping[QuotaAccount, int]
    accounts: Mapping[str, tuple[QuotaAccount, ...]]
    """appid → the accounts of its rows: its own first, the platform's for the platform's environments."""
    allowances: Allowances
    rate: float | None
    seconds_left: float
    """Until midnight in Beijing."""

    def fits(self, appid: str) -> bool | None:
        """Return whether a merchant's rows fit into the day: False if one of its accounts' do not, None if unknown."""
        answers = [self.account_fits(account) for account in self.accounts[appid]]
        return False if False in answers else None if None in answers else True

    def account_fits(self, account: QuotaAccount) -> bool | None:
        """Return whether all rows of an account fit into its day."""
        return fits(self.rows[account], self.allowances.quotas.get(account), self.rate, self.seconds_left)

    def seconds(self, account: QuotaAccount) -> float:
        """Return the least seconds that an account's calls take at the configured rate; 0 without a rate."""
        return self.rows[account] / self.rate if self.rate else 0.0

    @property
    def platform(self) -> QuotaAccount | None:
        """The platform's own account, if there are rows for environments of its own."""
        return next((account for account in self.rows if account.owner is Owner.PLATFORM), None)

    @property
    def platform_is_shared(self) -> bool:
        """Whether the platform's account serves several merchants, or one that also has its own."""
        whose = [accounts for accounts in self.accounts.values() if self.platform in accounts]
        return len(whose) > 1 or any(len(accounts) > 1 for accounts in whose)

    def as_dict(self, appid: str) -> dict[str, Any]:
        """Return a merchant's part, for `--json`: the quota is that of its own account, if it has rows of its own."""
        return {"quota": self._figures(self.accounts[appid][0]), "fits": self.fits(appid)}

    def platform_dict(self, account: QuotaAccount) -> dict[str, Any]:
        """Return the platform's part, for `--json`."""
        quota, fit = self._figures(account), self.account_fits(account)
        return {"appid": account.appid, "rows": self.rows[account], "quota": quota, "fits": fit}

    def _figures(self, account: QuotaAccount) -> dict[str, int] | None:
        quota = self.allowances.quotas.get(account)
        return quota.figures if quota is not None else None

    def left(self, account: QuotaAccount) -> str:
        """Return an account's calls left, for a table."""
        quota = self.allowances.quotas.get(account)
        return "–" if quota is None or quota.left is None else f"{quota.left:,}"

    def warnings(self, names: Mapping[str, str]) -> Iterator[Text]:
        """Yield warnings about what does not fit into the day; `names`: the merchants' by appid."""
        short = [
            (account, quota.left)
            for account in self.rows
            if (quota := self.allowances.quotas.get(account)) is not None
            and quota.left is not None
            and self.rows[account] > quota.left
        ]
        if short:
            listed = [
                _(
                    "{account} ({rows}, {left:,} left)",
                    account=_name(account, names),
                    rows=ngettext("{n:,} row", "{n:,} rows", self.rows[account]),
                    left=left,
                )
                for account, left in short
            ]
            who = as_list(listed, NAMED)
            yield _(
                "More rows than link calls left today: {who}. The rows beyond that will be refused with 45009: "
                "run them tomorrow, or reset the quota with clear_quota.",
                who=who,
            )
        slow = [account for account in self.rows if self.seconds(account) > self.seconds_left]
        if slow:
            who = as_list((_name(account, names) for account in slow), NAMED)
            longest = max(map(self.seconds, slow))
            yield _(
                "At this rate the calls do not finish today: {who} needs up to {longest}, but the daily quota "
                "resets at midnight in Beijing, in {left}.",
                who=who,
                longest=format_duration(longest),
                left=format_duration(self.seconds_left),
            )

    @property
    def unknown(self) -> Text | None:
        """Why the calls left of some accounts are unknown; None if all are known."""
        why = self.allowances.why_not
        if why is None:
            return None
        return _("Calls left are unknown for some merchants: {why}", why=why)


def calls_by_account(
    batch: Batch, settings: Settings
) -> tuple[Counter[QuotaAccount], dict[str, tuple[QuotaAccount, ...]]]:
    """Return a list's link calls by account, and each appid's accounts, the platform's last.

    Rows that will not be attempted count 0.
    """
    owner = {(m.appid, m.env): m.owner for m in batch.merchants.whole}
    left = {(m.appid, m.env) for m in batch.merchants.whole if m.left}
    rows: Counter[QuotaAccount] = Counter()
    accounts: dict[str, set[QuotaAccount]] = {}
    for appid, env, count in batch.by_environment():
        whose = owner.get((appid, env), Owner.MERCHANT)
        account = QuotaAccount(appid if whose is Owner.MERCHANT else settings.tokens.component_appid, whose)
        rows[account] += 0 if (appid, env) in left else count
        accounts.setdefault(appid, set()).add(account)
    return rows, {
        appid: tuple(sorted(its, key=lambda one: one.owner is Owner.PLATFORM))
        for appid, its in accounts.items()
    }


def accounts_to_ask(batch: Batch, settings: Settings) -> list[QuotaAccount]:
    """Return the accounts whose quotas a list's calls count against."""
    return [account for account, count in calls_by_account(batch, settings)[0].items() if count]


def reckon(
    batch: Batch, settings: Settings, limits: RunLimits, allowances: Allowances, now: datetime
) -> Cost:
    """Return what a list costs if it is started now."""
    rows, accounts = calls_by_account(batch, settings)
    return Cost(rows, accounts, allowances, limits.rate, seconds_left_of_the_day(now))


@dataclass(frozen=True, slots=True)
class MerchantEstimate:
    """One merchant's part of a dry run."""

    appid: str
    merchant: str
    envs: int
    rows: int
    attempted: int
    """Rows except those of an environment that has left."""
    calls: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run of a list would send."""

    batch: Batch
    uploads: bool
    seconds: float
    """The least time at the configured rate; 0 without a rate."""
    cost: Cost
    estimates: Sequence[MerchantEstimate]
    """Merchants whose rows do not fit into the day come first, then by rows."""

    @classmethod
    def of(cls, batch: Batch, limits: RunLimits, cost: Cost, *, uploads: bool) -> DryRun:
        """Count what would be sent."""
        left = Counter[str]()
        for merchant, count in batch.by_departed_merchant():
            left[merchant.appid] += count
        estimates = [
            MerchantEstimate(
                appid, name, envs, rows, rows - left[appid], (rows - left[appid]) * (1 + uploads), size
            )
            for appid, name, envs, rows, size in batch.by_merchant()
        ]
        estimates.sort(key=lambda estimate: cost.fits(estimate.appid) is not False)
        return cls(batch, uploads, seconds_at_rate(batch, limits), cost, estimates)

    @property
    def calls(self) -> int:
        """All calls, to the platform and to the store."""
        return sum(estimate.calls for estimate in self.estimates)

    def warnings(self) -> Iterator[Text]:
        """Yield warnings about what does not fit into the day."""
        return self.cost.warnings({estimate.appid: estimate.merchant for estimate in self.estimates})

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, for `--json`."""
        platform = self.cost.platform
        merchants = [asdict(estimate) | self.cost.as_dict(estimate.appid) for estimate in self.estimates]
        for merchant in merchants:
            del merchant["attempted"]
        return (
            facts(self.batch)
            | {"calls": self.calls, "seconds_at_rate": self.seconds, "by_merchant": merchants}
            | ({"platform": self.cost.platform_dict(platform)} if platform is not None else {})
        )


def _name(account: QuotaAccount, names: Mapping[str, str]) -> Text:
    if account.owner is Owner.PLATFORM:
        return _("the platform's own environments")
    return verbatim(names.get(account.appid, account.appid))
