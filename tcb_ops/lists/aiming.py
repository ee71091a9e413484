"""Whom a list that is being made is for: `--to`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from tcb_ops.errors import UsageError
from tcb_ops.lists.callers import NoCaller, caller
from tcb_ops.lists.cells import fold, shown, trim
from tcb_ops.model import Merchant, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tcb_ops.lists.merchants import Merchants

__all__ = ["ALL", "ALL_ENVS", "aim"]

ALL, ALL_ENVS = "all", "all-envs"


def aim(merchants: Merchants, to: Sequence[str]) -> tuple[Merchant, ...]:
    """The merchants' lines that are meant, each once, in the order of `to` and then of the file.

    ===========================  =====================================================================
    to                           means
    ===========================  =====================================================================
    an env id                    it
    a merchant's name or appid   its only environment, or its default one; else a problem that lists them
    all                          of every merchant that is left by --where: its only environment there, or
                                 its default one; else a problem that lists them
    all-envs                     every environment that is left by --where
    anything else                a problem; near names are suggested
    ===========================  =====================================================================

    `all` and `all-envs` pass over merchants that have left. An environment that several merchants share needs a
    default, or --where. Raises UsageError.
    """
    targets: dict[tuple[str, str], Merchant] = {}
    for asked in map(trim, to):
        if asked in {ALL, ALL_ENVS}:
            found = _all(merchants) if asked == ALL else _all_envs(merchants)
        else:
            found = [_one(merchants, asked)]
        targets |= {(m.appid, m.env): m for m in found}
    if not targets:
        raise UsageError(
            Text("--to matches nobody: every merchant has left", "--to 没有选中任何商户：商户都已离开")
        )
    return tuple(targets.values())


def _one(merchants: Merchants, asked: str) -> Merchant:
    by_env = bool(merchants.whole.for_env(asked))
    if not by_env and not merchants.whole.resolve(asked):
        raise _nobody(merchants, asked)
    found = caller(merchants, asked if by_env else "", "" if by_env else asked, "", lambda _value, _names: [])
    if isinstance(found, Merchant):
        return found
    if isinstance(found, NoCaller):
        raise UsageError(
            Text(
                f"--to {shown(asked)}: {found.message.en}. Name one of these environments",
                f"--to {shown(asked)}：{found.message.zh}。请写明其中一个环境",
            )
        )
    raise UsageError(
        Text(f"--to {shown(asked)}: --where leaves it out", f"--to {shown(asked)}：已被 --where 排除")
    )


def _all(merchants: Merchants) -> list[Merchant]:
    by_appid: dict[str, list[Merchant]] = {}
    for line in _there(merchants):
        by_appid.setdefault(line.appid, []).append(line)
    return _decided(
        by_appid.values(),
        Text(
            "--to all: several environments, none of them the default", "--to all：有多个环境而没有默认环境"
        ),
    )


def _all_envs(merchants: Merchants) -> list[Merchant]:
    by_env: dict[str, list[Merchant]] = {}
    for line in _there(merchants):
        by_env.setdefault(line.env, []).append(line)
    return _decided(
        by_env.values(),
        Text(
            "--to all-envs: several merchants share an environment", "--to all-envs：有多个商户共用一个环境"
        ),
    )


def _there(merchants: Merchants) -> list[Merchant]:
    return [line for line in merchants if not line.left]


def _decided(groups: Iterable[list[Merchant]], said: Text) -> list[Merchant]:
    """Of each group its only line, or its default one. Raises UsageError that lists the groups that have neither."""
    found, open_ = [], []
    for group in groups:
        default = [line for line in group if line.default]
        if len(group) == 1 or len(default) == 1:
            found.append((default or group)[0])
        else:
            open_.append(", ".join(f"{m.env} ({m.name}, {m.appid})" for m in group[:5]))
    if not open_:
        return found
    more = f" … ({len(open_)})" if len(open_) > 5 else ""
    listed = "; ".join(open_[:5]) + more
    raise UsageError(
        Text(
            f"{said.en}: {listed}. Mark one default=yes in the merchants file, or narrow it with --where",
            f"{said.zh}：{listed}。请在商户表里把其中一个标为 default=yes，或用 --where 缩小范围",
        )
    )


def _nobody(merchants: Merchants, asked: str) -> UsageError:
    names = {fold(name): name for m in merchants.whole for name in (m.name, m.appid, m.env)}
    near = ", ".join(names[n] for n in difflib.get_close_matches(fold(asked), names, n=3, cutoff=0.5))
    return UsageError(
        Text(
            f"--to {shown(asked)}: no environment, merchant or appid is called so"
            + (f"; did you mean {near}?" if near else f"; look into {merchants.whole.source}"),
            f"--to {shown(asked)}：没有这个环境、商户或 appid"
            + (f"；是不是 {near}？" if near else f"；请查看 {merchants.whole.source}"),
        )
    )
