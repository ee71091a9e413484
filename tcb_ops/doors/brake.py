"""Before anything is sent: what would be sent, and the question whether it shall be."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from tcb_ops.doors.screen import Screen, amount, span
from tcb_ops.errors import UsageError
from tcb_ops.model import Kind, Lang, Outcome, Text, legible, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tcb_ops.doors.cost import Cost
    from tcb_ops.lists.paths import Batch
    from tcb_ops.run import Run
    from tcb_ops.runs.pacing import Pace
    from tcb_ops.settings import Settings

__all__ = [
    "ask_first",
    "brake",
    "brake_rest",
    "brake_retry",
    "done_before",
    "dry_run",
    "facts",
    "facts_line",
    "ran_out",
    "short_life",
    "warn_of_again",
]


def dry_run(
    screen: Screen, batch: Batch, settings: Settings, pace: Pace, *, uploads: bool, as_json: bool
) -> int:
    """Show what would be sent, per merchant: calls against those left today, bytes, and the time at the rate allowed."""
    from tcb_ops.doors.cost import reckon

    calls_a_row = 2 if uploads else 1
    left = Counter[str]()
    for merchant, count in batch.of_left():
        left[merchant.appid] += count
    calls = (batch.valid - left.total()) * calls_a_row
    seconds = _seconds_at_rate(batch, pace)
    shares = batch.by_merchant()
    cost = reckon(batch, settings, pace, datetime.now(UTC))
    platform = cost.platform
    if as_json:
        merchants = [
            {
                "appid": appid,
                "merchant": name,
                "envs": envs,
                "rows": rows,
                "calls": (rows - left[appid]) * calls_a_row,
                "bytes": size,
            }
            | cost.as_dict(appid)
            for appid, name, envs, rows, size in shares
        ]
        screen.json(
            {
                **facts(batch),
                "calls": calls,
                "seconds_at_rate": seconds,
                "by_merchant": merchants,
            }
            | ({"platform": cost.platform_dict(platform)} if platform is not None else {})
        )
        cost.warn(screen, {appid: name for appid, name, *_ in shares})
        return 0
    screen.data(_plan_table(shares, left, cost, screen.lang, pace, uploads=uploads))
    screen.data(facts_line(batch).of(screen.lang))
    if seconds:
        screen.data(
            Text(
                f"At {pace.rate:g} link calls/s per appid this takes at least {span(seconds)}.",
                f"按每个 appid 每秒 {pace.rate:g} 次取链接，至少需要 {span(seconds)}。",
            ).of(screen.lang)
        )
    screen.data(
        Text(
            f"{plural(calls, 'call')} to {settings.api_base}{' and its store' if uploads else ''}. Nothing was sent.",
            f"将向 {settings.api_base} {'及其存储' if uploads else ''}发出 {calls:,} 次调用。未发送任何内容。",
        ).of(screen.lang)
    )
    cost.warn(screen, {appid: name for appid, name, *_ in shares})
    return 0


def _plan_table(
    shares: Sequence[tuple[str, str, int, int, int]],
    left: Mapping[str, int],
    cost: Cost,
    lang: Lang,
    pace: Pace,
    *,
    uploads: bool,
) -> Table:
    """What each merchant is in for; those first whose day will not do."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in (
        Text("merchant", "商户"),
        Text("envs", "环境"),
        Text("rows", "行数"),
        Text("calls", "调用"),
        *([Text("bytes", "大小")] if uploads else []),
        Text("calls left", "剩余取链接"),
        Text("fits", "今日够用"),
        Text("at least", "至少"),
    ):
        # Where the screen is narrow, the names give way and the figures stay whole.
        names = head.en == "merchant"
        table.add_column(
            head.of(lang), justify="left" if names else "right", no_wrap=not names, overflow="fold"
        )
    for appid, name, envs, rows, size in sorted(shares, key=lambda share: cost.fits(share[0]) is not False):
        done = rows - left.get(appid, 0)
        least = span(done / pace.rate) if pace.rate else "–"
        table.add_row(
            name,
            f"{envs:,}",
            f"{rows:,}",
            f"{done * (2 if uploads else 1):,}",
            *([amount(size)] if uploads else []),
            cost.left(cost.accounts[appid][0]),
            _FITS[cost.fits(appid)].of(lang),
            least,
        )
    platform = cost.platform
    if platform is not None and cost.platform_is_shared:
        rows = cost.rows[platform]
        table.add_row(
            Text("of these, the platform's own", "其中平台自有环境").of(lang),
            "",
            f"{rows:,}",
            "",
            *([""] if uploads else []),
            cost.left(platform),
            _FITS[cost.account_fits(platform)].of(lang),
            span(cost.seconds(platform)) if pace.rate else "–",
        )
    return table


