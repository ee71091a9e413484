"""The command line: parse, call the Python API, print, exit code. Here: how commands are found, translated and called."""

from __future__ import annotations

import gettext
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from functools import cache
from inspect import cleandoc
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tcb_ops.cli.options import CommonOptions, ListOptions, Option, RunOptions, common_options
from tcb_ops.formatting import wrap
from tcb_ops.hooks import load
from tcb_ops.i18n import N_

if TYPE_CHECKING:
    from tcb_ops.cli.steps import RunCommand


class _TwoHelps(click.Command):
    """A command with a short help and a complete one, --help-all."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.append(_help_all())

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the description, in the short help its first two paragraphs."""
        described = copy(self)
        if not ctx.meta.get(_ALL):
            described.help = "\n\n".join((self.help or "").split("\n\n")[:2])
        super(_TwoHelps, described).format_help_text(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not ctx.meta.get(_ALL):
            formatter.write("\n" + gettext.gettext(N_("More: --help-all")) + "\n")


class Command(_TwoHelps):
    """A command whose function gets its shared options as objects: a RunCommand, or a dataclass of options."""

    def __init__(self, *args: Any, usual: str = "", **attributes: Any) -> None:
        """Create a command; `usual`: the options of the short help, without hyphens."""
        super().__init__(*args, **attributes)
        self.usual = usual.split()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises NoSuchOption for a shared option that the command does not use."""
        before: dict[str, Any] = ctx.meta.get(_BEFORE, {})
        spelled = {word.partition("=")[0] for word in takewhile("--".__ne__, args)}
        own = {param.name for param in self.params}
        for spelling, option in shared_options().items():
            unused = option.name not in own and (option.name in before or spelling in spelled)
            if unused and not ctx.resilient_parsing:
                raise click.NoSuchOption(spelling, ctx=ctx)
        ctx.default_map = before
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the words of the usage line, with the options that are required."""
        options = [param for param in self.params if isinstance(param, click.Option) and param.required]
        required = [f"{option.opts[-1]} {option.make_metavar(ctx)}" for option in options]
        return [*required, *super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the usual options, in the complete help all in groups."""
        own, everything = N_("Options"), ctx.meta.get(_ALL, False)
        semicolon = gettext.gettext("{one}; {next}").format(one="", next="")
        groups = dict[str, list[tuple[str, str]]]()
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None and (everything or param.opts[-1].lstrip("-") in self.usual):
                name, (text, mark, facts) = record[0], record[1].partition("  [")
                facts = facts.replace("; ", semicolon)
                record = (name, f"{text}{mark}{facts}")
                groups.setdefault(getattr(param, "group", "") if everything else "", []).append(record)
        for group, records in groups.items():
            with formatter.section(gettext.gettext(group or own)):
                formatter.write_dl(records, col_max=30 if everything else _NARROW)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the function."""
        assert self.callback is not None  # noqa: S101  a command without one does nothing
        values = dict(ctx.params)
        objects = dict[str, object]()
        for name, kind in self.callback.__annotations__.items():
            options: Any = self.callback.__globals__.get(kind)
            if kind == "RunCommand":
                objects[name] = _run_command(values)
            elif isinstance(options, type) and is_dataclass(options):
                objects[name] = _taken(options, values)
        return ctx.invoke(self.callback, **values, **objects)


def _taken(kind: type[Any], values: dict[str, Any]) -> Any:
    """Move the values of a dataclass's fields out of `values`, into an object."""
    return kind(**{field.name: values.pop(field.name) for field in fields(kind) if field.name in values})


def _run_command(values: dict[str, Any]) -> RunCommand:
    from tcb_ops.cli.steps import RunCommand
    from tcb_ops.engine.limits import RunLimits

    kinds = (CommonOptions, ListOptions, RunOptions, RunLimits)
    common, listing, which, limits = (_taken(kind, values) for kind in kinds)
    return RunCommand(common, listing, which, limits, *common.start())


_ALL = "tcb_ops.help_all"
"""The key of a context's `meta` under which the complete help is asked for."""
_BEFORE = "tcb_ops.before"
"""The key of a context's `meta` with the values of the shared options that precede the command's name."""
_NARROW = 22
"""Width of the options in the short help."""


def _help_all() -> Option:
    def show(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
        if asked and not ctx.resilient_parsing:
            ctx.meta[_ALL] = True
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()

    text = N_("Show all options, in groups.")
    return Option(["--help-all"], is_flag=True, expose_value=False, is_eager=True, callback=show, help=text)


class Commands(Mapping[str, click.Command]):
    """The commands of a group by name, each loaded when it is asked for.

    `places`: `module:function` of each. The function has the command's name, with `_` at its end if Python has that name.
    """

    def __init__(self, places: Iterable[str]) -> None:
        self._places = {full_name.partition(":")[2].rstrip("_"): full_name for full_name in places}

    def __getitem__(self, name: str) -> click.Command:
        command: click.Command = load(self._places[name])
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Group(_TwoHelps, click.Group):
    """A group of commands that are loaded, and translated, when they are asked for; shared options may precede their names."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        """Create a group; the shared options are not in its help."""
        super().__init__(*args, **attributes)
        for option in map(copy, shared_options().values()):
            option.hidden = True
            self.params.append(option)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, in the complete help also the group's options."""
        if ctx.meta.get(_ALL):
            click.Command.format_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a command with its help in the language set by `translate_click`; to complete a line, with suggestions."""
        command = super().get_command(ctx, name)
        prepared: Callable[[click.Command], click.Command] = ctx.obj or translated
        return None if command is None else prepared(command)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; `help upload` is `upload --help`. The shared options are kept for the command."""
        rest = super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)
        for name in {option.name or "" for option in shared_options().values()}:
            value = ctx.params.pop(name, None)
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                ctx.meta.setdefault(_BEFORE, {})[name] = value
        return rest


@cache
def shared_options() -> dict[str, click.Option]:
    """Return the options that every command shares, by their spelling."""
    every = click.command()(common_options(lambda: None)).params
    return {param.opts[0]: param for param in every if isinstance(param, click.Option)}


class _Formatter(click.HelpFormatter):
    """A help formatter that wraps by terminal columns (a Chinese character takes two) and translates headings."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, prefix or gettext.gettext(N_("Usage: ")))

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


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a help text, each a message of the catalogue."""
    return [" ".join(lines.split()) for lines in cleandoc(text).split("\n\n")] if text else []


def short_help(described: str) -> str:
    """Return the first sentence of a command's help as a list of commands shows it, translated."""
    return gettext.gettext(described).rstrip("。.") if described else ""


def translated(command: click.Command) -> click.Command:
    """Return a copy of a command with its help in the language set by `translate_click`."""
    made = copy(command)
    made._help_option = None  # noqa: SLF001  click caches it in the language in which it was created
    made.context_class = _Context
    made.options_metavar = gettext.gettext(N_("[OPTIONS]"))
    if isinstance(made, click.Group):
        made.subcommand_metavar = gettext.gettext(N_("COMMAND [ARGS]..."))
    described = paragraphs(command.help or "")
    made.help, made.short_help = (
        "\n\n".join(map(gettext.gettext, described)),
        short_help(next(iter(described), "")),
    )
    made.params = [copy(param) for param in command.params]
    for param in made.params:
        if isinstance(param, click.Option) and param.help:
            param.help = gettext.gettext(param.help)
    return made
