"""What to do next: causes, not rows. What mends most rows per action comes first."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tcb_ops import errcodes
from tcb_ops.errcodes import Decision, Scope
from tcb_ops.i18n import Text
from tcb_ops.model import GOOD, Outcome, Reason
from tcb_ops.reports.errcode_table import MerchantShare, in_short
from tcb_ops.reports.explanations import COMPONENT_MARK, ETAG_MISMATCH, own_words, why
from tcb_ops.runs.records import Tally

REASON_NAMES: dict[str, Text] = {
    Outcome.PENDING: Text("pending", "待处理"),
    Reason.BREAKER: Text("stopped", "已停止"),
    Reason.NO_TOKEN: Text("no token", "没有令牌"),
    Reason.MERCHANT_LEFT: Text("merchant left", "商户已离开"),
    Reason.REFUSED: Text("refused", "被拒绝"),
    Reason.COMPONENT: Text("component token", "平台令牌"),
    Reason.DEAD_TOKEN: Text("dead token", "令牌失效"),
    Reason.STORE_REFUSED: Text("store refused", "存储拒绝"),
    Reason.NO_ANSWER: Text("no answer", "没有应答"),
    Reason.BAD_LINK: Text("bad link", "链接不可信"),
    Reason.FILE_CHANGED: Text("file changed", "文件已变化"),
    Reason.FILE_UNREADABLE: Text("file unreadable", "文件不可读"),
    Reason.NO_CONFIRMATION: Text("no confirmation", "未获确认"),
    Reason.ETAG_MISMATCH: Text("other bytes stored", "内容不一致"),
    Reason.INVALID: Text("bad input", "输入有误"),
}
"""Reasons in a word or two, for narrow places; by the name that errcodes.csv has in its column `code`."""
_ERRCODE = re.compile("-?[0-9]{1,9}")
_TOKENS = frozenset({Reason.DEAD_TOKEN, Reason.COMPONENT})
"""Reasons that make another cause of an errcode: it is about another token than as a rule."""

_FOR_ALL = {61028, "RequestTimeTooSkewed"}
"""Codes that stop a merchant or an environment at a time, while one thing mends them all: the platform's own
publication, this machine's clock."""


class Per(StrEnum):
    """How often somebody has to act."""

    ONCE = "once"
    MERCHANT = "merchant"
    ENV = "env"
    NOBODY = "nobody"
    """There is nothing to do."""


@dataclass(frozen=True, slots=True)
class NextAction:
    """Rows that are not good for one reason, and what mends them."""

    code: str
    """An errcode, a code of the store, or a reason's name, as in errcodes.csv."""
    name: Text
    """A few words for narrow places."""
    meaning: Text
    action: Text
    per: Per
    actions: int
    """How often: 1, or as many as there are merchants or environments; 0 where there is nothing to do."""
    merchants: tuple[MerchantShare, ...]
    """Most rows first."""
    envs: int
    outcomes: Mapping[Outcome, int]
    """How these rows ended; the sum is `rows`."""
    rows: int
    detail: str
    """What the token source or the platform said, without secrets, where that has to be read; in short."""
    even: bool
    """Whether each action mends as many rows as the others."""
    in_list: bool
    """Whether it may be the list's own values that are wrong, so that the same rows would only be refused again."""


def per(code: str, token: Reason | None = None) -> Per:
    """Say how often somebody has to act on rows under a code, as errcodes.csv has it.

    ==================================================  ==========================
    the code                                            act
    ==================================================  ==========================
    merchant_left                                       nobody
    no_token, any of a dead token                       per merchant
    ETagMismatch                                        per environment
    a code that one thing mends for all                 once
    a code that says slow down (lower --rate)           once
    a code of scope appid, of the component token       once
    a code of scope appid                               per merchant
    a code of scope env                                 per environment
    a code of scope row (the list), or platform         once
    anything else: the list, files, network, pending    once
    ==================================================  ==========================

    `token`: DEAD_TOKEN or COMPONENT where the code is about such a one. How a row came by its code is not asked: one
    that a breaker kept from being attempted is mended with the rows that tripped it.
    """
    match code:
        case Reason.MERCHANT_LEFT:
            return Per.NOBODY
        case Reason.NO_TOKEN:
            return Per.MERCHANT
    if code == ETAG_MISMATCH:
        return Per.ENV
    if token is Reason.DEAD_TOKEN:
        return Per.MERCHANT
    number = code.removesuffix(COMPONENT_MARK)
    known = errcodes.errcode(int(number)) if _ERRCODE.fullmatch(number) else errcodes.store_code(code)
    if known.decision is Decision.SLOW or known.code in _FOR_ALL:
        return Per.ONCE
    if token is Reason.COMPONENT and known.scope is Scope.APPID:
        return Per.ONCE
    return {Scope.APPID: Per.MERCHANT, Scope.ENV: Per.ENV}.get(known.scope, Per.ONCE)


