"""Shell completion by click: suggested values for options and arguments, and the shells' scripts.

An option's metavar or an argument's name determines the suggestions. Completion writes nothing and reports no errors: if the
settings, the ledger or the merchants file cannot be read, their suggestions are omitted.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, suppress
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    shell_complete,
)

from tcb_ops.cli import Command
from tcb_ops.cli.options import (
    lang_option,
)
from tcb_ops.formatting import sanitize
from tcb_ops.i18n import _
from tcb_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    from tcb_ops.model import Merchant

VARIABLE = "_TCB_OPS_COMPLETE"
"""The environment variable by which a shell's script passes shell and instruction, such as `bash_complete`."""
RUNS_SHOWN = 50
Suggest = Callable[[click.Context, click.Parameter, str], Iterable["CompletionItem[str]"]]


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@lang_option
def completion(shell: str, lang: str | None) -> int:  # noqa: ARG001  main reads it
    """Print the script that completes commands in a shell.

    Commands, options, files, runs, merchants and errcodes. Set it up once, then open a new shell:

    bash: echo 'eval "$(tcb-ops completion bash)"' >> ~/.bashrc

    zsh: echo 'eval "$(tcb-ops completion zsh)"' >> ~/.zshrc

    fish: tcb-ops completion fish > ~/.config/fish/completions/tcb-ops.fish
    """
    made = get_completion_class(shell)
    assert made is not None  # noqa: S101  click has all three
    click.echo(made(click.get_current_context().find_root().command, {}, "tcb-ops", VARIABLE).source())
    return 0


def answer(cli: click.Group) -> int:
    """Answer a shell's script on stdout. Nothing is printed on stderr: it would appear in the line being typed."""
    with redirect_stderr(io.StringIO()), suppress(Exception, KeyboardInterrupt):
        for shell in (_Bash, _Zsh, _Fish):
            add_completion_class(shell)
        obj = {"obj": _with_suggestions}  # which the groups call for each command that the line needs
        shell_complete(_with_suggestions(cli), obj, "tcb-ops", VARIABLE, os.environ[VARIABLE])
    return 0


# --- suggestions ---------------------------------------------------------------------------------------------------


class _Suggested(click.types.StringParamType):
    """A string parameter with suggestions."""

    def __init__(self, suggest: Suggest) -> None:
        self._suggest = suggest

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        found = self._suggest(ctx, param, incomplete)
        fitting = (item for item in found if item.type != "plain" or item.value.startswith(incomplete))
        return list({item.value: item for item in fitting}.values())


def _with_suggestions(command: click.Command) -> click.Command:
    """Give a command's options and arguments of text their suggestions."""
    for param in command.get_params(click.Context(command, resilient_parsing=True)):
        key = param.name if isinstance(param, click.Argument) else param.metavar or param.name
        if param.type is click.STRING and key in _SUGGESTIONS:
            param.type = _Suggested(_SUGGESTIONS[key])
    command._help_option = None  # noqa: SLF001  click cached it without `-h`, of which this context knows nothing
    return command


def _settings(ctx: click.Context) -> Settings:
    """Return the settings with the options given earlier on the line, which the shell has not expanded."""
    given = {
        name: ctx.params.get(name) for name in ("config", "target", "api_base", "merchants", "ledger", "lang")
    }
    for name, value in given.items():
        if value:
            given[name] = os.path.expanduser(os.path.expandvars(value))  # noqa: PTH111  it may be a URL
    config = given.pop("config")
    if config and not Path(config).is_file():  # opening a named pipe would block
        raise FileNotFoundError(config)
    return load_settings(config, given)


def _runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> Iterator[CompletionItem[str]]:
    from tcb_ops.runs.records import newest_runs

    settings = _settings(ctx)
    resumed = param.name == "resume"
    if not resumed:
        yield CompletionItem("latest", help=_("the newest run of this target").of(settings.lang))
    begins = "" if "latest".startswith(incomplete) else incomplete
    with suppress(Exception):  # a ledger that cannot be read
        for run, kind, created_at, list_name in newest_runs(
            settings.ledger, begins, RUNS_SHOWN, unfinished=resumed
        ):
            date = f"{datetime.fromtimestamp(created_at, settings.zone):%Y-%m-%d %H:%M}"
            yield CompletionItem(run, help=" ".join(filter(None, (kind, date, list_name))))


def _codes(ctx: click.Context, param: click.Parameter, _incomplete: str) -> Iterator[CompletionItem[str]]:
    """Suggest the codes of the run that the line names, where it names one; otherwise all codes."""
    from tcb_ops.errcodes import Errcode, StoreCode, all_errcodes, all_store_codes

    settings = _settings(ctx)
    entries: tuple[Errcode | StoreCode, ...] = (*all_errcodes(), *all_store_codes())
    known = {str(entry.code): entry for entry in entries if entry.code != ""}
    there = _codes_of_run(ctx, settings) if isinstance(param, click.Option) else []
    for code in there or known:
        entry = known.get(code)
        text = None if entry is None else entry.label.of(settings.lang) or entry.meaning.of(settings.lang)
        yield CompletionItem(code, help=text)


def _codes_of_run(ctx: click.Context, settings: Settings) -> list[str]:
    """Return the codes of the line's run, most rows first; none if they cannot be read."""
    from tcb_ops.runs.records import codes_of_run

    with suppress(Exception):  # no such run, or a ledger that cannot be read
        # click leaves the arguments of a line whose last option has no value yet unparsed.
        run = next(iter(ctx.args), ctx.params.get("run")) or "latest"
        return codes_of_run(settings.ledger, run, settings.run_target)
    return []


