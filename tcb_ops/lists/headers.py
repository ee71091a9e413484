"""Which column means what: known names in English and Chinese, and the ones the operator gave."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from tcb_ops.cell_text import fold, shown, trim
from tcb_ops.i18n import Text
from tcb_ops.model import Problem, file_problem

Known: TypeAlias = Mapping[str, frozenset[str]]
"""Our name of a column → the headers that mean it, as `_plain` writes them."""

_ENV = "env envid environment environmentid cloudenv 环境 环境id 云环境 云环境id 云开发环境 云开发环境id 环境编号"
_APPID = "appid authorizerappid 小程序 小程序id 小程序appid 授权方appid 商户appid"
_NAMES = "merchant merchantname shop shopname 商户 商户名 商户名称 商家 商家名称 店铺 店铺名 店铺名称"


def _known(**names: str) -> Known:
    return {ours: frozenset(theirs.split()) for ours, theirs in names.items()}


LIST_COLUMNS = _known(
    env=_ENV,
    merchant=_NAMES,
    path="path cloudpath uploadpath 路径 上传路径 云端路径 云路径 云存储路径 目标路径 云端文件路径",
    file="file localfile localpath 文件 本地文件 本地路径 本地文件路径",
    appid=_APPID,
    content_type="contenttype mimetype mime类型 内容类型 媒体类型",
    cache_control="cachecontrol 缓存控制 缓存策略",
)
LIST_NEEDS = (("env", "merchant"), ("path",))
MERCHANT_COLUMNS = _known(
    appid=_APPID,
    name=f"name 名称 小程序名称 {_NAMES}",
    env=_ENV,
    default="default 默认 默认环境 是否默认",
    owner="owner 负责方 归属 归属方 环境归属 所属方",
    status="status 状态 商户状态 授权状态",
)
MERCHANT_NEEDS = (("appid",), ("name",), ("env",))


def _plain(header: str) -> str:
    """The header as known names are written: folded, without spaces, `_` and `-`."""
    return re.sub(r"[\s_\-]+", "", fold(header))


class Rating(NamedTuple):
    """How much a row looks like the header; the larger one is the header."""

    fits: bool
    """Every column that is needed is there."""
    known: int
    """Names that are known, or that the operator gave."""


def rate(
    headers: Sequence[str], known: Known, given: Mapping[str, str], needed: Iterable[Sequence[str]]
) -> Rating:
    """Rate a row as the header. `needed` holds groups of our names: of each group one column must be there."""
    plain = {_plain(h) for h in headers}
    meant = {
        ours
        for ours, names in known.items()
        if (_plain(given[ours]) in plain if ours in given else names & plain)
    }
    names = frozenset().union(*known.values()) | {_plain(h) for h in given.values()}
    return Rating(all(meant & set(group) for group in needed), sum(_plain(h) in names for h in headers))


def find_columns(
    headers: Sequence[str], known: Known, given: Mapping[str, str], line: int
) -> tuple[dict[str, int], list[Problem]]:
    """Our names of columns → their index in `headers`, and what is wrong with the header in line `line`.

    `given` (`--column`) wins over known names. A column that is not there is simply not in the answer: which ones
    are needed is the caller's to say.

    ==========================  ==================  ===========================
    headers                     given               answer
    ==========================  ==================  ===========================
    环境ID, 上传路径            –                   env 0, path 1
    ENV, Path                   –                   env 0, path 1
    env, 路径, 目标             path=目标           env 0, path 2
    env, 路径                   file=路径           env 0, file 1
    env, 路径, path             –                   problem: both mean path
    env, path, a, a             –                   problem: twice the same
    env, path                   path=目标           problem: no such header
    ==========================  ==================  ===========================
    """
    trimmed = [trim(h) for h in headers]
    problems = [_twice(name, line) for name, times in Counter(trimmed).items() if name and times > 1]
    found: dict[str, int] = {}
    for ours, header in given.items():
        if trim(header) in trimmed:
            found[ours] = trimmed.index(trim(header))
        else:
            problems.append(_not_there(ours, header, trimmed, line))
    taken = set(found.values())
    for ours, names in known.items():
        if ours in given:
            continue
        matches = [i for i, h in enumerate(trimmed) if i not in taken and _plain(h) in names]
        if matches:
            found[ours] = matches[0]
        # The same header twice has been said already.
        if len(distinct := list(dict.fromkeys(trimmed[i] for i in matches))) > 1:
            problems.append(_ambiguous(ours, distinct, line))
    return found, problems


def missing_column(wanted: str, headers: Sequence[str], line: int, *, mappable: bool = True) -> Problem:
    """No column means `wanted` (one name, or several with ` / ` between them)."""
    there = _listed(trim(h) for h in headers)
    message = Text(f"no column for {wanted}; the header has {there}", f"没有 {wanted} 列；表头是 {there}")
    if len(headers) == 1 and "，" in headers[0]:
        fix = Text(
            "the header is parted by full-width commas (，); part it by plain commas",
            "表头用的是全角逗号（，），请改用半角逗号",
        )
    elif mappable:
        name = wanted.split(" / ", maxsplit=1)[0]
        fix = Text(
            f"add it, or say which one it is with --column {name}=HEADER",
            f"请补上这一列，或用 --column {name}=表头 指明是哪一列",
        )
    else:
        fix = Text("add the column", "请补上这一列")
    return file_problem(message, fix, line=line, option="--column" if mappable else "")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{shown(n, 40)}'" for n in names)


def _twice(name: str, line: int) -> Problem:
    message = Text("the header has this name twice", "表头里这个列名出现了两次")
    fix = Text("rename or remove one of the two columns", "请改名或删除其中一列")
    return file_problem(message, fix, line=line, column=name)


def _ambiguous(ours: str, headers: list[str], line: int) -> Problem:
    listed = _listed(headers)
    message = Text(f"several columns mean {ours}: {listed}", f"有多列都表示 {ours}：{listed}")
    fix = Text(
        f"say which one counts with --column {ours}={headers[0]}, or rename the others",
        f"请用 --column {ours}={headers[0]} 指明用哪一列，或给其他列改名",
    )
    return file_problem(message, fix, line=line, option="--column")


def _not_there(ours: str, header: str, headers: list[str], line: int) -> Problem:
    listed = _listed(headers)
    message = Text(
        f"--column {ours}={shown(header, 40)}: the header has no such column; it has {listed}",
        f"--column {ours}={shown(header, 40)}：表头里没有这一列；表头是 {listed}",
    )
    return file_problem(message, Text("name one of these", "请从中选择一个"), line=line)