def next_actions(groups: Iterable[Tally]) -> list[NextAction]:
    """Sum rows that are not good up by what mends them: most rows per action first, "nothing to do" last.

    Rows of one code and one action are one remedy, but for those of a token of another kind.
    """
    found: defaultdict[tuple[str, Text, Reason | None], list[Tally]] = defaultdict(list)
    meanings: dict[tuple[str, Text], Text] = {}
    details: defaultdict[tuple[str, Text], list[tuple[str, str]]] = defaultdict(list)
    for group in groups:
        cause = why(group.outcome, group.reason, group.errcode, group.store_code)
        if cause is None:
            continue
        action = cause.action
        meanings.setdefault((cause.code, action), cause.meaning)
        details[cause.code, action].append((group.appid, own_words(group, cause)))
        found[cause.code, action, group.reason if group.reason in _TOKENS else None].append(group)
    listed = [
        _remedy(code, meanings[code, action], action, per(code, token), its, in_short(details[code, action]))
        for (code, action, token), its in found.items()
    ]
    return sorted(
        listed,
        key=lambda remedy: (
            -remedy.rows / remedy.actions if remedy.actions else 1,
            -remedy.rows,
            remedy.code,
        ),
    )


def short_name(code: str) -> Text:
    """A few words for a code as errcodes.csv has it; empty where the code alone says it."""
    if code in REASON_NAMES:
        return REASON_NAMES[code]
    if code == ETAG_MISMATCH:
        return REASON_NAMES[Reason.ETAG_MISMATCH]
    if _ERRCODE.fullmatch(code):
        return errcodes.errcode(int(code)).label
    return errcodes.store_code(code).label


def _in_list(code: str) -> bool:
    """Whether rows under a code come out the same until the list itself is mended: what is wrong is a value of theirs."""
    if code == Reason.INVALID:
        return True
    if _ERRCODE.fullmatch(code):
        known = errcodes.errcode(int(code))
        return known.known and (known.decision, known.scope) == (Decision.FIX, Scope.ROW)
    of_store = errcodes.store_code(code)
    return of_store.known and (of_store.decision, of_store.scope) == (Decision.FIX, Scope.ROW)


def _remedy(
    code: str, meaning: Text, action: Text, how_often: Per, groups: list[Tally], detail: str
) -> NextAction:
    merchants: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    outcomes: Counter[Outcome] = Counter()
    for group in groups:
        merchants[group.appid, group.merchant][group.env] += group.rows
        outcomes[group.outcome] += group.rows
    shares = [
        MerchantShare(appid, merchant, tuple(env for env, _ in envs.most_common()), envs.total())
        for (appid, merchant), envs in merchants.items()
    ]
    envs = Counter[tuple[str, str]]()
    for group in groups:
        envs[group.appid, group.env] += group.rows
    mended = {
        Per.MERCHANT: [share.rows for share in shares],
        Per.ENV: [*envs.values()],
    }.get(how_often, [outcomes.total()])
    return NextAction(
        code,
        short_name(code),
        meaning,
        action,
        how_often,
        0 if how_often is Per.NOBODY else len(mended),
        tuple(sorted(shares, key=lambda share: (-share.rows, share.merchant, share.appid))),
        len(envs),
        {outcome: outcomes[outcome] for outcome in Outcome if outcomes[outcome] and outcome not in GOOD},
        outcomes.total(),
        detail,
        len(set(mended)) == 1,
        _in_list(code),
    )
