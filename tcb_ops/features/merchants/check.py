"""Merchants: the status of each line of their file, what it can do today, its issues, how they are shown.

Pure, except for `write_states`: from responses to a verdict, a table (most frequent issues first) and a CSV.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcb_ops.details import merged, of_any_appid
from tcb_ops.errcodes import all_reasons, errcode
from tcb_ops.formatting import sanitize
from tcb_ops.frames import Lines, Tabular
from tcb_ops.i18n import Lang, Text, _, as_list, ngettext
from tcb_ops.model import Merchant, Owner, Reason
from tcb_ops.runs.single_calls import RENEW_COMPONENT, Issue
from tcb_ops.table_files import write_table
from tcb_ops.wechat.responses import AuthorizerInfo, CloudEnvironment, Quota

if TYPE_CHECKING:
    from rich.console import RenderableType

NORMAL, HALTED = "NORMAL", "HALTED"
_REFUSED = frozenset({Reason.DEAD_TOKEN, "40001", "40014", "42001"})
COMPONENT_CODES = _REFUSED | {Reason.NO_TOKEN, "48001", "61014"}
"""Issues of the token itself. With the component token they concern no merchant."""
_TOKEN_CODES = _REFUSED | {Reason.NO_TOKEN, "61003", "42002", "61023", "42007"}
"""Issues of the token, or of the authorization that it belongs to."""
_PERMISSION_CODES = frozenset({"48001", "61007", "61017", "-601004", "-601018"})
"""Issues of a permission set that was not granted (errcodes.csv)."""
_NO_CLOUD = "85088"
WITHOUT_CLOUD = _PERMISSION_CODES | {_NO_CLOUD}
"""Issues of a merchant without 云开发, or without a permission set for it: shown, but not as failures."""

LINES = 40
"""Maximum number of lines with issues that are shown, those with the most frequent issue first."""
READY_LINES = 12
"""Lines without issues are shown if there are at most this many, else only counted."""


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
    issues: tuple[Issue, ...] = ()
    """The most important first."""

    @property
    def works(self) -> bool:
        """Whether rows of this line can succeed. False for a merchant that has left, which is not checked."""
        return not self.issues and not self.merchant.left

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
            "troubles": [issue.as_dict(lang) for issue in self.issues],
        }


@dataclass(frozen=True, slots=True)
class MerchantAnswers:
    """The responses about one mini program; for the platform's own environments, about the platform."""

    environments: tuple[CloudEnvironment, ...] | Issue
    quota: Quota | Issue | None = None
    """None if not requested."""
    info: AuthorizerInfo | Issue | None = None
    """None without a component token."""


def judge(merchant: Merchant, answers: MerchantAnswers, elsewhere: Mapping[str, str]) -> MerchantState:
    """Return a line's status from the responses; `elsewhere`: the status of environments that other accounts listed.

    ==================================  =====  ==========  =====  ===========  ===================
    getenvinfo returns                  token  permission  cloud  env_status   issue
    ==================================  =====  ==========  =====  ===========  ===================
    no token, 40001, 42001, 61003 …     no     –           –      –            itself
    61007, 48001 …                      yes    no          –      –            itself
    85088                               yes    –           no     –            itself
    anything else, no response          –      –           –      –            itself
    the environment, NORMAL             yes    –           yes    NORMAL       none
    the environment, HALTED …           yes    –           yes    HALTED …     halted, unavailable
    other environments, another has it  yes    –           yes    the other's  by the status
    other environments                  yes    –           yes    –            not_listed
    ==================================  =====  ==========  =====  ===========  ===================

    func_info, if requested, then decides the permission (61007 if no set is granted). A quota with nothing left is 45009;
    one that could not be read is no issue. An environment of the platform's own needs no permission set.
    """
    own = merchant.owner is Owner.MERCHANT
    environments, info = answers.environments, answers.info if own else None
    code, status = "", ""
    issues: list[Issue] = []
    token: bool | None = True
    permission: bool | None = None
    cloud: bool | None = True
    if isinstance(environments, Issue):
        code = environments.code
        token = False if code in _TOKEN_CODES else True if code in _PERMISSION_CODES | {_NO_CLOUD} else None
        permission = False if own and code in _PERMISSION_CODES else None
        cloud = False if code == _NO_CLOUD else None
        issues.append(environments)
    else:
        own_status = (e.status for e in environments if e.env == merchant.env)
        status = next(own_status, elsewhere.get(merchant.env, ""))
        if status != NORMAL:
            issues.append(_of_status(status, own=own))
    if isinstance(info, Issue):
        issues += [info] if info.errcode is not None and info.code != code else []
    elif info is not None:
        permission = info.may_upload
        if not permission and code not in _PERMISSION_CODES:
            meaning = _("Permission set 49 (小程序云开发管理) is not granted to the platform.")
            issues.insert(0, Issue("61007", meaning, errcode(61007).action))
    quota = answers.quota if isinstance(answers.quota, Quota) else None
    if quota is not None and quota.left == 0:
        used_up = errcode(45009, merchant.owner)
        issues.append(Issue("45009", used_up.meaning, used_up.action))
    return MerchantState(merchant, token, permission, cloud, status, quota, tuple(issues))


