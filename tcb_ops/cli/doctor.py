"""doctor: check machine, files, tokens and target; with --live, one real upload from end to end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import click
from rich.table import Table
from rich.text import Text as Styled

from tcb_ops.cli.confirm import confirm_or_abort
from tcb_ops.cli.console import Console
from tcb_ops.cli.options import CommonOptions, common_options
from tcb_ops.doctor import CheckResult, Grade
from tcb_ops.errors import UsageError
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, Text, plural
from tcb_ops.model import Merchant
from tcb_ops.settings import Settings

_NAMES = {
    "python": Text("Python", "Python"),
    "packages": Text("packages", "软件包"),
    "lab": Text("JupyterLab", "JupyterLab"),
    "browser": Text("PDF browser", "PDF 浏览器"),
    "fonts": Text("Chinese font", "中文字体"),
    "settings": Text("settings", "设置"),
    "merchants": Text("merchants", "商户表"),
    "ledger": Text("ledger", "台账"),
    "disk": Text("disk", "磁盘"),
    "secrets": Text("secrets", "密钥文件"),
    "target": Text("target", "目标平台"),
    "clock": Text("clock", "时钟"),
    "tokens": Text("token source", "令牌来源"),
    "address": Text("this address", "本机地址"),
    "link": Text("link", "取链接"),
    "upload": Text("upload", "上传"),
    "confirm": Text("fetch back", "取回"),
    "content_type": Text("Content-Type", "Content-Type"),
    "delete": Text("delete", "删除"),
    "quota": Text("quota", "配额"),
}
_GRADES = {
    Grade.OK: (Text("✓ ok", "✓ 正常"), "green"),
    Grade.WARNING: (Text("! warning", "! 注意"), "yellow"),
    Grade.BAD: (Text("✗ FAILED", "✗ 有误"), "bold red"),
    Grade.SKIPPED: (Text("– not checked", "– 未检查"), "dim"),
}


_SIMULATED = Text(
    "SIMULATED 演练: these are the simulator's answers, not the platform's.",
    "SIMULATED 演练：以上是模拟平台的应答，不能说明真实平台的行为。",
)


@click.command()
@click.option(
    "--live", metavar="ENV", help="Upload one tiny file into ENV for real, fetch it back, delete it."
)
@click.option("--appid", metavar="APPID", help="With --live: the merchant, where several share ENV.")
@click.option("--yes", is_flag=True, help="With --live: do not ask.")
@common_options
def doctor(live: str | None, appid: str | None, yes: bool, *, common: CommonOptions) -> int:
    """Check machine, files, tokens and target; suggest fixes.

    Checks Python, packages, JupyterLab, fonts, settings, merchants file, ledger, disk, the modes of token files, the
    target, its clock against this machine's, the token source, and whether the platform accepts calls from this address
    (61004). Nothing is uploaded, and no link is requested.

    --live ENV uploads one tiny file for real, fetches it back, compares it and deletes it.

    Exit codes: 0 all checks passed (warnings allowed) · 1 a check failed · 2 usage · 3 --live was stopped before it
    began.
    """
    if live is None:
        if appid is not None or yes:
            raise UsageError(
                Text("--appid and --yes go with --live ENV.", "--appid 和 --yes 须与 --live ENV 一起使用。")
            )
        return _check(common)
    return _check_live(common, live, appid or "", yes=yes)


def _check(common: CommonOptions) -> int:
    from tcb_ops.doctor.runner import DoctorContext, run_checks

    context = DoctorContext.of(common.settings, common.overrides(), common.config, common.where)
    lang = context.fallback.lang if context.fallback is not None else Lang(common.lang or "en")
    console = Console(lang, quiet=common.quiet, verbose=common.verbose)
    with ExitStack() as stack:
        if context.settings is not None:
            opened = stack.enter_context(common.open_target(console, context.settings, looks_at_tokens=False))
            console.release()
            context = replace(context, settings=opened, fallback=opened)
        stack.enter_context(console.waiting(Text("checking", "正在检查")))
        results = list(run_checks(context))
    bad = sum(result.grade is Grade.BAD for result in results)
    warnings = sum(result.grade is Grade.WARNING for result in results)
    if common.json:
        known = "api_base" in context.known and context.fallback is not None
        target = context.fallback.run_target if known and context.fallback else None
        counts = {"target": target, "ok": not bad, "bad": bad, "warnings": warnings}
        console.json(counts | {"checks": [result.as_dict(lang) for result in results]})
    else:
        console.print(_table(results, console.lang))
        console.print("")
        console.print(_verdict(bad, warnings))
    return 1 if bad else 0


def _table(results: Sequence[CheckResult], lang: Lang) -> Table:
    """Show a line per check in its own order, each fix below what was seen."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for result in results:
        word, style = _GRADES[result.grade]
        table.add_row(
            Styled(word.of(lang), style), _NAMES[result.name].of(lang), sanitize(result.seen.of(lang))
        )
        if result.fix is not None:
            # No break after the arrow: Chinese has no spaces, and would all move to the next line.
            table.add_row("", "", f"→\u00a0{sanitize(result.fix.of(lang))}")
    return table


