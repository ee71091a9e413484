"""The command line: its commands and how errors are reported."""

from __future__ import annotations

import codecs
import gettext
import inspect
import io
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from difflib import SequenceMatcher
from functools import cache
from importlib import import_module
from typing import NoReturn

import click

from tcb_ops import signals
from tcb_ops.cli.console import Console, show_problems, wrapped
from tcb_ops.cli.options import common_options
from tcb_ops.errors import InputError, TcbOpsError
from tcb_ops.formatting import lines, wrap
from tcb_ops.i18n import N_, Lang, Text, _, as_lines, as_sentences, terminal_lang, translate_click, verbatim
from tcb_ops.resources import exhausted, system_reason
from tcb_ops.settings import load_settings, settings_file, system_lang
from tcb_ops.toml_file import read_toml

_DASHES = re.compile("[‐-―−－﹣]+-?(?=[a-z])")
"""Characters that word processors, chat programs and Chinese keyboards put in place of an option's hyphens."""


_EXAMPLES = {
    "tcb-ops check": "list.csv",
    "tcb-ops explain": "85088",
    "tcb-ops ledger copy": "tcb-ops.db archive.db",
    "tcb-ops ledger join": "all.db machine-1.db machine-2.db",
    "tcb-ops list": "files --to all",
    "tcb-ops notebook": "03_errcode_audit --out nightly",
    "tcb-ops sync": "files --to all",
    "tcb-ops verify": "reports/RUN",
}
"""For commands with arguments or options that must be given: what they may be."""


def usage_error(error: click.ClickException, arguments: Sequence[str] = ()) -> Text:
    """Return the message for a command line that click rejects: click's text, hints, and how to see the usage.

    To click, an option with a wrong dash and a value with spaces but no quotes are unexpected arguments.
    """
    context = getattr(error, "ctx", None)
    typed = [word for word in arguments if word in cli.commands]
    command = context.command_path if context is not None else " ".join(["tcb-ops", *typed[:1]])
    if isinstance(error, click.MissingParameter) and context is not None and error.param is not None:
        name = (
            error.param.opts[0]
            if isinstance(error.param, click.Option)
            else error.param.make_metavar(context)
        )
        if command in _EXAMPLES:
            example = f"{command} {_EXAMPLES[command]}"
            return _("{name} is missing. For example:\n{example}", name=name, example=example)
        pieces = " ".join(context.command.collect_usage_pieces(context))
        return _("{name} is missing. Usage:\n{usage}", name=name, usage=f"{command} {pieces}")
    hints = [
        _(
            "{word} begins with another dash: type two hyphens, {option}",
            word=word,
            option=_DASHES.sub("--", word),
        )
        for word in arguments
        if _DASHES.match(word)
    ]
    if (
        not hints
        and type(error) is click.UsageError
        and not isinstance(context and context.command, click.Group)
    ):
        hints = _hints_about_extra(context, command, arguments)
    usage = _("`{command} --help` shows the usage.", command=command)
    message: str | Text = error.format_message()
    if isinstance(error, click.NoSuchOption | click.exceptions.NoSuchCommand) and error.possibilities:
        message = verbatim(error.message)
        near = error.possibilities[0]
        # Among options, click's guesses are wild.
        if (
            not isinstance(error, click.NoSuchOption)
            or SequenceMatcher(None, error.option_name, near).ratio() >= 0.75
        ):
            message = as_sentences((message, _("Did you mean {near}?", near=near)))
    return as_lines((message, *hints, usage))


def _hints_about_extra(context: click.Context | None, command: str, arguments: Sequence[str]) -> list[Text]:
    """Return what one argument too many may mean: a second run or list, or a text with spaces but no quotes."""
    quotes = _("A text with spaces needs quotes around it.")
    if command == "tcb-ops list":
        return [
            _(
                "list takes one file or one folder. Put the files into a folder, then: tcb-ops list FOLDER --to …"
            ),
            quotes,
        ]
    taken = context.command.params if context is not None else ()
    if not any(param.name == "run" and isinstance(param, click.Argument) for param in taken):
        return [quotes]
    one = _("{command} takes one run.", command=command)
    return [one, quotes] if any(word.startswith("--") for word in arguments) else [one]


