"""The command line: its commands and how errors are reported."""

from __future__ import annotations

import codecs
import gettext
import io
import itertools
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any, NoReturn

import click

from tcb_ops import signals
from tcb_ops.cli import Commands, Group, shared_options, short_help, translated
from tcb_ops.cli.console import Console, show_problems, wrapped
from tcb_ops.errors import InputError, InterruptedRunError, TcbOpsError, UsageError, error_code
from tcb_ops.formatting import lines
from tcb_ops.hooks import CORE, features
from tcb_ops.i18n import (
    N_,
    Lang,
    Text,
    _,
    as_lines,
    as_list,
    as_sentences,
    terminal_lang,
    translate_click,
    verbatim,
)
from tcb_ops.settings import chosen_lang
from tcb_ops.system_errors import exhausted, system_reason

_SIGNS = {"\u00a0": " ", "✓": "+", "✗": "x"}
"""Our own signs, and what stands for them in a code page that lacks them."""


def usage_error(error: click.ClickException, arguments: Sequence[str] = ()) -> UsageError:
    """Return the error for a command line that click rejects: click's text, a hint, and how to see the usage."""
    context = getattr(error, "ctx", None)
    typed = [word for word in arguments if word in cli.commands]
    command = context.command_path if context is not None else " ".join(["tcb-ops", *typed[:1]])
    usage = _("`{command} --help` shows the usage.", command=command)
    message = verbatim(error.format_message())
    if isinstance(error, click.NoSuchOption) and error.option_name in shared_options():
        message = _("{command} does not use {option}.", command=command, option=error.option_name)
    elif isinstance(error, click.NoSuchOption) and error.option_name == "--merchant":
        message = _("To choose a merchant: {--where} name=NAME, or {--where} appid=APPID.")
    elif isinstance(error, click.MissingParameter) and context is not None and error.param is not None:
        message = _("{command} needs {what}.", command=command, what=_named(error.param, context))
    elif isinstance(error, click.BadParameter) and (valid := _valid(error.param)) is not None:
        message = _("{option} must be {valid}.", option=_named(error.param, context), valid=valid)
    elif isinstance(error, click.NoSuchOption | click.exceptions.NoSuchCommand):
        message = verbatim(error.message)
        typed_name = error.option_name if isinstance(error, click.NoSuchOption) else error.command_name
        if (near := _nearest(typed_name, error.possibilities or ())) is not None:
            message = as_sentences((message, _("Did you mean {near}?", near=near)))
    refused = UsageError(message, usage)
    refused.text = as_lines((message, usage))
    refused.code = error_code(type(error))
    return refused


def _named(param: click.Parameter | None, context: click.Context | None) -> str:
    """Return an option or an argument as it is typed."""
    return param.get_error_hint(context).replace("'", "") if param is not None else ""


def _valid(param: click.Parameter | None) -> Text | None:
    """Return which values an option or an argument takes, in the language of the other messages; None: click says it."""
    kind = param.type if param is not None else None
    match kind:
        case click.Choice():
            return _("one of {choices}", choices=as_list(kind.choices))
        case click.IntRange(min=least, max=None):
            return _("a whole number, {least} or more", least=least)
        case click.IntRange(min=least, max=most):
            return _("a whole number from {least} to {most}", least=least, most=most)
        case click.FloatRange(min=least, min_open=True):
            return _("a number above {least}", least=least)
        case click.FloatRange(min=least):
            return _("a number, {least} or more", least=least)
    return None


def _nearest(name: str, names: Sequence[str]) -> str | None:
    """Return the name that was probably meant: one that begins so, else one that differs by a letter or two."""
    from difflib import get_close_matches

    longer = [each for each in names if each.startswith(name)]
    return next(iter(longer or get_close_matches(name, names, 1, 0.75)), None)


_SECTIONS = {
    "run": N_("Run a list"),
    "stored": N_("Stored files"),
    "health": N_("Find what is wrong"),
    "inspect": N_("Runs and reports"),
    "setup": N_("Set up"),
    "notebooks": N_("Notebooks and practice"),
}
"""The sections of the help, in the order of an operator's work."""


def _references(section: str) -> dict[str, str]:
    """Return a section's commands, the core's, then those of features: their short helps by references (`module:name`)."""
    every = (CORE, *features().values())
    return {name: text for feature in every for name, text in feature.commands.get(section, {}).items()}


class _TopGroup(Group):
    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        for section, heading in _SECTIONS.items():
            if not (references := _references(section)):
                continue
            formatter.write_heading(gettext.gettext(heading))
            with formatter.indentation():
                helps = zip(Commands(references), references.values(), strict=True)
                formatter.write_dl([(f"{name:<10}", short_help(text)) for name, text in helps])


@click.group(
    cls=_TopGroup,
    commands=Commands([reference for section in _SECTIONS for reference in _references(section)]),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="tcb-ops", message="%(prog)s %(version)s")
def cli() -> None:
    """Upload files into many merchants' WeChat cloud environments, see every errcode with what to do, prove it.

    Exit codes: 0 every row succeeded · 1 finished, some rows did not · 2 usage, settings or input: nothing was sent ·
    3 stopped by a problem that affects every row · 130 interrupted · 143 terminated.

    Shared options, before or after the command's name: --lang zh or en, the language; --config, the settings file; --target, where
    calls go. `tcb-ops COMMAND --help-all` lists the others that a command takes.
    """