def of_the_component(issue: Issue) -> Issue:
    """Return an issue of the component token with the action for that token, not for a merchant's."""
    if issue.code in _REFUSED:
        return replace(issue, action=RENEW_COMPONENT)
    if issue.code not in COMPONENT_CODES or issue.code == Reason.NO_TOKEN:
        return issue
    action = _("Make sure that component_appid is the third-party platform's own appid.")
    return replace(issue, action=action)


def _of_status(status: str, *, own: bool) -> Issue:
    if status == HALTED:
        halted = all_reasons()[Reason.HALTED]
        return Issue(Reason.HALTED, halted.meaning, halted.action)
    if status:
        action = all_reasons()[Reason.UNAVAILABLE].action
        return Issue(Reason.UNAVAILABLE, _("The environment is {status}.", status=status), action)
    if own:
        meaning = _("It is not among the merchant's environments at the platform.")
        return Issue("not_listed", meaning, errcode(-601012).action)
    action = _("Correct env in the merchants file; if the environment is a merchant's, clear owner there.")
    return Issue("not_listed", _("It is not among the platform's own environments."), action)


# --- display -------------------------------------------------------------------------------------------------------

_HEADS = (
    _("merchant"),
    _("environment"),
    _("token"),
    _("set 49"),
    _("cloud"),
    _("status"),
    _("calls"),
    _("why"),
)


def draw_states(states: Sequence[MerchantState], lang: Lang) -> Iterator[RenderableType]:
    """Render the table, then each code's meaning and action. Lines left out are counted."""
    from tcb_ops.reports.formats.terminal import AlignedTable, Wrapped

    bad = [state for state in states if state.issues]
    times = Counter(state.issues[0].code for state in bad)
    bad.sort(key=lambda s: (-times[s.issues[0].code], s.issues[0].code, s.merchant.name, s.merchant.env))
    ready = [state for state in states if state.works]
    shown = bad[:LINES] + (ready if len(ready) <= READY_LINES else [])
    if shown:
        table = [[head.of(lang) for head in _HEADS], *(_cells(state, lang) for state in shown)]
        yield AlignedTable(table, numbers=frozenset({6}), elastic=frozenset({0, 1}))
    if (more := len(bad) - LINES) > 0:
        yield _("… and {more:,} more that are not ready: --out FILE.xlsx lists all", more=more).of(lang)
    for issue, merchants in group((state.merchant, issue) for state in bad for issue in state.issues):
        yield ""
        names = as_list(dict.fromkeys(sanitize(merchant.name) for merchant in merchants), 3)
        lines = _("{lines} ({names})", lines=_lines(len(merchants)), names=names).of(lang)
        yield Wrapped(f"{issue.code} · {lines} · {sanitize(issue.meaning.of(lang))}", bold=len(issue.code))
        yield Wrapped(f"→ {sanitize(issue.action.of(lang))}")
    if shown:
        yield ""


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
            quota, issues = facts.pop("quota") or {}, facts.pop("troubles")
            facts |= {name: quota.get(name) for name in ("daily_limit", "used", "remain")}
            for name in ("code", "meaning", "action", "errmsg"):
                facts[name] = " / ".join(filter(None, (issue[name] for issue in issues)))
            lines.append(facts)
        names = list(lines[0]) if lines else ["appid", "merchant", "env"]
        return Lines(verdict(self), names, (tuple(facts.values()) for facts in lines), len(lines))

    def write(self, dest: Path, lang: Lang) -> None:
        """Write a line per state, as CSV or as a workbook, instead of an earlier file. Raises UsageError."""
        words, table = {True: "yes", False: "no"}, self._table(lang)
        lines = ([words[cell] if isinstance(cell, bool) else cell for cell in line] for line in table.lines)
        write_table(dest, table.names, lines, replace=True)


def group(issues: Iterable[tuple[Merchant, Issue]]) -> list[tuple[Issue, list[Merchant]]]:
    """Group merchants by issue, ignoring its errmsg; the largest group first."""
    groups: dict[tuple[str, Text, Text], list[tuple[Merchant, Issue]]] = {}
    for merchant, issue in issues:
        key = issue.code, issue.meaning, of_any_appid(issue.action)
        groups.setdefault(key, []).append((merchant, issue))
    grouped = []
    for (code, meaning, _action), members in groups.items():
        merged_action = merged(issue.action for _merchant, issue in members)[0]
        shared = members[0][1] if len(members) == 1 else Issue(code, meaning, merged_action)
        grouped.append((shared, [merchant for merchant, _issue in members]))
    return sorted(grouped, key=lambda group: -len(group[1]))


def _cells(state: MerchantState, lang: Lang) -> list[str]:
    left = state.quota.left if state.quota else None
    return [
        sanitize(state.merchant.name),
        sanitize(state.merchant.env),
        *(_shown(fact, lang) for fact in (state.token, state.permission, state.cloud)),
        sanitize(state.env_status) or "–",
        "–" if left is None else f"{left:,}",
        ", ".join(issue.code for issue in state.issues),
    ]


def _shown(fact: bool | None, lang: Lang) -> str:
    return "–" if fact is None else (_("yes") if fact else _("NO")).of(lang)


def _lines(count: int) -> Text:
    return ngettext("{n:,} line", "{n:,} lines", count)