class _Commands(Mapping[str, click.Command]):
    """The commands of a group by name, each loaded when it is asked for.

    `places`: module and function of each. The function has the command's name, with `_` at its end if Python has that name.
    """

    def __init__(self, places: str) -> None:
        self._places = {place.partition(".")[2].rstrip("_"): place for place in places.split()}

    def __getitem__(self, name: str) -> click.Command:
        module, _dot, function = self._places[name].partition(".")
        found: click.Command = getattr(import_module(f"tcb_ops.cli.{module}"), function)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Group(click.Group):
    """A group of commands that are loaded, and translated, when they are asked for; shared options may precede their names."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a command with its help in the language set by `translate_click`; to complete a line, with suggestions."""
        found = super().get_command(ctx, name)
        prepared: Callable[[click.Command], click.Command] = ctx.obj or translated
        return None if found is None else prepared(found)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments after moving the command's name to the front."""
        shared = shared_options()
        ordered = command_first(args, {name: not shared[name].is_flag for name in shared})
        if ordered and ordered[0].partition("=")[0] in shared and not ctx.resilient_parsing:
            last = shared.get(ordered[-1])  # the line has no command
            if last is not None and not last.is_flag:
                one, many = (
                    "Option {name!r} requires an argument.",
                    "Option {name!r} requires {nargs} arguments.",
                )
                lacks = gettext.ngettext(one, many, 1).format(name=ordered[-1], nargs=1)  # click's message
                raise click.BadOptionUsage(ordered[-1], lacks, ctx)
            raise click.UsageError(gettext.gettext("Missing command."), ctx)
        return super().parse_args(ctx, ordered)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the group's options, during shell completion with the shared ones."""
        return [*super().get_params(ctx), *(shared_options().values() if ctx.resilient_parsing else ())]


@cache
def shared_options() -> dict[str, click.Option]:
    """Return the options that every command shares, by their spelling."""
    every = click.command()(common_options(lambda: None)).params
    return {param.opts[0]: param for param in every if isinstance(param, click.Option)}


def command_first(arguments: list[str], options: Mapping[str, bool]) -> list[str]:
    """Move shared options that precede a command's name behind it.

    `options` maps each to whether it takes a value. Beside `--help` they are dropped; other arguments are left to click.
    """
    moved, rest = _split(arguments, options)
    if rest and rest[0] in {"--help", "-h", "--version"}:
        return [rest[0], *_split(rest[1:], options)[1]]
    if not moved or not rest:
        return arguments
    return [rest[0], *moved, *rest[1:]] if not rest[0].startswith("-") else rest


