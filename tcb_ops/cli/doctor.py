"""doctor: is everything fit for work, and what to do where it is not; and one real file as the last proof."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text as Styled

from tcb_ops.cli.confirm import confirm_or_abort
from tcb_ops.cli.console import Console
from tcb_ops.cli.options import CommonOptions, common_options, shared_options
from tcb_ops.doctor.check_result import CheckResult, Grade
from tcb_ops.doctor.live_result import Trial
from tcb_ops.errors import UsageError
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import Lang, Text
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
}
_GRADES = {
    Grade.OK: (Text("✓ ok", "✓ 正常"), "green"),
    Grade.WARNING: (Text("! look", "! 注意"), "yellow"),
    Grade.BAD: (Text("✗ BAD", "✗ 有误"), "bold red"),
    Grade.SKIPPED: (Text("– not seen", "– 未检查"), "dim"),
}


@click.command()
@click.option(
    "--live", metavar="ENV", help="Upload one tiny file into ENV for real, fetch it back, delete it."
)
@click.option("--appid", metavar="APPID", help="With --live: the merchant, where several share ENV.")
@click.option("--yes", is_flag=True, help="With --live: do not ask.")
@shared_options
def doctor(live: str | None, appid: str | None, yes: bool, **values: Any) -> int:
    """Examine machine, files, tokens and target; say the mends.

    Looks at Python, packages, JupyterLab, fonts, settings, merchants file, ledger, disk, the modes of token files, the
    target, its clock against this machine's, the token source, and whether the platform takes calls from this address
    (61004). Nothing is uploaded, and no link is asked for.

    --live ENV does one upload for real, and writes what was answered, without its secrets, to doctor-live-ENV-TIME.json.

    Exit codes: 0 fit for work (warnings allowed) · 1 something is bad · 2 usage · 3 --live was stopped before it began.
    """
    given = common_options(values)
    if live is None:
        if appid is not None or yes:
            raise UsageError(
                Text("--appid and --yes go with --live ENV.", "--appid 和 --yes 须与 --live ENV 一起使用。")
            )
        return _examine(given)
    return _live(given, live, appid or "", yes=yes)


def _examine(given: CommonOptions) -> int:
    from tcb_ops.doctor.runner import DoctorContext, examine

    options = {
        "api_base": given.api_base,
        "target": given.target,
        "merchants": given.merchants,
        "ledger": given.ledger,
        "lang": given.lang,
    }
    patient = DoctorContext.of(given.settings, options, given.config, given.where)
    lang = patient.fallback.lang if patient.fallback is not None else Lang(given.lang or "en")
    screen = Console(lang, quiet=given.quiet, verbose=given.verbose)
    with ExitStack() as stack:
        if patient.settings is not None:
            opened = stack.enter_context(given.reach(screen, patient.settings))
            screen.release()
            patient = replace(patient, settings=opened, fallback=opened)
        stack.enter_context(_waiting(screen, Text("examining …", "正在检查……")))
        findings = list(examine(patient))
    bad = sum(finding.grade is Grade.BAD for finding in findings)
    warnings = sum(finding.grade is Grade.WARNING for finding in findings)
    target = patient.fallback.run_target if "api_base" in patient.known and patient.fallback else None
    if given.json:
        screen.json(
            {
                "target": target,
                "fit": not bad,
                "bad": bad,
                "warnings": warnings,
                "checks": [finding.as_dict(lang) for finding in findings],
            }
        )
    else:
        screen.data(_table(findings, lang))
        screen.data("")
        screen.data(_verdict(bad, warnings).of(lang))
    return 1 if bad else 0


def _waiting(screen: Console, said: Text) -> AbstractContextManager[object]:
    """Show that something goes on, where somebody watches."""
    watched = screen.err.is_terminal and not screen.quiet
    return screen.err.status(said.of(screen.lang)) if watched else nullcontext()


def _table(findings: Sequence[CheckResult], lang: Lang) -> Table:
    """A line per check in its own order, each mend below what was seen."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        word, style = _GRADES[finding.grade]
        table.add_row(
            Styled(word.of(lang), style), _NAMES[finding.name].of(lang), sanitize(finding.seen.of(lang))
        )
        if finding.mend is not None:
            # No break after the arrow: Chinese has no spaces, and would all move to the next line.
            table.add_row("", "", f"→\u00a0{sanitize(finding.mend.of(lang))}")
    return table


def _verdict(bad: int, warnings: int) -> Text:
    to_see = (f", {warnings} to look at", f"，{warnings} 项需要注意") if warnings else ("", "")
    if bad:
        return Text(
            f"Not fit for work: {bad} bad{to_see[0]}. Mend them from the top.",
            f"尚不能工作：{bad} 项有误{to_see[1]}。请从上往下逐项处理。",
        )
    return Text(f"Fit for work{to_see[0]}.", f"可以工作{to_see[1]}。")


