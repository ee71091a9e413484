"""Before anything is sent: what would be sent, and the question whether it shall be."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click
from rich.table import Table

from tcb_ops.cli.console import Console
from tcb_ops.errors import UsageError
from tcb_ops.formatting import format_duration, format_size
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.lists.paths import Batch
from tcb_ops.model import Outcome
from tcb_ops.preflight import (
    Cost,
    done_before,
    facts,
    facts_line,
    seconds_at_rate,
)
from tcb_ops.run import Run
from tcb_ops.runs.limits import RunLimits
from tcb_ops.settings import Settings


def dry_run(
    screen: Console, batch: Batch, settings: Settings, pace: RunLimits, *, uploads: bool, as_json: bool
) -> int:
    """Show what would be sent, per merchant: calls against those left today, bytes, and the time at the rate allowed."""
    from tcb_ops.preflight import reckon

    calls_a_row = 2 if uploads else 1
    left = Counter[str]()
    for merchant, count in batch.by_departed_merchant():
        left[merchant.appid] += count
    calls = (batch.valid - left.total()) * calls_a_row
    seconds = seconds_at_rate(batch, pace)
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
        _warn(screen, cost, {appid: name for appid, name, *_ in shares})
        return 0
    screen.data(_plan_table(shares, left, cost, screen.lang, pace, uploads=uploads))
    screen.data(facts_line(batch).of(screen.lang))
    if seconds:
        screen.data(
            Text(
                f"At {pace.rate:g} link calls/s per appid this takes at least {format_duration(seconds)}.",
                f"按每个 appid 每秒 {pace.rate:g} 次取链接，至少需要 {format_duration(seconds)}。",
            ).of(screen.lang)
        )
    screen.data(
        Text(
            f"{plural(calls, 'call')} to {settings.api_base}{' and its store' if uploads else ''}. Nothing was sent.",
            f"将向 {settings.api_base} {'及其存储' if uploads else ''}发出 {calls:,} 次调用。未发送任何内容。",
        ).of(screen.lang)
    )
    _warn(screen, cost, {appid: name for appid, name, *_ in shares})
    return 0


def _warn(screen: Console, cost: Cost, names: Mapping[str, str]) -> None:
    for text in cost.warnings(names):
        screen.warn(text)
    if cost.unknown is not None:
        screen.say(cost.unknown)


def _plan_table(
    shares: Sequence[tuple[str, str, int, int, int]],
    left: Mapping[str, int],
    cost: Cost,
    lang: Lang,
    pace: RunLimits,
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
        least = format_duration(done / pace.rate) if pace.rate else "–"
        table.add_row(
            name,
            f"{envs:,}",
            f"{rows:,}",
            f"{done * (2 if uploads else 1):,}",
            *([format_size(size)] if uploads else []),
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
            format_duration(cost.seconds(platform)) if pace.rate else "–",
        )
    return table


_FITS = {True: Text("yes", "是"), False: Text("NO", "否"), None: Text("–", "–")}


def warn_of_again(screen: Console, batch: Batch, settings: Settings, selection: str) -> None:
    """Say so before a list that is done is sent once more, and how to send less."""
    if (again := done_before(batch, settings, selection)) is not None:
        screen.say(
            Text(
                f"{again.en} --skip-unchanged leaves out those that are there.",
                f"{again.zh}--skip-unchanged 会跳过云端已有且未变的文件。",
            )
        )


def brake(screen: Console, batch: Batch, settings: Settings, *, yes: bool) -> None:
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


def confirm_retry(screen: Console, parent: Run, settings: Settings, *, yes: bool) -> None:
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


def brake_rest(screen: Console, run: Run, settings: Settings, *, yes: bool) -> None:
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


def _ask(screen: Console, said: Text, envs: int, settings: Settings, *, yes: bool) -> None:
    screen.warn(said)
    if not yes:
        confirm_or_abort(
            screen,
            Text(
                f"Upload to {plural(envs, 'live environment')} of {settings.api_base}?",
                f"要上传到 {settings.api_base} 的 {envs:,} 个线上环境吗？",
            ),
        )


def confirm_or_abort(screen: Console, question: Text) -> None:
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
