"""Merchants: what each line of their file can do today, what keeps it from that, and whether link calls run short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tcb_ops.arguments import checked
from tcb_ops.engine.limits import RunLimits
from tcb_ops.engine.loop import result_of, submit_coroutine
from tcb_ops.engine.single_calls import open_client
from tcb_ops.errors import TcbOpsError, check_value
from tcb_ops.features.health.interfaces import Quota
from tcb_ops.features.health.questions import COMPONENT_CODES, ONCE, Probes, Progress, ask_about, ignore
from tcb_ops.features.health.verdicts import Facts, Issue, Verdict, verdict_of
from tcb_ops.formatting import sanitize
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import Lang, Text, _, as_facts, as_list, as_sentences, ngettext
from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import Merchant
from tcb_ops.settings import Settings
from tcb_ops.start import TargetOptions, merchants_for, opened_target, settings_for
from tcb_ops.table_files import write_table

if TYPE_CHECKING:
    from tcb_ops.cli.console import Console
    from tcb_ops.preflight import SendScope

STANDARD = RunLimits()
QUOTA_SECONDS = 5.0
"""For which an upload waits for the answers about today's link calls."""


@dataclass(frozen=True, slots=True)
class MerchantState:
    """What one line of the merchants file can do today."""

    merchant: Merchant
    env_status: str = ""
    """NORMAL, HALTED or UNAVAILABLE; empty if unknown."""
    quota: Quota | None = None
    """Upload link calls, today."""
    verdict: Verdict | None = None
    """Why rows of this line cannot succeed, and who must act."""

    @property
    def works(self) -> bool:
        """Whether rows of this line can succeed. False for a merchant that has left, which is not checked."""
        return self.verdict is None and not self.merchant.left

    def as_dict(self, lang: Lang) -> dict[str, Any]:
        """Return all fields, flat except for the quota and the issues, for JSON and data frames."""
        return {
            "appid": self.merchant.appid,
            "merchant": self.merchant.name,
            "env": self.merchant.env,
            "owner": str(self.merchant.owner),
            "left": self.merchant.left,
            "works": self.works,
            "env_status": self.env_status or None,
            "quota": self.quota.figures if self.quota else None,
            "troubles": [self.verdict.as_dict(lang)] if self.verdict is not None else [],
        }


def state_of(facts: Facts) -> MerchantState:
    """Return a line's status from what its account answered."""
    quota = facts.answers.quota if isinstance(facts.answers.quota, Quota) else None
    return MerchantState(facts.merchant, facts.status, quota, verdict_of(facts))


def check_lines(
    settings: Settings,
    merchants: Sequence[Merchant],
    *,
    limits: RunLimits = STANDARD,
    progress: Progress = ignore,
    notify: Callable[[Text], None] = ignore,
) -> MerchantStates:
    """Check every line that has not left; `progress` is called on the private loop's thread.

    Raises SettingsError, PlatformStopError (61004 and the like), OutageError (no host could be reached).
    """
    questions = [Facts(merchant=line) for line in merchants if not line.left]
    asking = ask_about(
        questions, merchants, settings, limits=limits, stops=True, progress=progress, notify=notify
    )
    answered = result_of(submit_coroutine(asking))
    facts_of = iter(answered)
    states = MerchantStates(MerchantState(m) if m.left else state_of(next(facts_of)) for m in merchants)
    infos = (facts.answers.info for facts in answered)
    issue = next((i for i in infos if isinstance(i, Issue) and i.code in COMPONENT_CODES), None)
    if issue is not None:
        text = _("Permission sets were not checked. {action} Reason: {meaning}")
        states.note = text.format(meaning=issue.meaning, action=issue.action)
    return states


