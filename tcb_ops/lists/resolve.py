"""Resolution of a row's environment and merchant to a line of the merchants file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from tcb_ops.details import DetailCode, detail
from tcb_ops.formatting import fold, near_names, shown
from tcb_ops.i18n import Text, _
from tcb_ops.lists.merchants import Merchants, list_lines
from tcb_ops.model import Merchant

_CACHED = 16_384
_SUGGESTIONS = 200
"""Limit of searches for near names, each of which takes milliseconds: a list may have a million unknown names."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """The reason why a row matches no line of the merchants file."""

    column: Literal["env", "merchant", "appid"]
    message: Text
    fix: Text


Near: TypeAlias = Callable[[str, Sequence[str]], list[str]]


def resolve(
    merchants: Merchants, env: str, merchant: str, appid: str, near: Near = near_names
) -> Merchant | Unresolved | None:
    """Return the line of the merchants file for a row; None if `--where` excludes it.

    The unfiltered merchants file is used, so that `--where` never changes the result. All values are trimmed; `near`
    suggests names for an unknown one.

    =====  ========  =====  =========================================  ==================================
    env    merchant  appid  lines in the merchants file                result
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
    any                     the line, or all listed, left out          None
    =====  ========  =====  =========================================  ==================================
    """
    whole = merchants.whole
    column: Literal["env", "merchant"] = "env" if env else "merchant"
    lines = whole.for_env(env) if env else whole.resolve(merchant)
    if not env and not merchant:
        return Unresolved(
            "env", detail(DetailCode.ENV_EMPTY), _("fill in the environment id, or the merchant")
        )
    if not lines:
        return _unknown(column, env or merchant, whole, near)
    if env and merchant:
        # The columns name different merchants: one of them is wrong, but not clear which.
        mine = tuple(m for m in whole.resolve(merchant) if m.env == env)
        if not mine and any(m in merchants for m in lines):
            return _mismatch("merchant", merchant, lines)
        lines = mine or lines
    if appid:
        of_appid = tuple(m for m in lines if m.appid == appid)
        if not of_appid and any(m in merchants for m in lines):
            return _mismatch("appid", appid, lines)
        lines = of_appid
    if len(lines) > 1:
        lines = tuple(m for m in lines if m.default) if sum(m.default for m in lines) == 1 else lines
    if not any(m in merchants for m in lines):
        return None
    return lines[0] if len(lines) == 1 else _several(column, lines, whole)


class MerchantResolver:
    """A cache of `resolve` for one merchants file: lists repeat the same few environments."""

    def __init__(self, merchants: Merchants) -> None:
        self._suggestions_left = _SUGGESTIONS

        @lru_cache(maxsize=_CACHED)
        def cached(env: str, merchant: str, appid: str) -> Merchant | Unresolved | None:
            return resolve(merchants, env, merchant, appid, self._near)

        self.resolve = cached

    def _near(self, value: str, names: Sequence[str]) -> list[str]:
        if not self._suggestions_left:
            return []
        self._suggestions_left -= 1
        return near_names(value, names)


def _unknown(column: Literal["env", "merchant"], value: str, whole: Merchants, near: Near) -> Unresolved:
    file, name = whole.source or "merchants.csv", shown(value)
    if column == "env" and (lines := whole.resolve(value)):
        return Unresolved(
            column,
            _("'{name}' is a merchant, not an environment", name=name),
            _("name the column merchant, or write the environment: {listed}", listed=list_lines(lines)),
        )
    if column == "merchant" and whole.for_env(value):
        return Unresolved(
            column,
            _("'{name}' is an environment, not a merchant", name=name),
            _("name the column env, or write the merchant: {listed}", listed=whole.for_env(value)[0].name),
        )
    if column == "env":
        like = ", ".join(f"{n} ({whole.for_env(n)[0].name})" for n in near(value, whole.envs))
        message = detail(DetailCode.ENV_UNKNOWN, name=name)
        check = _("check the id")
    else:
        like = ", ".join(near(value, (*whole.names, *dict.fromkeys(m.appid for m in whole))))
        message = detail(DetailCode.MERCHANT_UNKNOWN, name=name)
        check = _("check it")
    fix = _("{check}, or add it to {file}", check=check, file=file)
    if like:
        fix = _("did you mean {like}? Otherwise add it to {file}", like=like, file=file)
    return Unresolved(column, message, fix)


def _mismatch(column: Literal["appid", "merchant"], value: str, lines: Sequence[Merchant]) -> Unresolved:
    name, listed = shown(value), list_lines(lines)
    code = DetailCode.APPID_ELSEWHERE if column == "appid" else DetailCode.MERCHANT_ELSEWHERE
    return Unresolved(
        column,
        detail(code, name=name, listed=listed),
        _("write one of these appids, or correct the environment")
        if column == "appid"
        else _("correct the merchant or the environment: they do not belong together"),
    )


def _several(column: Literal["env", "merchant"], lines: Sequence[Merchant], whole: Merchants) -> Unresolved:
    listed = list_lines(lines)
    if column == "env":
        # A name can have only one default: lines of a merchant with a default elsewhere cannot be marked.
        taken = {fold(m.name) for m in whole if m.default}
        free = [m.name for m in lines if fold(m.name) not in taken]
        return Unresolved(
            column,
            detail(DetailCode.ENV_SHARED, listed=listed),
            _(
                "give the appid in a column appid, or mark the line of {name} default=yes in the merchants file",
                name=free[0],
            )
            if free
            else _("give the appid in a column appid"),
        )
    return Unresolved(
        column,
        detail(DetailCode.ENVS_OF_MERCHANT, listed=listed),
        _("write the environment in a column env, or mark one default=yes in the merchants file"),
    )
