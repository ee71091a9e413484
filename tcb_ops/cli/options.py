"""Options that several commands share: frozen dataclasses, whose fields are the options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from tcb_ops.cli.console import Console
from tcb_ops.disk import others_may_read, restricting
from tcb_ops.errors import TcbOpsError, UsageError, needed
from tcb_ops.hooks import ClusterHooks, Hooks, MapHooks, PdfHooks, SimulatorHooks, WorkbookHooks, hooks
from tcb_ops.i18n import N_, Text, _, as_list, verbatim
from tcb_ops.kinds import ANY_KIND, kind_names
from tcb_ops.model import PLATFORM, Selection, is_foreign
from tcb_ops.settings import SETTINGS_FILE, Settings, holds_password, read_settings
from tcb_ops.settings_files import with_found_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from tcb_ops.lists.merchants import Merchants

Function = TypeVar("Function", bound=Callable[..., Any])


class Option(click.Option):
    """An option of a group of the complete help; without one it is the command's own.

    `needs`: the hooks that it uses. Without them the option is not in the help, and is refused.
    """

    def __init__(
        self, *declarations: Any, group: str = "", needs: type[Hooks] | None = None, **attributes: Any
    ) -> None:
        super().__init__(*declarations, **attributes)
        self.group, self.needs = group, needs
        self.hidden = self.hidden or not self.can_be_used

    @property
    def can_be_used(self) -> bool:
        """Whether what it needs is installed."""
        return self.needs is None or hooks(self.needs) is not None

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Take the option's value. Raises MissingFeatureError if it is given and cannot be used."""
        if self.name in opts and self.needs is not None:
            needed(self.needs, _("Leave out {option}, or install all of tcb-ops.", option=self.opts[0]))
        return super().handle_parse_result(ctx, opts, args)


own_option = partial(click.option, cls=Option)
"""The decorator of an option that one command has."""


def given(text: str, default: Any = None, *, name: str = "", **attributes: Any) -> Any:
    """Return a field that an option gives, with the option's help; its name is the field's, unless another is given.

    With a tuple as the default the option is repeatable, with False it is a flag.
    """
    if default == ():
        attributes["multiple"] = True
    elif default is False:
        attributes["is_flag"] = True
    elif default is not None:
        attributes["default"] = default
    return field(default=default, metadata={"option": name, "attributes": attributes | {"help": text}})


def options_of(kind: type[DataclassInstance], *names: str, **helps: str) -> Callable[[Function], Function]:
    """Return a decorator that adds the options of some fields, or all, to a command; `helps`: other texts than theirs."""
    chosen = [option for option in fields(kind) if option.name in names or not names]

    def decorate(function: Function) -> Function:
        for option in reversed(chosen):
            spelling = f"--{option.metadata['option'] or option.name.replace('_', '-')}"
            attributes = {"cls": Option, "group": _GROUPS[kind.__name__], **option.metadata["attributes"]}
            attributes["help"] = helps.get(option.name, attributes["help"])
            function = click.option(spelling, option.name, **attributes)(function)
        return function

    return decorate


