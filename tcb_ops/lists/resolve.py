"""Whose environment a row means, and so who makes the calls for it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from tcb_ops.cell_text import fold, shown
from tcb_ops.i18n import Text
from tcb_ops.lists.merchants import Merchants
from tcb_ops.model import Merchant

_REMEMBERED = 16_384
_SUGGESTIONS = 200
"""Searching near names takes milliseconds; a list with a million unknown names needs no million suggestions."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why nobody can be called for a row."""

    column: Literal["env", "merchant", "appid"]
    message: Text
    fix: Text


def caller(
    merchants: Merchants, env: str, merchant: str, appid: str, near: Callable[[str, Sequence[str]], list[str]]
) -> Merchant | Unresolved | None:
    """The merchant line that serves a row; None where `--where` leaves the row out.

    The decision is made over the whole merchants file, so that narrowing a command never changes who is called. All
    values are trimmed; `near` finds names like the one that is unknown.

    =====  ========  =====  =========================================  ==================================
    env    merchant  appid  lines in the merchants file                answer
    =====  ========  =====  =========================================  ==================================
    E      M         any    some of E, none of them M's                problem: merchant
    E      –, M      –      one of E                                   it
    E      –, M      A      one of (A, E)                              it
    E      –, M      A      some of E, none of A                       problem: appid
    E      M         –      several of E, one of them M's              it
    E      –         –      several of E, one with default=yes         it
    E      –         –      several of E otherwise                     problem that lists them
    E      any       any    none of E                                  problem: env, near ones suggested
    –      M         any    one of M (by name or appid)                it
    –      M         any    several of M, one with default=yes         it
    –      M         any    several of M otherwise                     problem that lists them
    –      M         any    none of M                                  problem: merchant, near ones
    –      –         any                                               problem: empty
    any                     the answer, or all listed, narrowed away   None
    =====  ========  =====  =========================================  ==================================
    """
    whole = merchants.whole
    column: Literal["env", "merchant"] = "env" if env else "merchant"
    lines = whole.for_env(env) if env else whole.resolve(merchant)
    if not env and not merchant:
        return _empty()
    if not lines:
        return _unknown_env(env, whole, near) if env else _unknown_merchant(merchant, whole, near)
    if env and merchant:
        # Two columns that aim at different customers: one of them is wrong, and nobody can tell which.
        mine = tuple(m for m in whole.resolve(merchant) if m.env == env)
        if not mine and any(m in merchants for m in lines):
            return _other_merchant(merchant, lines)
        lines = mine or lines
    if appid:
        of_appid = tuple(m for m in lines if m.appid == appid)
        if not of_appid and any(m in merchants for m in lines):
            return _other_appid(appid, lines)
        lines = of_appid
    if len(lines) > 1:
        lines = tuple(m for m in lines if m.default) if sum(m.default for m in lines) == 1 else lines
    if not any(m in merchants for m in lines):
        return None
    return lines[0] if len(lines) == 1 else _several(column, lines, whole)


class MerchantResolver:
    """`caller` for one merchants file, remembering its answers: lists name the same few environments again and again."""

    def __init__(self, merchants: Merchants) -> None:
        self._suggestions_left = _SUGGESTIONS

        @lru_cache(maxsize=_REMEMBERED)
        def of(env: str, merchant: str, appid: str) -> Merchant | Unresolved | None:
            return caller(merchants, env, merchant, appid, self._near)

        self.of = of

    def _near(self, value: str, names: Sequence[str]) -> list[str]:
        if not self._suggestions_left:
            return []
        self._suggestions_left -= 1
        by_fold = {fold(name): name for name in names}
        return [by_fold[n] for n in difflib.get_close_matches(fold(value), by_fold, n=3, cutoff=0.5)]


def _empty() -> Unresolved:
    return Unresolved(
        "env",
        Text("the environment is empty", "环境为空"),
        Text("fill in the environment id, or the merchant", "请填写环境 ID 或商户"),
    )


def _unknown_env(env: str, whole: Merchants, near: Callable[[str, Sequence[str]], list[str]]) -> Unresolved:
    like = ", ".join(f"{n} ({whole.for_env(n)[0].name})" for n in near(env, whole.envs))
    file = whole.source or "merchants.csv"
    return Unresolved(
        "env",
        Text(f"the merchants file has no environment '{shown(env)}'", f"商户表里没有环境“{shown(env)}”"),
        Text(
            f"did you mean {like}? Otherwise add it to {file}"
            if like
            else f"check the id, or add it to {file}",
            f"是不是 {like}？否则请加到 {file}" if like else f"请检查环境 ID，或把它加到 {file}",
        ),
    )


def _unknown_merchant(
    merchant: str, whole: Merchants, near: Callable[[str, Sequence[str]], list[str]]
) -> Unresolved:
    like = ", ".join(near(merchant, (*whole.names, *dict.fromkeys(m.appid for m in whole))))
    file = whole.source or "merchants.csv"
    return Unresolved(
        "merchant",
        Text(
            f"the merchants file has no name or appid '{shown(merchant)}'",
            f"商户表里没有名称或 appid 为“{shown(merchant)}”的商户",
        ),
        Text(
            f"did you mean {like}? Otherwise add it to {file}" if like else f"check it, or add it to {file}",
            f"是不是 {like}？否则请加到 {file}" if like else f"请检查，或把它加到 {file}",
        ),
    )


def _other_appid(appid: str, lines: Sequence[Merchant]) -> Unresolved:
    listed = _listed(lines)
    return Unresolved(
        "appid",
        Text(
            f"'{shown(appid)}' does not work in this environment; it belongs to {listed}",
            f"“{shown(appid)}”不在这个环境里；这个环境属于 {listed}",
        ),
        Text("write one of these appids, or fix the environment", "请改成其中一个 appid，或改正环境"),
    )


def _other_merchant(merchant: str, lines: Sequence[Merchant]) -> Unresolved:
    listed = _listed(lines)
    return Unresolved(
        "merchant",
        Text(
            f"'{shown(merchant)}' does not work in this row's environment; it belongs to {listed}",
            f"“{shown(merchant)}”不在这一行的环境里；这个环境属于 {listed}",
        ),
        Text(
            "fix the merchant or the environment: they aim at different ones",
            "请改正商户或环境：两者指向不同的对象",
        ),
    )


def _several(column: Literal["env", "merchant"], lines: Sequence[Merchant], whole: Merchants) -> Unresolved:
    listed = _listed(lines)
    if column == "env":
        # A name has one default: a line of a merchant that has it elsewhere cannot be marked.
        taken = {fold(m.name) for m in whole if m.default}
        free = [m.name for m in lines if fold(m.name) not in taken]
        return Unresolved(
            column,
            Text(f"several merchants share this environment: {listed}", f"有多个商户共用这个环境：{listed}"),
            Text(
                "say which one in a column appid"
                + (f", or mark the line of {free[0]} default=yes in the merchants file" if free else ""),
                "请加一列 appid 指明是哪一个"
                + (f"，或在商户表里把 {free[0]} 的这一行标为 default=yes" if free else ""),
            ),
        )
    return Unresolved(
        column,
        Text(f"this merchant means several environments: {listed}", f"这个商户对应多个环境：{listed}"),
        Text(
            "write the environment in a column env, or mark one default=yes in the merchants file",
            "请加一列 env 写明环境，或在商户表里把其中一个标为 default=yes",
        ),
    )


def _listed(lines: Sequence[Merchant]) -> str:
    more = f" … ({len(lines)})" if len(lines) > 5 else ""
    return ", ".join(f"{m.env} ({m.name}, {m.appid})" for m in lines[:5]) + more
