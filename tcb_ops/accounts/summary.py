"""What a sync changed, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tcb_ops.accounts.table import group
from tcb_ops.model import Lang, Text, legible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from tcb_ops.accounts.changes import Changes
    from tcb_ops.model import Merchant

__all__ = ["draw_changes", "facts_of", "total"]

LINES = 10
"""Lines that are shown of one kind of change."""

_Row = tuple[str, ...]


def draw_changes(lines: Sequence[Merchant], changes: Changes, lang: Lang) -> Iterator[RenderableType]:
    """Draw what changed, kind by kind, those that ask for something of the operator last."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text as Styled

    for head, action, rows in _kinds(lines, changes):
        if not rows:
            continue
        yield Styled.assemble((head.of(lang), "bold"), f" · {len(rows):,}")
        if action:
            # No break after the arrow: Chinese has no spaces, and would all move to the next line.
            yield Styled(f"→\u00a0{legible(action.of(lang))}", overflow="fold")
        table = Table.grid(padding=(0, 3, 0, 0))
        for row in rows[:LINES]:
            table.add_row(*(Styled(legible(cell), overflow="fold") for cell in row))
        yield Padding(table, (0, 0, 0, 2), expand=False)
        if len(rows) > LINES:
            more = len(rows) - LINES
            yield Text(f"  … and {more:,} more: --json has all", f"  ……另有 {more:,} 个：--json 列出全部").of(
                lang
            )
        yield ""


def total(file: str, lines: int, changes: Changes, *, written: bool) -> Text:
    """The whole in one sentence."""
    after = lines + len(changes.added)
    kinds = (
        (len(changes.added), Text("added", "新增")),
        (len(changes.left), Text("left", "离开")),
        (len(changes.returned), Text("returned", "恢复")),
        (len(changes.names), Text("named", "补上名称")),
    )
    en = ", ".join(f"{count:,} {kind.en}" for count, kind in kinds if count)
    zh = "，".join(f"{kind.zh} {count:,} 行" for count, kind in kinds if count)
    if not changes.writes:
        return Text(f"{file}: {after:,} lines, nothing to change.", f"{file}：{after:,} 行，无需改动。")
    if written:
        return Text(f"{file}: {after:,} lines, {en}.", f"{file}：共 {after:,} 行，{zh}。")
    return Text(
        f"{file} would have {after:,} lines: {en}. Nothing was written.",
        f"{file} 将有 {after:,} 行：{zh}。未写入任何内容。",
    )


def facts_of(lines: Sequence[Merchant], changes: Changes, lang: Lang) -> dict[str, Any]:
    """The same for `--json`."""

    def who(merchant: Merchant) -> dict[str, str]:
        return {"appid": merchant.appid, "merchant": merchant.name, "env": merchant.env}

    return {
        "lines": len(lines) + len(changes.added),
        "added": [who(one) for one in changes.added],
        "left": [who(lines[place]) for place in changes.left],
        "returned": [who(lines[place]) for place in changes.returned],
        "named": [who(lines[place]) | {"merchant": name} for place, name in changes.names],
        "renamed": [who(one.merchant) | {"platform_name": one.name} for one in changes.renamed],
        "not_normal": [who(one) | {"env_status": status} for one, status in changes.not_normal],
        "env_gone": [who(one) for one in changes.gone],
        "no_default": list(changes.no_default),
        "without_env": [{"appid": one.appid, "merchant": one.name} for one in changes.without_env],
        "not_read": [
            {
                "appid": one.appid,
                "merchant": one.name,
                "code": trouble.code,
                "errcode": trouble.errcode,
                "meaning": trouble.meaning.of(lang),
                "action": trouble.action.of(lang),
                "errmsg": trouble.errmsg,
            }
            for one, trouble in changes.troubles
        ],
    }


def _kinds(lines: Sequence[Merchant], changes: Changes) -> Iterator[tuple[Text, Text | None, list[_Row]]]:
    """Each kind of change: what it is, what to do about it, and whom it concerns."""

    def who(merchant: Merchant, *more: str) -> _Row:
        return (merchant.name, merchant.appid, *filter(None, (merchant.env, *more)))

    yield Text("added", "新增"), None, [who(one) for one in changes.added]
    yield (
        Text("returned, status is empty again", "重新授权，已清除 status"),
        None,
        [who(lines[place]) for place in changes.returned],
    )
    yield (
        Text("left, status=left", "已不再授权，status=left"),
        None,
        [who(lines[place]) for place in changes.left],
    )
    yield (
        Text("named, where the appid stood for the name", "补上名称（此前以 appid 代替）"),
        None,
        [(name, lines[place].appid, lines[place].env) for place, name in changes.names],
    )
    yield (
        Text("renamed at the platform, the file keeps its name", "平台上已改名，文件保留原有名称"),
        None,
        [(one.merchant.name, one.merchant.appid, f"→ {one.name}") for one in changes.renamed],
    )
    yield (
        Text("environments that are not NORMAL", "状态不是 NORMAL 的环境"),
        Text("merchants check says more.", "详见 merchants check。"),
        [who(one, status) for one, status in changes.not_normal],
    )
    yield (
        Text("environments that the platform does not list any more", "平台不再列出的环境"),
        Text("Remove the lines if they are gone for good.", "若确已不用，请删除这些行。"),
        [who(one) for one in changes.gone],
    )
    yield (
        Text("names that mean several environments", "对应多个环境的名称"),
        Text("Mark one line of each default=yes.", "请各选一行标为 default=yes。"),
        [(name,) for name in changes.no_default],
    )
    yield (
        Text("authorized, but without an environment yet", "已授权，但还没有环境"),
        Text(
            "Have one created in the cloud console (or with tcb/createenvandresource), then sync again.",
            "请在云开发控制台创建环境（或调用 tcb/createenvandresource），然后再次 sync。",
        ),
        [who(one) for one in changes.without_env],
    )
    for trouble, whose in group(changes.troubles):
        code, meaning = trouble.code, trouble.meaning
        yield (
            Text(f"no environments to be had, {code}: {meaning.en}", f"未取得环境，{code}：{meaning.zh}"),
            trouble.action,
            [who(one) for one in whose],
        )