_GROUPS = {
    "ScanOptions": N_("Files"),
    "ListOptions": N_("List"),
    "RunOptions": N_("Run"),
    "LimitOptions": N_("Limits"),
    "CommonOptions": N_("Settings"),
}
"""The groups of the complete help, by the classes of options."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CommonOptions:
    """The options that commands share. A command takes those that it uses."""

    config: str | None = given("Settings file. [default: tcb-ops.toml here, if there]", metavar="FILE")
    target: str | None = given(
        "Where calls go. [default: as the settings say]",
        metavar="simulator|URL" if hooks(SimulatorHooks) else "URL",
    )
    api_base: str | None = given("The same as --target URL.", metavar="URL", hidden=True)
    merchants: str | None = given("Merchants file. [default: merchants.csv]", metavar="FILE")
    tokens: str | None = given("Token file: appid,access_token[,expires_at].", metavar="FILE")
    ledger: str | None = given("The ledger. [default: tcb-ops.db]", metavar="FILE|URL")
    where: tuple[str, ...] = given("Only matching merchants. Repeatable.", (), metavar="COLUMN=VALUE")
    json: bool = given("Print one JSON object on stdout.", default=False)
    lang: str | None = given("Language of messages and reports.", type=click.Choice(["zh", "en"]))
    note: str = given("Kept with the run; `runs` lists only runs whose note contains it.", "", metavar="TEXT")
    quiet: bool = given("Print only the result, errors and warnings.", default=False)
    verbose: bool = given(
        "Show the stack trace of an internal error; with --json, the progress as JSON lines.", default=False
    )

    def overrides(self) -> dict[str, str | None]:
        """Return the settings that these options override, except the tokens."""
        return {name: getattr(self, name) for name in ("api_base", "target", "merchants", "ledger", "lang")}

    def settings(self) -> Settings:
        """Return the settings of the settings file and the environment, overridden by these options."""
        settings = read_settings(self.config, self.overrides())
        if self.tokens is None:
            return settings
        tokens = replace(settings.tokens, source="file", file=Path(self.tokens))
        return replace(settings, tokens=tokens)

    def start(self) -> tuple[Settings, Console]:
        """Return the settings and the console."""
        settings = self.settings()
        console = Console(settings.lang, quiet=self.quiet, progress_as_json=self.json and self.verbose)
        if self.ledger and holds_password(self.ledger):
            console.warn(
                _(
                    "The password in {--ledger} can be seen in this machine's process list, and the commands "
                    "suggested here omit it: set TCB_OPS_LEDGER to the URL instead, or `ledger` in tcb-ops.toml."
                )
            )
        return settings, console

    @contextmanager
    def open_target(
        self, console: Console, settings: Settings, *, looks_at_tokens: bool = True, yes: bool = False
    ) -> Iterator[Settings]:
        """Open the target for a command that sends; the first line printed names the target.

        Other messages are held back until the command releases the console or ends. With `looks_at_tokens`, warn about a
        token file that others can read, or whose tokens have expired. A public host that is not the platform's is asked about,
        without `yes`, where an option or a variable names it.
        """
        from tcb_ops.start import opened_target

        if not yes and settings.origin.overridden & {"target", "api_base"} and is_foreign(settings.api_base):
            _ask_about(settings.api_base, console)
        with (
            opened_target(settings, lambda: self.read_merchants(settings).whole) as opened,
            console.held(None if self.quiet and opened.simulated else first_line(opened)),
        ):
            if looks_at_tokens:
                _warn_about_tokens(console, opened)
            yield opened

    def read_merchants(self, settings: Settings) -> Merchants:
        """Return the merchants of the merchants file, narrowed by `--where`."""
        from tcb_ops.start import merchants_for

        return merchants_for("", {"settings": settings}, self.where)

    def matching(self, settings: Settings) -> Merchants | None:
        """Return the merchants that `--where` selects; None without it."""
        return self.read_merchants(settings) if self.where else None

    def refuse_where(self, reason: Text) -> None:
        """Raise UsageError with `why` if `--where` was given where merchants cannot be left out."""
        if self.where:
            raise UsageError(reason)

    def selection(self) -> Selection:
        """Return which merchants a run is about."""
        return Selection.of_list(self.where)


def _ask_about(target: str, console: Console) -> None:
    """Ask whether tokens may go to a host that is not the platform's. Raises UsageError for a no, or without a terminal."""
    question = _(
        "{target} is not an address of WeChat ({platform}). Send the merchants' tokens there?",
        target=target,
        platform=PLATFORM,
    )
    if not sys.stdin.isatty():
        raise UsageError(question, _("Without a terminal, write it into tcb-ops.toml as `target` instead."))
    if not console.confirm(question):
        raise UsageError(_("Nothing was sent."))


def _warn_about_tokens(console: Console, settings: Settings) -> None:
    """Warn of a token file that others can read, or whose tokens have expired; the embedded simulator has its own."""
    file = settings.tokens.file
    if settings.tokens.source != "file" or settings.target:
        return
    from tcb_ops.wechat.tokens import FileTokens

    with suppress(TcbOpsError):  # an invalid file is reported when it is needed
        if expired := FileTokens(file).expired():
            console.warn(
                _(
                    "{file}: by their expires_at, the tokens of {appids} have expired. Renew them first.",
                    file=file,
                    appids=as_list(expired, most=3),
                )
            )
    if not settings.simulated:
        with suppress(OSError):  # an unreadable file is reported when it is needed
            if others_may_read(file):
                console.warn(
                    _(
                        "{file} can be read by other users of this machine. Restrict it to yourself:\n{command}",
                        file=file,
                        command=restricting(file),
                    )
                )


def first_line(settings: Settings) -> Text:
    """Return the line that names the target, and the settings file if it was found in the working folder."""
    return with_found_file(target_line(settings), settings.origin.found, SETTINGS_FILE)