def _runs_or_files(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> Iterator[CompletionItem[str]]:
    """Suggest runs, and files beside them; bash forgets what precedes an item that stands for files in general."""
    runs = [run for run in _runs(ctx, param, incomplete) if run.value.startswith(incomplete)]
    yield CompletionItem(incomplete, type="file")
    yield from runs
    if incomplete and runs:
        for file in sorted(Path().glob(f"{escape(incomplete)}*")):
            yield CompletionItem(str(file))


def _lists(ctx: click.Context, param: click.Parameter, incomplete: str) -> Iterator[CompletionItem[str]]:
    """Suggest files; for `links`, also the runs of --download."""
    if ctx.info_name == "links":
        yield from _runs_or_files(ctx, param, incomplete)
    else:
        yield CompletionItem(incomplete, type="file")


def _merchant_lines(ctx: click.Context) -> Iterable[Merchant]:
    from tcb_ops.lists.merchants import read_merchants

    file = _settings(ctx).merchants
    with suppress(Exception):  # a file that cannot be read
        return read_merchants(file) if Path(file).is_file() else ()
    return ()


def _merchants(ctx: click.Context, param: click.Parameter, _incomplete: str) -> Iterator[CompletionItem[str]]:
    if param.metavar == "WHOM":
        yield from map(CompletionItem, ("all", "all-envs"))
    lines = _merchant_lines(ctx)
    for part in {"ENV": ("env",), "APPID": ("appid",), "WHOM": ("name", "appid", "env")}.get(
        param.metavar or "", ("name", "appid")
    ):
        for line in lines:
            yield CompletionItem(getattr(line, part), help=line.appid if part == "name" else line.name)


def _where(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Iterator[CompletionItem[str]]:
    """Suggest the merchants file's columns, or the values of the only one that matches."""
    cells = [cell for line in _merchant_lines(ctx) for cell in line.columns if all(cell)]
    columns = dict.fromkeys(f"{header}=" for header, _ in cells)
    meant = [each for each in columns if each.startswith(incomplete) or incomplete.startswith(each)]
    values = (f"{header}={value}" for header, value in cells if [f"{header}="] == meant)
    yield from map(CompletionItem, values if len(meant) == 1 else meant)


def _notebooks(
    _ctx: click.Context, _param: click.Parameter, _incomplete: str
) -> Iterator[CompletionItem[str]]:
    from tcb_ops.features.notebooks.parameters import notebook_names

    yield from map(CompletionItem, notebook_names())


_SUGGESTIONS: dict[str | None, Suggest] = {
    **dict.fromkeys(
        ("FILE", "FILE.csv", "FILE|URL", "ORIGINAL.xlsx", "PATH", "source"),
        lambda _ctx, _param, incomplete: [CompletionItem(incomplete, type="file")],
    ),
    **dict.fromkeys(
        ("DIR", "folder"), lambda _ctx, _param, incomplete: [CompletionItem(incomplete, type="dir")]
    ),
    **dict.fromkeys(("RUN", "run", "older", "newer", "wanted"), _runs),
    "what": _runs_or_files,
    "paths": _lists,
    **dict.fromkeys(("CODE", "code"), _codes),
    "name": _notebooks,
    **dict.fromkeys(("WHOM", "ENV", "APPID", "merchant"), _merchants),
    "COLUMN=VALUE": _where,
    "simulator|URL": lambda *_: [CompletionItem("simulator")],
}
"""By an option's metavar or an argument's name."""


# --- shells --------------------------------------------------------------------------------------------------------


class _Shell(ShellComplete):
    """Additions to click for every shell: `--option=value`, negative codes, no values that the script cannot read."""

    spoilt = ""
    """Characters that the shell's script cannot read in a value."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        if args and re.match(r"-\d", incomplete):  # a negative errcode, not an option
            args = [*args[:-1], "--", args[-1]] if args[-1].startswith("-") else [*args, "--"]
        option, equals, _other = incomplete.partition("=")
        prefix = f"{option}=" if equals and option.startswith("--") else ""
        found = super().get_completions(args, incomplete)
        for item in found:
            if item.type == "plain":
                item.value = prefix + item.value
                item.help = sanitize(item.help or "").translate({ord(c): ";" for c in self.spoilt}) or None
        return [item for item in found if item.value.isprintable() and not set(self.spoilt) & set(item.value)]


class _Bash(_Shell, BashComplete):
    """Completion for bash, which splits words at `=`, `:` and `@`, replaces only the last part, and quotes nothing."""

    _before = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        words, joins = [""], False
        for word in (*args, incomplete):
            breaks = bool(word) and set(word) <= set("=:@")
            if word and len(words) > 1 and (breaks or joins):
                words[-1] += word
            else:
                words.append(word)
            joins = breaks
        self._before = words[-1].removesuffix("" if joins else incomplete)
        if os.environ["COMP_WORDS"].rpartition("\n")[2][:1] in {'"', "'"}:
            self.spoilt = "\"'\\$`!"
        return words[1:-1], words[-1]

    def format_completion(self, item: CompletionItem[str]) -> str:
        value = item.value.removeprefix(self._before)
        if not self.spoilt:
            value = re.sub(r"""([\s"'\\$`!#&()*;<>?\[\]^{|}~])""", r"\\\1", value)
            value = value.replace("\\", r"\\")  # the script's `read` removes one level
        return f"{item.type},{value}"


class _Zsh(_Shell, ZshComplete):
    pass


class _Fish(_Shell, FishComplete):
    spoilt = ","