def _split(arguments: list[str], options: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    """Split arguments into the shared options with which they begin and the others."""
    place = 0
    while place < len(arguments) and (name := arguments[place].partition("=")[0]) in options:
        place += 2 if options[name] and "=" not in arguments[place] else 1
    return arguments[:place], arguments[place:]


class _Formatter(click.HelpFormatter):
    """A help formatter that wraps by terminal columns (a Chinese character takes two) and translates headings."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        usage = N_("Usage: ")
        super().write_usage(prog, args, prefix or gettext.gettext(usage))

    def write_heading(self, heading: str) -> None:
        template = N_("{heading}:")
        self.write(f"{'':>{self.current_indent}}{gettext.gettext(template).format(heading=heading)}\n")

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        rows = list(rows)
        first = min(max(len(name) for name, _text in rows), col_max) + col_spacing
        width = max(self.width - first - 2, 10)
        super().write_dl([(name, _broken(text, width)) for name, text in rows], col_max, col_spacing)

    def write_text(self, text: str) -> None:
        width = self.width - self.current_indent
        super().write_text("\n\n".join(_broken(paragraph, width) for paragraph in paragraphs(text)))


def _broken(text: str, width: int) -> str:
    return f"\b\n{wrap(text, width)}"  # \b keeps click from rewrapping the lines


class _Context(click.Context):
    formatter_class = _Formatter

    def get_help(self) -> str:
        """Return the help with ASCII for characters that the terminal cannot show; click would write UTF-8."""
        encoding = sys.stdout.encoding or "utf-8"
        return super().get_help().encode(encoding, "tcb_ops").decode(encoding)


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a help text, each a message of the catalogue."""
    return [" ".join(lines.split()) for lines in inspect.cleandoc(text).split("\n\n")] if text else []


def translated(command: click.Command) -> click.Command:
    """Return a copy of a command with its help in the language set by `translate_click`."""
    made = copy(command)
    made._help_option = None  # noqa: SLF001  click caches it in the language in which it was created
    made.context_class = _Context
    options, commands = N_("[OPTIONS]"), N_("COMMAND [ARGS]...")
    made.options_metavar = gettext.gettext(options)
    if isinstance(made, click.Group):
        made.subcommand_metavar = gettext.gettext(commands)
    texts = [gettext.gettext(paragraph) for paragraph in paragraphs(command.help or "")]
    made.help, made.short_help = "\n\n".join(texts), texts[0].rstrip("。.") if texts else None
    made.params = [copy(param) for param in command.params]
    for param in made.params:
        if isinstance(param, click.Option) and param.help:
            param.help = gettext.gettext(param.help)
    return made


_SECTIONS = (
    (N_("Run a list"), "runs.check runs.links runs.upload runs.retry runs.audit"),
    (N_("Stored files"), "stored.sync stored.confirm stored.undo stored.delete"),
    (
        N_("Inspect"),
        "ledger.runs inspect.show inspect.errcodes inspect.report inspect.diff inspect.verify inspect.explain \
        inspect.notify",
    ),
    (
        N_("Set up"),
        "setup.init setup.doctor main.merchants main.tokens stored.list_ main.ledger completion.completion",
    ),
    (N_("Notebooks"), "notebooks.notebook notebooks.lab"),
    (N_("Practise"), "practice.simulate practice.demo"),
)
"""The commands by section of the help, in the order of an operator's work."""


class _TopGroup(Group):
    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, places in _SECTIONS:
            with formatter.section(gettext.gettext(section)):
                listed = map(translated, _Commands(places).values())
                formatter.write_dl(
                    [(one.name or "", one.get_short_help_str(formatter.width)) for one in listed]
                )


@click.group(
    cls=_TopGroup,
    commands=_Commands(" ".join(places for _section, places in _SECTIONS)),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="tcb-ops", message="%(prog)s %(version)s")
def cli() -> None:
    """Upload files into many merchants' WeChat cloud environments, see every errcode with what to do, prove it.

    Exit codes: 0 every row succeeded · 1 finished, some rows did not · 2 usage, settings or input: nothing was sent ·
    3 stopped by a problem that affects every row · 130 interrupted · 143 terminated.

    Shared options, before or after the command's name: --lang zh or en, the language; --config, the settings file; --target, where
    calls go. `tcb-ops COMMAND --help` lists the others.
    """


@click.group(cls=Group, commands=_Commands("setup.check setup.sync"))
def merchants() -> None:
    """Keep the merchants file; check which merchants are ready.

    sync and check: who has authorized the platform, and what keeps a merchant from being served.
    """


@click.group(cls=Group, commands=_Commands("setup.serve"))
def tokens() -> None:
    """Serve tokens to other machines.

    serve: a token server for their source `service`.
    """


@click.group(cls=Group, commands=_Commands("ledger.copy ledger.join"))
def ledger() -> None:
    """Copy runs to another ledger; join the shares of a list."""


_ASCII = str.maketrans(
    {"·": "-", "—": "-", "–": "-", "→": "->", "…": "...", "“": '"', "”": '"', "✓": "+", "✗": "x", "\xa0": " "}
)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that a stream's encoding lacks by ASCII: an unprintable name must not end the program."""
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101  output streams only encode
    shown = error.object[error.start : error.end].translate(_ASCII)
    return shown.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error("tcb_ops", _in_ascii)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="tcb_ops")
    code, started = 130, False
    try:
        signals.end_tidily()
        started = True
        code = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # before it starts, while an error is printed, or on a second Ctrl-C
        code = signals.asked() or code
        if not started:
            os.write(2, signals.NOTHING_STARTED)
    finally:
        signals.end_at_once(code or 130)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code. Exceptions are printed as messages."""
    if "_TCB_OPS_COMPLETE" in os.environ:
        from tcb_ops.cli.completion import answer

        return answer(cli)
    lang = Lang.EN
    try:
        os.environ["LANGUAGE"] = lang = terminal_lang(_lang(arguments))
        translate_click(lang)
        result = translated(cli).main(list(arguments), prog_name="tcb-ops", standalone_mode=False)
    except InputError as error:
        _print_problems(error, lang)
        return error.exit_code
    except TcbOpsError as error:
        _print_error(error.text, lang)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        _print_error(usage_error(error, arguments), lang)
        return 2
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        return _interrupted(int(getattr(error.__cause__ or error, "exit_code", 130)), lang)
    except (BrokenPipeError, SystemExit):  # `tcb-ops --help | head`: the reader closed the pipe; click exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:  # noqa: BLE001  the outermost handler: users must not see a stack trace
        return _unexpected(error, lang, verbose="--verbose" in arguments)
    return result if isinstance(result, int) else 0


def _interrupted(code: int, lang: Lang) -> int:
    loop = sys.modules.get("tcb_ops.runs.loop")
    wind_up = getattr(loop, "wind_up", None)  # None if the signal came before, or while, it was imported
    with suppress(KeyboardInterrupt):  # a second Ctrl-C: end at once
        if wind_up is not None:
            wind_up()
    _print_error(_("Interrupted; nothing was left half done."), lang)
    return code


def _unexpected(error: Exception, lang: Lang, *, verbose: bool) -> int:
    if signals.asked():  # some libraries wrap the interrupt in an error of their own
        return _interrupted(signals.asked(), lang)
    if isinstance(error, UnicodeEncodeError):
        text = _(
            "The locale of this shell ({encoding}) has no {character}, which is in the name of a file. Run "
            "`export LC_ALL=C.UTF-8`, then the same command again.",
            encoding=error.encoding,
            character=ascii(error.object[error.start]),
        )
    elif isinstance(error, OSError):  # one that no command has reported in more specific terms
        shortage = exhausted(error)
        text = _("{why}. Fix that, then run the same command again.", why=system_reason(error))
        if shortage is not None:
            text = shortage.text
        elif error.filename:
            text = _("{file}: {reported}", file=error.filename, reported=text)
    else:
        if verbose:
            traceback.print_exception(error)
        text = _(
            "Internal error in tcb-ops ({kind}). What was committed is safe, and the same command resumes. Please "
            "report it with the trace that --verbose shows.",
            kind=type(error).__name__,
        )
    _print_error(text, lang)
    return 3


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
    """Return the language for error messages, even if the settings cannot be read."""
    asked, config = _value_of(arguments, "--lang"), _value_of(arguments, "--config")
    try:
        return load_settings(config, {"lang": asked}).lang
    except TcbOpsError:
        in_file = None
        with suppress(TcbOpsError):
            in_file = read_toml(settings_file(config)).get("lang")
        given = (asked, os.environ.get("TCB_OPS_LANG"), in_file)
        return next((Lang(lang) for lang in given if lang in {"zh", "en"}), system_lang())


def _value_of(arguments: Sequence[str], option: str) -> str | None:
    """Return an option's value from unparsed arguments: `--lang zh` or `--lang=zh`."""
    words = [*arguments, ""]
    for word, after in itertools.pairwise(words):
        if word == option:
            return after or None
        if word.startswith(f"{option}="):
            return word.partition("=")[2] or None
    return None


if __name__ == "__main__":
    main()