@checked
def check_merchants(
    merchants: Iterable[Merchant] | str | Path = "",
    *,
    where: str | Sequence[str] = "",
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[TargetOptions],
) -> MerchantStates:
    """Check what each line of a merchants file can do today: token, permission set, 云开发, environment, calls left.

    `where`: only lines that match, as in `read_merchants`. `progress` is called with the lines done and their number. Raises SettingsError, StoppedError.
    """
    settings = settings_for(options)
    if not isinstance(merchants, str | PathLike | Merchants):
        lines = list(merchants)
        usable = all(isinstance(line, Merchant) for line in lines)
        valid = _("Merchants, a list of Merchant, or the path of their file")
        check_value("merchants", merchants, usable, valid)
        merchants = Merchants(lines)
    lines = list(merchants_for(merchants, options, where))
    with opened_target(settings, lambda: lines) as opened:
        return check_lines(opened, lines, progress=progress or ignore)


def warn_of_few_calls(scope: SendScope, settings: Settings, console: Console) -> None:
    """Warn of merchants whose link calls of today are too few; who cannot be asked within some seconds delays nothing."""
    appids, left = [appid for appid, _name, _calls in scope.most], dict[str, int]()

    async def ask() -> list[Quota | Issue]:
        async with asyncio.timeout(QUOTA_SECONDS), open_client(settings, limits=ONCE) as (client, caller):
            return await asyncio.gather(*map(Probes(caller, client, "").quota, appids))

    with console.waiting(_("asking for today's link calls")), suppress(TcbOpsError, TimeoutError):
        quotas = zip(appids, submit_coroutine(ask()).result(), strict=True)
        left = {appid: q.left for appid, q in quotas if isinstance(q, Quota) and q.left is not None}
    text = _("{merchant} ({left:,} left, {rows:,} needed)")
    short = [
        text.format(merchant=sanitize(name), left=left[appid], rows=calls)
        for appid, name, calls in scope.most
        if left.get(appid, calls) < calls
    ]
    if short:
        text = _("Today's link calls are too few for {merchants}: their other rows would end with 45009.")
        console.warn(text.format(merchants=as_list(short, most=3)))


# --- display -------------------------------------------------------------------------------------------------------


def verdict(states: Sequence[MerchantState]) -> Text:
    """Return one sentence: how many lines are ready, and which of them has the fewest calls left."""
    works = [state for state in states if state.works]
    left = sum(state.merchant.left for state in states)
    lines = ngettext("{n:,} line", "{n:,} lines", len(states))
    facts = [
        _("{works:,} of {lines} ready", works=len(works), lines=lines),
        _("{bad:,} not ready", bad=len(states) - len(works) - left),
        *([_("{left:,} of merchants that have left", left=left)] if left else []),
    ]
    sentences = [_("{facts}.", facts=as_facts(facts))]
    if limited := [(s.quota.left, s.merchant.name) for s in works if s.quota and s.quota.left is not None]:
        least, name = min(limited)
        sentences.append(_("Fewest calls left today: {least:,} ({name}).", least=least, name=sanitize(name)))
    return as_sentences(sentences)


_QUOTA, _VERDICT = ("daily_limit", "used", "remain"), ("code", "who", "meaning", "action", "errmsg")
_COLUMNS = ("appid", "merchant", "env", "owner", "left", "works", "env_status", *_QUOTA, *_VERDICT)


class MerchantStates(list[MerchantState], Tabular):
    """The status of each line of a merchants file, in its order."""

    note: Text | None = None
    """Why permission sets were not checked; None if they were."""

    __repr__ = Tabular.__repr__

    def _table(self, lang: Lang) -> Lines:
        lines = []
        for state in self:
            facts = state.as_dict(lang)
            issue = dict.fromkeys(_VERDICT, "") | next(iter(facts["troubles"]), {})
            facts |= dict.fromkeys(_QUOTA) | (facts["quota"] or {}) | {name: issue[name] for name in _VERDICT}
            lines.append([facts[name] for name in _COLUMNS])
        return Lines(verdict(self), _COLUMNS, lines, len(lines))

    def write(self, dest: Path, lang: Lang) -> None:
        """Write a line per state, as CSV or as a workbook, instead of an earlier file. Raises UsageError."""
        words, table = {True: "yes", False: "no"}, self._table(lang)
        lines = ([words[cell] if isinstance(cell, bool) else cell for cell in line] for line in table.lines)
        write_table(dest, table.names, lines, replace=True)
