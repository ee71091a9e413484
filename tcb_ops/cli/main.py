"""The command line: its commands, and what an error becomes."""

from __future__ import annotations

import io
import itertools
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import click
from rich.console import Console as RichConsole

from tcb_ops import signals
from tcb_ops.cli import completion
from tcb_ops.cli.console import wrapped
from tcb_ops.cli.doctor import doctor
from tcb_ops.cli.inspect import diff, errcodes, explain, report, runs, show, verify
from tcb_ops.cli.notebooks import lab, notebook
from tcb_ops.cli.options import Group
from tcb_ops.cli.runs import audit, check, links, retry, upload
from tcb_ops.cli.setup import init, make_list, merchants
from tcb_ops.cli.simulate import demo, simulate
from tcb_ops.errors import TcbOpsError
from tcb_ops.formatting import lines
from tcb_ops.i18n import Lang, Text


def usage_error(error: click.ClickException) -> Text:
    """Say what is wrong with a command line, and where help is. click's own words are English only.

    ==============================  ==============================
    click's error                   names
    ==============================  ==============================
    an unknown option or command    it, and what looks like it
    a value that does not fit       the option, what it takes
    an option without its value     the option
    no argument                     what is missing
    too many arguments              the usage
    ==============================  ==============================
    """
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "tcb-ops"
    if isinstance(error, click.BadOptionUsage):
        return _value_missing(error, command)
    message = error.format_message().rstrip(".")
    end = "" if message.endswith(("?", "?)")) else "."
    return Text(
        f"{message}{end} `{command} --help` shows the usage.",
        f"{_usage_error_zh(error)}。用 `{command} --help` 查看用法。",
    )


def _value_missing(error: click.BadOptionUsage, command: str) -> Text:
    """Say that an option lacks its value, or was given one that it does not take."""
    name, commands = error.option_name, (*cli.commands.values(), *merchants.commands.values())
    options = (param for one in commands for param in one.params if isinstance(param, click.Option))
    if any(option.is_flag and name in option.opts for option in options):
        return Text(
            f"{name} takes no value. `{command} --help` shows the usage.",
            f"{name} 不带值。用 `{command} --help` 查看用法。",
        )
    return Text(
        f"{name} needs a value. `{command} --help` shows the usage.",
        f"{name} 需要一个值。用 `{command} --help` 查看用法。",
    )


def _usage_error_zh(error: click.ClickException) -> str:
    match error:
        case click.exceptions.NoSuchOption():
            return f"没有 {error.option_name} 这个选项{_alike(error.possibilities)}"
        case click.exceptions.NoSuchCommand():
            return f"没有 {error.command_name} 这个命令{_alike(error.possibilities)}"
        case click.MissingParameter():
            return f"缺少 {_name(error)}"
        case click.BadParameter():
            return f"{_name(error)} 的值不可用：{_takes(error.param)}"
        case click.UsageError() if error.ctx is not None:
            pieces = " ".join(error.ctx.command.collect_usage_pieces(error.ctx))
            return f"参数过多或有误；应为 {error.ctx.command_path} {pieces}"
    return "命令行有误"


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
        number = "应为整数" if isinstance(kind, click.IntRange) else "应为数字"
        above = "大于" if kind.min_open else "不小于"
        low = "" if kind.min is None else f"，{above} {kind.min:g}"
        return number + low + ("" if kind.max is None else f"，不大于 {kind.max:g}")
    return "应为整数" if kind is click.INT else "格式不对"


class _Sections(Group):
    """Lists the commands in the order in which an operator meets them."""

    SECTIONS = (
        ("Run", (check, links, upload, retry, audit)),
        ("Inspect", (runs, show, errcodes, report, diff, verify, explain)),
        ("Set up", (init, doctor, merchants, make_list, completion.completion)),
        ("Notebooks", (notebook, lab)),
        ("Practise", (simulate, demo)),
    )

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return [command.name or "" for _, commands in self.SECTIONS for command in commands]

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in self.SECTIONS:
            with formatter.section(section):
                formatter.write_dl([(c.name or "", c.get_short_help_str(formatter.width)) for c in commands])


@click.group(
    cls=_Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="tcb-ops", message="%(prog)s %(version)s")
def cli() -> None:
    """Upload files into many merchants' WeChat cloud environments, see every errcode with what to do, prove it.

    Exit codes: 0 every row succeeded · 1 finished, some rows did not · 2 usage, settings or input: nothing was sent ·
    3 stopped by a problem that affects every row · 130 interrupted · 143 terminated.
    """


