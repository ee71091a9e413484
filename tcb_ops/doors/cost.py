"""What a list will cost each merchant's day: its link calls against those that are left, and the time they take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcb_ops.accounts.allowance import Account, ask_allowances, fits, seconds_left_of_the_day
from tcb_ops.doors.screen import span
from tcb_ops.model import Owner, Text, plural

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tcb_ops.accounts.allowance import Allowances
    from tcb_ops.doors.screen import Screen
    from tcb_ops.lists.paths import Batch
    from tcb_ops.platform.authorizers import Quota
    from tcb_ops.runs.pacing import Pace
    from tcb_ops.settings import Settings

__all__ = ["Cost", "reckon"]

NAMED = 5
"""Merchants that a warning names."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The link calls of a list, one a row, by the account they count against."""

    rows: Mapping[Account, int]
    accounts: Mapping[str, tuple[Account, ...]]
    """appid → the accounts that its rows count against: its own first, the platform's for the platform's environments."""
    allowances: Allowances
    rate: float | None
    seconds_left: float
    """Of the day, in Beijing."""

    def quota(self, appid: str) -> Quota | None:
        """What is left to a merchant; of its own account, where it has rows of its own."""
        return self.allowances.quotas.get(self.accounts[appid][0])

    def fits(self, appid: str) -> bool | None:
        """Whether a merchant's rows fit into the day: False where one of its accounts does not, None where it is not known."""
        answers = [self.account_fits(account) for account in self.accounts[appid]]
        return False if False in answers else None if None in answers else True

    def account_fits(self, account: Account) -> bool | None:
        """Whether all rows that count against an account fit into its day."""
        return fits(self.rows[account], self.allowances.quotas.get(account), self.rate, self.seconds_left)

    def seconds(self, account: Account) -> float:
        """The least time that an account's calls take at the rate allowed; 0 where there is none."""
        return self.rows[account] / self.rate if self.rate else 0.0

    @property
    def platform(self) -> Account | None:
        """The platform's own account, where there are rows for environments of its own."""
        return next((account for account in self.rows if account.owner is Owner.PLATFORM), None)

    @property
    def platform_is_shared(self) -> bool:
        """Whether the platform's account is more than one merchant's whole one."""
        whose = [accounts for accounts in self.accounts.values() if self.platform in accounts]
        return len(whose) > 1 or any(len(accounts) > 1 for accounts in whose)

    def as_dict(self, appid: str) -> dict[str, Any]:
        """A merchant's part, for `--json`."""
        return {"quota": _figures(self.quota(appid)), "fits": self.fits(appid)}

    def platform_dict(self, account: Account) -> dict[str, Any]:
        """The platform's part, for `--json`."""
        quota = _figures(self.allowances.quotas.get(account))
        return {
            "appid": account.appid,
            "rows": self.rows[account],
            "quota": quota,
            "fits": self.account_fits(account),
        }

    def left(self, account: Account) -> str:
        """The calls left to an account, for a table."""
        quota = self.allowances.quotas.get(account)
        return "–" if quota is None or quota.left is None else f"{quota.left:,}"

    def warn(self, screen: Screen, names: Mapping[str, str]) -> None:
        """Say what does not fit into the day, and once why something is not known."""
        short = [
            (account, quota.left)
            for account in self.rows
            if (quota := self.allowances.quotas.get(account)) is not None
            and quota.left is not None
            and self.rows[account] > quota.left
        ]
        if short:
            listed = [
                Text(
                    f"{_name(account, names).en} ({plural(self.rows[account], 'row')}, {left:,} left)",
                    f"{_name(account, names).zh}（{self.rows[account]:,} 行，剩余 {left:,}）",
                )
                for account, left in short
            ]
            who = _some(listed)
            screen.warn(
                Text(
                    f"More rows than link calls left today: {who.en}. The rest will be refused with 45009: run it tomorrow, or "
                    "free the quota with clear_quota.",
                    f"行数超过今日剩余的取链接次数：{who.zh}。超出的行会以 45009 被拒绝：请明天再运行，或用 clear_quota 清零。",
                )
            )
        slow = [account for account in self.rows if self.seconds(account) > self.seconds_left]
        if slow:
            who = _some([_name(account, names) for account in slow])
            longest = max(map(self.seconds, slow))
            screen.warn(
                Text(
                    f"At this rate the calls do not end today: {who.en} needs up to {span(longest)}, and the day of the "
                    f"quotas ends at midnight in Beijing, in {span(self.seconds_left)}.",
                    f"按此速率今天调用不完：{who.zh} 最长需要 {span(longest)}，而配额日在北京时间零点结束，"
                    f"还有 {span(self.seconds_left)}。",
                )
            )
        why = self.allowances.why_not
        if why is not None:
            screen.say(
                Text(f"Calls left are not known for all: {why.en}", f"部分商户的剩余调用未知：{why.zh}")
            )


def reckon(batch: Batch, settings: Settings, pace: Pace, now: datetime) -> Cost:
    """Reckon what a list costs if it is begun now; asks for each account's quota (10 s at most), and for no link."""
    owner = {(m.appid, m.env): m.owner for m in batch.merchants.whole}
    left = {(m.appid, m.env) for m in batch.merchants.whole if m.left}
    rows: Counter[Account] = Counter()
    accounts: dict[str, set[Account]] = {}
    for appid, env, count in batch.by_place():
        whose = owner.get((appid, env), Owner.MERCHANT)
        account = Account(appid if whose is Owner.MERCHANT else settings.tokens.component_appid, whose)
        rows[account] += 0 if (appid, env) in left else count
        accounts.setdefault(appid, set()).add(account)
    return Cost(
        rows,
        {
            appid: tuple(sorted(its, key=lambda one: one.owner is Owner.PLATFORM))
            for appid, its in accounts.items()
        },
        ask_allowances(settings, [account for account, count in rows.items() if count]),
        pace.rate,
        seconds_left_of_the_day(now),
    )


def _name(account: Account, names: Mapping[str, str]) -> Text:
    if account.owner is Owner.PLATFORM:
        return Text("the platform's own environments", "平台自有环境")
    name = names.get(account.appid, account.appid)
    return Text(name, name)


def _some(listed: list[Text]) -> Text:
    more = len(listed) - NAMED
    en, zh = ", ".join(one.en for one in listed[:NAMED]), "、".join(one.zh for one in listed[:NAMED])
    return Text(f"{en} and {more:,} more", f"{zh}等 {len(listed):,} 个") if more > 0 else Text(en, zh)


def _figures(quota: Quota | None) -> dict[str, int] | None:
    return quota.figures if quota is not None else None