class _Messages(io.FileIO):
    """The bytes of stderr. Where they cannot be written, to a full disk or a closed pipe, the exit code still tells."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write what a code page such as GBK lacks: our own signs in ASCII, all else as `backslashreplace` does."""
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101  streams are only written
    text = error.object[error.start : error.end]
    return "".join(_SIGNS.get(sign) or ascii(sign)[1:-1] for sign in text), error.end


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        messages = io.BufferedWriter(_Messages(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(messages, sys.stderr.encoding, line_buffering=True)
    codecs.register_error("tcb-ops", _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="tcb-ops")  # an unprintable name must not end the program
    code, started = 130, False
    try:
        signals.end_tidily()
        started = True
        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # before it starts, while an error is printed, or on a second Ctrl-C
        code = signals.asked() or code
        if not started:
            with suppress(OSError):
                os.write(2, signals.NOTHING_STARTED)
    finally:
        signals.end_at_once(code or 130)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code. Exceptions are printed as messages."""
    if "_TCB_OPS_COMPLETE" in os.environ:
        from tcb_ops.cli.setup import answer

        return answer(cli)
    lang, Console.has_printed_json = Lang.EN, False
    try:
        lang = terminal_lang(_lang(arguments))
        # C: gettext looks for no catalogue at each message.
        os.environ["LANGUAGE"] = "C" if lang is Lang.EN else lang
        translate_click(lang)
        result = translated(cli).main(list(arguments), prog_name="tcb-ops", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (BrokenPipeError, SystemExit):  # `tcb-ops --help | head`: the reader closed the pipe; click exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the outermost handler: users must not see a stack trace
        return end_with(error, arguments, lang)
    return result if isinstance(result, int) else 0


def end_with(error: BaseException, arguments: Sequence[str], lang: Lang) -> int:
    """Print what ended a command, with --json as an object on stdout too; return the exit code."""
    reported = _reported(error, arguments)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    elif not isinstance(reported, InputError):
        _print_error(reported.text, lang)
    elif not reported.shown:
        _print_problems(reported, lang)
    if "--json" in takewhile("--".__ne__, arguments) and not Console.has_printed_json:
        with suppress(OSError):  # a full disk: stderr has the message
            Console(lang).json(reported.to_json(lang))
    return reported.exit_code


def _reported(error: BaseException, arguments: Sequence[str]) -> TcbOpsError:
    """Return the error to report for whatever ended a command."""
    if isinstance(error, TcbOpsError):
        return error
    if isinstance(error, click.ClickException):
        return usage_error(error, arguments)
    # Some libraries wrap the interrupt in an error of their own.
    if isinstance(error, click.Abort | KeyboardInterrupt) or signals.asked():
        return _interrupted(signals.asked() or int(getattr(error.__cause__ or error, "exit_code", 130)))
    if not isinstance(error, OSError):
        if "--verbose" in arguments:
            import traceback

            traceback.print_exception(error)
        text = _(
            "Internal error in tcb-ops ({kind}). What was committed is safe, and the same command resumes. Please "
            "report it with the trace that {--verbose} shows.",
            kind=type(error).__name__,
        )
    elif (shortage := exhausted(error)) is not None:
        return shortage
    else:  # one that no command has reported in more specific terms
        text = _("{why}. Fix that, then run the same command again.", why=system_reason(error))
        if error.filename:
            text = _("{file}: {reported}", file=error.filename, reported=text)
    reported = TcbOpsError(text)
    reported.code = "system" if isinstance(error, OSError) else "internal"
    return reported


def _interrupted(code: int) -> InterruptedRunError:
    # It is missing if the signal came before, or while, the module was imported.
    cancel_all = getattr(sys.modules.get("tcb_ops.engine.loop"), "cancel_all", lambda: None)
    with suppress(KeyboardInterrupt):  # a second Ctrl-C: end at once
        cancel_all()
    text = _(
        "Interrupted; nothing was left half written. A call that was under way may have been carried out."
    )
    interrupted = InterruptedRunError(text)
    interrupted.exit_code = code
    return interrupted


def _print_problems(error: InputError, lang: Lang) -> None:
    """Print all problems of a file that is refused, such as known.csv or the merchants file; at most 50."""
    if (many := len(error.problems)) < 2:
        _print_error(error.text, lang)
        return
    show_problems(Console(lang), error.source, error.problems)
    _print_error(_("{source} has {many:,} problems. Nothing was sent.", source=error.source, many=many), lang)


def _print_error(text: Text, lang: Lang) -> None:
    from rich.console import Console as RichConsole

    message = f"tcb-ops: {lines(text.of(lang))}"
    sys.stderr.write(f"{wrapped(message, RichConsole(stderr=True)) if sys.stderr.isatty() else message}\n")


def _lang(arguments: Sequence[str]) -> Lang:
    """Return the language for error messages."""
    return chosen_lang(_value_of(arguments, "--config"), _value_of(arguments, "--lang"))


def _value_of(arguments: Sequence[str], option: str) -> str | None:
    """Return an option's value from unparsed arguments: `--lang zh` or `--lang=zh`."""
    for word, after in itertools.pairwise([*arguments, ""]):
        if word == option:
            return after or None
        if word.startswith(f"{option}="):
            return word.partition("=")[2] or None
    return None


if __name__ == "__main__":
    main()
