"""Options that several commands share: a frozen dataclass per group, and the decorator that adds it."""

from __future__ import annotations

import gettext
import math
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from tcb_ops.errors import UsageError
from tcb_ops.i18n import N_, Text, _, verbatim
from tcb_ops.model import target_label

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from tcb_ops.cli.console import Console
    from tcb_ops.lists.merchants import Merchants
    from tcb_ops.lists.staging import Share
    from tcb_ops.runs.limits import RunLimits
    from tcb_ops.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class CommonOptions:
    """The options of every command that reads the settings."""

    config: str | None = None
    api_base: str | None = None
    target: str | None = None
    merchants: str | None = None
    tokens: str | None = None
    ledger: str | None = None
    where: tuple[str, ...] = ()
    json: bool = False
    lang: str | None = None
    note: str = ""
    quiet: bool = False
    verbose: bool = False

    def overrides(self) -> dict[str, str | None]:
        """Return the settings that these options override, except the tokens."""
        names = ("api_base", "target", "merchants", "ledger", "lang")
        return {name: getattr(self, name) for name in names}

    def settings(self) -> Settings:
        """Return the settings of the settings file and the environment, overridden by these options."""
        from tcb_ops.settings import load_settings

        settings = load_settings(self.config, self.overrides())
        if self.tokens is None:
            return settings
        tokens = replace(settings.tokens, source="file", file=Path(self.tokens))
        return replace(settings, tokens=tokens)

    def start(self, *, reads_ledger: bool = False) -> tuple[Settings, Console]:
        """Return the settings and the console; with `reads_ledger`, print which ledger is read if two are possible."""
        from tcb_ops.cli.console import Console
        from tcb_ops.settings import holds_password

        settings = self.settings()
        console = Console(settings.lang, quiet=self.quiet, verbose=self.verbose)
        if self.ledger and holds_password(self.ledger):
            console.warn(
                _(
                    "The password in --ledger can be seen in this machine's process list, and the commands "
                    "suggested here omit it: set TCB_OPS_LEDGER to the URL instead, or `ledger` in tcb-ops.toml."
                )
            )
        if reads_ledger:
            _name_ledger(console, settings)
        return settings, console

    @contextmanager
    def open_target(
        self, console: Console, settings: Settings, *, looks_at_tokens: bool = True
    ) -> Iterator[Settings]:
        """Open the target for a command that sends; the first line printed names the target.

        Other messages are held back until the command releases the console or ends. With `looks_at_tokens`, warn about a
        token file that others can read.
        """
        from tcb_ops.simulator import opened_target

        with (
            opened_target(settings, lambda: self.read_merchants(settings).whole) as opened,
            console.held(None if self.quiet and opened.on_loopback else target_line(opened)),
        ):
            _name_ledger(console, settings)
            if looks_at_tokens:
                _warn_of_readable_tokens(console, settings)
            yield opened

    def read_merchants(self, settings: Settings) -> Merchants:
        """Return the merchants of the merchants file, narrowed by `--where`."""
        from tcb_ops.lists.merchants import read_merchants
        from tcb_ops.resources import nearest_path

        file = settings.merchants
        if not file.exists():
            problem = _("{file}: there is no such file.", file=file)
            if (place := self._named_at(settings)) is not None:
                problem = _("{place}: merchants: there is no file {file}.", place=place, file=file)
            if near := nearest_path(file, lambda path: path.suffix == file.suffix):
                fix = _("Did you mean {near}?", near=near)
            elif settings.origin.file is not None:
                fix = _(
                    "`tcb-ops init` writes one to fill in, `tcb-ops merchants sync` fills it from the platform; "
                    "choose another with --merchants."
                )
            elif (beside := _settings_beside_the_list()) is not None:
                fix = _(
                    "There is no tcb-ops.toml here, but there is one beside the list: add --config {file}",
                    file=shlex.quote(str(beside)),
                )
            else:
                fix = _(
                    "There is no tcb-ops.toml here either: change to the folder that has it, or create a new one "
                    "with `tcb-ops init`."
                )
            raise UsageError(problem, fix)
        return read_merchants(file, self.where)

    def _named_at(self, settings: Settings) -> str | None:
        """Return file and line of the settings that name the merchants file; None if it is named elsewhere, or nowhere."""
        from tcb_ops.settings import line_of, read_toml

        file = settings.origin.file
        if file is None or "merchants" in settings.origin.overridden or "merchants" not in read_toml(file):
            return None
        shown = file.name if file.parent == Path.cwd() else file
        return f"{shown}:{line_of(file, 'merchants')}"

    def matching(self, settings: Settings) -> Merchants | None:
        """Return the merchants that `--where` selects; None without it."""
        return self.read_merchants(settings) if self.where else None

    def refuse_where(self, why: Text) -> None:
        """Raise UsageError with `why` if `--where` was given, for a command that cannot leave merchants out."""
        if self.where:
            raise UsageError(why, options=["--where"])

    def where_words(self) -> list[str]:
        """Return `--where` as words of a suggested command."""
        return [word for item in self.where for word in ("--where", item)]

    def selection(self) -> str:
        """Return a text that distinguishes runs over different merchants."""
        return "; ".join(f"where {item}" for item in sorted(self.where))