def _live(given: CommonOptions, env: str, appid: str, *, yes: bool) -> int:
    from tcb_ops.doctor.live import begin_trial
    from tcb_ops.doctor.live_record import write_record

    settings = given.settings()
    screen = given.screen(settings)
    merchant = _whom(given, settings, env, appid)
    if not os.access(Path(), os.W_OK):
        raise UsageError(
            Text(
                "The working folder cannot be written: --live leaves a file there.",
                "工作目录不可写：--live 会在其中留下一个文件。",
            )
        )
    given.warn_of_open_tokens(screen, settings)
    with given.reach(screen, settings) as settings:
        screen.release()
        _ask(screen, settings, merchant, yes=yes)
        work = begin_trial(settings, merchant)
        try:
            with _waiting(screen, Text("uploading one tiny file …", "正在上传一个小文件……")):
                trial = work.result()
        except KeyboardInterrupt:
            screen.warn(Text("Ending: the file is deleted first.", "正在结束：先删除已上传的文件。"))
            work.result()
            raise
    file = write_record(trial, settings, Path())
    if given.json:
        screen.json(_facts(trial, settings, file))
    else:
        for part in _seen(trial, settings):
            screen.data(part)
        screen.data(
            Text(f"All answers, without their secrets: {file}", f"全部应答（已去除密钥）：{file}").of(
                settings.lang
            )
        )
    return 0 if trial.good else 1


def _whom(given: CommonOptions, settings: Settings, env: str, appid: str) -> Merchant:
    """The line of the merchants file that serves the environment, as for a row of a list."""
    from tcb_ops.lists.resolve import Unresolved, caller

    def near(value: str, names: Sequence[str]) -> list[str]:
        return get_close_matches(value, names, n=3)

    merchants = given.read_merchants(settings)
    found = caller(merchants, env.strip(), "", appid.strip(), near)
    if isinstance(found, Unresolved):
        if not appid and merchants.whole.for_env(env.strip()):
            way_out = Text("say which one with --appid", "请用 --appid 指明是哪一个")
            found = replace(found, fix=way_out)
        raise UsageError(
            Text(
                f"--live {env}: {found.message.en} — {found.fix.en}",
                f"--live {env}：{found.message.zh} —— {found.fix.zh}",
            )
        )
    if found is None:
        raise UsageError(Text(f"--live {env}: --where leaves it out.", f"--live {env}：已被 --where 排除。"))
    if found.left:
        raise UsageError(
            Text(
                f"--live {env}: {found.name} has left (status = left), so nothing can be sent there.",
                f"--live {env}：{found.name} 已取消授权（status = left），无法向其发送。",
            )
        )
    return found


def _ask(screen: Console, settings: Settings, merchant: Merchant, *, yes: bool) -> None:
    """Before something is written to a live environment: show where, and ask."""
    if not settings.on_loopback and not yes:
        confirm_or_abort(
            screen,
            Text(
                f"Upload one tiny file into {merchant.env} of {merchant.name} ({merchant.appid}) on {settings.api_base}, and delete it?",
                f"要向 {settings.api_base} 上 {merchant.name}（{merchant.appid}）的环境 {merchant.env} 上传一个小文件并随即删除吗？",
            ),
        )


def _seen(trial: Trial, settings: Settings) -> list[Any]:
    """The steps, and what they settle, for the screen."""
    from tcb_ops.doctor.live_findings import settle
    from tcb_ops.secrets import redact_known

    lang = settings.lang
    steps = [
        CheckResult(step.name, Grade.OK if step.good else Grade.BAD, step.seen, step.mend)
        for step in trial.steps
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for step in steps:
        word, style = _GRADES[step.grade]
        table.add_row(Styled(word.of(lang), style), sanitize(redact_known(step.seen.of(lang), trial.secrets)))
        if step.mend is not None:
            table.add_row("", f"→\u00a0{sanitize(step.mend.of(lang))}")
    parts: list[Any] = [table, ""]
    for one in settle(trial):
        still = "" if one.known else Text(" · still open", " · 仍未定").of(lang)
        parts.append(Styled(f"{one.question.of(lang)}{still}", "bold"))
        parts.append(Styled(sanitize(redact_known(one.seen.of(lang), trial.secrets)), overflow="fold"))
    parts.append("")
    if settings.on_loopback:
        parts.append(
            Text(
                "SIMULATED 演练: this is how the simulator answers, and settles nothing about the platform.",
                "SIMULATED 演练：以上是模拟平台的应答，不能说明真实平台的行为。",
            ).of(lang)
        )
    return parts


def _facts(trial: Trial, settings: Settings, file: Path) -> dict[str, Any]:
    from tcb_ops.doctor.live_findings import settle
    from tcb_ops.secrets import redact_known

    lang = settings.lang

    def said(text: Text) -> str:
        return redact_known(text.of(lang), trial.secrets)

    return {
        "target": settings.run_target,
        "env": trial.env,
        "path": trial.path,
        "good": trial.good,
        "left_behind": trial.left or None,
        "steps": [
            {
                "step": step.name,
                "good": step.good,
                "seen": said(step.seen),
                "mend": said(step.mend) if step.mend else None,
            }
            for step in trial.steps
        ],
        "settled": [
            {"number": one.number, "known": one.known, "question": said(one.question), "seen": said(one.seen)}
            for one in settle(trial)
        ],
        "file": str(file),
    }