_FITS = {True: Text("yes", "是"), False: Text("NO", "否"), None: Text("–", "–")}


def _seconds_at_rate(batch: Batch, pace: Pace) -> float:
    """The least time that the busiest appid needs at the rate allowed."""
    return batch.most_rows_of_an_appid / pace.rate if pace.rate else 0.0


def short_life(batch: Batch, pace: Pace) -> Text | None:
    """Where the rate makes it certain that the first links run out before the last is issued, say so."""
    seconds = _seconds_at_rate(batch, pace)
    if seconds <= LINK_LIFE:
        return None
    return Text(
        f"At {pace.rate:g} calls/s this takes {span(seconds)}, but a link lives about 15 minutes: the first "
        "links will have run out before the last is issued.",
        f"按每秒 {pace.rate:g} 次需要 {span(seconds)}，而链接约 15 分钟过期：最后的链接取得时，最早的已过期。",
    )


def ran_out(links: int, out: Path | str) -> Text | None:
    """Say how many links had run out when their file was finished; None where none had."""
    if not links:
        return None
    return Text(
        f"{links:,} links had run out when {out} was finished. Run again for new ones.",
        f"{out} 写完时已有 {links:,} 个链接过期。请再次运行以取得新链接。",
    )


def done_before(batch: Batch, settings: Settings, selection: str) -> Text | None:
    """Say so where the newest run of this very part of the list to this target is finished: all of it would be sent once more."""
    import tcb_ops as tcb

    wanted = (Kind.UPLOAD, settings.run_target, batch.sha256, selection, "")
    records = (run.record for run in tcb.all_runs(settings=settings))
    newest = next(
        (r for r in records if (r.kind, r.target, r.list_sha256, r.selection, r.parent) == wanted), None
    )
    if newest is None or newest.finished_at is None:
        return None
    at = datetime.fromtimestamp(newest.finished_at, settings.zone).isoformat(" ", "minutes")[:16]
    return Text(
        f"Run {newest.id} has done this list, finished {at}: its files are sent again.",
        f"任务 {newest.id} 已完成过这份清单（{at}）：文件将再次发送。",
    )


def warn_of_again(screen: Screen, batch: Batch, settings: Settings, selection: str) -> None:
    """Say so before a list that is done is sent once more, and how to send less."""
    if (again := done_before(batch, settings, selection)) is not None:
        screen.say(
            Text(
                f"{again.en} --skip-unchanged leaves out those that are there.",
                f"{again.zh}--skip-unchanged 会跳过云端已有且未变的文件。",
            )
        )


LINK_LIFE = 900
"""Seconds a link is known to live (domain.md §1.1: the sample's q-sign-time)."""


def brake(screen: Screen, batch: Batch, settings: Settings, *, yes: bool) -> None:
    """Before live environments are written to: show merchants, environments, files and bytes, and ask.

    ==================  ========================  =====
    target              environments              asks
    ==================  ========================  =====
    simulated           any                       no
    live, a terminal    any                       yes
    live, no terminal   up to `confirm_over`      no
    live, no terminal   more                      needs `--yes`
    ==================  ========================  =====
    """
    if _asks(batch.envs, settings):
        _ask(screen, facts_line(batch), batch.envs, settings, yes=yes)


def _asks(envs: int, settings: Settings) -> bool:
    return not settings.on_loopback and (sys.stdin.isatty() or envs > settings.confirm_over)