class Group(click.Group):
    """A group of commands whose shared options may also precede the command's name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments after moving the command's name to the front."""
        shared = self.shared_options()
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
        shared = self.shared_options().values() if ctx.resilient_parsing else ()
        return [*super().get_params(ctx), *dict.fromkeys(shared)]

    def shared_options(self) -> dict[str, click.Option]:
        """Return the shared options of the group's commands by their spelling."""
        shared = {field.name for field in fields(CommonOptions)}
        found: dict[str, click.Option] = {}
        for command in self.commands.values():
            below = command.shared_options() if isinstance(command, Group) else {}
            own = [p for p in command.params if isinstance(p, click.Option) and p.name in shared]
            found = below | {opt: param for param in own for opt in param.opts} | found
        return found


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


def _settings_beside_the_list() -> Path | None:
    """Return the settings file in the folder of the list, or of the folder to send, that was given to the command."""
    from tcb_ops.settings import SETTINGS_FILE

    context = click.get_current_context(silent=True)
    given = context.params if context is not None else {}
    for name in ("paths", "folder", "source", "what"):
        if isinstance(given.get(name), str) and given[name]:
            file = Path(os.path.abspath(given[name])).parent / SETTINGS_FILE  # noqa: PTH100  without `..`
            return file if file.is_file() else None
    return None


def _name_ledger(console: Console, settings: Settings) -> None:
    if settings.origin.ledger_choice is not None:
        console.info(settings.origin.ledger_choice)


def _warn_of_readable_tokens(console: Console, settings: Settings) -> None:
    file = settings.tokens.file
    if os.name == "posix" and settings.tokens.source == "file" and not settings.on_loopback:
        with suppress(OSError):  # an unreadable file is reported when it is needed
            if file.stat().st_mode & 0o077:
                console.warn(
                    _(
                        "{file} can be read by other users of this machine. Restrict it to yourself:\nchmod 600 "
                        "{shlex}",
                        file=file,
                        shlex=shlex.quote(str(file)),
                    )
                )


