"""What to say about a command line that cannot be read. click says it in English only."""

from __future__ import annotations

import click

from tcb_ops.model import Text

__all__ = ["mistyped"]


def mistyped(error: click.ClickException) -> Text:
    """Say what is wrong with a command line, and where help is.

    ==============================  ==============================
    click's error                   names
    ==============================  ==============================
    an unknown option or command    it, and what looks like it
    a value that does not fit       the option, what it takes
    no argument, no value           what is missing
    anything else                   click's own words
    ==============================  ==============================
    """
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "tcb-ops"
    said, zh = error.format_message().rstrip("."), _zh(error)
    end = "" if said.endswith(("?", "!")) else "."
    return Text(
        f"{said}{end} `{command} --help` says what there is.",
        f"{zh or said}。用 `{command} --help` 查看用法。",
    )


def _zh(error: click.ClickException) -> str:
    match error:
        case click.exceptions.NoSuchOption():
            return f"没有 {error.option_name} 这个选项{_alike(error.possibilities)}"
        case click.exceptions.NoSuchCommand():
            return f"没有 {error.command_name} 这个命令{_alike(error.possibilities)}"
        case click.MissingParameter():
            return f"缺少 {_name(error)}"
        case click.BadParameter():
            return f"{_name(error)} 的值不可用：{_takes(error.param)}"
        case click.BadOptionUsage():
            takes = "后面应有一个值" if "requires" in error.message else "不带值"
            return f"选项 {error.option_name} {takes}"
        case click.UsageError() if "unexpected extra" in error.message:
            return f"多余的参数：{error.message.partition('(')[2].rstrip(')')}"
    return ""


def _alike(possible: object) -> str:
    names = "、".join(map(str, possible)) if isinstance(possible, (list, tuple)) else ""
    return f"（是否想写 {names}？）" if names else ""


def _name(error: click.BadParameter) -> str:
    if error.param is None:
        return error.param_hint if isinstance(error.param_hint, str) else "参数"
    if isinstance(error.param, click.Option):
        return error.param.opts[0]
    return error.param.make_metavar(error.ctx) if error.ctx is not None else (error.param.name or "参数")


def _takes(param: click.Parameter | None) -> str:
    kind = param.type if param is not None else None
    if isinstance(kind, click.Choice):
        return f"只能是 {'、'.join(map(str, kind.choices))}"
    if isinstance(kind, (click.IntRange, click.FloatRange)):
        whole = "应为整数" if isinstance(kind, click.IntRange) else "应为数字"
        above = "大于" if kind.min_open else "不小于"
        low = "" if kind.min is None else f"，{above} {kind.min:g}"
        return whole + low + ("" if kind.max is None else f"，不大于 {kind.max:g}")
    if kind is click.INT:
        return "应为整数"
    return "格式不对"
