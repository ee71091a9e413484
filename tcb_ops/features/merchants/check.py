"""Merchants: the status of each line of their file, what it can do today, its issues, how they are shown.

Pure, except for `MerchantStates.write`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tcb_ops.details import merged, of_any_appid
from tcb_ops.formatting import sanitize
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import Lang, Text, _, ngettext
from tcb_ops.model import Merchant
from tcb_ops.runs.verdicts import Facts, Issue, Verdict, presumed, verdict_of
from tcb_ops.table_files import write_table
from tcb_ops.wechat.responses import AuthorizerInfo, Quota

if TYPE_CHECKING:
    from rich.console import RenderableType

Told = TypeVar("Told", Issue, Verdict)


@dataclass(frozen=True, slots=True)
class MerchantState:
    """The status of one line of the merchants file. None means not checked, or unknown."""

    merchant: Merchant
    token: bool | None = None
    """Whether the token is accepted."""
    permission: bool | None = None
    """Whether permission set 49 is granted; an environment of the platform's own needs none."""
    cloud: bool | None = None
    """Whether 云开发 is open."""
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
            "token": self.token,
            "permission": self.permission,
            "cloud": self.cloud,
            "env_status": self.env_status or None,
            "quota": self.quota.figures if self.quota else None,
            "troubles": [self.verdict.as_dict(lang)] if self.verdict is not None else [],
        }


def state_of(facts: Facts) -> MerchantState:
    """Return a line's status from what its account answered.

    ==============================  =====  ==========  =====
    getenvinfo                      token  permission  cloud
    ==============================  =====  ==========  =====
    a token missing or refused      no     –           –
    a permission set missing        yes    no          –
    85088                           yes    –           no
    anything else, no answer        –      –           –
    environments                    yes    –           yes
    ==============================  =====  ==========  =====

    What api_get_authorizer_info says then decides the permission; an environment of the platform's own needs none.
    """
    environments, info, quota = facts.answers.environments, facts.answers.info, facts.answers.quota
    suggested: tuple[bool | None, bool | None, bool | None] = (True, None, True)
    if isinstance(environments, Issue):
        suggested = _SUGGESTS.get(presumed(environments.code), (None, None, None))
    token, permission, cloud = suggested
    if isinstance(info, AuthorizerInfo):
        permission = info.may_upload
    return MerchantState(
        facts.merchant,
        token,
        None if facts.own else permission,
        cloud,
        facts.status,
        quota if isinstance(quota, Quota) else None,
        verdict_of(facts),
    )


_SUGGESTS: Mapping[str, tuple[bool | None, bool | None, bool | None]] = {
    **dict.fromkeys(("no_token", "token_stale", "revoked"), (False, None, None)),
    "set_missing": (True, False, None),
    "no_cloud": (True, None, False),
}


# --- display -------------------------------------------------------------------------------------------------------


def draw_states(states: Sequence[MerchantState], lang: Lang) -> Iterator[RenderableType]:
    """Render why lines are not ready: each cause once, the most frequent first."""
    from tcb_ops.reports.formats.terminal import render_verdicts

    grouped = group((each.merchant, each.verdict) for each in states if each.verdict is not None)
    yield from render_verdicts([(verdict, [m.name for m in lines], 0) for verdict, lines in grouped], lang)


def verdict(states: Sequence[MerchantState]) -> Text:
    """Return one sentence: how many lines are ready, and which of them has the fewest calls left."""
    works = [state for state in states if state.works]
    left = sum(state.merchant.left for state in states)
    bad = len(states) - len(works) - left
    sentence = _(
        "{works:,} of {lines} ready, {bad:,} not ready", works=len(works), lines=_lines(len(states)), bad=bad
    )
    if left:
        sentence = _("{sentence}, {left:,} of merchants that have left", sentence=sentence, left=left)
    limited = [(s.quota.left, s.merchant.name) for s in works if s.quota and s.quota.left is not None]
    if limited:
        least, name = min(limited)
        sentence = _(
            "{sentence}. Fewest calls left today: {least:,} ({name})",
            sentence=sentence,
            least=least,
            name=sanitize(name),
        )
    return _("{sentence}.", sentence=sentence)


class MerchantStates(list[MerchantState], Tabular):
    """The status of each line of a merchants file."""

    def _table(self, lang: Lang) -> Lines:
        lines = []
        for state in self:
            facts = state.as_dict(lang)
            quota = facts.pop("quota") or {}
            issue: dict[str, Any] = next(iter(facts.pop("troubles")), {})
            facts |= {name: quota.get(name) for name in ("daily_limit", "used", "remain")}
            facts |= {name: issue.get(name) or "" for name in ("code", "who", "meaning", "action", "errmsg")}
            lines.append(facts)
        names = list(lines[0]) if lines else ["appid", "merchant", "env"]
        return Lines(verdict(self), names, (tuple(facts.values()) for facts in lines), len(lines))

    def write(self, dest: Path, lang: Lang) -> None:
        """Write a line per state, as CSV or as a workbook, instead of an earlier file. Raises UsageError."""
        words, table = {True: "yes", False: "no"}, self._table(lang)
        lines = ([words[cell] if isinstance(cell, bool) else cell for cell in line] for line in table.lines)
        write_table(dest, table.names, lines, replace=True)


def group(issues: Iterable[tuple[Merchant, Told]]) -> list[tuple[Told, list[Merchant]]]:
    """Group merchants by issue or verdict, ignoring its errmsg; the largest group first."""
    groups: dict[tuple[str, Text, Text], list[tuple[Merchant, Told]]] = {}
    for merchant, issue in issues:
        key = issue.code, issue.meaning, of_any_appid(issue.action)
        groups.setdefault(key, []).append((merchant, issue))
    grouped = []
    for members in groups.values():
        action = merged(issue.action for _merchant, issue in members)[0]
        shared = replace(members[0][1], action=action)
        grouped.append((shared, [merchant for merchant, _issue in members]))
    return sorted(grouped, key=lambda group: -len(group[1]))


def _lines(count: int) -> Text:
    return ngettext("{n:,} line", "{n:,} lines", count)