def target_line(settings: Settings) -> Text:
    """Return the line that names the target, printed first and last by commands that send."""
    label = target_label(settings.run_target, settings.api_base)
    if settings.target:
        return _("{label} (embedded simulator)", label=label)
    return verbatim(label)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Options that determine how a path list is read."""

    column: tuple[str, ...] = ()
    sheet: str = ""
    header_row: int | None = None
    rows: Literal["all", "visible"] | None = None
    maps: tuple[str, ...] = ()
    on_bad: Literal["refuse", "skip"] = "refuse"
    fix_me: str | None = None
    root: str | None = None

    def columns(self) -> dict[str, str]:
        """Return the `--column NAME=HEADER` options as a dict. Raises UsageError for a malformed one."""
        columns: dict[str, str] = {}
        for pair in self.column:
            name, equals, header = pair.partition("=")
            if not equals or not name or not header:
                raise UsageError(_("--column {pair}: write NAME=HEADER, e.g. path=云端路径", pair=pair))
            columns[name.strip()] = header.strip()
        return columns

    def selection(self, common: CommonOptions, limit: int | None) -> str:
        """Return a text that distinguishes runs over different parts of the same list."""
        parts = [
            common.selection(),
            *(f"column {item}" for item in sorted(self.column)),
            *(f"map {item}" for item in sorted(self.maps)),
            *(f"{name} {value}" for name, value in (*self._sheet_options(), ("limit", limit)) if value),
        ]
        return "; ".join(filter(None, parts))

    def words(self, common: CommonOptions) -> list[str]:
        """Return these options, except the root, as words of a suggested command."""
        named = [*(("column", item) for item in self.column), *(("map", item) for item in self.maps)]
        named += [("where", item) for item in common.where]
        named += [(name, str(value)) for name, value in self._sheet_options() if value]
        return [word for name, value in named for word in (f"--{name}", value)]

    def _sheet_options(self) -> tuple[tuple[str, str | int | None], ...]:
        return ("sheet", self.sheet), ("header-row", self.header_row), ("rows", self.rows)


def _limits(**values: Any) -> RunLimits:
    from tcb_ops.runs.limits import RunLimits

    return RunLimits(**values)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options that determine which run is started or resumed, how, and where its report goes; few commands have all."""

    limits: RunLimits = field(default_factory=_limits)
    dry_run: bool = False
    limit: int | None = None
    new_run: bool = False
    resume: str | None = None
    cluster: str | None = None
    share: Share | None = None
    out: str | None = None
    pdf: bool = True
    yes: bool = False


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """Options that make a list of a folder: which files, for whom, and where to."""

    to: tuple[str, ...]
    template: str = "{rel}"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def _group(
    argument: str, kind: type[DataclassInstance], *options: Callable[[Any], Any]
) -> Callable[[Command], Command]:
    """Make a decorator that adds options to a command and passes those that are fields of `kind` to it as one."""
    return _passed_as(argument, [field.name for field in fields(kind)], kind, *options)


def _passed_as(
    argument: str, names: Sequence[str], kind: Callable[..., object], *options: Callable[[Any], Any]
) -> Callable[[Command], Command]:

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_group(*args: Any, **values: Any) -> Any:
            named = {name: values.pop(name) for name in names if name in values}
            return command(*args, **values, **{argument: kind(**named)})

        decorated: Any = with_group
        for option in reversed(options):
            decorated = option(decorated)
        result: Command = decorated
        return result

    return decorate


class WholeNumber(click.IntRange):
    """An integer in a range, with one message for every invalid value."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value as an integer."""
        with suppress(click.BadParameter):
            return super().convert(value, param, ctx)
        template = N_("must be a whole number from {least} to {most}, not '{value}'.")
        if self.max is None:
            template = N_("must be a whole number, {least} or more, not '{value}'.")
        message = gettext.gettext(template).format(value=value, least=self.min, most=self.max)
        raise click.BadParameter(message, ctx, param)