def brake_retry(screen: Screen, parent: Run, settings: Settings, *, yes: bool) -> None:
    """The same before a retry: what of the parent is not good is what will be sent."""
    bad = [cause for cause in parent.cause_list() if cause.env]
    envs, merchants = len({c.env for c in bad}), len({c.appid for c in bad})
    if _asks(envs, settings):
        rows = sum(cause.rows for cause in bad)
        said = Text(
            f"At most {plural(rows, 'row')} again: {plural(merchants, 'merchant')}, {plural(envs, 'environment')}",
            f"最多重试 {rows:,} 行：{merchants:,} 个商户，{envs:,} 个环境",
        )
        _ask(screen, said, envs, settings, yes=yes)


def brake_rest(screen: Screen, run: Run, settings: Settings, *, yes: bool) -> None:
    """The same before a run is resumed without its list: what is pending is what will be sent."""
    left = [tally for tally in run.tallies() if tally.outcome is Outcome.PENDING]
    envs, merchants = len({(t.appid, t.env) for t in left}), len({t.appid for t in left})
    if _asks(envs, settings):
        rows = sum(tally.rows for tally in left)
        said = Text(
            f"{plural(rows, 'row')} left: {plural(merchants, 'merchant')}, {plural(envs, 'environment')}",
            f"剩余 {rows:,} 行：{merchants:,} 个商户，{envs:,} 个环境",
        )
        _ask(screen, said, envs, settings, yes=yes)


def _ask(screen: Screen, said: Text, envs: int, settings: Settings, *, yes: bool) -> None:
    screen.warn(said)
    if not yes:
        ask_first(
            screen,
            Text(
                f"Upload to {plural(envs, 'live environment')} of {settings.api_base}?",
                f"要上传到 {settings.api_base} 的 {envs:,} 个线上环境吗？",
            ),
        )


def ask_first(screen: Screen, question: Text) -> None:
    """Ask before something is written to a live target. Raises UsageError for a no, and where nobody can answer."""
    screen.release()
    if not sys.stdin.isatty():
        raise UsageError(
            Text(
                f"{question.en} Without a terminal this needs --yes.", f"{question.zh} 没有终端时需要 --yes。"
            )
        )
    if not click.confirm(question.of(screen.lang), err=True):
        raise UsageError(Text("Nothing was sent.", "未发送任何内容。"))


def facts(batch: Batch) -> dict[str, Any]:
    """What there is to say of a checked list, for `--json`."""
    return {
        "list": str(batch.source),
        "sha256": batch.sha256,
        "encoding": batch.encoding,
        "rows": batch.count,
        "valid": batch.valid,
        "invalid": batch.count - batch.valid,
        "left_out": batch.left_out,
        "merchant_left": sum(rows for _, rows in batch.of_left()),
        "merchants": batch.merchants_count,
        "envs": batch.envs,
        "bytes": batch.total_bytes if batch.root is not None else None,
    }


def facts_line(batch: Batch) -> Text:
    """The same in one line."""
    size = batch.total_bytes
    of_size = (Text(f", {amount(size)}", f"，{amount(size)}")) if batch.root is not None else Text("", "")
    left = _of_left(batch)
    return Text(
        f"{batch.valid:,} of {batch.count:,} rows good: {plural(batch.merchants_count, 'merchant')}, {plural(batch.envs, 'environment')}"
        f"{of_size.en}{left.en}",
        f"{batch.count:,} 行中 {batch.valid:,} 行有效：{batch.merchants_count:,} 个商户，{batch.envs:,} 个环境"
        f"{of_size.zh}{left.zh}",
    )


def _of_left(batch: Batch) -> Text:
    """What of a list is for merchants that have left, and so will not be attempted; empty where nothing is."""
    of_left = batch.of_left()
    if not of_left:
        return Text("", "")
    rows = sum(count for _, count in of_left)
    names = list(dict.fromkeys(legible(merchant.name) for merchant, _ in of_left))
    more = len(names) - 3
    return Text(
        f"; {rows:,} of them will not be attempted: the merchant has left ({', '.join(names[:3])}"
        f"{f' and {more:,} more' if more > 0 else ''})",
        f"；其中 {rows:,} 行不会执行：商户已离开（{'、'.join(names[:3])}{f'等 {len(names):,} 个' if more > 0 else ''}）",
    )