def target_line(settings: Settings) -> Text:
    """Return the line that names the target, printed first and last by commands that send."""
    label = settings.target_label
    if settings.target:
        return _("{label} (embedded simulator)", label=label)
    return verbatim(label)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ListOptions:
    """Options that determine how a path list is read."""

    column: tuple[str, ...] = given(
        "Which header means env, merchant, path, file or appid. Repeatable.", (), metavar="NAME=HEADER"
    )
    sheet: str = given(
        "The workbook's sheet. [default: the one that fits]", "", needs=WorkbookHooks, metavar="NAME"
    )
    header_row: int | None = given(
        "The row of the column names. [default: found; titles above it are skipped]",
        type=click.IntRange(min=1),
        metavar="N",
    )
    rows: Literal["all", "visible"] | None = given(
        "Whether a sheet's hidden and filtered rows count. [default: they refuse the list]",
        needs=WorkbookHooks,
        type=click.Choice(["all", "visible"]),
    )
    maps: tuple[str, ...] = given(
        r"Where a folder of another machine is on this one, e.g. 'D:\素材=/data/素材'. Repeatable.",
        (),
        name="map",
        needs=MapHooks,
        metavar="THERE=HERE",
    )
    on_bad: Literal["refuse", "skip"] = given(
        "Refuse a list that has problems, or continue without those rows.",
        "refuse",
        type=click.Choice(["refuse", "skip"]),
        show_default=True,
    )
    fix_me: str | None = given(
        "Where the rows with problems go, as CSV. [default: beside the list]",
        metavar="FILE",
    )
    root: str | None = given("The folder of the local files. [default: the list's folder]", metavar="DIR")

    def columns(self) -> dict[str, str]:
        """Return the `--column NAME=HEADER` options as a dict. Raises UsageError for a malformed one."""
        columns: dict[str, str] = {}
        for pair in self.column:
            name, equals, header = pair.partition("=")
            if not equals or not name or not header:
                raise UsageError(_("{--column} {pair}: write NAME=HEADER, e.g. path=云端路径", pair=pair))
            columns[name.strip()] = header.strip()
        return columns

    def selection(self, common: CommonOptions) -> Selection:
        """Return which part of a list and of the merchants a run is about."""
        how = {"sheet": self.sheet, "header_row": self.header_row, "rows": self.rows}
        return Selection.of_list(common.where, self.column, self.maps, **how)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RunOptions:
    """Options that determine which run is started or resumed, how, and where its report goes; few commands have all."""

    out: str | None = given("The report folder. [default: reports/RUN]", metavar="DIR")
    pdf: bool = given(
        "Also write report.pdf, printed by a Chromium or Edge of this machine.", default=False, needs=PdfHooks
    )
    yes: bool = given("Do not ask before files on a live target are changed.", default=False)
    cluster: str | None = given(
        "Share the work among N processes of this machine, or the workers of a Dask scheduler (tls://HOST:PORT).",
        metavar="local:N|URL",
        needs=ClusterHooks,
    )
    dry_run: bool = given("Show what would be sent; send nothing.", default=False)
    limit: int | None = given("Only the first N valid rows.", type=click.IntRange(min=1), metavar="N")
    new_run: bool = given("Start a new run even if there is one to resume.", default=False)
    resume: str | None = given("Resume this unfinished run.", metavar="RUN")


def _limit(text: str, default: Any, kind: click.ParamType[Any], metavar: str = "SECONDS") -> Any:
    return given(text, default, type=kind, metavar=metavar, show_default=True)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LimitOptions:
    """Options of a run's limits: the fields of RunLimits, which most commands do not load, with its defaults."""

    concurrency: int = _limit(
        "Requests in flight, in all; in a cluster, per worker.", 64, click.IntRange(1, 1000), "N"
    )
    per_env: int = _limit("Rows in flight per environment.", 8, click.IntRange(1, 1000), "N")
    rate: float | None = _limit(
        "Link calls per second and appid. [default: no limit]",
        None,
        click.FloatRange(min=0, min_open=True),
        "N",
    )
    attempts: int = _limit(
        "Calls per step of a row (link, store); answers that ask to slow down do not count.",
        4,
        click.IntRange(1, 100),
        "N",
    )
    backoff: float = _limit(
        "Seconds before the second attempt; doubled before each further one.", 1.0, click.FloatRange(min=0)
    )
    slow_wait: float = _limit("Seconds to pause when asked to slow down.", 60.0, click.FloatRange(min=0))
    patience: float = _limit(
        "Give up after this many seconds without progress or connection.", 300.0, click.FloatRange(min=0)
    )


common_options = options_of(CommonOptions)
lang_option = options_of(CommonOptions, "lang")


def settings_options(*uses: str) -> Callable[[Function], Function]:
    """Return the options of a command that reads the settings, with those of the shared ones that it `uses`."""
    target = ("target", "api_base") if "target" in uses else ()
    return options_of(CommonOptions, "config", "lang", "quiet", "verbose", *target, *uses)


kind_option = click.option(
    "--kind",
    type=click.Choice([*kind_names(), ANY_KIND]),
    metavar="KIND",
    help="The kind of run that `latest` is, or any. [default: links or upload]",
)
reader_options = settings_options("target", "merchants", "ledger", "where", "json")
list_options = options_of(ListOptions)
report_options = options_of(RunOptions, "out", "pdf")
pdf_option = options_of(RunOptions, "pdf")
yes_option = options_of(RunOptions, "yes")
upload_yes_option = options_of(RunOptions, "yes", yes="Do not ask before uploading to a live target.")
cluster_option = options_of(RunOptions, "cluster")
new_run_options = options_of(RunOptions, "dry_run", "new_run")
resume_options = options_of(RunOptions, "new_run", "resume")
rehearsed_options = options_of(RunOptions, "dry_run", "new_run", "resume")
run_options = options_of(RunOptions, "dry_run", "limit", "new_run", "resume")
limit_options = options_of(LimitOptions)


def table_option(text: str) -> Callable[[Function], Function]:
    """Return the option of a command that can write its result as a table."""
    metavar = "FILE.xlsx|.csv" if hooks(WorkbookHooks) else "FILE.csv"
    return click.option("--out", type=click.Path(path_type=Path), metavar=metavar, help=text)