for _, _commands in _Sections.SECTIONS:
    for _command in _commands:
        cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to end
            stream.reconfigure(errors="backslashreplace")
    code = 130
    try:
        signals.end_tidily()
        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # while an error was printed, or a second time while it ended
        code = signals.asked() or code
    finally:
        signals.end_at_once(code or 130)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line; gives the exit code. No error leaves it as a stack trace."""
    if completion.VARIABLE in os.environ:
        return completion.answer(cli)
    try:
        result = cli.main(list(arguments), prog_name="tcb-ops", standalone_mode=False)
    except TcbOpsError as error:
        _print_error(error.text.of(_lang(arguments)))
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        _print_error(usage_error(error).of(_lang(arguments)))
        return 2
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        return _interrupted(int(getattr(error.__cause__ or error, "exit_code", 130)), arguments)
    except (BrokenPipeError, SystemExit):  # `tcb-ops --help | head`: nobody reads on; click exits at that
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:  # noqa: BLE001  the last line of defence: a stack trace is not an answer
        return _unexpected(error, arguments)
    return result if isinstance(result, int) else 0


def _interrupted(code: int, arguments: Sequence[str]) -> int:
    from tcb_ops.runs.loop import wind_up

    with suppress(KeyboardInterrupt):  # a second time: at once
        wind_up()
    _print_error(Text("Interrupted; nothing is half done.", "已中断；没有留下半成品。").of(_lang(arguments)))
    return code


def _unexpected(error: Exception, arguments: Sequence[str]) -> int:
    if signals.asked():  # some libraries make an error of their own of it
        return _interrupted(signals.asked(), arguments)
    if isinstance(error, OSError):
        from tcb_ops.resources import exhausted

        shortage = exhausted(error)
        _print_error((shortage.text if shortage is not None else _system_refuses(error)).of(_lang(arguments)))
        return 3
    return _defect(error, arguments)


def _system_refuses(error: OSError) -> Text:
    """A file or folder that the system does not let us use, and no command reports in better words."""
    from tcb_ops.resources import system_reason

    what, why = error.filename or "", system_reason(error)
    return Text(
        f"{what}: {why.en}. Fix that, then run the same command again.".lstrip(": "),
        f"{what}：{why.zh}。请处理后再次运行同一命令。".lstrip("："),
    )


def _defect(error: Exception, arguments: Sequence[str]) -> int:
    if "--verbose" in arguments:
        traceback.print_exception(error)
    kind = type(error).__name__
    _print_error(
        Text(
            f"A defect in tcb-ops ({kind}). What was committed is safe, and the same command resumes. "
            "Please report it with the trace that --verbose shows.",
            f"tcb-ops 自身出错（{kind}）。已提交的内容是安全的，再次运行同一命令即可继续。请附上 --verbose 显示的信息报告此问题。",
        ).of(_lang(arguments))
    )
    return 3


def _print_error(text: str) -> None:
    message = f"tcb-ops: {lines(text)}"
    click.echo(wrapped(message, RichConsole(stderr=True)) if sys.stderr.isatty() else message, err=True)


def _lang(arguments: Sequence[str]) -> Lang:
    """The language of an error, which may be that the settings cannot be read."""
    from tcb_ops.settings import load_settings, settings_file
    from tcb_ops.toml_file import read_toml

    asked, config = _value_of(arguments, "--lang"), _value_of(arguments, "--config")
    try:
        return load_settings(config, {"lang": asked}).lang
    except TcbOpsError:
        in_file = None
        with suppress(TcbOpsError):
            in_file = read_toml(settings_file(config)).get("lang")
        variables = map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))
        given = (asked, os.environ.get("TCB_OPS_LANG"), in_file)
        lang = next((lang for lang in given if lang in {"zh", "en"}), None) or next(
            filter(None, variables), ""
        )
        return Lang.ZH if lang.lower().startswith("zh") else Lang.EN


def _value_of(arguments: Sequence[str], option: str) -> str | None:
    """The value of an option in a command line that could not be read: `--lang zh` or `--lang=zh`."""
    words = [*arguments, ""]
    for word, after in itertools.pairwise(words):
        if word == option:
            return after or None
        if word.startswith(f"{option}="):
            return word.partition("=")[2] or None
    return None


if __name__ == "__main__":
    main()