def _verdict(bad: int, warnings: int) -> Text:
    noted = (f", {plural(warnings, 'warning')}", f"，{warnings} 项需要注意") if warnings else ("", "")
    if bad:
        return Text(
            f"Checks failed: {bad}{noted[0]}. Fix them from the top.",
            f"未通过检查：{bad} 项有误{noted[1]}。请从上往下逐项处理。",
        )
    return Text(f"All checks passed{noted[0]}.", f"检查全部通过{noted[1]}。")


def _check_live(common: CommonOptions, env: str, appid: str, *, yes: bool) -> int:
    from tcb_ops.doctor.live import start_live_check

    settings, console = common.start()
    merchant = _merchant_of(common, settings, env, appid)
    with common.open_target(console, settings) as settings:
        console.release()
        if not settings.on_loopback and not yes:
            place = f"{merchant.env} of {merchant.name} ({merchant.appid}) on {settings.api_base}"
            where = f"{settings.api_base} 上 {merchant.name}（{merchant.appid}）的环境 {merchant.env}"
            question = Text(
                f"Upload one tiny file into {place}, and delete it?",
                f"要向 {where} 上传一个小文件并随即删除吗？",
            )
            confirm_or_abort(console, question)
        work = start_live_check(settings, merchant)
        try:
            with console.waiting(Text("uploading one tiny file", "正在上传一个小文件")):
                result = work.result()
        except KeyboardInterrupt:
            console.warn(Text("Ending: the file is deleted first.", "正在结束：先删除已上传的文件。"))
            work.result()
            raise
    lang = settings.lang
    if common.json:
        console.json(
            {
                "target": settings.run_target,
                "env": result.env,
                "path": result.path,
                "ok": result.ok,
                "left_behind": result.left_behind or None,
                "checks": [step.as_dict(lang) for step in result.steps],
            }
        )
    else:
        console.print(_table(result.steps, console.lang))
        console.print("")
        console.print(_verdict(sum(step.grade is Grade.BAD for step in result.steps), 0))
        if settings.on_loopback:
            console.print(_SIMULATED)
    return 0 if result.ok else 1


def _merchant_of(common: CommonOptions, settings: Settings, env: str, appid: str) -> Merchant:
    """Return the line of the merchants file that serves the environment, as for a row of a list."""
    from tcb_ops.lists.resolve import Unresolved, resolve

    merchants = common.read_merchants(settings)
    found = resolve(merchants, env.strip(), "", appid.strip())
    if isinstance(found, Unresolved):
        fix = found.fix
        if not appid and merchants.whole.for_env(env.strip()):
            fix = Text("say which one with --appid", "请用 --appid 指明是哪一个")
        why = Text(f"{found.message.en} — {fix.en}", f"{found.message.zh} —— {fix.zh}")
    elif found is None:
        why = Text("--where leaves it out.", "已被 --where 排除。")
    elif found.left:
        why = Text(
            f"{found.name} has left (status = left), so nothing can be sent there.",
            f"{found.name} 已取消授权（status = left），无法向其发送。",
        )
    else:
        return found
    raise UsageError(Text(f"--live {env}: {why.en}", f"--live {env}：{why.zh}"))