class _Number(click.FloatRange):
    """A number in a range, excluding `nan` and `inf`, which click accepts."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        with suppress(click.BadParameter):
            number = super().convert(value, param, ctx)
            if math.isfinite(number):
                return number
        template = N_("must be a number, {least:g} or more, not '{value}'.")
        if self.min_open:
            template = N_("must be a number greater than {least:g}, not '{value}'.")
        message = gettext.gettext(template).format(value=value, least=self.min)
        raise click.BadParameter(message, ctx, param)


class _Parsed(click.ParamType[Any]):
    """A value that a function reads, with one message for every invalid one."""

    def __init__(self, name: str, read: Callable[[str], Any], message: str) -> None:
        self.name, self._read, self._message = name, read, message

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        with suppress(UsageError, ValueError):
            return self._read(str(value))
        raise click.BadParameter(gettext.gettext(self._message).format(value=value), ctx, param)


def _seconds(text: str) -> float:
    """Return a duration such as 90s, 10m or 26h in seconds."""
    found = re.fullmatch("(0)|([0-9]+)([smh])", text.strip().lower())
    if found is None:
        raise ValueError(text)
    return 0.0 if found[1] else float(found[2]) * {"s": 1, "m": 60, "h": 3600}[found[3]]


def _share(text: str) -> Share:
    from tcb_ops.lists.staging import read_share

    return read_share(text)


def _cluster(text: str) -> str:
    from tcb_ops.runs.cluster import check_cluster

    check_cluster(text)
    return text


DURATION = _Parsed(
    "duration", _seconds, N_("'{value}' is not a time. Write a number and s, m or h: 90s, 10m, 26h.")
)
out_option = click.option("--out", metavar="DIR", help="The report folder. [default: reports/RUN]")
pdf_option = click.option(
    "--no-pdf", "pdf", is_flag=True, flag_value=False, default=True, help="Write no report.pdf."
)
lang_option = click.option(
    "--lang", type=click.Choice(["zh", "en"]), help="Language of messages and reports."
)
common_options = _group(
    "common",
    CommonOptions,
    click.option("--config", metavar="FILE", help="Settings file. [default: tcb-ops.toml here, if there]"),
    click.option(
        "--target",
        metavar="simulator|URL",
        help="Where calls go; simulator: the embedded one. [default: https://api.weixin.qq.com]",
    ),
    click.option("--api-base", metavar="URL", help="The same as --target URL."),
    click.option("--merchants", metavar="FILE", help="Merchants file. [default: merchants.csv]"),
    click.option("--tokens", metavar="FILE", help="Token file: appid,access_token[,expires_at]."),
    click.option("--ledger", metavar="FILE|URL", help="The ledger. [default: tcb-ops.db]"),
    click.option(
        "--where", multiple=True, metavar="COLUMN=VALUE", help="Only matching merchants. Repeatable."
    ),
    click.option("--json", is_flag=True, help="Print one JSON object on stdout."),
    lang_option,
    click.option(
        "--note",
        default="",
        metavar="TEXT",
        help="Kept with the run; `runs` lists only runs whose note contains it.",
    ),
    click.option("--quiet", is_flag=True, help="Print only the result, errors and warnings."),
    click.option("--verbose", is_flag=True, help="Show the stack trace of an internal error."),
)
list_options = _group(
    "listing",
    ListOptions,
    click.option(
        "--column",
        multiple=True,
        metavar="NAME=HEADER",
        help="Which header means env, merchant, path, file or appid. Repeatable.",
    ),
    click.option(
        "--sheet", default="", metavar="NAME", help="The workbook's sheet. [default: the one that fits]"
    ),
    click.option(
        "--header-row",
        type=WholeNumber(min=1),
        metavar="N",
        help="The row of the column names. [default: found; titles above it are skipped]",
    ),
    click.option(
        "--rows",
        type=click.Choice(["all", "visible"]),
        help="Whether a sheet's hidden and filtered rows count. [default: they refuse the list]",
    ),
    click.option(
        "--map",
        "maps",
        multiple=True,
        metavar="THERE=HERE",
        help=r"Where a folder of another machine is on this one, e.g. 'D:\素材=/data/素材'. Repeatable.",
    ),
    click.option(
        "--on-bad",
        type=click.Choice(["refuse", "skip"]),
        default="refuse",
        show_default=True,
        help="Refuse a list that has problems, or continue without those rows.",
    ),
    click.option(
        "--fix-me", metavar="FILE", help="Where the rows with problems go, as CSV. [default: beside the list]"
    ),
    click.option("--root", metavar="DIR", help="The folder of the local files. [default: the list's folder]"),
)
_LIMITS: tuple[tuple[str, click.ParamType[Any], str], ...] = (
    ("concurrency", WholeNumber(1, 1000), "Requests in flight, in all; with --cluster, per worker."),
    ("per_env", WholeNumber(1, 1000), "Rows in flight per environment."),
    ("rate", _Number(min=0, min_open=True), "Link calls per second and appid. [default: no limit]"),
    (
        "attempts",
        WholeNumber(1, 100),
        "Calls per step of a row (link, store); answers that ask to slow down do not count.",
    ),
    ("backoff", _Number(min=0), "Seconds before the second attempt; doubled before each further one."),
    ("slow_wait", _Number(min=0), "Seconds to pause when asked to slow down."),
    ("patience", _Number(min=0), "Give up after this many seconds without progress or connection."),
)


_SECONDS = {"backoff", "slow_wait", "patience"}


class _LimitOption(click.Option):
    """An option whose default is that of RunLimits, which most commands have no use for."""

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:  # noqa: ARG002  as click calls it
        """Return the default."""
        return getattr(_limits(), self.name or "")


cluster_option = click.option(
    "--cluster",
    type=_Parsed(
        "cluster", _cluster, N_("must be local:N with N from 1 to 999, or tls://HOST:PORT, not '{value}'.")
    ),
    metavar="local:N|URL",
    help="Share the work among N processes of this machine, or the workers of a Dask scheduler (tls://HOST:PORT).",
)
share_option = click.option(
    "--share",
    type=_Parsed("share", _share, N_("must be K/N, such as 2/5, with K from 1 to N, not '{value}'.")),
    metavar="K/N",
    help="Only the merchants of share K of N. Each share has a ledger of its own; `ledger join` joins them.",
)
limit_options = _passed_as(
    "limits",
    [name for name, _kind, _text in _LIMITS],
    _limits,
    *(
        click.option(
            f"--{name.replace('_', '-')}",
            cls=_LimitOption,
            type=kind,
            metavar="SECONDS" if name in _SECONDS else "N",
            show_default=True,
            help=text,
        )
        for name, kind, text in _LIMITS
    ),
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be sent; send nothing.")
new_run_option = click.option(
    "--new-run", is_flag=True, help="Start a new run even if there is one to resume."
)
resume_option = click.option("--resume", metavar="RUN", help="Resume this unfinished run.")
limit_option = click.option(
    "--limit",
    type=WholeNumber(min=1),
    metavar="N",
    help="Only the first N valid rows, with --share of each share.",
)
# Decorators below those of the other options of a run, which they pass to the command as RunOptions.
run_options = _group("which", RunOptions, dry_run_option, limit_option, new_run_option, resume_option)
resume_options = _group("which", RunOptions, new_run_option, resume_option)
given_options = _group("which", RunOptions)


def port_option(default: int) -> Callable[[Command], Command]:
    """Return the option of a command that listens on a port."""
    kind = WholeNumber(0, 65535)
    return click.option(
        "--port", type=kind, metavar="N", default=default, show_default=True, help="0 for any free one."
    )


def scan_options(path_help: str) -> Callable[[Command], Command]:
    """Return the options of a command that scans a folder; `path_help`: the help of --path."""
    return _group(
        "scanning",
        ScanOptions,
        click.option(
            "--to",
            multiple=True,
            required=True,
            metavar="WHOM",
            help="An env, a merchant's name or appid; all: every merchant's default environment; all-envs: every "
            "environment. --where narrows the last two. Repeatable.",
        ),
        click.option(
            "--path",
            "template",
            default="{rel}",
            show_default=True,
            metavar="TEMPLATE",
            help=path_help,
        ),
        click.option(
            "--include", multiple=True, metavar="GLOB", help="Only such files, e.g. '*.png'. Repeatable."
        ),
        click.option(
            "--exclude", multiple=True, metavar="GLOB", help="Exclude such files, e.g. '旧/*'. Repeatable."
        ),
    )
